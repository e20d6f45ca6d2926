"""The judge of recipes from a sound: it names the instruments of drum kits."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import torch
from judges import STORED, known, trunk
from sound.griffin_lim import griffin_lim
from torch import Tensor, nn
from train_extractors import fit

from litgan.data.files import find_files
from litgan.metrics import FeatureExtractor
from litgan.noise import torch_generator
from litgan.sound import Sound, SoundStatistics
from litgan.sound.data import DRUM_SUFFIXES

INSTRUMENTS = {  # class -> what file names of it contain; the first that fits counts
    "hihat": r"hat|hh|^ho\b|^cc\b",
    "cymbal": r"crash|ride|splash|china|cymbal|^rc",
    "rim": r"rim|stick|^rs\b|^sr\b",
    "snare": r"snare|^sd|snr",
    "kick": r"kick|^bd|bass",
    "tom": r"tom|^t\b|^ft\b|conga|bongo|sangban|djembe|dundun",
    "shaken": r"tamb|shak|marac|clap|cabasa",
    "struck": r"bell|block|glass|agogo|triang|clave|click",
}
OTHER = len(INSTRUMENTS)  # beats, effects and what the names do not say


def instrument(path: Path) -> int:
    """The class of a file by its name."""
    stem = path.stem.lower()
    return next((i for i, text in enumerate(INSTRUMENTS.values()) if re.search(text, stem)), OTHER)


class DrumJudge(SoundStatistics):
    """Features of a network that was trained to name the instruments, from log-mel spectrograms."""

    name, dimension = "judge", 96

    def __init__(self) -> None:
        super().__init__()
        self.trunk, self.head = trunk(), nn.Linear(self.dimension, OTHER + 1)
        self.finalize()

    def features(self, samples: Tensor) -> Tensor:
        return self.trunk(self.picture(samples))

    def picture(self, samples: Tensor) -> Tensor:
        """Log-mel spectrograms of linear waves [N, 1, T], as images in [-1, 1]."""
        return self.levels(samples.squeeze(1))[:, None] / 2 + 1


def drums(data: Any, split: str) -> tuple[Tensor, Tensor]:
    """Sounds of a split of the kits [N, 1, length] at the data's rate, and their instruments [N]."""
    kits = Sound(sample_rate=data.sample_rate, length=data.length, skip_silence=True)
    (names, _), root = find_files(kits._folder(), DRUM_SUFFIXES, "sound"), kits._folder()
    held_out = [index % 10 == 9 for index in range(len(names))]
    paths = [root / name for name, out in zip(names, held_out, strict=True) if out == (split == "test")]
    windows = [kits._read_windows(path) for path in paths]
    labels = [instrument(path) for path, found in zip(paths, windows, strict=True) for _ in found]
    return kits.encode(torch.cat(windows)[:, None]), torch.tensor(labels)


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
    return known(made, STORED / f"drums-{data.sample_rate}-{data.length}.safetensors", learn)


def phases_by_griffin_lim(condition: Tensor, data: Any) -> Tensor:
    """What Griffin & Lim's phases make of a spectrogram."""
    return griffin_lim(condition, data.function)


OPPONENT = phases_by_griffin_lim
