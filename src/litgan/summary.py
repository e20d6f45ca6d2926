"""What a run says at its end: where it lives, how good it is, and one picture of its curves."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lightning.pytorch import Trainer

from litgan.callbacks import Checkpoint, Realism, Samples
from litgan.gan import GAN
from litgan.loggers import WandbLogger, distance_keys, read_metrics
from litgan.render import draw_curves


def introduce(trainer: Trainer, gan: GAN, folder: Path) -> str:
    """One line before the first step: which networks, on what, in which precision, kept where."""
    sizes = [
        sum(weight.numel() for weight in network.parameters())
        for network in (gan.generator, gan.discriminator)
    ]
    devices = f"{trainer.world_size} x {trainer.strategy.root_device.type}"
    millions = " + ".join(f"{size / 1e6:.2f} M" for size in sizes)
    return f"training {millions} parameters on {devices}, precision {trainer.precision}, in {folder}"


def summarise(trainer: Trainer, folder: Path) -> str:
    """A few lines for the terminal; draws `curves.png` on the way."""
    trainer_callbacks: list[Any] = trainer.callbacks
    found = {type(callback): callback for callback in trainer_callbacks}
    realism, keeper, samples = found.get(Realism), found.get(Checkpoint), found.get(Samples)
    lines = ["", f"run     {folder}"]
    if realism is not None and realism.report is not None:
        value = realism.report.values[realism.monitor]
        line = f"metric  {realism.monitor} {value:.4g}"
        if keeper is not None and keeper.best_value is not None:
            line += f", best {keeper.best_value:.4g} after {keeper.best_at:,} images"
        lines.append(line)
    if samples is not None and samples.last is not None:
        lines.append(f"grid    {samples.last}")
    metrics = folder / "metrics.csv"
    if metrics.is_file():
        rows, path = read_metrics(metrics), folder / "curves.png"
        panels = [["loss/generator", "loss/discriminator"], ["gradient/feedback"], distance_keys(rows)]
        path.write_bytes(draw_curves(rows, panels))
        lines.append(f"curves  {path}")
    for logger in trainer.loggers:
        if isinstance(logger, WandbLogger):
            lines.append(_where(logger))
    return "\n".join(lines)


def _where(logger: WandbLogger) -> str:
    run = logger.experiment
    if run.offline:  # one folder of W&B's for each time that the run was begun or resumed
        return f"wandb   offline; to upload it: wandb sync {Path(run.dir).parents[1]}/offline-run-*"
    return f"wandb   {run.url or 'disabled'}"
