"""A game with compiled networks beside the same game without."""

from __future__ import annotations

import copy
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback
from torch._dynamo.utils import counters

import litgan.gan
from litgan import GAN
from litgan.compilation import compile_networks

STEADY = partial(torch.optim.SGD, lr=0.02)  # Adam would blow differences in rounding up to whole steps


def without_inductor(monkeypatch: pytest.MonkeyPatch) -> None:
    """Graphs are traced and differentiated as ever, and run as they are."""
    monkeypatch.setattr(litgan.gan, "compile_networks", partial(compile_networks, backend="aot_eager"))


class Graphs(Callback):
    """Counts the graphs that there are after each discriminator step, since the first began."""

    def __init__(self):
        self.count: list[int] = []

    def on_train_batch_start(self, *_):
        if not self.count:
            self.before = counters["stats"]["unique_graphs"]

    def on_train_batch_end(self, *_):
        self.count.append(counters["stats"]["unique_graphs"] - self.before)


def pairs(
    tiny_gan: Callable[..., GAN], tiny_data: Callable[..., Any], make_trainer: Callable[..., Any]
) -> Callable[..., Any]:
    """Of these fixtures a function that trains uncompiled and compiled: both, and the graphs of each step."""

    def train(kind=GAN, *, iterations=8, data=None, trainer=None, prepare=lambda trainer: None, **options):
        gans, graphs = [], Graphs()
        steady = {"generator_optimizer": STEADY, "discriminator_optimizer": STEADY}
        for compiled in (False, True):
            each = copy.deepcopy(options)  # a penalty may have a state
            gans.append(tiny_gan(kind, compile=compiled, **(steady | each)))
            callbacks = [graphs] if compiled else []
            chosen = make_trainer(iterations, callbacks=callbacks, **(trainer or {}))
            prepare(chosen)
            chosen.fit(gans[-1], datamodule=data or tiny_data())
        return *gans, graphs.count

    return train


def assert_equal_weights(compiled: GAN, plain: GAN, tolerance: float = 1e-6) -> None:
    assert list(compiled.state_dict()) == list(plain.state_dict())
    for name, value in plain.state_dict().items():
        difference = (compiled.state_dict()[name] - value).float().norm()  # counters are integers
        assert difference <= tolerance * value.float().norm() + 1e-7, name


def check_few_graphs(both: Callable[..., Any], game: dict[str, Any], tiny_gan: Callable[..., GAN]) -> None:
    """Compiled networks learn the same, in a few graphs that are all made early."""
    plain, compiled, count = both(**game)
    assert_equal_weights(compiled, plain)
    assert not torch.allclose(plain.state_dict()["generator.head.weight"], tiny_gan().generator.head.weight)
    warm = 4 * plain.discriminator_steps  # in which every interval comes round
    assert 0 < count[warm - 1] == count[-1] <= 5
