from __future__ import annotations

import json
import re
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
