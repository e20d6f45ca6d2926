"""The run's pictures and recordings as data URIs, within the size that a page may have."""

from __future__ import annotations

import base64
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path

from PIL import Image

from litgan.report.run import Run

MOST_BYTES = 15_000_000  # of all data URIs together
LARGEST_SIDE = 1600  # pixels of a picture that is re-encoded
PLAYED = {"wav": "audio/wav", "mid": "audio/midi", "txt": "text/plain"}  # kinds that are no picture


@dataclass
class Embedded:
    """What the page shows: kind -> images_seen -> content, and sentences on what it leaves out."""

    pictures: dict[str, dict[int, tuple[str, int]]] = field(default_factory=dict)  # URI, width in pixels
    players: dict[str, dict[int, str]] = field(default_factory=dict)  # URI, or the text itself
    real_picture: tuple[str, int] | None = None
    stills: dict[str, tuple[str, int]] = field(default_factory=dict)
    real_players: dict[str, str] = field(default_factory=dict)
    remarks: list[str] = field(default_factory=list)


def embed(run: Run, most: int = MOST_BYTES) -> Embedded:
    """Takes in all that fits into `most` characters: else pictures as JPEG, and then fewer moments.

    Recordings get a third of the room, or what the pictures leave of it.
    """
    shown = Embedded()
    players = {kind: files for kind, files in run.samples.items() if kind in PLAYED}
    real_players = {kind: path for kind, path in run.reals.items() if kind in PLAYED}
    wanted = sum(map(weigh, [*_paths(players), *real_players.values()]))
    room = most - embed_pictures(run, shown, most - min(most // 3, wanted))
    for kind, path in real_players.items():
        if weigh(path) <= room:
            shown.real_players[kind] = player(kind, path)
            room -= weigh(path)
        else:
            shown.remarks.append(
                f"{path.name} is too large for this page: it is in the run's folder samples."
            )
    moments = choose(players, weigh, room)
    for kind, files in players.items():
        shown.players[kind] = {at: player(kind, files[at]) for at in moments if at in files}
    shown.remarks += _left_out("recordings", moments, players)
    return shown


def embed_pictures(run: Run, shown: Embedded, room: int) -> int:
    """Takes in the pictures, and tells how many characters they take."""
    pictures = {kind: files for kind, files in run.samples.items() if kind not in PLAYED}
    real = run.reals.get("samples")
    always = [*run.stills.values(), *([real] if real else [])]
    paths = [*_paths(pictures), *always]
    encode: Callable[[Path], tuple[str, int]] = picture_uri
    size: Callable[[Path], int] = weigh
    if sum(map(weigh, paths)) > room:
        encoded = {path: jpeg_uri(path) for path in paths}
        encode, size = encoded.__getitem__, lambda path: len(encoded[path][0])
        shown.remarks.append(
            f"To keep this page small, pictures are JPEGs of at most {LARGEST_SIDE} pixels a side; "
            "the originals are in the run's folder samples."
        )
    taken = sum(map(size, always))
    shown.real_picture = encode(real) if real else None
    shown.stills = {kind: encode(path) for kind, path in run.stills.items()}
    moments = choose(pictures, size, room - taken)
    for kind, files in pictures.items():
        shown.pictures[kind] = {at: encode(files[at]) for at in moments if at in files}
    shown.remarks += _left_out("grids", moments, pictures)
    return taken + sum(len(uri) for files in shown.pictures.values() for uri, _ in files.values())


def choose(files: Mapping[str, Mapping[int, Path]], size: Callable[[Path], int], room: int) -> list[int]:
    """As many moments as fit into `room`, evenly chosen, the last one always among them."""
    moments = sorted({at for found in files.values() for at in found})
    sizes = {at: sum(size(found[at]) for found in files.values() if at in found) for at in moments}
    for count in range(len(moments), 0, -1):
        steps = max(1, count - 1)
        chosen = [moments[len(moments) - 1 - round(i * (len(moments) - 1) / steps)] for i in range(count)]
        if sum(sizes[at] for at in chosen) <= room:
            return sorted(chosen)
    return []


def weigh(path: Path) -> int:
    """Characters of a file's data URI, without its head."""
    return (path.stat().st_size + 2) // 3 * 4


def picture_uri(path: Path) -> tuple[str, int]:
    """A PNG as it is, and its width."""
    with Image.open(path) as picture:
        width = picture.width
    return uri("image/png", path.read_bytes()), width


def jpeg_uri(path: Path) -> tuple[str, int]:
    """A picture made smaller, and the width at which it is shown."""
    with Image.open(path) as picture:
        smaller = picture.convert("RGB")
    smaller.thumbnail((LARGEST_SIDE, LARGEST_SIDE))
    content = BytesIO()
    smaller.save(content, format="JPEG", quality=88)
    return uri("image/jpeg", content.getvalue()), smaller.width


def player(kind: str, path: Path) -> str:
    """A text as it is, anything else as a data URI."""
    if kind == "txt":
        return path.read_text(encoding="utf-8", errors="replace")
    return uri(PLAYED[kind], path.read_bytes())


def uri(kind: str, content: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode('ascii')}"


def _paths(files: Mapping[str, Mapping[int, Path]]) -> list[Path]:
    return [path for found in files.values() for path in found.values()]


def _left_out(what: str, moments: list[int], files: Mapping[str, Mapping[int, Path]]) -> list[str]:
    there = len({at for found in files.values() for at in found})
    if len(moments) == there:
        return []
    how = ", evenly chosen" if moments else ""
    return [
        f"To keep this page small, it holds the {what} of {len(moments)} of {there} moments{how}; "
        "all are in the run's folder samples."
    ]
