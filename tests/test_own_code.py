"""Files of one's own in the working directory: trained by their YAML, read again once they are trusted."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from litgan import GAN, cli

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


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder with mine.py, mine.yaml and a file that is called as one of the standard library."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [path for path in sys.path if path not in ("", str(tmp_path))])
    (tmp_path / "mine.py").write_text(MINE)
    (tmp_path / "mine.yaml").write_text(YAML)
    (tmp_path / "colorsys.py").write_text("raise RuntimeError('shadows the standard library')")
    yield tmp_path
    for name in ("mine", "colorsys"):
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


def test_code_beside_a_checkpoint_is_not_imported(
    project: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    cli.main(["fit", "--config", "mine.yaml"])
    (checkpoint,) = project.glob("runs/mine/*/checkpoints/last.ckpt")
    forget()
    monkeypatch.chdir(checkpoint.parents[1])
    (project / "mine.py").rename(checkpoint.parents[1] / "mine.py")
    with pytest.raises(SystemExit):
        cli.main(["sample", str(checkpoint), "--count=2", "--trust=mine"])
    assert "own folder" in capsys.readouterr().err and "mine" not in sys.modules
