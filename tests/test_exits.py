"""However a run ends, what was trained stays: every exception at every stage, and saves of fewer images."""

from __future__ import annotations

import errno
import logging
import os
import shutil
from collections.abc import Callable
from datetime import timedelta
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any, TypeAlias

import pytest
import torch
from lightning.pytorch import Callback

from litgan import GAN, checkpoints, cli
from litgan.callbacks import Checkpoint, Interrupted, Interruption, Samples
from litgan.checkpoints import AtomicCheckpointIO
from litgan.data import Ring
from litgan.networks import MLPGenerator
from litgan.runs import find_checkpoint

Make: TypeAlias = Callable[..., Any]  # what a fixture makes things with
EXCEPTIONS = (ValueError, KeyboardInterrupt, OSError)
CONFIG = Path(__file__).parents[1] / "configs" / "ring.yaml"
TURNS, BATCH = 2, 8
ITERATION = TURNS * BATCH  # images


class Bystander(Callback):
    """Has state, and hooks that may be made to fail."""

    def state_dict(self) -> dict[str, Any]:
        return {"anything": 1}


def trap(patch: pytest.MonkeyPatch, owner: Any, name: str, kind: type[BaseException], call: int = 1) -> None:
    """Makes a method, or a function, raise when it is called for the `call`-th time."""
    honest, calls = getattr(owner, name), count(1)

    def failing(*arguments: Any, **options: Any) -> Any:
        if next(calls) == call:
            raise kind("an accident")
        return honest(*arguments, **options)

    patch.setattr(owner, name, failing)


def content(folder: Path) -> dict[str, bytes]:
    """All files below a folder."""
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}


def clock(path: Path) -> int:
    return checkpoints.read(path)["litgan"]["images_seen"]


@pytest.fixture
def fit(tiny_gan: Make, tiny_data: Make, make_trainer: Make, tmp_path: Path) -> Make:
    """Trains to so many iterations, saved every `every` images; `arm` gets all parts before."""

    def run(
        iterations: int, *, every: int = 0, resume: bool = False,
        arm: Callable[[dict[str, Any]], None] | None = None, **options: Any,
    ) -> GAN:  # fmt: skip
        parts = {"gan": tiny_gan(discriminator_steps=TURNS, **options), "bystander": Bystander()}
        parts |= {"data": tiny_data(), "torch": torch}
        keeper = Checkpoint(every=every, minutes=0)
        trainer = make_trainer(iterations, callbacks=[parts["bystander"], keeper])
        parts["strategy"] = trainer.strategy
        if arm is not None:
            arm(parts)
        path = tmp_path / "checkpoints" / "last.ckpt" if resume else None
        trainer.fit(parts["gan"], datamodule=parts["data"], ckpt_path=path)
        return parts["gan"]

    return run


EARLY = {  # before an iteration has ended: (whose, method, which of its calls)
    "preparing the data": ("data", "prepare_data", 1),
    "setup": ("data", "setup", 1),
    "restoring the clock": ("gan", "on_load_checkpoint", 1),
    "restoring the weights": ("gan", "load_state_dict", 1),
    "restoring callbacks": ("bystander", "load_state_dict", 1),
    "the start of fit": ("bystander", "on_fit_start", 1),
    "restoring optimizers": ("strategy", "load_optimizer_state_dict", 1),
    "loading the data": ("data", "train_dataloader", 1),
    "the start of training": ("bystander", "on_train_start", 1),
    "the GAN's start of training": ("gan", "on_train_start", 1),
    "the first batch": ("bystander", "on_train_batch_start", 1),
    "the first turn": ("gan", "training_step", 1),
    "the second turn": ("gan", "training_step", 2),
}
LATE = {  # and the iterations that are saved then, of a run that goes on after 2 with 4 more
    "the end of the first iteration": ("bystander", "on_train_batch_end", 2, 3),
    "the middle": ("gan", "training_step", 7, 5),
    "saving": ("torch", "save", 1, 3),
    "saving once more": ("torch", "save", 3, 5),
    "the end of training": ("bystander", "on_train_end", 1, 6),
    "the last save": ("torch", "save", 4, 6),
}


@pytest.mark.parametrize("kind", EXCEPTIONS)
@pytest.mark.parametrize("resume", [False, True])
@pytest.mark.parametrize("stage", EARLY)
def test_a_start_that_fails_early_changes_nothing(
    stage: str, resume: bool, kind: type[BaseException], fit: Make, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    if resume:
        fit(2)
    before = content(tmp_path)
    assert list(before) == ["checkpoints/last.ckpt"] * resume
    owner, name, call = EARLY[stage]
    arm = lambda parts: trap(monkeypatch, parts[owner], name, kind, call)  # noqa: E731
    if resume or "restoring" not in stage:
        with pytest.raises((kind, SystemExit)):
            fit(6, resume=resume, arm=arm)
        assert content(tmp_path) == before


@pytest.mark.parametrize("kind", EXCEPTIONS)
@pytest.mark.parametrize("stage", LATE)
def test_a_resume_that_fails_later_keeps_its_last_iteration(
    stage: str, kind: type[BaseException], fit: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Exactly: a disk that refuses once takes the save that is made as the run ends."""
    owner, name, call, iterations = LATE[stage]
    fit(2)
    every = ITERATION if owner == "torch" else 0
    with monkeypatch.context() as patch, pytest.raises((kind, SystemExit)):
        fit(6, every=every, resume=True, arm=lambda parts: trap(patch, parts[owner], name, kind, call))
    last = tmp_path / "checkpoints" / "last.ckpt"
    assert list(content(tmp_path)) == ["checkpoints/last.ckpt"]
    saved = checkpoints.read(last)
    assert (saved["litgan"]["images_seen"], saved["global_step"]) == (iterations * ITERATION, iterations)
    last.unlink()
    straight = fit(iterations).state_dict()
    assert all(torch.equal(value, saved["state_dict"][key]) for key, value in straight.items())


def test_another_architecture_changes_nothing(fit: Make, tmp_path: Path) -> None:
    fit(2)
    before = content(tmp_path)
    with pytest.raises(ValueError, match="another architecture"):
        fit(6, resume=True, generator=partial(MLPGenerator, latent_dim=4, widths=(12,)))
    assert content(tmp_path) == before


def test_a_trainer_that_is_used_again_saves_nothing_of_the_fit_before(
    tiny_gan: Make, tiny_data: Make, make_trainer: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first fit ends with a state that no disk took; the second fails while it restores another."""
    keeper, gan = Checkpoint(every=0, minutes=0), tiny_gan()
    make_trainer(2, callbacks=[keeper]).fit(gan, datamodule=tiny_data())
    last = tmp_path / "checkpoints" / "last.ckpt"
    before = last.read_bytes()
    with monkeypatch.context() as patch:
        patch.setattr(torch, "save", full)
        with pytest.raises(OSError, match="full"):
            make_trainer(4, callbacks=[keeper]).fit(gan, datamodule=tiny_data(), ckpt_path=last)
    trap(monkeypatch, gan, "load_state_dict", ValueError)
    with pytest.raises(ValueError, match="an accident"):
        make_trainer(6, callbacks=[keeper]).fit(gan, datamodule=tiny_data(), ckpt_path=last)
    assert last.read_bytes() == before


def test_an_orderly_stop_saves_once(
    tiny_gan: Make, tiny_data: Make, make_trainer: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trap(monkeypatch, torch, "save", AssertionError, 2)
    callbacks = [Interruption(timedelta(0)), Checkpoint(every=0, minutes=0)]
    with pytest.raises(Interrupted):
        make_trainer(4, callbacks=callbacks).fit(tiny_gan(), datamodule=tiny_data())
    assert clock(tmp_path / "checkpoints" / "last.ckpt") == 8


def full(*_: object) -> None:
    raise OSError(errno.ENOSPC, "the disk is full")


def test_what_cannot_be_saved_does_not_hide_why_the_run_broke(
    fit: Make, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def arm(parts: dict[str, Any]) -> None:
        trap(monkeypatch, parts["gan"], "training_step", ValueError, 5)
        monkeypatch.setattr(torch, "save", full)

    with pytest.raises(ValueError, match="an accident"):
        fit(6, arm=arm)
    assert "last.ckpt cannot be saved (the disk is full)" in capsys.readouterr().err


def test_lightning_says_nothing_at_a_save(fit: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    connector = "lightning.pytorch.trainer.connectors.checkpoint_connector"
    monkeypatch.setattr(logging.getLogger(connector), "info", said.append)
    fit(3, every=ITERATION)
    assert not said


# -- whole runs of `litgan fit`, in this process

QUICK = [
    "fit", "--config", str(CONFIG), f"--model.discriminator_steps={TURNS}", f"--data.batch_size={BATCH}",
    "--model.generator.widths=[8]", "--model.discriminator.widths=[8]", "--realism.every=0",
    "--gradients.every=0", "--trainer.accelerator=cpu", "--trainer.precision=32-true",
    "--trainer.enable_progress_bar=false",
]  # fmt: skip
STARTS = {
    "preparing the data": (Ring, "prepare_data"),
    "setup": (Ring, "setup"),
    "loading the data": (Ring, "train_dataloader"),
    "the start of training": (Samples, "on_train_start"),
    "the first turn": (GAN, "training_step"),
}


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Make:
    """A `litgan fit` to so many iterations; its exit code."""
    monkeypatch.setenv("WANDB_MODE", "disabled")

    def litgan(iterations: int, *options: str) -> Any:
        places = [f"--trainer.default_root_dir={tmp_path / 'runs'}", f"--trainer.max_steps={iterations}"]
        try:
            cli.main([*QUICK, *places, *options])
        except SystemExit as end:
            return end.code
        finally:
            monkeypatch.setenv("LITGAN_RUN_ID", "")
        return 0

    return litgan


@pytest.mark.parametrize("kind", EXCEPTIONS)
@pytest.mark.parametrize("stage", STARTS)
def test_a_failed_start_leaves_no_run_folder(
    stage: str, kind: type[BaseException], run: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trap(monkeypatch, *STARTS[stage], kind)
    assert run(2)
    assert not (tmp_path / "runs").exists()


def test_nor_does_a_trainer_that_cannot_be_built_or_a_full_disk(
    run: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert run(2, "--trainer.precision=17")
    assert run(2, "--trainer.devices=0")
    assert not (tmp_path / "runs").exists()
    usage = shutil.disk_usage(tmp_path)._replace(free=2**20)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    assert run(2)
    assert not (tmp_path / "runs").exists()


@pytest.mark.spawn
def test_nor_what_wandb_wrote(run: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_MODE", "offline")
    assert run(1) == 0
    kept = list((tmp_path / "runs" / "ring").iterdir())
    assert list(kept[0].glob("wandb/offline-run-*")), "W&B writes into the folder"
    trap(monkeypatch, GAN, "training_step", ValueError)
    assert run(2)
    assert list((tmp_path / "runs" / "ring").iterdir()) == kept, "other runs stay"


@pytest.mark.heavy
@pytest.mark.parametrize("way", ["the environment", "--ckpt_path"])
@pytest.mark.parametrize(
    ("stage", "kind"),
    [("another architecture", ValueError), *((stage, kind) for stage in STARTS for kind in EXCEPTIONS)],
)
def test_a_failed_start_in_a_folder_of_old_changes_nothing(
    stage: str, kind: type[BaseException], way: str, run: Make, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """With another recipe than before, whose config.yaml would differ."""
    monkeypatch.setenv("LITGAN_RUN_ID", "mine")
    assert run(2) == 0
    (tmp_path / "runs" / "ring" / "mine" / "health.jsonl").write_text('{"images_seen": 1000000}\n')
    before = content(tmp_path / "runs" / "ring")
    assert {"mine/config.yaml", "mine/checkpoints/last.ckpt"} <= before.keys()
    options = ["--samples.every=500"]
    if stage == "another architecture":
        options = ["--model.generator.widths=[12]"]
    else:
        trap(monkeypatch, *STARTS[stage], kind)
    if way == "the environment":
        monkeypatch.setenv("LITGAN_RUN_ID", "mine")
    else:
        options.append("--ckpt_path=last")
    assert run(4, *options)
    assert content(tmp_path / "runs" / "ring") == before


def test_a_run_that_fails_after_its_first_iteration_stays(
    run: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trap(monkeypatch, Samples, "on_train_batch_end", ValueError, TURNS)
    assert run(3)
    (folder,) = (tmp_path / "runs" / "ring").iterdir()
    assert (folder / "config.yaml").is_file()
    assert clock(folder / "checkpoints" / "last.ckpt") == ITERATION


# -- a checkpoint is never replaced by one that has seen fewer images


def save(path: Path, images_seen: int, mark: int = 0) -> bytes:
    """What lies at `path` after a save of so many images; the `mark` tells it from others."""
    state = {
        "litgan": {"format": checkpoints.FORMAT, "images_seen": images_seen},
        "state_dict": {"mark": torch.full((4,), mark)},
    }
    AtomicCheckpointIO().save_checkpoint(state, path)
    return path.read_bytes()


def said(capsys: pytest.CaptureFixture[str]) -> list[str]:
    return capsys.readouterr().err.splitlines()


@pytest.mark.parametrize("links", [True, False])
def test_what_has_seen_more_is_kept_beside(
    links: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    if not links:
        monkeypatch.setattr(os, "link", full)  # as file systems without them refuse
    last, kept = tmp_path / "last.ckpt", {}
    for name in ("last-000000320.ckpt", "last-000000320-2.ckpt"):
        for mark, images_seen in enumerate((8, 320, 320)):
            kept[name] = save(last, images_seen, mark=10 * len(name) + mark)
        assert not said(capsys), "as many are not fewer"
        newer = save(last, 16, mark=3)
        assert content(tmp_path) == {"last.ckpt": newer, **kept}
        (sentence,) = said(capsys)
        assert str(last) in sentence and name in sentence
        last.unlink()


@pytest.mark.parametrize("damage", [b"", b"nothing", None])
def test_what_cannot_be_read_is_kept_and_does_not_hinder(
    damage: bytes | None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    last = tmp_path / "last.ckpt"
    broken = save(last, 8)[:-100] if damage is None else damage
    last.write_bytes(broken)
    saved = save(last, 16)
    assert content(tmp_path) == {"last.ckpt": saved, "last-unreadable.ckpt": broken}
    (sentence,) = said(capsys)
    assert str(last) in sentence and "last-unreadable.ckpt" in sentence


@pytest.mark.parametrize("readable", [True, False])
def test_a_save_that_fails_sets_nothing_aside(
    readable: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    last = tmp_path / "last.ckpt"
    before = save(last, 320)
    if not readable:
        before = before[:100]
        last.write_bytes(before)
    monkeypatch.setattr(torch, "save", full)
    for _ in range(2):
        with pytest.raises(OSError, match=r"last\.ckpt cannot be saved"):
            save(last, 16)
    assert content(tmp_path) == {"last.ckpt": before} and not said(capsys)


def test_a_state_without_a_clock_is_replaced(tmp_path: Path) -> None:
    for value in (1.0, 2.0):
        AtomicCheckpointIO().save_checkpoint({"state_dict": {"mark": value}}, tmp_path / "last.ckpt")
    assert list(content(tmp_path)) == ["last.ckpt"]


def test_another_run_in_the_same_folder_takes_nothing(
    fit: Make, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "checkpoints"
    fit(4)
    trained = (folder / "last.ckpt").read_bytes()
    fit(3, every=ITERATION, seed=1)
    assert (folder / "last-000000064.ckpt").read_bytes() == trained
    assert clock(folder / "last.ckpt") == 48 and len(content(folder)) == 2
    assert sum("last-000000064.ckpt" in line for line in said(capsys)) == 1, "said once"


def test_a_run_that_goes_on_from_its_best_keeps_its_last(run: Make, tmp_path: Path) -> None:
    """And goes on from there, not from the older file that was kept: `last` is what was written last."""
    assert run(2) == 0
    (folder,) = (tmp_path / "runs" / "ring").iterdir()
    best, last = (folder / "checkpoints" / name for name in ("best.ckpt", "last.ckpt"))
    shutil.copy(last, best)
    assert run(4, "--ckpt_path=last") == 0
    trained = last.read_bytes()
    assert run(3, f"--ckpt_path={best}") == 0
    assert clock(last) == 3 * ITERATION
    assert last.with_name("last-000000064.ckpt").read_bytes() == trained
    assert find_checkpoint("last", tmp_path / "runs", "ring") == last
    assert run(5, "--ckpt_path=last") == 0
    assert clock(last) == 5 * ITERATION
    assert last.with_name("last-000000064.ckpt").read_bytes() == trained
