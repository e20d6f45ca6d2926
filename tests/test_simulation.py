"""The recipes of the core on a simulated device; and that it notices what goes wrong on a real one."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from shared.simulation.launch import complaints, simulate
from shared.simulation.recipes import Simulations

RING = Path(__file__).parents[1] / "configs" / "ring.yaml"
MISTAKES = ("Waiting", "Copying", "Choosing", "Mixing", "Float64", "WithoutMetal", "Small")


@pytest.mark.spawn
def test_it_reports_each_mistake_and_its_place(simulated_device: Path) -> None:
    penalties = ",".join(f"shared.simulation.mistakes.{name}" for name in MISTAKES)
    _, second = simulate(simulated_device, "--config", RING, f"--model.penalties=[{penalties}]")
    said = [re.sub(r":\d+\)$", "", sentence) for sentence in complaints([second], (132,))]
    assert said == [
        "aten._local_scalar_dense.default waits for the device (mistakes.py",
        "aten._to_copy.default waits for the device (mistakes.py",
        "aten.index.Tensor waits for the device (mistakes.py",
        "aten.add.Tensor gets a tensor of the CPU (mistakes.py",
        "aten._to_copy.default computes in float64 (mistakes.py",
        "aten.sum.dim_IntList computes in float64 (mistakes.py",
        "special_ndtri.default has no Metal kernel",
        f"{second.launches} launches in iteration 0, not 132",
    ]
    assert second.launches > 2 * 132


class TestSimulations(Simulations):
    launches = {
        "cifar10": (516, 459),
        "cifar10_r3gan": (3577, 3319),
        "cifar10_r3gan_conditional": (3621, 3357),
        "digits": (181, 105),
        "digits_edges": (278, 212),
        "facades_pix2pix": (1103, 987),
        "fashion_1000": (311, 205),
        "fashion_edges": (448, 355),
        "fashion_mnist": (311, 205),
        "fashion_mnist_conditional": (357, 239),
        "fashion_mnist_fast": (357, 239),
        "fashion_mnist_r3gan": (1311, 796),
        "ffhq64_r3gan": (4077, 3753),
        "ring": (222, 132),
    }
