"""The recipes of the zoo, and its overlay."""

from __future__ import annotations

import math

import pytest
import yaml
from shared.recipes import CONFIGS, Overlays, Recipes

from litgan import zoo
from litgan.schedules import Cosine


class TestRecipes(Recipes):
    folder = "zoo"
    rooms = (zoo,)
    texts = {
        "ProjectedDiscriminator.backbone", "OneStageGAN.compile", "OneStageGAN.freeze",
        "OneStageGAN.gradient_clip_val", "OneStageGAN.reconstruction",
    }  # fmt: skip


class TestOverlays(Overlays):
    folder = "zoo"


@pytest.mark.parametrize(
    ("name", "end"), [("cifar10_r3gan", 0.55), ("cifar10_r3gan_conditional", 0.55), ("ffhq64_r3gan", 0.3)]
)
def test_r3gan_augments_by_the_authors_schedule(name, end):
    """train.py and training_loop.py: a cosine over 2e7 images; half the chance for colors, cutout 1."""
    options = yaml.safe_load((CONFIGS / f"{name}.yaml").read_text())["model"]["augment"]["init_args"]
    p = Cosine(**options.pop("p")["init_args"])
    for share in (0.0, 0.3, 1.0, 2.0):
        wanted = end + (0 - end) * 0.5 * (1 + math.cos(math.pi * min(share, 1.0)))
        assert p(int(share * 2e7)) == pytest.approx(wanted)
    assert options == {"target": None, "color": 0.5, "cutout": 1.0}


@pytest.mark.parametrize("name", ["cifar10_sngan", "cifar10_sngan_conditional"])
def test_sngan_takes_50000_iterations_down_to_a_rate_of_zero(name):
    """configs/sn_cifar10_*.yml of pfnet-research/sngan_projection; datasets/cifar10.py adds the noise."""
    recipe = yaml.safe_load((CONFIGS / "zoo" / f"{name}.yaml").read_text())
    model, data = recipe["model"], recipe["data"]["init_args"]
    assert recipe["trainer"]["max_steps"] == 50_000 and data["dequantize"]
    images = 50_000 * data["batch_size"] * model["discriminator_steps"]
    assert model["lr_schedule"]["init_args"] == {"start": 1.0, "end": 0.0, "images": images}


@pytest.mark.parametrize("name", ["cifar10_stylegan2_ada", "cifar10_stylegan2_ada_conditional"])
def test_adam_and_the_average_are_those_of_stylegan2_ada(name):
    """Lazy regularization of G, though its weight is 0, every 4 steps: lr * c, beta2 ** c with c = 4 / 5.

    Of D's 17 steps, 16 with the loss and one with R1 at c = 16 / 17, litgan makes 16 with the whole rate.
    """
    model = yaml.safe_load((CONFIGS / "zoo" / f"{name}.yaml").read_text())["model"]
    of_generator, of_discriminator = (
        model[f"{network}_optimizer"]["init_args"] for network in ("generator", "discriminator")
    )
    assert of_generator["lr"] == pytest.approx(0.0025 * 4 / 5)
    assert of_generator["betas"] == pytest.approx([0, 0.99 ** (4 / 5)], abs=5e-6)
    assert of_discriminator["lr"] == pytest.approx(0.0025 * 16 / 17 * 17 / 16)
    assert model["ema_rampup"] == 0.05 and model["ema_halflife"] == 500_000
