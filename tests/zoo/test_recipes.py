"""The recipes of the zoo, and its overlay."""

from __future__ import annotations

import pytest
import yaml
from shared.recipes import CONFIGS, Overlays, Recipes

from litgan import zoo


class TestRecipes(Recipes):
    folder = "zoo"
    rooms = (zoo,)
    texts = {"ProjectedDiscriminator.backbone", "OneStageGAN.compile", "OneStageGAN.gradient_clip_val"}


class TestOverlays(Overlays):
    folder = "zoo"


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
