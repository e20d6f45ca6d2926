"""Image files, in a folder or a .zip, as uint8 tensors of one shape."""

from __future__ import annotations

import hashlib
import os
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from litgan.data.files import list_files, threaded

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".webp", ".gif", ".tif", ".tiff")


def list_images(root: Path) -> list[str]:
    """Sorted names, relative to `root`, of the images anywhere below a folder or inside a .zip.

    Raises:
        FileNotFoundError: no such folder or file, or no image in it.
        ValueError: a file that is no readable .zip.
    """
    if root.is_dir():
        return list_files(root, SUFFIXES, "image")
    if not root.is_file():
        raise FileNotFoundError(f"There is no folder or .zip {root}: give data.root a path that exists.")
    try:
        with zipfile.ZipFile(root) as archive:
            names = archive.namelist()
    except (OSError, zipfile.BadZipFile) as error:
        raise ValueError(f"{root} is no readable .zip ({_one_line(error)}): make it anew.") from error
    return list_files(root, SUFFIXES, "image", names)


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
    """

    def __init__(
        self, root: Path, names: Sequence[str], *, resolution: int, channels: int, convert: bool = False
    ) -> None:
        self.root, self.names = root, list(names)
        self.resolution, self.channels, self.convert = resolution, channels, convert
        self._archives: dict[int, zipfile.ZipFile] = {}

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: int) -> Tensor:
        """
        Raises:
            ValueError: the file, which is named, is damaged or has another number of channels.
        """
        with self._open_image(self.names[index]) as image:
            pixels = torch.from_numpy(self._to_pixels(image))
        return pixels.view(self.resolution, self.resolution, -1).permute(2, 0, 1).contiguous()

    @property
    def fingerprint(self) -> str:
        """Hash of the options and of the files' names, sizes, and times of change (in a .zip: checksums)."""
        state: list[tuple[int, int]]
        if self.root.is_dir():
            stats = [(self.root / name).stat() for name in self.names]
            state = [(stat.st_size, stat.st_mtime_ns) for stat in stats]
        else:
            entries = [self._archive().getinfo(name) for name in self.names]
            state = [(entry.file_size, entry.CRC) for entry in entries]
        options = (self.resolution, self.channels, self.convert)
        return hashlib.blake2b(repr((options, self.names, state)).encode(), digest_size=16).hexdigest()

    def check_channels(self) -> None:
        """Compare the channels of every file with `channels`, from the headers alone, unless converting.

        Raises:
            ValueError: the first file, which is named, that differs or that is no image.
        """
        if not self.convert:
            list(threaded(self._check_header, self.names))

    def _check_header(self, name: str) -> None:
        with self._open_image(name):
            pass

    @contextmanager
    def _open_image(self, name: str) -> Iterator[Image.Image]:
        """The opened file, its channels checked; an error in the block becomes a sentence that names it."""
        try:
            with self._open(name) as stream, Image.open(stream) as image:
                count = count_channels(image)
                if count == self.channels or self.convert:
                    yield image
                    return
        except Exception as error:  # Pillow raises anything from OSError to SyntaxError, zipfile its own
            raise ValueError(
                f"{self.root / name} cannot be decoded ({_one_line(error)}): replace or remove it."
            ) from error
        other = f" or --data.channels {count}" if count in (1, 3) else ""
        raise ValueError(
            f"{self.root / name} has {count} channel{'s' if count > 1 else ''} and data.channels "
            f"is {self.channels}: give --data.convert true{other}."
        )

    def _to_pixels(self, image: Image.Image) -> np.ndarray:
        image = ImageOps.exif_transpose(image)
        if image.mode == "F":
            raise ValueError("32-bit floating point has no known range")
        if image.mode.startswith("I"):
            upper = np.asarray(image).astype(np.int64) >> 8
            image = Image.fromarray(upper.clip(0, 255).astype(np.uint8))
        if image.has_transparency_data and self.convert:
            image = image.convert("RGBA")
            image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
        image = image.convert("L" if self.channels == 1 else "RGB")
        side = min(image.size)
        left, top = (image.width - side) // 2, (image.height - side) // 2
        square = (left, top, left + side, top + side)
        return np.array(image.resize((self.resolution,) * 2, Image.Resampling.LANCZOS, box=square))

    def _open(self, name: str) -> BinaryIO:
        if self.root.is_dir():
            return open(self.root / name, "rb")
        return self._archive().open(name)  # type: ignore[return-value]

    def _archive(self) -> zipfile.ZipFile:
        # One handle a process: threads may share one, a forked worker would move its parent's file position.
        if os.getpid() not in self._archives:
            self._archives[os.getpid()] = zipfile.ZipFile(self.root)
        return self._archives[os.getpid()]

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_archives": {}}


def count_channels(image: Image.Image) -> int:
    """Channels as stored; a palette counts as the colors it stands for, 3, or 4 with transparency."""
    if image.mode in ("P", "PA"):
        return 4 if image.has_transparency_data else 3
    return len(image.getbands())


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__
