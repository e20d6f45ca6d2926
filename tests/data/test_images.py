from __future__ import annotations

import gzip
import os
import pickle
import shutil
import struct
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, PngImagePlugin
from torchvision import datasets

from litgan.data import CIFAR10, MNIST, CelebA, Digits, FashionMNIST, ImageFolder
from litgan.data.image_files import ImageFiles
from litgan.data.images import DEBIAN_FASHION_MNIST, read_idx, resize
from litgan.noise import Noise
from litgan.render import ImageBatch

RANDOM = np.random.default_rng(0)


def pixels(*shape: int) -> np.ndarray:
    return RANDOM.integers(0, 256, shape, dtype=np.uint8)


def save(path: Path, array: np.ndarray, **options) -> np.ndarray:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path, **options)
    return array


def chw(array: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(array.copy()).permute(2, 0, 1)


@pytest.fixture
def folder(tmp_path) -> Path:
    """Six color images of the right size, in two classes."""
    for index in range(6):
        save(tmp_path / "mine" / ("cat" if index < 4 else "dog") / f"{index}.png", pixels(16, 16, 3))
    return tmp_path / "mine"


def zipped(folder: Path) -> Path:
    path = folder.with_suffix(".zip")
    with zipfile.ZipFile(path, "w") as archive:
        for file in folder.rglob("*"):
            archive.write(file, file.relative_to(folder).as_posix())
        archive.writestr("__MACOSX/cat/._0.png", b"no image")
    return path


def read(root: Path, resolution: int = 16, **options) -> torch.Tensor:
    return ImageFolder(str(root), resolution=resolution, **options).load()[0]


def refused(data, kind=ValueError) -> str:
    """The one sentence with which reading fails."""
    with pytest.raises(kind) as error:
        data.setup("fit")
    message = str(error.value)
    assert "\n" not in message and message.endswith(".")
    return message


# Folders and archives


@pytest.mark.parametrize("packed", [False, True])
def test_a_folder_and_its_zip_give_the_pixels_in_the_order_of_their_names(folder, packed):
    expected = torch.stack([chw(np.asarray(Image.open(path))) for path in sorted(folder.rglob("*.png"))])
    root = zipped(folder) if packed else folder
    for memory in ("auto", "disk"):
        samples = read(root, memory=memory)
        assert len(samples) == 6 and torch.equal(torch.stack([samples[n] for n in range(6)]), expected)
    data = ImageFolder(str(root), resolution=16, num_classes=2)
    assert data.load()[1].tolist() == [0] * 4 + [1] * 2 and data.class_names == ["cat", "dog"]


@pytest.mark.parametrize("num_workers", [0, 2])
def test_an_archive_can_be_read_by_several_processes(folder, num_workers):
    options = {"resolution": 16, "batch_size": 2, "num_classes": 2, "flip": True}
    memory = ImageFolder(str(folder), **options).train_dataloader()
    packed = ImageFolder(str(zipped(folder)), memory="disk", num_workers=num_workers, **options)
    disk = packed.train_dataloader()
    assert isinstance(disk.samples, ImageFiles)
    for (samples, labels), (others, other_labels) in zip(memory, disk, strict=True):
        assert torch.equal(samples, others) and torch.equal(labels, other_labels)


def test_formats_are_read_at_any_depth_and_other_files_are_not(tmp_path):
    for suffix in ("png", "jpg", "jpeg", "bmp", "webp", "gif", "tif", "TIFF"):
        save(tmp_path / suffix / "deep" / f"a.{suffix}", pixels(8, 8, 3))
    (tmp_path / "notes.txt").write_text("no image")
    (tmp_path / ".hidden.png").write_text("no image")
    assert len(read(tmp_path, 8, convert=True)) == 8


def test_the_centered_square_keeps_its_pixels_the_orientation_and_shrinks_antialiased(tmp_path):
    wide, tall = save(tmp_path / "a.png", pixels(8, 13, 3)), save(tmp_path / "b.png", pixels(11, 8, 3))
    exif = Image.Exif()
    exif[0x0112] = 3  # upside down
    turned = save(tmp_path / "c.png", pixels(8, 8, 3), exif=exif)
    checkers = (np.indices((64, 64, 3))[:2].sum(0) % 2 * 255).astype(np.uint8)
    save(tmp_path / "d.png", checkers)
    samples = read(tmp_path, 8)
    for sample, expected in zip(samples, (wide[:, 2:10], tall[1:9], turned[::-1, ::-1]), strict=False):
        assert torch.equal(sample, chw(expected))
    assert (samples[3, :, 2:-2, 2:-2].int() - 127).abs().max() <= 2


def test_conversion_reaches_the_wanted_channels(tmp_path):
    gray = save(tmp_path / "a.png", pixels(8, 8))
    clear = np.zeros((8, 8, 4), np.uint8)
    clear[:4] = 255, 0, 0, 255
    save(tmp_path / "b.png", clear)  # its upper half red, its lower half transparent
    deep = save(tmp_path / "c.png", pixels(8, 8).astype(np.uint16) * 257)  # 16 bits
    palette = Image.fromarray(pixels(8, 8, 3)).quantize(16)
    palette.save(tmp_path / "d.png")
    samples = read(tmp_path, 8, convert=True)
    assert torch.equal(samples[0], torch.from_numpy(gray).expand(3, 8, 8))
    assert samples[1, :, 0, 0].tolist() == [255, 0, 0] and samples[1, :, 7, 7].tolist() == [255, 255, 255]
    assert torch.equal(samples[2, 1], torch.from_numpy((deep >> 8).astype(np.uint8)))
    assert torch.equal(samples[3], chw(np.array(palette.convert("RGB"))))
    (tmp_path / "b.png").unlink()
    assert read(tmp_path, 8, channels=1, convert=True).shape == (3, 1, 8, 8)


def test_fingerprint_of_files_on_disk_follows_them_and_the_options(folder):
    def of(root=folder, **options) -> str:
        return ImageFolder(str(root), resolution=16, memory="disk", **options).fingerprint

    before = of()
    assert before == of(seed=3, batch_size=2)
    others = {of(convert=True), of(num_classes=2), of(zipped(folder))}
    save(folder / "dog" / "5.png", pixels(16, 16, 3))
    assert len(others | {before, of()}) == 5


# What a folder can have wrong with it


def test_a_missing_an_empty_and_a_damaged_place_are_named(tmp_path, folder):
    empty, archive = tmp_path / "empty", zipped(folder)
    assert str(empty) in refused(ImageFolder(str(empty)), FileNotFoundError)
    (empty / "deeper").mkdir(parents=True)
    for root in (empty, zipped(empty)):
        assert f"{root} holds no image" in refused(ImageFolder(str(root)), FileNotFoundError)
    archive.write_bytes(archive.read_bytes()[:-30])
    assert f"{archive} is no readable .zip" in refused(ImageFolder(str(archive)))


@pytest.mark.parametrize("suffix", ["png", "jpg", "webp"])
@pytest.mark.parametrize("kept", [0.9, 0.5, 0.01, 0])
@pytest.mark.parametrize("packed", [False, True])
def test_a_truncated_image_is_named(folder, suffix, kept, packed):
    path = folder / "cat" / f"9.{suffix}"
    save(path, pixels(64, 64, 3))
    path.write_bytes(path.read_bytes()[: int(kept * path.stat().st_size)])
    root = zipped(folder) if packed else folder
    assert f"{root}/cat/9.{suffix} cannot be decoded" in refused(ImageFolder(str(root), resolution=16))


@pytest.mark.parametrize("num_workers", [0, 1])
def test_a_truncated_image_is_named_when_it_is_read_from_disk(folder, num_workers):
    path = folder / "cat" / "9.png"
    save(path, pixels(64, 64, 3))
    path.write_bytes(path.read_bytes()[:-2000])
    data = ImageFolder(str(folder), resolution=16, memory="disk", batch_size=7, num_workers=num_workers)
    with pytest.raises(ValueError, match=rf"\A{path} cannot be decoded \([^\n]+\): replace or remove it\.\Z"):
        list(data.train_dataloader())


@pytest.mark.parametrize("memory", ["auto", "disk"])
@pytest.mark.parametrize(
    ("shape", "words"),
    [((16, 16), "1 channel .* or --data.channels 1."), ((16, 16, 4), "4 channels .* --data.convert true.")],
)
def test_a_file_of_other_channels_is_named(folder, memory, shape, words):
    save(folder / "cat" / "9.png", pixels(*shape))
    with pytest.raises(ValueError, match=rf"{folder}/cat/9.png has {words}\Z"):
        read(folder, memory=memory)
    assert len(read(folder, memory=memory, convert=True)) == 7


def test_subfolders_that_are_no_classes_are_refused(folder):
    assert "2 subfolders with images (cat, dog)" in refused(ImageFolder(str(folder), num_classes=3))
    save(folder / "loose.png", pixels(16, 16, 3))
    assert f"{folder}/loose.png lies in no subfolder" in refused(ImageFolder(str(folder), num_classes=2))


# Inputs of public bug reports


@pytest.mark.parametrize(
    ("suffix", "kind"),
    [
        (".jfif", "JPEG"), (".jpe", "JPEG"), (".ppm", "PPM"), (".pgm", "PPM"), (".tga", "TGA"),
        (".jp2", "JPEG2000"), (".avif", "AVIF"), (".apng", "PNG"), (".DIB", "DIB"),
    ],
)  # fmt: skip
def test_every_picture_that_pillow_reads_is_read(tmp_path, suffix, kind):
    if kind not in Image.SAVE and not Image.init() and kind not in Image.SAVE:
        pytest.skip(f"this Pillow writes no {kind}")
    save(tmp_path / f"a{suffix}", np.full((8, 8, 3), 200, np.uint8), format=kind)
    assert (read(tmp_path, 8, convert=True)[0].int() - 200).abs().max() <= 3


def test_the_summary_counts_what_is_read_and_what_is_left_out(folder):
    (folder / "cat" / "notes.txt").write_text("no image")
    (folder / "dog" / "a.heic").write_bytes(b"no image that Pillow reads")
    (folder / ".DS_Store").write_bytes(b"")
    assert (
        ImageFolder(str(folder), resolution=16).summary == "6 samples of 6 files; left out: 1 .heic, 1 .txt"
    )
    assert Digits().summary == "1,797 samples"


def test_links_to_folders_and_files_are_followed_once_around_a_cycle(folder, tmp_path):
    linked = tmp_path / "linked"
    linked.mkdir()
    for name in ("cat", "dog"):
        (linked / name).symlink_to(folder / name)
    (linked / "dog" / "around").symlink_to(linked)
    (linked / "cat" / "again.png").symlink_to(folder / "dog" / "5.png")
    data = ImageFolder(str(linked), resolution=16, num_classes=2)
    assert data.size() == 7 and data.load()[1].tolist() == [0] * 5 + [1] * 2
    (linked / "cat" / "nothing.png").symlink_to(tmp_path / "nowhere")
    assert "cat/nothing.png cannot be read" in refused(ImageFolder(str(linked)), FileNotFoundError)


def test_a_folder_that_may_not_be_read_is_named(folder, monkeypatch):
    scandir = os.scandir

    def without_permission(path):
        if Path(path).name == "dog":
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", without_permission)  # the tests may run as root
    message = refused(ImageFolder(str(folder), resolution=16), PermissionError)
    assert message == f"{folder}/dog cannot be read (Permission denied): allow it, or move it elsewhere."


@pytest.mark.parametrize("chunk", ["zTXt", "iTXt", "tEXt"])
def test_a_long_text_in_a_png_does_not_matter(tmp_path, chunk):
    text, info = "a" * 2_000_000, PngImagePlugin.PngInfo()
    if chunk == "iTXt":
        info.add_itxt("notes", text, zip=True)
    else:
        info.add_text("notes", text, zip=chunk == "zTXt")
    array = save(tmp_path / "a.png", pixels(8, 8, 3), pnginfo=info)
    assert torch.equal(read(tmp_path, 8)[0], chw(array))


RAMP = np.arange(64).reshape(8, 8)


@pytest.mark.parametrize(
    "array",
    [
        (RAMP * 500 - 16_000).astype(np.int16), (RAMP * 10**6).astype(np.int32),
        (RAMP / 63).astype(np.float32), (RAMP * 6 * 10**7).astype(np.uint32),
        (RAMP * 65).astype(np.uint16), (RAMP * 4).astype(np.uint16),
    ],
)  # fmt: skip
def test_values_of_an_unknown_range_are_refused_until_it_is_given(tmp_path, array):
    write_tiff(tmp_path / "a.tif", array)
    assert "--data.value_range [" in refused(ImageFolder(str(tmp_path), resolution=8, channels=1))
    low, high = float(array.min()), float(array.max())
    samples, _ = ImageFolder(str(tmp_path), resolution=8, channels=1, value_range=(low, high)).load()
    assert samples.dtype == torch.float32
    assert samples[0, 0].flatten().numpy() == pytest.approx(np.linspace(-1, 1, 64), abs=1e-6)


def write_tiff(path: Path, array: np.ndarray, photometric: int = 1) -> None:
    """A gray TIFF of any type and photometric interpretation; Pillow writes only some."""
    kind = {"u": 1, "i": 2, "f": 3}[array.dtype.kind]
    tags = [
        (256, array.shape[1]), (257, array.shape[0]), (258, array.itemsize * 8), (259, 1), (262, photometric),
        (273, 8 + 2 + 12 * 10 + 4), (277, 1), (278, array.shape[0]), (279, array.nbytes), (339, kind),
    ]  # fmt: skip
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags)
    path.write_bytes(
        struct.pack("<2sHIH", b"II", 42, 8, len(tags))
        + entries
        + bytes(4)
        + array.astype(array.dtype).tobytes()
    )


def test_sixteen_bits_use_the_whole_range_or_keep_their_precision(tmp_path):
    deep = (RAMP * 1040).astype(np.uint16)
    write_tiff(tmp_path / "a.tif", deep)
    assert torch.equal(read(tmp_path, 8, channels=1)[0, 0], torch.from_numpy((deep >> 8).astype(np.uint8)))
    exact = ImageFolder(str(tmp_path), resolution=8, channels=1, value_range=(0, 65_535)).load()[0]
    assert exact[0, 0].numpy() == pytest.approx(deep / 32_767.5 - 1, abs=1e-6)
    write_tiff(tmp_path / "a.tif", deep, photometric=0)  # white is zero
    inverted = read(tmp_path, 8, channels=1)[0, 0]
    assert torch.equal(inverted, 255 - torch.from_numpy((deep >> 8).astype(np.uint8)))
    data = ImageFolder(str(tmp_path), resolution=8, channels=1, value_range=(0, 65_535))
    assert torch.allclose(data.load()[0], -exact, atol=1e-6)
    save(tmp_path / "b.png", pixels(8, 8))
    gray = ImageFolder(str(tmp_path), resolution=8, channels=3, convert=True, value_range=(0, 255)).load()[0][
        1
    ]
    assert gray.shape == (3, 8, 8) and torch.equal(gray[0], gray[2]) and gray.max() > 0.9


def test_black_images_of_sixteen_bits_are_black(tmp_path):
    save(tmp_path / "a.png", np.zeros((8, 8), np.uint16))
    assert read(tmp_path, 8, channels=1).max() == 0


def test_a_file_with_values_that_are_not_finite_is_named(tmp_path):
    write_tiff(tmp_path / "a.tif", np.where(RAMP == 7, np.nan, RAMP).astype(np.float32))
    data = ImageFolder(str(tmp_path), resolution=8, channels=1, value_range=(0, 63))
    assert "a.tif holds values that are not finite" in refused(data)


def test_all_unusable_images_are_named_at_once_or_left_out(folder):
    for name in ("cat/8.png", "dog/9.png"):
        (folder / name).write_bytes(b"no image")
    message = refused(ImageFolder(str(folder), resolution=16, num_classes=2))
    assert "cat/8.png" in message and "dog/9.png" in message and "--data.skip_unusable true" in message
    truncated = folder / "dog" / "7.png"
    save(truncated, pixels(64, 64, 3))
    truncated.write_bytes(truncated.read_bytes()[:-2000])
    data = ImageFolder(str(folder), resolution=16, num_classes=2, skip_unusable=True)
    assert data.load()[1].tolist() == [0] * 4 + [1] * 2
    assert data.summary == "6 samples of 6 files; left out: 3 unusable"


@pytest.mark.parametrize("outer", ["", "mine/", "a/b/"])
@pytest.mark.parametrize("slash", ["/", "\\"])
def test_outer_folders_and_backslashes_of_an_archive_do_not_matter(folder, outer, slash):
    path = folder.with_suffix(".zip")
    with zipfile.ZipFile(path, "w") as archive:
        for file in folder.rglob("*.png"):
            name = f"{outer}{file.relative_to(folder).as_posix()}".replace("/", slash)
            entry = zipfile.ZipInfo()
            entry.filename = name
            archive.writestr(entry, file.read_bytes())
    packed = ImageFolder(str(path), resolution=16, num_classes=2)
    assert packed.load()[1].tolist() == [0] * 4 + [1] * 2 and packed.class_names == ["cat", "dog"]
    assert torch.equal(packed.load()[0], read(folder))


@pytest.mark.parametrize("splits", [("train", "val"), ("Training", "Test", "val"), ("a", "b", "c")])
@pytest.mark.parametrize("outer", ["", "outer"])
def test_classes_below_splits_are_found_one_level_deeper(folder, tmp_path, splits, outer):
    for split in splits:
        shutil.copytree(folder, tmp_path / "set" / outer / split)
    message = refused(ImageFolder(str(tmp_path / "set"), resolution=16, num_classes=2))
    assert f"give data.root {tmp_path / 'set' / outer / splits[0]}, or" in message
    assert ImageFolder(str(tmp_path / "set"), resolution=16).size() == 6 * len(splits)


def test_a_picture_above_pillows_limit_says_how_to_raise_it(folder, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    data = ImageFolder(str(folder), resolution=16)
    assert (
        "256 pixels, above Pillow's limit" in (message := refused(data))
        and "--data.max_pixels 256" in message
    )
    assert ImageFolder(str(folder), resolution=16, max_pixels=256).size() == 6


# Data sets that everybody has


def test_digits_are_scikit_learns():
    from sklearn.datasets import load_digits

    samples, labels = Digits().load()
    assert samples.shape == (1797, 1, 8, 8) and samples.dtype == torch.uint8 and samples.max() == 255
    assert (samples[:, 0] * (16 / 255)).round().numpy() == pytest.approx(load_digits().images)
    assert labels.tolist() == load_digits().target.tolist()
    assert Digits(resolution=16).load()[0].shape == (1797, 1, 16, 16)


def test_decoding_undoes_encoding_and_clips():
    data, stored = Digits(), torch.arange(256, dtype=torch.uint8).view(4, 1, 8, 8)
    decoded = data.decode(data.encode(stored))
    assert isinstance(decoded, ImageBatch) and torch.equal(decoded.pixels, stored)
    assert data.decode(torch.tensor([-9.0, 9.0]).view(2, 1, 1, 1)).pixels.flatten().tolist() == [0, 255]


@pytest.mark.parametrize(
    ("build", "words"),
    [
        (lambda: Digits(num_classes=3), "Digits has 10 classes: .* not 3"),
        (lambda: ImageFolder("x", channels=4), r"data.channels .*, not 4"),
    ],
)
def test_classes_are_all_or_none_and_channels_one_or_three(build, words):
    with pytest.raises(ValueError, match=words):
        build()


def test_resizing_interpolates_and_leaves_the_right_size_alone():
    noise = torch.from_numpy(pixels(5, 3, 8, 8))
    assert resize(noise, 8) is noise
    by_pillow = Image.fromarray(noise[0, 0].numpy()).resize((5, 5), Image.Resampling.BILINEAR)
    assert (resize(noise, 5)[0, 0].int() - torch.from_numpy(np.array(by_pillow)).int()).abs().max() <= 1


@pytest.mark.skipif(not Path(DEBIAN_FASHION_MNIST).is_dir(), reason="needs dataset-fashion-mnist")
def test_fashion_mnist_is_found_where_debian_puts_it(tmp_path):
    data = FashionMNIST(root=str(tmp_path / "unused"))
    samples, labels = data.load()
    assert samples.shape == (60_000, 1, 32, 32) and data.size("test") == 10_000
    assert labels.bincount().tolist() == [6000] * 10 and not (tmp_path / "unused").exists()
    native, _ = data.read_native("train")
    assert native.double().mean() / 255 == pytest.approx(0.2860, abs=1e-4), "the published mean"
    assert torch.equal(samples[:, :, 2:30, 2:30], native)
    assert samples.sum() == native.sum(), "the frame is black"


# Files as MNIST's, CIFAR's and CelebA's authors wrote them, but small


def write_idx(path: Path, array: np.ndarray) -> None:
    header = bytes([0, 0, 8, array.ndim]) + b"".join(n.to_bytes(4, "big") for n in array.shape)
    path.parent.mkdir(parents=True, exist_ok=True)
    raw = header + array.astype(np.uint8).tobytes()
    path.write_bytes(gzip.compress(raw) if path.suffix == ".gz" else raw)


def write_mnist(folder: Path, suffix: str = "") -> dict[str, torch.Tensor]:
    images = {}
    for split, stem, count in (("train", "train", 30), ("test", "t10k", 20)):
        array = pixels(count, 28, 28)
        write_idx(folder / f"{stem}-images-idx3-ubyte{suffix}", array)
        write_idx(folder / f"{stem}-labels-idx1-ubyte{suffix}", np.arange(count) % 10)
        images[split] = torch.from_numpy(array)
    return images


@pytest.mark.parametrize("kind", [MNIST, FashionMNIST, "installed"])
def test_mnist_is_read_from_torchvisions_files_and_debians(tmp_path, kind):
    if kind == "installed":
        images = write_mnist(tmp_path, ".gz")
        data = FashionMNIST(installed=str(tmp_path), resolution=28)
    else:
        images = write_mnist(tmp_path / kind.__name__ / "raw")
        elsewhere = {"installed": str(tmp_path / "none")} if kind is FashionMNIST else {}
        data = kind(root=str(tmp_path), resolution=28, **elsewhere)
    for split, count in (("train", 30), ("test", 20)):
        samples, labels = data.load(split)
        assert torch.equal(samples[:, 0], images[split]) and labels.tolist() == [n % 10 for n in range(count)]
    data.resolution = 16
    assert data.read("train")[0].shape == (30, 1, 16, 16)


@pytest.mark.parametrize(
    "damage", [lambda raw: raw[: len(raw) // 2], lambda raw: b"", lambda raw: b"no" + raw]
)
def test_a_damaged_copy_of_fashion_mnist_is_named(tmp_path, damage):
    write_mnist(tmp_path, ".gz")
    path = tmp_path / "train-images-idx3-ubyte.gz"
    path.write_bytes(damage(path.read_bytes()))
    assert f"{path} is damaged" in refused(FashionMNIST(installed=str(tmp_path)))


@pytest.mark.parametrize("raw", [b"", b"\0\0\x08", b"\0\0\x0d\x01\0\0\0\x01\0", b"\0\0\x08\x01\0\0\0\x02\0"])
def test_a_file_of_another_format_is_refused(tmp_path, raw):
    path = tmp_path / "a.gz"
    path.write_bytes(gzip.compress(raw))
    with pytest.raises(ValueError, match=r"a\.gz is damaged"):
        read_idx(path)


def test_cifar10_reads_its_batches(tmp_path, monkeypatch):
    monkeypatch.setattr(datasets.CIFAR10, "_check_integrity", lambda self: True)
    monkeypatch.setattr("torchvision.datasets.cifar.check_integrity", lambda *_: True)
    folder, rows = tmp_path / "cifar-10-batches-py", pixels(6, 20, 3 * 32 * 32)
    folder.mkdir()
    names = [f"data_batch_{index}" for index in range(1, 6)] + ["test_batch"]
    for name, row in zip(names, rows, strict=True):
        content = {"data": row, "labels": [index % 10 for index in range(20)]}
        (folder / name).write_bytes(pickle.dumps(content))
    (folder / "batches.meta").write_bytes(pickle.dumps({"label_names": list(CIFAR10.class_names)}))
    data = CIFAR10(root=str(tmp_path), num_classes=10, batch_size=50)
    assert torch.equal(data.load()[0], torch.from_numpy(rows[:5]).reshape(100, 3, 32, 32))
    assert torch.equal(data.load("test")[0], torch.from_numpy(rows[5]).reshape(20, 3, 32, 32))
    assert [len(labels) for _, labels in data.train_dataloader()] == [50, 50]


@pytest.mark.parametrize("memory", ["auto", "disk"])
def test_celeba_reads_its_portraits(tmp_path, monkeypatch, memory):
    monkeypatch.setattr(datasets.CelebA, "_check_integrity", lambda self: True)
    folder = tmp_path / "celeba"
    names = [f"{index:06}.jpg" for index in range(1, 7)]
    for name in names:
        save(folder / "img_align_celeba" / name, pixels(218, 178, 3))

    def table(file: str, rows: list[str], header: str = "") -> None:
        body = "\n".join(f"{name} {row}" for name, row in zip(names, rows, strict=True))
        (folder / file).write_text(f"6\n{header}\n{body}\n" if header else f"{body}\n")

    table("list_eval_partition.txt", ["0", "0", "0", "0", "2", "2"])
    table("identity_CelebA.txt", ["1"] * 6)
    table("list_bbox_celeba.txt", ["0 0 9 9"] * 6, "image_id x y w h")
    table("list_landmarks_align_celeba.txt", ["1 1"] * 6, "x y")
    table("list_attr_celeba.txt", ["1 -1", "-1 1", "-1 -1", "1 1", "1 1", "1 1"], "Male Smiling")
    data = CelebA(root=str(tmp_path), num_classes=2, batch_size=2, memory=memory)
    samples, labels = data.load()
    assert len(samples) == 4 and samples[0].shape == (3, 64, 64) and labels.tolist() == [0, 1, 0, 1]
    assert data.size("test") == 2 and len(list(data.train_dataloader())) == 2
    assert "'Smilling'" in refused(CelebA(root=str(tmp_path), attribute="Smilling"))


@pytest.mark.parametrize(
    ("kind", "hint"),
    [
        (MNIST, "unpacked, into {root}/MNIST/raw."),
        (FashionMNIST, "run `apt-get install dataset-fashion-mnist`, or put the four *-ubyte.gz files"),
        (CIFAR10, "put cifar-10-python.tar.gz into {root}."),
        (CelebA, "put img_align_celeba.zip, unpacked, and the five .txt files of annotations into {root}/"),
    ],
)
def test_a_failed_download_says_what_to_put_where(tmp_path, monkeypatch, kind, hint):
    def no_network(*_) -> None:
        raise ConnectionError("no route to host\nand a second line")

    nowhere = "http://127.0.0.1:9/"  # the discard port: refused at once
    monkeypatch.setattr(datasets.MNIST, "mirrors", [nowhere])
    monkeypatch.setattr(datasets.FashionMNIST, "mirrors", [nowhere])
    monkeypatch.setattr(datasets.CIFAR10, "url", nowhere + "cifar-10-python.tar.gz")
    monkeypatch.setattr(datasets.CelebA, "file_list", [("id", "0" * 32, "list_attr_celeba.txt")])
    monkeypatch.setattr("torchvision.datasets.celeba.download_file_from_google_drive", no_network)
    elsewhere = {"installed": str(tmp_path / "none")} if kind is FashionMNIST else {}
    message = refused(kind(root=str(tmp_path), **elsewhere), RuntimeError)
    assert message.startswith(f"{kind.__name__} can neither be read from {str(tmp_path)!r} nor be downloaded")
    assert hint.format(root=tmp_path) in message


def test_dequantization_is_noise_below_one_level():
    """x / 128 - 1 + U(0, 1/128), as in datasets/cifar10.py of pfnet-research/sngan_projection."""
    data, plain = (Digits(batch_size=64, dequantize=wanted) for wanted in (True, False))
    noisy, stored = next(iter(data.train_dataloader()))[0], next(iter(plain.train_dataloader()))[0]
    added = noisy - (stored * 127.5 + 127.5).round() / 128 + 1
    assert added.min() >= -1e-6 and added.max() <= 1 / 128 + 1e-6
    assert added.mean().item() == pytest.approx(1 / 256, abs=1e-4)
    assert added.std().item() == pytest.approx(1 / 128 / 12**0.5, rel=0.05)
    assert torch.equal(next(iter(data.train_dataloader()))[0], noisy)  # a function of seed and sample
    whole = data.augment(torch.zeros(100, 1, 8, 8, dtype=torch.uint8), Noise(0, 3, 0, 100))
    part = data.augment(torch.zeros(30, 1, 8, 8, dtype=torch.uint8), Noise(0, 3, 50, 30))
    assert torch.equal(part, whole[50:80])
    reals = [next(data.real_batches(64))[0], next(plain.real_batches(64))[0]]
    assert torch.equal(*reals)  # no noise in what is measured
