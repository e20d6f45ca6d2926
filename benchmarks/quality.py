"""Distance against training time: a recipe, and the plain DCGAN loop that everybody copies, measured alike.

    python benchmarks/quality.py --minutes 2 5 10
    python benchmarks/quality.py --minutes 3 --only litgan --name flat --model.penalties=[]

Both see Fashion-MNIST at 32 x 32 with batches of 64. Only training counts as time: measuring, pictures and
start-up do not. Further options go to the recipe. The plain loop follows PyTorch's DCGAN example: float32,
batch norm, binary cross-entropy, Adam at 2e-4, a torchvision-style data set behind a DataLoader, no average
of the weights, no penalty.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import measure
import torch
import torch.nn.functional as F
from lightning.pytorch import Callback, Trainer
from loops import Pictures
from torch import Tensor, nn
from torch.utils.data import DataLoader

from litgan.data import FashionMNIST
from litgan.gan import GAN
from litgan.metrics import evaluate
from litgan.recipe import Recipe
from litgan.render import save_png

Row = dict[str, Any]
SHOWN = ("metric/fd_fashion", "metric/kid", "metric/precision", "metric/recall")


def rate(
    name: str, minute: float, images: int, sample: Callable[[int, int], Tensor], data: FashionMNIST
) -> Row:
    report = evaluate(sample, data, "fashion", count=10_000)
    row = {"run": name, "minutes": minute, "images": images, **{key: report.values[key] for key in SHOWN}}
    shown = "  ".join(f"{key.removeprefix('metric/')} {row[key]:.4g}" for key in SHOWN)
    print(f"{name:8} {minute:5.1f} min  {images:>9,} images  {shown}", flush=True)
    return row


# ------------------------------------------------------------------------------ the recipe


class Watch(Callback):
    """Measures the recipe's averaged generator after given minutes of training, then stops it."""

    def __init__(self, name: str, minutes: list[float], picture: Path) -> None:
        self.name, self.minutes, self.picture, self.rows = name, list(minutes), picture, []

    def on_train_start(self, trainer: Trainer, gan: GAN) -> None:
        self.start, self.aside = time.perf_counter(), gan.seconds_excluded

    def on_train_batch_end(self, trainer: Trainer, gan: GAN, *_: object) -> None:
        trained = time.perf_counter() - self.start - (gan.seconds_excluded - self.aside)
        if trained < 60 * self.minutes[0]:
            return
        began = time.perf_counter()
        sample = lambda first, count: gan.sample(count, first=first)  # noqa: E731
        self.rows.append(rate(self.name, self.minutes.pop(0), gan.images_seen, sample, trainer.datamodule))
        if not self.minutes:
            save_png(trainer.datamodule.decode(gan.sample(64)).render(8), self.picture)
            trainer.should_stop = True
            self.minutes = [float("inf")]
        gan.seconds_excluded += time.perf_counter() - began


def run_recipe(name: str, path: str, minutes: list[float], picture: Path, extra: list[str]) -> list[Row]:
    quiet = ["--trainer.logger=false", "--trainer.enable_progress_bar=false", "--trainer.max_steps=10000000"]
    off = [f"--{part}.every=0" for part in ("realism", "samples", "gradients", "checkpoint")]
    with tempfile.TemporaryDirectory() as folder:
        recipe = Recipe(["--config", path, *quiet, *off, "--trainer.default_root_dir", folder, *extra])
        watch = Watch(name, minutes, picture)
        recipe.trainer.callbacks.append(watch)
        recipe.trainer.fit(recipe.model, recipe.datamodule)
    return watch.rows


# ------------------------------------------------------------------------------ the plain loop


def block(convolution: nn.Module, channels: int, activation: nn.Module) -> list[nn.Module]:
    return [convolution, nn.BatchNorm2d(channels), activation]


def plain_networks() -> tuple[nn.Module, nn.Module]:
    generator = nn.Sequential(
        *block(nn.ConvTranspose2d(100, 256, 4, 1, 0, bias=False), 256, nn.ReLU(True)),
        *block(nn.ConvTranspose2d(256, 128, 4, 2, 1, bias=False), 128, nn.ReLU(True)),
        *block(nn.ConvTranspose2d(128, 64, 4, 2, 1, bias=False), 64, nn.ReLU(True)),
        nn.ConvTranspose2d(64, 1, 4, 2, 1, bias=False),
        nn.Tanh(),
    )
    discriminator = nn.Sequential(
        nn.Conv2d(1, 64, 4, 2, 1, bias=False),
        nn.LeakyReLU(0.2, inplace=True),
        *block(nn.Conv2d(64, 128, 4, 2, 1, bias=False), 128, nn.LeakyReLU(0.2, inplace=True)),
        *block(nn.Conv2d(128, 256, 4, 2, 1, bias=False), 256, nn.LeakyReLU(0.2, inplace=True)),
        nn.Conv2d(256, 1, 4, 1, 0, bias=False),
        nn.Flatten(),
    )
    for module in [*generator.modules(), *discriminator.modules()]:
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.weight, 1.0, 0.02)
        elif isinstance(module, (nn.Conv2d, nn.ConvTranspose2d)):
            nn.init.normal_(module.weight, 0.0, 0.02)
    return generator, discriminator


def plain_loop(data: FashionMNIST, workers: int = 0) -> Iterator[nn.Module]:
    """One `next` is one iteration, with 64 images; gives the generator."""
    generator, discriminator = plain_networks()
    adams = [torch.optim.Adam(net.parameters(), 2e-4, (0.5, 0.999)) for net in (generator, discriminator)]
    loader = DataLoader(
        Pictures(data.load("train")[0]), 64, shuffle=True, drop_last=True, num_workers=workers
    )
    ones, zeros = torch.ones(64, 1), torch.zeros(64, 1)
    while True:
        for real in loader:
            fake = generator(torch.randn(64, 100, 1, 1))
            discriminator.zero_grad()
            loss = F.binary_cross_entropy_with_logits(discriminator(real), ones)
            (loss + F.binary_cross_entropy_with_logits(discriminator(fake.detach()), zeros)).backward()
            adams[1].step()
            generator.zero_grad()
            F.binary_cross_entropy_with_logits(discriminator(fake), ones).backward()
            adams[0].step()
            yield generator


def run_plain(minutes: list[float], picture: Path, workers: int) -> list[Row]:
    torch.manual_seed(0)
    data, rows, images, trained = FashionMNIST(), [], 0, 0.0
    loop = plain_loop(data, workers)

    def sample(first: int, count: int) -> Tensor:
        latents = torch.randn(count, 100, 1, 1, generator=torch.Generator().manual_seed(first))
        return generator(latents)

    for minute in minutes:
        while trained < 60 * minute:
            began = time.perf_counter()
            generator = next(loop)
            trained += time.perf_counter() - began
            images += 64
        generator.eval()
        with torch.no_grad():
            rows.append(rate("plain", minute, images, sample, data))
            save_png(data.decode(sample(0, 64)).render(8), picture)
        generator.train()
    return rows


def main() -> None:
    parser = measure.options(__doc__, __file__)
    parser.add_argument("--minutes", type=float, nargs="+", default=[2, 5, 10])
    parser.add_argument("--recipe", default="configs/fashion_mnist.yaml")
    parser.add_argument("--only", choices=["litgan", "plain"], default=None)
    parser.add_argument("--name", default="litgan", help="of the recipe's rows")
    parser.add_argument("--workers", type=int, default=0, help="of the plain loop's DataLoader")
    parsed, extra = parser.parse_known_args()
    parsed = measure.setup(parsed)
    minutes = [0.05] if parsed.quick else parsed.minutes
    pictures = parsed.out or Path(tempfile.mkdtemp(), "quality.json")
    pictures.parent.mkdir(parents=True, exist_ok=True)
    rows: list[Row] = []
    if parsed.only != "plain":
        picture = pictures.with_suffix(f".{parsed.name}.png")
        rows += run_recipe(parsed.name, parsed.recipe, minutes, picture, extra)
    if parsed.only != "litgan":
        rows += run_plain(minutes, pictures.with_suffix(".plain.png"), parsed.workers)
    print(measure.table(rows))
    measure.write(parsed, {"rows": rows})


if __name__ == "__main__":
    main()
