from __future__ import annotations

from typing import Any

import pytest
import torch
from lightning.pytorch import LightningModule, Trainer
from torch import Tensor

from litgan.data import Digits, GANDataModule, Grid
from litgan.metrics import FeatureExtractor, evaluate
from litgan.recipe import FirstIteration

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

    def decode(self, samples: Tensor) -> Any:
        return samples


class Recorder(LightningModule):
    """Trains nothing; keeps the labels of its batches, and the clock."""

    def __init__(self, images_seen: int = 0) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.weight = torch.nn.Parameter(torch.zeros(()))
        self.images_seen = images_seen
        self.labels: list[list[int]] = []

    def training_step(self, batch, batch_idx):
        self.images_seen += len(batch[1]) * self.trainer.world_size
        self.labels.append(batch[1].tolist())

    def validation_step(self, batch, batch_idx):
        self.labels.append(batch[1].tolist())

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)

    def on_fit_end(self):
        if self.trainer.world_size > 1:
            torch.save(self.labels, f"{self.trainer.default_root_dir}/{self.trainer.global_rank}.pt")


def trainer(folder, **options) -> Trainer:
    quiet = {"logger": False, "enable_progress_bar": False, "enable_checkpointing": False}
    return Trainer(accelerator="cpu", default_root_dir=folder, enable_model_summary=False, **quiet, **options)


def indexed(stored: Any = IMAGES, batch_size: int = 16, **common: Any) -> Small:
    return Small(stored, torch.arange(40), num_classes=40, batch_size=batch_size, **common)


def epochs(count: int) -> list[list[int]]:
    """The labels of the first epochs, of two batches each."""
    loaders = [indexed()._loader(lambda start=epoch * 32: start) for epoch in range(count)]
    return [labels.tolist() for loader in loaders for _, labels in loader]


def test_nothing_is_read_when_constructed(monkeypatch):
    monkeypatch.setattr(Small, "read", None)
    data = Small(num_classes=3, batch_size=8, seed=5)
    assert (data.sample_shape, data.num_classes, data.batch_size, data.seed) == ((1, 4, 4), 3, 8, 5)


@pytest.mark.parametrize(
    ("start", "options", "expected"),
    [
        (0, {"max_epochs": 3}, slice(0, 6)),
        (0, {"max_epochs": 6, "limit_train_batches": 1}, slice(0, 6)),  # shortened epochs skip no batch
        (16, {"max_epochs": 2}, slice(1, 4)),  # a resumed run
    ],
)
def test_a_trainer_gets_the_batches_in_the_order_of_the_clock(tmp_path, start, options, expected):
    recorder = Recorder(images_seen=start)
    trainer(tmp_path, **options).fit(recorder, datamodule=indexed())
    assert recorder.labels == epochs(3)[expected] and recorder.images_seen == start + 16 * len(
        recorder.labels
    )


@pytest.mark.parametrize("memory", ["host", "disk"])
def test_two_processes_under_ddp_together_get_the_batches_of_one(tmp_path, memory):
    if torch.cuda.is_initialized():
        pytest.skip("a process that uses a GPU cannot be forked")
    run = trainer(tmp_path, max_epochs=2, devices=2, strategy="ddp_fork_find_unused_parameters_true")
    run.fit(Recorder(), datamodule=indexed(IMAGES if memory == "host" else Files(), memory=memory))
    ranks = [torch.load(tmp_path / f"{rank}.pt") for rank in (0, 1)]
    assert [first + second for first, second in zip(*ranks, strict=True)] == epochs(2)


def test_validation_is_one_pass_when_asked_for_and_nothing_otherwise(tmp_path):
    data, recorder = indexed(batch_size=8), Recorder()
    assert not data.val_dataloader()
    trainer(tmp_path, max_epochs=1).fit(recorder, datamodule=data)
    assert len(recorder.labels) == 5, "training batches only"
    recorder.labels.clear()
    trainer(tmp_path).validate(recorder, datamodule=data, verbose=False)
    assert sorted(index for batch in recorder.labels for index in batch) == list(range(40))


def test_networks_get_labels_only_if_there_are_classes_and_metrics_always():
    unconditional = Small(IMAGES, torch.arange(40), batch_size=8)
    assert {labels for _, labels in unconditional.train_dataloader()} == {None}
    assert all(labels is not None for _, labels in unconditional.real_batches(40))


def test_files_are_read_into_memory_if_they_fit(monkeypatch):
    for memory, kind in (("disk", Files), ("auto", Tensor), ("host", Tensor)):
        assert isinstance(indexed(Files(), memory=memory).train_dataloader().samples, kind)
    for bytes_free, fits in ((4 * IMAGES.nbytes, True), (4 * IMAGES.nbytes - 1, False)):
        monkeypatch.setattr("litgan.data.base.free_memory", lambda free=bytes_free: free)
        assert isinstance(Small(Files()).load()[0], Tensor) == fits
        assert isinstance(Small(Files(), memory="host").load()[0], Tensor)


def test_real_batches_are_a_fixed_choice_that_grows_and_can_be_shared():
    data, other = indexed(), indexed(Files(), batch_size=4, seed=9, memory="disk")
    parts, labels = map(list, zip(*data.real_batches(40, batch_size=7), strict=True))
    samples, labels = torch.cat(parts), torch.cat(labels)
    assert torch.equal(samples, next(other.real_batches(40))[0])
    assert torch.equal(samples[:10], next(data.real_batches(10))[0])
    assert labels.tolist() != sorted(labels.tolist()) == list(range(40))
    torch.testing.assert_close(samples, IMAGES[labels] / 127.5 - 1)
    for rank in (0, 1):
        shared = [batch for batch, _ in data.real_batches(40, batch_size=7, rank=rank, world_size=2)]
        assert all(torch.equal(mine, part) for mine, part in zip(shared, parts[rank::2], strict=True))
    with pytest.raises(ValueError, match="41 real samples were asked of Small, whose split 'train' has 40"):
        data.real_batches(41)


def test_fingerprint_follows_the_content_and_nothing_else():
    prints = {
        Small().fingerprint,
        Small(IMAGES.flip(0)).fingerprint,
        Small(labels=torch.zeros(40).long()).fingerprint,
        Small(IMAGES.view(40, 1, 2, 8), shape=(1, 2, 8)).fingerprint,
        Small(Files(), memory="disk").fingerprint,
    }
    assert len(prints) == 5 and all(int(one, 16) for one in prints)
    assert Small(batch_size=8, seed=4).fingerprint == Small().fingerprint == Small(Files()).fingerprint


def test_a_fit_says_first_what_its_data_are(digits_gan, digits, make_trainer, capsys):
    make_trainer(1, callbacks=[FirstIteration(lambda: None)]).fit(digits_gan(), datamodule=digits)
    assert "data: 1,797 samples" in capsys.readouterr().out.splitlines()


@pytest.mark.parametrize(("patience", "is_shown"), [(0, True), (60, False)])
def test_what_takes_long_shows_a_progress_bar_on_stderr(patience, is_shown, monkeypatch, capsys):
    monkeypatch.setattr("litgan.data.files.PATIENCE", patience)
    Small(Files()).load()
    shown = capsys.readouterr()
    assert ("reading files" in shown.err) == is_shown and not shown.out


class Halves(Small):
    """Splits of their own samples."""

    splits = ("train", "test")

    def read(self, split: str) -> tuple[Any, Tensor | None]:
        return self.stored[split], None


class Identity(FeatureExtractor):
    name, size, dimension, resize, digest = "identity", 2, 2, "none", "0"

    def check(self, samples: Tensor) -> None:
        pass

    def features(self, samples: Tensor) -> Tensor:
        return samples


def test_each_split_has_a_fingerprint_which_real_statistics_are_kept_by(tmp_path):
    parts = [torch.rand(40, 2), torch.rand(40, 2) - 1]
    first, second = (Halves({"train": parts[0], "test": test}, shape=(2,)) for test in parts)
    assert first.fingerprint == second.fingerprint == first.fingerprint_of("train")
    found = [
        evaluate(
            lambda first, count: parts[0][first : first + count], data, Identity(), count=40, split="test",
            cache_dir=tmp_path,
        )
        for data in (first, second)
    ]  # fmt: skip
    assert found[0].values["metric/fd_identity"] < 1e-3 and found[1].values["metric/fd_identity"] > 0.1
    assert found[0].protocol["data"] != found[1].protocol["data"]


def floats(*where: int, value: float = float("nan")) -> Tensor:
    samples = IMAGES.float() / 255
    samples[list(where), 0, 0, 1] = value
    return samples


class FloatFiles(Files):
    def __getitem__(self, index: int) -> Tensor:
        return floats(7)[index]


@pytest.mark.parametrize(
    ("use", "sentence"),
    [
        (lambda: Small(floats(7, 9)).load(), r"Sample 7 of Small \(train\) holds values that are not finite"),
        (lambda: Small(floats(39, value=float("inf"))).load(), "Sample 39 of Small"),
        (lambda: Small(FloatFiles()).load(), "Sample 7 of Small"),
        (
            lambda: list(Small(FloatFiles(), memory="disk", batch_size=40).train_dataloader()),
            "Sample 7 of FloatFiles",
        ),
        (lambda: Small(IMAGES[:0]).load(), r"Small has no samples \(train\): let Small.read give"),
        (lambda: Grid(samples=0).load(), "Grid has no samples"),
        (lambda: Small(labels=torch.arange(40), num_classes=39).load(), "sample 39 of Small .*has label 39"),
        (lambda: Small(labels=torch.arange(40) - 1, num_classes=40).load(), "sample 0 of Small .* label -1"),
        (lambda: Small(labels=torch.arange(39)).load(), "Small has 40 samples and 39 labels"),
        (lambda: Small(num_classes=2).load(), "Small has no labels: give num_classes 0, not 2"),
        (lambda: Small(shape=(1, 8, 8)).load(), r"shape \(1, 4, 4\) where its sample_shape is \(1, 8, 8\)"),
        (lambda: Small(memory="disk").load(), "Small is always read whole"),
        (lambda: Small(balanced=True).train_dataloader(), "Small has no labels to balance"),
        (lambda: Digits().size("test"), "Digits has no split 'test': ask for 'train'"),
        (lambda: Grid().load("valid"), "Grid has no split 'valid': ask for 'train' and 'test'"),
    ],
)
def test_data_that_contradicts_itself_is_refused_in_one_sentence(use, sentence):
    with pytest.raises(ValueError, match=sentence) as error:
        use()
    assert "\n" not in str(error.value) and str(error.value).endswith(".")


def test_the_command_line_has_every_option_and_refuses_a_wrong_one(capsys):
    from jsonargparse import ArgumentParser

    parser = ArgumentParser()
    parser.add_subclass_arguments(GANDataModule, "data")
    given = ["--data", "litgan.data.ImageFolder", "--data.root", "x", "--data.memory", "disk"]
    assert parser.parse_args([*given, "--data.flip", "true"]).data.init_args.memory == "disk"
    with pytest.raises(SystemExit):
        parser.parse_args([*given, "--data.batchsize", "32"])
    assert "batchsize" in capsys.readouterr().err
