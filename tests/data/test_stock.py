"""Stock loaders in place of a GANDataModule."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import LightningDataModule, Trainer
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, IterableDataset, TensorDataset

from litgan import GAN
from litgan.callbacks import Feedback, Realism, Samples
from litgan.data import Digits
from litgan.data.stock import LoaderData
from litgan.extras import wing
from litgan.updates import unpack

IMAGES = Digits().encode(Digits().load()[0])  # [1797, 1, 8, 8] in [-1, 1]
LABELS = Digits().load()[1]


class Of(Dataset[Any]):
    """A data set of what a function makes of each index."""

    def __init__(self, item: Callable[[int], Any], size: int = 64) -> None:
        self.item, self.size = item, size

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, index: int) -> Any:
        return self.item(index)


class Stream(IterableDataset[Any]):
    def __init__(self, samples: Tensor) -> None:
        self.samples = samples

    def __iter__(self) -> Iterator[Any]:
        return iter(self.samples)


def loader(item: Callable[[int], Any], size: int = 64, **options: Any) -> DataLoader[Any]:
    return DataLoader(Of(item, size), batch_size=8, **options)


@pytest.mark.parametrize(
    "item",
    [
        lambda i: IMAGES[i],
        lambda i: (IMAGES[i],),
        lambda i: (IMAGES[i], LABELS[i]),
        lambda i: {"real": IMAGES[i]},
        lambda i: {"real": IMAGES[i], "condition": LABELS[i]},
    ],
)
def test_a_batch_of_any_form_trains_the_same(
    item: Callable[[int], Any], digits_gan: Callable[..., GAN], make_trainer: Callable[..., Trainer]
) -> None:
    def weights(data: DataLoader[Any]) -> Tensor:
        gan = digits_gan()
        make_trainer(3).fit(gan, data)
        return torch.cat([one.flatten().float() for one in gan.state_dict().values()])

    assert torch.equal(weights(loader(item)), weights(DataLoader(TensorDataset(IMAGES[:64]), batch_size=8)))


def test_labels_condition_a_gan_with_classes() -> None:
    batch = [IMAGES[:3], LABELS[:3]]
    assert unpack(batch, 10)[1] is LABELS or torch.equal(unpack(batch, 10)[1], LABELS[:3])
    assert unpack(batch, 0)[1] is None
    condition = torch.zeros(3, 1, 8, 8)
    assert unpack((IMAGES[:3], condition), (1, 8, 8))[1] is condition


@pytest.mark.parametrize(
    ("given", "condition"),
    [
        (None, 10), (torch.zeros(3, 10), 10), (torch.zeros(3, 1, 8, 8), 0), (None, (1, 8, 8)),
        (LABELS[:3], (1, 8, 8)), (torch.zeros(3, 1, 4, 4), (1, 8, 8)), (torch.ones(3, 2).long(), (2,)),
    ],
)  # fmt: skip
def test_a_condition_that_the_gan_was_not_built_for_is_refused(given: Any, condition: Any) -> None:
    with pytest.raises(ValueError, match=r"^The condition of a batch is .* was built for .*: give the GAN"):
        unpack({"real": IMAGES[:3], "condition": given}, condition)


@pytest.mark.parametrize("batch", [{"image": IMAGES[:2]}, [], [IMAGES[:2]] * 3, "text", None])
def test_another_batch_is_refused(batch: Any) -> None:
    with pytest.raises(ValueError, match=r"A batch is a .*\(real, condition\)"):
        unpack(batch, 0)


class Stock(LightningDataModule):
    """As a user of Lightning writes it."""

    def train_dataloader(self) -> DataLoader[Any]:
        return DataLoader(TensorDataset(IMAGES[:600], LABELS[:600]), batch_size=16, shuffle=True)

    def val_dataloader(self) -> DataLoader[Any]:
        return DataLoader(TensorDataset(IMAGES[600:900], LABELS[600:900]), batch_size=50)

    test_dataloader = val_dataloader


@pytest.mark.parametrize("source", ["datamodule", "loader", "stream"])
def test_all_callbacks_work_with_a_stock_loader_of_images(
    source: str, digits_gan: Callable[..., GAN], make_trainer: Callable[..., Trainer], tmp_path: Path
) -> None:
    data: dict[str, Any] = {
        "datamodule": {"datamodule": Stock()},
        "loader": {"train_dataloaders": Stock().train_dataloader()},
        "stream": {"train_dataloaders": DataLoader(Stream(IMAGES[:600]), batch_size=16)},
    }[source]
    realism, diagnosis = Realism("digits", every=32, count=100), wing("diagnosis")
    diagnoses = [diagnosis.Diagnosis(every=32, count=16)] if diagnosis else []
    callbacks = [realism, Samples(every=32, count=8), Feedback(every=32, count=4), *diagnoses]
    trainer = make_trainer(4, callbacks=callbacks)
    trainer.fit(digits_gan(condition=0), **data)
    assert realism.report is not None and realism.report.protocol["real_count"] == 100
    assert all(each.measurements == 2 for each in diagnoses)
    names = {"reals", "000000000", "000000032", "000000064", "000000032_feedback", "gradient_flow"}
    assert names <= {path.stem for path in (tmp_path / "samples").glob("*.png")}
    assert "metric/fd_digits" in trainer.callback_metrics


def test_validation_and_test_compare_with_the_loader_that_runs(
    digits_gan: Callable[..., GAN], make_trainer: Callable[..., Trainer]
) -> None:
    realism = Realism("digits", count=100)
    trainer, gan = make_trainer(1, callbacks=[realism]), digits_gan()
    trainer.validate(gan, datamodule=Stock(), verbose=False)
    assert realism.report is not None and realism.report.protocol["split"] == "val"
    trainer.test(gan, datamodule=Stock(), verbose=False)
    assert realism.report.protocol["split"] == "test"


def test_a_smaller_last_batch_delays_no_measurement(
    digits_gan: Callable[..., GAN], make_trainer: Callable[..., Trainer]
) -> None:
    """Epochs of 16 + 4 images, iterations of two batches or of one."""
    for steps, expected in ((2, [20, 40, 60]), (1, [16, 36, 56, 60, 76])):
        at: list[int] = []

        class At(Feedback):
            def measure(self, trainer: Trainer, gan: GAN, batch: Any) -> dict[str, float]:
                at.append(gan.images_seen)  # noqa: B023
                assert self.params_before
                return super().measure(trainer, gan, batch)

        data = DataLoader(Of(lambda i: IMAGES[i], 20), batch_size=16)
        callbacks = [At(every=12, count=4)]
        make_trainer(len(expected) + 2, callbacks=callbacks).fit(digits_gan(discriminator_steps=steps), data)
        assert at[: len(expected)] == expected


def view(data: Any, make_trainer: Callable[..., Trainer], condition: int = 0) -> LoaderData:
    return LoaderData(data, "train", make_trainer(1), condition)


def reals(data: LoaderData, count: int, **options: Any) -> Tensor:
    return torch.cat([real for real, _ in data.real_batches(count, **options)])


def test_reals_are_a_fixed_choice_that_grows_and_that_ranks_share(
    make_trainer: Callable[..., Trainer],
) -> None:
    def vary(i: int) -> Any:  # as random crops do
        return IMAGES[i] * torch.rand(()) * random.random(), LABELS[i]

    data = view(loader(vary, 640, shuffle=True, num_workers=0), make_trainer, condition=10)
    state, other = torch.get_rng_state(), random.getstate()
    first = reals(data, 600)
    assert torch.equal(state, torch.get_rng_state()) and other == random.getstate()
    assert torch.equal(reals(data, 600), first) and torch.equal(reals(data, 100), first[:100])
    halves = [list(data.real_batches(600, batch_size=100, rank=rank, world_size=2)) for rank in (0, 1)]
    shared = [batch for pair in zip(*halves, strict=True) for batch in pair]
    assert torch.equal(torch.cat([real for real, _ in shared]), first)
    labels = torch.cat([label for _, label in data.real_batches(600) if label is not None])
    assert torch.equal(torch.cat([label for _, label in shared if label is not None]), labels)


def test_reals_of_a_stream_are_its_first(make_trainer: Callable[..., Trainer]) -> None:
    data = view(DataLoader(Stream(IMAGES[:90]), batch_size=8), make_trainer)
    assert torch.equal(reals(data, 50, batch_size=20), IMAGES[:50])
    assert torch.equal(reals(data, 50, batch_size=20, rank=1, world_size=2), IMAGES[20:40])
    assert torch.equal(reals(data, 500), IMAGES[:90])


def test_the_fingerprint_follows_the_bytes(make_trainer: Callable[..., Trainer]) -> None:
    def fingerprint(**options: Any) -> str:
        changed = IMAGES[:64].clone()
        changed[options.get("at", 0)] *= options.get("by", 1.0)
        data = DataLoader(TensorDataset(changed), batch_size=options.get("batch", 8), shuffle=True)
        return view(data, make_trainer).fingerprint

    assert fingerprint() == fingerprint(batch=16)
    assert len({fingerprint(), fingerprint(by=0.5), fingerprint(at=63, by=0.5)}) == 3


@pytest.mark.parametrize(
    ("callback", "item", "sentence"),
    [
        (Samples(count=4), lambda i: torch.zeros(2), r"cannot be drawn.*GANDataModule.*samples\.every 0"),
        (Feedback(), lambda i: torch.zeros(2), r"cannot be drawn.*GANDataModule.*gradients\.every 0"),
        (Realism("digits", count=10), lambda i: torch.zeros(2), "digits"),
        (Realism("digits", count=10, split="test"), lambda i: torch.zeros(2), r"realism\.split train"),
    ],
)
def test_what_cannot_be_done_is_said_before_training(
    callback: Any, item: Callable[[int], Any], sentence: str, tiny_gan: Callable[..., GAN],
    make_trainer: Callable[..., Trainer],
) -> None:  # fmt: skip
    gan = tiny_gan()
    with pytest.raises(ValueError, match=sentence):
        make_trainer(2, callbacks=[callback]).fit(gan, loader(item))
    assert gan.images_seen == 0


def test_images_of_another_range_and_loaders_that_cannot_be_read_again_are_refused(
    digits_gan: Callable[..., GAN], make_trainer: Callable[..., Trainer]
) -> None:
    with pytest.raises(ValueError, match=r"from 0 to 255: scale them"):
        make_trainer(2, callbacks=[Samples()]).fit(digits_gan(), loader(lambda i: 127.5 * IMAGES[i] + 127.5))
    several = [loader(lambda i: IMAGES[i])] * 2
    with pytest.raises(ValueError, match=r"one train loader"):
        make_trainer(2, callbacks=[Samples()]).fit(digits_gan(), several)


def test_a_run_with_a_stock_loader_resumes_its_clock(
    digits_gan: Callable[..., GAN], make_trainer: Callable[..., Trainer], tmp_path: Path
) -> None:
    """The order of the samples begins anew, as Lightning does it for a loader without a state."""
    trainer = make_trainer(5)
    trainer.fit(digits_gan(), loader(lambda i: IMAGES[i]))
    trainer.save_checkpoint(tmp_path / "last.ckpt")
    resumed, realism = digits_gan(), Realism("digits", every=16, count=20)
    trainer = make_trainer(12, callbacks=[realism])
    trainer.fit(resumed, loader(lambda i: IMAGES[i]), ckpt_path=tmp_path / "last.ckpt")
    assert resumed.images_seen == realism.measured_at == 96 and trainer.global_step == 12


@pytest.mark.parametrize("data", [TensorDataset(IMAGES[:0]), Stream(IMAGES[:0])])
@pytest.mark.parametrize("callbacks", [lambda: [Samples(every=0)], list])
def test_an_empty_loader_is_named(data, callbacks, digits_gan, make_trainer) -> None:
    with pytest.raises(ValueError, match=r"^The training loader gives no batch: "):
        make_trainer(2, callbacks=callbacks()).fit(digits_gan(), DataLoader(data, batch_size=4))


def test_nan_in_the_data_is_not_blamed_on_the_training(digits_gan, make_trainer) -> None:
    samples = IMAGES[:16].clone()
    samples[9, 0, 2, 2] = torch.nan
    with pytest.raises(ValueError, match=r"^The data hold values that are not finite, .* after 8 images: "):
        make_trainer(4).fit(digits_gan(), DataLoader(TensorDataset(samples), batch_size=4))
