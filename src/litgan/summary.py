"""What a run prints before its first step and at its end."""

from __future__ import annotations

import json
from typing import Any

from lightning.pytorch.utilities import rank_zero_only

from litgan.callbacks import Checkpoint, Realism, Samples
from litgan.files import atomic_write, ignore_disk_errors
from litgan.loggers import WandbRun, distance_keys, parameter_counts, read_metrics
from litgan.render import draw_curves
from litgan.seeds import SUMMARY


@rank_zero_only
def print_header(recipe: Any) -> None:
    """Prints one line before the first step: sizes of the networks, devices, precision, run folder."""
    gan, trainer = recipe.model, recipe.trainer
    sizes = parameter_counts(gan).values()
    millions, device = " + ".join(f"{size / 1e6:.2f} M" for size in sizes), trainer.strategy.root_device.type
    print(
        f"training {millions} parameters on {trainer.world_size} x {device}, precision {trainer.precision}, "
        f"in {recipe.folder.path}",
        flush=True,
    )
    for logger in trainer.loggers:
        if isinstance(logger, WandbRun):
            print(f"wandb: {logger.address}", flush=True)


@rank_zero_only
def print_summary(recipe: Any) -> None:
    """Prints where the run is and how good it is at its end; draws `curves.png`."""
    if recipe.is_trial:
        print("\nThe trial run has ended; nothing of it is kept.")
        return
    folder = recipe.folder.path
    found: dict[type, Any] = {type(callback): callback for callback in recipe.trainer.callbacks}
    realism, checkpoint, samples = found.get(Realism), found.get(Checkpoint), found.get(Samples)
    print(f"\nrun     {folder}")
    summary: dict[str, Any] = {"images_seen": recipe.model.images_seen}
    if realism is not None and realism.report is not None:
        value = realism.report.values[realism.monitor]
        summary |= {"metric": realism.monitor, "value": value, "best": value}
        line = f"metric  {realism.monitor} {value:.4g}"
        if checkpoint is not None and checkpoint.best_value is not None:
            summary["best"] = checkpoint.best_value
            line += f", best {checkpoint.best_value:.4g} after {checkpoint.best_at:,} images"
        print(line)
    with ignore_disk_errors(f"The file {SUMMARY}"), atomic_write(folder / SUMMARY) as partial:
        partial.write_text(json.dumps(summary) + "\n")
    if samples is not None and samples.last is not None:
        print(f"grid    {samples.last}")
    with ignore_disk_errors("The picture of the curves"):
        if (folder / "metrics.csv").is_file():
            rows = read_metrics(folder / "metrics.csv")
            panels = [["loss/generator", "loss/discriminator"], ["gradient/feedback"], distance_keys(rows)]
            (folder / "curves.png").write_bytes(draw_curves(rows, panels))
            print(f"curves  {folder / 'curves.png'}")
    for logger in recipe.trainer.loggers:
        if isinstance(logger, WandbRun):
            print(f"wandb   {logger.address}")
            if recipe.wandb_options.log_model:
                logger.log_checkpoints(folder)
