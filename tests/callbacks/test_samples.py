from __future__ import annotations

from contextlib import nullcontext
from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from shared.pairs import Pairs, game

from litgan.callbacks import Samples
from litgan.data import Digits


def pixels(path):
    return torch.from_numpy(np.array(Image.open(path)))


def names(folder):
    return sorted(path.stem for path in folder.glob("*.png"))


@pytest.mark.parametrize(
    ("turns", "iterations", "clocks"),
    [(1, 9, [0, 24, 40, 64, 72]), (2, 5, [0, 32, 48, 64, 80])],
    ids=["the batch does not divide the cadence", "two turns of the discriminator"],
)
def test_grids_follow_the_images(turns, iterations, clocks, digits_gan, digits, make_trainer, tmp_path):
    samples = Samples(every=20, count=4)
    trainer = make_trainer(iterations, callbacks=[samples])
    trainer.fit(digits_gan(discriminator_steps=turns), datamodule=digits)
    assert names(tmp_path / "samples") == [*(f"{clock:09d}" for clock in clocks), "reals"]
    assert samples.last == tmp_path / "samples" / f"{clocks[-1]:09d}.png"


def test_the_first_grids_show_the_reals_and_the_untrained_generator(
    digits_gan, digits, make_trainer, tmp_path
):
    adam = partial(torch.optim.Adam, lr=0.05)  # the average lags behind visibly
    gan, samples = digits_gan(generator_optimizer=adam), Samples(every=1000, count=6, columns=3)
    untrained = digits.decode(gan.sample(6)).render(3)
    make_trainer(3, callbacks=[samples]).fit(gan, datamodule=digits)
    reals = torch.cat([batch for batch, _ in digits.real_batches(6)])
    assert torch.equal(pixels(tmp_path / "samples" / "reals.png"), digits.decode(reals).render(3))
    first = pixels(tmp_path / "samples" / "000000000.png")
    assert torch.equal(first[: len(untrained), : untrained.shape[1]], untrained)
    walk = digits.decode(samples.interpolation(gan, digits)).render(3)
    last = pixels(tmp_path / "samples" / "000000024.png")
    trained = digits.decode(gan.sample(6)).render(3)
    assert torch.equal(last[: len(trained), : trained.shape[1]], trained)
    assert torch.equal(last[-len(walk) :, : walk.shape[1]], walk)
    assert not torch.equal(first, last)


def test_the_walk_leads_from_the_first_sample_to_the_second(digits_gan, digits):
    gan = digits_gan()
    walk, ends = Samples(columns=5, seed=3).interpolation(gan, digits), gan.sample(2, 3)
    torch.testing.assert_close(walk[[0, -1]], ends, rtol=0, atol=1e-5)


@pytest.mark.parametrize(("classes", "columns"), [(2, 8), (3, 9), (5, 10), (10, 10), (20, 20), (21, 8)])
def test_columns_are_of_one_class_and_there_are_at_least_eight(classes, columns, monkeypatch, tmp_path):
    asked = []

    class Batch:
        def render(self, number):
            asked.append(number)
            return torch.zeros(8, 8, 3, dtype=torch.uint8)

        def save(self, *_):
            return [tmp_path]

    gan = SimpleNamespace(
        condition=classes, num_classes=classes, images_seen=0, device="cpu",
        sample=lambda count, seed: torch.zeros(count),
    )  # fmt: skip
    samples = Samples(folder=str(tmp_path))
    data = SimpleNamespace(decode=lambda _: Batch())
    monkeypatch.setattr("litgan.callbacks.samples.data_of", lambda _: data)
    monkeypatch.setattr("litgan.callbacks.samples.untimed", lambda _: nullcontext())
    monkeypatch.setattr("litgan.callbacks.samples.log_picture", lambda *_: None)
    monkeypatch.setattr(samples, "interpolation", lambda *_: torch.zeros(8))
    samples.save_grid(None, gan)
    assert asked[0] == columns


def test_a_data_set_smaller_than_the_grid_is_shown_whole_and_every_0_shows_nothing(
    digits_gan, make_trainer, tmp_path
):
    class Few(Digits):
        def read(self, split):
            images, labels = super().read(split)
            return images[:10], labels[:10]

    few = Few(batch_size=8)
    make_trainer(1, callbacks=[Samples(every=0)]).fit(digits_gan(), datamodule=few)
    assert not (tmp_path / "samples").exists()
    make_trainer(1, callbacks=[Samples(every=8, columns=8)]).fit(digits_gan(), datamodule=few)
    reals = torch.cat([batch for batch, _ in few.real_batches(10)])
    assert torch.equal(pixels(tmp_path / "samples" / "reals.png"), few.decode(reals).render(8))


def test_a_translation_stands_between_its_condition_and_the_real_sample(tiny_gan, make_trainer, tmp_path):
    """Of held-out pairs; an image of 8 pixels is drawn with 64."""
    gan, data = tiny_gan(**game()), Pairs()
    make_trainer(1, callbacks=[Samples(every=1000, count=16, columns=4)]).fit(gan, datamodule=data)
    shown = pixels(tmp_path / "samples" / "000000008.png")[:64, : 3 * 66 - 2]
    ((real, condition),) = data.real_batches(1, split="test")
    assert not torch.equal(real, next(data.real_batches(1))[0])
    for place, image in enumerate((condition, gan.sample(1, condition=condition), real)):
        tile = shown[:, 66 * place : 66 * place + 64]
        assert torch.equal(tile, data.decode(torch.cat([image, image])).render(1)[:64]), place
