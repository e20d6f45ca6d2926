from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace

import pytest
import torch
from lightning.pytorch import Callback

from litgan.callbacks import Checkpoint, Threads


class Watch(Callback):
    """A clock that costs `seconds[n]` an iteration with n threads; keeps what each iteration ran with."""

    def __init__(self, one: float, all_: float) -> None:
        self.now, self.seconds, self.used = 0.0, {1: one, 3: all_}, list[int]()

    def on_before_optimizer_step(self, trainer, gan, optimizer):
        self.now += self.seconds[torch.get_num_threads()] / 2  # once for each network

    def on_train_batch_end(self, trainer, gan, *_):
        self.used.append(torch.get_num_threads())


@pytest.fixture(autouse=True)
def three_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def train(tiny_gan, tiny_data, make_trainer, tmp_path, monkeypatch):
    """Trains; returns the callback, the threads of each iteration and the GAN."""

    def fit(count, iterations=20, one=1.0, all_=0.5, resume=None, steps=1):
        watch, threads = Watch(one, all_), Threads(count)
        clock = SimpleNamespace(perf_counter=lambda: watch.now)
        monkeypatch.setattr("litgan.callbacks.threads.time", clock)
        keep = Checkpoint(every=8)
        gan = tiny_gan(discriminator_steps=steps)
        make_trainer(iterations, callbacks=[watch, threads, keep]).fit(
            gan, datamodule=tiny_data(), ckpt_path=resume
        )
        return threads, watch.used, gan

    return fit


def test_the_faster_number_is_taken_after_blocks_in_turn(train, capsys):
    turns = [1] * 4 + [3] * 4 + [1] * 4 + [3] * 4
    threads, used, _ = train("auto", all_=0.79)
    assert used == turns + [3] * 4 and threads.chosen == 3
    assert "threads: 3 (an iteration takes 1,000.0 ms with 1, 790.0 ms with 3)" in capsys.readouterr().out
    threads, used, _ = train("auto", all_=0.81)  # not worth three cores
    assert used == turns + [1] * 4 and threads.chosen == 1
    assert torch.get_num_threads() == 3, "as before the run"


def test_a_hopeless_number_is_tried_once(train):
    assert train("auto", iterations=8, all_=5.9)[1] == [1] * 4 + [3] * 4
    threads, used, _ = train("auto", iterations=8, all_=6.1)  # six iterations with one thread
    assert used == [1] * 4 + [3] + [1] * 3 and threads.chosen == 1


def test_an_iteration_is_all_its_discriminator_steps(train):
    _, used, _ = train("auto", iterations=17, steps=2)
    assert used == [1] * 8 + [3] * 8 + [1] * 8 + [3] * 8 + [3] * 2


def test_none_and_a_number_measure_nothing(train):
    assert set(train(None)[1]) == {3}
    assert set(train(1)[1]) == {1}
    with pytest.raises(ValueError, match=r"threads\.count is 0: give at least 1"):
        Threads(0)


@pytest.mark.parametrize("cut", [10, 18])
def test_a_resumed_run_goes_on_with_the_choice_and_ends_alike(train, tmp_path, cut):
    whole = train("auto")[2]
    for old in tmp_path.rglob("*.ckpt"):
        old.unlink()
    train("auto", iterations=cut)
    last = next(tmp_path.rglob("last.ckpt"))
    # By now one thread would be the faster one.
    all_ = 0.5 if cut < 16 else 2.0
    _, used, resumed = train("auto", all_=all_, resume=last)
    assert used[-2:] == [3] * 2
    for key, value in whole.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[key])
