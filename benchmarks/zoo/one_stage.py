"""The cost of one iteration with one-stage updates, and of SNGAN's, measured as in benchmarks/step.py.

python benchmarks/zoo/one_stage.py [--only dcgan-64 ...] [--rounds 15]
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parents[1]))

from step import FASHION, PLAIN, REFERENCE, Case, main

ONE_STAGE = "--model=litgan.zoo.OneStageGAN"
CASES = {
    "dcgan-64": Case(FASHION, (*REFERENCE, *PLAIN, ONE_STAGE)),
    "dcgan-64 or two": Case(
        FASHION, (*REFERENCE, *PLAIN, ONE_STAGE), number=20, baselines=(), other=("--model=litgan.GAN",)
    ),
    "dcgan-64 compiled": Case(FASHION, (*REFERENCE, *PLAIN, "--model.compile=true", ONE_STAGE)),
    "sngan-64": Case("configs/zoo/cifar10_sngan.yaml", ("--data=synthetic.Synthetic",), number=1),
}

if __name__ == "__main__":
    main(CASES, __doc__, __file__)
