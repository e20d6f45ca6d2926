"""Media: what a data module's `decode` makes of samples, ready for people: pictures and files."""

from litgan.media.base import GAP, Media, captioned, save_gif, save_png, stack, tile, to_tensor
from litgan.media.images import SMALLEST_TILE, Images, signed_heat
from litgan.media.points import PLANE, Points

__all__ = [
    "GAP",
    "PLANE",
    "SMALLEST_TILE",
    "Images",
    "Media",
    "Points",
    "captioned",
    "save_gif",
    "save_png",
    "signed_heat",
    "stack",
    "tile",
    "to_tensor",
]
