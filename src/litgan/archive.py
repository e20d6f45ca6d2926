"""Archives: what a zip file promises and torch does not check, compared before torch reads a checkpoint."""

from __future__ import annotations

import zipfile
from collections.abc import Sequence
from pathlib import Path


def verify(path: Path) -> None:
    """Compares every member of a zip archive with its CRC-32, a piece at a time.

    torch writes these checksums and does not compare them when it reads. Nothing is read before it is clear
    that the members hold no more bytes than the file.

    Raises:
        zipfile.BadZipFile: what is wrong, as the second half of a sentence.
        OSError: if the file cannot be read.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            _check_layout(archive.infolist(), path.stat().st_size)
            damaged = archive.testzip()
    except (zipfile.BadZipFile, OSError):
        raise
    except Exception as error:  # whatever damaged headers provoke
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
