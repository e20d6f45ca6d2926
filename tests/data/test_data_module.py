from __future__ import annotations

from typing import Any

import pytest
import torch
from lightning.pytorch import LightningModule, Trainer
from torch import Tensor

from litgan.data import Digits, GANDataModule, Grid
from litgan.data.loader import DiskLoader, InMemoryLoader

IMAGES = torch.randint(0, 256, (40, 1, 4, 4), dtype=torch.uint8, generator=torch.Generator().manual_seed(2))


class Files:
    fingerprint = "forty files"

    def __len__(self) -> int:
        return len(IMAGES)

    def __getitem__(self, index: int) -> Tensor:
        return IMAGES[index].clone()


class Small(GANDataModule):
    """What the docstring of the contract asks for, and nothing more."""

    def __init__(self, stored: Any = IMAGES, labels: Tensor | None = None, shape=(1, 4, 4), **common: Any):
        super().__init__(shape, **common)
        self.stored, self.labels = stored, labels

    def read(self, split: str) -> tuple[Any, Tensor | None]:
        return self.stored, self.labels

    def decode(self, samples: Tensor) -> Tensor:
        return samples


class Recorder(LightningModule):
    """Trains nothing; keeps the labels that it was shown, and the clock."""

    def __init__(self, images_seen: int = 0) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.weight = torch.nn.Parameter(torch.zeros(()))
        self.images_seen = images_seen
        self.shown: list[list[int]] = []

    def training_step(self, batch, batch_idx):
        _, labels = batch
        self.images_seen += len(labels) * self.trainer.world_size
        self.shown.append(labels.tolist())

    def validation_step(self, batch, batch_idx):
        self.shown.append(batch[1].tolist())

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)

    def on_fit_end(self):
        if self.trainer.world_size > 1:
            torch.save(self.shown, f"{self.trainer.default_root_dir}/{self.trainer.global_rank}.pt")


def trainer(folder, **options) -> Trainer:
    quiet = {"logger": False, "enable_progress_bar": False, "enable_checkpointing": False}
    return Trainer(accelerator="cpu", default_root_dir=folder, enable_model_summary=False, **quiet, **options)


def indexed(stored: Any = IMAGES, **common: Any) -> Small:
    return Small(stored, torch.arange(40), num_classes=40, **common)


def epochs(count: int, batch_size: int = 16, seed: int = 0) -> list[list[int]]:
    data = indexed(batch_size=batch_size, seed=seed)
    shown = []
    for epoch in range(count):
        start = epoch * len(data.train_dataloader()) * batch_size
        shown += [labels.tolist() for _, labels in data._loader(lambda start=start: start, flip=False)]
    return shown


def test_shapes_are_known_and_nothing_is_read_when_constructed():
    class Unreadable(Small):
        def read(self, split):
            raise AssertionError("read too early")

    data = Unreadable(num_classes=3, batch_size=8, seed=5)
    assert (data.sample_shape, data.num_classes, data.batch_size, data.seed) == ((1, 4, 4), 3, 8, 5)


def test_a_trainer_shows_the_epochs_in_their_order(tmp_path):
    recorder = Recorder()
    trainer(tmp_path, max_epochs=3).fit(recorder, datamodule=indexed(batch_size=16))
    assert recorder.shown == epochs(3) and recorder.images_seen == 3 * 32


def test_a_trainer_with_shortened_epochs_still_shows_every_batch(tmp_path):
    recorder = Recorder()
    trainer(tmp_path, max_epochs=6, limit_train_batches=1).fit(recorder, datamodule=indexed(batch_size=16))
    assert recorder.shown == epochs(3)


def test_a_trainer_takes_up_the_run_where_the_clock_stands(tmp_path):
    recorder = Recorder(images_seen=16)
    trainer(tmp_path, max_epochs=2).fit(recorder, datamodule=indexed(batch_size=16))
    assert recorder.shown == epochs(2)[1:]


@pytest.mark.parametrize("memory", ["host", "disk"])
def test_two_processes_under_ddp_together_see_what_one_sees(tmp_path, memory):
    if torch.cuda.is_initialized():
        pytest.skip("a process that uses a GPU cannot be forked")
    run = trainer(tmp_path, max_epochs=2, devices=2, strategy="ddp_fork_find_unused_parameters_true")
    data = indexed(IMAGES if memory == "host" else Files(), batch_size=16, memory=memory)
    run.fit(Recorder(), datamodule=data)
    ranks = [torch.load(tmp_path / f"{rank}.pt") for rank in (0, 1)]
    assert [first + second for first, second in zip(*ranks, strict=True)] == epochs(2)


def test_validation_is_one_pass_when_asked_for_and_nothing_otherwise(tmp_path):
    data, recorder = indexed(batch_size=8), Recorder()
    assert not data.val_dataloader()
    trainer(tmp_path, max_epochs=1).fit(recorder, datamodule=data)
    assert len(recorder.shown) == 5  # training batches only
    recorder.shown.clear()
    trainer(tmp_path).validate(recorder, datamodule=data, verbose=False)
    assert sorted(index for batch in recorder.shown for index in batch) == list(range(40))


def test_labels_go_to_the_networks_only_when_there_are_classes():
    unconditional = Small(IMAGES, torch.arange(40), batch_size=8)
    assert all(labels is None for _, labels in unconditional.train_dataloader())
    assert all(labels is not None for _, labels in unconditional.real_batches(40))


def test_memory_decides_the_loader_and_not_the_batches():
    on_disk, resident = (
        indexed(Files(), batch_size=8, memory=m).train_dataloader() for m in ("disk", "auto")
    )
    assert isinstance(on_disk, DiskLoader) and isinstance(resident, InMemoryLoader)
    for streamed, kept in zip(on_disk, resident, strict=True):
        assert torch.equal(streamed[0], kept[0]) and torch.equal(streamed[1], kept[1])


def test_auto_leaves_on_disk_what_does_not_fit_in_memory(monkeypatch):
    for bytes_free, fits in ((4 * IMAGES.nbytes, True), (4 * IMAGES.nbytes - 1, False)):
        monkeypatch.setattr("litgan.data.base.free_memory", lambda free=bytes_free: free)
        assert isinstance(Small(Files()).load()[0], Tensor) == fits
        assert isinstance(Small(Files(), memory="host").load()[0], Tensor)


def test_real_batches_are_a_fixed_choice_that_grows_and_can_be_shared():
    def stored(batches) -> Tensor:
        return torch.cat([samples for samples, _ in batches])

    data, other = indexed(batch_size=8), indexed(Files(), batch_size=4, seed=9, memory="disk")
    everything = stored(data.real_batches(40, batch_size=7))
    assert torch.equal(everything, stored(other.real_batches(40)))
    assert torch.equal(everything[:10], stored(data.real_batches(10, batch_size=3)))
    labels = torch.cat([labels for _, labels in data.real_batches(40, batch_size=7)])
    assert labels.tolist() != sorted(labels.tolist()) and sorted(labels.tolist()) == list(range(40))
    torch.testing.assert_close(everything, IMAGES[labels] / 127.5 - 1)
    batches = [samples for samples, _ in data.real_batches(40, batch_size=7)]
    for rank in (0, 1):
        shared = [samples for samples, _ in data.real_batches(40, batch_size=7, rank=rank, world_size=2)]
        assert len(shared) == 3
        assert all(torch.equal(mine, whole) for mine, whole in zip(shared, batches[rank::2], strict=True))


def test_more_real_samples_than_there_are_is_refused():
    with pytest.raises(ValueError, match="41 real samples were asked of Small, whose split 'train' has 40"):
        Small().real_batches(41)


def test_fingerprint_follows_the_content_and_nothing_else():
    prints = {
        Small().fingerprint,
        Small(IMAGES.flip(0)).fingerprint,
        Small(labels=torch.zeros(40).long()).fingerprint,
        Small(IMAGES.view(40, 1, 2, 8), shape=(1, 2, 8)).fingerprint,
        Small(Files(), memory="disk").fingerprint,
    }
    assert len(prints) == 5
    assert Small(batch_size=8, seed=4).fingerprint == Small().fingerprint == Small(Files()).fingerprint
    assert int(Small().fingerprint, 16) >= 0


@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        (
            lambda: Small(labels=torch.arange(40), num_classes=39),
            "Labels out of range: sample 39 of Small .train. has label 39, and num_classes 39 allows 0 to 38",
        ),
        (
            lambda: Small(labels=torch.arange(40) - 1, num_classes=40),
            "sample 0 of Small .train. has label -1",
        ),
        (lambda: Small(labels=torch.arange(39)), "Small has 40 samples and 39 labels"),
        (lambda: Small(num_classes=2), "Small has no labels: give num_classes 0, not 2."),
        (lambda: Small(shape=(1, 8, 8)), r"shape \(1, 4, 4\) where its sample_shape is \(1, 8, 8\)"),
        (lambda: Small(memory="disk"), "Small is always read whole: give memory auto, device or host"),
    ],
)
def test_data_that_contradicts_itself_is_refused_in_one_sentence(data, sentence):
    with pytest.raises(ValueError, match=sentence) as error:
        data().setup("fit")
    assert "\n" not in str(error.value) and str(error.value).endswith(".")


def test_unknown_splits_are_refused_by_name():
    with pytest.raises(ValueError, match=r"Digits has no split 'test': ask for 'train'."):
        Digits().size("test")
    with pytest.raises(ValueError, match=r"Grid has no split 'valid': ask for 'train' and 'test'."):
        Grid().load("valid")


def test_the_command_line_sees_every_option_and_refuses_a_wrong_one(capsys):
    from jsonargparse import ArgumentParser

    parser = ArgumentParser()
    parser.add_subclass_arguments(GANDataModule, "data")
    given = ["--data", "litgan.data.ImageFolder", "--data.root", "x", "--data.resolution", "16"]
    parsed = parser.parse_args(
        [*given, "--data.batch_size", "32", "--data.memory", "disk", "--data.flip", "true"]
    )
    assert parsed.data.init_args.memory == "disk" and parsed.data.init_args.batch_size == 32
    with pytest.raises(SystemExit):
        parser.parse_args([*given, "--data.batchsize", "32"])
    assert "batchsize" in capsys.readouterr().err
