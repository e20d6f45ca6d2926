"""Data sets whose conditions are made of other data sets: computed from each sample, or taken elsewhere."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from litgan.data.base import GANDataModule
from litgan.data.loader import SampleFiles, Split
from litgan.noise import Noise, torch_generator
from litgan.render import SampleBatch

LUMA = (0.299, 0.587, 0.114)  # of red, green and blue; ITU-R BT.601


class Transform(ABC):
    """A function of encoded samples [B, *sample_shape] that gives conditions [B, *shape].

    It computes each row by itself, from any height, width or length.
    """

    applies_to_files: ClassVar[bool] = True  # to those of one's own; false: they are conditions already

    @abstractmethod
    def __call__(self, samples: Tensor) -> Tensor: ...

    def decode(self, condition: Tensor) -> SampleBatch | None:
        """Conditions as a batch that can be rendered; None if they are images, or samples, or cannot be."""
        return None


class Identity(Transform):
    """The samples themselves: for autoencoders."""

    def __call__(self, samples: Tensor) -> Tensor:
        return samples


class Grayscale(Transform):
    """The luma (ITU-R BT.601) of images of 3 channels, in one; images of one channel as they are."""

    def __call__(self, samples: Tensor) -> Tensor:
        red, *others = check_images(self, samples, (1, 3)).split(1, 1)
        if not others:
            return red
        return LUMA[0] * red + LUMA[1] * others[0] + LUMA[2] * others[1]


class Edges(Transform):
    """How steep the luma of images in [-1, 1] is, by Sobel's filters: -1 flat, 1 a step from black to white.

    Args:
        threshold: fraction of that step from which on there is a line, 1, and -1 elsewhere; null keeps all
            values.
    """

    def __init__(self, threshold: float | None = None) -> None:
        if threshold is not None and not 0 < threshold <= 1:
            raise ValueError(f"The threshold of Edges is {threshold}: give a number above 0, up to 1.")
        self.threshold = threshold

    def __call__(self, samples: Tensor) -> Tensor:
        padded = F.pad(Grayscale()(check_images(self, samples, (1, 3))), (1, 1, 1, 1), mode="replicate")
        slopes = [_smooth(_slope(padded, axis), 5 - axis) for axis in (2, 3)]
        strength = torch.hypot(*slopes).clamp_max(1)
        return strength * 2 - 1 if self.threshold is None else (strength >= self.threshold) * 2.0 - 1


class Downsample(Transform):
    """Smaller images, by bicubic interpolation with antialiasing, clipped to [-1, 1].

    Files of one's own are small images already, to be made larger.

    Args:
        factor: by which both sides shrink; they have to be multiples of it.
    """

    applies_to_files = False

    def __init__(self, factor: int = 4) -> None:
        if factor < 1:
            raise ValueError(f"The factor of Downsample is {factor}: give at least 1.")
        self.factor = factor

    def __call__(self, samples: Tensor) -> Tensor:
        height, width = check_images(self, samples).shape[2:]
        if height % self.factor or width % self.factor:
            raise ValueError(
                f"Downsample divides the sides of images of {height} x {width} pixels by {self.factor}: give "
                "the data a resolution that is a multiple of the factor."
            )
        size = (height // self.factor, width // self.factor)
        return F.interpolate(samples, size, mode="bicubic", antialias=True).clamp(-1, 1)


def check_images(transform: Transform, samples: Tensor, channels: tuple[int, ...] = ()) -> Tensor:
    """The samples; raises ValueError unless they are images with such a number of channels."""
    if samples.ndim != 4 or (channels and samples.shape[1] not in channels):
        count = f" of {' or '.join(map(str, channels))} channels" if channels else ""
        raise ValueError(
            f"{type(transform).__name__} takes images [B, C, H, W]{count}, not {list(samples.shape)}: choose "
            "another function or other data."
        )
    return samples


def _slope(images: Tensor, axis: int) -> Tensor:
    """Half the difference of both neighbors."""
    length = images.shape[axis] - 2
    return (images.narrow(axis, 2, length) - images.narrow(axis, 0, length)) / 2


def _smooth(images: Tensor, axis: int) -> Tensor:
    """Mean with the neighbors, which count half."""
    before, middle, after = (images.narrow(axis, start, images.shape[axis] - 2) for start in range(3))
    return (before + 2 * middle + after) / 4


class OfAnother(GANDataModule):
    """Base of data sets that have their samples from another one."""

    def __init__(self, data: GANDataModule, **common: Any) -> None:
        super().__init__(data.sample_shape, **common)
        if self.condition:
            raise ValueError(
                f"{type(self).__name__} has its conditions from other data: leave num_classes "
                f"{self.condition} out."
            )
        self.data, self.files = data, data.files
        self.splits, self.flip, self.skip_unusable = data.splits, data.flip, data.skip_unusable

    def __getattr__(self, name: str) -> Any:
        """What extractors ask the samples' own data set for, such as a sample rate."""
        if name.startswith("_") or name == "data":
            raise AttributeError(f"{type(self).__name__} has no attribute {name!r}.")
        return getattr(self.data, name)

    def encode(self, stored: Tensor) -> Tensor:
        return self.data.encode(stored)

    def decode(self, samples: Tensor) -> SampleBatch:
        return self.data.decode(samples)


class Derived(OfAnother):
    """Samples of another data set, with conditions computed from them.

    A sample is cropped, mirrored or varied as its own data set says before its condition is computed.

    Args:
        data: the samples. Of its own options of loading (`batch_size`, `memory`, ...) and its labels nothing
            is used.
        function: computes the conditions of encoded samples.
        common: the options of `GANDataModule` but `num_classes`.

    Raises:
        ValueError: `num_classes` is given, or `function` does not take such samples.
    """

    def __init__(self, data: GANDataModule, function: Transform, **common: Any) -> None:
        super().__init__(data, **common)
        self.function = function
        blank = torch.zeros(1, *data.sample_shape, device="cpu")  # whatever device networks are built on
        self.condition = tuple(function(blank).shape[1:])

    def read(self, split: str) -> Split:
        samples = load(self, self.data, split)[0]
        return samples, samples

    def fingerprint_of(self, split: str) -> str:
        self.load(split)
        return self.data.fingerprint_of(split)

    def augment(self, stored: Tensor, noise: Noise) -> Tensor:
        return self.data.augment(stored, noise)

    def encode_condition(self, stored: Tensor) -> Tensor:
        return self.function(self.data.encode(stored))

    def decode_condition(self, condition: Tensor) -> SampleBatch | None:
        if condition.shape[1:] == self.sample_shape:
            return self.data.decode(condition)
        return self.function.decode(condition) or super().decode_condition(condition)

    def read_condition(self, path: str | Path) -> Tensor:
        sample = self.data.read_sample(path)
        return self.function(sample[None])[0] if self.function.applies_to_files else sample


class Unpaired(OfAnother):
    """Samples of one data set and, as conditions, unrelated ones of another; Zhu et al. 2017 (CycleGAN).

    An epoch has as many pairs as the larger of them has samples; of the smaller one some repeat. Which sample
    comes with which condition is drawn once.

    Args:
        data: the samples.
        conditions: the data set whose samples are the conditions; of a `Derived` one, what it makes of them.
        disjoint: take the first half of `data` and the second half of `conditions`: if both are made of the
            same files, what a condition was made of is then not among the samples.
        common: the options of `GANDataModule` but `num_classes`; of those of `data` and `conditions` nothing
            is used.

    Raises:
        ValueError: `num_classes` is given, or only one of the data sets is mirrored.
    """

    def __init__(
        self, data: GANDataModule, conditions: GANDataModule, disjoint: bool = False, **common: Any
    ) -> None:
        super().__init__(data, **common)
        if conditions.flip != data.flip:
            raise ValueError(
                f"Unpaired mirrors {type(data).__name__} and {type(conditions).__name__} together, and their "
                f"flip is {data.flip} and {conditions.flip}: give both the same."
            )
        self.splits = tuple(split for split in data.splits if split in conditions.splits)
        self.disjoint = disjoint
        self.conditions = conditions if isinstance(conditions, Derived) else Derived(conditions, Identity())
        self.condition = self.conditions.condition
        self.distinct: dict[str, int] = {}  # split -> its samples before one repeats

    def read(self, split: str) -> Split:
        samples, conditions = (load(self, data, split)[0] for data in (self.data, self.conditions))
        first, sizes = 0, [len(samples), len(conditions)]
        if self.disjoint:
            first = -(-sizes[1] // 2)
            sizes = [-(-sizes[0] // 2), sizes[1] - first]
        self.distinct[split] = sizes[0]
        order = torch.randperm(max(sizes), generator=torch_generator("unpaired", split))
        return choose(samples, torch.arange(max(sizes)) % sizes[0]), choose(
            conditions, order % sizes[1] + first
        )

    def fingerprint_of(self, split: str) -> str:
        size = self.size(split)
        parts = [data.fingerprint_of(split) for data in (self.data, self.conditions)]
        return f"{'-'.join(parts)}-{size}{'-disjoint' * self.disjoint}"

    def encode_condition(self, stored: Tensor) -> Tensor:
        return self.conditions.encode_condition(stored)

    def decode_condition(self, condition: Tensor) -> SampleBatch | None:
        return self.conditions.decode_condition(condition)

    def read_condition(self, path: str | Path) -> Tensor:
        return self.conditions.read_condition(path)

    def augment_pair(
        self, stored: Tensor, condition: Tensor | None, noise: Noise
    ) -> tuple[Tensor, Tensor | None]:
        assert condition is not None
        others = self.conditions.augment(condition, noise.stream("condition"))
        return self.data.augment(stored, noise), others

    def _fixed_order(self, split: str) -> Tensor:
        """As the base class has it, with samples that repeat at the end."""
        size, distinct = self.size(split), self.distinct[split]
        order = torch.randperm(distinct, generator=torch_generator("real"))
        return torch.cat([order, torch.arange(distinct, size)])


class Rows:
    """Some samples of a data set on disk, in another order."""

    def __init__(self, files: SampleFiles, rows: Tensor) -> None:
        self.files, self.rows = files, rows

    @property
    def fingerprint(self) -> str:
        digest = hashlib.blake2b(self.files.fingerprint.encode(), digest_size=16)
        digest.update(self.rows.numpy())  # type: ignore[arg-type]
        return digest.hexdigest()

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> Tensor:
        return self.files[int(self.rows[index])]


def choose(samples: Tensor | SampleFiles, rows: Tensor) -> Tensor | SampleFiles:
    """The samples at `rows`, int64."""
    return samples[rows] if isinstance(samples, Tensor) else Rows(samples, rows)


def load(outer: GANDataModule, inner: GANDataModule, split: str) -> Split:
    """What the other data set has read, kept where the outer one says."""
    inner.memory, inner.trainer = outer.memory, outer.trainer
    return inner.load(split)
