from __future__ import annotations

import base64
import hashlib
import json
import math
import random
import re
import shutil
import subprocess
from collections.abc import Iterator
from html import unescape
from html.parser import HTMLParser
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from litgan import cli
from litgan.loggers import read_metrics
from litgan.report import curves, files, read_run, render, write_report
from litgan.report.run import is_picture
from litgan.summary import draw_curves

DIGITS = Path(__file__).parents[1] / "configs" / "digits.yaml"
VOID = {"meta", "img", "input", "br", "link", "line", "path"}  # tags of ours that hold nothing


class Page(HTMLParser):
    """A page taken apart: its elements in order, its text, and whether they nest as they must."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.open: list[str] = []
        self.content: dict[str, list[str]] = {}  # tag -> text in each of its elements
        self.words = ""  # outside scripts and styles
        self.feed(text)
        self.close()
        assert self.open == [], "every element is closed"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {name: value or "" for name, value in attrs}))
        self.content.setdefault(tag, []).append("")
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert tag in VOID, f"<{tag}/> would stay open in HTML"
        self.handle_starttag(tag, attrs)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag, f"</{tag}> closes another element"

    def handle_data(self, data: str) -> None:
        for tag in self.open:
            self.content[tag][-1] += data
        if not {"script", "style"} & set(self.open):
            self.words += " ".join(data.split()) + " "

    def all(self, tag: str, **wanted: str) -> list[dict[str, str]]:
        wanted = {name.rstrip("_").replace("_", "-"): value for name, value in wanted.items()}
        return [found for name, found in self.elements if name == tag and wanted.items() <= found.items()]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The folder of a run of `litgan fit`: digits, 8 iterations of 32."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LITGAN_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))
        patch.setenv("WANDB_MODE", "disabled")
        patch.setenv("LITGAN_RUN_ID", "")
        root = tmp_path_factory.mktemp("runs")
        cli.main([
            "fit", "--config", str(DIGITS), "--trainer.max_steps=8", "--trainer.log_every_n_steps=2",
            "--data.batch_size=32", "--realism.count=300", "--realism.every=64", "--samples.every=64",
            "--gradients.every=128", "--model.generator.widths=[8,8]", "--model.discriminator.widths=[8,8]",
            "--trainer.accelerator=cpu", "--trainer.precision=32-true", f"--trainer.default_root_dir={root}",
        ])  # fmt: skip
        (folder,) = root.glob("digits/*")
        yield folder


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run folder written by hand: two rows, no pictures."""
    folder = tmp_path / "recipe" / "run"
    (folder / "samples").mkdir(parents=True)
    (folder / "config.yaml").write_text("model: {loss: {class_path: litgan.losses.Hinge}}\n")
    (folder / "metrics.csv").write_text(
        "images_seen,loss/generator,metric/fd_digits\n0,,9.0\n64,0.5,3.0\n128,0.25,4.0\n"
    )
    return folder


def noise(path: Path, side: int, seed: int = 0) -> None:
    """A PNG that does not compress."""
    pixels = np.random.default_rng(seed).integers(0, 256, (side, side, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)


def content(uri: str) -> bytes:
    return base64.b64decode(uri.partition(";base64,")[2], validate=True)


def test_a_trained_run_on_one_page(trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cli.main(["report", str(trained)])
    path = Path(capsys.readouterr().out.strip())
    assert path == trained / "report.html"
    page = Page(path.read_text(encoding="utf-8"))

    rows = read_metrics(trained / "metrics.csv")
    drawn = ", ".join(svg["aria-label"] for svg in page.all("svg", role="img")).replace(
        " over images seen", ""
    )
    assert set(drawn.split(", ")) == {key for row in rows for key in row} - {"images_seen"}
    found = {row["images_seen"]: row["metric/fd_digits"] for row in rows if "metric/fd_digits" in row}
    best = min((at for at in found if at), key=lambda at: found[at])
    assert f"best fd_digits {found[best]:.4g} after {best} images" in page.words
    assert f"last fd_digits {found[256]:.4g} after 256 images" in page.words
    assert "DCGANGenerator learns Digits from DCGANDiscriminator : NonSaturating loss, R1." in page.words
    for fact in ("extractor digits", "samples 300", "compared with Digits, split train", "seed 0"):
        assert fact in page.words
    assert (trained / "config.yaml").read_text() in page.content["pre"][-1]
    assert page.words.count("after 128 images, fd_digits") == 1, "the distance stands at its grid"


def test_pictures_are_those_of_the_run(trained: Path) -> None:
    page = Page(render(read_run(trained)))
    shown = sorted(content(image["src"]) for image in page.all("img"))
    assert shown == sorted(path.read_bytes() for path in (trained / "samples").glob("*.png"))
    moments = [frame["data-at"] for frame in page.all("div", class_="frame")]
    assert moments == ["0", "64", "128", "192", "256", "128", "256"]  # samples, then feedback
    visible = [frame["data-at"] for frame in page.all("div", class_="frame") if "hidden" not in frame]
    assert visible == ["256", "256"], "the last of each is there without the script"
    assert page.all("div", class_="slider")[0]["data-moments"] == "0,64,128,192,256"


def test_page_needs_nothing_else(trained: Path) -> None:
    text = render(read_run(trained))
    page = Page(text)
    assert not re.search(r"https?://|@import|url\(|//[a-z]+\.", text.replace("// ", ""))
    for tag, attributes in page.elements:
        assert tag not in ("link", "iframe", "object", "base")
        for name in ("src", "href", "data", "action", "srcset"):
            assert attributes.get(name, "data:").startswith("data:")
    (policy,) = page.all("meta", http_equiv="Content-Security-Policy")
    assert policy["content"].startswith("default-src 'none'")
    own = page.content["script"][-1]
    digest = base64.b64encode(hashlib.sha256(own.encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}'" in policy["content"], "our script may run, and no other"
    assert text == render(read_run(trained)), "the same run makes the same page"


def test_nothing_of_the_files_is_markup(tmp_path: Path) -> None:
    evil = '</pre></script><script>alert("1")</script><img src=x onerror=alert(2)>'
    folder = tmp_path / "<b>&recipe" / "<i>run"
    (folder / "samples").mkdir(parents=True)
    (folder / "config.yaml").write_text(
        f"realism: {{extractor: '{evil}'}}\nmodel:\n  generator: '{evil}'\n  discriminator: <u>\n"
        "  loss: <u>\n  penalties: [<u>, 3]\ndata: <u>\n"
    )
    (folder / "metrics.csv").write_text(
        f'images_seen,"{evil.replace(chr(34), "")}",metric/fd_<s>\n1,2.0,3.0\n2,3.0,4.0\n'
    )
    (folder / "samples" / "reals.txt").write_text(evil)
    event = {"images_seen": 1, "verdict": evil, "meaning": evil, "remedy": evil, "value": 1, "threshold": 2}
    (folder / "health.jsonl").write_text(json.dumps(event))
    page = Page(render(read_run(folder)))
    assert len(page.all("script")) == 2 and not page.all("img")
    assert not page.all("u") and not page.all("s") and len(page.all("i")) == len(page.all("i", class_="s0"))
    assert page.words.count('alert("1")') >= 6, "all of it is there as text"
    assert json.loads(page.content["script"][0])["end"] == 2


@pytest.mark.parametrize(
    ("health", "said"),
    [
        (None, "Verdicts Health was not watched in this run."),
        ("", "Verdicts None raised."),
        ("nonsense\n", "Verdicts What was raised cannot be read."),
        (
            '{"images_seen": 1000, "verdict": "COLLAPSED", "meaning": "All alike.", '
            '"remedy": "More penalty.", "value": 0.25, "threshold": 0.5}\n',
            "Verdicts COLLAPSED after 1,000 images 0.25, threshold 0.5 All alike. More penalty.",
        ),
    ],
)
def test_verdicts(run: Path, health: str | None, said: str) -> None:
    if health is not None:
        (run / "health.jsonl").write_text(health)
    page = Page(render(read_run(run)))
    assert said in page.words
    assert ("None raised" in page.words) == (health == "")
    raised = health is not None and "COLLAPSED" in health
    assert len(page.all("path", class_="event")) == 2 * raised, "an event is marked in every panel"


def test_verdicts_stand_in_the_order_of_time(run: Path) -> None:
    lines = [{"images_seen": at, "verdict": f"V{at}"} for at in (96, 32)]
    (run / "health.jsonl").write_text("\n".join(map(json.dumps, lines)) + '\n{"images_seen": 3}\n[]\n')
    found = read_run(run)
    assert [event.verdict for event in found.events or []] == ["V32", "V96"]
    assert found.remarks[-1] == "2 lines of health.jsonl cannot be read and are left out."


def spoil_nothing(run: Path) -> None:
    shutil.rmtree(run / "samples")
    (run / "metrics.csv").unlink()


def spoil_rows(run: Path) -> None:
    with (run / "metrics.csv").open("a") as file:
        file.write("192,0.5\nabc,1,1\n256,0.125,2\n320,1,2,3\n,1,1\n384,0.1")


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (spoil_nothing, "metrics.csv is missing: nothing was measured, or nothing yet."),
        (spoil_nothing, "The folder samples is missing, so there is nothing to see."),
        (spoil_rows, "5 lines of metrics.csv cannot be read and are left out."),
        (lambda run: (run / "metrics.csv").write_text("images_seen\n"), "metrics.csv has no row yet."),
        (
            lambda run: (run / "metrics.csv").write_bytes(b"\xff\0\n\0\n"),
            "2 lines of metrics.csv cannot be read",
        ),
        (lambda run: None, "The folder samples has no grid yet."),
        (
            lambda run: (run / "config.yaml").unlink(),
            "config.yaml is missing, so neither recipe nor protocol",
        ),
        (
            lambda run: (run / "config.yaml").write_text("a: [\n"),
            "config.yaml is no recipe, and is shown as it",
        ),
        (
            lambda run: (run / "samples" / "000000064.png").write_bytes(b"\x89PNG\r\n\x1a\n broken"),
            "samples/000000064.png cannot be read as PNG and is left out.",
        ),
    ],
)
def test_what_is_missing_or_broken_is_said_in_one_sentence(run: Path, spoil, said: str) -> None:  # type: ignore[no-untyped-def]
    spoil(run)
    found = read_run(run)
    assert [remark for remark in found.remarks if remark.startswith(said)]
    page = Page(render(found))
    assert said in page.words
    for remark in found.remarks:
        assert remark.endswith(".") and ". " not in remark


def test_rows_beside_a_broken_one_are_kept(run: Path) -> None:
    spoil_rows(run)
    assert read_run(run).points("metric/fd_digits") == [(0, 9.0), (64, 3.0), (128, 4.0), (256, 2.0)]


@pytest.mark.parametrize("name", ["metrics.csv", "health.jsonl"])
def test_a_file_that_is_cut_or_damaged_anywhere_costs_a_sentence(run: Path, name: str) -> None:
    event = {"images_seen": 64, "verdict": "COLLAPSED", "value": 0.5, "threshold": 1}
    (run / "health.jsonl").write_text(json.dumps(event) + "\n")
    content = (run / name).read_bytes()
    for at in range(len(content)):
        for damaged in (content[:at], content[:at] + b"\0" + content[at + 1 :]):
            (run / name).write_bytes(damaged)
            found = read_run(run)
            said = [remark for remark in found.remarks if f" of {name} cannot be read" in remark]
            cut = damaged == content[:at]
            whole = (
                not damaged or damaged.endswith(b"\n") or (name == "health.jsonl" and content[at:] == b"\n")
            )
            assert len(said) == (0 if cut and whole else 1), (at, damaged)
            if at % 10 == 0:
                assert all(sentence in Page(render(found)).words for sentence in said)


def test_curves_are_drawn_of_what_can_be_read(run: Path) -> None:
    content = (run / "metrics.csv").read_bytes()
    for damaged in (bytes(100), content[:50] + bytes(9)):
        (run / "metrics.csv").write_bytes(damaged)
        assert is_picture(draw_curves(run / "metrics.csv", run / "curves.png"))


@pytest.mark.parametrize("name", ["metrics.csv", "health.jsonl"])
def test_a_folder_in_the_place_of_a_file(run: Path, name: str) -> None:
    (run / name).unlink(missing_ok=True)
    (run / name).mkdir()
    render(read_run(run))


def test_best_is_what_best_ckpt_holds(run: Path) -> None:
    (run / "metrics.csv").write_text("images_seen,metric/fd_digits\n0,1.0\n64,nan\n128,3.0\n192,4.0\n")
    assert read_run(run).best() == (128, 3.0), "neither the untrained generator nor NaN is the best"
    assert "best fd_digits 3 after 128 images" in Page(render(read_run(run))).words
    (run / "metrics.csv").write_text("images_seen,metric/fd_digits\n0,1.0\n")
    assert read_run(run).best() is None


def test_what_is_no_run(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "empty").mkdir()
    for folder, said in {
        tmp_path / "nowhere": "There is no run folder",
        tmp_path
        / "empty": "is no run folder, it has neither config.yaml nor metrics.csv nor samples: give one",
        run.parent: f"give a run in it, e.g. {run}.",
    }.items():
        with pytest.raises(SystemExit, match="1"):
            cli.main(["report", str(folder)])
        complaint = capsys.readouterr().err
        assert said in complaint and complaint.count("\n") == 1, "one sentence, no traceback"
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match=r"report .* cannot be written .*: give another place with --out\.$"):
        write_report(run, tmp_path / "file" / "report.html")


def test_players_of_other_media(run: Path) -> None:
    for name in ("reals", "000000064"):
        noise(run / "samples" / f"{name}.png", 8)
        for kind in ("wav", "mid"):
            (run / "samples" / f"{name}.{kind}").write_bytes(f"{kind} of {name}".encode())
        (run / "samples" / f"{name}.txt").write_text(f"in the <beginning> of {name}\n")
    (run / "samples" / ".000000064.wav.partial").write_bytes(b"half")
    page = Page(render(read_run(run)))
    assert sorted(content(found["src"]) for found in page.all("audio")) == [
        b"wav of 000000064",
        b"wav of reals",
    ]
    links = {found["download"]: content(found["href"]) for found in page.all("a")}
    assert links == {"000000064.mid": b"mid of 000000064", "reals.mid": b"mid of reals"}
    assert page.content["pre"][:2] == ["in the <beginning> of 000000064\n", "in the <beginning> of reals\n"]


def test_a_page_stays_small(run: Path) -> None:
    for i in range(21):
        noise(run / "samples" / f"{i * 64:09d}.png", 64, seed=i)
        (run / "samples" / f"{i * 64:09d}.wav").write_bytes(random.Random(i).randbytes(3000))
    noise(run / "samples" / "reals.png", 64, seed=99)
    most = 100_000
    shown = files.embed(read_run(run), most)
    frames, sounds = shown.pictures["samples"], shown.players["wav"]
    assert shown.real_picture is not None
    taken = sum(len(uri) for uri, _ in [*frames.values(), shown.real_picture]) + sum(
        map(len, sounds.values())
    )
    assert 0.8 * most < taken < 1.01 * most
    for moments in (sorted(frames), sorted(sounds)):
        gaps = np.diff(moments) / 64
        assert moments[0] == 0 and moments[-1] == 1280 and max(gaps) - min(gaps) <= 1, "evenly chosen"
    assert Image.open(BytesIO(content(frames[0][0]))).format == "JPEG"
    assert len(shown.remarks) == 3
    for remark, what in zip(shown.remarks[1:], (("grids", frames), ("recordings", sounds)), strict=True):
        assert f"it holds the {what[0]} of {len(what[1])} of 21 moments" in remark
    assert not files.embed(read_run(run)).remarks, "what fits is shown whole"


def test_what_shares_axes() -> None:
    def points(*values: float) -> list[tuple[int, float]]:
        return list(enumerate(values))

    groups = curves.arrange({
        "loss/discriminator": points(1.0, 1.2),
        "loss/generator": points(-0.5, 0.7),
        "gradient/generator": points(3.0, 0.02),
        "gradient/feedback": points(1e-5, 1e-4),
        "gradient/vanishing": points(0.0, 0.2),
        "logits/real": points(1.0, 2.0),
        "logits/margin_10": points(1.0, 2.0),
        "logits/margin_90": points(2.0, 3.0),
        "telescope/generator/to_rgb": points(1.0, 2.0),
        "telescope/generator/blocks.0": points(2.0, 1.0),
        "telescope/discriminator/blocks.0": points(2.0, 1.0),
        "metric/fd_digits": points(70.0, 1.0),
        "metric/precision": points(0.001, 0.9),
        "metric/recall": points(0.0, 0.5),
        "speed/images_per_second": points(5.0, 5.0),
        "speed/peak_memory_gib": points(3.0, 4.0),
        "epoch": points(1, 2),
    })  # fmt: skip
    found = {group: [(list(panel.series), panel.log) for panel in panels] for group, panels in groups.items()}
    assert found == {
        "loss": [(["loss/generator", "loss/discriminator"], False)],
        "gradient": [
            (["gradient/generator"], True), (["gradient/feedback"], False), (["gradient/vanishing"], False),
        ],
        "logits": [(["logits/real"], False), (["logits/margin_10", "logits/margin_90"], False)],
        "telescope": [
            (["telescope/generator/to_rgb", "telescope/generator/blocks.0"], False),
            (["telescope/discriminator/blocks.0"], False),
        ],
        "metric": [(["metric/fd_digits"], True), (["metric/precision", "metric/recall"], False)],
        "speed": [(["speed/images_per_second"], False), (["speed/peak_memory_gib"], False)],
        "other": [(["epoch"], False)],
    }  # fmt: skip


@pytest.mark.parametrize("values", [(0.0, 5.0, 10.0), (0.01, 1.0, 100.0), (-3.0, -3.0, -3.0)])
def test_points_are_drawn_where_their_values_are(values: tuple[float, ...]) -> None:
    panel = curves.make_panel({"x": list(zip((0, 50, 100), values, strict=True))})
    line, dots = curves.trace(panel, panel.series["x"], end=100)
    drawn = [tuple(map(float, pair.split())) for pair in re.split("[ML]", line)[1:]]
    assert [x for x, _ in drawn] == [0.0, curves.ACROSS / 2, float(curves.ACROSS)]
    heights = [y for _, y in drawn]
    assert heights[1] == pytest.approx((heights[0] + heights[2]) / 2, abs=0.1), "the middle, on either axis"
    assert (heights[0] > heights[2]) == (values[0] < values[2]), "more is higher"
    assert min(heights) >= 0 and max(heights) <= curves.DOWN
    assert dots.count("h0") == 3
    for value, _ in curves.y_ticks(panel):
        assert -0.01 <= panel.down(value) <= curves.DOWN + 0.01


def test_a_curve_has_gaps_and_keeps_its_spikes() -> None:
    panel = curves.make_panel({"x": [(0, 1.0), (1, 2.0), (2, math.nan), (3, math.inf), (4, 1.0), (5, 3.0)]})
    line, _ = curves.trace(panel, panel.series["x"], end=5)
    assert re.sub(r"[\d. ]+", "", line) == "MLML"
    assert curves.numbers(panel)["series"][0][1] == [1.0, 2.0, None, None, 1.0, 3.0]

    long = [(at, 0.5) for at in range(30_000)]
    long[0], long[12_345], long[23_456], long[-1] = (0, 4.0), (12_345, 99.0), (23_456, -99.0), (29_999, 7.0)
    thin = curves.thin_out(long)
    assert len(thin) <= curves.MOST_POINTS + 2 and thin == sorted(thin) and set(thin) <= set(long)
    assert {long[0], long[12_345], long[23_456], long[-1]} <= set(thin)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0"),
        (320_000, "320k"),
        (1.5e6, "1.5M"),
        (0.25, "0.25"),
        (1e-5, "1e-5"),
        (-2000, "-2k"),
        (25, "25"),
    ],
)
def test_short_numbers(value: float, text: str) -> None:
    assert curves.short(value) == text


CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
DRIVE = """
const said = [], panel = document.querySelector(".panel"), svg = panel.querySelector("svg");
const values = () => [...panel.querySelectorAll("b")].map((b) => b.textContent).join(" ");
const frames = () => [...document.querySelectorAll(".frame:not([hidden])")];
const visible = () => frames().map((frame) => frame.dataset.at).join(" ");
const range = document.querySelector(".slider input"), reset = document.querySelector(".reset");
const box = svg.getBoundingClientRect(), unit = box.width / 400;
const send = (type, share) => svg.dispatchEvent(new PointerEvent(type, {
  clientX: box.left + (46 + share * 344) * unit, clientY: box.top + 40, pointerType: "touch", pointerId: 1}));
said.push(document.querySelector(".slider").hidden, values(), visible());
range.value = 1; range.dispatchEvent(new Event("input"));
said.push(visible(), document.querySelector(".slider output").textContent);
send("pointermove", 0.01); said.push(values(), panel.querySelector(".at").textContent);
send("pointerdown", 0.52); send("pointerup", 0.52); said.push(visible());
send("pointerdown", 0.25); send("pointerup", 0.75);
said.push(reset.hidden, panel.querySelector(".curves").getAttribute("transform"));
reset.click(); send("pointerleave", 0); said.push(reset.hidden, values());
const note = document.createElement("p"); note.id = "said"; note.textContent = JSON.stringify(said);
document.body.append(note);
"""


def browse(page: Path, tmp_path: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [
            str(CHROMIUM), "--headless", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr",
            f"--user-data-dir={tmp_path / 'home'}", "--virtual-time-budget=2000", "--window-size=1300,3000",
            "--dump-dom", page.as_uri(),
        ],
        capture_output=True, text=True, timeout=120,
    )  # fmt: skip


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium here")
def test_page_lives_in_a_browser(trained: Path, tmp_path: Path) -> None:
    page = write_report(trained, tmp_path / "report.html")
    opened = browse(page, tmp_path)
    assert 'class="seen' in opened.stdout, "the script has run under the page's own policy"
    assert "CONSOLE" not in opened.stderr, opened.stderr

    text = re.sub(r"<meta http-equiv=[^>]*>", "", page.read_text(encoding="utf-8"))
    driven = tmp_path / "driven.html"
    driven.write_text(text.replace("</body>", f"<script>{DRIVE}</script></body>"), encoding="utf-8")
    found = browse(driven, tmp_path)
    said = re.search(r'<p id="said">(.*?)</p>', found.stdout)
    assert said, found.stderr
    metric = dict(read_run(trained).points("metric/fd_digits"))
    last, first = curves.number(metric[256]), curves.number(metric[0])
    assert json.loads(unescape(said[1])) == [
        False, last, "256 256",  # the slider is there, and all as without the script
        "64 128", "64 images",  # its second moment; feedback was first drawn after 128 images
        first, "3 images",  # read off near the start
        "128 128",  # a click shows the nearest moment
        False, "translate(-172.000 0) scale(2.000000 1)",  # the middle half is zoomed in
        True, last,
    ]  # fmt: skip
