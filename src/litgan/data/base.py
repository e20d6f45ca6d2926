"""The contract between a data set and the rest of litgan."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from typing import Any, ClassVar

import torch
from lightning.pytorch import LightningDataModule
from lightning.pytorch.trainer.states import TrainerFn
from torch import Tensor

from litgan.checks import check_counts
from litgan.data.files import FileCount
from litgan.data.loader import (
    AUTO_SHARE,
    Batch,
    Loader,
    Memory,
    ResumableBatchSampler,
    SampleFiles,
    free_memory,
    gather,
    to_unit_range,
)
from litgan.noise import Noise, torch_generator
from litgan.render import SampleBatch


class GANDataModule(LightningDataModule, ABC):
    """Real samples: their shape, their batches, their pictures.

    A new data set is one file with one subclass and no edit elsewhere:

        class Spirals(GANDataModule):
            def __init__(self, turns: float = 2.0, **common: Any) -> None:
                super().__init__((2,), **common)             # the shape, before anything is read
                self.turns = turns

            def read(self, split: str) -> tuple[Tensor, Tensor | None]:
                return spirals(self.turns), None             # stored samples [N, ...], labels [N] or None

            def decode(self, samples: Tensor) -> PointBatch:
                return PointBatch(samples, limit=1.0)

    then `litgan fit ... --data spirals.Spirals --data.turns 3`. `read` returns uint8 images, floats, or a
    map-style data set that reads one stored sample at a time (`SampleFiles`). Override `encode` if stored
    samples differ from what the discriminator gets, `augment` for random variations, and `splits` if there
    is a test set.

    Args:
        sample_shape: of one sample as the networks get it.
        batch_size: real samples per batch over all ranks; a multiple of their number.
        num_classes: number of classes that condition the networks; 0 trains without labels.
        seed: of the order of samples.
        memory: where samples are kept. "device" and "host": all of them, on the training device or beside
            it; "disk": read each time; "auto": the first of these where the set takes no more than a quarter
            of the free memory. Batches do not depend on it.
        num_workers: processes that read from disk.
        balanced: give every class equally often; samples of rare classes repeat.
    """

    splits: ClassVar[tuple[str, ...]] = ("train",)
    class_names: Sequence[str] | None = None
    flip: bool = False
    skip_unusable: bool | None = None  # leave out files that cannot be used; None: there is no such option

    def __init__(
        self,
        sample_shape: tuple[int, ...],
        *,
        batch_size: int = 64,
        num_classes: int = 0,
        seed: int = 0,
        memory: Memory = "auto",
        num_workers: int = 0,
        balanced: bool = False,
    ) -> None:
        super().__init__()
        check_counts(least=0, num_workers=num_workers)
        self.sample_shape = tuple(sample_shape)
        self.batch_size, self.num_classes, self.seed = batch_size, num_classes, seed
        self.memory: Memory = memory
        self.num_workers, self.balanced = num_workers, balanced
        self.files: dict[str, FileCount] = {}  # of the splits that `read` has read from files
        self._loaded: dict[str, tuple[Tensor | SampleFiles, Tensor | None]] = {}
        self._fingerprints: dict[str, str] = {}

    @abstractmethod
    def read(self, split: str) -> tuple[Tensor | SampleFiles, Tensor | None]:
        """Stored samples and int64 labels [N] (None if there are none) of one of `splits`."""

    @abstractmethod
    def decode(self, samples: Tensor) -> SampleBatch:
        """Samples [N, *sample_shape], real or generated, as a batch that can be rendered and saved."""

    def encode(self, stored: Tensor) -> Tensor:
        """A whole batch of stored samples as the discriminator gets them, float32; inverse of `decode`."""
        return to_unit_range(stored)

    def augment(self, stored: Tensor, noise: Noise) -> Tensor:
        """A training batch of stored samples [B, ...] with random variations, such as loudness or key.

        All randomness comes from `noise`, so that ranks and resumed runs agree. Metrics get stored samples.
        """
        return stored

    @property
    def fingerprint(self) -> str:
        """`fingerprint_of` the training split."""
        return self.fingerprint_of("train")

    def fingerprint_of(self, split: str) -> str:
        """Hash (hex) of a split: content, labels and shape, or of the files that stay on disk."""
        if split not in self._fingerprints:
            samples, labels = self.load(split)
            digest = hashlib.blake2b(repr((self.sample_shape, len(samples))).encode(), digest_size=16)
            for part in (samples, labels):
                if isinstance(part, Tensor):
                    digest.update(f"{part.dtype} {tuple(part.shape)}".encode())
                    digest.update(part.contiguous().numpy())  # type: ignore[arg-type]
                elif part is not None:
                    digest.update(part.fingerprint.encode())
            self._fingerprints[split] = digest.hexdigest()
        return self._fingerprints[split]

    @property
    def summary(self) -> str:
        """One line: samples of the training split, from how many files, and what was left out."""
        size = self.size()
        return f"{size:,} sample{'s' * (size != 1)}{self.files.get('train', '')}"

    @property
    def signature(self) -> dict[str, Any]:
        """Plain data that tells the training split from others, however and wherever it is stored.

        Of at most 32 samples, spread over the split, it has the classes and the projections on one direction.
        """
        samples, labels = self.load("train")
        count = min(len(samples), 32)
        chosen = torch.arange(count) * len(samples) // count
        encoded = self.encode(gather(samples, chosen)).flatten(1).double()
        direction = torch.randn(encoded.shape[1], generator=torch_generator("signature")).double()
        labels = labels if self.num_classes or self.balanced else None
        return {
            "sample_shape": list(self.sample_shape), "samples": len(samples), "num_classes": self.num_classes,
            "class_names": list(self.class_names or ())[:1000] if self.num_classes else [],
            "labels": [] if labels is None else labels[chosen].tolist(),
            "content": (encoded @ direction).nan_to_num().tolist(),
        }  # fmt: skip

    def size(self, split: str = "train") -> int:
        """Number of samples in `split`."""
        return len(self.load(split)[0])

    def real_batches(
        self,
        count: int,
        *,
        batch_size: int = 250,
        split: str = "train",
        rank: int = 0,
        world_size: int = 1,
    ) -> Iterator[Batch]:
        """Real samples for a metric: a fixed choice of `count` encoded samples, on the CPU, never varied.

        The choice does not depend on seed or clock, and a smaller one is the beginning of a larger one.
        Labels are included if the data set has some. Batch k goes to rank k % `world_size`.

        Raises:
            ValueError: fewer than `count` samples, or no such split.
        """
        samples, labels = self.load(split)
        if not 1 <= count <= len(samples):
            raise ValueError(
                f"{count} real samples were asked of {type(self).__name__}, whose split {split!r} has "
                f"{len(samples)}: ask for 1 to {len(samples)}."
            )
        chosen = torch.randperm(len(samples), generator=torch_generator("real"))[:count]
        return (
            (self.encode(gather(samples, part)), None if labels is None else labels[part])
            for part in chosen.split(batch_size)[rank::world_size]
        )

    def train_dataloader(self) -> Loader:
        """Loader of this rank's part of each batch, on the training device, that follows the run's clock."""
        return self._loader(self._images_seen, endless=self._is_limited, flip=self.flip, augment=self.augment)

    def val_dataloader(self) -> Loader | list[Any]:
        """One pass over the training samples under `trainer.validate`; nothing during a fit."""
        if self.trainer is None or self.trainer.state.fn != TrainerFn.VALIDATING:
            return []
        return self._loader(lambda: 0)

    def test_dataloader(self) -> Loader:
        """One pass over the test samples."""
        return self._loader(lambda: 0, "test")

    def predict_dataloader(self) -> Loader:
        """One pass over the training samples: `GAN.predict_step` generates as many."""
        return self._loader(lambda: 0)

    def prepare_data(self) -> None:
        """Download, if there is something to download; one process per machine."""
        self.load("train")

    def setup(self, stage: str) -> None:
        self.load("train")

    def load(self, split: str = "train") -> tuple[Tensor | SampleFiles, Tensor | None]:
        """The checked result of `read`, in the host's memory if it fits; read once per process.

        Raises:
            ValueError: no such split, labels missing or out of range, or samples of the wrong shape.
        """
        if split not in self._loaded:
            if split not in self.splits:
                known = " and ".join(map(repr, self.splits))
                raise ValueError(f"{type(self).__name__} has no split {split!r}: ask for {known}.")
            samples, labels = self.read(split)
            self._check(samples, labels, split)
            samples = self._into_memory(samples)
            self._check_finite(samples, split)
            self._loaded[split] = samples, labels
        return self._loaded[split]

    def _images_seen(self) -> int:
        run: Any = self.trainer
        seen: int = 0 if run is None else run.lightning_module.images_seen
        if run is not None and run.overfit_batches:  # the same batches in every epoch
            seen %= run.num_training_batches * self.batch_size
        return seen

    def _is_limited(self) -> bool:
        """Whether the Trainer's epochs are shorter than the data set."""
        run: Any = self.trainer
        return run is not None and run.num_training_batches < self.size() // self.batch_size

    def _loader(
        self, images_seen: Callable[[], int], split: str = "train",
        endless: Callable[[], bool] = lambda: False, **options: Any,
    ) -> Loader:  # fmt: skip
        samples, labels = self.load(split)
        if self.balanced and labels is None:
            raise ValueError(f"{type(self).__name__} has no labels to balance: give data.balanced false.")
        trainer = self.trainer
        sampler = ResumableBatchSampler(
            len(samples),
            self.batch_size if split == "train" else min(self.batch_size, len(samples)),
            seed=self.seed,
            rank=0 if trainer is None else trainer.global_rank,
            world_size=1 if trainer is None else trainer.world_size,
            images_seen=images_seen,
            endless=endless,
            balance=labels if self.balanced else None,
        )
        return Loader(
            samples,
            labels if self.num_classes else None,
            sampler,
            device="cpu" if trainer is None else trainer.strategy.root_device,
            memory=self.memory,
            num_workers=self.num_workers,
            encode=self.encode,
            **options,
        )

    def _into_memory(self, samples: Tensor | SampleFiles) -> Tensor | SampleFiles:
        """Files are read whole if `memory` says so, or if all processes of the machine have room for them."""
        if isinstance(samples, Tensor):
            return samples
        processes = 1 if self.trainer is None else self.trainer.num_devices
        fits = samples[0].nbytes * len(samples) * processes <= AUTO_SHARE * free_memory()
        if self.memory in ("device", "host") or (self.memory == "auto" and fits):
            return gather(samples, torch.arange(len(samples)), self.skip_unusable)
        return samples

    def _check_finite(self, samples: Tensor | SampleFiles, split: str) -> None:
        if not isinstance(samples, Tensor) or not samples.is_floating_point():
            return
        for first in range(0, len(samples), 4096):
            finite = samples[first : first + 4096].flatten(1).isfinite().all(1)
            if not finite.all():
                raise ValueError(
                    f"Sample {first + int((~finite).nonzero()[0])} of {type(self).__name__} ({split}) holds "
                    "values that are not finite: correct or remove it."
                )

    def _check(self, samples: Tensor | SampleFiles, labels: Tensor | None, split: str) -> None:
        name, classes = type(self).__name__, self.num_classes
        if not len(samples):
            raise ValueError(f"{name} has no samples ({split}): let {name}.read give at least one.")
        if labels is not None and len(labels) != len(samples):
            raise ValueError(
                f"{name} has {len(samples)} samples and {len(labels)} labels ({split}): give each one label."
            )
        if classes and labels is None:
            raise ValueError(f"{name} has no labels: give num_classes 0, not {classes}.")
        if classes and labels is not None and len(wrong := ((labels < 0) | (labels >= classes)).nonzero()):
            index = int(wrong[0])
            raise ValueError(
                f"Labels out of range: sample {index} of {name} ({split}) has label {int(labels[index])}, "
                f"and num_classes {classes} allows 0 to {classes - 1}: correct either."
            )
        shape = tuple(self.encode(samples[0][None])[0].shape)
        if shape != self.sample_shape:
            raise ValueError(
                f"{name}.read gives samples of shape {shape} where its sample_shape is "
                f"{self.sample_shape}: make one follow the other."
            )
        if isinstance(samples, Tensor) and self.memory == "disk":
            raise ValueError(f"{name} is always read whole: give memory auto, device or host, not disk.")


def check_num_classes(name: str, num_classes: int, known: int) -> None:
    """Refuse a `num_classes` that is neither 0 nor the `known` number of classes of data set `name`."""
    if num_classes not in (0, known):
        raise ValueError(
            f"{name} has {known} classes: give num_classes {known} to train with labels or 0 without, "
            f"not {num_classes}."
        )
