"""Members of an archive, read one at a time from any process or thread."""

from __future__ import annotations

import io
import struct
import tarfile
import zipfile
from bisect import bisect_left
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO

import numpy as np

FIELDS = ("header_offset", "compress_size", "file_size", "CRC", "compress_type", "flag_bits")
ENCRYPTED = 1


class Zip:
    """Where the members of a .zip lie, in an array that forked processes share.

    zipfile's own directory takes 0.6 KB for each of them, in every process.

    Args:
        path: of the .zip.

    Raises:
        OSError, zipfile.BadZipFile: it cannot be read.
    """

    def __init__(self, path: Path) -> None:
        with zipfile.ZipFile(path) as archive:  # some programs write backslashes
            entries = {entry.filename.replace("\\", "/"): entry for entry in archive.infolist()}
        self.path, self.names = path, sorted(entries)
        rows = [[getattr(entries[name], field) for field in FIELDS] for name in self.names]
        self.table = np.array(rows, np.int64).reshape(-1, len(FIELDS))

    def open(self, name: str) -> BinaryIO:
        """A member, decompressed; its checksum is compared.

        Raises Exception: whatever a damaged archive gives rise to.
        """
        member = zipfile.ZipInfo(name)
        for field, value in zip(FIELDS, self.table[self.row(name)].tolist(), strict=True):
            setattr(member, field, value)
        if member.flag_bits & ENCRYPTED:
            raise RuntimeError("it is encrypted")
        stream = self.path.open("rb")
        stream.seek(member.header_offset + 26)  # where the lengths of name and extra field are
        stream.seek(sum(struct.unpack("<HH", stream.read(4))), 1)
        return zipfile.ZipExtFile(stream, "r", member, close_fileobj=True)  # type: ignore[return-value]

    def row(self, name: str) -> int:
        """The place of a name in `names`, where it is."""
        return bisect_left(self.names, name)


class Tar:
    """Files in uncompressed .tar archives, by SHARD/NAME.

    Args:
        paths: of the archives.
        members: what an earlier one has found, for the same archives.

    Raises:
        OSError, tarfile.TarError: one cannot be read, or is compressed.
    """

    def __init__(
        self, paths: Sequence[Path], members: tuple[list[str], list[list[int]]] | None = None
    ) -> None:
        self.paths = list(paths)
        self.names, rows = members or self._find()
        self.table = np.array(rows, np.int64).reshape(-1, 3)

    def members(self) -> tuple[list[str], list[list[int]]]:
        """Plain data, from which it can be made again."""
        return self.names, self.table.tolist()

    def _find(self) -> tuple[list[str], list[list[int]]]:
        """Sorted names; number of the archive, first byte and size of each."""
        found: list[tuple[str, list[int]]] = []
        for number, path in enumerate(self.paths):
            with tarfile.open(path, "r:") as archive:
                for member in archive:
                    archive.members = []  # type: ignore[attr-defined]  # where it would keep all
                    if member.isfile():
                        place = [number, member.offset_data, member.size]
                        found.append((f"{path.name}/{member.name.removeprefix('./')}", place))
        found.sort()
        return [name for name, _ in found], [place for _, place in found]

    def open(self, name: str) -> BinaryIO:
        number, first, size = self.table[bisect_left(self.names, name)].tolist()
        with self.paths[number].open("rb") as stream:
            stream.seek(first)
            return io.BytesIO(stream.read(size))
