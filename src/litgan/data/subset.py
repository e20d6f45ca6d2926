"""Some of the training samples of another data set."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from litgan.data.base import GANDataModule
from litgan.data.derived import OfAnother, choose, load
from litgan.data.loader import Split
from litgan.noise import Noise, torch_generator
from litgan.options import check_counts
from litgan.render import SampleBatch


class Subset(OfAnother):
    """`samples` of the training samples of another data set, drawn once; its other splits are complete.

    A smaller subset is part of every larger one. Classes and other conditions are those of `data`.

    Args:
        data: the data set. Of its own options of loading (`batch_size`, `memory`, ...) nothing is used.
        samples: how many, at least 1.
        common: the options of `GANDataModule` but `num_classes`.

    Raises:
        ValueError: `num_classes` is given, or, when the training split is read, it has fewer samples.
    """

    def __init__(self, data: GANDataModule, samples: int, **common: Any) -> None:
        super().__init__(data, **common)
        check_counts(samples=samples)
        self.samples, self.condition = samples, data.condition
        self.class_names, self.paired = data.class_names, data.paired

    def read(self, split: str) -> Split:
        samples, conditions = load(self, self.data, split)
        if split != self.splits[0]:
            return samples, conditions
        if self.samples > len(samples):
            raise ValueError(
                f"Subset takes {self.samples} samples, but {type(self.data).__name__} has {len(samples)}: "
                "give it as many, or fewer."
            )
        rows = torch.randperm(len(samples), generator=torch_generator("subset"))[: self.samples].sort().values
        chosen = choose(samples, rows)
        if conditions is samples:  # they are made of the samples
            return chosen, chosen
        return chosen, None if conditions is None else choose(conditions, rows)

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
