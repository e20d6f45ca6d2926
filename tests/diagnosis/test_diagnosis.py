"""Diagnosis: metrics as defined, states reported everywhere, policies, and a damaged health.jsonl."""

from __future__ import annotations

import copy
import json
import math
import shutil
from functools import partial

import pytest
import torch
import wandb
from lightning.pytorch import Callback
from shared import bystanders, pairs
from shared.memory import check_halving
from torch import nn

from litgan import GAN, checkpoints
from litgan.callbacks import Checkpoint, Realism
from litgan.data import Ring
from litgan.diagnosis import Diagnosis
from litgan.diagnosis.checks import CHECKS
from litgan.loggers import WandbOptions, wandb_run
from litgan.losses import NonSaturating, Relativistic
from litgan.metrics import load_extractor
from litgan.networks import MLPGenerator
from litgan.noise import Noise
from litgan.penalties import R1
from litgan.reconstruction import L1
from litgan.schedules import Linear, value_at

IDLE = partial(torch.optim.SGD, lr=0.0)  # a generator that never moves


@pytest.mark.parametrize("options", [{"policy": "panic"}, {"patience": 0}, {"count": 1}])
def test_bad_options_are_refused(options):
    ((name, value),) = options.items()
    with pytest.raises(ValueError, match=f"health.{name} is {value!r}: give "):
        Diagnosis(**options)


# -- what is measured


class Steps(Callback):
    """Keeps the generator's weights before each iteration."""

    def __init__(self):
        self.weights = []

    def on_train_batch_start(self, trainer, gan, *_):
        self.weights.append(nn.utils.parameters_to_vector(gan.generator.parameters()).detach())


@pytest.mark.parametrize("every", [8, 24])
@pytest.mark.parametrize("d_steps", [1, 2])
def test_the_metrics_are_what_they_are_defined_as(every, d_steps, tiny_gan, tiny_data, make_trainer, memory):
    gan, data, steps = tiny_gan(loss=Relativistic(), discriminator_steps=d_steps), tiny_data(), Steps()
    callbacks = [Diagnosis(every=every, count=12, seed=3), steps]
    make_trainer(6, callbacks=callbacks, logger=memory).fit(gan, datamodule=data)
    found = memory.rows[-1]

    real, held_out = (torch.cat([b for b, _ in data.real_batches(12, split=s)]) for s in ("train", "test"))
    latents = Noise(3, 0, 0, 12, "sample").normal(gan.generator.latent_dim)
    fake = gan.generator(latents).detach().requires_grad_()
    on_real, on_held_out, on_fake = map(gan.discriminator, (real, held_out, fake))
    losses = gan.loss.generator(real=on_real.detach(), fake=on_fake)
    (feedback,) = torch.autograd.grad(losses.sum(), fake, retain_graph=True)
    gradients = torch.cat([weight.grad.flatten() for weight in gan.generator.parameters()])
    weights = nn.utils.parameters_to_vector(gan.generator.parameters())
    first, second = steps.weights[-d_steps] - steps.weights[-2 * d_steps], weights - steps.weights[-d_steps]
    gaps = on_real - on_fake.flatten()
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
        gap = on_real.mean() - on_held_out.mean()
        wanted["overfitting"] = gap / (on_real.mean() - on_fake.mean())
    assert found["images_seen"] == gan.images_seen
    assert {key: found[f"diagnostics/{key}"] for key in wanted} == pytest.approx(
        {key: value.item() for key, value in wanted.items()}, rel=1e-4
    )


@pytest.mark.parametrize("loss", [NonSaturating(), Relativistic()], ids=["NonSaturating", "Relativistic"])
def test_it_halves_its_batch_where_the_memory_is_too_small(loss, tiny_gan, tiny_data, make_trainer, memory):
    def fit(discriminator):
        trainer = make_trainer(2, callbacks=[Diagnosis(every=8, count=7)], logger=memory)
        trainer.fit(tiny_gan(discriminator=discriminator, loss=loss), datamodule=tiny_data())

    check_halving(fit, memory.rows, "diagnostics/auc")


def test_a_single_real_sample_is_no_divergence(tiny_gan, make_trainer, memory):
    callbacks = [Diagnosis(every=1, count=8)]
    make_trainer(3, callbacks=callbacks, logger=memory).fit(
        tiny_gan(loss=Relativistic()), datamodule=Ring(samples=1, batch_size=1)
    )
    assert len(memory.values("diagnostics/diversity")) == 3
    assert all(math.isfinite(value) for row in memory.rows for value in row.values())


def test_digits_are_compared_by_features_and_without_a_held_out_split(
    digits_gan, digits, make_trainer, memory
):
    gan = digits_gan(condition=0)
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


def lines(folder):
    return [json.loads(line) for line in (folder / "health.jsonl").read_text().splitlines()]


def test_a_state_is_reported_everywhere_and_once(tiny_gan, tiny_data, make_trainer, memory, tmp_path, capsys):
    online = wandb_run(tmp_path, WandbOptions())
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


def test_a_healthy_run_leaves_an_empty_file_and_one_sentence_and_every_0_nothing(
    tiny_gan, tiny_data, make_trainer, tmp_path, capsys
):
    off = Diagnosis(every=0, policy="rollback")
    make_trainer(4, callbacks=[off]).fit(tiny_gan(), datamodule=tiny_data())
    assert not (tmp_path / "health.jsonl").exists() and not (tmp_path / "checkpoints").exists()
    assert "health" not in capsys.readouterr().err
    make_trainer(4, callbacks=[Diagnosis(every=16)]).fit(tiny_gan(), datamodule=tiny_data())
    assert lines(tmp_path) == []
    assert capsys.readouterr().err.count("litgan: health: no failure state in 2 measurements.") == 1


def late(begin, weight, **options):
    """A game of pairs whose adversary is let in after `begin` images."""
    given = {"reconstruction": [L1()], "adversarial_weight": Linear(0.0, weight, images=1, begin=begin)}
    return GAN(
        **pairs.game(discriminator_start=begin, loss=NonSaturating(), penalties=[], **given, **options)
    )


def test_no_state_before_the_adversary_is_let_in(make_trainer, memory):
    gan = late(32, 1.0, generator_optimizer=IDLE)
    make_trainer(8, callbacks=[Diagnosis(every=8)], logger=memory).fit(gan, datamodule=pairs.Pairs())
    assert memory.values("diagnosis/vanished") == {40: 0, 48: 0, 56: 1, 64: 1}


def test_an_adversary_that_drowns_the_reconstruction_is_named(make_trainer, memory):
    """And one that is quiet is not; the difference of pairs is compared with that before it."""
    found = {}
    for weight in (1e-3, 1e3):
        gan = late(800, weight, generator_optimizer=partial(torch.optim.Adam, lr=0.02))
        make_trainer(130, callbacks=[Diagnosis(every=80)], logger=memory).fit(gan, datamodule=pairs.Pairs())
        found[weight] = max(memory.values("diagnosis/unfaithful").values())
    assert found == {1e-3: 0, 1e3: 1}


def test_a_loss_that_is_not_finite_is_reported(tiny_gan, tiny_data, make_trainer, tmp_path, capsys):
    wild = partial(torch.optim.SGD, lr=1e30)
    trainer = make_trainer(8, callbacks=[Diagnosis(every=10**6)])
    with pytest.raises(FloatingPointError):
        trainer.fit(tiny_gan(discriminator_optimizer=wild), datamodule=tiny_data())
    (event,) = lines(tmp_path)
    assert event["verdict"] == "DIVERGED" and event["value"] is None and event["threshold"] is None
    assert "litgan: health: DIVERGED after" in capsys.readouterr().err


def test_it_changes_nothing(digits_gan, make_trainer, memory):
    """Unless a policy acts."""
    bystanders.check(
        [Diagnosis(every=16, count=12)], ["diagnosis/collapsed"], digits_gan, make_trainer, memory
    )


# -- policies


def test_stop_ends_the_run_in_order(tiny_gan, tiny_data, make_trainer, tmp_path):
    gan = tiny_gan(generator_optimizer=IDLE)
    trainer = make_trainer(100, callbacks=[Diagnosis(every=8, policy="stop", patience=2)])
    trainer.fit(gan, datamodule=tiny_data())
    assert gan.images_seen == 16 and lines(tmp_path)[-1]["verdict"] == "VANISHED"
    assert trainer.state.finished


class Freeze(Callback):
    """Breaks the generator from an iteration on: all its weights become one number."""

    def __init__(self, *iterations):
        self.iterations = iterations

    def on_train_batch_start(self, trainer, gan, *_):
        if trainer.global_step in self.iterations:
            with torch.no_grad():
                for weight in gan.generator.parameters():
                    weight.zero_()


class Diary(Callback):
    """Keeps what a roll-back should restore, after each iteration."""

    def __init__(self):
        self.states = {}

    def on_train_batch_end(self, trainer, gan, *_):
        moments = [optimizer.state_dict()["state"] for optimizer in trainer.optimizers]
        self.states[gan.images_seen] = copy.deepcopy((gan.state_dict(), moments))


def rolling(**options):
    return Diagnosis(every=8, policy="rollback", patience=2, **options)


def test_a_roll_back_brings_back_the_last_healthy_state(tiny_gan, tiny_data, make_trainer, memory, tmp_path):
    gan, diary, diagnosis = tiny_gan(penalties=[R1(0.5)]), Diary(), rolling()
    trainer = make_trainer(8, callbacks=[Freeze(4), diagnosis, diary], logger=memory)
    trainer.fit(gan, datamodule=tiny_data())

    # The fifth iteration breaks; the sixth measurement is the second that shows it.
    torch.testing.assert_close(diary.states[48], diary.states[32], rtol=0, atol=0)
    assert list(diary.states) == [8, 16, 24, 32, 40, 48, 56, 64], "and the clock goes on"
    assert diagnosis.rollbacks == 1 and diagnosis.scaling == (0.01, 1.0, 2.0), "the generator has leapt"
    rates = [optimizer.param_groups[0]["lr"] for optimizer in trainer.optimizers]
    assert rates == pytest.approx([1e-5, 1e-3])
    assert value_at(gan.penalties[0].weight, 48) == 1.0
    *active, back = lines(tmp_path)
    assert {event["verdict"] for event in active} >= {"COLLAPSED"}
    assert back["verdict"] == "ROLLED BACK" and back["images_seen"] == 48 and back["value"] == 32
    assert "the generator's learning rate x 0.01, penalty weights x 2" in back["remedy"]
    assert memory.values("diagnosis/rollbacks") == dict.fromkeys(range(8, 56, 8), 0) | {56: 1, 64: 1}


def test_after_the_last_try_states_are_warnings(tiny_gan, tiny_data, make_trainer, tmp_path):
    diagnosis = rolling(tries=2)
    trainer = make_trainer(10, callbacks=[Freeze(*range(10)), diagnosis])
    trainer.fit(tiny_gan(), datamodule=tiny_data())
    states = [event["verdict"] for event in lines(tmp_path)]
    states = [state for state in states if state in ("COLLAPSED", "ROLLED BACK")]
    assert states == ["COLLAPSED", "ROLLED BACK", "COLLAPSED", "ROLLED BACK", "COLLAPSED"]
    assert diagnosis.rollbacks == 2 and diagnosis.scaling.penalty == 4
    assert checkpoints.read(tmp_path / "checkpoints" / "healthy.ckpt")["litgan"]["images_seen"] == 0


def test_a_new_run_in_an_old_folder_does_not_go_back_to_the_old_run(
    tiny_gan, tiny_data, make_trainer, tmp_path
):
    make_trainer(3, callbacks=[rolling()]).fit(tiny_gan(seed=1), datamodule=tiny_data())
    gan, diagnosis = tiny_gan(seed=2), rolling(tries=1)
    start = copy.deepcopy(gan.state_dict())
    make_trainer(2, callbacks=[Freeze(0, 1), diagnosis]).fit(gan, datamodule=tiny_data())
    kept = checkpoints.read(tmp_path / "checkpoints" / "healthy.ckpt")
    assert diagnosis.rollbacks == 1 and kept["litgan"]["images_seen"] == 0
    assert all(torch.equal(value, kept["state_dict"][name]) for name, value in start.items())


def test_a_state_not_yet_active_is_not_saved(tiny_gan, tiny_data, make_trainer, tmp_path):
    """Only the fifth measurement shows a state; the seventh is the second healthy one after it."""
    clocks = []

    class Watching(Callback):
        def on_train_batch_end(self, trainer, gan, *_):
            saved = checkpoints.read(tmp_path / "checkpoints" / "healthy.ckpt")
            clocks.append(saved["litgan"]["images_seen"])

    class Blink(Diagnosis):
        def __init__(self):
            super().__init__(every=8, policy="rollback", patience=2)
            honest = self.metrics
            self.metrics = lambda *a: honest(*a) | {"d_loss_gradient": 0.0, "auc": self.measurements == 4}
            self.metrics.snapshot_weights = honest.snapshot_weights
            self.metrics.clear_snapshots = honest.clear_snapshots

    make_trainer(7, callbacks=[Blink(), Watching()]).fit(tiny_gan(), datamodule=tiny_data())
    assert clocks == [0, 16, 24, 32, 32, 32, 56]


@pytest.mark.parametrize("damage", ["another architecture", "cannot be read"])
def test_a_roll_back_that_fails_leaves_the_state_whole(damage, tiny_gan, tiny_data, make_trainer, tmp_path):
    """What is saved then is the state before, at the end of the third iteration."""
    healthy, last = (tmp_path / "checkpoints" / f"{name}.ckpt" for name in ("healthy", "last"))

    class RollBack(Diagnosis):
        def on_train_batch_end(self, trainer, gan, *_):
            if trainer.global_step == 3:
                self.roll_back(trainer, gan, ["COLLAPSED"])

    diagnosis, keeper = RollBack(policy="rollback"), Checkpoint(every=0, minutes=0)
    make_trainer(2, callbacks=[diagnosis, keeper]).fit(tiny_gan(), datamodule=tiny_data())
    if damage == "cannot be read":
        healthy.write_bytes(b"nothing")
    else:  # of whose weights some fit
        other = tiny_gan(generator=partial(MLPGenerator, latent_dim=4, widths=(12,)), seed=1)
        torch.save(checkpoints.read(healthy) | {"state_dict": other.state_dict()}, healthy)
    with pytest.raises(ValueError, match=damage):
        make_trainer(4, callbacks=[diagnosis, keeper]).fit(tiny_gan(), datamodule=tiny_data(), ckpt_path=last)
    saved = checkpoints.read(last)
    assert saved["litgan"]["images_seen"] == 24
    gan = tiny_gan()
    make_trainer(3).fit(gan, datamodule=tiny_data())
    assert all(torch.equal(value, saved["state_dict"][key]) for key, value in gan.state_dict().items())


@pytest.mark.parametrize("cut", [3, 5, 7])
def test_a_resumed_run_keeps_the_monitor_and_the_scaling(cut, tiny_gan, tiny_data, make_trainer, tmp_path):
    """Broken in the third iteration, rolled back in the fourth, and once more in the ninth."""

    def run(folder, iterations, resume=False):
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

FILE = b"".join(
    json.dumps({"images_seen": at, "verdict": "COLLAPSED"}).encode() + b"\n" for at in (8, 16, 24)
)


@pytest.fixture
def resume(capsys):
    """Resumes at 16 images beside the file; returns `images_seen` of the lines that are kept, and whether the
    file was damaged. A damaged file must be kept as it was, and one sentence names both files."""

    def run(path):
        before = path.read_bytes() if path.is_file() else None
        Diagnosis().prepare_file(path, 16)
        kept = [json.loads(line)["images_seen"] for line in path.read_bytes().splitlines()]
        said, renamed = capsys.readouterr().err.splitlines(), path.with_name("health.damaged-1.jsonl")
        assert [str(path) in one and renamed.name in one for one in said] == [True] * renamed.exists()
        if renamed.is_file():
            assert renamed.read_bytes() == before
        shutil.rmtree(path.parent)
        return kept, bool(said)

    return run


def written(folder, content):
    folder.mkdir()
    (folder / "health.jsonl").write_bytes(content)
    return folder / "health.jsonl"


def test_a_file_truncated_anywhere_or_with_a_damaged_byte_loses_that_line_alone(resume, tmp_path):
    for at in range(len(FILE)):
        complete, rest = FILE[:at].count(b"\n"), FILE[:at].rpartition(b"\n")[2]
        only_newline_missing = FILE[at:].startswith(b"\n")
        damaged = rest != b"" and not only_newline_missing
        lines = [8, 16][: complete + only_newline_missing]
        assert resume(written(tmp_path / "run", FILE[:at])) == (lines, damaged), at
        for byte in (b"\0", b"\xff"):
            lost = {complete, complete + only_newline_missing}
            lines = [clock for number, clock in enumerate((8, 16)) if number not in lost]
            path = written(tmp_path / "run", FILE[:at] + byte + FILE[at + 1 :])
            assert resume(path) == (lines, True), at


@pytest.mark.parametrize(
    "line",
    [b"[]", b"3", b"null", b'"images_seen"', b"{}", b'{"images_seen": []}', b"", b"[" * 100_000, b"\xff"],
)
def test_a_line_that_is_no_event(line, resume, tmp_path):
    assert resume(written(tmp_path / "run", line + b"\n" + FILE)) == ([8, 16], True)


def test_a_folder_in_the_place_of_the_file(resume, tmp_path):
    (tmp_path / "run" / "health.jsonl").mkdir(parents=True)
    assert resume(tmp_path / "run" / "health.jsonl") == ([], True)


@pytest.mark.parametrize("whole_folder", [False, True])
def test_events_are_kept_though_their_file_was_removed(
    whole_folder, tiny_gan, tiny_data, make_trainer, tmp_path
):
    folder = tmp_path / "run"

    class Remove(Callback):
        def on_train_batch_start(self, trainer, gan, batch, batch_idx):
            if gan.images_seen == 16:
                shutil.rmtree(folder) if whole_folder else (folder / "health.jsonl").unlink()

    callbacks = [Remove(), Diagnosis(every=8)]
    gan = tiny_gan(generator_optimizer=IDLE)
    make_trainer(4, callbacks=callbacks, default_root_dir=folder).fit(gan, datamodule=tiny_data())
    assert [event["verdict"] for event in lines(folder)] == ["VANISHED"]


def test_a_negative_cadence_is_refused(complaint):
    sentence = complaint("fit", "--config", "digits", "--health.every=-1", "--trainer.accelerator=cpu")
    assert "health.every is -1" in sentence
