"""Trains the classifiers whose weights ship in `litgan/metrics/weights`.

python benchmarks/train_extractors.py --extractor digits     # 99.4 %, 15 s on one CPU core
python benchmarks/train_extractors.py --extractor fashion    # 92.9 %, 5 min on one CPU core
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor, nn

from litgan.data import Digits, FashionMNIST, GANDataModule
from litgan.metrics.extractors import WEIGHTS, Classifier
from litgan.noise import torch_generator
from litgan.precision import best_precision

Labelled = tuple[Tensor, Tensor]  # samples [N, 1, H, W], labels [N]


@dataclass(frozen=True)
class Recipe:
    """How one extractor is trained."""

    name: str
    size: int
    widths: tuple[int, ...]
    epochs: int
    batch_size: int
    shift: int  # pixels, at most, in each direction
    peak_rate: float = 3e-3


RECIPES = {
    "digits": Recipe("digits", 8, (32, 64, 96), epochs=40, batch_size=64, shift=0),
    "fashion": Recipe("fashion", 32, (32, 64, 96, 128), epochs=9, batch_size=128, shift=2),
}


def data_of(name: str) -> GANDataModule:
    """The data set for the extractor `name`, at its native size."""
    return Digits() if name == "digits" else FashionMNIST()


def labelled(data: GANDataModule) -> tuple[Labelled, Labelled]:
    """What to train on, and what to test on: the data set's own split, else 80 % and 20 % of all."""
    if "test" in data.splits:
        return _whole(data, "train"), _whole(data, "test")
    samples, labels = _whole(data, "train")  # in the fixed random order of `real_batches`
    cut = int(0.8 * len(samples))
    return (samples[:cut], labels[:cut]), (samples[cut:], labels[cut:])


def _whole(data: GANDataModule, split: str) -> Labelled:
    samples, labels = next(data.real_batches(data.size(split), batch_size=data.size(split), split=split))
    assert labels is not None
    return samples, labels


def shifted(samples: Tensor, limit: int, generator: torch.Generator) -> Tensor:
    """Each picture moved by up to `limit` pixels; black (-1) comes in at the edge."""
    if not limit:
        return samples
    side = samples.shape[-1]
    padded = F.pad(samples, [limit] * 4, value=-1.0)[:, 0]
    down, right = torch.randint(2 * limit + 1, (2, len(samples), 1), generator=generator)
    rows, columns = down + torch.arange(side), right + torch.arange(side)
    return padded[torch.arange(len(samples))[:, None, None], rows[:, :, None], columns[:, None, :]][:, None]


def train(recipe: Recipe, samples: Tensor, labels: Tensor, seed: int) -> Classifier:
    """The classifier of a recipe."""
    torch.manual_seed(seed)
    generator = torch_generator("extractor", recipe.name, seed)
    classifier = Classifier(recipe.name, recipe.size, recipe.widths)
    classifier.requires_grad_(True)
    network = nn.Sequential(classifier.trunk, nn.AdaptiveAvgPool2d(1), nn.Flatten(), classifier.head)
    vary = lambda batch: shifted(batch, recipe.shift, generator)  # noqa: E731
    fit(network, samples, labels, recipe.epochs, recipe.batch_size, recipe.peak_rate, vary, generator)
    return classifier


def fit(
    network: nn.Module, samples: Tensor, labels: Tensor, epochs: int, batch_size: int, peak_rate: float,
    vary: Callable[[Tensor], Tensor], generator: torch.Generator,
) -> None:  # fmt: skip
    """Cross-entropy, AdamW, one cycle of the learning rate; in bfloat16 where the processor is fast in it.

    `vary` augments a batch.
    """
    low = best_precision() == "bf16-mixed"  # elsewhere bf16 is emulated, many times slower than float32
    network.train()
    steps = epochs * (len(samples) // batch_size)
    optimizer = torch.optim.AdamW(network.parameters(), weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, peak_rate, total_steps=steps)
    for epoch in range(epochs):
        order = torch.randperm(len(samples), generator=generator).split(batch_size)
        for chosen in order[: len(samples) // batch_size]:
            batch = vary(samples[chosen])
            with torch.autocast("cpu", torch.bfloat16, enabled=low):
                loss = F.cross_entropy(network(batch), labels[chosen])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
        print(f"epoch {epoch + 1} of {epochs}: loss {loss.item():.3f}", file=sys.stderr, flush=True)


def accuracy(classifier: Classifier, samples: Tensor, labels: Tensor) -> float:
    """Fraction of samples whose label is predicted."""
    with torch.no_grad():
        guesses = torch.cat([classifier.classify(classifier(batch)) for batch in samples.split(500)])
    return (guesses == labels).double().mean().item()


def main() -> None:
    """Trains one extractor, rounds its filters to float16, measures the accuracy, and writes the file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--extractor", choices=list(RECIPES), required=True)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=WEIGHTS, help="folder of the weights")
    arguments = parser.parse_args()
    torch.set_num_threads(1)  # sums in one order, hence the same weights on any number of cores
    recipe = RECIPES[arguments.extractor]
    data = data_of(recipe.name)
    known, unseen = labelled(data)
    classifier = train(recipe, *known, arguments.seed)
    tensors = {
        key: (tensor.half() if tensor.ndim == 4 else tensor).contiguous()
        for key, tensor in classifier.state_dict().items()
    }
    classifier.load_state_dict(tensors)
    reached = accuracy(classifier.eval(), *unseen)
    architecture = {key: asdict(recipe)[key] for key in ("name", "size", "widths")}
    metadata = {
        "classifier": json.dumps(architecture),
        "accuracy": f"{reached:.4f}",
        "recipe": json.dumps(asdict(recipe)),
        "seed": str(arguments.seed),
        "torch": torch.__version__,
        "script": "python benchmarks/train_extractors.py",
        "data": data.fingerprint,
    }
    path = arguments.out / f"{recipe.name}.safetensors"
    save_file(tensors, path, metadata)
    print(f"{path}: {reached:.2%} of {len(unseen[1])} unseen images, {path.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main()
