"""Ranks that play sound, music and text: `python players.py FOLDER` forks one rank, then two.

Each medium's toy is trained with what only that medium has (random variations, binary neurons, Gumbel noise
at a temperature that follows the clock), a lazy penalty and its own metrics. A rank saves what came of it
in `FOLDER/<world size>-<rank>.pt`.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
import workers
from workers import ADAM, Witnessed, WitnessedOneStage, in_turn, train

from litgan.data import GANDataModule
from litgan.losses import NonSaturating, Relativistic
from litgan.metrics import evaluate
from litgan.music import PianoRollDiscriminator, PianoRollGenerator, Scales
from litgan.penalties import R1, R2
from litgan.schedules import Linear
from litgan.sound import Tones, WaveGANDiscriminator, WaveGANGenerator
from litgan.strategies import register
from litgan.text import Grammar, TextDiscriminator, TextGenerator


def play(
    data: GANDataModule, extractor: str, folder: Path, kind: type[Witnessed] = Witnessed, **options: Any
) -> dict[str, Any]:
    """Trains on all ranks; and measures, with all of them, the generator of which the training began."""
    options |= dict.fromkeys(("generator_optimizer", "discriminator_optimizer"), ADAM)
    options["sample_shape"] = data.sample_shape
    untrained = kind(**options)
    result = train(kind(**options), data, iterations=8)
    report = evaluate(
        lambda first, count: untrained.sample(count, first=first), data, extractor, count=600, batch_size=70,
        cache_dir=folder / f"cache-{workers.WORLD}", rank=workers.RANK, world_size=workers.WORLD,
    )  # fmt: skip
    return result | {"metrics": report.values}


def sound(folder: Path) -> dict[str, Any]:
    """Tones, louder and softer, sooner and later."""
    return play(
        Tones(samples=640, length=256, batch_size=8, gain=(-6, 0), shift=9), "sound", folder,
        generator=partial(WaveGANGenerator, latent_dim=4, widths=(8, 4)),
        discriminator=partial(WaveGANDiscriminator, widths=(4, 8), phase_shuffle=0),  # each rank's own dice
        loss=NonSaturating(), penalties=[R1(0.5, interval=3)],
    )  # fmt: skip


def music(folder: Path) -> dict[str, Any]:
    """Scales in all keys that fit."""
    return play(
        Scales(samples=640, batch_size=8, transpose=4), "music", folder,
        generator=partial(PianoRollGenerator, shared_dim=4, private_dim=2, widths=(8, 8)),
        discriminator=partial(PianoRollDiscriminator, private_width=8, widths=(8, 8)),
        loss=Relativistic(), penalties=[R1(0.1, interval=2), R2(0.1, interval=4)],
    )  # fmt: skip


def text(folder: Path) -> dict[str, Any]:
    """Sentences, one letter of each kind at a time."""
    return play(
        Grammar(samples=640, batch_size=8), "text", folder,
        generator=partial(
            TextGenerator, latent_dim=8, widths=(16, 12), output="gumbel", temperature=Linear(2.0, 0.5, 64)
        ),
        discriminator=partial(TextDiscriminator, widths=(12, 16)),
        loss=NonSaturating(), penalties=[R1(0.1, interval=3)], kind=WitnessedOneStage,
    )  # fmt: skip


MEDIA: tuple[Callable[[Path], dict[str, Any]], ...] = (sound, music, text)


def all_media(folder: Path) -> None:
    name = f"{workers.WORLD}-{workers.RANK}.pt"
    torch.save({medium.__name__: medium(folder) for medium in MEDIA}, folder / name)


if __name__ == "__main__":
    register()
    for world_size in (1, 2):
        in_turn(world_size, all_media, Path(sys.argv[1]))
