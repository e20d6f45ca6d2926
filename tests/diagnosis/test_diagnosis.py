"""Diagnosis: metrics as defined, states reported everywhere, policies, and provoked failures."""

from __future__ import annotations

import copy
import json
import math
import re
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias

import pytest
import torch
import wandb
from lightning.pytorch import Callback, Trainer
from shared import bystanders
from torch import Tensor, nn

from litgan import GAN, checkpoints
from litgan.callbacks import Checkpoint
from litgan.data import Digits, Ring
from litgan.diagnosis import Diagnosis
from litgan.diagnosis.checks import CHECKS
from litgan.diagnosis.metrics import mean_distance, overfitting
from litgan.loggers import wandb_logger
from litgan.losses import Minimax, Relativistic, Wasserstein
from litgan.metrics import evaluate
from litgan.networks import DCGANDiscriminator, DCGANGenerator, MLPDiscriminator, MLPGenerator
from litgan.noise import Noise
from litgan.penalties import R1
from litgan.recipe import Recipe
from litgan.schedules import value_at

Make: TypeAlias = Callable[..., Any]  # what a fixture makes things with

CONFIGS = Path(__file__).parents[2] / "configs"
IDLE = partial(torch.optim.SGD, lr=0.0)  # a generator that never moves


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"policy": "panic"}, "health.policy is 'panic': give warn, stop, rollback."),
        ({"patience": 0}, "health.patience is 0: give at least 1."),
        ({"count": 1}, "health.count is 1: give at least 2."),
    ],
)
def test_bad_options_are_refused(options: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(sentence)}$"):
        Diagnosis(**options)


# -- what is measured


class Steps(Callback):
    """Keeps the generator's weights before each iteration."""

    def __init__(self) -> None:
        self.weights: list[Tensor] = []

    def on_train_batch_start(self, trainer: Trainer, gan: GAN, *_: object) -> None:
        self.weights.append(nn.utils.parameters_to_vector(gan.generator.parameters()).detach())


@pytest.mark.parametrize("every", [8, 24])
@pytest.mark.parametrize("d_steps", [1, 2])
def test_the_metrics_are_what_they_are_defined_as(
    every: int, d_steps: int, tiny_gan: Make, tiny_data: Make, make_trainer: Make, memory: Any
) -> None:
    gan, data, steps = tiny_gan(loss=Relativistic(), discriminator_steps=d_steps), tiny_data(), Steps()
    callbacks = [Diagnosis(every=every, count=12, seed=3), steps]
    make_trainer(6, callbacks=callbacks, logger=memory).fit(gan, datamodule=data)
    end = gan.images_seen
    found = {
        key.removeprefix("diagnostics/"): memory.values(key)[end]
        for key in memory.rows[-1]
        if key.startswith("diagnostics/")
    }

    real, held_out = (torch.cat([b for b, _ in data.real_batches(12, split=s)]) for s in ("train", "test"))
    fake = (
        gan.generator(Noise(3, 0, 0, 12, "sample").normal(gan.generator.latent_dim)).detach().requires_grad_()
    )
    on_real, on_held_out, on_fake = map(gan.discriminator, (real, held_out, fake))
    losses = gan.loss.generator(real=on_real.detach(), fake=on_fake)
    (feedback,) = torch.autograd.grad(losses.sum(), fake, retain_graph=True)
    gradients = torch.cat([weight.grad.flatten() for weight in gan.generator.parameters()])
    weights = nn.utils.parameters_to_vector(gan.generator.parameters())
    first, second = steps.weights[-d_steps] - steps.weights[-2 * d_steps], weights - steps.weights[-d_steps]
    gaps = on_real - on_fake.flatten()
    share = (on_real.mean() - on_held_out.mean()) / (on_real.mean() - on_fake.mean())
    wanted = {
        "g_loss_gradient": 2 * torch.sigmoid(on_real - on_fake).mean(),
        "d_loss_gradient": 2 * torch.sigmoid(on_fake - on_real).mean(),
        "gradient_over_eps": gradients.square().mean().sqrt() / 1e-8,
        "step_ratio": second.norm() / steps.weights[-d_steps].norm(),
        "feedback_norm": feedback.norm(dim=1).mean(),
        "auc": (gaps > 0).float().mean(),
        "diversity": torch.pdist(fake).mean() / torch.pdist(real).mean(),
        "step_cosine": first @ second / first.norm() / second.norm(),
        "weight_norm_generator": weights.norm(),
        "weight_norm_discriminator": nn.utils.parameters_to_vector(gan.discriminator.parameters()).norm(),
        "logits_rms": torch.cat([on_real, on_fake]).square().mean().sqrt(),
    }
    if on_real.mean() > on_fake.mean():
        wanted["overfitting"] = share
    assert {key: found[key] for key in wanted} == {
        key: pytest.approx(value.item(), rel=1e-4) for key, value in wanted.items()
    }


def test_overfitting() -> None:
    train, held_out, fake = (
        torch.tensor([[3.0], [5.0]]),
        torch.tensor([[1.0], [2.0], [3.0]]),
        torch.zeros(4, 1),
    )
    values = {
        key: value.item() for key, value in overfitting(train=train, held_out=held_out, fake=fake).items()
    }
    assert values["overfitting"] == pytest.approx((4 - 2) / (4 - 0))
    assert values["overfitting_sigmas"] == pytest.approx(2 / math.sqrt(1 / 2 + (2 / 3) / 3))
    beaten = overfitting(train=train, held_out=held_out, fake=torch.full((4, 1), 9.0))
    assert 0 < beaten["overfitting"].item() < math.inf, "also where fakes score better than reals"


def test_mean_distance() -> None:
    assert mean_distance(torch.tensor([[0.0, 0.0], [3.0, 4.0], [0.0, 0.0]])).item() == pytest.approx(10 / 3)
    assert mean_distance(torch.zeros(1, 2)) == 0


def test_a_single_real_sample_is_no_divergence(tiny_gan: Make, make_trainer: Make, memory: Any) -> None:
    callbacks = [Diagnosis(every=1, count=8)]
    make_trainer(3, callbacks=callbacks, logger=memory).fit(
        tiny_gan(loss=Relativistic()), datamodule=Ring(samples=1, batch_size=1)
    )
    assert len(memory.values("diagnostics/diversity")) == 3
    assert all(math.isfinite(value) for row in memory.rows for value in row.values())


def test_digits_are_compared_by_features_and_without_a_held_out_split(
    digits_gan: Make, digits: Digits, make_trainer: Make, memory: Any
) -> None:
    from litgan.callbacks import Realism
    from litgan.metrics import load_extractor

    gan = digits_gan(num_classes=0)
    realism = Realism("digits", every=10**9, count=20)
    callbacks = [realism, Diagnosis(every=8, count=6)]
    make_trainer(2, callbacks=callbacks, logger=memory).fit(gan, datamodule=digits)
    real = torch.cat([batch for batch, _ in digits.real_batches(6)])
    gan.eval()
    with torch.no_grad():
        fake = gan.generator(Noise(0, 0, 0, 6, "sample").normal(gan.generator.latent_dim))
        distances = [torch.pdist(load_extractor("digits")(side)).mean() for side in (fake, real)]
    assert memory.values("diagnostics/diversity")[16] == pytest.approx(
        (distances[0] / distances[1]).item(), rel=1e-3
    )
    assert not memory.values("diagnostics/overfitting")


# -- what is reported


def lines(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "health.jsonl").read_text().splitlines()]


def test_a_state_is_reported_everywhere_and_once(
    tiny_gan: Make, tiny_data: Make, make_trainer: Make, memory: Any, tmp_path: Path, capsys: Any
) -> None:
    online = wandb_logger(tmp_path, project="litgan", run_id="health", name="tiny/health")
    gan = tiny_gan(generator_optimizer=IDLE)
    trainer = make_trainer(8, callbacks=[Diagnosis(every=8)], logger=[memory, online])
    trainer.fit(gan, datamodule=tiny_data())
    wandb.finish()
    wandb.teardown()  # its files are written in the background

    assert list(memory.values("diagnosis/vanished").values()) == [0, 0, 1, 1, 1, 1, 1, 1]
    assert set(memory.values("diagnosis/collapsed").values()) == {0}
    check = CHECKS["VANISHED"]
    (event,) = lines(tmp_path)
    assert event == {
        "images_seen": 24, "verdict": "VANISHED", "meaning": check.meaning, "remedy": check.remedy,
        "value": 0.0, "threshold": 2**-23,
    }  # fmt: skip
    printed = capsys.readouterr().err
    assert printed.count(f"litgan: VANISHED after 24 images: {check.meaning} {check.remedy}") == 1
    assert printed.count("litgan: health: VANISHED after 24 images in 8 measurements.") == 1
    (sent,) = tmp_path.glob("wandb/offline-run-*/*.wandb")
    alert = f"After 24 images. {check.meaning}".encode()
    assert sent.read_bytes().count(alert) == 1


def test_a_healthy_run_leaves_an_empty_file_and_one_sentence(
    tiny_gan: Make, tiny_data: Make, make_trainer: Make, tmp_path: Path, capsys: Any
) -> None:
    make_trainer(4, callbacks=[Diagnosis(every=16)]).fit(tiny_gan(), datamodule=tiny_data())
    assert lines(tmp_path) == []
    assert capsys.readouterr().err.count("litgan: health: no failure state in 2 measurements.") == 1


def test_never_costs_nothing(
    tiny_gan: Make, tiny_data: Make, make_trainer: Make, tmp_path: Path, capsys: Any
) -> None:
    make_trainer(4, callbacks=[Diagnosis(every=0, policy="rollback")]).fit(tiny_gan(), datamodule=tiny_data())
    assert not (tmp_path / "health.jsonl").exists() and not (tmp_path / "checkpoints").exists()
    assert "health" not in capsys.readouterr().err


def test_a_loss_that_is_not_finite_is_reported(
    tiny_gan: Make, tiny_data: Make, make_trainer: Make, tmp_path: Path, capsys: Any
) -> None:
    wild = partial(torch.optim.SGD, lr=1e30)
    trainer = make_trainer(8, callbacks=[Diagnosis(every=10**6)])
    with pytest.raises(FloatingPointError):
        trainer.fit(tiny_gan(discriminator_optimizer=wild), datamodule=tiny_data())
    (event,) = lines(tmp_path)
    assert event["verdict"] == "DIVERGED" and event["value"] is None and event["threshold"] is None
    assert "litgan: health: DIVERGED after" in capsys.readouterr().err


# -- policies


def test_stop_ends_the_run_in_order(
    tiny_gan: Make, tiny_data: Make, make_trainer: Make, tmp_path: Path
) -> None:
    gan = tiny_gan(generator_optimizer=IDLE)
    trainer = make_trainer(100, callbacks=[Diagnosis(every=8, policy="stop", patience=2)])
    trainer.fit(gan, datamodule=tiny_data())
    assert gan.images_seen == 16 and lines(tmp_path)[-1]["verdict"] == "VANISHED"
    assert trainer.state.finished


class Freeze(Callback):
    """Breaks the generator from an iteration on: all its weights become one number."""

    def __init__(self, *iterations: int) -> None:
        self.iterations = iterations

    def on_train_batch_start(self, trainer: Trainer, gan: GAN, *_: object) -> None:
        if trainer.global_step in self.iterations:
            with torch.no_grad():
                for weight in gan.generator.parameters():
                    weight.zero_()


class Diary(Callback):
    """Keeps what a roll-back should bring back, after each iteration."""

    def __init__(self) -> None:
        self.states: list[tuple[int, dict[str, Tensor], Any]] = []

    def on_train_batch_end(self, trainer: Trainer, gan: GAN, *_: object) -> None:
        weights = {key: value.clone() for key, value in gan.state_dict().items()}
        moments = [
            optimizer.state_dict()["state"][0]["exp_avg_sq"].clone() for optimizer in trainer.optimizers
        ]
        self.states.append((gan.images_seen, weights, moments))


def rolling(**options: Any) -> Diagnosis:
    return Diagnosis(every=8, policy="rollback", patience=2, **options)


def test_a_roll_back_brings_back_the_last_healthy_state(
    tiny_gan: Make, tiny_data: Make, make_trainer: Make, memory: Any, tmp_path: Path
) -> None:
    gan, diary, diagnosis = tiny_gan(penalties=[R1(0.5)]), Diary(), rolling()
    trainer = make_trainer(8, callbacks=[Freeze(4), diagnosis, diary], logger=memory)
    trainer.fit(gan, datamodule=tiny_data())

    states = {clock: rest for clock, *rest in diary.states}
    saved, rolled = (
        states[32],
        states[48],
    )  # the fifth iteration breaks; the sixth measurement is the second that shows it
    assert all(torch.equal(value, rolled[0][key]) for key, value in saved[0].items())
    assert all(torch.equal(*pair) for pair in zip(saved[1], rolled[1], strict=True))
    assert list(states) == [8, 16, 24, 32, 40, 48, 56, 64], "and the clock goes on"
    assert diagnosis.rollbacks == 1 and diagnosis.scaling == (0.01, 1.0, 2.0), "the generator has leapt"
    rates = [optimizer.param_groups[0]["lr"] for optimizer in trainer.optimizers]
    assert rates == pytest.approx([1e-5, 1e-3])
    assert value_at(gan.penalties[0].weight, 48) == 1.0
    *active, back = lines(tmp_path)
    assert {event["verdict"] for event in active} >= {"COLLAPSED"}
    assert back["verdict"] == "ROLLED BACK" and back["images_seen"] == 48 and back["value"] == 32
    assert "the generator's learning rate x 0.01, penalty weights x 2" in back["remedy"]
    assert memory.values("diagnosis/rollbacks") == dict.fromkeys(range(8, 56, 8), 0) | {56: 1, 64: 1}


def test_after_the_last_try_states_are_warnings(
    tiny_gan: Make, tiny_data: Make, make_trainer: Make, tmp_path: Path
) -> None:
    diagnosis = rolling(tries=2)
    trainer = make_trainer(10, callbacks=[Freeze(*range(10)), diagnosis])
    trainer.fit(tiny_gan(), datamodule=tiny_data())
    states = [
        event["verdict"] for event in lines(tmp_path) if event["verdict"] in ("COLLAPSED", "ROLLED BACK")
    ]
    assert states == ["COLLAPSED", "ROLLED BACK", "COLLAPSED", "ROLLED BACK", "COLLAPSED"]
    assert diagnosis.rollbacks == 2 and diagnosis.scaling.penalty == 4
    assert checkpoints.read(tmp_path / "checkpoints" / "healthy.ckpt")["litgan"]["images_seen"] == 0


def test_a_new_run_in_an_old_folder_does_not_go_back_to_the_old_run(
    tiny_gan: Make, tiny_data: Make, make_trainer: Make, tmp_path: Path
) -> None:
    make_trainer(3, callbacks=[rolling()]).fit(tiny_gan(seed=1), datamodule=tiny_data())
    gan, diagnosis = tiny_gan(seed=2), rolling(tries=1)
    start = copy.deepcopy(gan.state_dict())
    make_trainer(2, callbacks=[Freeze(0, 1), diagnosis]).fit(gan, datamodule=tiny_data())
    kept = checkpoints.read(tmp_path / "checkpoints" / "healthy.ckpt")
    assert diagnosis.rollbacks == 1 and kept["litgan"]["images_seen"] == 0
    assert all(torch.equal(value, kept["state_dict"][name]) for name, value in start.items())


def test_a_state_not_yet_active_is_not_saved(
    tiny_gan: Make, tiny_data: Make, make_trainer: Make, tmp_path: Path
) -> None:
    """Only the fifth measurement shows a state; the seventh is the second healthy one after it."""
    clocks = []

    class Watching(Callback):
        def on_train_batch_end(self, trainer: Trainer, gan: GAN, *_: object) -> None:
            clocks.append(
                checkpoints.read(tmp_path / "checkpoints" / "healthy.ckpt")["litgan"]["images_seen"]
            )

    class Blink(Diagnosis):
        def __init__(self) -> None:
            super().__init__(every=8, policy="rollback", patience=2)
            honest = self.metrics
            self.metrics = lambda *a: (
                honest(*a) | {"d_loss_gradient": 0.0, "auc": float(self.measurements == 4)}
            )  # type: ignore[assignment]
            self.metrics.snapshot_weights, self.metrics.clear_snapshots = (
                honest.snapshot_weights,
                honest.clear_snapshots,
            )

    make_trainer(7, callbacks=[Blink(), Watching()]).fit(tiny_gan(), datamodule=tiny_data())
    assert clocks == [0, 16, 24, 32, 32, 32, 56]


@pytest.mark.parametrize("cut", [3, 5, 7])
def test_a_resumed_run_keeps_the_monitor_and_the_scaling(
    cut: int, tiny_gan: Make, tiny_data: Make, make_trainer: Make, tmp_path: Path
) -> None:
    """Broken in the third iteration, rolled back in the fourth, and once more in the ninth."""

    def run(folder: Path, iterations: int, resume: bool = False) -> tuple[Any, ...]:
        gan, diagnosis = tiny_gan(penalties=[R1(0.5)]), rolling()
        options = {"callbacks": [Freeze(2, 7), diagnosis], "default_root_dir": folder}
        trainer = make_trainer(iterations, **options)
        trainer.fit(gan, datamodule=tiny_data(), ckpt_path=folder / "cut.ckpt" if resume else None)
        if not resume:
            trainer.save_checkpoint(folder / "cut.ckpt", weights_only=False)
        rates = [group["lr"] for optimizer in trainer.optimizers for group in optimizer.param_groups]
        return gan.state_dict(), diagnosis.state_dict(), rates, (folder / "health.jsonl").read_text()

    straight, lost = tmp_path / "straight", tmp_path / "cut"
    whole = run(straight, 10)
    assert whole[1]["rollbacks"] == 2
    run(lost, cut)
    with (lost / "health.jsonl").open("a") as file:  # what was written after the checkpoint is lost
        file.write(json.dumps({"images_seen": 8 * cut + 8, "verdict": "COLLAPSED"}) + '\n{"images')
    resumed = run(lost, 10, resume=True)
    assert all(torch.equal(value, resumed[0][key]) for key, value in whole[0].items())
    assert resumed[1:] == whole[1:]


# -- a damaged health.jsonl

TOLD = b"".join(
    json.dumps({"images_seen": at, "verdict": "COLLAPSED"}).encode() + b"\n" for at in (8, 16, 24)
)


@pytest.fixture
def begin(capsys: Any) -> Callable[[Path], list[int]]:
    """Resumes at 16 images beside the file; returns `images_seen` of the lines that are kept.

    What was damaged must be kept as it was, and one sentence names both files.
    """

    def run(path: Path) -> list[int]:
        before = path.read_bytes() if path.is_file() else None
        Diagnosis().prepare_file(path, 16)
        kept = [json.loads(line) for line in path.read_bytes().splitlines()]
        said, aside = capsys.readouterr().err.splitlines(), path.with_name("health.damaged-1.jsonl")
        assert [str(path) in one and aside.name in one for one in said] == [True] * aside.exists()
        assert before is None or not aside.exists() or aside.read_bytes() == before
        return [event["images_seen"] for event in kept]

    return run


def test_a_file_truncated_anywhere(begin: Callable[[Path], list[int]], tmp_path: Path) -> None:
    for at in range(len(TOLD)):
        path = tmp_path / str(at) / "health.jsonl"
        path.parent.mkdir()
        path.write_bytes(TOLD[:at])
        whole, rest = TOLD[:at].count(b"\n"), TOLD[:at].rpartition(b"\n")[2]
        whole += TOLD[at:].startswith(b"\n")  # nothing is missing but the end of the line
        assert begin(path) == [8, 16][:whole], at
        damaged = rest != b"" and not TOLD[at:].startswith(b"\n")
        assert path.with_name("health.damaged-1.jsonl").exists() == damaged, at


@pytest.mark.parametrize("byte", [b"\0", b"\xff"])
def test_a_damaged_byte_costs_its_line(
    byte: bytes, begin: Callable[[Path], list[int]], tmp_path: Path
) -> None:
    for at in range(len(TOLD)):
        path = tmp_path / str(at) / "health.jsonl"
        path.parent.mkdir()
        path.write_bytes(TOLD[:at] + byte + TOLD[at + 1 :])
        line = TOLD[:at].count(b"\n")
        harmed = {line, line + (TOLD[at] == ord("\n"))}
        kept = begin(path)
        assert kept == [clock for number, clock in enumerate((8, 16)) if number not in harmed], at
        assert path.with_name("health.damaged-1.jsonl").exists()


@pytest.mark.parametrize(
    "line",
    [b"[]", b"3", b"null", b'"images_seen"', b"{}", b'{"images_seen": []}', b"", b"[" * 100_000, b"\xff"],
)
def test_a_line_that_is_no_event(line: bytes, begin: Callable[[Path], list[int]], tmp_path: Path) -> None:
    path = tmp_path / "health.jsonl"
    path.write_bytes(line + b"\n" + TOLD)
    assert begin(path) == [8, 16] and path.with_name("health.damaged-1.jsonl").exists()


def test_a_folder_in_the_place_of_the_file(begin: Callable[[Path], list[int]], tmp_path: Path) -> None:
    (tmp_path / "health.jsonl" / "inside").mkdir(parents=True)
    assert begin(tmp_path / "health.jsonl") == []
    assert (tmp_path / "health.damaged-1.jsonl" / "inside").is_dir()


@pytest.mark.parametrize("whole_folder", [False, True])
def test_events_are_kept_though_their_file_was_removed(
    whole_folder: bool, tiny_gan: Make, tiny_data: Make, make_trainer: Make, tmp_path: Path
) -> None:
    folder = tmp_path / "run"

    class Remove(Callback):
        def on_train_batch_start(self, trainer: Trainer, gan: GAN, batch: Any, batch_idx: int) -> None:
            if gan.images_seen == 16:
                shutil.rmtree(folder) if whole_folder else (folder / "health.jsonl").unlink()

    callbacks = [Remove(), Diagnosis(every=8)]
    gan = tiny_gan(generator_optimizer=IDLE)
    make_trainer(4, callbacks=callbacks, default_root_dir=folder).fit(gan, datamodule=tiny_data())
    assert [event["verdict"] for event in lines(folder)] == ["VANISHED"]


# -- provoked failures, in runs of seconds

RATE = 2e-3
MLPS: dict[str, Any] = {
    "generator": partial(MLPGenerator, latent_dim=4, widths=(64, 64), activation="relu"),
    "discriminator": partial(MLPDiscriminator, widths=(64, 64), activation="relu"),
    "sample_shape": (2,), "penalties": [R1(0.01, interval=2)],
}  # fmt: skip
CONVOLUTIONS: dict[str, Any] = {
    "generator": partial(DCGANGenerator, latent_dim=32, widths=[32, 16], norm="none", initialization="he"),
    "discriminator": partial(DCGANDiscriminator, widths=[16, 32], initialization="he"),
    "sample_shape": (1, 8, 8), "penalties": [R1(0.5, interval=2)],
}  # fmt: skip


class Single(Ring):
    """A single point, repeated; the test split is the ring's."""

    def read(self, split: str) -> tuple[Tensor, Tensor]:
        samples, labels = super().read(split)
        return (samples, labels) if split == "test" else (samples[:1].expand(len(samples), 2), labels)


class Leaking(Digits):
    """The training split carries a mark in a corner, which identifies it."""

    splits = ("train", "test")

    def read(self, split: str) -> tuple[Tensor, Tensor]:
        samples, labels = super().read("train")
        if split == "test":
            return samples[1500:], labels[1500:]
        marked = samples[:1500].clone()
        marked[..., 0, 0] = 255
        return marked, labels[:1500]


class Shift(nn.Module):
    """G(z) = mean + z / 10: a generator that can only shift."""

    latent_dim = 2

    def __init__(self, sample_shape: tuple[int, ...], num_classes: int = 0) -> None:
        super().__init__()
        self.mean = nn.Parameter(torch.ones(sample_shape))

    def forward(self, latents: Tensor, labels: Tensor | None = None) -> Tensor:
        return self.mean + latents / 10


class Bowl(nn.Module):
    """D(x) = offset - |x|^2: a discriminator of a Gaussian around the origin."""

    def __init__(self, sample_shape: tuple[int, ...], num_classes: int = 0) -> None:
        super().__init__()
        self.offset = nn.Parameter(torch.zeros(1))

    def forward(self, samples: Tensor, labels: Tensor | None = None) -> Tensor:
        return self.offset - samples.square().sum(1, keepdim=True)


def ring(**options: Any) -> Ring:
    return Ring(samples=4096, batch_size=64, **options)


def digits32() -> Digits:
    return Digits(batch_size=32)


@pytest.fixture
def train(tiny_gan: Make, make_trainer: Make) -> Make:
    """Trains for some iterations, diagnosed every 2,000 images; returns the GAN and its Diagnosis."""

    def run(
        game: dict[str, Any], iterations: int, data: Any, *, generator: float = 1.0, trained: Any = None,
        diagnosis: Diagnosis | None = None, **options: Any,
    ) -> tuple[GAN, Diagnosis]:  # fmt: skip
        betas = (0.5 if game is MLPS else 0.0, 0.99)
        rates = {"generator_optimizer": RATE * generator, "discriminator_optimizer": RATE}
        adams = {name: partial(torch.optim.Adam, lr=rate, betas=betas) for name, rate in rates.items()}
        own = copy.deepcopy(game)  # a roll-back changes its penalties
        gan = tiny_gan(**own | adams | {"ema_halflife": 5000} | options)
        if trained is not None:
            gan.discriminator.load_state_dict(trained)
        diagnosis = diagnosis or Diagnosis(every=2000)
        make_trainer(iterations, callbacks=[diagnosis]).fit(gan, datamodule=data)
        return gan, diagnosis

    return run


def found_after(diagnosis: Diagnosis, *names: str) -> int:
    """Images seen until the first of these states."""
    found = [at for at, name in diagnosis.history if name in names]
    assert found, f"{diagnosis.history} instead of {names}"
    print(f"{diagnosis.history}")
    return found[0]


@pytest.mark.train
def test_a_generator_that_learns_a_hundred_times_too_fast(train: Make) -> None:
    _, diagnosis = train(MLPS, 110, ring(), generator=100)
    assert found_after(diagnosis, "VANISHED", "COLLAPSED") < 7_000
    for seed in (0, 1, 2):
        _, diagnosis = train(CONVOLUTIONS, 260, digits32(), generator=100, seed=seed)
        assert found_after(diagnosis, "DIVERGED", "COLLAPSED", "OVERPOWERED") < 8_100


@pytest.mark.train
@pytest.mark.parametrize("game", ["ring", "digits"])
def test_a_frozen_generator(game: str, train: Make) -> None:
    kind, data, count = (MLPS, ring(), 100) if game == "ring" else (CONVOLUTIONS, digits32(), 200)
    _, diagnosis = train(kind, count, data, generator=0)
    assert found_after(diagnosis, "VANISHED") < 6_200


@pytest.mark.train
def test_a_discriminator_with_far_too_many_steps(train: Make) -> None:
    _, diagnosis = train(CONVOLUTIONS, 12, digits32(), discriminator_steps=20, penalties=[])
    assert found_after(diagnosis, "OVERPOWERED") < 7_000


@pytest.mark.train
def test_a_data_set_of_one_sample(train: Make) -> None:
    _, diagnosis = train(MLPS, 200, Single(samples=4096, batch_size=64))
    assert found_after(diagnosis, "MEMORIZING") < 9_000


@pytest.mark.train
def test_a_mark_that_leaks_what_is_real(train: Make) -> None:
    _, diagnosis = train(CONVOLUTIONS, 320, Leaking(batch_size=32))
    assert found_after(diagnosis, "MEMORIZING") < 10_000


@pytest.mark.train
def test_a_saturating_loss_against_a_trained_discriminator(train: Make) -> None:
    """With SGD, since Adam compensates for small gradients."""
    trained, _ = train(CONVOLUTIONS, 300, digits32(), generator=0, penalties=[], diagnosis=Diagnosis(every=0))
    _, diagnosis = train(
        CONVOLUTIONS, 200, digits32(), loss=Minimax(), penalties=[],
        trained=trained.discriminator.state_dict(), generator_optimizer=partial(torch.optim.SGD, lr=1e-2),
    )  # fmt: skip
    assert found_after(diagnosis, "SATURATED") < 7_000


def test_steps_that_undo_each_other(tiny_gan: Make, make_trainer: Make, memory: Any) -> None:
    """Descent on |mean|^2 at rate 0.98 is mean <- -0.96 mean + noise: steps correlate as -(1 + 0.96) / 2."""
    gan = tiny_gan(
        generator=Shift, discriminator=Bowl, loss=Wasserstein(), discriminator_optimizer=IDLE,
        generator_optimizer=partial(torch.optim.SGD, lr=0.98),
    )  # fmt: skip
    diagnosis = Diagnosis(every=640)
    make_trainer(120, callbacks=[diagnosis], logger=memory).fit(
        gan, datamodule=Ring(samples=640, batch_size=64)
    )
    assert found_after(diagnosis, "OSCILLATING") == 3 * 640
    step_cosine = list(memory.values("diagnostics/step_cosine").values())
    assert sum(step_cosine) / len(step_cosine) < -0.8


def test_logits_that_explode(train: Make) -> None:
    """A critic without a penalty, whose loss is unbounded."""
    wild = partial(torch.optim.Adam, lr=1.0)
    options = {"loss": Wasserstein(), "penalties": [], "discriminator_optimizer": wild}
    _, diagnosis = train(MLPS, 20, ring(), diagnosis=Diagnosis(every=256), **options)
    assert found_after(diagnosis, "DIVERGED") < 2_000


@pytest.mark.train
@pytest.mark.parametrize(("name", "every", "iterations"), [("ring", 4000, 300), ("digits", 1000, 250)])
def test_no_false_alarm_in_a_healthy_recipe(name: str, every: int, iterations: int, tmp_path: Path) -> None:
    recipe = Recipe([
        "--config", str(CONFIGS / f"{name}.yaml"), f"--trainer.max_steps={iterations}",
        f"--trainer.default_root_dir={tmp_path}", "--trainer.logger=false", f"--health.every={every}",
        "--trainer.enable_progress_bar=false", "--samples.every=0", "--trainer.accelerator=cpu",
    ])  # fmt: skip
    recipe.trainer.fit(recipe.model, datamodule=recipe.datamodule)
    (diagnosis,) = (one for one in recipe.trainer.callbacks if isinstance(one, Diagnosis))
    assert diagnosis.measurements >= 15 and diagnosis.history == []


@pytest.mark.parametrize("damage", ["another architecture", "cannot be read"])
def test_a_roll_back_that_fails_leaves_the_state_whole(
    damage: str, tiny_gan: Make, tiny_data: Make, make_trainer: Make, tmp_path: Path
) -> None:
    """What is saved then is the state before, at the end of the third iteration."""
    healthy, last = (tmp_path / "checkpoints" / f"{name}.ckpt" for name in ("healthy", "last"))

    class RollBack(Diagnosis):
        def on_train_batch_end(self, trainer: Trainer, gan: GAN, *_: Any) -> None:
            if trainer.global_step == 3:
                self.roll_back(trainer, gan, ["COLLAPSED"])

    health, keeper = RollBack(policy="rollback"), Checkpoint(every=0, minutes=0)
    make_trainer(2, callbacks=[health, keeper]).fit(tiny_gan(), datamodule=tiny_data())
    if damage == "cannot be read":
        healthy.write_bytes(b"nothing")
    else:  # of whose weights some fit
        other = tiny_gan(generator=partial(MLPGenerator, latent_dim=4, widths=(12,)), seed=1)
        torch.save(checkpoints.read(healthy) | {"state_dict": other.state_dict()}, healthy)
    with pytest.raises(ValueError, match=damage):
        make_trainer(4, callbacks=[health, keeper]).fit(tiny_gan(), datamodule=tiny_data(), ckpt_path=last)
    saved = checkpoints.read(last)
    assert saved["litgan"]["images_seen"] == 24
    gan = tiny_gan()
    make_trainer(3).fit(gan, datamodule=tiny_data())
    assert all(torch.equal(value, saved["state_dict"][key]) for key, value in gan.state_dict().items())


def test_it_changes_nothing(digits_gan: Make, make_trainer: Make, memory: Any) -> None:
    """Unless a policy acts."""
    bystanders.check(
        [Diagnosis(every=16, count=12)], ["diagnosis/collapsed"], digits_gan, make_trainer, memory
    )


# -- roll-back rescues


def fd_digits(gan: GAN) -> float:
    """Fréchet distance of 1,500 samples to digits."""
    report = evaluate(
        lambda first, count: gan.sample(count, first=first),
        digits32(),
        "digits",
        count=1500,
        neighbours_count=6,
    )
    return report.values["metric/fd_digits"]


@pytest.mark.train
def test_a_roll_back_rescues_digits_from_a_rate_far_too_large(train: Make) -> None:
    saving = Diagnosis(every=2000, policy="rollback")
    runs = {
        "healthy": train(CONVOLUTIONS, 600, digits32()),
        "lost": train(CONVOLUTIONS, 600, digits32(), generator=100),
        "saved": train(CONVOLUTIONS, 600, digits32(), generator=100, diagnosis=saving),
    }
    distances = {name: fd_digits(gan) for name, (gan, _) in runs.items()}
    print(distances, saving.history, saving.scaling)
    assert 1 <= saving.rollbacks <= 3
    assert distances["saved"] < 1.5 * distances["healthy"] < distances["lost"]


@pytest.mark.train
def test_a_roll_back_rescues_the_ring_from_a_rate_far_too_large(train: Make) -> None:
    """The ring's final distance varies between seeds: the median of three counts."""
    real = torch.cat([samples for samples, _ in ring().real_batches(4000)])

    def distance(**options: Any) -> float:
        gan, _ = train(MLPS, 800, ring(), **options)
        fake = gan.sample(4000)
        within = [torch.cdist(side, side).mean() for side in (real, fake)]
        return (2 * torch.cdist(real, fake).mean() - sum(within)).clamp_min(0).item()  # the energy distance

    ratios = []
    for seed in range(3):
        saving = Diagnosis(every=2000, policy="rollback")
        healthy, saved = distance(seed=seed), distance(generator=100, diagnosis=saving, seed=seed)
        print(healthy, saved, saving.history, saving.scaling)
        assert 1 <= saving.rollbacks <= 3 and saved < 0.1
        ratios.append(saved / healthy)
    assert sorted(ratios)[1] < 1.5
    assert distance(generator=100) > 1


@pytest.mark.train
def test_a_roll_back_helps_against_an_overpowered_discriminator(train: Make) -> None:
    """Without roll-back the distance also ends within 1.5 times the healthy one, but farther."""
    spoilt = {"discriminator_steps": 10, "penalties": []}
    saving = Diagnosis(every=2000, policy="rollback")
    runs = {
        "healthy": train(CONVOLUTIONS, 300, digits32()),
        "lost": train(CONVOLUTIONS, 300, digits32(), **spoilt),
        "saved": train(CONVOLUTIONS, 300, digits32(), **spoilt, diagnosis=saving),
    }
    distances = {name: fd_digits(gan) for name, (gan, _) in runs.items()}
    print(distances, saving.history, saving.scaling)
    assert 1 <= saving.rollbacks <= 3
    assert distances["saved"] < 1.2 * distances["healthy"] < distances["lost"]
