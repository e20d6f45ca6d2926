"""Ranks that play a medium: the test file that says how is also the script that forks one rank, then two."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import workers
from shared.resuming import same

from litgan.data import GANDataModule
from litgan.metrics import FeatureExtractor, evaluate
from litgan.strategy import register


def play(data: GANDataModule, extractor: FeatureExtractor, **options: Any) -> dict[str, Any]:
    """Trains on all ranks; and measures, with all of them, the generator of which the training began."""
    options |= dict.fromkeys(("generator_optimizer", "discriminator_optimizer"), workers.ADAM)
    options["sample_shape"] = data.sample_shape
    untrained = workers.Witnessed(**options)
    result = workers.train(workers.Witnessed(**options), data, iterations=8)
    report = evaluate(
        lambda first, count: untrained.sample(count, first=first), data, extractor, count=600, batch_size=70,
        cache_dir=Path(sys.argv[1]) / f"cache-{workers.WORLD}", rank=workers.RANK, world_size=workers.WORLD,
    )  # fmt: skip
    return result | {"metrics": report.values}


def main(game: Callable[[], dict[str, Any]]) -> None:
    """Saves what came of it in `FOLDER/<world size>-<rank>.pt`."""
    register()
    for world_size in (1, 2):
        workers.in_turn(world_size, save, game, Path(sys.argv[1]))


def save(game: Callable[[], dict[str, Any]], folder: Path) -> None:
    torch.save(game(), folder / f"{workers.WORLD}-{workers.RANK}.pt")


def launch(script: str | Path, folder: Path) -> None:
    """Runs a script that forks ranks, which save what came of them in the folder."""
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(
        [sys.executable, script, folder], env=environment, capture_output=True, text=True, timeout=240
    )
    assert done.returncode == 0, done.stderr[-3000:]


def distance(left: dict[str, torch.Tensor], right: dict[str, torch.Tensor]) -> float:
    """The largest relative distance of two weights of the same name."""
    assert left.keys() == right.keys()
    return max(
        ((left[name] - value).norm() / value.norm().clamp_min(1e-6)).item() for name, value in right.items()
    )


def check(script: str, folder: Path, metrics: bool = True) -> None:
    """Two ranks are shown, draw, learn and measure what one is, does and measures."""
    launch(script, folder)
    alone, *shares = (torch.load(folder / f"{name}.pt", weights_only=False) for name in ("1-0", "2-0", "2-1"))
    for reals, *parts in zip(alone["reals"], *(share["reals"] for share in shares), strict=True):
        assert torch.equal(reals, torch.cat(parts)), "shown with the same variations"
    for update, latents in alone["latents"].items():
        assert torch.equal(latents, torch.cat([share["latents"][update] for share in shares])), update
    weights, (first, second) = alone["weights"], (share["weights"] for share in shares)
    assert alone["reals"] and same(first, second) and distance(first, weights) < 1e-5
    if metrics:
        assert shares[0]["metrics"] == shares[1]["metrics"]
        assert "metric/precision" in alone["metrics"] and len(alone["metrics"]) > 8
        assert alone["metrics"] == pytest.approx(shares[0]["metrics"], rel=1e-6, abs=1e-9)
