"""`litgan fit --seeds`: a run for each seed, in folders of their own, whatever becomes of one of them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from test_loggers import records

from litgan import cli
from litgan.seeds import root_folder, table, take_seeds

ROOT = Path(__file__).parents[1]
SHORT = [
    "--config", "ring", "--trainer.accelerator=cpu", "--data.batch_size=16", "--model.generator.widths=[8]",
    "--model.discriminator.widths=[8]", "--realism.every=0", "--samples.every=0", "--gradients.every=0",
]  # fmt: skip


def fit(folder: Path, *options: str) -> subprocess.Popen[str]:
    # Without the W&B process of this one, which tests before may have started.
    environment = {key: value for key, value in os.environ.items() if key != "WANDB_SERVICE"}
    environment |= {"PYTHONPATH": str(ROOT / "src"), "WANDB_MODE": "offline"}
    return subprocess.Popen(
        [sys.executable, "-m", "litgan", "fit", *SHORT, *options], cwd=folder, env=environment, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip


def images_seen(folder: Path) -> int:
    """Of the checkpoint in a run's folder."""
    return torch.load(folder / "checkpoints/last.ckpt", weights_only=True)["litgan"]["images_seen"]


def test_seeds_are_taken_out_of_the_command_line() -> None:
    assert take_seeds(["--a", "1", "--seeds", "0,1,12", "--b"]) == ([0, 1, 12], ["--a", "1", "--b"])
    assert take_seeds(["--seeds=7"]) == ([7], [])
    assert take_seeds(["--a"]) == ([], ["--a"])


@pytest.mark.parametrize("value", ["", "a", "1,1", "-1", "0,"])
def test_what_is_no_list_of_seeds_is_named(value: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        cli.main(["fit", "--config", "ring", f"--seeds={value}"])
    assert f"--seeds is {value!r}" in capsys.readouterr().err


def test_the_root_folder_is_the_last_one_given(tmp_path: Path) -> None:
    recipe = tmp_path / "a.yaml"
    recipe.write_text("trainer: {default_root_dir: there}")
    assert root_folder([]) == Path("runs")
    assert root_folder(["--config", str(recipe)]) == Path("there")
    assert root_folder([f"--config={recipe}", "--trainer.default_root_dir", "here"]) == Path("here")


def test_a_table_has_mean_and_standard_deviation() -> None:
    found = {
        seed: {"metric": "metric/fid", "value": value, "best": 1.0, "folder": f"runs/{seed}"}
        for seed, value in enumerate((1.0, 2.0, 6.0))
    }
    first, *_, mean, best = table(found).splitlines()
    assert "seed 0" in first and "runs/0" in first
    assert "mean 3, standard deviation 2.6" in mean and "mean 1, standard deviation 0" in best


@pytest.mark.spawn
def test_one_that_fails_is_named_and_the_others_go_on(tmp_path: Path) -> None:
    done = fit(tmp_path, "--trainer.max_steps=2", "--seeds=0,1")
    said = done.communicate()
    assert done.returncode == 0, said
    first, second = sorted(path.parent for path in tmp_path.glob("runs/ring/*/summary.json"))
    weights = [
        torch.load(folder / "checkpoints/last.ckpt", weights_only=True)["state_dict"].values()
        for folder in (first, second)
    ]
    assert any(not torch.equal(*pair) for pair in zip(*weights, strict=True))  # other seeds, other weights
    for folder in (first, second):
        patience = time.monotonic() + 60  # W&B's own process may still be writing
        while not (found := records(folder, "run")) and time.monotonic() < patience:
            time.sleep(0.1)
        groups = [run.run_group for run in found]
        assert groups == [first.name.removesuffix("-0")], (folder, said, [*folder.rglob("*")])

    second.rename(tmp_path / "elsewhere")
    second.write_text("in the way of the run folder")
    trained = (first / "checkpoints/last.ckpt").stat().st_mtime_ns
    done = fit(tmp_path, "--trainer.max_steps=2", "--seeds=0,1")
    said, error = done.communicate()
    assert done.returncode == 1 and "seeds that failed: 1" in error and first.name in said
    assert (first / "checkpoints/last.ckpt").stat().st_mtime_ns == trained  # a finished one is skipped


@pytest.mark.spawn
def test_the_same_command_continues_what_was_interrupted(tmp_path: Path) -> None:
    options = ("--trainer.max_steps=100000", "--trainer.log_every_n_steps=1", "--seeds=3,4")

    def interrupt(number: int, after: int = 0) -> tuple[int, str]:
        """Exit code and output of the command, interrupted when it has logged more images than `after`."""
        process = fit(tmp_path, *options)
        while process.poll() is None:
            time.sleep(0.1)
            rows = [line for path in tmp_path.glob("runs/ring/*/metrics.csv") for line in path.open()]
            if len(rows) > 1 and int(rows[-1].split(",")[0]) > after:
                process.send_signal(number)
                break
        said = process.communicate()
        return process.returncode, "".join(said)

    code, said = interrupt(signal.SIGTERM)
    assert code == 75 and "seed 3 was interrupted" in said, said
    (folder,) = tmp_path.glob("runs/ring/*")
    cut = images_seen(folder)
    code, said = interrupt(signal.SIGINT, after=cut)
    assert code == 130, said
    assert list(tmp_path.glob("runs/ring/*")) == [folder] and images_seen(folder) > cut
