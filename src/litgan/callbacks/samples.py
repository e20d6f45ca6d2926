"""Sample grids: the reals, the untrained generator, then the same latents at a cadence."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.utilities import rank_zero_only
from torch import Tensor

from litgan import sampling
from litgan.callbacks.throughput import untimed
from litgan.condition import has_pairs, interpolate_conditions
from litgan.data.stock import data_of, eval_conditions
from litgan.files import ignore_disk_errors
from litgan.gan import GAN
from litgan.loggers import log_picture
from litgan.noise import Noise
from litgan.options import check_counts
from litgan.render import SampleBatch, stack, tile_groups


class Samples(Callback):
    """Draws samples of the averaged generator from fixed latents, and interpolates between two of them.

    Writes `<folder>/reals.png` once and `<folder>/<images_seen>.png` before the first step, every `every`
    images and at the end, beside them what the medium plays (.wav, .mid, .txt); W&B gets them as `reals` and
    `samples`.

    Args:
        folder: where to write; None for the run's own folder.
        every: images between two grids, 0 for never.
        count: samples in the grid; where they are made from tensors a quarter of it, each between its
            condition and the real sample, held out if the data have a split "test".
        columns: of the grid, and steps between the first two latents (its last row). A GAN of 2 to 20 classes
            has one for each, or as many for each as make at least `columns`.
        seed: of the fixed latents.
    """

    def __init__(
        self, folder: str | None = None, every: int = 50_000, count: int = 64, columns: int = 8, seed: int = 0
    ) -> None:
        check_counts("samples.", least=0, every=every)
        check_counts("samples.", count=count, columns=columns)
        self.folder, self.every, self.count, self.columns, self.seed = folder, every, count, columns, seed
        self.last: Path | None = None  # the latest grid
        self.saved_at = -1

    def on_train_start(self, trainer: Trainer, gan: GAN) -> None:
        if self.every and gan.images_seen == 0 and trainer.is_global_zero:
            self.save_reals(trainer)
            self.save_grid(trainer, gan)

    def on_train_batch_end(self, trainer: Trainer, gan: GAN, *_: object) -> None:
        if gan.is_due(self.every):
            self.save_grid(trainer, gan)

    def on_train_end(self, trainer: Trainer, gan: GAN) -> None:
        if self.every and self.saved_at != gan.images_seen:
            self.save_grid(trainer, gan)

    def save_reals(self, trainer: Trainer) -> None:
        """Saves and logs real samples."""
        data = data_of(trainer)
        batches = data.real_batches(min(self.count, data.size()))
        reals = data.decode(torch.cat([batch for batch, _ in batches]))
        picture = reals.render(self.columns)
        with ignore_disk_errors("The picture of the reals"):
            reals.save(self.path(trainer, "reals"), picture)
            log_picture(trainer, "reals", picture, reals)

    @rank_zero_only
    def save_grid(self, trainer: Trainer, gan: GAN) -> None:
        """Saves and logs samples and interpolation."""
        with untimed(gan):
            data = data_of(trainer)
            show = self.translations if isinstance(gan.condition, tuple) else self.grid
            grid, picture = show(gan, data)
            interpolation = data.decode(self.interpolation(gan, data))
            picture = stack([picture, interpolation.render(self.columns)])
            self.saved_at = gan.images_seen
            with ignore_disk_errors("The grid of samples"):
                self.last = grid.save(self.path(trainer, gan.images_seen), picture)[0]
                log_picture(trainer, "samples", picture, grid)

    def grid(self, gan: GAN, data: Any) -> tuple[SampleBatch, Tensor]:
        """Samples and their picture."""
        classes = gan.num_classes if 1 < gan.num_classes <= 20 else 1
        columns = -(-self.columns // classes) * classes
        count = max(1, self.count // columns) * columns if columns != self.columns else self.count
        samples = data.decode(gan.sample(count, self.seed))
        return samples, samples.render(columns)

    def translations(self, gan: GAN, data: Any) -> tuple[SampleBatch, Tensor]:
        """Samples for conditions that are held out, if some are, and their picture: condition, fake, real."""
        split = "test" if "test" in data.splits else data.splits[0]
        columns = max(1, self.columns // 2)
        count = min(max(1, self.count // (4 * columns)) * columns, data.size(split))
        condition: Any = eval_conditions(gan, data, count, split=split)
        fake = gan.sample(count, self.seed, condition)
        sides = [(data.decode_condition, condition), (data.decode, fake)]
        if has_pairs(gan.condition, data):
            batches = data.real_batches(count, split=split)
            sides.append((data.decode, torch.cat([real for real, _ in batches])))
        sides = [(decode, tensors.cpu()) for decode, tensors in sides]
        sides = [(decode, tensors) for decode, tensors in sides if decode(tensors[:1]) is not None]
        groups = [[decode(tensors[at : at + 1]).render() for decode, tensors in sides] for at in range(count)]
        return data.decode(fake), tile_groups(groups, columns)

    def interpolation(self, gan: GAN, data: Any) -> Tensor:
        """Samples on the great circle between the first two latents, and on the line between conditions.

        Of a GAN with classes they are all of the first one.
        """
        ends = Noise(self.seed, 0, 0, 2, "sample", gan.device).normal(gan.ema.average.latent_dim)  # type: ignore[arg-type]
        latents = sampling.interpolate(ends[0], ends[1], self.columns)
        condition = interpolate_conditions(eval_conditions(gan, data, 2), self.columns)
        return sampling.generate_in_chunks(gan.ema.average, latents, condition)

    def path(self, trainer: Trainer, name: str | int) -> Path:
        folder = Path(self.folder) if self.folder else Path(trainer.default_root_dir) / "samples"
        return folder / (name if isinstance(name, str) else f"{name:09d}")
