"""Weights from another run, parts that are not trained, and a resume with other data."""

from __future__ import annotations

import copy
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from shared.fits import CLASSES, CONFIGS, PLAIN, Run, fit
from shared.resuming import assert_same
from torch import Tensor

from litgan import GAN, checkpoints, cli
from litgan.data import Digits, ImageFolder, Ring

STILL = ["--model.generator_optimizer.lr=0", "--model.discriminator_optimizer.lr=0"]
Complaint = Callable[..., str]


@pytest.fixture(autouse=True)
def _without_wandb(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_MODE", "disabled")


def weights(run: Run | Path, prefix: str = "") -> dict[str, Tensor]:
    saved = checkpoints.read(run if isinstance(run, Path) else run.checkpoint)["state_dict"]
    return {name.removeprefix(prefix): value for name, value in saved.items() if name.startswith(prefix)}


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Digits by class, 4 iterations."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("WANDB_MODE", "disabled")
        patch.setenv("LITGAN_RUN_ID", "base")
        return fit(tmp_path_factory.mktemp("base"), 4, *CLASSES)


# ---------------------------------------------------------------------- weights of another run


def test_a_new_run_begins_with_all_weights_that_fit(base: Run, tmp_path: Path, capsys: Any) -> None:
    before = base.checkpoint.read_bytes()
    run = fit(tmp_path, 1, *CLASSES, *STILL, f"--init_from={base.checkpoint}")
    averaged = weights(base, "ema.average.")
    assert any(not torch.equal(value, averaged[name]) for name, value in weights(base, "generator.").items())
    for prefix in ("generator.", "ema.average.", "extra_emas.1000000.average."):
        assert_same(weights(run, prefix), averaged)
    assert_same(weights(run, "discriminator."), weights(base, "discriminator."))
    state = checkpoints.read(run.checkpoint)
    assert state["litgan"]["images_seen"] == 32 and state["litgan"]["recipe"]["init_from"]
    assert {one["step"].item() for o in state["optimizer_states"] for one in o["state"].values()} == {1.0}
    assert base.checkpoint.read_bytes() == before and run.folder != base.folder
    assert "init_from: null" in (run.folder / "config.yaml").read_text()  # running it again starts anew
    (line,) = [line for line in capsys.readouterr().err.splitlines() if "tensors" in line]
    count = len(averaged) + len(weights(base, "discriminator."))
    assert f"{count} of {count}" in line


@pytest.mark.heavy
@pytest.mark.parametrize(
    ("options", "changed"),
    [
        (["--data.num_classes=0"], CLASSES),
        (CLASSES, ["--data.num_classes=0", "--data.resolution=16", "--model.generator.widths=[8,8,8]"]),
    ],
)
def test_what_does_not_fit_is_named_and_new(
    options: list[str], changed: list[str], tmp_path: Path, capsys: Any
) -> None:
    base = fit(tmp_path / "base", 2, *options)
    fresh = fit(tmp_path / "fresh", 1, *changed, *STILL)
    run = fit(tmp_path, 1, *changed, *STILL, f"--init_from={base.checkpoint}")
    (line,) = [line for line in capsys.readouterr().err.splitlines() if "tensors" in line]
    new = line.split("new are")[1]
    for prefix, source in (("generator.", "ema.average."), ("discriminator.", "discriminator.")):
        theirs, ours, others = weights(base, source), weights(run, prefix), weights(fresh, prefix)
        fitting = {n for n in ours if n in theirs and theirs[n].shape == ours[n].shape}
        for name, value in ours.items():
            assert torch.equal(value, theirs[name] if name in fitting else others[name])
            assert (prefix + name in new) == (name not in fitting)


def test_nothing_of_the_file_but_its_tensors_is_used(base: Run, tmp_path: Path) -> None:
    state = checkpoints.read(base.checkpoint)
    state["litgan"]["recipe"]["model"]["class_path"] = "os.system"
    state["optimizer_states"] = state["callbacks"] = None
    del state["optimizer_states"], state["callbacks"]
    torch.save(state, tmp_path / "strange.ckpt")
    run = fit(tmp_path, 1, *CLASSES, *STILL, f"--init_from={tmp_path}/strange.ckpt")
    assert_same(weights(run, "generator."), weights(base, "ema.average."))


def spoiled(base: Run, path: Path, spoil: Callable[[dict[str, Any]], Any]) -> Path:
    state = checkpoints.read(base.checkpoint)
    spoil(state)
    torch.save(state, path)
    return path


def test_files_that_cannot_serve_are_refused(base: Run, tmp_path: Path, complaint: Complaint) -> None:
    (tmp_path / "garbage.ckpt").write_bytes(b"garbage")
    nan = spoiled(
        base, tmp_path / "nan.ckpt", lambda it: it["state_dict"]["ema.average.head.bias"].fill_(torch.nan)
    )
    start = [*PLAIN, *CLASSES, f"--trainer.default_root_dir={tmp_path}/runs"]
    assert "absent.ckpt" in complaint("fit", *start, "--init_from", tmp_path / "absent.ckpt")
    assert "garbage.ckpt" in complaint("fit", *start, "--init_from", tmp_path / "garbage.ckpt")
    assert "NaN" in complaint("fit", *start, "--init_from", nan)
    ring = ["--config", CONFIGS / "ring.yaml", f"--trainer.default_root_dir={tmp_path}/runs"]
    assert "--init_from" in complaint("fit", *ring, "--init_from", base.checkpoint)
    both = ["--ckpt_path", base.checkpoint, "--init_from", base.checkpoint]
    assert "--init_from" in complaint("fit", *start, *both)
    assert not (tmp_path / "runs").exists()


def test_the_same_command_continues_a_run_that_it_has_begun(
    base: Run, tmp_path: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    start = [*CLASSES, f"--init_from={base.checkpoint}"]
    for iterations in (2, 4):
        capsys.readouterr()
        monkeypatch.setenv("LITGAN_RUN_ID", "job")
        resumed = fit(tmp_path / "a", iterations, *start)
    assert "--init_from" in capsys.readouterr().err
    straight = fit(tmp_path / "b", 4, *start)
    assert_same(weights(resumed), weights(straight))
    recipe = checkpoints.read(resumed.checkpoint)["litgan"]["recipe"]
    assert recipe["init_from"] == str(base.checkpoint)
    fit(tmp_path / "a", 5, *start, "--ckpt_path=last")
    assert checkpoints.clock(checkpoints.read(resumed.checkpoint))[0] == 5 * 32


# ---------------------------------------------------------------------- parts that are not trained

FROZEN = [
    "discriminator.backbone.0",
    "discriminator.backbone.1",
    "generator.norms.0",
    "generator.base.weight",
]
FREEZE = [
    f"--model.freeze=[{','.join(FROZEN)}]", "--model.generator.norm=batch",
    "--model.discriminator.norm=batch", "--model.discriminator.spectral_norm=true", *CLASSES,
]  # fmt: skip
MEASURED = [  # with all callbacks
    "--realism.every=64", "--realism.count=300", "--samples.every=32", "--gradients.every=32",
    "--trainer.log_every_n_steps=1",
]  # fmt: skip


def frozen_weights(run: Run | Path) -> dict[str, Tensor]:
    return {name: value for name, value in weights(run).items() if name.startswith(tuple(FROZEN))}


@pytest.fixture(scope="module")
def frozen(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run with frozen parts, 4 iterations, measured and drawn."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("WANDB_MODE", "disabled")
        patch.setenv("LITGAN_RUN_ID", "frozen")
        patch.setenv("LITGAN_CACHE", str(tmp_path_factory.mktemp("cache")))
        return fit(tmp_path_factory.mktemp("frozen"), 4, *FREEZE, *MEASURED)


def test_frozen_parts_stay_bit_for_bit_and_the_others_learn(frozen: Run, tmp_path: Path) -> None:
    fresh = weights(fit(tmp_path, 1, *FREEZE[1:], *STILL), "generator.base")
    still = weights(fit(tmp_path / "still", 1, *FREEZE, *STILL))
    after = weights(frozen)
    assert_same(weights(frozen, "generator.base"), fresh)
    assert_same(weights(frozen, "ema.average.base"), fresh)
    kept = frozen_weights(frozen)
    assert {"running_mean", "_u"} <= {name.rsplit(".", 1)[1] for name in kept}
    assert_same(kept, {name: still[name] for name in kept})
    moved = {name for name in after if not torch.equal(after[name], still[name])}
    assert {"generator.head.weight", "discriminator.head.linear.parametrizations.weight.original"} <= moved
    assert not any(
        name.startswith(("ema.average.norms.0", "extra_emas.1000000.average.base")) for name in moved
    )
    gan = GAN.load_from_checkpoint(frozen.checkpoint)
    trained = [
        len([n for n, _ in network.named_parameters(prefix=name) if not n.startswith(tuple(FROZEN))])
        for name, network in (("generator", gan.generator), ("discriminator", gan.discriminator))
    ]
    states = checkpoints.read(frozen.checkpoint)["optimizer_states"]
    assert [len(one["state"]) for one in states] == trained
    assert [len(one["param_groups"][0]["params"]) for one in states] == trained


@pytest.mark.heavy
def test_a_run_with_frozen_parts_is_resumed_and_exported(
    frozen: Run, tmp_path: Path, complaint: Complaint
) -> None:
    root = f"--trainer.default_root_dir={tmp_path}"
    fit(tmp_path, 2, *FREEZE, *MEASURED)
    others = [*PLAIN, *FREEZE[1:], root, "--trainer.max_steps=4", "--ckpt_path=last"]
    assert "--init_from" in complaint("fit", *others)
    assert "--init_from" in complaint("fit", *others, "--model.freeze=[generator.head]")
    resumed = fit(tmp_path, 4, *FREEZE, *MEASURED, "--ckpt_path=last")
    assert_same(weights(resumed), weights(frozen))
    cli.main(
        [
            "export",
            str(resumed.checkpoint),
            "--format",
            "safetensors",
            "--out",
            str(tmp_path / "g.safetensors"),
        ]
    )


def test_gradients_pass_through_frozen_parts(tiny_gan: Any, tiny_data: Any, make_trainer: Any) -> None:
    gan = tiny_gan(freeze=["discriminator.backbone", "generator.head"])
    before = copy.deepcopy(gan.state_dict())
    make_trainer(1).fit(gan, datamodule=tiny_data())
    still = {name for name, value in gan.state_dict().items() if torch.equal(value, before[name])}
    frozen = {name for name in before if name.startswith(("discriminator.backbone", "generator.head"))}
    assert still == frozen | {name for name in before if name.startswith("ema.average.head")}
    assert all(
        (weight.grad is None) == (name in frozen)
        for name, weight in gan.generator.named_parameters("generator")
    )


@pytest.mark.parametrize(
    ("names", "culprit"),
    [
        (["discriminator.backbon.0"], "discriminator.backbone.0"),  # what is near
        (["ema.average.base"], "ema.average.base"),
        (["generator"], "generator"),
        (["nonsense"], "nonsense"),
    ],
)
def test_parts_that_cannot_be_frozen(
    names: list[str], culprit: str, tmp_path: Path, complaint: Complaint
) -> None:
    said = complaint("fit", *PLAIN, f"--trainer.default_root_dir={tmp_path}/runs", f"--model.freeze={names}")
    assert "model.freeze" in said and culprit in said
    assert not (tmp_path / "runs").exists()


# ---------------------------------------------------------------------- other data


def pictures(folder: Path, seed: int = 0, classes: str = "abc") -> Path:
    noise = np.random.default_rng(seed)
    for index in range(48):
        file = folder / classes[index % len(classes)] / f"{index}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(noise.integers(0, 256, (8, 8), dtype=np.uint8)).save(file)
    return folder


def of(folder: Path, **options: Any) -> list[str]:
    given = {"root": folder, "resolution": 8, "channels": 1, "num_classes": 3, "batch_size": 16} | options
    return ["--data=litgan.data.ImageFolder", *(f"--data.{name}={value}" for name, value in given.items())]


def content(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def begun(tmp_path: Path) -> Run:
    """Two iterations on a folder of pictures of three classes."""
    return fit(tmp_path / "runs", 2, *of(pictures(tmp_path / "first")))


def test_the_same_data_elsewhere_go_on(begun: Run, tmp_path: Path) -> None:
    moved = tmp_path / "elsewhere" / "moved"
    shutil.copytree(tmp_path / "first", moved)
    for file in moved.rglob("*.png"):
        os.utime(file, (1, 1))
    options = {"memory": "disk", "num_workers": 1, "batch_size": 8, "flip": "true"}
    again = fit(tmp_path / "runs", 3, *of(moved, **options), "--ckpt_path=last")
    assert again.folder == begun.folder and checkpoints.read(again.checkpoint)["litgan"]["images_seen"] == 40


@pytest.mark.heavy
@pytest.mark.parametrize(
    "case", ["other pictures", "a class renamed", "one more", "no classes", "another set"]
)
def test_other_data_are_refused_and_the_old_run_is_untouched(
    case: str, begun: Run, tmp_path: Path, complaint: Complaint
) -> None:
    first = tmp_path / "first"
    if case == "a class renamed":
        (first / "a").rename(first / "z")
    elif case == "one more":
        shutil.copy(first / "a" / "0.png", first / "a" / "100.png")
    other = {
        "other pictures": of(pictures(tmp_path / "second", seed=1)),
        "no classes": of(first, num_classes=0),
        "another set": ["--data=litgan.data.Digits", "--data.num_classes=0", "--data.batch_size=16"],
    }.get(case, of(first))
    before = content(begun.folder)
    said = complaint("fit", *PLAIN, *other, f"--trainer.default_root_dir={tmp_path}/runs", "--ckpt_path=last")
    assert "--init_from" in said and content(begun.folder) == before


def test_measuring_takes_any_data(begun: Run, tmp_path: Path) -> None:
    other = of(pictures(tmp_path / "second", seed=1))
    root = f"--trainer.default_root_dir={tmp_path}/runs"
    cli.main(["validate", *PLAIN, *other, root, f"--ckpt_path={begun.checkpoint}", "--realism.count=40"])


def test_a_checkpoint_that_does_not_name_its_data_goes_on(begun: Run, tmp_path: Path) -> None:
    state = checkpoints.read(begun.checkpoint)
    del state["callbacks"]["SameData"]
    torch.save(state, begun.checkpoint)
    fit(tmp_path / "runs", 3, *of(pictures(tmp_path / "second", seed=1)), "--ckpt_path=last")
    assert checkpoints.read(begun.checkpoint)["litgan"]["images_seen"] == 48


def test_the_same_holds_in_python(tiny_gan: Any, make_trainer: Any, tmp_path: Path) -> None:
    first = make_trainer(2)
    first.fit(tiny_gan(), datamodule=Ring(samples=40, batch_size=8))
    first.save_checkpoint(tmp_path / "cut.ckpt")
    make_trainer(3).fit(
        tiny_gan(), datamodule=Ring(samples=40, batch_size=4), ckpt_path=tmp_path / "cut.ckpt"
    )
    other = Ring(samples=40, batch_size=8, std=0.03)
    with pytest.raises(ValueError, match="--init_from"):
        make_trainer(3).fit(tiny_gan(), datamodule=other, ckpt_path=tmp_path / "cut.ckpt")


def test_the_signature_reads_few_files_and_depends_on_content_alone(tmp_path: Path) -> None:
    class Counting:
        fingerprint, reads = "files", 0

        def __len__(self) -> int:
            return 10**9

        def __getitem__(self, index: int) -> Tensor:
            Counting.reads += 1
            return torch.full((1, 8, 8), index % 251, dtype=torch.uint8)

    class Large(Digits):
        def read(self, split: str) -> Any:
            return Counting(), None

    assert len(Large(memory="disk").signature["content"]) == 32 and Counting.reads < 40
    folder = pictures(tmp_path / "first")
    options: dict[str, Any] = {"resolution": 8, "channels": 1, "num_classes": 3}
    one, *others = (
        ImageFolder(str(folder), memory=memory, seed=seed, **options).signature
        for memory, seed in (("disk", 0), ("host", 1))
    )
    assert others == [one] and one["class_names"] == ["a", "b", "c"]
    assert Ring(std=0.03).signature != Ring().signature
