"""What data parallelism costs a GAN: bytes an iteration by reducer, step times, and a projection.

    python benchmarks/communication.py [--iterations 12] [--rounds 2]

Two processes on this machine (gloo, loopback) train the same GAN under Lightning's
`ddp_find_unused_parameters_true` and under `adversarial_ddp`, alternating. Bytes are counted in a
communication hook. The projection adds to the step time of one process, measured here, the time of
ring all-reduces over links of stated bandwidth and latency (Patarasuk and Yuan 2009: 2 (N - 1) / N of the
bytes, 2 (N - 1) hops), none of it hidden behind the backward pass: an upper bound, which overlap, and
trees in place of rings, lower. `--alone` takes step times measured elsewhere, on one GPU of the cluster.
"""

from __future__ import annotations

import argparse
import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from collections import Counter
from functools import partial
from pathlib import Path
from typing import Any

import measure
import torch
from lightning.pytorch import Callback, Trainer
from synthetic import Synthetic
from torch.distributed.algorithms.ddp_comm_hooks.default_hooks import allreduce_hook

from litgan import GAN
from litgan.cli import silence_warnings
from litgan.losses import NonSaturating
from litgan.networks import DCGANDiscriminator, DCGANGenerator
from litgan.strategy import register

STRATEGIES = {"stock": "ddp_find_unused_parameters_true", "litgan": "adversarial_ddp"}
NETWORKS = {  # widths of the generator, from its first layer; the discriminator's are the same backwards
    "DCGAN": (256, 128, 64),
    "30 M + 30 M": (1696, 848, 424),
}
BATCH = {"DCGAN": 16, "30 M + 30 M": 4}  # a process
LINKS = {  # GPUs -> bytes a second out of each, seconds a hop, what that is
    8: (300e9, 3e-6, "NVLink, 300 GB/s a GPU"),
    64: (25e9, 10e-6, "200 Gb/s a GPU between 8 nodes"),
    512: (25e9, 10e-6, "200 Gb/s a GPU between 64 nodes"),
}


class Meter(Callback):
    """Times iterations; counts bytes and messages of each reducer in each network's updates."""

    def __init__(self) -> None:
        self.bytes: Counter[str] = Counter()
        self.messages: Counter[str] = Counter()
        self.times: list[float] = []

    def on_train_start(self, trainer: Trainer, gan: GAN) -> None:
        model = trainer.strategy.model
        reducers = getattr(trainer.strategy, "reducers", {} if model is gan else {"both": model})
        for name, reducer in reducers.items():
            reducer.register_comm_hook((gan, name), self.count)

    def count(self, state, bucket):  # torch refuses annotations that are strings
        gan, name = state
        if gan.discriminator_updates == 0:  # buckets are laid out anew after the first iteration
            return allreduce_hook(None, bucket)
        key = f"{gan.updating}'s update, reducer of {name}"
        self.bytes[key] += bucket.buffer().nbytes
        self.messages[key] += 1
        return allreduce_hook(None, bucket)

    def on_train_batch_start(self, *_: Any) -> None:
        self.times.append(-time.perf_counter())

    def on_train_batch_end(self, *_: Any) -> None:
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        self.times[-1] += time.perf_counter()


def train(network: str, strategy: str, devices: int, iterations: int) -> dict[str, Any]:
    """Medians and counts of one run."""
    widths, meter = NETWORKS[network], Meter()
    sgd = partial(torch.optim.SGD, lr=1e-3)
    gan = GAN(
        partial(DCGANGenerator, widths=widths, norm="none"),
        partial(DCGANDiscriminator, widths=widths[::-1]),
        NonSaturating(), sgd, sgd, sample_shape=(3, 32, 32),
    )  # fmt: skip
    trainer = Trainer(
        max_steps=iterations, max_epochs=-1, devices=devices, strategy=strategy, callbacks=[meter],
        accelerator="cpu" if devices > 1 else "auto", precision="32-true", logger=False,
        enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False,
    )  # fmt: skip
    trainer.fit(gan, datamodule=Synthetic(batch_size=BATCH[network] * devices))
    return {
        "milliseconds": 1e3 * statistics.median(meter.times[1:]),
        "bytes": {key: value / (iterations - 1) for key, value in meter.bytes.items()},
        "messages": sum(meter.messages.values()) / (iterations - 1),
        "parameters": [sum(p.numel() for p in it.parameters()) for it in (gan.generator, gan.discriminator)],
        "device": trainer.strategy.root_device.type,
    }  # fmt: skip


def worker(out: Path, iterations: int, rounds: int) -> None:
    """One of the two processes: A B A B with the DCGAN, then a count with the larger pair."""
    measured = {
        network: [
            (name, train(network, strategy, 2, iterations if network == "DCGAN" else 2))
            for _ in range(rounds if network == "DCGAN" else 1)
            for name, strategy in STRATEGIES.items()
        ]
        for network in NETWORKS
    }
    if os.environ["RANK"] == "0":
        out.write_text(json.dumps(measured))


def launch(options: list[str]) -> dict[str, Any]:
    """Starts the two processes and reads what they measured."""
    with socket.socket() as free, tempfile.TemporaryDirectory() as folder:
        free.bind(("127.0.0.1", 0))
        out, port = Path(folder) / "out.json", str(free.getsockname()[1])
        free.close()
        together = {
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": port,
            "WORLD_SIZE": "2",
            "LOCAL_WORLD_SIZE": "2",
        }
        together |= {"TORCHELASTIC_RUN_ID": "communication", "OMP_NUM_THREADS": "1"}
        command = [sys.executable, __file__, *options, "--worker", str(out)]
        processes = [
            subprocess.Popen(command, env=os.environ | together | {"RANK": r, "LOCAL_RANK": r})
            for r in ("0", "1")
        ]
        for process in processes:
            if process.wait():
                sys.exit("A worker failed: see its message above.")
        return json.loads(out.read_text())


def all_reduce(size: float, messages: float, gpus: int) -> float:
    """Milliseconds of ring all-reduces of `size` bytes in `messages` pieces."""
    bandwidth, hop, _ = LINKS[gpus]
    return 1e3 * (2 * (gpus - 1) / gpus * size / bandwidth + 2 * (gpus - 1) * hop * messages)


def report(measured: dict[str, Any], alone: dict[str, Any]) -> dict[str, Any]:
    """Prints the tables, and returns what is in them."""
    result: dict[str, Any] = {}
    for network, runs in measured.items():
        sides = {name: [run for each, run in runs if each == name] for name in STRATEGIES}
        generator, discriminator = alone[network]["parameters"]
        print(f"\n{network}: {generator:,} + {discriminator:,} parameters, bytes an iteration")
        summary: dict[str, Any] = {"parameters": [generator, discriminator]}
        for name, (first, *_) in sides.items():
            for key, value in sorted(first["bytes"].items()):
                print(f"  {name:7} {key:55} {value:15,.0f}")
            total = sum(first["bytes"].values())
            print(
                f"  {name:7} {'all, in ' + format(first['messages'], '.1f') + ' messages':55} {total:15,.0f}"
            )
            summary[name] = {"bytes": first["bytes"], "total": total, "messages": first["messages"]}
            summary[name]["milliseconds"] = [run["milliseconds"] for run in sides[name]]
        ratio = summary["litgan"]["total"] / summary["stock"]["total"]
        print(f"  bytes, litgan / stock: {ratio:.3f}")
        if len(sides["stock"]) > 1:
            medians = {name: statistics.median(summary[name]["milliseconds"]) for name in STRATEGIES}
            for name, median in medians.items():
                blocks = ", ".join(f"{value:.1f}" for value in summary[name]["milliseconds"])
                print(f"  {name:7} {median:8.1f} ms an iteration on two processes (blocks: {blocks})")
            print(f"  time, stock / litgan: {medians['stock'] / medians['litgan']:.3f}")
        print(
            f"  projected from {alone[network]['milliseconds']:.1f} ms of {BATCH[network]} samples on one "
            f"{alone[network]['device']}, nothing overlapped:"
        )
        for gpus, (_, _, link) in LINKS.items():
            sent = {
                name: all_reduce(summary[name]["total"], summary[name]["messages"], gpus)
                for name in STRATEGIES
            }
            step = {name: alone[network]["milliseconds"] + value for name, value in sent.items()}
            print(
                f"  {gpus:5} GPUs  stock {step['stock']:9.2f} ms ({sent['stock']:6.2f} on the wire)  "
                f"litgan {step['litgan']:9.2f} ms ({sent['litgan']:6.2f})  over {link}"
            )
            summary[f"projected at {gpus}"] = {
                "milliseconds": step,
                "of it communication": sent,
                "link": link,
            }
        result[network] = summary | {"alone": alone[network]}
    return result


def main() -> None:
    parser = measure.options(__doc__, __file__)
    parser.add_argument("--iterations", type=int, default=12, help="an A or B block, at least 2")
    parser.add_argument("--rounds", type=int, default=2, help="of A and B")
    parser.add_argument(
        "--alone",
        type=float,
        nargs=len(NETWORKS),
        help="milliseconds an iteration on one device, of each pair",
    )
    parser.add_argument("--worker", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args() if "--worker" in sys.argv else measure.parse(parser)
    warnings.simplefilter("ignore")
    silence_warnings()
    register()
    if options.quick:
        options.iterations, options.rounds = 2, 1
        del NETWORKS["30 M + 30 M"]
    if options.worker:
        worker(options.worker, options.iterations, options.rounds)
        return
    measured = launch(sys.argv[1:])
    alone = {network: train(network, "auto", 1, 5) for network in NETWORKS}
    for network, milliseconds in zip(NETWORKS, options.alone or (), strict=bool(options.alone)):
        alone[network] |= {"milliseconds": milliseconds, "device": "device, as told"}
    measure.write(options, report(measured, alone))


if __name__ == "__main__":
    main()
