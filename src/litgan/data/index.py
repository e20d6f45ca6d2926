"""What is known of the files of a large data set, found out once for all processes and runs of a machine."""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

from litgan.files import atomic_write, cache_folder, warn

_T = TypeVar("_T")

VERSION = 1  # raise it when what is found out, or how, changes
LARGE = 1 << 20  # bytes; what takes less is found again as fast
TICK = 2_000_000_000  # nanoseconds in which some file system may not tell two changes apart


class Index:
    """Answers about the files below a folder, or in an archive; plain data, as JSON keeps them.

    They are kept in $LITGAN_CACHE until a file is added to one of its folders, removed or renamed, or the
    archive is written anew. That the content of a file changes is not noticed.

    Args:
        root: folder or archive.
    """

    def __init__(self, root: Path) -> None:
        name = hashlib.blake2b(str(root.absolute()).encode(), digest_size=8).hexdigest()
        self.root, self.path = root, cache_folder() / f"files-{name}.json"
        self.folders: dict[str, list[int]] = {}  # below `root`, with `state_of` each when it was listed
        self.answers: dict[str, Any] = {}
        with suppress(OSError, ValueError, LookupError, TypeError, AttributeError):  # none, or a damaged one
            saved = json.loads(self.path.read_text())
            known = saved["folders"].items()
            if saved["version"] == VERSION and all(state_of(root / one) == state for one, state in known):
                self.folders, self.answers = saved["folders"], saved["answers"]

    def __call__(self, question: str, find: Callable[[], _T]) -> _T:
        """What `find` returns, or has returned before; the first one to be called fills `folders`."""
        if question not in self.answers:
            self.answers[question] = find()
            self._save()
        answer: _T = self.answers[question]
        return answer

    def _save(self) -> None:
        text = json.dumps({"version": VERSION, "folders": self.folders, "answers": self.answers})
        young = time.time_ns() - TICK
        if len(text) < LARGE or not self.folders or any(at > young for at, _ in self.folders.values()):
            return
        try:
            with atomic_write(self.path) as partial:
                partial.write_text(text)
        except OSError as error:
            warn(
                f"What is known of {self.root} is not kept ({error}): set LITGAN_CACHE to a writable folder."
            )


def state_of(path: Path) -> list[int]:
    """When a folder or file was changed, in nanoseconds, and its size."""
    info = os.stat(path)
    return [info.st_mtime_ns, info.st_size]
