"""The contract between a data set and the rest of litgan."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import LightningDataModule
from lightning.pytorch.trainer.states import TrainerFn
from torch import Tensor

from litgan.condition import Condition, as_plain, choose_classes, num_classes
from litgan.data.checks import check_finite, check_split
from litgan.data.files import FileCount
from litgan.data.loader import (
    AUTO_SHARE,
    Batch,
    Loader,
    Memory,
    ResumableBatchSampler,
    SampleFiles,
    Split,
    default_workers,
    free_memory,
    gather,
    to_unit_range,
)
from litgan.data.pack import read_pack
from litgan.memory import explain_lack
from litgan.noise import Noise, torch_generator
from litgan.options import check_counts
from litgan.render import ImageBatch, SampleBatch, is_image


class GANDataModule(LightningDataModule, ABC):
    """Real samples: their shape, their batches, their pictures.

    A new data set is one file with one subclass and no edit elsewhere:

        class Spirals(GANDataModule):
            def __init__(self, turns: float = 2.0, **common: Any) -> None:
                super().__init__((2,), **common)             # the shape, before anything is read
                self.turns = turns

            def read(self, split: str) -> tuple[Tensor, Tensor | None]:
                return spirals(self.turns), None             # stored samples [N, ...], labels or conditions

            def decode(self, samples: Tensor) -> PointBatch:
                return PointBatch(samples, limit=1.0)

    then `litgan fit ... --data spirals.Spirals --data.turns 3`. `read` returns uint8 images, floats, or a
    map-style data set that reads one stored sample at a time (`SampleFiles`). Override `encode` if stored
    samples differ from what the discriminator gets, `augment` for random variations, and `splits` if there
    is a test set.

    For samples that are made from a tensor, set `self.condition` to its shape in the constructor, and let
    `read` return stored conditions in place of labels: tensors, files, or the stored samples themselves, of
    which `encode_condition` then makes conditions.

    Args:
        sample_shape: of one sample as the networks get it.
        batch_size: real samples per batch over all ranks; a multiple of their number.
        num_classes: sets `condition`: the number of classes; 0 trains without labels.
        seed: of the order of samples.
        memory: where samples are kept. "device" and "host": all of them, on the training device or beside
            it; "disk": read each time; "auto": the first of these where the set takes no more than a quarter
            of the free memory. Batches do not depend on it.
        num_workers: processes that read from disk; null: none if a CPU trains, which they would take, and on
            a GPU as many as it has cores of the machine, at most 8.
        balanced: give every class equally often; samples of rare classes repeat.
    """

    splits: tuple[str, ...] = ("train",)
    class_names: Sequence[str] | None = None
    stored_options: tuple[str, ...] = ()  # of what is read, on which other parts of a run depend
    flip: bool = False
    paired: bool = True  # a sample is the one that its condition, if a tensor, asks for
    skip_unusable: bool | None = None  # leave out files that cannot be used; None: there is no such option

    def __init__(
        self,
        sample_shape: tuple[int, ...],
        *,
        batch_size: int = 64,
        num_classes: int = 0,
        seed: int = 0,
        memory: Memory = "auto",
        num_workers: int | None = None,
        balanced: bool = False,
    ) -> None:
        super().__init__()
        check_counts(least=0, num_workers=num_workers or 0)
        self.sample_shape = tuple(sample_shape)
        self.condition: Condition = num_classes
        self.batch_size, self.seed = batch_size, seed
        self.memory: Memory = memory
        self.num_workers, self.balanced = num_workers, balanced
        self.files: dict[str, FileCount] = {}  # of the splits that `read` has read from files
        self._loaded: dict[str, Split] = {}
        self._fingerprints: dict[str, str] = {}

    @property
    def num_classes(self) -> int:
        """The number of classes of the condition; 0 if it is none of these."""
        return num_classes(self.condition)

    @abstractmethod
    def read(self, split: str) -> Split:
        """Stored samples of one of `splits`, and int64 labels [N], None, or stored conditions of a shape."""

    @abstractmethod
    def decode(self, samples: Tensor) -> SampleBatch:
        """Samples [N, *sample_shape], real or generated, as a batch that can be rendered and saved."""

    def encode(self, stored: Tensor) -> Tensor:
        """A whole batch of stored samples as the discriminator gets them, float32; inverse of `decode`."""
        return to_unit_range(stored)

    def encode_condition(self, stored: Tensor) -> Tensor:
        """A whole batch of stored conditions as the networks get them, float32 [B, *condition]."""
        return to_unit_range(stored)

    def decode_condition(self, condition: Tensor) -> SampleBatch | None:
        """Conditions [N, *shape] as a batch that can be rendered; None if they cannot be drawn."""
        return ImageBatch.from_unit_range(condition) if is_image(condition) else None

    def read_sample(self, path: str | Path) -> Tensor:
        """The sample in a file of one's own, encoded; its sides may be others.

        Raises ValueError: this data set reads no such files, or not this one.
        """
        raise ValueError(
            f"{type(self).__name__} reads no samples from files: give it a method read_sample(path)."
        )

    def read_condition(self, path: str | Path) -> Tensor:
        """The condition in a file of one's own, as the networks get it; its sides may be others.

        Raises ValueError: this data set reads no such files, or not this one.
        """
        raise ValueError(
            f"{type(self).__name__} reads no conditions from files: give it a method read_condition(path)."
        )

    def augment(self, stored: Tensor, noise: Noise) -> Tensor:
        """A training batch of stored samples [B, ...] with random variations, such as loudness or key.

        All randomness comes from `noise`, so that ranks and resumed runs agree. Metrics get stored samples.
        """
        return stored

    def augment_pair(
        self, stored: Tensor, condition: Tensor | None, noise: Noise
    ) -> tuple[Tensor, Tensor | None]:
        """A training batch of stored samples and their stored conditions or labels, varied together.

        Override it, in place of `augment`, where a variation such as a crop concerns the condition too.
        """
        varied = self.augment(stored, noise)
        return varied, varied if condition is stored else condition

    @property
    def fingerprint(self) -> str:
        """`fingerprint_of` the training split."""
        return self.fingerprint_of("train")

    def fingerprint_of(self, split: str) -> str:
        """Hash (hex) of a split: content, conditions and shape, or of the files that stay on disk."""
        if split not in self._fingerprints:
            samples, conditions = self.load(split)
            digest = hashlib.blake2b(repr((self.sample_shape, len(samples))).encode(), digest_size=16)
            for part in (samples, conditions):
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

        Of at most 32 samples, spread over the split, it has the classes, and the projections of samples and
        conditions on one direction.
        """
        samples, _ = self.load("train")
        count = min(len(samples), 32)
        chosen = torch.arange(count) * len(samples) // count
        parts, labels = [self.encode(gather(samples, chosen))], None
        if isinstance(self.condition, tuple):
            parts.append(self._conditions("train", chosen))  # type: ignore[arg-type]
        elif self.num_classes or self.balanced:
            labels = self._conditions("train", chosen)
        content = [projection for part in parts for projection in project(part)]
        return {
            "sample_shape": list(self.sample_shape), "samples": len(samples),
            "condition": as_plain(self.condition),
            "class_names": list(self.class_names or ())[:1000] if self.num_classes else [],
            "labels": [] if labels is None else labels.tolist(), "content": content,
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

        The choice does not depend on seed or clock, and a smaller one is the beginning of a larger one. With
        them come their conditions, or labels if the data set has some. Batch k goes to rank k % `world_size`.

        Raises ValueError: fewer than `count` samples, or no such split.
        """
        samples, _ = self.load(split)
        if not 1 <= count <= len(samples):
            raise ValueError(
                f"{count} real samples were asked of {type(self).__name__}, whose split {split!r} has "
                f"{len(samples)}: ask for 1 to {len(samples)}."
            )
        chosen = self._fixed_order(split)[:count]
        return (
            (self.encode(gather(samples, part)), self._conditions(split, part))
            for part in chosen.split(batch_size)[rank::world_size]
        )

    def eval_conditions(self, count: int, split: str = "train", *, first: int = 0) -> Tensor | None:
        """Conditions with which metrics and pictures draw samples `first` and following, on the CPU.

        All classes in turn; else row i belongs to sample `first` + i of `real_batches` of the split, and the
        split's begin again at its end.
        """
        if isinstance(self.condition, int):
            return choose_classes(None, first, count, self.condition)
        order = self._fixed_order(split)
        return self._conditions(split, order[torch.arange(first, first + count) % len(order)])

    def train_dataloader(self) -> Loader:
        """Loader of this rank's part of each batch, on the training device, that follows the run's clock."""
        return self._loader(
            self._images_seen, endless=self._is_limited, flip=self.flip, augment=self.augment_pair
        )

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

    def load(self, split: str = "train") -> Split:
        """The checked result of `read`, in the host's memory if it fits, or what `litgan pack` made of it.

        Raises ValueError: no such split, labels or conditions missing, out of range or of the wrong shape, or
        samples of the wrong shape.
        """
        if split not in self._loaded:
            if split not in self.splits:
                known = " and ".join(map(repr, self.splits))
                raise ValueError(f"{type(self).__name__} has no split {split!r}: ask for {known}.")
            packed = read_pack(self, split)
            samples, conditions = packed or self.read(split)
            check_split(self, samples, conditions, split)
            if packed is None:  # else it is shared by processes as it is, and was checked when it was packed
                samples, conditions = self._into_memory(samples, conditions)
                check_finite(samples, f"Sample {{}} of {type(self).__name__} ({split})")
                check_finite(conditions, f"The condition of sample {{}} of {type(self).__name__} ({split})")
            self._loaded[split] = samples, conditions
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
        samples, conditions = self.load(split)
        has_labels, has_conditions = isinstance(self.condition, int), bool(self.condition)
        if self.balanced and not (has_labels and isinstance(conditions, Tensor)):
            raise ValueError(f"{type(self).__name__} has no labels to balance: give data.balanced false.")
        trainer, workers = self.trainer, self.num_workers
        device = torch.device("cpu" if trainer is None else trainer.strategy.root_device)
        if workers is None:
            workers = default_workers(device, self._processes)
        sampler = ResumableBatchSampler(
            len(samples),
            self.batch_size if split == "train" else min(self.batch_size, len(samples)),
            seed=self.seed,
            rank=0 if trainer is None else trainer.global_rank,
            world_size=1 if trainer is None else trainer.world_size,
            images_seen=images_seen,
            endless=endless,
            balance=conditions if self.balanced else None,  # type: ignore[arg-type]
        )
        return Loader(
            samples,
            conditions if has_conditions else None,
            sampler,
            device=device,
            memory=self.memory,
            num_workers=workers,
            encode=self.encode,
            encode_condition=None if has_labels else self.encode_condition,
            **options,
        )

    @property
    def _processes(self) -> int:
        """Of this machine, each with its data."""
        return 1 if self.trainer is None else self.trainer.num_devices

    def _fixed_order(self, split: str) -> Tensor:
        """The indices of a split in the order in which metrics get its samples."""
        return torch.randperm(self.size(split), generator=torch_generator("real"))

    def _conditions(self, split: str, indices: Tensor) -> Tensor | None:
        """Labels, or conditions as the networks get them."""
        conditions = self.load(split)[1]
        if conditions is None:
            return None
        chosen = gather(conditions, indices)
        return chosen if isinstance(self.condition, int) else self.encode_condition(chosen)

    def _into_memory(self, *parts: Tensor | SampleFiles | None) -> Any:
        """Files are read whole if `memory` says so, or if all processes of the machine have room for them."""
        if isinstance(parts[0], Tensor) and self.memory == "disk":
            name = type(self).__name__
            raise ValueError(f"{name} is always read whole: give memory auto, device or host, not disk.")
        files = {id(part): part for part in parts if part is not None and not isinstance(part, Tensor)}
        size = sum(part[0].nbytes * len(part) for part in files.values())
        fits = size * self._processes <= AUTO_SHARE * free_memory()
        if self.memory in ("device", "host") or (self.memory == "auto" and fits):
            needed = f"{size / 2**30:.1f} GiB of samples"
            with explain_lack(needed, f"give data.memory disk, not {self.memory}"):
                read = {
                    key: gather(part, torch.arange(len(part)), self.skip_unusable)
                    for key, part in files.items()
                }
            return [read.get(id(part), part) for part in parts]  # one part may be given twice
        return parts


def project(samples: Tensor) -> list[float]:
    """The projections of samples [B, ...] on one direction."""
    rows = samples.flatten(1).double()
    direction = torch.randn(rows.shape[1], generator=torch_generator("signature")).double()
    projections: list[float] = (rows @ direction).nan_to_num().tolist()
    return projections
