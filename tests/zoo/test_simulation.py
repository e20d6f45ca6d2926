"""The recipes of the zoo on a simulated device."""

from __future__ import annotations

from shared.simulation.recipes import Simulations


class TestSimulations(Simulations):
    folder = "zoo"
    launches = {
        "cifar10_sngan": (4889, 4715),
        "cifar10_sngan_conditional": (5441, 5264),
        "cifar10_stylegan2_ada": (3083, 2539),
        "cifar10_stylegan2_ada_conditional": (3545, 2940),
        "fashion_mnist_sngan": (1223, 1061),
        "fashion_mnist_stylegan2": (2120, 1701),
        "ffhq256_stylegan2": (7243, 3424),
    }
