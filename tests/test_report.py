from __future__ import annotations

import json
import os
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from litgan import cli
from litgan.report import write_report

VERDICT = {"images_seen": 64, "verdict": "COLLAPSED", "meaning": "All alike.", "remedy": "Add R1."}


class Page(HTMLParser):
    """The elements and the text of a run's page."""

    def __init__(self, run: Path) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.words = ""
        self.feed(write_report(run).read_text(encoding="utf-8"))
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.words += " ".join(data.split()) + " "

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]


def noise(path: Path, side: int = 8) -> None:
    """A PNG that does not compress."""
    pixels = np.random.default_rng(0).integers(0, 256, (side, side, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)


@pytest.fixture
def run(tmp_path: Path) -> Path:
    folder = tmp_path / "recipe" / "run"
    (folder / "samples").mkdir(parents=True)
    (folder / "config.yaml").write_text("realism: {extractor: {class_path: my.Eyes}, count: 300}\n")
    (folder / "metrics.csv").write_text(
        "images_seen,loss/generator,metric/fd_eyes\n0,,2.0\n64,0.5,3.0\n128,0.25,nan\n192,,4.0\n"
    )
    (folder / "health.jsonl").write_text(json.dumps(VERDICT) + "\n")
    for name in ("reals", "gradient_flow", "000000000", "000000192", "000000192_feedback"):
        noise(folder / "samples" / f"{name}.png")
    for name in ("reals", "000000000", "000000192"):
        for kind in ("txt", "wav", "mid"):
            (folder / "samples" / f"{name}.{kind}").write_text(f"{kind} of {name}")
    return folder


def test_the_page_shows_the_run(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cli.main(["report", str(run)])
    said = capsys.readouterr()
    assert said.out.strip() == str(run / "report.html") and said.err == ""
    page = Page(run)
    for words in (
        "recipe / run", "images seen 192", "extractor my.Eyes, count 300", "64 COLLAPSED All alike. Add R1.",
        "best metric/fd_eyes 3 after 64 images last metric/fd_eyes 4 after 192 images",
        "txt of reals", "txt of 000000192",
    ):  # fmt: skip
        assert words in page.words
    assert "txt of 000000000" not in page.words, "only the newest"
    assert len(page.all("audio")) == len(page.all("a")) == 2
    pictures = [(image["alt"], "hidden" in image) for image in page.all("img")]
    assert pictures[:2] == [("after 0 images", True), ("after 192 images", False)] and len(pictures) == 7
    assert {("loss/generator", False), ("metric/fd_eyes", False)} < set(pictures)
    (control,) = page.all("input")
    assert (control["type"], control["max"], control["value"]) == ("range", "1", "1")


def test_the_page_needs_nothing_else_and_is_the_same_again(run: Path, tmp_path: Path) -> None:
    for tag, attributes in Page(run).elements:
        assert tag not in ("link", "iframe", "object", "base")
        for name in ("src", "href", "srcset", "data", "action"):
            assert str(attributes.get(name, "data:")).startswith("data:")
    text = (run / "report.html").read_text(encoding="utf-8")
    assert not re.search(r"https?:|@import|url\(", text)
    assert write_report(run, tmp_path / "again.html").read_text(encoding="utf-8") == text


def test_nothing_of_the_files_becomes_markup(tmp_path: Path) -> None:
    evil = "</pre></script></title><script>alert(1)</script><u $\\frac{ onload=x>'"
    run = tmp_path / "<u>&recipe" / "{title}<u>"
    (run / "samples").mkdir(parents=True)
    (run / "config.yaml").write_text(json.dumps({"realism": {evil: evil + '"'}}))
    (run / "metrics.csv").write_text(f"images_seen,{evil},metric/fd_<u>\n1,2,3\n2,3,4\n")
    (run / "health.jsonl").write_text(json.dumps(VERDICT | dict.fromkeys(("verdict", "value"), evil)))
    (run / "samples" / "000000001.txt").write_text(evil)
    page = Page(run)
    assert len(page.all("script")) == 1 and not page.all("u")
    assert page.words.count("alert(1)") >= 7, "it is there as text"
    assert not any(name.startswith("on") for _, attributes in page.elements for name in attributes)


def test_damage_is_named_and_the_rest_is_shown(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (run / "config.yaml").write_bytes(b"realism: [\xff\0<")
    (run / "metrics.csv").write_bytes(
        b"images_seen,metric/fd_eyes,x\n64,3,1\n\0\0,\0\n256,1\n320,1.5,1\n384,0."
    )
    (run / "health.jsonl").write_bytes(b'[]\n{"images_seen": 3\n\xff\0\n' + json.dumps(VERDICT).encode())
    picture = run / "samples" / "000000192.png"
    picture.write_bytes(picture.read_bytes()[:100])
    page = Page(run)
    for words in ("last metric/fd_eyes 1.5 after 320 images", "COLLAPSED", "realism: ["):
        assert words in page.words
    assert len(page.all("img")) == 6 and not page.all("input"), "one grid is left"
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert all(name in said for name in ("config.yaml", "metrics.csv", "health.jsonl", "000000192.png"))


FILES = [
    "config.yaml",
    "metrics.csv",
    "health.jsonl",
    *(f"samples/000000192.{end}" for end in ("png", "txt", "wav", "mid")),
]
MADE = {  # instead of a file of the run
    "a folder": Path.mkdir,
    "a pipe": os.mkfifo,
    "a dangling link": lambda path: path.symlink_to("/nowhere"),
    "a link to itself": lambda path: path.symlink_to(path),
    "a device": lambda path: path.symlink_to("/dev/zero"),
}  # fmt: skip


@pytest.mark.parametrize("name", [*FILES, "samples"])
@pytest.mark.parametrize("kind", [*MADE, "a link to another file"])
def test_only_regular_files_of_the_run_are_read(
    kind: str, name: str, run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "secret").write_text("SECRET")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "000000192.txt").write_text("SECRET")
    path = run / name
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    if kind == "a link to another file":
        path.symlink_to(tmp_path / ("folder" if name == "samples" else "secret"))
    else:
        MADE[kind](path)
    assert "SECRET" not in Page(run).words
    said = capsys.readouterr().err
    assert (name in said) == ((name, kind) != ("samples", "a folder")) and said.count("\n") <= 1


LARGE = {
    "a long name of a column": ("metrics.csv", f"images_seen,{'x' * 100_000}\n1,2\n2,3\n"),
    "a long field": ("metrics.csv", f"images_seen,x\n1,{'2' * 200_000}\n2,3\n"),
    "many columns": ("metrics.csv", f"images_seen{''.join(f',k{i}' for i in range(400))}\n1{',1' * 400}\n"),
    "a deep event": ("health.jsonl", f'{{"verdict": {"[" * 970}{"]" * 970}}}\n'),
    "a deeper event": ("health.jsonl", f'{{"verdict": {"[" * 10**5}{"]" * 10**5}}}\n'),
    "a long event": ("health.jsonl", json.dumps({"meaning": "x" * 2_000_000})),
    "a large number": ("health.jsonl", f'{{"images_seen": {"9" * 5000}}}\n'),
    "a deep recipe": ("config.yaml", f"realism: {'[' * 970}{']' * 970}\n"),
    "aliases of aliases": (
        "config.yaml",
        "a0: &a0 [1]\n"
        + "".join(f"a{i + 1}: &a{i + 1} [{f'*a{i}, ' * 9}]\n" for i in range(30))
        + "realism: {x: *a30}\n",
    ),
    "a circle": ("config.yaml", "realism: &r {extractor: *r}\n"),
}


@pytest.mark.heavy
@pytest.mark.parametrize("name", LARGE)
def test_no_content_is_too_long_or_too_deep_for_a_page(name: str, tmp_path: Path) -> None:
    file, text = LARGE[name]
    (tmp_path / "config.yaml").touch()
    (tmp_path / file).write_text(text)
    assert len(Page(tmp_path).words) < 200_000 and (tmp_path / "report.html").stat().st_size < 4_000_000


@pytest.mark.parametrize("only", ["config.yaml", "metrics.csv", "samples"])
def test_an_empty_run_has_a_page(tmp_path: Path, capsys: pytest.CaptureFixture[str], only: str) -> None:
    (tmp_path / only).mkdir() if only == "samples" else (tmp_path / only).touch()
    assert "images seen 0" in Page(tmp_path).words
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert all((name in said) == (name != only) for name in ("config.yaml", "metrics.csv", "samples"))


def test_what_is_no_run_or_no_place(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    blocked = run / "config.yaml" / "report.html"
    for arguments in ([str(run.parent)], [str(run / "nowhere")], [str(run), "--out", str(blocked)]):
        with pytest.raises(SystemExit, match="1"):
            cli.main(["report", *arguments])
        said = capsys.readouterr().err
        assert arguments[-1] in said and said.count("\n") == 1, "one sentence, no traceback"


def test_the_page_of_a_long_run_stays_small(run: Path) -> None:
    for step in range(1, 100):
        noise(run / "samples" / f"{step * 1000:09d}.png", side=250 if step > 60 else 8)
    (run / "samples" / "000099000.wav").write_bytes(bytes(4_000_000))
    page = Page(run)
    assert (run / "report.html").stat().st_size < 4_000_000
    (control,) = page.all("input")
    assert control["value"] == control["max"] and 5 < int(control["max"] or 0) < 40
    assert "after 99,000 images" in [image["alt"] for image in page.all("img")], "the last one always"
