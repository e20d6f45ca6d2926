"""Files of one's own in the working directory: trained by their YAML, read again once they are trusted."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from litgan import GAN, cli
from litgan.loggers import read_metrics

MINE = """
import torch
from litgan import GAN
from litgan.data import Ring
from litgan.losses import NonSaturating


class Data(Ring):
    pass


class Loss(NonSaturating):
    pass


class MyGAN(GAN):
    def generate(self, condition, noise):
        return 0.5 * super().generate(condition, noise)
"""
YAML = """
model:
  class_path: mine.MyGAN
  init_args:
    generator: {class_path: MLPGenerator, init_args: {latent_dim: 2, widths: [8]}}
    discriminator: {class_path: MLPDiscriminator, init_args: {widths: [8]}}
    loss: mine.Loss
    generator_optimizer: {class_path: torch.optim.Adam, init_args: {lr: 0.001}}
    discriminator_optimizer: {class_path: torch.optim.Adam, init_args: {lr: 0.001}}
data: {class_path: mine.Data, init_args: {batch_size: 16}}
trainer: {max_steps: 2, accelerator: cpu, precision: 32-true, enable_progress_bar: false, logger: false}
realism: {every: 0}
samples: {every: 0}
"""

STOCK = """
import torch
from lightning.pytorch import LightningDataModule
from torch.utils.data import DataLoader, TensorDataset

class Stock(LightningDataModule):  # as a user of Lightning writes it
    def __init__(self, size: int = 64, shape: tuple[int, ...] = (1, 8, 8)):
        super().__init__()
        self.size, self.shape = size, shape

    def setup(self, stage):
        assert stage in ("fit", "validate")
        generator = torch.Generator().manual_seed(0)
        images = 2 * torch.rand(self.size, *self.shape, generator=generator) - 1
        self.samples = TensorDataset(images, torch.arange(self.size) % 4)

    def train_dataloader(self):
        return DataLoader(self.samples, batch_size=16, shuffle=True)

    def val_dataloader(self):
        return DataLoader(self.samples, batch_size=16)
"""
OF_STOCK = [
    "--data=stock.Stock", "--model=GAN", "--model.loss=NonSaturating", "--realism.extractor=digits",
    "--realism.count=16",
]  # fmt: skip


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder with mine.py, mine.yaml and a file that is called as one of the standard library."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [path for path in sys.path if path not in ("", str(tmp_path))])
    (tmp_path / "mine.py").write_text(MINE)
    (tmp_path / "mine.yaml").write_text(YAML)
    (tmp_path / "stock.py").write_text(STOCK)
    (tmp_path / "colorsys.py").write_text("raise RuntimeError('shadows the standard library')")
    yield tmp_path
    for name in ("mine", "stock", "colorsys", "third"):
        sys.modules.pop(name, None)


def forget() -> None:
    """As a new process would begin."""
    sys.modules.pop("mine", None)
    sys.path[:] = [path for path in sys.path if path != str(Path.cwd())]


def test_a_recipe_names_classes_of_the_working_directory(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cli.main(["fit", "--config", "mine.yaml"])
    (checkpoint,) = map(str, project.glob("runs/mine/*/checkpoints/last.ckpt"))
    import colorsys

    assert colorsys.rgb_to_hsv(0, 0, 0) == (0.0, 0.0, 0)
    forget()
    with pytest.raises(SystemExit):
        cli.main(["sample", checkpoint, "--count=2"])
    assert "--trust mine" in capsys.readouterr().err and "mine" not in sys.modules
    cli.main(["sample", checkpoint, "--count=2", "--out=out", "--trust=mine"])
    assert (project / "out/samples_seed0.png").is_file()
    forget()
    assert type(GAN.load_from_checkpoint(checkpoint, trust="mine")).__name__ == "MyGAN"


THIRD = """
import torch
from litgan import GAN
from torch import nn


class Encoded(GAN):
    def __init__(self, *args, encoder_lr: float = 0.01, **options):
        super().__init__(*args, **options)
        self.encoder, self.encoder_lr = nn.Linear(2, 2), encoder_lr

    def configure_optimizers(self):
        return [*super().configure_optimizers(), torch.optim.SGD(self.encoder.parameters(), self.encoder_lr)]

    def training_step(self, batch, batch_idx):
        logs = super().training_step(batch, batch_idx)
        logs |= self.update("encoder", self.optimizers()[2], self.encoder_loss, *batch)
        self.last_logs |= logs
        return logs

    def encoder_loss(self, real, condition, noise):
        latents = noise.normal(2)
        loss = (self.encoder(self.generator(latents, condition)) - latents).square().mean()
        return loss, {"loss/encoder": loss}
"""


def test_one_more_network_trains_with_an_optimizer_of_its_own(project: Path) -> None:
    """By one file and one YAML: its loss and its gradient norm are logged under its own name."""
    (project / "third.py").write_text(THIRD)
    yaml = YAML.replace("class_path: mine.MyGAN\n  init_args:", "class_path: third.Encoded\n  init_args:")
    yaml = yaml.replace("mine.Loss", "NonSaturating").replace("mine.Data", "Ring")
    yaml = yaml.replace(", logger: false", ", log_every_n_steps: 1")
    (project / "third.yaml").write_text(yaml)
    options = ["--model.init_args.encoder_lr=0.125", "--wandb.project=mine", "--gradients.every=16"]
    cli.main(["fit", "--config", "third.yaml", *options])
    (folder,) = project.glob("runs/third/*")
    rows = read_metrics(folder / "metrics.csv")
    for key in ("gradient/encoder", "gradient/generator", "gradient/discriminator", "loss/encoder"):
        assert [row["images_seen"] for row in rows if key in row] == [16, 32], key
    checkpoint = torch.load(folder / "checkpoints/last.ckpt", weights_only=True)
    weight = checkpoint["state_dict"]["encoder.weight"]
    fresh = GAN.load_from_checkpoint(folder / "checkpoints/last.ckpt", trust="third")
    assert type(fresh).__name__ == "Encoded" and torch.equal(fresh.encoder.weight, weight)
    assert [group["param_groups"][0]["lr"] for group in checkpoint["optimizer_states"]] == [1e-3, 1e-3, 0.125]
    cli.main(["fit", "--config", "third.yaml", *options, "--ckpt_path=last", "--trainer.max_steps=3"])
    assert [row["images_seen"] for row in read_metrics(folder / "metrics.csv")][-1] == 48
    resumed = torch.load(folder / "checkpoints/last.ckpt", weights_only=True)
    assert not torch.equal(resumed["state_dict"]["encoder.weight"], weight)


def test_a_stock_data_module_is_named_in_a_recipe(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shape = ["--model.sample_shape=[1,8,8]", "--model.condition=4"]
    options = [*OF_STOCK, *shape, "--realism.every=32", "--samples.every=32", "--gradients.every=32"]
    cli.main(["fit", "--config=mine.yaml", *options])
    (run,) = project.glob("runs/mine/*")
    assert {"reals", "000000032", "000000032_feedback"} <= {path.stem for path in (run / "samples").iterdir()}
    checkpoint = str(run / "checkpoints" / "last.ckpt")
    cli.main(["validate", f"--config={run / 'config.yaml'}", f"--ckpt_path={checkpoint}"])
    capsys.readouterr()
    cli.main(["evaluate", checkpoint, "--trust=stock", "--count=16", "--split=val"])
    result = json.loads(capsys.readouterr().out)
    assert result["protocol"]["split"] == "val" and "metric/class_accuracy" in result
    cli.main(["sample", checkpoint, "--trust=stock", "--count=4", "--out=drawn"])
    cli.main(["interpolate", checkpoint, "--trust=stock", "--points=2", "--steps=2", "--out=loop.gif"])
    assert (project / "drawn" / "samples_seed0.png").is_file() and (project / "loop.gif").is_file()
    with pytest.raises(SystemExit):
        cli.main(["evaluate", checkpoint, "--trust=stock", "--count=16", "--split=test"])
    assert "Stock has no split 'test': ask for 'train' and 'val'." in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (
            [],
            "Stock is no GANDataModule and does not say what its samples are: give model.sample_shape",
        ),
        (
            ["--model.sample_shape=[2]", "--data.shape=[2]", "--samples.every=32"],
            "[2] from a plain loader cannot be",
        ),
    ],
)
def test_what_a_stock_data_module_lacks_is_named(
    options: list[str], sentence: str, project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        cli.main(["fit", "--config=mine.yaml", *OF_STOCK, *options])
    said = capsys.readouterr().err
    assert sentence in said and "Traceback" not in said
