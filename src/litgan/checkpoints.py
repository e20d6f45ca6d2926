"""Checkpoints: written atomically, read without running code, enough by themselves to rebuild a run."""

from __future__ import annotations

import os
import re
import zipfile
from collections.abc import Callable, Sequence
from copy import deepcopy
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from lightning.fabric.plugins.io import TorchCheckpointIO
from packaging.version import VERSION_PATTERN
from torch import Tensor, nn

from litgan.files import atomic_write, disk_error, warn
from litgan.fine_tuning import is_of_network, shorten
from litgan.processes import local_rank
from litgan.rebuild import LARGEST, STRICT, Builder, check_plain

Network = TypeVar("Network", bound=nn.Module)
RUN = ("last.ckpt", "best.ckpt", "healthy.ckpt")  # the checkpoints of a run, the preferred ones first
AVERAGES = re.compile(r"(generator|ema\.average|extra_emas\.\w+\.average)\.")  # all of the generator's shape
CLOCK = ("images_seen", "discriminator_updates")
FORMAT = 4  # of what is saved: raised when names of weights or entries change


class AtomicCheckpointIO(TorchCheckpointIO):
    """Writes a checkpoint completely or not at all: temporary name, fsync, rename. Loads weights only.

    Args:
        verified: a checkpoint that this process has just verified, and need not verify again.
    """

    def __init__(self, verified: Path | None = None) -> None:
        self.verified = verified

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: Any, storage_options: Any | None = None
    ) -> None:
        """Writes a hidden file beside `path` and renames it; keeps an old file that has seen more images.

        Raises OSError: one sentence, if the disk refuses; the old file is untouched.
        """
        path = Path(path)
        try:
            with atomic_write(path) as partial:
                with partial.open("wb") as file:
                    torch.save(checkpoint, file)
                    file.flush()
                    os.fsync(file.fileno())
                if path.is_file():
                    keep_older(path, checkpoint.get("litgan", {}).get("images_seen", 0))
        except OSError as error:
            raise OSError(
                f"The checkpoint {path} cannot be saved {disk_error(error)}; what was saved before is intact."
            ) from error

    def load_checkpoint(
        self, path: Any, map_location: Any = "cpu", weights_only: bool | None = True
    ) -> dict[str, Any]:
        verified, self.verified = self.verified, None  # once: it may be written anew
        checkpoint = read_together(path, map_location, verify=verified is None or Path(path) != verified)
        version = checkpoint.get("pytorch-lightning_version")
        if not isinstance(version, str) or not re.fullmatch(VERSION_PATTERN, version, re.VERBOSE | re.I):
            raise ValueError(f"The checkpoint {path} names no version of Lightning: take another one.")
        return checkpoint


def keep_older(path: Path, images_seen: int) -> None:
    """Keeps the checkpoint at `path` under another name, if its successor has seen fewer images.

    `last.ckpt` becomes `last-000320000.ckpt` after 320,000 images, `last-unreadable.ckpt` if it cannot be
    read, with a further number if that name is taken. It keeps its first name as well until it is replaced,
    if the file system has links. Its tensors are not read.
    """
    try:
        earlier = torch.load(path, map_location="cpu", mmap=True, weights_only=True)
        seen = earlier.get("litgan", {}).get("images_seen", 0)
        if seen <= images_seen:
            return
        label, reason = f"{seen:09d}", f"had seen {seen:,} images, the new one {images_seen:,}"
    except Exception:  # whatever a broken file raises
        label, reason = "unreadable", "cannot be read"
    names = (f"{path.stem}-{label}{f'-{number}' if number > 1 else ''}{path.suffix}" for number in count(1))
    backup = next(path.with_name(name) for name in names if not path.with_name(name).exists())
    try:
        os.link(path, backup)
    except OSError:  # not every file system has links
        path.rename(backup)
    warn(f"{path} {reason}: the earlier file stays as {backup.name}.")


def read_together(path: str | Path, map_location: Any = None, *, verify: bool = True) -> dict[str, Any]:
    """`read` by all ranks of a process group, if there is one: the first of each machine verifies the file.

    Weights stay mapped until networks copy them; the rest is in memory, as another machine may replace the
    file.

    Raises FileNotFoundError or ValueError: on all ranks, if one of them cannot read it.
    """
    if dist.is_available() and dist.is_initialized():
        fault: Exception | None = None
        try:
            if local_rank() == 0:
                read(path, verify=verify, mapped=True)
        except (FileNotFoundError, ValueError) as error:
            fault = error
        faults: list[Exception | None] = [None] * dist.get_world_size()
        dist.all_gather_object(faults, fault)
        for one in filter(None, faults):
            raise one
        verify = False
    checkpoint = read(path, map_location, verify=verify, mapped=True)
    return {key: part if key == "state_dict" else deepcopy(part) for key, part in checkpoint.items()}


def read(
    path: str | Path, map_location: Any = None, *, verify: bool = True, mapped: bool = False
) -> dict[str, Any]:
    """The content of a checkpoint that fits its checksums, unpickled as plain data and tensors only.

    Args:
        path: of the file.
        map_location: device of the tensors; None for the CPU.
        verify: whether checksums are compared, for which the whole file is read.
        mapped: leave tensors in the file until they are used; it must not be written over before.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it is damaged, hostile, or not litgan's; names another checkpoint of the run.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"There is no checkpoint at {path}: give the path of a .ckpt file.")
    try:
        if verify:
            verify_archive(path)
        checkpoint = torch.load(path, map_location=map_location or "cpu", weights_only=True, mmap=mapped)
    except Exception as error:  # whatever a damaged or hostile file raises
        reason = error if isinstance(error, zipfile.BadZipFile) else type(error).__name__
        siblings = (path.with_name(name) for name in RUN if name != path.name)
        other = next((one for one in siblings if one.is_file() and zipfile.is_zipfile(one)), None)
        raise ValueError(
            f"The checkpoint {path} cannot be read ({reason}): it is damaged, not litgan's, or holds objects "
            f"that would run code; take {other or 'another checkpoint of the run'}."
        ) from error
    parts = ("litgan", "state_dict")
    if not isinstance(checkpoint, dict) or not all(isinstance(checkpoint.get(part), dict) for part in parts):
        raise ValueError(
            f"The checkpoint {path} was not written by litgan: give one from a run's checkpoints folder."
        )
    found = checkpoint["litgan"].get("format", 1)
    if type(found) is not int or found != FORMAT:
        raise ValueError(
            f"The checkpoint {path} has format {found} and this version of litgan reads {FORMAT}: use the "
            "version that wrote it, or train again."
        )
    _check_entries(checkpoint, path)
    return checkpoint


def verify_archive(path: Path) -> None:
    """Checks the layout and the CRC-32 of each member of a zip archive, which torch writes and does not read.

    Raises:
        zipfile.BadZipFile: the fault, as part of a sentence.
        OSError: if the file cannot be read.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            _check_layout(archive.infolist(), path.stat().st_size)  # first: no member is larger than the file
            damaged = archive.testzip()
    except (zipfile.BadZipFile, OSError):
        raise
    except Exception as error:  # whatever damaged headers raise
        raise zipfile.BadZipFile(str(error)) from error
    if damaged is not None:
        raise zipfile.BadZipFile(f"its record {damaged!r:.80} does not fit its checksum")


def _check_layout(members: Sequence[zipfile.ZipInfo], size: int) -> None:
    """Refuses what torch never writes: members compressed, overlapping or repeated, or bytes before them."""
    ordered = sorted(members, key=lambda member: member.header_offset)
    names: set[str] = set()
    ends = [member.header_offset for member in ordered[1:]] + [size]
    if not ordered or ordered[0].header_offset:
        raise zipfile.BadZipFile("it does not begin with a record")
    for member, end in zip(ordered, ends, strict=True):
        name = f"its record {member.filename!r:.80}"
        if member.compress_type != zipfile.ZIP_STORED or member.compress_size != member.file_size:
            raise zipfile.BadZipFile(f"{name} is compressed")
        if member.header_offset + member.file_size > end:
            raise zipfile.BadZipFile(f"{name} overlaps another or ends behind the file")
        if member.filename.lower() in names:  # torch finds them without regard to case
            raise zipfile.BadZipFile(f"{name} is there twice")
        names.add(member.filename.lower())


def check_architecture(checkpoint: dict[str, Any], module: nn.Module, strict: bool = True) -> None:
    """Compares names and shapes of all weights, and checks their values.

    Unless `strict`, a name may be missing on either side, as in torch's `load_state_dict`.

    Raises ValueError: one sentence with the first weight that differs, or is complex, NaN or, if it is a
    parameter, infinite.
    """
    weights, wanted = checkpoint["state_dict"], module.state_dict()
    saved, expected = ({name: _shape(one) for name, one in it.items()} for it in (weights, wanted))
    for name in [*expected, *saved] if strict else expected.keys() & saved.keys():
        if saved.get(name) != expected.get(name):
            there, here = (shapes.get(name, "absent") for shapes in (saved, expected))
            raise ValueError(
                f"The checkpoint is of another architecture: {name} is {there} in it and {here} in this "
                "recipe; resume with the recipe (config.yaml) of the checkpoint's own run, or start a run "
                "from its weights with --init_from."
            )
    _check_values(weights, module)


def _check_values(weights: dict[str, Tensor], module: nn.Module) -> None:
    """Raises ValueError for saved weights of a module that are complex, NaN or, as parameters, infinite."""
    wanted, parameters = module.state_dict(), dict(module.named_parameters(remove_duplicate=False))
    for name, value in weights.items():
        if name in wanted and (flaw := _flaw(value, wanted[name], finite=name in parameters)):
            raise ValueError(f"The checkpoint's weight {name} {flaw}: take another checkpoint of the run.")


def _shape(value: Any) -> tuple[int, ...] | str:
    return tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__


def _flaw(value: Tensor, wanted: Tensor, finite: bool) -> str:
    """What is wrong with a saved weight; buffers may be infinite, as the masks of attention are."""
    if value.layout != torch.strided or value.is_quantized or value.is_meta:
        return "is not plain numbers"
    if value.untyped_storage().nbytes() < value.numel() * value.itemsize:
        return "has more elements than the file holds"
    if value.is_complex() and not wanted.is_complex():
        return "is complex"
    if value.isnan().any():
        return "is NaN"
    return "is infinite" if finite and not value.isfinite().all() else ""


def take_weights(gan: nn.Module, path: str | Path) -> None:
    """Copies from a checkpoint the weights of the networks that fit by name and shape, and says which do not.

    The generator and all its averages get the averaged weights. Of the file, which may come from a stranger,
    only tensors are used: its classes, data and condition may be others.

    Raises FileNotFoundError or ValueError: one sentence, if the file cannot be read or no parameter fits.
    """
    saved, own = read(path)["state_dict"], gan.state_dict()
    sources = {name: AVERAGES.sub("ema.average.", name, count=1) for name in own}
    fitting = {
        name: saved[source]
        for name, source in sources.items()
        if (AVERAGES.match(name) or is_of_network(name)) and _shape(saved.get(source)) == _shape(own[name])
    }
    networks = [name for name in own if is_of_network(name)]
    new = [name for name in networks if name not in fitting]
    parameters = dict(gan.named_parameters())
    if not any(name in parameters and own[name].ndim > 1 for name in fitting):  # one bias is no start
        raise ValueError(
            f"The checkpoint {path} has no weight matrix of a name and shape as in these networks: give "
            "--init_from one of similar networks, or leave it out."
        )
    _check_values(fitting, gan)
    gan.load_state_dict(own | fitting)
    others = f"; new are {shorten(new)}" if new else ""
    warn(f"{len(networks) - len(new)} of {len(networks)} tensors of the networks are from {path}{others}.")


def build_fitting(checkpoint: dict[str, Any], build: Callable[[], Network], strict: bool = True) -> Network:
    """Calls `build`, if the weights that it makes on the meta device, without memory, fit the checkpoint's.

    Raises ValueError: as `check_architecture` does.
    """
    try:
        with torch.device("meta"):
            sketch = build()
    except (RuntimeError, ValueError) as error:
        if "meta" not in str(error).lower():
            raise
        return build()  # somebody else's network, whose constructor computes with tensors
    check_architecture(checkpoint, sketch, strict)
    return build()


def clock(checkpoint: dict[str, Any]) -> tuple[int, int]:
    """`images_seen` and `discriminator_updates` when it was saved.

    Raises ValueError if one of them is no integer of at least 0.
    """
    counts = [checkpoint["litgan"].get(name) for name in CLOCK]
    for name, number in zip(CLOCK, counts, strict=True):
        if not _is_count(number):
            raise ValueError(f"The checkpoint's {name} is no count: take another checkpoint of the run.")
    return counts[0], counts[1]


def state_of(gan: Any, last_logs: dict[str, float]) -> dict[str, Any]:
    """What a GAN saves beside its weights."""
    return {
        "recipe": gan.recipe, "format": FORMAT, "last_logs": last_logs,
        "images_seen": gan.images_seen, "discriminator_updates": gan.discriminator_updates,
    }  # fmt: skip


def restore(gan: Any, checkpoint: dict[str, Any]) -> None:
    """Gives it back."""
    gan.images_seen, gan.discriminator_updates = clock(checkpoint)
    gan.last_logs = dict(checkpoint["litgan"].get("last_logs", {}))
    gan.recipe = gan.recipe or checkpoint["litgan"].get("recipe", {})


def build_gan(checkpoint: dict[str, Any], cls: type[Network], builder: Builder = STRICT) -> Network:
    """The GAN that the checkpoint's recipe describes, with fresh weights.

    Raises ValueError if the checkpoint carries no recipe, one that does not fit, or one that asks for classes
    that are not allowed.
    """
    return builder.build_subclass(cls, recipe_of(checkpoint, "model"), "model")


def load_gan(
    cls: type[Any], checkpoint: dict[str, Any], path: str | Path, map_location: Any = None,
    trust: str | Sequence[str] = (), strict: bool = True, arguments: dict[str, Any] | None = None,
) -> Any:  # fmt: skip
    """What `GAN.load_from_checkpoint` returns, of the content of a file; its arguments are the same."""
    build = partial(build_gan, checkpoint, cls, Builder(trust, path))
    gan = cls(**arguments) if arguments else build_fitting(checkpoint, build, strict)
    gan.strict_loading = strict
    gan.on_load_checkpoint(checkpoint)
    differing = gan.load_state_dict(checkpoint["state_dict"], strict=strict)
    for names, fate in zip(differing, ("missing in it and stay as they were made", "not used"), strict=True):
        if names:
            warn(f"Of the checkpoint {path} these weights are {fate}: {shorten(names)}.")
    return gan.to(map_location or "cpu").eval()


def build_data(checkpoint: dict[str, Any], cls: type, builder: Builder = STRICT) -> Any:
    """The data module of the checkpoint's recipe, a subclass of `cls`, with its state; reads no data."""
    data: Any = builder.build_subclass(cls, recipe_of(checkpoint, "data"), "data")
    state = checkpoint.get(type(data).__qualname__, {})  # Lightning's key for `state_dict()`
    if not isinstance(state, dict):
        raise ValueError(f"The checkpoint holds no state of {type(data).__qualname__}: take another one.")
    data.load_state_dict(state)
    return data


def recipe_of(checkpoint: dict[str, Any], part: str) -> dict[str, Any]:
    """A section of the checkpoint's recipe: model, data or realism."""
    recipe = checkpoint["litgan"].get("recipe") or {}
    check_plain(recipe)
    described = recipe.get(part) if isinstance(recipe, dict) else recipe
    if not described:
        raise ValueError(
            f"The checkpoint carries no recipe for its {part}, for its run was not started by `litgan fit`: "
            "pass the constructor's arguments to GAN.load_from_checkpoint."
        )
    if not isinstance(described, dict):
        raise ValueError(f"The checkpoint's recipe describes its {part} by no mapping: do not trust it.")
    return described


ENTRIES = {  # what Lightning and litgan read of a checkpoint
    "state_dict": dict, "litgan": dict, "callbacks": dict, "loops": dict, "optimizer_states": list,
    "lr_schedulers": list, "epoch": int, "global_step": int,
}  # fmt: skip


def _check_entries(checkpoint: dict[str, Any], path: str | Path) -> None:
    """Refuses entries of another type than litgan writes."""
    wrong = [name for name, kind in ENTRIES.items() if not isinstance(checkpoint.get(name, kind()), kind)]
    state = checkpoint["litgan"]
    wrong += [name for name in CLOCK if not _is_count(state.get(name, 0))]
    wrong += [name for name in ("recipe", "last_logs") if not isinstance(state.get(name, {}), dict)]
    items = {"callbacks": dict, "optimizer_states": dict, "last_logs": float}
    for name in items.keys() - wrong:
        group = (state if name == "last_logs" else checkpoint).get(name, [])
        members = group.values() if isinstance(group, dict) else group
        wrong += [name] * (not all(isinstance(member, items[name]) for member in members))
    if wrong:
        raise ValueError(
            f"The checkpoint {path} holds no {wrong[0]} as litgan writes it: take another one of the run."
        )
    check_plain(state.get("recipe"))


def _is_count(number: Any) -> bool:
    return type(number) is int and 0 <= number < LARGEST
