"""Callbacks watch: a run with all of them is, bit for bit, the run without any."""

from __future__ import annotations

from shared import bystanders

from litgan.callbacks import Checkpoint, Feedback, Interruption, Progress, Realism, Samples, Throughput


def test_callbacks_change_nothing(digits_gan, make_trainer, memory):
    everything = [
        Throughput(), Realism("digits", every=16, count=20), Samples(every=16), Feedback(every=16),
        Checkpoint(every=16), Progress(), Interruption({"hours": 1}),
    ]  # fmt: skip
    keys = ["metric/fd_digits", "gradient_flow/generator/latents"]
    bystanders.check(everything, keys, digits_gan, make_trainer, memory)
