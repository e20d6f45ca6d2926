"""The recipes of translation on a simulated device."""

from __future__ import annotations

from shared.simulation.recipes import Simulations


class TestSimulations(Simulations):
    folder = "translation"
    launches = {
        "digits_unpaired": (1092, 996),
        "digits_vq": (713, 588),
        "digits_x4": (381, 173),
        "fashion_unpaired": (1840, 1702),
        "fashion_vq": (1227, 1236),
        "fashion_x4": (278, 435),
        "horse2zebra_cyclegan": (3822, 3670),
        "imagenet_vqgan": (4104, 4402),
    }
