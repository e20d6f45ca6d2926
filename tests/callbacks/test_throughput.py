from __future__ import annotations

from types import SimpleNamespace

import pytest
from lightning.pytorch import Callback

from litgan import GAN
from litgan.callbacks import Throughput
from litgan.callbacks.throughput import untimed
from litgan.data import Ring


def test_speed_is_that_of_training_alone(tiny_gan, make_trainer, memory, monkeypatch):
    watch = SimpleNamespace(now=0.0)
    clock = SimpleNamespace(perf_counter=lambda: watch.now)
    for module in ("gan", "callbacks.throughput"):
        monkeypatch.setattr(f"litgan.{module}.time", clock)

    class SlowRing(Ring):
        def encode(self, stored):
            watch.now += 1.0  # half a second would be lost in a set-up that reads ahead
            return super().encode(stored)

    class Aside(Callback):
        def on_train_start(self, trainer, gan):
            self.pause(gan)

        def on_train_batch_end(self, trainer, gan, *_):
            self.pause(gan)

        def pause(self, gan):
            with untimed(gan):
                watch.now += 100.0

    class Busy(Callback):  # what others do at the end of an iteration is no waiting for data
        def on_train_batch_end(self, trainer, gan, *_):
            watch.now += 4.0

    gan = tiny_gan()
    step = gan.training_step

    def timed_step(batch, batch_idx):
        watch.now += 3.0
        return step(batch, batch_idx)

    monkeypatch.setattr(gan, "training_step", timed_step)
    callbacks = [Throughput(), Busy(), Aside()]
    trainer = make_trainer(6, callbacks=callbacks, logger=memory, log_every_n_steps=2)
    trainer.fit(gan, datamodule=SlowRing(samples=80, batch_size=8))
    assert list(memory.values("speed/images_per_second")) == [16, 32, 48]
    speeds = list(memory.values("speed/images_per_second").values())
    assert speeds == pytest.approx([16 / 12, 16 / 16, 16 / 16])
    assert list(memory.values("speed/data_wait").values()) == pytest.approx([2 / 12, 2 / 16, 2 / 16])


def test_peak_memory_is_that_of_the_process(tiny_gan, tiny_data, make_trainer, memory):
    trainer = make_trainer(1, callbacks=[Throughput()], logger=memory, log_every_n_steps=1)
    trainer.fit(tiny_gan(), datamodule=tiny_data())
    assert 0.05 < memory.values("speed/peak_memory_gib")[8] < 64


class Silent(GAN):
    """Overrides a hook without `super()`, as Lightning allows."""

    def on_train_batch_end(self, outputs, batch, batch_idx):
        pass


def test_a_gan_that_does_not_say_when_it_was_ready_waits_for_no_more_than_all_its_time(
    tiny_gan, tiny_data, make_trainer, memory
):
    trainer = make_trainer(9, callbacks=[Throughput()], logger=memory, log_every_n_steps=3)
    trainer.fit(tiny_gan(Silent), datamodule=tiny_data())
    shares = list(memory.values("speed/data_wait").values())
    assert len(shares) == 3 and all(0 <= share < 1 for share in shares)
