"""The heat map of the gradient flow: how strong the feedback was at each layer over time."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

DECADES = 8  # below the largest norm; weaker feedback is drawn as none


def heat_map(history: Sequence[tuple[int, Mapping[str, float]]]) -> Tensor:
    """Norms over time, uint8 [height, width, 3], in logarithmic colors.

    Rows go from the discriminator's output at the top to the generator's latents at the bottom.

    Args:
        history: `images_seen` and the norms of each trace, in the order of `BackwardTrace.gradient_norms`.
            The latest trace defines the rows.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.colors import LogNorm
    from matplotlib.figure import Figure
    from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter

    rows = list(history[-1][1])
    norms = torch.tensor([[trace.get(row, math.nan) for _, trace in history] for row in rows])
    finite = norms[norms.isfinite()]
    largest = (finite.max().item() if len(finite) else 0.0) or 1.0
    norms = norms.where(norms > largest * 10.0**-DECADES, math.nan)
    finite = norms[norms.isfinite()]
    smallest = finite.min().item() if len(finite) else largest

    height = 1.4 + 0.25 * len(rows)  # inches
    figure = Figure(figsize=(10.0, height), dpi=100)  # axes placed by hand: a layout engine is 3 times slower
    canvas = FigureCanvasAgg(figure)
    axes = figure.add_axes((0.24, 0.6 / height, 0.62, 1 - 1.2 / height), facecolor="lightgrey")
    scale = LogNorm(min(smallest, largest / 10), largest)
    image = axes.imshow(norms.numpy(), aspect="auto", interpolation="nearest", cmap="magma", norm=scale)
    axes.set_yticks(range(len(rows)), [row.replace("/", "  ", 1) for row in rows], fontsize=8)
    columns = range(0, len(history), max(1, -(-len(history) // 8)))
    axes.set_xticks(columns, [f"{history[column][0]:,}" for column in columns], fontsize=8)
    axes.set_xlabel("images seen")
    axes.set_title(
        "Gradient flow: norm of the feedback at each layer,\n"
        "from the discriminator's output (top) to the generator's latents (bottom)", fontsize=10,
    )  # fmt: skip
    if "samples" in rows:  # between the two networks
        for edge in (-0.5, 0.5):
            axes.axhline(rows.index("samples") + edge, color="white", linewidth=1.5)
    bar = figure.colorbar(image, cax=figure.add_axes((0.88, 0.6 / height, 0.02, 1 - 1.2 / height)))
    bar.ax.yaxis.set_major_locator(LogLocator(subs=(1.0, 3.0) if largest < 1e3 * smallest else (1.0,)))
    bar.ax.yaxis.set_major_formatter(StrMethodFormatter("{x:.1g}"))
    bar.ax.yaxis.set_minor_formatter(NullFormatter())
    bar.set_label("norm of a sample's gradient\n(logarithmic; gray: no feedback)", fontsize=8)
    canvas.draw()
    width, height = canvas.get_width_height()
    pixels = torch.frombuffer(bytearray(canvas.buffer_rgba()), dtype=torch.uint8)
    return pixels.view(height, width, 4)[..., :3].contiguous()
