"""LPIPS, with made-up weights in place of ImageNet's."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import torchvision
from shared.pairs import Pairs
from torch import nn
from torchmetrics.image.lpip import LearnedPerceptualImagePatchSimilarity

from litgan import GAN, cli, commands
from litgan.callbacks import Realism
from litgan.metrics import LPIPS, evaluate
from litgan.penalties import Context
from litgan.rebuild import Builder
from litgan.recipe import Recipe
from litgan.reconstruction import Distance


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Torch's folder of weights, with those of the smallest network."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    folder = tmp_path / "hub" / "checkpoints"
    folder.mkdir(parents=True)
    torch.manual_seed(0)
    name = torchvision.models.SqueezeNet1_1_Weights.DEFAULT.url.rpartition("/")[2]
    torch.save(torchvision.models.squeezenet1_1().state_dict(), folder / name)
    return folder


def images(count: int, channels: int = 3) -> torch.Tensor:
    return torch.rand(count, channels, 32, 24) * 2 - 1


@pytest.mark.usefixtures("hub")
def test_each_pair_has_the_distance_of_torchmetrics() -> None:
    real, fake, theirs = images(3), images(3), LearnedPerceptualImagePatchSimilarity("squeeze")
    wanted = [theirs(fake[i : i + 1], real[i : i + 1]).item() for i in range(3)]
    assert LPIPS("squeeze")(real=real, fake=fake).tolist() == pytest.approx(wanted, rel=1e-5)
    gray = images(2, 1)
    found = LPIPS("squeeze")(real=gray, fake=-gray)
    assert found.shape == (2,) and found.min() > 0
    assert LPIPS("squeeze")(real=gray, fake=gray).abs().max() < 1e-6


@pytest.mark.usefixtures("hub")
def test_as_a_term_its_gradient_reaches_each_fake_and_no_weight() -> None:
    distance, fake = LPIPS("squeeze"), images(2, 1).requires_grad_()
    context = Context(nn.Identity(), nn.Identity(), real=torch.zeros_like(fake), fake=fake)
    term = Distance(distance, weight=2.0)
    (gradient,) = torch.autograd.grad(term(context).sum(), fake)
    assert gradient.isfinite().all() and (gradient.flatten(1).abs().amax(1) > 0).all()
    assert not any(weight.requires_grad for weight in distance.parameters())
    assert not any(part.training for part in distance.train().network.modules()), "dropout stays off"


@pytest.mark.usefixtures("hub")
def test_its_mean_over_the_pairs_is_a_metric() -> None:
    class Large(Pairs):
        """Pairs of 24 x 24."""

        def __init__(self) -> None:
            super().__init__()
            self.sample_shape = (1, 24, 24)

        def encode(self, stored: torch.Tensor) -> torch.Tensor:
            return super().encode(stored).repeat_interleave(3, 2).repeat_interleave(3, 3)

    data = Large()
    fakes = torch.cat([real for real, _ in data.real_batches(20)]).flip(3)
    sample = lambda first, count: fakes[first : first + count]  # noqa: E731
    distance = LPIPS("squeeze")
    options: dict[str, Any] = {"count": 20, "batch_size": 8, "pairs": True}
    report = evaluate(sample, data, "digits", pair_metrics=[distance], **options)
    wanted = distance(real=fakes.flip(3), fake=fakes).mean().item()
    assert report.values["metric/lpips_squeeze"] == pytest.approx(wanted, rel=1e-5)


@pytest.mark.usefixtures("hub")
def test_a_recipe_names_it_as_metric_and_as_term(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text("""
realism: {pair_metrics: {class_path: litgan.metrics.LPIPS, init_args: {network: squeeze}}}
model:
  reconstruction:
    - class_path: Distance
      init_args: {distance: {class_path: litgan.metrics.LPIPS, init_args: {network: squeeze}}, weight: 3}
""")
    edges = Path(__file__).parents[2] / "configs" / "fashion_edges.yaml"
    recipe = Recipe(["--config", str(edges), "--config", str(tmp_path / "mine.yaml")], "validate")
    rebuilt = Builder().build_subclass(GAN, recipe.model.recipe["model"], "model")
    for gan in (recipe.model, rebuilt):
        (term,) = gan.reconstruction
        assert isinstance(term, Distance) and term.distance.name == "lpips_squeeze" and term.weight == 3
        assert not any("distance" in key for key in gan.state_dict())
    (realism,) = (one for one in recipe.trainer.callbacks if isinstance(one, Realism))
    assert [metric.name for metric in realism.pair_metrics] == ["lpips_squeeze"]


def test_litgan_evaluate_measures_by_it_too(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Here it says that digits are too small."""
    edges = str(Path(__file__).parents[2] / "configs" / "digits_edges.yaml")
    cli.main(["fit", "--config", edges, "--realism.every=0", "--realism.pair_metrics=litgan.metrics.LPIPS",
              "--trainer.max_steps=1", f"--trainer.default_root_dir={tmp_path}"])  # fmt: skip
    (checkpoint,) = tmp_path.rglob("last.ckpt")
    with pytest.raises(SystemExit):
        cli.main(["evaluate", str(checkpoint), "--count=40"])
    assert "LPIPS with vgg" in capsys.readouterr().err


def test_what_it_cannot_compare_is_refused(hub: Path) -> None:
    with pytest.raises(ValueError, match=r"LPIPS with squeeze .* 17 pixels .* \[2, 3, 8, 8\]"):
        LPIPS("squeeze")(real=torch.zeros(2, 3, 8, 8), fake=torch.zeros(2, 3, 8, 8))
    with pytest.raises(ValueError, match="'resnet'"):
        LPIPS("resnet")  # type: ignore[arg-type]
    for path in hub.iterdir():
        path.write_bytes(b"no weights")
    with pytest.raises(RuntimeError, match=r"no weights of squeeze .*invalid load key"):
        LPIPS("squeeze")(real=images(1), fake=images(1))


def test_weights_are_fetched_once_they_are_needed_and_may_be(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def offline(*_: object, **__: object) -> None:
        raise OSError("no route to host")

    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr("torch.hub.download_url_to_file", offline)
    recipe = {"realism": {"pair_metrics": {"class_path": "litgan.metrics.LPIPS"}}}
    for download, refusal, what in (
        (False, FileNotFoundError, r"^No weights of vgg .*vgg16.* --download"),
        (True, RuntimeError, r"no weights of vgg .*no route to host"),
    ):
        (distance,) = commands.build_pair_metrics({"litgan": {"recipe": recipe}}, Builder(download=download))
        with pytest.raises(refusal, match=what):
            distance(real=images(1), fake=images(1))
    assert commands.build_pair_metrics({"litgan": {"recipe": {"realism": {}}}}, Builder()) == []
