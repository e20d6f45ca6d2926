"""What gpu.py asks a device: does it compute what the CPU computes, and does nothing make it wait?

A section is a generator of questions, each a name and a function that answers it.
"""

from __future__ import annotations

import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias

import torch
from games import GAMES, Game, apart, play
from lightning.pytorch import Callback, Trainer
from torch._dynamo.utils import counters

from litgan.callbacks import Feedback, Throughput
from litgan.data import Digits
from litgan.gan import GAN
from litgan.memory import AutoBatchSize
from litgan.metrics import evaluate, load_extractor
from litgan.metrics.distances import frechet_distance, kernel_distance, prdc
from litgan.noise import Noise
from litgan.precision import full_float32, loss_scales

BOUND = 0.02  # of `games.apart` after 8 iterations; two kinds of convolutions on a CPU are up to 0.001 apart
ROUGH = 0.5  # of the same with 7 or 10 bits in place of 23; on a CPU bf16 is up to 0.2 apart


@dataclass(frozen=True)
class Answer:
    """What was found, and whether it is wrong."""

    found: str
    wrong: bool = False


@dataclass(frozen=True)
class Device:
    """A device to be checked, and whether to ask for the least that each section can say."""

    kind: str
    quick: bool = False

    @property
    def is_cuda(self) -> bool:
        return self.kind == "cuda"

    @property
    def games(self) -> dict[str, Game]:
        return dict(list(GAMES.items())[:1]) if self.quick else GAMES


Question: TypeAlias = tuple[str, Callable[[], Answer]]
Section: TypeAlias = Callable[[Device], Iterator[Question]]


def compare(one: GAN, other: GAN, start: GAN, bound: float, more: str = "") -> Answer:
    distance = apart(one, other, start)
    return Answer(f"{distance:.2g} apart, at most {bound:g}{more}", wrong=not distance <= bound)


def parity(device: Device) -> Iterator[Question]:
    """The same numbers are drawn, and the same game is played, as on the CPU."""

    def numbers() -> Answer:
        for shape in ((9,), (3, 32, 32)):
            here, there = (Noise(3, 5, 7, 100, "x", kind).uniform(*shape) for kind in ("cpu", device.kind))
            if not torch.equal(here, there.cpu()):
                return Answer(f"uniform numbers of shape {shape} differ", wrong=True)
        return Answer("the bits of the CPU's")

    def weights(game: Game) -> Answer:
        start, steps = game.build(steady=True), 4 if device.quick else 8
        # The CPU is compared with itself by other convolutions: the comparison must not be empty.
        with torch.backends.mkldnn.flags(enabled=device.kind != "cpu"):
            there = play(game.build(steady=True), game.data(8), "cpu", steps)
        with full_float32(torch.device(device.kind)):
            here = play(game.build(steady=True), game.data(8), device.kind, steps)
        return compare(here, there, start, BOUND)

    yield "random numbers", numbers
    for name, game in GAMES.items():
        yield name, partial(weights, game)


def resume(device: Device) -> Iterator[Question]:
    """The same run twice, and one that was cut; bit for bit on the CPU and where all is deterministic."""

    def runs(game: Game, deterministic: bool) -> Answer:
        def run(steps: int, **options: Any) -> GAN:
            gan, options = game.build(), {"deterministic": deterministic, **options}
            return play(gan, game.data(8), device.kind, steps, **options)

        try:
            with tempfile.TemporaryDirectory() as folder:
                whole, again = run(6), run(6)
                run(3, save=Path(folder) / "x.ckpt")
                resumed = run(6, resume=Path(folder) / "x.ckpt")
        except RuntimeError as error:
            if not deterministic or "deterministic" not in str(error):
                raise
            return Answer(f"refused by torch: {str(error).splitlines()[0][:90]}")
        finally:
            torch.use_deterministic_algorithms(False)
        twice, cut = apart(again, whole, game.build()), apart(resumed, whole, game.build())
        exact = deterministic or device.kind == "cpu"
        found = f"twice {twice:.2g} apart, cut and resumed {cut:.2g}"
        return Answer(f"{found}, {'at most 0' if exact else 'not judged'}", wrong=exact and twice + cut > 0)

    for name, game in device.games.items():
        for deterministic in (False,) if device.kind == "cpu" else (True, False):
            yield f"{name}{', deterministic' * deterministic}", partial(runs, game, deterministic)


class Strict(Callback):
    """From the third iteration on torch warns of everything that waits for the device."""

    def on_train_batch_start(self, trainer: Trainer, gan: GAN, *_: Any) -> None:
        torch.cuda.set_sync_debug_mode("warn" if trainer.global_step > 1 else "default")

    def on_train_batch_end(self, trainer: Trainer, gan: GAN, *_: Any) -> None:
        if trainer.global_step == trainer.max_steps:
            torch.cuda.set_sync_debug_mode("default")


def waits(device: Device) -> Iterator[Question]:
    """Between two logging points nothing waits for the device."""

    def places(game: Game, precision: str) -> Answer:
        callbacks = (Throughput(), Feedback(every=0), Strict())
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            try:
                play(game.build(), game.data(), "cuda", 5, precision=precision, callbacks=callbacks)
            finally:
                torch.cuda.set_sync_debug_mode("default")
        where = [
            f"{Path(w.filename).name}:{w.lineno}" for w in said if "called a synchronizing" in str(w.message)
        ]
        return Answer(f"{len(where)} waits {', '.join(sorted(set(where))[:6])}".rstrip(), wrong=bool(where))

    if not device.is_cuda:
        yield "all", lambda: Answer("only CUDA tells who waits")
        return
    for precision in ("bf16-mixed", "32-true", "16-mixed"):
        for name, game in GAMES.items():
            if game.float16 or precision != "16-mixed":
                yield f"{name}, {precision}", partial(places, game, precision)


class Skipped(Callback):
    """Keeps the loss scales and the numbers of skipped steps."""

    def on_train_end(self, trainer: Trainer, gan: GAN) -> None:
        self.found = loss_scales(trainer)


def precision(device: Device) -> Iterator[Question]:
    """With bf16 and float16 the game goes the way of float32."""

    def low(game: Game, chosen: str) -> Answer:
        steps, watch = 4 if device.quick else 20, Skipped()
        full = play(game.build(steady=True), game.data(8), device.kind, steps)
        half = play(
            game.build(steady=True), game.data(8), device.kind, steps, precision=chosen, callbacks=(watch,)
        )
        skipped = {name: value for name, value in watch.found.items() if "skipped" in name}
        bound = 0.9 if any(skipped.values()) else ROUGH  # if all steps were skipped it would be 1
        more = "".join(f", {name} {value:g}" for name, value in skipped.items())
        return compare(half, full, game.build(steady=True), bound, more)

    for name, game in device.games.items():
        for chosen in ("bf16-mixed", "16-mixed") if device.is_cuda and game.float16 else ("bf16-mixed",):
            yield f"{name}, {chosen}", partial(low, game, chosen)


def compiled(device: Device) -> Iterator[Question]:
    """Inductor, and on CUDA its CUDA graphs, play the same game, through penalties that are lazy."""

    def same(game: Game, mode: bool | str) -> Answer:
        steps = 4 if device.quick else 8
        with full_float32(torch.device(device.kind)):
            plain = play(game.build(steady=True), game.data(8), device.kind, steps)
            counters.clear()
            began = time.perf_counter()
            with warnings.catch_warnings(record=True) as said:
                warnings.simplefilter("always")
                gan = play(game.build(steady=True, compile=mode), game.data(8), device.kind, steps)
        graphs, skipped = counters["stats"]["unique_graphs"], counters["inductor"]["cudagraph_skips"]
        more = f", {graphs} graphs in {time.perf_counter() - began:.0f} s"
        more += f", {skipped} without CUDA graphs" if skipped else ""
        if any("training goes on uncompiled" in str(one.message) for one in said):
            return Answer("there is no compiler here", wrong=device.is_cuda)
        return compare(gan, plain, game.build(steady=True), BOUND, more)

    for mode in (True, "reduce-overhead") if device.is_cuda else (True,):
        for name, game in list(device.games.items())[:3]:  # compiling takes long
            yield f"{name}, compile {mode}", partial(same, game, mode)


def evaluation(device: Device) -> Iterator[Question]:
    """Features, distances and whole measurements are those of the CPU; batches too large are halved."""
    count, generator = 300 if device.quick else 3000, torch.Generator().manual_seed(0)

    def relative(one: Any, other: Any, bound: float) -> Answer:
        a, b = (
            torch.stack([torch.as_tensor(value).cpu().double() for value in side]) for side in (one, other)
        )
        error = ((a - b).norm() / b.norm()).item()
        return Answer(f"{error:.2g} apart, at most {bound:g}", wrong=not error <= bound)

    def distances() -> Answer:
        real = torch.randn(count, 512, generator=generator)
        fake = 1.1 * torch.randn(count, 512, generator=generator)
        here, there = (
            [
                frechet_distance(real=a, fake=b), kernel_distance(real=a, fake=b), *prdc(real=a, fake=b)
            ] for a, b in ((real.to(device.kind), fake.to(device.kind)), (real, fake))
        )  # fmt: skip
        return relative(here, there, 1e-6)

    def features() -> Answer:
        images = torch.rand(500, 1, 32, 32, generator=generator) * 2 - 1
        torch.set_float32_matmul_precision("high")  # as in training; extractors switch it off
        network = load_extractor("fashion")
        there = network(images)
        return relative(network.to(device.kind)(images.to(device.kind)), there, 1e-4)

    def measured() -> Answer:
        values = []
        for kind in (device.kind, "cpu"):
            fakes = torch.rand(count, 1, 8, 8, generator=torch.Generator().manual_seed(1)) * 2 - 1
            sample = lambda first, size, fakes=fakes, kind=kind: fakes[first : first + size].to(kind)  # noqa: E731
            with tempfile.TemporaryDirectory() as cache:
                values.append(evaluate(sample, Digits(), "digits", count=count, device=kind, cache_dir=cache))
        here, there = (list(report.values.values()) for report in values)
        return relative(here, there, 1e-4)

    def halved() -> Answer:
        torch.cuda.empty_cache()
        torch.cuda.set_per_process_memory_fraction(0.02)
        try:
            parts = AutoBatchSize()
            row = torch.cuda.get_device_properties(0).total_memory // 400  # floats: 1 % of the memory
            rows = len(parts(lambda _, size: torch.empty(size, row, device="cuda")[:, 0], 64))
        finally:
            torch.cuda.set_per_process_memory_fraction(1.0)
        return Answer(f"{rows} rows in parts of {parts.size}", wrong=rows != 64 or parts.size is None)

    def large() -> Answer:
        stored = torch.zeros(45_000, 3 * 128 * 128, dtype=torch.uint8, device="cuda")
        stored[-1] = 7
        found = stored.index_select(0, torch.tensor([44_999], device="cuda"))
        return Answer("index_select beyond 2^31 elements", wrong=not bool((found == 7).all()))

    yield "distances", distances
    yield "features", features
    yield "a measurement", measured
    if device.is_cuda:
        yield "too little memory", halved
        yield "a large data set", large


def learning(device: Device) -> Iterator[Question]:
    """configs/digits.yaml learns: its Fréchet distance, 67 before training and 1.0 after 5,000 iterations."""
    digits, data = Game("digits.yaml", (1, 8, 8)), Digits()

    def learn(chosen: str) -> Answer:
        steps, bound = (150, 35.0) if device.quick else (2000, 5.0)
        began = time.perf_counter()
        gan = play(digits.build(), data, device.kind, steps, precision=chosen).to(device.kind)
        seconds = time.perf_counter() - began
        with tempfile.TemporaryDirectory() as cache:
            report = evaluate(
                lambda first, size: gan.sample(size, first=first), data, "digits",
                count=data.size(), device=device.kind, cache_dir=cache,
            )  # fmt: skip
        distance = report.values["metric/fd_digits"]
        return Answer(
            f"fd_digits {distance:.3g}, at most {bound:g}, after {steps} iterations in {seconds:.0f} s",
            wrong=not distance <= bound,
        )

    for chosen in ("32-true", "bf16-mixed") if not device.quick else ("32-true",):
        yield f"digits, {chosen}", partial(learn, chosen)
