from __future__ import annotations

import json
import resource
import shutil
import signal
import struct
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import wandb
import yaml
from lightning.pytorch.loggers import TensorBoardLogger, WandbLogger
from PIL import Image
from shared.fits import fit
from wandb.proto.wandb_internal_pb2 import Record

from litgan.callbacks import Samples
from litgan.loggers import MetricsFile, parse_metrics, read_metrics

FOREIGN = """
from lightning.pytorch import Callback

class Foreign(Callback):
    def on_train_batch_end(self, trainer, gan, outputs, batch, batch_idx):
        self.log("foreign", float(gan.images_seen))
"""
KEYS = {
    "loss/generator", "loss/discriminator", "logits/real", "logits/fake", "penalty/r1", "gradient/generator",
    "gradient/discriminator", "gradient/feedback", "metric/fd_digits", "metric/kid", "metric/precision",
    "metric/recall", "samples", "speed/images_per_second", "speed/data_wait",
}  # fmt: skip
PICTURES = {"samples", "reals", "feedback"}


OPTIONS = [
    "--trainer.log_every_n_steps=1", "--realism.count=50", "--realism.every=64", "--samples.every=64",
    "--gradients.every=64", "--checkpoint.every=96",
]  # fmt: skip


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Path]]:
    """Two runs of the same recipe: "whole" of 6 iterations, "resumed" of 4, cut back to 3, and on to 6."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LITGAN_CACHE", str(tmp_path_factory.mktemp("cache")))
        patch.setenv("WANDB_MODE", "offline")
        patch.setenv("LITGAN_RUN_ID", "")
        root = tmp_path_factory.mktemp("whole")
        (root / "foreign.py").write_text(FOREIGN)
        patch.syspath_prepend(str(root))
        whole = fit(root, 6, *OPTIONS, "--trainer.callbacks=foreign.Foreign").folder
        root = tmp_path_factory.mktemp("resumed")
        resumed = fit(root, 4, *OPTIONS, "--checkpoint.every=1000000").folder
        # As if the machine had died after the fourth iteration, with a checkpoint of the third.
        third = fit(tmp_path_factory.mktemp("third"), 3, *OPTIONS)
        third.checkpoint.rename(resumed / "checkpoints" / "last.ckpt")
        fit(root, 6, *OPTIONS, "--ckpt_path=last")
        wandb.teardown()  # its files are written in the background
        yield {"whole": whole, "resumed": resumed}


def read_wandb(path: Path) -> Iterator[Record]:
    """Records of a .wandb file: LevelDB's log format, blocks of 32 KiB, behind a header of 7 bytes."""
    content, position, parts = path.read_bytes(), 7, b""
    while position + 7 <= len(content):
        left = 2**15 - position % 2**15
        if left < 7:
            position += left
            continue
        _, length, kind = struct.unpack_from("<IHB", content, position)
        parts += content[position + 7 : position + 7 + length]
        position += 7 + length
        if kind in (1, 4):  # whole, or the last part
            yield Record.FromString(parts)
            parts = b""


def records(run: Path, kind: str) -> list[Any]:
    """All records of a kind, over all files of a run, in the order of their writing."""
    files = sorted(run.glob("wandb/offline-run-*/*.wandb"))
    return [getattr(one, kind) for path in files for one in read_wandb(path) if one.HasField(kind)]


def nested(items: Iterable[Any]) -> dict[str, Any]:
    """Items of a record as one dictionary; the parts of a picture come one by one."""
    found: dict[str, Any] = {}
    for item in items:
        *outer, last = item.nested_key or [item.key]
        place = found
        for key in outer:
            place = place.setdefault(key, {})
        place[last] = json.loads(item.value_json)
    return found


def history(run: Path) -> list[dict[str, Any]]:
    return [nested(row.item) for row in records(run, "history")]


def config(run: Path) -> dict[str, Any]:
    changes = [one.config for one in records(run, "run")] + records(run, "config")
    return nested(item for change in changes for item in change.update)


@pytest.mark.spawn  # W&B's own process
def test_wandb_holds_every_key_and_picture_over_images_seen(runs: dict[str, Path]) -> None:
    rows = history(runs["whole"])
    assert {key for row in rows for key in row} >= KEYS | PICTURES
    assert all("images_seen" in row and "trainer/global_step" not in row for row in rows)
    for key in (key for key in KEYS if "metric/" not in key and key != "samples"):
        assert [row["images_seen"] for row in rows if key in row] == [32 * i for i in range(1, 7)], key
    for key in ("metric/fd_digits", "metric/recall", "samples"):
        assert [row["images_seen"] for row in rows if key in row] == [0, 64, 128, 192], key
    assert [row["images_seen"] for row in rows if "reals" in row] == [0]
    (files,) = runs["whole"].glob("wandb/offline-run-*/files")
    for entry in (row[key] for row in rows for key in PICTURES & row.keys()):
        assert Image.open(files / entry["path"]).size == (entry["width"], entry["height"])


@pytest.mark.spawn  # W&B's own process
def test_images_seen_is_the_x_axis_of_what_a_foreign_callback_logs_too(runs: dict[str, Path]) -> None:
    globs = [metric for metric in records(runs["whole"], "metric") if metric.glob_name == "*"]
    assert globs[-1].step_metric == "images_seen" and globs[-1].options.step_sync
    assert globs[-1]._control.overwrite, "Lightning has defined another before"
    for rows in (history(runs["whole"]), read_metrics(runs["whole"] / "metrics.csv")):
        found = [(row["foreign"], row["images_seen"]) for row in rows if "foreign" in row]
        assert found == [(32 * i, 32 * i) for i in range(1, 7)]


@pytest.mark.spawn  # W&B's own process
def test_wandb_holds_the_resolved_recipe_and_the_protocol(runs: dict[str, Path]) -> None:
    found = config(runs["whole"])
    assert found["trainer"]["max_steps"] == 6
    assert found["model"]["init_args"]["penalties"][0]["init_args"]["weight"] == 0.2
    assert found["data"]["init_args"]["resolution"] == 8, "defaults too"
    assert {"extractor", "split", "data", "real_count", "fake_count", "weights"} <= found["protocol"].keys()
    saved = yaml.safe_load((runs["whole"] / "config.yaml").read_text())
    assert saved["model"]["class_path"] == found["model"]["class_path"] == "litgan.GAN"
    assert saved["model"]["init_args"]["generator"] == found["model"]["init_args"]["generator"]


@pytest.mark.spawn  # W&B's own process
def test_a_resumed_run_continues_its_wandb_run_and_loses_and_doubles_no_row(runs: dict[str, Path]) -> None:
    begun, *_, resumed = records(runs["resumed"], "run")
    assert begun.run_id == resumed.run_id == runs["resumed"].name
    assert len(list(runs["resumed"].glob("wandb/offline-run-*/*.wandb"))) == 2
    changing = ("speed/", "foreign", "epoch")
    rows = [
        [{key: row[key] for key in row if not key.startswith(changing)} for row in read_metrics(path)]
        for path in (runs["whole"] / "metrics.csv", runs["resumed"] / "metrics.csv")
    ]
    assert rows[0] == rows[1]
    assert [row["images_seen"] for row in rows[1]] == [0, 32, 64, 96, 128, 160, 192]


def test_wandb_waits_for_a_run_that_was_told_to_stop(tmp_path: Path) -> None:
    before = {one: signal.getsignal(one) for one in (signal.SIGTERM, signal.SIGUSR1)}
    with pytest.raises(SystemExit) as stop:  # after one iteration
        fit(tmp_path, 6, '--trainer.max_time={"seconds": 0}')
    for one, handler in before.items():
        signal.signal(one, handler)
    wandb.teardown()
    (folder,) = tmp_path.glob("digits/*")
    assert stop.value.code == 75
    assert len(records(folder, "preempting")) == 1
    assert [record.exit_code for record in records(folder, "exit")] == [75]


@pytest.mark.spawn  # W&B's own process
def test_a_checkpoint_that_was_moved_resumes_its_own_run(runs: dict[str, Path], tmp_path: Path) -> None:
    moved = tmp_path / "download.ckpt"
    moved.write_bytes((runs["whole"] / "checkpoints" / "last.ckpt").read_bytes())
    folder = fit(tmp_path / "runs", 7, f"--ckpt_path={moved}").folder
    assert folder.name == runs["whole"].name
    assert list(folder.glob(f"wandb/offline-run-*-{folder.name}"))


def test_columns_grow_and_keys_of_one_clock_share_a_row(tmp_path: Path) -> None:
    path = tmp_path / "metrics.csv"
    logger = MetricsFile(path)
    logger.log_metrics({"a": 1.5, "images_seen": 8})
    logger.log_metrics({"b": 2.0, "images_seen": 8})
    assert read_metrics(path) == [{"images_seen": 8, "a": 1.5, "b": 2.0}], "there without waiting for more"
    logger.log_metrics({"a": 1 / 3, "images_seen": 16})
    logger.log_metrics({"c": -1e-30, "a": 0.25, "images_seen": 24})
    assert read_metrics(path) == [
        {"images_seen": 8, "a": 1.5, "b": 2.0}, {"images_seen": 16, "a": 1 / 3},
        {"images_seen": 24, "a": 0.25, "c": -1e-30},
    ]  # fmt: skip
    assert path.read_text().splitlines()[0] == "images_seen,a,b,c"


def test_pictures_are_left_out_and_keys_without_a_clock_join_the_last_row(tmp_path: Path) -> None:
    path = tmp_path / "metrics.csv"
    logger = MetricsFile(path)
    logger.log_metrics({"samples": torch.zeros(2), "images_seen": 8})
    assert not path.exists()
    logger.log_metrics({"a": 1.0, "images_seen": 8})
    logger.log_metrics({"epoch": 1})
    assert read_metrics(path) == [{"images_seen": 8, "a": 1.0, "epoch": 1}]


def test_rows_beyond_the_checkpoint_are_dropped(tmp_path: Path) -> None:
    path = tmp_path / "metrics.csv"
    lost = MetricsFile(path)
    for clock in (0, 8, 16, 24):
        lost.log_metrics({"a": float(clock), "images_seen": clock})
    resumed = MetricsFile(path, resumed_at=8)
    resumed.log_metrics({"b": 1.0, "images_seen": 8})
    resumed.log_metrics({"a": 5.0, "images_seen": 32})
    assert read_metrics(path) == [
        {"images_seen": 0, "a": 0.0}, {"images_seen": 8, "a": 8.0, "b": 1.0}, {"images_seen": 32, "a": 5.0}
    ]  # fmt: skip


def test_a_full_disk_costs_rows_and_nothing_else(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Files may have so many bytes: half a row fits, then no new column does, then all is well again."""
    path, limits = tmp_path / "metrics.csv", resource.getrlimit(resource.RLIMIT_FSIZE)
    logger = MetricsFile(path)
    logger.log_metrics({"a": 0.5, "images_seen": 8})
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (path.stat().st_size + 3, limits[1]))
        logger.log_metrics({"a": 1.5, "images_seen": 16})
        logger.log_metrics({"long": 1 / 3, "images_seen": 24})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    logger.log_metrics({"a": 2.5, "images_seen": 32})
    logger.log_metrics({"b": 3.0, "images_seen": 32})
    assert read_metrics(path) == [{"images_seen": 8, "a": 0.5}, {"images_seen": 32, "a": 2.5, "b": 3.0}]
    sentence = f"litgan: A row of {path} cannot be written (File too large): allow larger files (ulimit -f)."
    assert capsys.readouterr().err.splitlines() == [f"{sentence} Training goes on."], "said once"


# -- damaged files

ROWS: list[dict[str, float]] = [
    {"images_seen": 0, "loss/a": 1.5}, {"images_seen": 8, "loss/a": 0.25, "b": 12.5},
    {"images_seen": 16, "b": 3.0},
]  # fmt: skip
SOUND = b"images_seen,loss/a,b\n0,1.5,\n8,0.25,12.5\n16,,3.0\n"


def resume(path: Path, said: Callable[[], str]) -> list[dict[str, float]]:
    """Goes on with what lies there, which must not fail; the rows of before that are in the file then.

    What was damaged must be kept as it was, beside a file that is sound, and one sentence names both.
    """
    before = path.read_bytes() if path.is_file() else None
    damaged = not before or parse_metrics(before)[1] > 0
    logger = MetricsFile(path, resumed_at=16)
    logger.log_metrics({"loss/a": 2.0, "images_seen": 24})
    logger.log_metrics({"c": 4.0, "images_seen": 24})
    sentences = said().splitlines()
    aside = path.with_name("metrics.damaged-1.csv")
    assert [str(path) in one and aside.name in one for one in sentences] == [True] * damaged
    assert aside.exists() == damaged
    assert not damaged or before is None or aside.read_bytes() == before
    rows, left = parse_metrics(path.read_bytes())
    assert left == 0 and rows[-1] == {"images_seen": 24, "loss/a": 2.0, "c": 4.0}
    return rows[:-1]


@pytest.fixture
def said(capsys: pytest.CaptureFixture[str]) -> Callable[[], str]:
    return lambda: capsys.readouterr().err


def places(tmp_path: Path) -> Iterator[tuple[int, Path]]:
    """For each byte of a sound file a folder of its own."""
    for at in range(len(SOUND)):
        (tmp_path / str(at)).mkdir()
        yield at, tmp_path / str(at) / "metrics.csv"


def test_a_sound_file(tmp_path: Path, said: Callable[[], str]) -> None:
    logger = MetricsFile(tmp_path / "metrics.csv")
    for row in ROWS:
        logger.log_metrics(row)
    assert (tmp_path / "metrics.csv").read_bytes() == SOUND
    assert resume(tmp_path / "metrics.csv", said) == ROWS


@pytest.mark.parametrize("end", [b"", b"\0"])
def test_a_file_that_was_cut_or_ends_in_nul_bytes_keeps_its_whole_rows(
    end: bytes, tmp_path: Path, said: Callable[[], str]
) -> None:
    for at, path in places(tmp_path):
        path.write_bytes(SOUND[:at] + end * (len(SOUND) - at))
        assert resume(path, said) == ROWS[: max(0, SOUND[:at].count(b"\n") - 1)], at
        assert path.with_name("metrics.damaged-1.csv").exists() == (
            end != b"" or not SOUND[:at].endswith(b"\n")
        )


@pytest.mark.parametrize("byte", [b"\0", b"\xff", b'"', b"\r"])
def test_a_damaged_byte_costs_its_row_or_its_column(
    byte: bytes, tmp_path: Path, said: Callable[[], str]
) -> None:
    for at, path in places(tmp_path):
        path.write_bytes(SOUND[:at] + byte + SOUND[at + 1 :])
        rows = resume(path, said)
        if byte in (b"\0", b"\xff"):
            assert all(any(row.items() <= whole.items() for whole in ROWS) for row in rows), (at, rows)
            line = SOUND[:at].count(b"\n")
            unharmed = [
                row for number, row in enumerate(ROWS, 1) if number not in (line, line + (SOUND[at] == 10))
            ]
            assert line == 0 or rows == unharmed, (at, rows)


@pytest.mark.parametrize(
    ("content", "kept"),
    [
        (b"", []),
        (bytes(4096), []),
        (SOUND.partition(b"\n")[2], []),  # no header
        (SOUND.replace(b"images_seen", b"epoch"), []),
        (SOUND.replace(b"loss/a", b"images_seen"), []),
        (SOUND.replace(b"loss/a", b"b"), [{"images_seen": row["images_seen"]} for row in ROWS]),
        (SOUND.replace(b"8,", b"8,1,"), [ROWS[0], ROWS[2]]),
        (SOUND.replace(b"0.25", b"0.2x"), [ROWS[0], ROWS[2]]),
        (SOUND.replace(b"\n8", b"\nnan"), [ROWS[0], ROWS[2]]),
        (SOUND.replace(b"\n8", b"\ninf"), [ROWS[0], ROWS[2]]),
        (SOUND.replace(b"8,", b"8," + b"1" * 200_000), [ROWS[0], ROWS[2]]),  # more than csv takes
        (SOUND + bytes(100) + b"24,5.0,6.0\n", ROWS),  # as two processes leave it
    ],
)  # fmt: skip
def test_of_a_damaged_file_what_can_be_read_goes_on(
    content: bytes, kept: list[dict[str, float]], tmp_path: Path, said: Callable[[], str]
) -> None:
    (tmp_path / "metrics.csv").write_bytes(content)
    assert resume(tmp_path / "metrics.csv", said) == kept


def test_a_folder_in_the_place_of_the_file(tmp_path: Path, said: Callable[[], str]) -> None:
    (tmp_path / "metrics.csv" / "inside").mkdir(parents=True)
    assert resume(tmp_path / "metrics.csv", said) == []
    assert (tmp_path / "metrics.damaged-1.csv" / "inside").is_dir()


ACTS: dict[str, tuple[Callable[[Path], object], int]] = {  # with the older rows that are kept
    "deleted": (Path.unlink, 0),
    "deleted with its folder": (lambda path: shutil.rmtree(path.parent), 0),
    "replaced by a folder": (lambda path: (path.unlink(), path.mkdir()), 0),
    "emptied": (lambda path: path.write_bytes(b""), 0),
    "appended to": (lambda path: path.write_bytes(path.read_bytes() + bytes(7)), 2),
}


@pytest.mark.parametrize("name", ACTS)
@pytest.mark.parametrize("clock", [8, 16])
def test_what_happens_to_the_file_while_training_goes_on(name: str, clock: int, tmp_path: Path) -> None:
    """At the next key of the same clock, and at the next clock; the open row is not lost."""
    act, kept = ACTS[name]
    path = tmp_path / "run" / "metrics.csv"
    logger = MetricsFile(path)
    for at in (0, 4, 8):
        logger.log_metrics({"a": float(at), "images_seen": at})
    act(path)
    logger.log_metrics({"b": 1.0, "images_seen": clock})
    logger.log_metrics({"a": 2.0, "images_seen": 24})
    rows, damaged = parse_metrics(path.read_bytes())
    before: list[dict[str, float]] = [{"a": 0.0, "images_seen": 0}, {"a": 4.0, "images_seen": 4}]
    open_row = [{"a": 8.0, "images_seen": 8, "b": 1.0}] if clock == 8 else [
        {"a": 8.0, "images_seen": 8}, {"b": 1.0, "images_seen": 16}
    ]  # fmt: skip
    assert damaged == 0 and rows == [*before[:kept], *open_row, {"a": 2.0, "images_seen": 24}]


def test_a_resumed_run_goes_on_though_its_metrics_are_damaged(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = fit(tmp_path, 2, "--trainer.log_every_n_steps=1").folder
    damage = (folder / "metrics.csv").read_bytes()[:-4] + bytes(20)
    (folder / "metrics.csv").write_bytes(damage)
    capsys.readouterr()
    fit(tmp_path, 4, "--trainer.log_every_n_steps=1", "--ckpt_path=last")
    assert capsys.readouterr().err.count("metrics.damaged-1.csv") == 1
    assert (folder / "metrics.damaged-1.csv").read_bytes() == damage
    assert [row["images_seen"] for row in read_metrics(folder / "metrics.csv")] == [32, 96, 128]
    assert (folder / "curves.png").stat().st_size > 0


# -- W&B as its users know it


def test_the_run_has_the_names_that_were_given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those of the recipe first, then the environment's, then our own."""
    monkeypatch.setenv("WANDB_MODE", "offline")
    for name, value in (("PROJECT", "theirs"), ("RUN_GROUP", "many"), ("NOTES", "from the environment")):
        monkeypatch.setenv(f"WANDB_{name}", value)
    wandb.teardown()  # it has read the environment
    options = ["--wandb.entity=team", "--wandb.tags=[a,b]", "--wandb.job_type=train", "--wandb.name=mine"]
    folder = fit(tmp_path, 3, *options, "--wandb.log_model=true").folder
    wandb.teardown()
    (run, *_) = records(folder, "run")
    assert (run.entity, run.project, run.run_group, run.display_name) == ("team", "theirs", "many", "mine")
    assert (list(run.tags), run.job_type, run.notes) == (["a", "b"], "train", "from the environment")
    assert config(folder)["parameters"]["generator"] > 0
    (artifact,) = records(folder, "artifact")
    assert {Path(entry.path).name for entry in artifact.manifest.contents} >= {"last.ckpt"}


def test_the_summary_holds_the_best_distance(runs: dict[str, Path]) -> None:
    values = [row["metric/fd_digits"] for row in history(runs["whole"]) if "metric/fd_digits" in row]
    summary = nested(item for one in records(runs["whole"], "summary") for item in one.update)
    assert summary["metric/fd_digits"]["min"] == min(values) and len(values) > 1


@pytest.mark.heavy
def test_a_server_that_does_not_answer_means_offline_and_a_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("WANDB_MODE")
    monkeypatch.setenv("WANDB_API_KEY", "0" * 40)
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")
    wandb.teardown()  # it has read the environment
    folder = fit(tmp_path, 1).folder
    wandb.teardown()
    assert list(folder.glob("wandb/offline-run-*/*.wandb"))
    assert "cannot be reached" in capsys.readouterr().err


def test_other_loggers_get_pictures_too(
    tmp_path: Path, tiny_gan: Any, tiny_data: Any, make_trainer: Any
) -> None:
    wandb.teardown()  # it keeps what it has read of another test's environment
    theirs = WandbLogger(save_dir=tmp_path, offline=True)
    board = TensorBoardLogger(tmp_path)
    trainer = make_trainer(2, callbacks=[Samples(every=8, count=4)], logger=[theirs, board])
    trainer.fit(tiny_gan(), datamodule=tiny_data())
    wandb.finish()
    wandb.teardown()
    assert list(tmp_path.glob("wandb/offline-run-*/files/media/images/samples_*.png"))
    assert any(b"samples" in path.read_bytes() for path in tmp_path.rglob("events.out.*"))


def test_training_goes_on_without_wandb_where_its_files_cannot_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("LITGAN_RUN_ID", "run")
    place = tmp_path / "digits" / "run" / "wandb"
    place.parent.mkdir(parents=True)
    place.write_text("a file in place of the folder")
    run = fit(tmp_path, 1)
    assert f"(Not a directory: {place}): move that away. Training goes on" in capsys.readouterr().err
    assert run.checkpoint.is_file() and run.folder == place.parent
