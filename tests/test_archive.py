"""Damaged and crafted checkpoints: refused in one sentence by whatever reads them, or read as they were."""

from __future__ import annotations

import copy
import random
import shutil
import struct
import tracemalloc
import zipfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
import torch.distributed as dist
from shared.fits import CLASSES, PLAIN, Run
from torch import nn

from litgan import GAN, checkpoints
from litgan.runs import find_checkpoint


@pytest.fixture
def last(digits_run: Run, tmp_path: Path) -> Path:
    """The checkpoint last.ckpt of a copy of a run, with its best.ckpt."""
    folder = tmp_path / "runs" / "digits" / digits_run.folder.name
    shutil.copytree(digits_run.folder / "checkpoints", folder / "checkpoints")
    return folder / "checkpoints" / "last.ckpt"


class Place(NamedTuple):
    name: str  # of a record
    offset: int  # of its content in the file
    size: int


def records(path: Path) -> list[Place]:
    """Where the contents of a checkpoint's records lie, but for empty ones."""
    content, found = path.read_bytes(), []
    for member in zipfile.ZipFile(path).infolist():
        lengths = struct.unpack("<HH", content[member.header_offset + 26 : member.header_offset + 30])
        found.append(Place(member.filename, member.header_offset + 30 + sum(lengths), member.file_size))
    return [place for place in found if place.size]


def weights_of(path: Path) -> Place:
    """The largest tensor."""
    return max((place for place in records(path) if "/data/" in place.name), key=lambda place: place.size)


def flip(path: Path, offset: int, bit: int = 6) -> None:
    with path.open("r+b") as file:
        file.seek(offset)
        (byte,) = file.read(1)
        file.seek(offset)
        file.write(bytes([byte ^ 1 << bit]))


def changed(path: Path, edit: Callable[[dict[str, Any]], None]) -> Path:
    """The checkpoint, written anew after `edit` changed its content in place."""
    checkpoint = torch.load(path, weights_only=True)
    edit(checkpoint)
    torch.save(checkpoint, path)
    return path


# -- bits ----------------------------------------------------------------------------------------


@pytest.mark.heavy
def test_a_flipped_bit_in_any_record_is_refused_by_whatever_reads_it(
    last: Path, tmp_path: Path, make_trainer, tiny_gan, tiny_data, complaint: Callable[..., str]
) -> None:
    verbs = [
        ["sample", str(last), f"--out={tmp_path / 'out'}"],
        ["evaluate", str(last), "--count=50"],
        ["interpolate", str(last), f"--out={tmp_path / 'out'}"],
        ["export", str(last), f"--out={tmp_path / 'out'}"],
    ]
    assert len(records(last)) > 20
    for number, place in enumerate(records(last)):
        at = place.offset + place.size // 2
        flip(last, at)
        with pytest.raises(ValueError, match=r"last\.ckpt cannot be read .*best\.ckpt") as caught:
            GAN.load_from_checkpoint(last)
        assert repr(place.name) in str(caught.value) and "\n" not in str(caught.value)
        with pytest.raises(ValueError, match=r"last\.ckpt cannot be read .*best\.ckpt"):
            make_trainer(1).fit(tiny_gan(), datamodule=tiny_data(), ckpt_path=last)
        assert str(last.with_name("best.ckpt")) in complaint(*verbs[number % len(verbs)])
        flip(last, at)
    assert not (tmp_path / "out").exists()
    GAN.load_from_checkpoint(last)


def test_a_flipped_bit_anywhere_is_refused_or_changes_nothing(tmp_path: Path) -> None:
    """Headers and padding have no checksums."""
    weights = {f"layer.{index}": torch.randn(3, 5) for index in range(4)}
    path, draw, refusals = tmp_path / "some.ckpt", random.Random(0), 0
    torch.save({"state_dict": weights, "litgan": {"images_seen": 7}}, path)
    for _ in range(600):
        at, bit = draw.randrange(path.stat().st_size), draw.randrange(8)
        flip(path, at, bit)
        try:
            found = checkpoints.read(path)
        except ValueError:
            refusals += 1
        else:
            assert found["litgan"] == {"images_seen": 7} and found["state_dict"].keys() == weights.keys()
            assert all(torch.equal(found["state_dict"][name], weights[name]) for name in weights)
        flip(path, at, bit)
    assert refusals > 100


def test_a_resume_refuses_it_and_the_last_falls_back_to_the_best(
    last: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], complaint: Callable[..., str]
) -> None:
    flip(last, weights_of(last).offset)
    before = last.read_bytes()
    places = [f"--trainer.default_root_dir={tmp_path / 'runs'}", f"--ckpt_path={last}"]
    options = ["fit", *PLAIN, *CLASSES, *places]
    assert str(last.with_name("best.ckpt")) in complaint(*options)
    assert last.read_bytes() == before
    assert find_checkpoint("last", tmp_path / "runs", "digits") == last.with_name("best.ckpt")
    assert str(last) in capsys.readouterr().err
    last.with_name("best.ckpt").write_bytes(b"")  # no remedy, then
    assert "best.ckpt" not in complaint(*options)


def test_of_ranks_that_load_together_the_first_of_a_machine_verifies(
    last: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flip(last, weights_of(last).offset)
    load = checkpoints.AtomicCheckpointIO().load_checkpoint
    monkeypatch.setenv("LOCAL_RANK", "1")
    with pytest.raises(ValueError, match=r"last\.ckpt cannot be read"):  # they have not joined yet
        load(last)
    dist.init_process_group("gloo", init_method=f"file://{tmp_path / 'meeting'}", rank=0, world_size=1)
    load(last)
    found = find_checkpoint("last", tmp_path / "runs", "digits")
    assert found == last.with_name("best.ckpt"), "all ranks choose alike"
    monkeypatch.setenv("LOCAL_RANK", "0")
    with pytest.raises(ValueError, match=r"last\.ckpt cannot be read"):
        load(last)


# -- archives that torch never writes ------------------------------------------------------------


def rewritten(path: Path, compression: int = zipfile.ZIP_STORED, extra: str = "") -> None:
    """Packs a checkpoint's records anew, one of them under a second name as well."""
    with zipfile.ZipFile(path) as whole:
        contents = [(member.filename, whole.read(member)) for member in whole.infolist()]
    with zipfile.ZipFile(path, "w", compression) as packed:
        for name, content in contents:
            packed.writestr(name, content)
            if extra and name.endswith("data/0"):
                packed.writestr(name.replace("data/0", extra), content)


def swelling(path: Path) -> None:
    """64 KiB that become 64 MiB."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as packed, packed.open("a/data/0", "w") as record:
        for _ in range(64):
            record.write(bytes(2**20))


def overlapping(path: Path) -> None:
    """A hundred records, all of which are the same bytes."""
    with zipfile.ZipFile(path, "w") as packed:
        packed.writestr("a/data/000", bytes(10_000))
        (member,) = packed.infolist()
        for number in range(1, 100):
            again = copy.copy(member)
            again.filename = f"a/data/{number:03}"
            packed.filelist.append(again)


def oversized(path: Path) -> None:
    """A record that claims more bytes than the file has, in both of its headers."""
    content = path.read_bytes()
    size = struct.pack("<II", *[max(place.size for place in records(path))] * 2)
    assert content.count(size) >= 1
    path.write_bytes(content.replace(size, struct.pack("<II", 10**9, 10**9)))


def legacy(path: Path) -> None:
    torch.save(torch.load(path, weights_only=True), path, _use_new_zipfile_serialization=False)


CRAFTED: dict[str, Callable[[Path], object]] = {
    "compressed": partial(rewritten, compression=zipfile.ZIP_DEFLATED),
    "swelling": swelling,
    "twice": partial(rewritten, extra="data/0"),
    "twice but for case": partial(rewritten, extra="DATA/0"),
    "overlapping": overlapping,
    "oversized": oversized,
    "behind other bytes": lambda path: path.write_bytes(bytes(100) + path.read_bytes()),
    "truncated": lambda path: path.write_bytes(path.read_bytes()[:-100]),
    "empty": lambda path: path.write_bytes(b""),
    "no archive": lambda path: path.write_bytes(b"nothing" * 1000),
    "legacy": legacy,
    "of no records": lambda path: zipfile.ZipFile(path, "w").close(),
}


@pytest.mark.parametrize("case", CRAFTED)
@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_an_archive_that_torch_never_writes_is_refused_before_it_is_read(case: str, last: Path) -> None:
    CRAFTED[case](last)
    tracemalloc.start()
    try:
        for load in (checkpoints.read, GAN.load_from_checkpoint):
            with pytest.raises(
                ValueError, match=r"last\.ckpt cannot be read \(.*take .*best\.ckpt"
            ) as caught:
                load(last)
            assert "\n" not in str(caught.value)
        assert tracemalloc.get_traced_memory()[1] < 8 * 2**20
    finally:
        tracemalloc.stop()


# -- weights that are none, and recipes that do not fit them ---------------------------------------


def one(value: torch.Tensor, number: float) -> torch.Tensor:
    """The same weight but for its first element."""
    value = value.contiguous().clone()
    value.view(-1)[0] = number
    return value


SPOILT: dict[str, Callable[[torch.Tensor], Any]] = {
    "is NaN": lambda value: one(value, float("nan")),
    "is infinite": lambda value: one(value, float("-inf")),
    "is complex": lambda value: value.to(torch.complex64),
    "more elements than the file holds": lambda value: torch.zeros(1).expand(value.shape),
    "is not plain numbers": lambda value: value.to_sparse(),
    "is float in it": lambda value: 1.0,
}


@pytest.mark.parametrize("flaw", SPOILT)
@pytest.mark.parametrize("side", ["generator", "discriminator", "ema.average"])
def test_a_weight_that_is_none_is_named(
    flaw: str, side: str, last: Path, tmp_path: Path, complaint: Callable[..., str]
) -> None:
    weights = torch.load(last, weights_only=True)["state_dict"]
    name = next(name for name, value in weights.items() if name.startswith(side) and value.ndim == 4)
    changed(last, lambda it: it["state_dict"].update({name: SPOILT[flaw](weights[name])}))
    said = complaint("sample", last, f"--out={tmp_path / 'out'}")
    assert name in said and flaw in said and not (tmp_path / "out").exists()


def test_a_resume_refuses_weights_that_are_none(tiny_gan, tiny_data, make_trainer, tmp_path: Path) -> None:
    trainer = make_trainer(1)
    trainer.fit(tiny_gan(), datamodule=tiny_data())
    trainer.save_checkpoint(path := tmp_path / "run.ckpt")
    weights = torch.load(path, weights_only=True)["state_dict"]
    name = next(iter(weights))
    changed(path, lambda it: it["state_dict"].update({name: one(weights[name], float("nan"))}))
    with pytest.raises(ValueError, match=f"{name} is NaN"):
        make_trainer(2).fit(tiny_gan(), datamodule=tiny_data(), ckpt_path=path)


class Masked(nn.Linear):
    """A layer with a mask, as attention has it."""

    def __init__(self) -> None:
        super().__init__(2, 2)
        self.register_buffer("mask", torch.tensor([0.0, float("-inf")]))


def test_a_buffer_may_be_infinite() -> None:
    layer = Masked()
    checkpoints.check_architecture({"state_dict": layer.state_dict()}, layer)
    layer.mask[0] = float("nan")
    with pytest.raises(ValueError, match="mask is NaN"):
        checkpoints.check_architecture({"state_dict": layer.state_dict()}, layer)


@pytest.mark.parametrize("side", ["generator", "discriminator"])
def test_a_gigantic_recipe_takes_no_memory(
    side: str, last: Path, tmp_path: Path, complaint: Callable[..., str]
) -> None:
    """With these widths one weight alone has 16 TB, which no machine gives."""
    widths = {"widths": [10**6, 10**6]}
    changed(last, lambda it: it["litgan"]["recipe"]["model"]["init_args"][side]["init_args"].update(widths))
    said = complaint("sample", last, f"--out={tmp_path / 'out'}")
    assert "of another architecture" in said and f"{side}." in said and "000000" in said


class Stepped(nn.Linear):
    """A layer whose constructor computes with a tensor."""

    def __init__(self) -> None:
        super().__init__(2, 2)
        self.rates = [rate.item() for rate in torch.linspace(0, 1, 3)]


def test_a_network_that_cannot_be_sketched_is_built_all_the_same() -> None:
    assert checkpoints.build_fitting({"state_dict": Stepped().state_dict()}, Stepped).rates == [0, 0.5, 1]
