"""The report of a run: one self-contained HTML page, made from its folder alone."""

from __future__ import annotations

from pathlib import Path

from litgan.files import whole
from litgan.report.page import render
from litgan.report.run import Run, read_run

__all__ = ["Run", "read_run", "render", "write_report"]


def write_report(folder: str | Path, out: str | Path | None = None) -> Path:
    """Reads a run folder and writes its page, whole or not at all; tells where.

    What is missing or broken in the folder is said on the page, one sentence each.

    Args:
        folder: of the run, `runs/<recipe>/<run id>`.
        out: the page; `report.html` in the run's folder if None.

    Raises:
        FileNotFoundError: if there is no such folder.
        ValueError: if it is no run folder.
        OSError: if the page cannot be written.
    """
    page = render(read_run(Path(folder)))
    path = Path(folder, "report.html") if out is None else Path(out)
    try:
        with whole(path) as partial:
            partial.write_text(page, encoding="utf-8")
    except OSError as error:
        raise OSError(
            f"The report {path} cannot be written ({error.strerror or error}): give another place with --out."
        ) from error
    return path
