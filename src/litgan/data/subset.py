"""Some of the training samples of another data set."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from litgan.data.base import GANDataModule
from litgan.data.derived import choose, load
from litgan.data.loader import Split
from litgan.noise import Noise, torch_generator
from litgan.options import check_counts
from litgan.render import SampleBatch


class Subset(GANDataModule):
    """`samples` of the training samples of another data set, drawn once; its other splits are whole.

    A smaller subset is part of every larger one. Classes and other conditions are those of `data`.

    Args:
        data: the data set. Of its own options of loading (`batch_size`, `memory`, ...) nothing is used.
        samples: how many, at least 1.
        common: the options of `GANDataModule` but `num_classes`.

    Raises:
        ValueError: `num_classes` is given, or, when the training split is read, it has fewer samples.
    """

    def __init__(self, data: GANDataModule, samples: int, **common: Any) -> None:
        super().__init__(data.sample_shape, **common)
        check_counts(samples=samples)
        if self.condition:
            raise ValueError(
                f"Subset has the classes of its data: give num_classes {self.condition} to "
                f"{type(data).__name__}."
            )
        self.data, self.samples, self.condition = data, samples, data.condition
        self.files, self.splits, self.class_names = data.files, data.splits, data.class_names
        self.flip, self.paired, self.skip_unusable = data.flip, data.paired, data.skip_unusable

    def __getattr__(self, name: str) -> Any:
        """What extractors ask the whole data set for, such as a sample rate."""
        if name.startswith("_") or name == "data":
            raise AttributeError(f"{type(self).__name__} has no attribute {name!r}.")
        return getattr(self.data, name)

    def read(self, split: str) -> Split:
        whole, conditions = load(self, self.data, split)
        if split != self.splits[0]:
            return whole, conditions
        if self.samples > len(whole):
            raise ValueError(
                f"Subset takes {self.samples} samples, but {type(self.data).__name__} has {len(whole)}."
            )
        rows = torch.randperm(len(whole), generator=torch_generator("subset"))[: self.samples].sort().values
        chosen = choose(whole, rows)
        if conditions is None or conditions is whole:  # conditions that are made of the samples
            return chosen, None if conditions is None else chosen
        return chosen, choose(conditions, rows)

    def encode(self, stored: Tensor) -> Tensor:
        return self.data.encode(stored)

    def decode(self, samples: Tensor) -> SampleBatch:
        return self.data.decode(samples)

    def encode_condition(self, stored: Tensor) -> Tensor:
        return self.data.encode_condition(stored)

    def decode_condition(self, condition: Tensor) -> SampleBatch | None:
        return self.data.decode_condition(condition)

    def read_sample(self, path: str | Path) -> Tensor:
        return self.data.read_sample(path)

    def read_condition(self, path: str | Path) -> Tensor:
        return self.data.read_condition(path)

    def augment(self, stored: Tensor, noise: Noise) -> Tensor:
        return self.data.augment(stored, noise)

    def augment_pair(
        self, stored: Tensor, condition: Tensor | None, noise: Noise
    ) -> tuple[Tensor, Tensor | None]:
        return self.data.augment_pair(stored, condition, noise)
