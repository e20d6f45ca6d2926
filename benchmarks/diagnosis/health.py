"""What watching the health costs, measured as benchmarks/telescope.py measures the telescope.

python benchmarks/diagnosis/health.py [--only digits fashion_mnist] [--rounds 9]
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parents[1]))

import telescope

from litgan.diagnosis import Diagnosis

if __name__ == "__main__":
    telescope.main({"health": Diagnosis}, __doc__, __file__)
