"""The heat map of the gradient flow: how strong the feedback was at each layer over time."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

DECADES = 8  # below the strongest: what is weaker than this is drawn as no feedback


def heat_map(history: Sequence[tuple[int, Mapping[str, float]]]) -> Tensor:
    """Norms over time, uint8 [height, width, 3].

    Rows are what the feedback passes, from the discriminator's output at the top to the generator's latents
    at the bottom; columns are looks; colour is the norm on a logarithmic scale.

    Args:
        history: of each look, `images_seen` and the norms in the order of the way back, named
            discriminator/<block>, samples, generator/<block>. The latest look says which rows there are.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.colors import LogNorm
    from matplotlib.figure import Figure
    from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter

    rows = list(history[-1][1])
    visible, strongest = norms(rows, history)
    weakest = visible[visible.isfinite()].min().item() if visible.isfinite().any() else strongest
    height = 1.4 + 0.25 * len(rows)  # inches
    figure = Figure(figsize=(10.0, height), dpi=100)  # placed by hand: a layout engine takes thrice the time
    canvas = FigureCanvasAgg(figure)
    axes = figure.add_axes((0.24, 0.6 / height, 0.62, 1 - 1.2 / height), facecolor="lightgrey")
    scale = LogNorm(min(weakest, strongest / 10), strongest)
    image = axes.imshow(visible.numpy(), aspect="auto", interpolation="nearest", cmap="magma", norm=scale)
    axes.set_yticks(range(len(rows)), [label(row) for row in rows], fontsize=8)
    shown = range(0, len(history), max(1, -(-len(history) // 8)))
    axes.set_xticks(shown, [f"{history[column][0]:,}" for column in shown], fontsize=8)
    axes.set_xlabel("images seen")
    axes.set_title(
        "How strong the feedback is on its way back:\n"
        "from the discriminator's output (top) to the generator's latents (bottom)", fontsize=10,
    )  # fmt: skip
    if "samples" in rows:  # where it leaves the discriminator and enters the generator
        for edge in (-0.5, 0.5):
            axes.axhline(rows.index("samples") + edge, color="white", linewidth=1.5)
    bar = figure.colorbar(image, cax=figure.add_axes((0.88, 0.6 / height, 0.02, 1 - 1.2 / height)))
    bar.ax.yaxis.set_major_locator(LogLocator(subs=(1.0, 3.0) if strongest < 1e3 * weakest else (1.0,)))
    bar.ax.yaxis.set_major_formatter(StrMethodFormatter("{x:.1g}"))
    bar.ax.yaxis.set_minor_formatter(NullFormatter())
    bar.set_label("norm of a sample's gradient\n(logarithmic; grey: no feedback)", fontsize=8)
    canvas.draw()
    width, height = canvas.get_width_height()
    drawn = torch.frombuffer(bytearray(canvas.buffer_rgba()), dtype=torch.uint8)
    return drawn.view(height, width, 4)[..., :3].contiguous()


def norms(rows: Sequence[str], history: Sequence[tuple[int, Mapping[str, float]]]) -> tuple[Tensor, float]:
    """Norms [rows, looks], NaN where there is no feedback; and the largest of them, 1 if there is none."""
    found = torch.tensor([[look.get(row, math.nan) for _, look in history] for row in rows])
    finite = found[found.isfinite()]
    strongest = (finite.max().item() if len(finite) else 0.0) or 1.0
    return found.where(found > strongest * 10.0**-DECADES, math.nan), strongest


def label(row: str) -> str:
    """A row's name as people read it."""
    network, _, block = row.partition("/")
    return f"{network}  {block}" if block else f"the {row} themselves"
