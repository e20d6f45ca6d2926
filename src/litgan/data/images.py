"""Data sets of images: embedded, downloaded, or a folder of one's own."""

from __future__ import annotations

import gzip
import struct
from abc import abstractmethod
from collections import Counter
from itertools import compress
from pathlib import Path
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from litgan.data.base import GANDataModule
from litgan.data.checks import check_num_classes
from litgan.data.crops import as_size, center_crop, check_crop, crop_at, random_corners
from litgan.data.files import FileCount, label_by_folder
from litgan.data.image_files import (
    SPLIT,
    ImageFiles,
    check_images,
    check_limits,
    check_range,
    find_images,
    read_image,
    splits_of,
)
from litgan.data.loader import to_unit_range
from litgan.noise import Noise
from litgan.rebuild import first_line
from litgan.render import ImageBatch

DEBIAN_FASHION_MNIST = "/usr/share/datasets/fashion-mnist"  # of the package dataset-fashion-mnist


class ImageData(GANDataModule):
    """Images, stored as uint8 [N, channels, height, width].

    A recipe is unconditional unless it sets `num_classes`: by default the networks get no labels even if the
    data set has some. Metrics get them either way, through `real_batches`.

    Args:
        resolution: side in pixels, or height and width.
        channels: 1 (gray) or 3 (RGB).
        crop: train on random parts of this side, or height and width, and measure the middle; null for none.
        flip: mirror each training image left to right with probability one half.
        dequantize: train on (x + u) / 128 - 1 for values x of 0 to 255, with u uniform in [0, 1), as in the
            code of Miyato et al. 2018 (SNGAN). Metrics and pictures get x / 127.5 - 1 in any case.
        common: the options of `GANDataModule`; `num_classes` is 0 or what the data set has.

    Raises:
        ValueError: `channels` other than 1 and 3, or another `num_classes`.
    """

    value_range: tuple[float, float] | None = None  # of files that are not of 8 bits
    stored_options: tuple[str, ...] = ("resolution", "channels")

    def __init__(
        self,
        resolution: int | tuple[int, int],
        channels: int,
        *,
        crop: int | tuple[int, int] | None = None,
        flip: bool = False,
        dequantize: bool = False,
        **common: Any,
    ) -> None:
        size = as_size(resolution if crop is None else crop)
        super().__init__((channels, *size), **common)
        check_crop(size, as_size(resolution))
        if channels not in (1, 3):
            raise ValueError(f"data.channels must be 1 (gray) or 3 (RGB), not {channels}.")
        if self.class_names is not None:
            check_num_classes(type(self).__name__, self.num_classes, len(self.class_names))
        self.resolution, self.channels, self.flip = resolution, channels, flip
        self.crop = None if crop is None else size
        self.dequantize = dequantize

    def encode(self, stored: Tensor) -> Tensor:
        return super().encode(stored if self.crop is None else center_crop(stored, self.crop))

    def augment(self, stored: Tensor, noise: Noise) -> Tensor:
        if self.crop is not None:
            corners = random_corners(noise.stream("crop").uniform(2), stored.shape[2:], self.crop)
            stored = crop_at(stored, self.crop, corners)
        if not self.dequantize or stored.is_floating_point():
            return stored
        return (stored + noise.stream("dequantize").uniform(*stored.shape[1:])) / 128 - 1

    def decode(self, samples: Tensor) -> ImageBatch:
        """Samples in [-1, 1], clipped, to the nearest of 256 levels."""
        return ImageBatch.from_unit_range(samples)

    def read_sample(self, path: str | Path) -> Tensor:
        return to_unit_range(read_image(path, self.channels, self.value_range)[None])[0]


class Digits(ImageData):
    """The 1,797 handwritten digits of scikit-learn: 8 x 8 pixels of 17 gray levels, 10 classes.

    All of them are the training split; there is no test split.

    Args:
        resolution: side in pixels; other than 8, interpolated.
    """

    class_names = tuple("0123456789")

    def __init__(self, resolution: int = 8, **common: Any) -> None:
        super().__init__(resolution, 1, **common)

    def read(self, split: str) -> tuple[Tensor, Tensor]:
        from sklearn.datasets import load_digits

        digits = load_digits()
        gray = (torch.from_numpy(digits.images)[:, None] * (255 / 16)).round().to(torch.uint8)
        return resize(gray, self.resolution), _labels(digits.target)


class _TorchvisionImages(ImageData):
    """Base of the data sets that torchvision finds under `root`, or downloads to there if `download`."""

    splits: tuple[str, ...] = ("train", "test")
    hint: ClassVar[str]  # "put ... into {root}/...", for the message of a failed download

    def __init__(
        self, root: str, resolution: int, channels: int, *, download: bool = True, **common: Any
    ) -> None:
        super().__init__(resolution, channels, **common)
        self.root, self.download = root, download

    def find(self, **options: Any) -> Any:
        """torchvision's data set of the same name.

        Raises RuntimeError: it is not there and cannot be downloaded; says what to put where.
        """
        from torchvision import datasets

        try:
            return getattr(datasets, type(self).__name__)(self.root, download=self.download, **options)
        except Exception as error:  # torchvision raises anything from URLError to AssertionError
            hint = self.hint.format(root=self.root)
            problem = (
                f"can neither be read from {self.root!r} nor be downloaded ({first_line(error)}): {hint}."
            )
            if not self.download:
                problem = (
                    f"cannot be read from {self.root!r}, and no download was allowed: {hint}, or "
                    "allow it (litgan evaluate --download; in a recipe data.download true)."
                )
            raise RuntimeError(f"{type(self).__name__} {problem}") from error


class MNIST(_TorchvisionImages):
    """LeCun's handwritten digits: 60,000 for training, 10,000 for testing, gray, 10 classes.

    At resolution 32 the 28 x 28 image is padded with 2 black pixels on each side, at 28 it is unchanged;
    other resolutions are interpolated.

    Args:
        root: folder of the download.
        resolution: side in pixels.
    """

    class_names = tuple("0123456789")
    hint = "put the four *-ubyte.gz files, unpacked, into {root}/MNIST/raw"

    def __init__(self, root: str = "data", resolution: int = 32, **common: Any) -> None:
        super().__init__(root, resolution, 1, **common)

    def read(self, split: str) -> tuple[Tensor, Tensor]:
        images, labels = self.read_native(split)
        images = F.pad(images, (2, 2, 2, 2)) if self.resolution == 32 else images
        return resize(images, self.resolution), labels

    def read_native(self, split: str) -> tuple[Tensor, Tensor]:
        """The files' content: uint8 [N, 1, 28, 28], int64 [N]."""
        found = self.find(train=split == "train")
        return found.data[:, None], _labels(found.targets)


class FashionMNIST(MNIST):
    """Zalando's clothes: 60,000 images for training, 10,000 for testing, gray, 10 classes.

    Sized as `MNIST`. Read from Debian's package `dataset-fashion-mnist` if it is installed, else from `root`.

    Args:
        root: folder of the download.
        resolution: side in pixels.
        installed: folder of the package's four .gz files.
    """

    class_names = (
        "t-shirt", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle boot",
    )  # fmt: skip
    hint = (
        "run `apt-get install dataset-fashion-mnist`, "
        "or put the four *-ubyte.gz files, unpacked, into {root}/FashionMNIST/raw"
    )

    def __init__(
        self, root: str = "data", resolution: int = 32, installed: str = DEBIAN_FASHION_MNIST, **common: Any
    ) -> None:
        super().__init__(root, resolution, **common)
        self.installed = installed

    def read_native(self, split: str) -> tuple[Tensor, Tensor]:
        stem = Path(self.installed).expanduser() / ("train" if split == "train" else "t10k")
        images, labels = Path(f"{stem}-images-idx3-ubyte.gz"), Path(f"{stem}-labels-idx1-ubyte.gz")
        if images.is_file() and labels.is_file():
            return read_idx(images)[:, None], read_idx(labels).long()
        return super().read_native(split)


class CIFAR10(_TorchvisionImages):
    """Krizhevsky's 32 x 32 color photographs: 50,000 for training, 10,000 for testing, 10 classes.

    Args:
        root: folder of the download.
        resolution: side in pixels; other than 32, interpolated.
    """

    class_names = (
        "airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck",
    )  # fmt: skip
    hint = "put cifar-10-python.tar.gz into {root}"

    def __init__(self, root: str = "data", resolution: int = 32, **common: Any) -> None:
        super().__init__(root, resolution, 3, **common)

    def read(self, split: str) -> tuple[Tensor, Tensor]:
        found = self.find(train=split == "train")
        images = torch.from_numpy(found.data).permute(0, 3, 1, 2).contiguous()
        return resize(images, self.resolution), _labels(found.targets)


class CelebA(_TorchvisionImages):
    """202,599 aligned portraits, 178 x 218, of which 162,770 train; the centered square is resized.

    Args:
        root: folder of the download.
        resolution: side in pixels.
        attribute: which of the 40 yes-or-no attributes is the label (1 = yes).
    """

    class_names = ("no", "yes")
    hint = "put img_align_celeba.zip, unpacked, and the five .txt files of annotations into {root}/celeba"

    def __init__(
        self, root: str = "data", resolution: int = 64, attribute: str = "Smiling", **common: Any
    ) -> None:
        super().__init__(root, resolution, 3, **common)
        self.attribute = attribute

    def read(self, split: str) -> tuple[ImageFiles, Tensor]:
        found = self.find(split=split)
        if self.attribute not in found.attr_names:
            known = ", ".join(filter(None, found.attr_names))
            raise ValueError(f"CelebA has no attribute {self.attribute!r}: ask for one of {known}.")
        folder = Path(self.root).expanduser() / "celeba" / "img_align_celeba"
        files = ImageFiles(folder, found.filename, resolution=self.resolution, channels=3)
        return files, _labels(found.attr[:, found.attr_names.index(self.attribute)])


class StoredImages(ImageData):
    """Base of images that are decoded from files, small ones or in few large ones.

    Args:
        root: folder of the files.
        resolution: side in pixels, or height and width; the largest centered part of this shape is resized to
            it (see `ImageFiles`).
        channels: 1 (gray) or 3 (RGB).
        convert: convert images of other channel counts to `channels` instead of refusing them.
        value_range: values that become -1 and 1, such as [0, 4095] for a camera's 12 bits; images then keep
            their precision. Needed for files of signed, 32-bit or floating-point values.
        max_pixels: Pillow's limit: it warns of larger images and refuses those twice as large.
        common: the options of `ImageData`.

    Raises:
        ValueError: a `value_range` out of order, or other options; see `ImageData`.
    """

    def __init__(
        self,
        root: str,
        resolution: int | tuple[int, int] = 32,
        channels: int = 3,
        convert: bool = False,
        value_range: tuple[float, float] | None = None,
        max_pixels: int | None = None,
        **common: Any,
    ) -> None:
        super().__init__(resolution, channels, **common)
        check_limits(value_range)
        self.root, self.convert, self.value_range, self.max_pixels = root, convert, value_range, max_pixels
        self.splits = splits_of(root)

    @abstractmethod
    def open(self, split: str) -> tuple[ImageFiles, Tensor | None, Counter[str]]:
        """The images of a split, their labels, and what was left out; sets `class_names`."""

    def read(self, split: str) -> tuple[ImageFiles, Tensor | None]:
        """
        Raises:
            FileNotFoundError: nothing at `root`, or no image there.
            ImportError: a package is missing.
            ValueError: an unreadable archive, unusable images, or another number of classes.
        """
        files, labels, left_out = self.open(split)
        bits = check_images(files, skip=self.skip_unusable)  # now, not an hour into the run
        if self.skip_unusable:
            usable = torch.tensor([bool(each) for each in check_images(files, "pixels", skip=True)])
            left_out["unusable"] = int((~usable).sum())
            files.names = list(compress(files.names, usable))
            bits, labels = list(compress(bits, usable)), None if labels is None else labels[usable]
        files.index = None  # for workers it would be large
        check_range(files, bits)
        self.files[split] = FileCount(len(files), left_out=+left_out)
        return files, labels

    def image_options(self) -> dict[str, Any]:
        """Those of `ImageFiles`."""
        names = ("resolution", "channels", "convert", "value_range", "max_pixels")
        return {name: getattr(self, name) for name in names}


class ImageFolder(StoredImages):
    """Any folder or .zip of images, searched to any depth, ordered by name.

    With `num_classes` 0, subfolders are ignored; otherwise the label is the index of the first-level
    subfolder in the sorted list `class_names`.

    Args:
        root: the folder or .zip, or what `litgan pack` has made of it. Where it has the text {split}, as in
            photos/{split}, the word train or test takes its place, and there is a test split.
        skip_unusable: leave out files that cannot be used, which are then all decoded at the start.
        options: those of `StoredImages`.
    """

    def __init__(self, root: str, skip_unusable: bool = False, **options: Any) -> None:
        super().__init__(root, **options)
        self.skip_unusable = skip_unusable

    def open(self, split: str) -> tuple[ImageFiles, Tensor | None, Counter[str]]:
        root = Path(self.root.replace(SPLIT, split)).expanduser()
        (names, others), labels = find_images(root), None
        if self.num_classes:
            labels, self.class_names = label_by_folder(root, names, self.num_classes, "image")
        return ImageFiles(root, names, **self.image_options()), labels, others


def resize(images: Tensor, resolution: int | tuple[int, int]) -> Tensor:
    """uint8 [N, C, H, W] to this side, or height and width, bilinear, antialiased; no copy at that size."""
    size = as_size(resolution)
    if images.shape[-2:] == size:
        return images
    parts = [
        F.interpolate(part.float(), size, mode="bilinear", antialias=True).round().clamp(0, 255).byte()
        for part in images.split(4096)  # floats take four times the memory
    ]
    return torch.cat(parts)


def read_idx(path: Path) -> Tensor:
    """A gzipped IDX file of bytes (the format of MNIST), as uint8 of the shape in its header.

    Raises ValueError: the file is damaged, or of another format.
    """
    try:
        raw = gzip.decompress(path.read_bytes())
        zeros, kind, ndim = struct.unpack_from(">HBB", raw)
        shape = struct.unpack_from(f">{ndim}I", raw, 4)
        content = torch.frombuffer(bytearray(raw), dtype=torch.uint8, offset=4 + 4 * ndim)
        if (zeros, kind) != (0, 8):
            raise ValueError("it is no IDX file of bytes")
        return content.view(shape)
    except Exception as error:  # gzip, zlib, struct and torch each raise their own
        reason = " ".join(str(error).split()).rstrip(".")
        raise ValueError(f"{path} is damaged ({reason}): install dataset-fashion-mnist again.") from error


def _labels(values: Any) -> Tensor:
    return torch.as_tensor(values, dtype=torch.int64)
