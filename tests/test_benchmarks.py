"""The benchmarks measure what they say; each runs in its quick form."""

from __future__ import annotations

import importlib
import json
import math
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch
import workers
from lightning.pytorch import Callback
from shared.benchmarks import ROOT, SCRIPTS, quick, run

from litgan import GAN
from litgan.data import Derived, Digits, Identity, Ring, Subset
from litgan.losses import NonSaturating
from litgan.metrics import load_extractor
from litgan.networks import MLPDiscriminator, MLPGenerator
from litgan.noise import torch_generator
from litgan.recipe import Recipe
from litgan.schedules import value_at


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], Any]]:
    """Imports a benchmark by its name, and puts back what gpu.py switches."""
    arithmetic, convolutions = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
    monkeypatch.syspath_prepend(SCRIPTS)
    yield importlib.import_module
    torch.set_float32_matmul_precision(arithmetic)
    torch.backends.cudnn.allow_tf32 = convolutions


# -- what they share


def test_sides_take_turns_and_warm_up(script: Any) -> None:
    calls = ""

    def side(name: str) -> Any:
        def call() -> None:
            nonlocal calls
            calls += name

        return call

    seconds = script("measure").in_turns({"a": side("a"), "b": side("b")}, rounds=2, number=3, warm_up=1)
    assert calls == "aaabbb" * 3
    assert {name: len(values) for name, values in seconds.items()} == {"a": 2, "b": 2}
    assert min(seconds["a"]) > 0


def test_a_figure_is_a_median_with_its_quartiles(script: Any) -> None:
    measure = script("measure")
    assert measure.spread([5.0, 1.0, 2.0, 4.0, 3.0]) == (3.0, 2.0, 4.0)
    assert measure.spread([3.0, 1.0]) == (2.0, 1.0, 3.0)
    assert measure.ratios([2.0, 9.0], [1.0, 3.0]) == [2.0, 3.0]
    assert measure.show([0.001, 0.002, 0.003], 1e3) == "2 (1 to 3)"
    with pytest.raises(ValueError, match="shorter"):
        measure.ratios([1.0, 2.0], [1.0])


@pytest.mark.heavy
def test_a_recurrent_network_learns_what_can_be_predicted_of_the_next_symbol(script: Any) -> None:
    """Every second symbol repeats the one before it; the others are drawn with the chances 3/4 and 1/4."""
    next_symbol = script("next_symbol")
    drawn = (torch.rand(2_000, 8, generator=torch.Generator().manual_seed(0)) < 0.25).long()
    sequences = drawn.repeat_interleave(2, 1)
    model = next_symbol.fit(sequences.to(torch.uint8), 2, 2, width=32, iterations=300)
    entropy = -(0.75 * math.log(0.75) + 0.25 * math.log(0.25)) / 2
    assert model.loss(sequences).item() == pytest.approx(entropy, rel=0.05)
    made = model.sample(2_000, 16, 1.0, seed=0)
    assert (made[:, ::2] == made[:, 1::2]).float().mean() > 0.99
    assert made.float().mean().item() == pytest.approx(0.25, abs=0.03)
    colder = model.sample(2_000, 16, 0.5, seed=0)
    assert colder.float().mean().item() == pytest.approx(1 / 10, abs=0.03), "chances squared: 9 to 1"


@pytest.mark.parametrize("shape", [(3, 48), (1, 8, 12)])
def test_a_judge_finds_a_difference_where_there_is_one(shape: tuple[int, ...], script: Any) -> None:
    two_samples = script("two_samples")
    real, same, other = torch.randn(3, 400, *shape, generator=torch.Generator().manual_seed(0)).unbind()
    other = other + 2 * other.roll(1, -1)
    assert two_samples.accuracy(real=real, fake=same, iterations=60) == pytest.approx(0.5, abs=0.08)
    assert two_samples.accuracy(real=real, fake=other, iterations=60) > 0.95


def test_table(script: Any) -> None:
    rows = [{"side": "raw", "ms": 1.23456}, {"side": "theirs", "ms": 12345.6, "count": 1000}]
    assert script("measure").table(rows).splitlines() == [
        "side        ms  count",
        "---------------------",
        "raw      1.235",
        "theirs  12,346  1,000",
    ]


@pytest.mark.parametrize("name", ["x", "zoo/x"])
def test_results_contain_command_and_machine(
    name: str, script: Any, tmp_path: Path, monkeypatch: Any
) -> None:
    measure, out = script("measure"), tmp_path / "new" / "x.json"
    monkeypatch.setattr(sys, "argv", ["x.py", "--rounds", "3"])
    parser = measure.options("What it measures.", str(SCRIPTS / f"{name}.py"))
    measure.write(measure.parse(parser, ["--out", str(out)]), {"rows": [1]})
    found = json.loads(out.read_text())
    assert found["command"] == f"python benchmarks/{name}.py --rounds 3"
    assert found["machine"] == measure.machine() and found["machine"]["torch"] == torch.__version__
    assert found["rows"] == [1]
    assert measure.parse(parser, []).out == SCRIPTS / "results" / f"{name}.json"
    assert measure.parse(parser, ["--quick"]).out is None  # its figures replace no result


# -- the storm


@pytest.fixture
def saved(tiny_gan: Any, tiny_data: Any, make_trainer: Any, tmp_path: Path) -> Any:
    """Trains so many iterations and saves where a run of the storm would: the run."""

    def save(storm: ModuleType, number: int, iterations: int, **options: Any) -> Any:
        run = storm.Run(number, tmp_path / str(number), threads=1)
        trainer = make_trainer(iterations)
        trainer.fit(tiny_gan(**options), datamodule=tiny_data())
        trainer.save_checkpoint(run.last)
        return run

    return save


def test_bits_are_compared(script: Any) -> None:
    same, one = script("kill_storm").same, torch.ones(2)
    assert same({"a": [one, 1]}, {"a": [one.clone(), 1]})
    assert not same({"a": [one, 1]}, {"a": [one, 2]})
    assert not same(one, one.nextafter(2 * one))
    assert not same(one, one.double())
    assert not same(torch.zeros(1), -torch.zeros(1))
    assert not same({"a": 1}, {"b": 1}) and not same([1], [1, 2])


def test_the_verdict_on_a_run(script: Any, saved: Any) -> None:
    storm = script("kill_storm")
    reference, alike = saved(storm, 0, 3), saved(storm, 1, 3)
    assert alike.row(reference)["bit-identical"] and not alike.faults
    shorter = saved(storm, 2, 2)
    assert not shorter.row(reference)["bit-identical"]
    other = saved(storm, 3, 3, seed=1)
    assert not other.row(reference)["bit-identical"] and "run 3" in other.faults[0]
    (alike.last.parent / ".last.ckpt.77.partial").touch()
    assert alike.row(reference)["temporary files left"] == 1 and "77.partial" in alike.faults[0]


def test_what_a_kill_cost(script: Any, saved: Any) -> None:
    storm = script("kill_storm")
    run = saved(storm, 1, 3)  # 24 images
    (run.folder / "metrics.csv").write_text("images_seen,loss/generator\n24,1.0\n56,1.0\n")
    run.inspect()
    assert run.lost == 32 and not run.faults
    run.lost = storm.INTERVAL + 1
    run.row(run)
    assert "lost" in run.faults[0]
    run.last.write_bytes(run.last.read_bytes()[:-100])
    run.inspect()
    assert "does not load" in run.faults[-1]
    assert not run.row(saved(storm, 0, 3))["bit-identical"]


def test_nothing_saved_yet_is_all_lost(script: Any, tmp_path: Path) -> None:
    run = script("kill_storm").Run(1, tmp_path, threads=1)
    run.inspect()
    assert run.lost == 0
    run.folder.mkdir(parents=True)
    (run.folder / "metrics.csv").write_text("images_seen,loss/generator\n64,1.0\n")
    run.inspect()
    assert run.lost == 64


@pytest.mark.spawn
def test_a_small_storm(tmp_path: Path) -> None:
    done = run("kill_storm", "--kills", 2, "--jobs", 1, "--threads", 1, "--out", tmp_path / "storm.json")
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads((tmp_path / "storm.json").read_text())
    assert found["summary"]["kills"] >= 2 and found["summary"]["killed in saving"] >= 1
    assert all(row["bit-identical"] for row in found["rows"])


# -- recipes


class Halves(Digits):
    """Digits of which the last are held out."""

    splits = ("train", "test")

    def read(self, split: str) -> tuple[torch.Tensor, torch.Tensor]:
        rows = slice(0, 1500) if split == "train" else slice(1500, None)
        samples, labels = super().read("train")
        return samples[rows], labels[rows]


@pytest.mark.parametrize("samples", [1_500, 250])
def test_all_rows_of_a_recipe_are_measured_against_the_same_reals(samples: int, script: Any) -> None:
    """Where fewer are held out than there are for training, and where more are."""
    recipes = script("recipes")
    protocol = recipes.Protocol(Subset(Halves(), samples), load_extractor("digits"), 10_000)
    rows = [
        *recipes.bounds(protocol, 1.0),
        protocol.row("black", lambda first, size: -torch.ones(size, 1, 8, 8)),
    ]
    assert [row["when"] for row in rows] == ["floor", "black"]
    assert {(row["split"], row["count"]) for row in rows} == {("test", 297)}
    assert 0 < rows[0]["fd_digits"] < 0.1 * rows[1]["fd_digits"]


# -- pairs


def test_a_copy_is_flawless_and_each_input_has_its_own_fake(script: Any, monkeypatch: Any) -> None:
    module, monkey = script("pairs"), monkeypatch.setattr
    monkey(script("judges"), "judge", lambda data: load_extractor("digits"))
    monkey(module, "COLUMNS", ("when", "fd_digits", "l1"))
    pairs = module.Pairs(Derived(Halves(), Identity()), 200)
    copy, other = (
        pairs.row("copy", "", make) for make in (lambda condition: condition, lambda condition: -condition)
    )
    assert copy == {"run": "copy", "when": "", "nearest": 1, "l1": 0, "fd_digits": copy["fd_digits"]}
    assert abs(copy["fd_digits"]) < 1e-6 < other["fd_digits"] and other["nearest"] < 0.1


def test_the_recipe_alone_is_the_same_without_its_adversary(
    script: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    module = script("pairs")
    monkeypatch.setattr(script("judges"), "judge", lambda data: load_extractor("digits"))
    options = SimpleNamespace(iterations=[1, 3], count=40, runs=["recipe", "alone"], pictures=tmp_path)
    path = ROOT / "configs" / "digits_edges.yaml"
    rows = module.compare(path, options, ["--trainer.accelerator=cpu", "--trainer.precision=32-true"])
    found = [(row["run"], row["when"], row.get("images")) for row in rows]
    size = rows[1]["images"]
    assert found == [
        ("opponent: resized", "", None), *(
            (run, f"{count} it", count * size) for run in ("recipe", "alone") for count in (1, 3)
        ),
    ]  # fmt: skip
    assert rows[2]["psnr"] != rows[4]["psnr"]
    assert {path.name for path in tmp_path.iterdir()} == {"digits_edges_recipe.png", "digits_edges_alone.png"}


def test_transform_coding_spends_the_bits_and_no_more(script: Any) -> None:
    """Of white noise with a standard deviation of 1/4, whose coefficients are white noise, too."""
    module, scipy_fft = script("transform_coding"), pytest.importorskip("scipy.fft")
    noise = torch.randn(400, 1, 16, generator=torch_generator("coding")) / 4
    blocks = noise.unflatten(-1, (2, 8)).numpy()
    wanted = torch.from_numpy(scipy_fft.dct(blocks, norm="ortho")).flatten(-2)
    torch.testing.assert_close(module.transformed(noise, module.dct(8)), wanted)
    image = torch.randn(3, 2, 8, 16, generator=torch_generator("image"))
    back = module.transformed(module.transformed(image, module.dct(8)), module.dct(8).T)
    torch.testing.assert_close(back, image)
    for bits in (1.0, 3.0):
        error = (module.code(noise, noise, bits, 8) - noise).square().mean().sqrt() / 0.25
        assert 2**-bits < error < 1.5 * 2**-bits  # Shannon's bound, and a uniform quantizer's distance to it
    sides = [torch.tensor([[[0.0, 1.0] * 4]]), torch.tensor([[[0.0, 1.0, 1.0, 0.0] * 2]])]
    assert [module.entropy(side, 2) for side in sides] == pytest.approx([0, 1])


# -- data, scaling


def test_both_loaders_show_the_same_samples(script: Any) -> None:
    """What is timed does the same work: each sample once, in the same range."""
    data, module = Digits(32), script("data")
    images, labels = data.load()
    theirs = torch.stack([real for real, _ in module.Torchvision(images, labels)])
    torch.testing.assert_close(theirs, data.encode(images), atol=1e-6, rtol=0)
    epochs = module.from_memory(data, 64, [0])
    assert {epoch() for epoch in epochs.values()} == {len(images) // 64 * 64}


def test_files_hold_the_same_samples(script: Any, tmp_path: Path) -> None:
    data, module = Digits(32), script("data")
    module.write_files(data, 20, tmp_path)
    pictures, _ = module.ImageFolder(str(tmp_path), channels=1, memory="disk").load()
    assert torch.equal(torch.stack([pictures[index] for index in range(20)]), data.load()[0][:20])
    assert {epoch() for epoch in module.from_files(tmp_path, 8, [0]).values()} == {16}


def test_all_that_is_stored_holds_the_same_samples(script: Any, tmp_path: Path) -> None:
    stored = script("stored")
    files = stored.write_folder(6, tmp_path / "folder")
    packing = stored.pack(tmp_path)
    assert packing["images"] == 6 and packing["MiB"] > 6 * 3 * 64 * 64 / 2**20
    stored.write_others(files, tmp_path)
    known = {
        kind: stored.open_images(kind, tmp_path)
        for kind, (_, place) in stored.KINDS.items()
        if (tmp_path / place).exists()
    }
    assert known.keys() >= {"packed", "folder", "zip", "shards"}
    for kind, images in known.items():
        assert all(torch.equal(images[row], known["folder"][row]) for row in range(6)), kind
    readers = stored.readers(tmp_path, batch=2, limit=5, workers=[0])
    assert {read() for read in readers.values()} == {4}


@pytest.mark.parametrize("power", [0.0, 1.0, 2.0])
def test_exponent(script: Any, power: float) -> None:
    sizes = [16, 32, 128]
    assert script("scaling").exponent(sizes, [3.0 * size**power for size in sizes]) == pytest.approx(power)


def test_axes_share_their_case(script: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Costs that are proportional to the batch give exponent 1 in every column; no case runs twice."""
    scaling, cases = script("scaling"), []

    def afresh(case: dict[str, Any], options: Any) -> dict[str, Any]:
        cases.append(case)
        return {"seconds": [case["batch"] / 1000], "at_rest": 1.0, "peak": 1.0 + case["batch"] / 1024}

    monkeypatch.setattr(scaling, "afresh", afresh)
    known: dict[str, Any] = {}
    rows = {axis: scaling.grow(axis, sizes, None, known) for axis, sizes in scaling.CASES.items()}
    assert len(cases) == sum(map(len, scaling.CASES.values())) - len(scaling.CASES) + 1
    assert [row["images/s"] for row in rows["batch"]] == pytest.approx([1000] * 6)
    found = scaling.exponents("batch", rows["batch"])
    assert [slope for pair in found.values() for slope in pair] == pytest.approx([1.0] * 4)


# -- CUDA


@pytest.mark.heavy
def test_runs_of_litgan_itself_take_turns(script: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    step, played = script("step"), []

    def recipe(arguments: list[str]) -> Recipe:
        played.append(Recipe(arguments))
        return played[-1]

    monkeypatch.setattr(step, "Recipe", recipe)
    monkeypatch.chdir(ROOT)
    case = step.Case(
        step.RING,
        ("--model=workers.Witnessed",),
        number=2,
        baselines=(),
        other=("--model=litgan.GAN",),
        batch=8,
    )
    seconds = step.run_both(case, 2, ["--trainer.enable_progress_bar=false"])
    assert [isinstance(each.model, workers.Witnessed) for each in played] == [True, False, True, False]
    assert all(min(seconds[side]) > 0 and len(seconds[side]) == 2 for side in ("litgan", "other"))
    assert step.row("updates", seconds).keys() == {"case", "litgan ms", "other ms", "litgan/other"}


def test_a_game_is_the_recipes(script: Any, tmp_path: Path) -> None:
    """What is built without the command line computes what the recipe itself does."""
    games = script("games")
    options = [f"--config={ROOT / 'configs' / 'cifar10_r3gan.yaml'}", "--model.augment=null"]
    options += ["--data=synthetic.Synthetic", f"--trainer.default_root_dir={tmp_path}"]
    options += [f"--model.{side}.widths=[8,8,8,8]" for side in ("generator", "discriminator")]
    options += [f"--model.{side}.cardinalities=[1,1,1,1]" for side in ("generator", "discriminator")]
    recipe = Recipe(options, "validate").model
    game = games.Game("cifar10_r3gan.yaml", changes={"augment": None}, narrow=96).build()
    assert games.apart(game, recipe, games.Game("cifar10_r3gan.yaml", narrow=96).build(seed=1)) == 0
    weights = [[value_at(each.weight, 0) for each in gan.penalties] for gan in (game, recipe)]
    assert weights == [[0.025] * 2] * 2


def test_every_game_can_be_made(script: Any) -> None:
    for game in script("games").GAMES.values():
        assert game.build(steady=True).sample_shape == game.shape
    for game, _ in script("device_speed").CASES.values():
        assert (script("games").CONFIGS / game.recipe).is_file()


def test_how_far_apart_two_games_are(script: Any) -> None:
    games = script("games")
    start, there, here = (games.GAMES["DCGAN, R1"].build() for _ in range(3))
    with torch.no_grad():
        for gan, step in ((there, 0.1), (here, 0.11)):
            for weight in gan.generator.parameters():
                weight += step
            next(gan.discriminator.parameters()).add_(step - 0.1 + 1)
    assert games.apart(there, there, start) == 0
    assert games.apart(here, there, start) == pytest.approx(0.1, rel=1e-4)
    next(here.discriminator.parameters()).data[0] = torch.nan
    assert games.apart(here, there, start) == torch.inf


def answers(script: Any, section: str) -> dict[str, Any]:
    """What a section answers on the CPU in its quick form."""
    checks = script("device_checks")
    return {asked: answer() for asked, answer in getattr(checks, section)(checks.Device("cpu", quick=True))}


def test_a_device_that_computes_something_else_is_wrong(script: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    checks = script("device_checks")
    monkeypatch.setattr(checks, "GAMES", {"game": checks.GAMES["DCGAN, R1"]})
    assert not any(answer.wrong for answer in answers(script, "parity").values())
    play, calls = checks.play, []

    def other(gan: GAN, data: Any, *rest: Any, **options: Any) -> GAN:
        calls.append(gan)
        gan.seed += len(calls) % 2  # of latents
        return play(gan, data, *rest, **options)

    monkeypatch.setattr(checks, "play", other)
    for section in ("parity", "resume"):
        assert answers(script, section)["game"].wrong


def test_what_waits_for_the_device_is_named(script: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    checks = script("device_checks")
    monkeypatch.setattr(torch.cuda, "set_sync_debug_mode", lambda mode: None)
    monkeypatch.setattr(checks, "play", lambda *_, **__: warnings.warn("an other one", stacklevel=1))
    (_, first), *_ = checks.waits(checks.Device("cuda"))
    assert first() == checks.Answer("0 waits")
    monkeypatch.setattr(
        checks,
        "play",
        lambda *_, **__: warnings.warn("called a synchronizing CUDA operation", stacklevel=1),
    )
    assert first().wrong and "1 waits test_benchmarks.py:" in first().found


def test_flops_by_hand(script: Any) -> None:
    """2 B operations a weight and pass, of each turn's forward and backward passes that are needed."""
    batch, latents, width = 32, 4, 16
    generator, discriminator = latents * width + width * 2, 2 * width + width
    forward = 2 * generator + 3 * discriminator  # the discriminator sees real and fake, then fake again
    weights = generator + 2 * discriminator
    feedback = width * 2 + 2 * width + discriminator  # to hidden layers, and to the samples for the generator
    counter, gan = script("device_speed").Flops(), ring_gan(latents, width)
    with counter:
        script("games").play(gan, Ring(samples=64, batch_size=batch), "cpu", 1)
    assert counter.total == 2 * batch * (forward + weights + feedback)


def ring_gan(latents: int, width: int) -> GAN:
    adam = partial(torch.optim.Adam, lr=1e-3)
    return GAN(
        partial(MLPGenerator, latent_dim=latents, widths=[width]),
        partial(MLPDiscriminator, widths=[width]),
        NonSaturating(), adam, adam, sample_shape=(2,),
    )  # fmt: skip


def test_lazy_penalties_have_their_share_of_the_flops(script: Any) -> None:
    speed, penalty = script("device_speed"), {"class_path": "litgan.penalties.R1"}
    game = script("games").Game("digits.yaml", (1, 8, 8), narrow=8)
    none, lazy, eager = (
        speed.flops(game, 8, "cpu", penalties=chosen)
        for chosen in ([], [{**penalty, "init_args": {"interval": 8}}], [penalty])
    )
    assert lazy - none == pytest.approx((eager - none) / 8)
    assert eager > 1.1 * none


def test_the_block_holds_the_period_of_every_penalty(script: Any) -> None:
    import yaml

    for path in (ROOT / "configs").glob("*.yaml"):
        for penalty in yaml.safe_load(path.read_text())["model"].get("penalties", []):
            assert script("device_speed").BLOCK % penalty["init_args"].get("interval", 1) == 0


@pytest.mark.heavy
def test_an_error_is_an_answer_and_the_time_has_an_end(
    script: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    gpu, checks = script("gpu"), script("device_checks")

    def broken() -> Any:
        raise ValueError("no such kernel\nmore")

    sections = {
        "first": lambda device: iter([("a", broken), ("b", lambda: checks.Answer("fine"))]),
        "second": lambda device: iter([("c", lambda: time.sleep(60))]),
        "third": None,
    }
    monkeypatch.setattr(gpu, "SECTIONS", sections)
    monkeypatch.setattr(gpu, "clean_up", lambda: None)  # it takes seconds the first time
    now = time.perf_counter()
    found = gpu.ask(list(sections), checks.Device("cpu"), now - gpu.BEGAN + 2)
    assert time.perf_counter() - now < 30
    assert [(one["asked"], one["found"], one["wrong"]) for one in found] == [
        ("a", "ValueError: no such kernel", True),
        ("b", "fine", False),
    ]
    said = capsys.readouterr().out.splitlines()
    assert said[0].endswith("s  first: a: ValueError: no such kernel  WRONG")
    assert said[-1].endswith("in second, during 'c'; sections not reached: third.")


@pytest.mark.parametrize(
    ("distances", "images"), [([3.0, 2.0, 1.5], 128), ([1.9, 2.1, 1.9, 1.8], 192), ([3.0, 2.5, 1.0], None)]
)
def test_the_record_is_the_first_of_two_measurements_in_reach(
    distances: list[float], images: int | None, script: Any, tiny_gan: Any, tiny_data: Any, make_trainer: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    module, watch, left = script("speedrun"), SimpleNamespace(now=0.0), iter(distances)

    class Second(Callback):  # an iteration takes one
        def on_train_batch_start(self, *_: object) -> None:
            watch.now += 1.0

    def plain_loop(_: object) -> Any:
        while True:
            watch.now += 10.0
            yield

    def evaluate(_: object, __: object, extractor: object, *, split: str, **___: object) -> Any:
        watch.now += 100.0
        return SimpleNamespace(values={"distance": next(left) if split == "train" else 7.0})

    clock = SimpleNamespace(perf_counter=lambda: watch.now, process_time=lambda: watch.now / 2)
    for name, fake in {"time": clock, "plain_loop": plain_loop, "evaluate": evaluate}.items():
        monkeypatch.setattr(module, name, fake)
    last = 64 * len(distances)  # where it gives up
    race = module.Race(target=2.0, every=64, first=0, last=last, block=4, judge=SimpleNamespace())
    make_trainer(8 * len(distances) + 8, callbacks=[Second(), race]).fit(tiny_gan(), datamodule=tiny_data())
    line = race.line()
    assert line["reached"] == ("no" if images is None else "yes")
    at = images or 64 * len(distances)
    assert line["images"] == at and line["seconds"] == at / 8 and line["CPU s"] == at / 16
    assert line["unit s"] == 10_000 and line["ratio"] == line["ratio of CPU s"] == at / 8 / 10_000
    if images:
        assert line["judge"] == 7.0 and line["next"] == distances[-1] and not list(left)


@pytest.mark.spawn
def test_refusal_without_cuda() -> None:
    done = run("gpu", CUDA_VISIBLE_DEVICES="")
    assert done.returncode == 1
    assert done.stderr.strip() == "There is no cuda device here: give another --device, or another machine."


BARE = """
import runpy, sys

class Missing:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("jsonargparse", "wandb", "docstring_parser", "typeshed_client"):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Missing())
sys.argv = ["gpu.py", "--device=cpu", "--quick", "--section=speed"]
sys.path.insert(0, "benchmarks")
runpy.run_path("benchmarks/gpu.py", run_name="__main__")
"""


@pytest.mark.spawn
def test_the_check_starts_on_a_bare_machine() -> None:
    done = subprocess.run([sys.executable, "-c", BARE], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "speed: digits, batch 64, float32: " in done.stdout


# -- every script


def check_data(found: dict[str, Any]) -> None:
    assert all(row["images/s"] > 0 for row in found["rows"])
    assert len(found["data_wait"]["shares"]) == 9 and all(0 <= it < 1 for it in found["data_wait"]["shares"])
    packed, folder, archive = found["memory"]
    assert min(packed["own, MiB"], folder["own, MiB"], archive["own, MiB"]) > 50
    assert packed["mapped, MiB"] > folder["mapped, MiB"] + 5  # 1,200 images of 12 KiB
    assert found["packing"][0]["images"] == 1200 and len(found["stored"]) >= 8
    assert found["index"][0]["names"] == 2000 and found["index"][0]["unknown, s"] > 0


def check_scaling(found: dict[str, Any]) -> None:
    few, many = found["images"]["rows"]  # of 32 x 32 bytes each
    resident = (many["images"] - few["images"]) / 1024
    assert many["at rest, MiB"] - few["at rest, MiB"] == pytest.approx(resident, rel=0.2)


def check_communication(found: dict[str, Any]) -> None:
    assert found["DCGAN"]["litgan"]["total"] < 0.51 * found["DCGAN"]["stock"]["total"]


def check_step(found: dict[str, Any]) -> None:
    blocks = found["seconds"]["ring"]
    assert blocks.keys() == {"litgan", "raw"}
    assert all(len(seconds) == 2 and min(seconds) > 0 for seconds in blocks.values())


def check_memory(found: dict[str, Any]) -> None:
    assert [row["loop"] for row in found["rows"]] == ["raw", "litgan"]
    assert all(row["training adds, MiB"] > 0 for row in found["rows"])


def check_gpu(found: dict[str, Any]) -> None:
    assert not any(answer["wrong"] for answer in found["answers"])
    assert len({answer["section"] for answer in found["answers"]}) == 8


def check_gradient_flow(found: dict[str, Any]) -> None:
    (row,) = found["rows"]
    assert row["recipe"] == "digits" and "gradient_flow share %" in row
    blocks = found["seconds"]["digits"]
    assert {side: len(times) for side, times in blocks.items()} == {"plain": 2, "gradient_flow": 2}
    assert all(seconds > 0 for times in blocks.values() for seconds in times)


QUICK = {
    "data": check_data, "scaling": check_scaling, "communication": check_communication, "step": check_step,
    "memory": check_memory, "gradient_flow": check_gradient_flow, "gpu": check_gpu,
}  # fmt: skip


@pytest.mark.spawn
@pytest.mark.parametrize("name", QUICK)
def test_quick_form(name: str, tmp_path: Path) -> None:
    smallest = {"step": "ring", "memory": "ring", "gradient_flow": "digits"}
    only = ["--only", smallest[name]] if name in smallest else []
    only += ["--device", "cpu", "--seconds", 450] if name == "gpu" else []
    QUICK[name](quick(name, tmp_path / "out.json", *only))


def test_a_judge_is_trained_wherever_it_is_first_asked_for(
    script: Callable[[str], Any], tmp_path: Path
) -> None:
    judges = script("judges")
    asked = []

    def learn(network: torch.nn.Sequential) -> None:
        network(torch.rand(2, 1, 32, 32)).sum().backward()
        asked.append(all(weight.grad is not None for weight in network.parameters()))

    with torch.no_grad():
        for _ in range(2):
            judge = judges.known(judges.GarmentJudge(), tmp_path / "judges" / "one.safetensors", learn)
    assert asked == [True] and not any(weight.requires_grad for weight in judge.parameters())
