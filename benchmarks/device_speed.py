"""What gpu.py reports of a device and never judges: images a second and memory of whole recipes.

Times are means of 16 iterations between two waits for the device, so that lazy penalties have their share.
TFLOP/s count the multiplications and additions of convolutions and matrix products (by the formulas of
torch.utils.flop_counter) in the uncompiled step.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

import measure
import torch
from device_checks import Answer, Device, Question
from games import Game, play
from scaling import Watch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from litgan.memory import is_out_of_memory

BLOCK = 16  # iterations: a multiple of the periods of all lazy penalties in configs/
CASES = {  # recipes at their full width, and their batch size on one GPU
    "digits": (Game("digits.yaml", (1, 8, 8)), 64),
    "fashion_mnist": (Game("fashion_mnist.yaml", (1, 32, 32)), 64),
    "cifar10": (Game("cifar10.yaml"), 64),
    "cifar10_r3gan": (Game("cifar10_r3gan.yaml"), 64),
    # wing: zoo
    "cifar10_sngan": (Game("zoo/cifar10_sngan.yaml"), 64),
    "cifar10_stylegan2_ada": (Game("zoo/cifar10_stylegan2_ada.yaml"), 64),
    "ffhq256_stylegan2": (Game("zoo/ffhq256_stylegan2.yaml", (3, 256, 256)), 16),
    # end: zoo
}
LARGE = {"cifar10_r3gan": (CASES["cifar10_r3gan"][0], 512)}  # the whole batch of its paper
COMPILED = {name: CASES[name] for name in ("digits", "cifar10")}  # compiling takes long
VARIANTS: list[tuple[str, dict[str, Any], dict[str, tuple[Game, int]]]] = [
    ("bf16", {"precision": "bf16-mixed"}, CASES),
    ("bf16", {"precision": "bf16-mixed"}, LARGE),
    ("TF32", {}, CASES),
    ("bf16, CUDA graphs", {"precision": "bf16-mixed", "compile": "reduce-overhead"}, COMPILED),
    ("bf16, no cudnn.benchmark", {"precision": "bf16-mixed", "benchmark": False}, CASES),
    ("fp16", {"precision": "16-mixed"}, CASES),
]


class Flops(TorchDispatchMode):
    """Adds up operations; torch's FlopCounterMode refuses the `torch.autograd.grad` of gradient penalties."""

    total = 0

    def __torch_dispatch__(self, operation: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = operation(*args, **(kwargs or {}))
        formula = flop_registry.get(operation._overloadpacket)
        self.total += formula(*args, **(kwargs or {}), out_val=result) if formula else 0
        return result


def flops(game: Game, batch_size: int, device: str, **options: Any) -> float:
    """Floating-point operations of an iteration, the mean over the period of the lazy penalties."""
    with Flops() as counter:
        play(game.build(**options), game.data(batch_size), device, BLOCK)
    return counter.total / BLOCK


def run(device: Device, game: Game, batch_size: int, work: dict[Any, float], **variant: Any) -> Answer:
    """Images a second and memory of one run; `work` keeps the operations of each game and batch size."""
    options = {"benchmark": True, **variant}
    gan, watch = game.build(compile=options.pop("compile", False)), Watch(BLOCK)
    torch.set_float32_matmul_precision("high")
    if device.is_cuda:
        torch.cuda.reset_peak_memory_stats()
    try:
        key = game.recipe, batch_size
        work[key] = work.get(key) or flops(game, batch_size, device.kind)
        blocks = 2 if device.quick else 3
        play(gan, game.data(batch_size), device.kind, blocks * BLOCK, callbacks=(watch,), **options)
    except RuntimeError as error:
        if not is_out_of_memory(error):
            raise
        return Answer("the memory is too small")
    seconds = measure.spread(watch.seconds[1:])[0]  # the first block compiles and chooses kernels
    images = batch_size * gan.discriminator_steps / seconds
    gib = f", {torch.cuda.max_memory_allocated() / 2**30:.2f} GiB" if device.is_cuda else ""
    rate = f", {work[key] / seconds / 1e12:.3g} TFLOP/s"
    return Answer(f"{images:,.0f} images/s, {measure.show(watch.seconds[1:], 1e3)} ms{gib}{rate}")


def speed(device: Device) -> Iterator[Question]:
    """Images a second, milliseconds an iteration, the most memory that tensors took, and TFLOP/s."""
    work: dict[Any, float] = {}
    variants = VARIANTS if device.is_cuda else [("float32", {}, CASES)]
    for variant, options, cases in variants:
        for name, (game, batch_size) in list(cases.items())[: 1 if device.quick else None]:
            what = f"{name}, batch {batch_size}, {variant}"
            yield what, partial(run, device, game, batch_size, work, **options)
