"""The judge of recipes from a sound: it names the instruments of drum kits."""

from __future__ import annotations

from typing import Any

import torch
from judges import STORED, known, trunk
from sound.griffin_lim import griffin_lim
from torch import Tensor, nn
from train_extractors import fit

from litgan.metrics import FeatureExtractor
from litgan.noise import torch_generator
from litgan.sound import Sound, SoundStatistics
from litgan.sound.instruments import INSTRUMENTS


class DrumJudge(SoundStatistics):
    """Features of a network that was trained to name the instruments, from log-mel spectrograms."""

    name, dimension = "judge", 96

    def __init__(self) -> None:
        super().__init__()
        self.trunk, self.head = trunk(), nn.Linear(self.dimension, len(INSTRUMENTS))
        self.finalize()

    def features(self, samples: Tensor) -> Tensor:
        return self.trunk(self.picture(samples))

    def picture(self, samples: Tensor) -> Tensor:
        """Log-mel spectrograms of linear waves [N, 1, T], as images in [-1, 1]."""
        return self.levels(samples.squeeze(1))[:, None] / 2 + 1


def drums(data: Any, split: str) -> tuple[Tensor, Tensor]:
    """Sounds of a split of the kits [N, 1, length], linear, at the data's rate, and their instruments [N]."""
    kits = Sound(
        sample_rate=data.sample_rate, length=data.length, skip_silence=True, instruments=True,
        num_classes=len(INSTRUMENTS), holdout_every=getattr(data, "holdout_every", 10),
    )  # fmt: skip
    stored, labels = kits.load(split)
    return kits.encode(stored), labels


def judge(data: Any) -> FeatureExtractor:
    """Of the drum kits' sounds."""

    def learn(network: nn.Sequential) -> None:
        samples, labels = drums(data, "train")
        generator = torch_generator("judge", "drums")

        def vary(pictures: Tensor) -> Tensor:
            """Later by up to four frames, louder or softer by up to 10 dB."""
            frames, gain = (
                torch.randint(5, (1,), generator=generator),
                torch.rand(len(pictures), generator=generator),
            )
            return pictures.roll(int(frames), 3) + (0.5 * gain - 0.25)[:, None, None, None]

        fit(network, made.picture(samples), labels, 30, 32, 3e-3, vary, generator)

    torch.manual_seed(0)
    made = DrumJudge()
    every = getattr(data, "holdout_every", 10)
    return known(made, STORED / f"instruments-{data.sample_rate}-{data.length}-{every}.safetensors", learn)


def phases_by_griffin_lim(condition: Tensor, data: Any) -> Tensor:
    """What Griffin & Lim's phases make of a spectrogram."""
    return griffin_lim(condition, data.function)


OPPONENT = phases_by_griffin_lim
