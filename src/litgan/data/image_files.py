"""Image files, in a folder or a .zip, as uint8 tensors of one shape."""

from __future__ import annotations

import hashlib
import os
import re
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch
from PIL import Image, ImageOps, PngImagePlugin
from torch import Tensor

from litgan.data.files import Found, UnusableFileError, find_files

SUFFIXES = (
    ".png", ".apng", ".jpg", ".jpeg", ".jpe", ".jfif", ".bmp", ".dib", ".webp", ".gif", ".tif", ".tiff",
    ".avif", ".jp2", ".j2k", ".j2c", ".jpc", ".jpf", ".jpx", ".ppm", ".pgm", ".pbm", ".pnm", ".tga", ".pcx",
    ".qoi", ".sgi", ".rgb", ".dds", ".psd",
)  # fmt: skip
WHITE_IS_ZERO, SIGNED, BITS, PHOTOMETRIC, SAMPLE_FORMAT = 0, 2, 258, 262, 339  # of TIFF's tags

# Pillow refuses an image with a longer text, 1 MB by default.
PngImagePlugin.MAX_TEXT_CHUNK = max(PngImagePlugin.MAX_TEXT_CHUNK, 1 << 26)
PngImagePlugin.MAX_TEXT_MEMORY = max(PngImagePlugin.MAX_TEXT_MEMORY, 1 << 28)


def find_images(root: Path) -> Found:
    """The images anywhere below a folder or inside a .zip, by their names relative to `root`.

    Raises:
        FileNotFoundError: no such folder or file, or no image in it.
        ValueError: a file that is no readable .zip.
    """
    if root.is_dir():
        return find_files(root, SUFFIXES, "image")
    if not root.is_file():
        raise FileNotFoundError(f"There is no folder or .zip {root}: give data.root a path that exists.")
    try:
        with zipfile.ZipFile(root) as archive:
            names = list(_entries(archive))
    except (OSError, zipfile.BadZipFile) as error:
        raise ValueError(f"{root} is no readable .zip ({_one_line(error)}): make it anew.") from error
    return find_files(root, SUFFIXES, "image", names)


def _entries(archive: zipfile.ZipFile) -> dict[str, zipfile.ZipInfo]:
    """Name -> entry; some programs write backslashes."""
    return {entry.filename.replace("\\", "/"): entry for entry in archive.infolist()}


class ImageFiles:
    """Map-style data set of image files: uint8 [channels, resolution, resolution].

    The largest centered square is resized with Lanczos' filter, which is antialiased when it shrinks;
    an image of the right size keeps its pixels. EXIF orientation is applied, an animation gives its first
    frame, and 16-bit gray keeps its upper eight bits.

    Args:
        root: folder or .zip.
        names: of the images, relative to `root`.
        resolution: side in pixels.
        channels: 1 (gray) or 3 (RGB).
        convert: convert other color modes to `channels`, with transparency over white, instead of
            refusing them.
        value_range: values that become -1 and 1; images are then float32 and keep their precision. None takes
            the range of the file's 8 or 16 bits, and refuses other types.
        max_pixels: Pillow's MAX_IMAGE_PIXELS: it warns of larger images and refuses those twice as large.
            None leaves its limit as it is.
    """

    def __init__(
        self,
        root: Path,
        names: Sequence[str],
        *,
        resolution: int,
        channels: int,
        convert: bool = False,
        value_range: tuple[float, float] | None = None,
        max_pixels: int | None = None,
    ) -> None:
        self.root, self.names = root, list(names)
        self.resolution, self.channels, self.convert = resolution, channels, convert
        self.value_range, self.max_pixels = value_range, max_pixels
        self._archives: dict[int, tuple[zipfile.ZipFile, dict[str, zipfile.ZipInfo]]] = {}

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
        return pixels.view(self.resolution, self.resolution, -1).permute(2, 0, 1).contiguous()

    @property
    def fingerprint(self) -> str:
        """Hash of the options and of the files' names, sizes, and times of change (in a .zip: checksums)."""
        state: list[tuple[int, int]]
        if self.root.is_dir():
            stats = [(self.root / name).stat() for name in self.names]
            state = [(stat.st_size, stat.st_mtime_ns) for stat in stats]
        else:
            entries = self._archive()[1]
            state = [(entries[name].file_size, entries[name].CRC) for name in self.names]
        options: tuple[Any, ...] = (self.resolution, self.channels, self.convert)
        options += (self.value_range,) if self.value_range else ()
        return hashlib.blake2b(repr((options, self.names, state)).encode(), digest_size=16).hexdigest()

    def bits(self, name: str) -> int | None:
        """Bits of a pixel of a file, from its header alone; None for other types than unsigned integers.

        Raises:
            UnusableFileError: as `__getitem__`, as far as the header tells.
        """
        with self._open_image(name) as image:
            return bits(image)

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
                            "give --data.value_range [LOWEST, HIGHEST]",
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
        other = f" or --data.channels {count}" if count in (1, 3) else ""
        raise UnusableFileError(
            path,
            f"has {count} channel{'s' if count > 1 else ''} and data.channels is {self.channels}",
            f"give --data.convert true{other}",
        )

    def _to_pixels(self, image: Image.Image) -> np.ndarray:
        """uint8 or, with a `value_range`, float32 [resolution, resolution, 1 or channels or none]."""
        upright, values = ImageOps.exif_transpose(image), None
        if bits(image) != 8:
            values = self._deep_values(image, np.asarray(upright))
            upright = Image.fromarray(values.astype(np.uint8)) if self.value_range is None else upright
        if upright.has_transparency_data and self.convert:
            upright = upright.convert("RGBA")
            upright = Image.alpha_composite(Image.new("RGBA", upright.size, "white"), upright)
        side = min(upright.size)
        left, top = (upright.width - side) // 2, (upright.height - side) // 2
        size, square = (self.resolution,) * 2, (left, top, left + side, top + side)
        if self.value_range is None:
            upright = upright.convert("L" if self.channels == 1 else "RGB")
            return np.array(upright.resize(size, Image.Resampling.LANCZOS, box=square))
        if values is None:
            values = np.asarray(upright.convert("L" if self.channels == 1 else "RGB"), np.float64)
        low, high = self.value_range
        scaled = ((values - low) * (2 / (high - low)) - 1).astype(np.float32)
        bands = [Image.fromarray(band) for band in np.atleast_3d(scaled).transpose(2, 0, 1)]
        resized = [np.asarray(band.resize(size, Image.Resampling.LANCZOS, box=square)) for band in bands]
        return np.stack(resized * (self.channels // len(resized)), -1).clip(-1, 1)

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
        if self.root.is_dir():
            return open(self.root / name, "rb")
        archive, entries = self._archive()
        return archive.open(entries[name])  # type: ignore[return-value]

    def _archive(self) -> tuple[zipfile.ZipFile, dict[str, zipfile.ZipInfo]]:
        # One handle a process: threads may share one, a forked worker would move its parent's file position.
        if os.getpid() not in self._archives:
            archive = zipfile.ZipFile(self.root)
            self._archives[os.getpid()] = archive, _entries(archive)
        return self._archives[os.getpid()]

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_archives": {}}


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
