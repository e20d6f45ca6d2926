"""Backward passes go straight to autograd where nobody listens, and through Lightning where somebody does."""

from __future__ import annotations

from collections import Counter

import pytest
import torch
from lightning.pytorch import Callback
from lightning.pytorch.callbacks import LambdaCallback
from lightning.pytorch.utilities.signature_utils import is_param_in_hook_signature

from litgan import GAN
from litgan.callbacks import Gradients, Health, Throughput
from litgan.precision import PerNetworkLossScale
from litgan.strategies import AdversarialDDPStrategy


class Counting(Callback):
    def __init__(self):
        self.heard = Counter()

    def on_before_backward(self, *_):
        self.heard["before"] += 1

    def on_after_backward(self, *_):
        self.heard["after"] += 1


class Listening(GAN):
    def on_after_backward(self):
        self.__dict__.setdefault("heard", Counter())["after"] += 1


class Own(GAN):
    def backward(self, loss, *args, **kwargs):
        self.__dict__.setdefault("heard", Counter())["own"] += 1
        super().backward(loss, *args, **kwargs)


class Asked(Callback):
    """Keeps what the GAN found, which it forgets after the fit."""

    def on_train_end(self, trainer, gan):
        self.answer = gan.backward_is_plain


@pytest.fixture
def trained(tiny_gan, tiny_data, make_trainer):
    def train(*callbacks, kind=GAN, **options):
        gan = tiny_gan(kind)
        watch = Asked()
        make_trainer(3, callbacks=[*callbacks, watch], **options).fit(gan, datamodule=tiny_data())
        assert not gan.backward_is_plain  # what comes after a fit asks anew
        gan.was_plain = watch.answer
        return gan

    return train


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_nobody_listens_to_litgans_own_turns(precision, trained):
    assert trained(Throughput(), Gradients(), Health(), precision=precision).was_plain


def test_a_callback_hears_both_turns_of_every_iteration(trained):
    counting, lambdas = Counting(), Counter()
    anonymous = LambdaCallback(on_before_backward=lambda *_: lambdas.update(["before"]))
    assert not trained(counting).was_plain
    assert counting.heard == {"before": 6, "after": 6}
    assert not trained(anonymous).was_plain
    assert lambdas == {"before": 6}


def test_a_gan_of_ones_own_hears_them_too(trained):
    assert trained(kind=Listening).heard == {"after": 6}
    assert trained(kind=Own).heard == {"own": 6}


def test_what_is_learned_does_not_depend_on_it(trained):
    silent, heard = trained(), trained(Counting())
    relativistic = zip(silent.state_dict().values(), heard.state_dict().values(), strict=True)
    assert all(torch.equal(left, right) for left, right in pairs)


class Scaled(GAN):
    def setup(self, stage):
        self.trainer.strategy.precision_plugin = PerNetworkLossScale("cpu", init_scale=8.0)


def test_loss_scales_and_reducers_are_not_left_out(trained):
    assert not trained(kind=Scaled).was_plain
    assert not trained(strategy=AdversarialDDPStrategy()).was_plain


def test_the_signature_that_lightning_asks_for_is_the_steps_own():
    kept, code = GAN.training_step.__signature__, GAN.training_step.__code__
    assert tuple(kept.parameters) == code.co_varnames[: code.co_argcount] == ("self", "batch", "batch_idx")
    assert is_param_in_hook_signature(GAN.training_step, "batch_idx")
