"""What the diagnosis costs, measured as benchmarks/gradient_flow.py measures the gradient flow.

python benchmarks/diagnosis/health.py [--only digits fashion_mnist] [--rounds 9]
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parents[1]))

import gradient_flow

from litgan.diagnosis import Diagnosis

if __name__ == "__main__":
    gradient_flow.main({"health": Diagnosis}, __doc__, __file__)
