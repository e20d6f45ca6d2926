"""Image files, in a folder or a .zip, as uint8 tensors of one shape."""

from __future__ import annotations

import hashlib
import math
import re
import zipfile
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, Literal

import numpy as np
import torch
from PIL import ExifTags, Image, ImageOps, PngImagePlugin
from torch import Tensor

from litgan.data.archives import Zip
from litgan.data.crops import as_size
from litgan.data.files import Found, UnusableFileError, find_files, read_each
from litgan.data.index import Index, state_of
from litgan.data.pack import packed_splits

SUFFIXES = (
    ".png", ".apng", ".jpg", ".jpeg", ".jpe", ".jfif", ".bmp", ".dib", ".webp", ".gif", ".tif", ".tiff",
    ".avif", ".jp2", ".j2k", ".j2c", ".jpc", ".jpf", ".jpx", ".ppm", ".pgm", ".pbm", ".pnm", ".tga", ".pcx",
    ".qoi", ".sgi", ".rgb", ".dds", ".psd",
)  # fmt: skip
SPLIT = "{split}"  # stands for train or test in the root of a data set
MODES = {1: "L", 2: "LA", 3: "RGB", 4: "RGBA"}  # channels -> Pillow's mode
OPAQUE = (1, 3)
FIRST_TURNED = 5  # of EXIF's orientations 1 to 8: from here on width and height change places
WHITE_IS_ZERO, SIGNED, BITS, PHOTOMETRIC, SAMPLE_FORMAT = 0, 2, 258, 262, 339  # of TIFF's tags

# Pillow refuses an image with a longer text, 1 MB by default.
PngImagePlugin.MAX_TEXT_CHUNK = max(PngImagePlugin.MAX_TEXT_CHUNK, 1 << 26)
PngImagePlugin.MAX_TEXT_MEMORY = max(PngImagePlugin.MAX_TEXT_MEMORY, 1 << 28)


def splits_of(root: str) -> tuple[str, ...]:
    """The splits that a path with `SPLIT` in it has, one without, or a pack."""
    return packed_splits(root) or (("train", "test") if SPLIT in root else ("train",))


def find_images(root: Path) -> Found:
    """The images anywhere below a folder or inside a .zip, by their names relative to `root`.

    Raises:
        FileNotFoundError: no such folder or file, or no image in it.
        ValueError: a file that is no readable .zip.
    """
    if not root.exists():
        raise FileNotFoundError(f"There is no folder or .zip {root}: give data.root a path that exists.")
    index = Index(root)

    def find() -> Found:
        if root.is_dir():
            return find_files(root, SUFFIXES, "image", folders=index.folders)
        index.folders[""] = state_of(root)
        try:
            return find_files(root, SUFFIXES, "image", Zip(root).names)
        except (OSError, zipfile.BadZipFile) as error:
            if isinstance(error, FileNotFoundError):
                raise
            raise ValueError(f"{root} is no readable .zip ({_one_line(error)}): make it anew.") from error

    names, others = index("images", find)
    return Found(names, Counter(others))


def check_images(files: ImageFiles, what: str = "bits", skip: bool | None = None) -> list[Any]:
    """`bits`, `size` or `pixels` of all images; None for one that is unusable, if these are skipped.

    Raises UnusableFileError: as `read_each` does.
    """
    options = (files.channels, files.convert, files.value_range, files.max_pixels, files.half, skip)
    names = hashlib.blake2b(repr(files.names).encode(), digest_size=8).hexdigest()
    read, index = getattr(files, what), files.index or Index(files.root)
    return index(
        f"{what} {options} {names}", lambda: list(read_each(read, files.names, "checking images", skip=skip))
    )


class ImageFiles:
    """Map-style data set of image files: uint8 [channels, height, width].

    The largest centered square, or rectangle of the wanted shape, is resized with Lanczos' filter, which is
    antialiased when it shrinks; an image of the right size keeps its pixels. EXIF orientation is applied, an
    animation gives its first frame, and 16-bit gray keeps its upper eight bits.

    Args:
        root: folder or .zip.
        names: of the images, relative to `root`.
        resolution: side in pixels, or height and width; None leaves each image as large as it is.
        channels: 1 (gray), 2 (gray and transparency), 3 (RGB) or 4 (RGB and transparency).
        convert: convert other color modes to `channels`, with transparency over white where there is no
            channel for it, instead of refusing them.
        value_range: values that become -1 and 1; images are then float32 and keep their precision. None takes
            the range of the file's 8 or 16 bits, and refuses other types.
        max_pixels: Pillow's MAX_IMAGE_PIXELS: it warns of larger images and refuses those twice as large.
            None leaves its limit as it is.
        half: take this half of each image.
        prefix: of the names of these options in `data`, for errors.
    """

    def __init__(
        self,
        root: Path,
        names: Sequence[str],
        *,
        resolution: int | tuple[int, int] | None,
        channels: int,
        convert: bool = False,
        value_range: tuple[float, float] | None = None,
        max_pixels: int | None = None,
        half: Literal["left", "right"] | None = None,
        prefix: str = "",
    ) -> None:
        self.root, self.names = root, list(names)
        self.resolution, self.channels, self.convert = resolution, channels, convert
        self.value_range, self.max_pixels, self.half, self.prefix = value_range, max_pixels, half, prefix
        self._zip: Zip | None = None
        self.index: Index | None = None  # of `root`, if it is not a folder or .zip of images

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: int) -> Tensor:
        """
        Raises:
            UnusableFileError: the file is damaged, has other channels, or values of no known range.
        """
        return self.read(self.names[index])

    def read(self, name: str) -> Tensor:
        """The image of a name; raises as `__getitem__`."""
        with self._open_image(name) as image:
            pixels = torch.from_numpy(self._to_pixels(image))
        if pixels.is_floating_point() and not pixels.isfinite().all():
            raise UnusableFileError(self.root / name, "holds values that are not finite")
        return pixels.view(*pixels.shape[:2], -1).permute(2, 0, 1).contiguous()

    @property
    def fingerprint(self) -> str:
        """Hash of the options and of the files' names, sizes, and times of change (in a .zip: checksums)."""
        state: list[tuple[int, int]]
        if self.root.is_dir():
            stats = [(self.root / name).stat() for name in self.names]
            state = [(stat.st_size, stat.st_mtime_ns) for stat in stats]
        else:
            archive = self._archive()
            rows = archive.table[[archive.row(name) for name in self.names]]
            state = [(size, crc) for _, _, size, crc, _, _ in rows.tolist()]
        options: tuple[Any, ...] = (self.resolution, self.channels, self.convert)
        options += tuple(option for option in (self.value_range, self.half) if option)
        return hashlib.blake2b(repr((options, self.names, state)).encode(), digest_size=16).hexdigest()

    def bits(self, name: str) -> int | None:
        """Bits of a pixel of a file, from its header alone; None for other types than unsigned integers.

        Raises UnusableFileError: as `__getitem__`, as far as the header tells.
        """
        with self._open_image(name) as image:
            return bits(image)

    def pixels(self, name: str) -> int:
        """Number of the values of an image, which is decoded for it; raises as `__getitem__`."""
        return self.read(name).numel()

    def size(self, name: str) -> tuple[int, int]:
        """Height and width of the image of a name, upright, from its header alone; raises as `bits`."""
        with self._open_image(name) as image:
            turned = image.getexif().get(ExifTags.Base.Orientation, 1) >= FIRST_TURNED
            width, height = reversed(image.size) if turned else image.size
        return height, width // 2 if self.half else width

    def peak(self, name: str) -> int:
        """The largest value of a deep image."""
        with self._open_image(name) as image:
            return int(np.asarray(image).max())

    @contextmanager
    def _open_image(self, name: str) -> Iterator[Image.Image]:
        """The opened file, its channels checked; an error in the block becomes a sentence that names it."""
        path = self.root / name
        if self.max_pixels is not None:
            Image.MAX_IMAGE_PIXELS = self.max_pixels
        try:
            with self._open(name) as stream, Image.open(stream) as image:
                count = count_channels(image)
                if count == self.channels or self.convert:
                    if bits(image) is None and self.value_range is None:
                        low, high = image.getextrema()
                        raise UnusableFileError(
                            path,
                            f"holds values from {low:g} to {high:g}, whose range is not known",
                            f"give --data.{self.prefix}value_range [LOWEST, HIGHEST]",
                        )
                    yield image
                    return
        except UnusableFileError:
            raise
        except Image.DecompressionBombError as error:
            pixels = next(iter(re.findall(r"\d+", str(error))), "more")
            raise UnusableFileError(
                path,
                f"has {pixels} pixels, above Pillow's limit",
                f"shrink it, or give --data.max_pixels {pixels}",
            ) from error
        except Exception as error:  # Pillow raises anything from OSError to SyntaxError, zipfile its own
            raise UnusableFileError(path, f"cannot be decoded ({_one_line(error)})") from error
        option = f"data.{self.prefix}channels"
        other = f" or --{option} {count}" if count in (1, 3) else ""
        raise UnusableFileError(
            path,
            f"has {count} channel{'s' if count > 1 else ''} and {option} is {self.channels}",
            f"give --data.convert true{other}",
        )

    def _to_pixels(self, image: Image.Image) -> np.ndarray:
        """uint8 or, with a `value_range`, float32 [height, width, 1 or channels or none]."""
        upright, values = ImageOps.exif_transpose(image), None
        if self.half:
            width = upright.width // 2
            left = 0 if self.half == "left" else upright.width - width
            upright = upright.crop((left, 0, left + width, upright.height))
        if bits(image) != 8:
            values = self._deep_values(image, np.asarray(upright))
            upright = Image.fromarray(values.astype(np.uint8)) if self.value_range is None else upright
        if upright.has_transparency_data and self.convert and self.channels in OPAQUE:
            upright = upright.convert("RGBA")
            upright = Image.alpha_composite(Image.new("RGBA", upright.size, "white"), upright)
        size, box = self._target(*upright.size)
        if self.value_range is None:
            upright = upright.convert(MODES[self.channels])
            return np.array(upright.resize(size, Image.Resampling.LANCZOS, box=box))
        if values is None:
            values = np.asarray(upright.convert(MODES[self.channels]), np.float64)
        low, high = self.value_range
        scaled = ((values - low) * (2 / (high - low)) - 1).astype(np.float32)
        bands = [Image.fromarray(band) for band in np.atleast_3d(scaled).transpose(2, 0, 1)]
        resized = [np.asarray(band.resize(size, Image.Resampling.LANCZOS, box=box)) for band in bands]
        if len(resized) < self.channels:  # gray of more than 8 bits, which is opaque
            colors = 1 if self.channels < 3 else 3
            resized = resized * colors + [np.ones_like(resized[0])] * (self.channels - colors)
        return np.stack(resized, -1).clip(-1, 1)

    def _target(self, width: int, height: int) -> tuple[tuple[int, int], tuple[int, int, int, int]]:
        """Width and height that an image is resized to, and the part of it: left, top, right, bottom."""
        if self.resolution is None:
            return (width, height), (0, 0, width, height)
        rows, columns = as_size(self.resolution)
        if width * rows <= height * columns:
            wide, high = width, max(1, round(width * rows / columns))
        else:
            wide, high = max(1, round(height * columns / rows)), height
        left, top = (width - wide) // 2, (height - high) // 2
        return (columns, rows), (left, top, left + wide, top + high)

    def _deep_values(self, image: Image.Image, values: np.ndarray) -> np.ndarray:
        """Of more than 8 bits a pixel: as they are if there is a `value_range`, else their upper 8 bits."""
        inverted = _tag(image, PHOTOMETRIC, 1) == WHITE_IS_ZERO
        if self.value_range is not None:
            if (
                values.dtype == np.int32
                and image.format == "TIFF"
                and _tag(image, SAMPLE_FORMAT, 1) != SIGNED
            ):
                values = values.view(np.uint32)
            values = values.astype(np.float64)
            return sum(self.value_range) - values if inverted else values
        upper = (values.astype(np.int64) >> (bits(image) or 16) - 8).clip(0, 255)
        return 255 - upper if inverted else upper

    def _open(self, name: str) -> BinaryIO:
        return open(self.root / name, "rb") if self.root.is_dir() else self._archive().open(name)

    def _archive(self) -> Zip:
        self._zip = self._zip or Zip(self.root)
        return self._zip


def read_image(path: str | Path, channels: int, value_range: tuple[float, float] | None = None) -> Tensor:
    """A file as large as it is, converted, uint8 or float32 [channels, H, W]; raises as `ImageFiles`."""
    path = Path(path)
    return ImageFiles(
        path.parent, [path.name], resolution=None, channels=channels, convert=True, value_range=value_range
    )[0]


def check_limits(value_range: tuple[float, float] | None, prefix: str = "") -> None:
    """Raises ValueError if there is a `value_range` that is out of order."""
    if value_range is not None and not -math.inf < value_range[0] < value_range[1] < math.inf:
        raise ValueError(
            f"data.{prefix}value_range {list(value_range)} is out of order: give the lowest and highest "
            "value."
        )


def check_range(files: ImageFiles, bits: list[int | None]) -> None:
    """Raises ValueError if images of 16 bits, as far as 64 of them tell, hold numbers of fewer bits.

    Where there is a `value_range` they may; `bits` are those of each file.
    """
    if files.value_range is not None:
        return
    deep = [name for name, each in zip(files.names, bits, strict=True) if each != 8]
    chosen = deep[:: max(1, len(deep) // 64)]
    most = max((files.bits(name) or 16 for name in chosen), default=0)
    peak = max((peak for peak in read_each(files.peak, chosen, "checking images") if peak), default=0)
    if 0 < peak < 1 << most - 1:
        raise ValueError(
            f"The images of {most} bits below {files.root}, such as {chosen[0]}, hold no value above "
            f"{peak:,}, so that their range is not known: give --data.{files.prefix}value_range "
            f"[0, {(1 << peak.bit_length()) - 1}], or [0, {(1 << most) - 1}] if they are dark."
        )


def bits(image: Image.Image) -> int | None:
    """Bits of a pixel of an opened file; None for signed integers, floats and integers of 32 bits."""
    if image.mode.startswith("I;16") or (image.mode == "I" and image.format in ("PNG", "PPM")):
        return int(_tag(image, BITS, 16))
    return None if image.mode in ("I", "F") else 8


def count_channels(image: Image.Image) -> int:
    """Channels as stored; a palette counts as the colors it stands for, 3, or 4 with transparency."""
    if image.mode in ("P", "PA"):
        return 4 if image.has_transparency_data else 3
    return len(image.getbands())


def _tag(image: Image.Image, number: int, default: int) -> Any:
    """The first value of a tag of a TIFF file."""
    value = getattr(image, "tag_v2", {}).get(number, default)
    return value[0] if isinstance(value, tuple) else value


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__
