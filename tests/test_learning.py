"""GANs that learn: the ring of eight Gaussians, by its recipe, and one Gaussian in seconds."""

from __future__ import annotations

from pathlib import Path

import pytest
from shared.learning import check_one_gaussian

from litgan.data.toy import mode_report
from litgan.losses import Hinge, LeastSquares, NonSaturating, Relativistic, Wasserstein
from litgan.penalties import R1, R2, WGANGP

RECIPE = Path(__file__).parents[1] / "configs" / "ring.yaml"


@pytest.mark.train
def test_the_recipe_finds_all_modes_of_the_ring(tmp_path):
    from litgan.recipe import Recipe

    recipe = Recipe(["--config", str(RECIPE), "--trainer.default_root_dir", str(tmp_path),
                     "--trainer.logger", "false", "--trainer.enable_progress_bar", "false"])  # fmt: skip
    untrained = mode_report(recipe.model.sample(4000), recipe.datamodule.centers, recipe.datamodule.std)
    recipe.trainer.fit(recipe.model, datamodule=recipe.datamodule)
    covered, good = mode_report(recipe.model.sample(4000), recipe.datamodule.centers, recipe.datamodule.std)
    print(f"{covered} of 8 modes, {good:.1%} of samples within 3 sigma")
    assert untrained[0] < 4 and untrained[1] < 0.2
    assert covered >= 7
    assert good >= 0.80
    assert recipe.model.images_seen == 768_000, "within this budget"


@pytest.mark.parametrize(
    ("loss", "penalties"),
    [
        (NonSaturating(), [R1(0.02)]),
        (Relativistic(), [R1(0.02), R2(0.02)]),
        (LeastSquares(), [R1(0.02)]),
        (Hinge(), [R1(0.02)]),
        (Wasserstein(), [WGANGP(0.1)]),
    ],
    ids=repr,
)
def test_every_loss_finds_one_gaussian(loss, penalties, tiny_gan, make_trainer):
    check_one_gaussian(tiny_gan, make_trainer, 150, loss=loss, penalties=penalties)
