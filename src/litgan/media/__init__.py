"""Rendering: pictures and files of decoded samples."""

from litgan.media.base import GAP, SampleBatch, add_caption, save_gif, save_png, stack, tile, to_tensor
from litgan.media.images import SMALLEST_TILE, ImageBatch, signed_heat
from litgan.media.points import PLANE, PointBatch

__all__ = [
    "GAP",
    "PLANE",
    "SMALLEST_TILE",
    "ImageBatch",
    "PointBatch",
    "SampleBatch",
    "add_caption",
    "save_gif",
    "save_png",
    "signed_heat",
    "stack",
    "tile",
    "to_tensor",
]
