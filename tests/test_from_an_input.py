"""From one's own files to samples: `litgan sample --input`, metrics and grids of pairs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from shared import pages

from litgan import cli
from litgan.gan import GAN

RECIPE = Path(__file__).parents[1] / "configs" / "digits.yaml"
SOURCE = Path(cli.__file__).parents[1]
OFF = [f"--{part}.every=0" for part in ("realism", "samples", "gradients", "checkpoint")]
TRUST = "shared.pairs"


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of a game that translates images to their negatives, trained for two iterations."""
    root = tmp_path_factory.mktemp("translator")
    cli.main([
        "fit", "--config", str(RECIPE), "--data=shared.pairs.Pairs",
        "--model.generator=shared.pairs.Translator", "--model.discriminator=shared.pairs.Critic",
        "--model.penalties=[]", "--trainer.max_steps=2",
        f"--trainer.default_root_dir={root}", "--trainer.logger=false", *OFF,
    ])  # fmt: skip
    return next(root.rglob("last.ckpt"))


def picture(path: Path, height: int, width: int) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.arange(height * width, dtype=np.uint8).reshape(height, width)).save(path)
    return path


def translate(checkpoint: Path, given: Path, out: Path, *options: str) -> None:
    """By the command."""
    where = ["--input", str(given), "--out", str(out), "--trust", TRUST]
    cli.main(["sample", str(checkpoint), *where, *options])


def test_files_of_any_size_become_samples_under_their_own_names(checkpoint: Path, tmp_path: Path) -> None:
    inputs = [picture(tmp_path / "in" / name, *size) for name, size in
        {"a.png": (8, 8), "b/wide.png": (12, 20), "b/wide.bmp": (10, 9)}.items()]  # fmt: skip
    out = tmp_path / "out"
    translate(checkpoint, tmp_path / "in", tmp_path / "out")
    names = sorted(str(path.relative_to(out)) for path in out.rglob("*") if path.is_file())
    assert names == ["a.png", "b/wide.bmp.png", "b/wide.png.png"]
    gan = GAN.load_from_checkpoint(checkpoint, trust=TRUST)
    stored = torch.from_numpy(np.array(Image.open(inputs[1])))
    expected = gan.sample(1, condition=(stored / 127.5 - 1)[None, None])
    found = np.array(Image.open(out / "b/wide.png.png"))[..., 0]
    np.testing.assert_allclose(found, (expected[0, 0] * 127.5 + 127.5).round().clamp(0, 255), atol=1)


def test_a_single_file_gives_as_many_samples_as_asked_for(checkpoint: Path, tmp_path: Path) -> None:
    one = picture(tmp_path / "one.png", 8, 8)
    translate(checkpoint, one, tmp_path / "out", "--count=3")
    assert Image.open(tmp_path / "out" / "one.png").size == (2 * 66 - 2, 2 * 66 - 2)  # a grid of 2 x 2


@pytest.mark.parametrize(
    ("given", "culprit"), [("missing", "missing"), ("empty", "empty"), ("text.txt", "text.txt")]
)
def test_what_is_no_input_is_named(
    given: str, culprit: str, checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "text.txt").write_text("no picture")
    with pytest.raises(SystemExit) as ended:
        translate(checkpoint, tmp_path / given, tmp_path / "out")
    assert ended.value.code and culprit in capsys.readouterr().err


def test_a_game_from_noise_takes_no_input(digits_run: Any, tmp_path: Path, capsys: Any) -> None:
    one = picture(tmp_path / "one.png", 8, 8)
    with pytest.raises(SystemExit):
        cli.main(["sample", str(digits_run.checkpoint), "--input", str(one), f"--out={tmp_path}"])
    assert "--input" in capsys.readouterr().err


def test_evaluate_measures_held_out_pairs(checkpoint: Path, tmp_path: Path) -> None:
    from litgan import commands

    found = commands.evaluate(str(checkpoint), count=12, split="test", trust=TRUST)
    assert {"metric/psnr", "metric/ssim", "metric/l1", "metric/paired_digits"} <= found.keys()
    assert found["protocol"]["pairs"] == 12  # type: ignore[index]


@pytest.mark.spawn
def test_each_block_of_the_page_runs(tmp_path: Path) -> None:
    environment, folder = pages.environment(tmp_path / "bin", SOURCE), tmp_path / "empty"
    folder.mkdir()
    said = "".join(pages.run(block, folder, environment) for _, block in pages.blocks("from_an_input.md"))
    assert {path.name for path in (folder / "made").iterdir()} == {"three.png", "wide.png"}
    assert Image.open(folder / "made" / "wide.png").size == (30, 22)
    assert "metric/psnr" in said
    (log,) = folder.glob("runs/coarse/*/metrics.csv")
    assert {"reconstruction/l1", "metric/ssim", "metric/paired_digits"} <= set(
        log.read_text().splitlines()[0].split(",")
    )
