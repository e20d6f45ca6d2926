"""What a run says at its end: where it lives, how good it is, and one picture of its curves."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lightning.pytorch import Trainer

from litgan.callbacks import Checkpoint, Realism, Samples
from litgan.gan import GAN
from litgan.loggers import CLOCK, WandbLogger, read_metrics


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
        lines.append(f"curves  {draw_curves(metrics, folder / 'curves.png')}")
    for logger in trainer.loggers:
        if isinstance(logger, WandbLogger):
            lines.append(_where(logger))
    return "\n".join(lines)


def _where(logger: WandbLogger) -> str:
    run = logger.experiment
    if run.offline:  # one folder of W&B's for each time that the run was begun or resumed
        return f"wandb   offline; to upload it: wandb sync {Path(run.dir).parents[1]}/offline-run-*"
    return f"wandb   {run.url or 'disabled'}"


def draw_curves(metrics: Path, path: Path) -> Path:
    """Losses, feedback and distance of a run's metrics.csv over `images_seen`, as one PNG."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.ticker import EngFormatter, MaxNLocator

    rows = read_metrics(metrics)
    distances = [key for key in dict.fromkeys(key for row in rows for key in row) if _is_distance(key)]
    panels = [
        ("loss", ["loss/generator", "loss/discriminator"], "linear"),
        ("feedback", ["gradient/feedback"], "log"),
        ("distance to the data", distances, "log"),
    ]
    figure = Figure(figsize=(11, 3.2), layout="constrained")
    FigureCanvasAgg(figure)
    for axes, (title, keys, scale) in zip(figure.subplots(1, len(panels)), panels, strict=True):
        for key in keys:
            points = [(row[CLOCK], row[key]) for row in rows if key in row]
            if points:
                axes.plot(
                    *zip(*points, strict=True), label=key, marker="o" if _is_distance(key) else None, ms=3
                )
        axes.set(title=title, xlabel=CLOCK, yscale=scale)
        axes.xaxis.set_major_locator(MaxNLocator(4))
        axes.xaxis.set_major_formatter(EngFormatter(sep=""))
        if axes.lines:
            axes.legend(frameon=False, fontsize=8)
    figure.savefig(path, dpi=110)
    return path


def _is_distance(key: str) -> bool:
    return key == "metric/fid" or key.startswith("metric/fd_")
