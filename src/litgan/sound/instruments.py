"""Classes of drums, from the names that drum kits give to their instruments."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ElementTree
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from litgan.data.files import UnusableFileError
from litgan.rebuild import first_line

KIT = "drumkit.xml"  # in the folder of a kit of Hydrogen, beside its sounds
PATTERNS = {  # class -> what the names of its instruments contain; the first that fits counts
    "hihat": r"\bhat\b|hi-?hat|hh\b",
    "cymbal": r"crash|ride|splash|china|cymbal|paiste bell",
    "snare": r"snare",
    "kick": r"kick|bass ?drum",
    "stick": r"stick|rim",
    "bell": r"bell|block|glass|agogo|triangle|clave|click",
    "tom": r"\btom|conga|bongo|cajon|djembe|dununba|kenkeni|sangban",
    "shaker": r"clap|snap|tamb|marac|shak|cabasa",
}
INSTRUMENTS = (*PATTERNS, "other")  # other: effects, beats and what the names do not say


def instrument(name: str) -> int:
    """The index in `INSTRUMENTS` of the class that an instrument's name tells."""
    found = (i for i, pattern in enumerate(PATTERNS.values()) if re.search(pattern, name.lower()))
    return next(found, len(PATTERNS))


def label_by_instrument(root: Path, names: Sequence[str]) -> Tensor:
    """Labels, int64 [N], of files below `root`: by the instrument that they belong to, else their own name.

    Raises ValueError: the description of a kit is no XML.
    """
    kits = {folder: instruments_of(root / folder) for folder in {str(Path(name).parent) for name in names}}
    called = (kits[str(path.parent)].get(path.name, path.stem) for path in map(Path, names))
    return torch.tensor([instrument(each) for each in called])


def instruments_of(folder: Path) -> dict[str, str]:
    """The name of the first instrument that plays each file of a kit, by the file's name; none without it."""
    path = folder / KIT
    if not path.is_file():
        return {}
    try:
        kit = ElementTree.parse(path)
    except ElementTree.ParseError as error:
        raise UnusableFileError(path, f"is no XML ({first_line(error)})") from error
    found: dict[str, str] = {}
    for each in kit.iterfind(".//{*}instrument"):  # with a namespace or without one
        for file in each.iterfind(".//{*}filename"):
            found.setdefault(file.text or "", each.findtext("{*}name") or "")
    return found
