"""Callbacks watch: a run with all of them is, bit for bit, the run without any."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import torch

from litgan import GAN
from litgan.callbacks import Checkpoint, Gradients, Interruption, Progress, Realism, Samples, Throughput
from litgan.data import Digits
from litgan.diagnosis import Diagnosis  # fmt: skip

Make: TypeAlias = Callable[..., Any]  # what a fixture makes things with


def state(gan: GAN) -> dict[str, Any]:
    optimizers = [optimizer.state_dict()["state"] for optimizer in gan.trainer.optimizers]
    moments = {f"{i} {j} {k}": v for i, o in enumerate(optimizers) for j in o for k, v in o[j].items()}
    return gan.state_dict() | moments | {"clock": torch.tensor([gan.images_seen, gan.discriminator_updates])}


def test_callbacks_change_nothing(digits_gan: Make, make_trainer: Make, memory: Any) -> None:
    everything = [
        Throughput(), Realism("digits", every=16, count=20), Samples(every=16), Gradients(every=16),
        Diagnosis(every=16, count=12), Checkpoint(every=16), Progress(), Interruption({"hours": 1}),
    ]  # fmt: skip
    watched = {"callbacks": everything, "logger": memory, "log_every_n_steps": 1, "enable_progress_bar": True}
    ends = []
    for options in ({}, watched):
        gan = digits_gan(discriminator_steps=2)
        make_trainer(6, **options).fit(gan, datamodule=Digits(batch_size=8))
        ends.append(state(gan))
    for key in ("metric/fd_digits", "telescope/generator/latents", "diagnosis/collapsed"):
        assert memory.values(key), "the callbacks were at work"
    assert ends[0].keys() == ends[1].keys()
    different = [key for key, value in ends[0].items() if not torch.equal(value, ends[1][key])]
    assert not different
