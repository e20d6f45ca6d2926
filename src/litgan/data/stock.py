"""A stock DataLoader or LightningDataModule in the role of a `GANDataModule`, for callbacks and commands."""

from __future__ import annotations

import hashlib
import random
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning.pytorch import LightningDataModule, Trainer
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities.model_helpers import is_overridden
from lightning.pytorch.utilities.seed import isolate_rng
from torch import Tensor

from litgan.condition import Condition, choose_classes, choose_conditions
from litgan.data.base import GANDataModule
from litgan.data.loader import Batch
from litgan.noise import torch_generator
from litgan.render import ImageBatch, SampleBatch, is_image
from litgan.updates import unpack

STAGES = {"train": "fit", "val": "fit", "test": "test"}  # in which a module is set up for a split
HASHED = 10_000  # reals in a fingerprint, at most
LOADERS = {  # what a Trainer calls the loader of a split
    TrainerFn.FITTING: ("train", "train_dataloader"),
    TrainerFn.VALIDATING: ("val", "val_dataloaders"),
    TrainerFn.TESTING: ("test", "test_dataloaders"),
}


class LoaderData:
    """The data of one loader: reals for metrics, and pictures of images.

    The reals of a map-style data set are a fixed choice, each read with random numbers of its own; those of a
    stream are its first ones. Float tensors [B, 1 or 3, H, W] are images in [-1, 1].

    Args:
        loader: yields batches that `unpack` takes.
        split: its name.
        trainer: whose ranks agree on one fingerprint, if there is one.
        condition: of the GAN; 0 if labels are left out.
    """

    def __init__(self, loader: Any, split: str, trainer: Trainer | None, condition: Condition) -> None:
        self.loader, self.split = loader, split
        self.splits: tuple[str, ...] = (split,)
        self.trainer, self.condition = trainer, condition
        self._of_first = torch.empty(0)  # conditions of the first samples of a stream
        self._fingerprint: str | None = None

    @property
    def dataset(self) -> Any:
        """The map-style data set whose samples the loader collates; None if it has none."""
        dataset = getattr(self.loader, "dataset", None)
        is_map = hasattr(dataset, "__getitem__") and hasattr(dataset, "__len__")
        return dataset if is_map and getattr(self.loader, "batch_sampler", None) is not None else None

    @property
    def fingerprint(self) -> str:
        """Hash of the size and of the first reals, the same on all ranks."""
        if self._fingerprint is None:
            digest = hashlib.blake2b(str(self.size(self.split)).encode(), digest_size=16)
            for batch in self.real_batches(min(HASHED, self.size(self.split)), split=self.split):
                for tensor in batch:
                    if tensor is not None:
                        digest.update(f"{tensor.dtype} {tuple(tensor.shape)}".encode())
                        digest.update(tensor.cpu().contiguous().numpy())  # type: ignore[arg-type]
            value = digest.hexdigest()
            self._fingerprint = value if self.trainer is None else self.trainer.strategy.broadcast(value)
        return self._fingerprint

    def size(self, split: str = "train") -> int:
        """Number of samples; of a stream as many as may be asked for."""
        if split != self.split:
            raise ValueError(
                f"There is no loader of the split {split!r} here, only {self.split!r}: give realism.split "
                f"{self.split}, or a GANDataModule with more splits."
            )
        return sys.maxsize if self.dataset is None else len(self.dataset)

    def real_batches(
        self, count: int, *, batch_size: int = 250, split: str = "train", rank: int = 0, world_size: int = 1
    ) -> Iterator[Batch]:
        """Real samples for a metric, as `GANDataModule.real_batches`; fewer if a stream ends before."""
        if self.size(split) == sys.maxsize:
            batches = self._of_stream(count, batch_size)
            return (batch for number, batch in enumerate(batches) if number % world_size == rank)
        chosen = torch.randperm(len(self.dataset), generator=torch_generator("real"))[:count]
        return map(self._read, chosen.split(batch_size)[rank::world_size])

    def eval_conditions(self, count: int, split: str = "train", *, first: int = 0) -> Tensor | None:
        """As `GANDataModule.eval_conditions`."""
        if isinstance(self.condition, int):
            return choose_classes(None, first, count, self.condition)
        size = self.size(split)
        if size < sys.maxsize:
            order = torch.randperm(size, generator=torch_generator("real"))
            return self._read(order[torch.arange(first, first + count) % size])[1]
        if len(self._of_first) < first + count:
            found = [condition for _, condition in self._of_stream(2 * (first + count), 250)]
            self._of_first = torch.cat(found)  # type: ignore[arg-type]
        return self._of_first[torch.arange(first, first + count) % len(self._of_first)]

    def _read(self, indices: Tensor) -> Batch:
        samples = []
        with isolate_rng(include_cuda=False):
            for index in indices.tolist():  # a sample's random variations do not depend on its batch
                torch.default_generator.manual_seed(index)
                random.seed(index)
                np.random.seed(index % 2**32)  # noqa: NPY002  # as data sets do
                samples.append(self.dataset[index])
            return self._checked(self.loader.collate_fn(samples))

    def _of_stream(self, count: int, batch_size: int) -> Iterator[Batch]:
        found, reals, conditions = 0, list[Tensor](), list[Any]()
        with isolate_rng(include_cuda=False):  # a new pass draws a seed for its workers
            for batch in self.loader:
                real, condition = self._checked(batch)
                reals.append(real)
                conditions.append(condition)
                found += len(real)
                if found >= count:
                    break
        real = torch.cat(reals)[:count]
        labels = None if conditions[0] is None else torch.cat(conditions)[:count]
        for first in range(0, len(real), batch_size):
            part = slice(first, first + batch_size)
            yield real[part], None if labels is None else labels[part]

    def _checked(self, batch: Any) -> Batch:
        real, condition = unpack(batch, self.condition)
        if is_image(real) and (real.min() < -1.001 or real.max() > 1.001):
            raise ValueError(
                f"The loader's images have values from {real.min():.3g} to {real.max():.3g}: scale them to "
                "-1 to 1, e.g. by Normalize(0.5, 0.5) after ToTensor()."
            )
        return real, condition

    def decode_condition(self, condition: Tensor) -> SampleBatch | None:
        """Image conditions, to be drawn; None of others."""
        return ImageBatch.from_unit_range(condition) if is_image(condition) else None

    def decode(self, samples: Tensor) -> SampleBatch:
        """Images, to be drawn. Raises ValueError if samples are no images."""
        if not is_image(samples):
            raise ValueError(
                f"Samples of shape {list(samples.shape[1:])} from a plain loader cannot be drawn, only "
                "images [1 or 3, H, W]: give a GANDataModule, whose decode makes pictures, or turn pictures "
                "off by samples.every 0 and gradients.every 0."
            )
        return ImageBatch.from_unit_range(samples)


class ModuleData(LoaderData):
    """The data of a stock LightningDataModule outside of a Trainer: of the split that was asked for last.

    Args:
        module: built, and not yet set up.
        condition: of the GAN; 0 if labels are left out.
    """

    def __init__(self, module: LightningDataModule, condition: Condition) -> None:
        super().__init__(None, "", None, condition)
        self.module = module
        self.splits = tuple(split for split in STAGES if is_overridden(f"{split}_dataloader", module))

    def size(self, split: str = "train") -> int:
        self.load(split)
        return super().size(split)

    def load(self, split: str) -> None:
        """Makes the loader of a split.

        Raises ValueError if the module has no such split, or several loaders of it.
        """
        if split == self.split:
            return
        if split not in self.splits:
            known = " and ".join(map(repr, self.splits))
            raise ValueError(f"{type(self.module).__name__} has no split {split!r}: ask for {known}.")
        self.module.prepare_data()
        self.module.setup(STAGES[split])
        loader = getattr(self.module, f"{split}_dataloader")()
        self.loader, self.split, self._fingerprint = check_loader(loader, split), split, None
        self._of_first = torch.empty(0)

    def read_condition(self, path: Path) -> Tensor:
        """Raises ValueError: a stock module reads no file of one's own."""
        raise ValueError(
            f"{type(self.module).__name__} does not say how {path} is read: give a GANDataModule "
            "with read_condition, or give conditions to GAN.sample in Python."
        )


def as_gan_data(module: LightningDataModule, condition: Condition) -> Any:
    """A module as commands need it: it is a `GANDataModule`, or takes the role of one."""
    return module if isinstance(module, GANDataModule) else ModuleData(module, condition)


def check_loader(loader: Any, split: str) -> Any:
    """The loader; ValueError if it is several ones, or can be read only once."""
    if isinstance(loader, (list, tuple, dict, Iterator)):
        raise ValueError(
            f"The metrics and pictures need one {split} loader that can be read again, not a "
            f"{type(loader).__name__}: give a DataLoader or a GANDataModule, or turn them off by "
            "realism.every 0, samples.every 0, gradients.every 0 and health.every 0."
        )
    return loader


def data_of(trainer: Trainer) -> Any:
    """The data of a Trainer as callbacks need them: its `GANDataModule`, or its running loader as one.

    Raises ValueError if it has several loaders, or one that can be read only once.
    """
    datamodule = trainer.datamodule  # type: ignore[attr-defined]
    if isinstance(datamodule, GANDataModule):
        return datamodule
    split, name = LOADERS[trainer.state.fn]  # type: ignore[index]
    loader = check_loader(getattr(trainer, name), split)
    gan: Any = trainer.lightning_module
    known = getattr(gan, "loader_data", None)
    if known is None or known.loader is not loader:
        gan.loader_data = LoaderData(loader, split, trainer, gan.condition)
    return gan.loader_data


def eval_conditions(
    gan: Any, data: Any, count: int, *, split: str = "train", first: int = 0
) -> Tensor | None:
    """Conditions, on its device, with which a GAN draws samples `first` and following to be looked at."""
    given = None if isinstance(gan.condition, int) else data.eval_conditions(count, split, first=first)
    chosen = choose_conditions(given, first, count, gan.condition)
    return None if chosen is None else chosen.to(gan.device)
