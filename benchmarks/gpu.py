"""The training step on a CUDA device: float32, TF32, bf16, compiled, CUDA graphs.

    python benchmarks/gpu.py [--iterations 96] [--rounds 3] [--batches 64 128]
    python benchmarks/gpu.py --recipe configs/digits.yaml --resolution 8 --channels 1

Real recipes under the real Trainer, with synthetic images on the device, without logger, pictures or
metrics. Times are means of sixteen iterations between two waits for the device, so that lazy penalties have
their share; the variants take turns. TFLOP/s counts the multiplications and additions of convolutions and
matrix products (by the formulas of torch.utils.flop_counter) in the uncompiled step; `of matmul` compares
them with the rate of a large matrix product in the same arithmetic on the same device.
"""

from __future__ import annotations

import sys
import tempfile
import time
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import measure
import torch
from scaling import Watch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from litgan.cli import silence_warnings
from litgan.recipe import Recipe

CONFIGS = Path(__file__).parents[1] / "configs"
BLOCK = 16  # iterations: a multiple of the periods of all lazy penalties in configs/
NETWORKS = {  # options of `litgan fit`
    "DCGAN-64": [
        f"--config={CONFIGS / 'cifar10.yaml'}", "--data=synthetic.Synthetic", "--data.resolution=64",
        "--model.generator.widths=[512,256,128,64]", "--model.discriminator.widths=[64,128,256,512]",
    ],
    "R3GAN-32": [
        f"--config={CONFIGS / 'cifar10_r3gan.yaml'}", "--data=synthetic.Synthetic", "--model.augment=null",
    ],
}  # fmt: skip
VARIANTS = {  # name to (arithmetic of float32 products, options)
    "fp32": ("highest", ["--trainer.precision=32-true"]),
    "tf32": ("high", ["--trainer.precision=32-true"]),
    "bf16": ("high", ["--trainer.precision=bf16-mixed"]),
    "bf16, compile": ("high", ["--trainer.precision=bf16-mixed", "--model.compile=true"]),
    "bf16, CUDA graphs": ("high", ["--trainer.precision=bf16-mixed", "--model.compile=reduce-overhead"]),
}
QUIET = [f"--{part}.every=0" for part in ("realism", "samples", "gradients", "checkpoint")]
QUIET += ["--trainer.logger=false", "--trainer.enable_progress_bar=false", "--checkpoint.minutes=0"]


class Flops(TorchDispatchMode):
    """Adds up operations; torch's FlopCounterMode refuses the `torch.autograd.grad` of gradient penalties."""

    total = 0

    def __torch_dispatch__(self, operation: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = operation(*args, **(kwargs or {}))
        formula = flop_registry.get(operation._overloadpacket)
        self.total += formula(*args, **(kwargs or {}), out_val=result) if formula else 0
        return result


def allow(arithmetic: str) -> None:
    """Lets float32 products be computed in float32 ("highest") or in TF32 ("high")."""
    torch.set_float32_matmul_precision(arithmetic)
    torch.backends.cudnn.allow_tf32 = arithmetic != "highest"


def train(
    options: list[str],
    iterations: int,
    arithmetic: str = "high",
    device: str = "cuda",
    around: AbstractContextManager[Any] | None = None,
) -> list[float]:
    """Seconds an iteration, of each block of iterations, in a run with these options of `litgan fit`."""
    torch.compiler.reset()
    watch = Watch(BLOCK)
    with tempfile.TemporaryDirectory() as folder:
        own = [f"--trainer.accelerator={device}", "--trainer.devices=1", f"--trainer.max_steps={iterations}"]
        recipe = Recipe([*options, *QUIET, *own, f"--trainer.default_root_dir={folder}"])
        recipe.trainer.callbacks.append(watch)
        allow(arithmetic)  # after the recipe, which asks for TF32
        with recipe.run_context(), around or nullcontext():
            recipe.trainer.fit(recipe.model, datamodule=recipe.datamodule)
    return watch.seconds


def flops(options: list[str], device: str = "cuda") -> float:
    """Floating-point operations of an iteration, the mean over the period of the lazy penalties."""
    counter = Flops()
    train(options, BLOCK, device=device, around=counter)
    return counter.total / BLOCK


def matmul_rate(arithmetic: str, dtype: torch.dtype, device: str = "cuda", size: int = 8192) -> float:
    """FLOP/s of a product of two square matrices."""
    allow(arithmetic)
    left, right = torch.randn(2, size, size, device=device, dtype=dtype)
    seconds = []
    for _ in range(8):
        began = time.perf_counter()
        product = left @ right
        product[0, 0].item()  # waits for the device
        seconds.append(time.perf_counter() - began)
    return 2 * size**3 / measure.spread(seconds[2:])[0]


def compare(name: str, network: list[str], options: Any) -> list[measure.Row]:
    """A row for each variant of a network at one batch size."""
    work = flops([*network, *VARIANTS["fp32"][1]])
    seconds: dict[str, list[float]] = {variant: [] for variant in VARIANTS}
    memory: dict[str, float] = {}
    for _ in range(options.rounds):
        for variant, (arithmetic, chosen) in VARIANTS.items():
            torch.cuda.reset_peak_memory_stats()
            blocks = train([*network, *chosen], options.iterations + 2 * BLOCK, arithmetic)
            seconds[variant] += blocks[2:]  # the first ones compile and choose kernels
            memory[variant] = torch.cuda.max_memory_allocated() / 2**20
    reference = measure.spread(seconds["fp32"])[0]
    rows = []
    for variant, (arithmetic, _) in VARIANTS.items():
        median = measure.spread(seconds[variant])[0]
        peak = matmul_rate(arithmetic, torch.bfloat16 if "bf16" in variant else torch.float32)
        rows.append({
            "network": name, "variant": variant, "milliseconds": measure.show(seconds[variant], 1e3),
            "times fp32": reference / median, "TFLOP/s": work / median / 1e12,
            "of matmul": work / median / peak, "matmul TFLOP/s": peak / 1e12, "peak MiB": memory[variant],
        })  # fmt: skip
    return rows


def main() -> None:
    parser = measure.options(__doc__, __file__)
    parser.add_argument("--iterations", type=int, default=6 * BLOCK, help=f"in a run, a multiple of {BLOCK}")
    parser.add_argument("--rounds", type=int, default=3, help="runs of each variant, in turns")
    parser.add_argument("--batches", type=int, nargs="+", default=[64, 128])
    parser.add_argument("--recipe", type=Path, help="another one in place of the built-in networks")
    parser.add_argument("--resolution", type=int, default=32, help="of that recipe's images")
    parser.add_argument("--channels", type=int, default=3, help="of that recipe's images")
    options = measure.parse(parser)
    if not torch.cuda.is_available():
        sys.exit("There is no CUDA device here: run benchmarks/gpu.py on a machine that has one.")
    silence_warnings()
    networks = NETWORKS
    if options.recipe:
        shape = [f"--data.resolution={options.resolution}", f"--data.channels={options.channels}"]
        config = [f"--config={options.recipe}", "--data=synthetic.Synthetic", *shape]
        networks = {options.recipe.stem: config}
    if options.quick:
        options.iterations, options.rounds, options.batches = BLOCK, 1, [16]
    rows = []
    for name, network in networks.items():
        for batch in options.batches:
            rows += compare(f"{name}, batch {batch}", [*network, f"--data.batch_size={batch}"], options)
    print(measure.table(rows))
    measure.write(options, {"rows": rows})


if __name__ == "__main__":
    main()
