"""Whether drums asked for by instrument are that instrument, and whether they are copies.

    python benchmarks/sound/asked.py CKPT --count 450

The judge (sound/judges.py) names the instruments of held-out and of generated sounds, all classes in turn. A
sound's distance to the nearest training sound is between log-mel statistics, each divided by its standard
deviation: if generated sounds were copies, theirs would be shorter than those of held-out sounds.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).parents[1]))
from sound.judges import judge
from torch import Tensor

from litgan.commands import load
from litgan.rebuild import Builder
from litgan.sound import SoundStatistics
from litgan.sound.signals import mu_law_decode


def named_right(judge: Any, waves: Tensor, labels: Tensor) -> float:
    """Share of linear waves [N, 1, T] whose instrument the judge names as the labels [N] do."""
    named = torch.cat([judge.head(judge.features(part)).argmax(1) for part in waves.split(100)])
    return (named == labels).float().mean().item()


def nearest(samples: Tensor, training: Tensor) -> Tensor:
    """Distance [N] of each sound [N, 1, T] to the nearest of the training sounds."""
    extractor = SoundStatistics()
    features = [
        torch.cat([extractor.features(part) for part in side.split(100)]) for side in (samples, training)
    ]
    sides = [side / features[1].std(0).clamp_min(0.01) for side in features]  # 0.2 dB: some never change
    return torch.cdist(*sides, compute_mode="donot_use_mm_for_euclid_dist").amin(1)


@torch.no_grad()
def measure(gan: Any, data: Any, count: int) -> dict[str, float]:
    labels = torch.arange(count) % gan.num_classes
    starts = range(0, count, 90)
    fake = torch.cat([gan.sample(min(90, count - first), first=first) for first in starts])
    sides = {"training": data.load("train")[0], "held out": data.load("test")[0]}
    waves = {name: mu_law_decode(data.encode(stored), data.mu_law) for name, stored in sides.items()}
    waves["generated"] = mu_law_decode(fake.float(), data.mu_law)
    asked = {"held out": data.load("test")[1], "generated": labels}
    network, found = judge(data), {}
    for name, given in asked.items():
        distance = nearest(waves[name], waves["training"])
        found[f"named right, {name}"] = named_right(network, waves[name], given)
        found[f"distance to training, median, {name}"] = distance.median().item()
        found[f"distance to training, 5 %, {name}"] = distance.quantile(0.05).item()
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("ckpt")
    parser.add_argument("--count", type=int, default=450)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    _, gan, data = load(options.ckpt, torch.device("cpu"), Builder((), options.ckpt))
    print(json.dumps(measure(gan, data, options.count), indent=2))


if __name__ == "__main__":
    main()
