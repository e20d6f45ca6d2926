"""The recipes of the core, and its overlays."""

from __future__ import annotations

from shared.recipes import Overlays, Recipes

from litgan import (
    adversarial_weight,
    augment,
    data,
    losses,
    metrics,
    networks,
    penalties,
    reconstruction,
    schedules,
)

FOLDERS = (
    "MNIST", "FashionMNIST", "CIFAR10", "CelebA", "ImageFolder", "PairedFolder", "ArrowImages", "ShardImages",
)  # fmt: skip


class TestRecipes(Recipes):
    rooms = (
        adversarial_weight, augment, data, losses, metrics, networks, penalties, reconstruction, schedules,
    )  # fmt: skip
    texts = {f"{name}.root" for name in FOLDERS} | {
        "ArrowImages.image", "ArrowImages.label", "ShardImages.label", "PairedFolder.conditions",
        "FashionMNIST.installed", "CelebA.attribute", "Classifier.name", "DiffAugment.policy",
        "Inception.weights", "Perceptual.layers", "Report.values", "Report.protocol", "Report.classes",
    }  # fmt: skip


class TestOverlays(Overlays):
    """Over digits."""
