"""Callbacks that watch, beside a run without any."""

from __future__ import annotations

import torch

from litgan.data import Digits


def state(gan):
    optimizers = [optimizer.state_dict()["state"] for optimizer in gan.trainer.optimizers]
    moments = {f"{i} {j} {k}": v for i, o in enumerate(optimizers) for j in o for k, v in o[j].items()}
    return gan.state_dict() | moments | {"clock": torch.tensor([gan.images_seen, gan.discriminator_updates])}


def check(callbacks, keys, digits_gan, make_trainer, memory):
    """A run with these callbacks is, bit for bit, the run without; each of the keys was logged."""
    watched = {"callbacks": callbacks, "logger": memory, "log_every_n_steps": 1, "enable_progress_bar": True}
    ends = []
    for options in ({}, watched):
        gan = digits_gan(discriminator_steps=2)
        make_trainer(6, **options).fit(gan, datamodule=Digits(batch_size=8))
        ends.append(state(gan))
    for key in keys:
        assert memory.values(key), "the callbacks were at work"
    assert ends[0].keys() == ends[1].keys()
    different = [key for key, value in ends[0].items() if not torch.equal(value, ends[1][key])]
    assert not different
