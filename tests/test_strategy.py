"""AdversarialDDPStrategy in one process; what several ranks do is in test_world_size.py."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.strategies import StrategyRegistry
from torch.distributed.algorithms.ddp_comm_hooks.powerSGD_hook import PowerSGDState
from torch.nn.parallel import DistributedDataParallel

from litgan.recipe import Recipe
from litgan.strategy import AdversarialDDPStrategy, register

CONFIGS = Path(__file__).parents[1] / "configs"


@pytest.fixture
def one_process():
    """No process group outlives the test."""
    yield
    if dist.is_initialized():
        dist.destroy_process_group()


def test_its_name_is_known_once_registered():
    register()
    register()  # a second recipe in one process
    assert isinstance(Trainer(accelerator="cpu", strategy="adversarial_ddp").strategy, AdversarialDDPStrategy)


def test_recipes_know_its_name(tmp_path, monkeypatch):
    monkeypatch.delitem(StrategyRegistry, "adversarial_ddp", raising=False)
    recipe = Recipe([
        "--config", str(CONFIGS / "digits.yaml"), "--config", str(CONFIGS / "overlays" / "ddp.yaml"),
        "--trainer.devices", "1", "--trainer.accelerator", "cpu", "--trainer.logger", "false",
        f"--trainer.default_root_dir={tmp_path}",
    ])  # fmt: skip
    assert isinstance(recipe.trainer.strategy, AdversarialDDPStrategy)


class Steps(Callback):
    """Whether the module was left as it is, and what reduces it."""

    def on_train_start(self, trainer, gan):
        self.model, self.reducers = trainer.strategy.model, dict(trainer.strategy.reducers)


def test_one_device_reduces_nothing_and_computes_the_same(tiny_gan, tiny_data, make_trainer, one_process):
    steps = Steps()
    alone, together = tiny_gan(), tiny_gan()
    make_trainer(4).fit(alone, datamodule=tiny_data())
    make_trainer(4, strategy=AdversarialDDPStrategy(), devices=1, callbacks=[steps]).fit(
        together, datamodule=tiny_data()
    )
    assert steps.model is together and not steps.reducers
    torch.testing.assert_close(together.state_dict(), alone.state_dict(), rtol=0, atol=0)


def test_options_reach_the_reducers(monkeypatch, tiny_gan, one_process):
    """With the world pretended to be larger than its one process."""
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    made = []
    strategy = AdversarialDDPStrategy(
        ddp_comm_hook=lambda state, bucket: None, ddp_comm_state=lambda: made.append(object()) or made[-1],
        bucket_cap_mb=3,
    )  # fmt: skip
    monkeypatch.setattr(AdversarialDDPStrategy, "world_size", 2)
    monkeypatch.setattr(AdversarialDDPStrategy, "root_device", torch.device("cpu"))
    hooked = []
    monkeypatch.setattr(
        DistributedDataParallel, "register_comm_hook", lambda self, state, hook: hooked.append(state)
    )
    gan = tiny_gan()
    keys = list(gan.state_dict())
    strategy._lightning_module = gan
    strategy.configure_ddp()
    assert set(strategy.reducers) == {"generator", "discriminator"}
    assert strategy.reducers["generator"].module is gan.generator
    assert all(reducer.bucket_bytes_cap == 3 * 2**20 for reducer in strategy.reducers.values())
    assert len(made) == 2 and hooked == made
    assert list(gan.state_dict()) == keys


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"static_graph": True}, "leave out static_graph"),
        ({"ddp_comm_state": PowerSGDState(None)}, "PowerSGDState that all networks would share"),
        ({"timeout_minutes": 0}, "timeout_minutes is 0"),
    ],
)
def test_options_that_adversaries_cannot_share_are_refused(options, sentence):
    with pytest.raises(ValueError, match=sentence):
        AdversarialDDPStrategy(**options)
