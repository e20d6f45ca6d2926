"""Which precision a machine gets."""

from __future__ import annotations

import platform
from pathlib import Path

import pytest
import torch

from litgan.precision import best_precision, cpu_vendor
from litgan.recipe import Recipe

RING = Path(__file__).parents[1] / "configs" / "ring.yaml"


@pytest.mark.parametrize(
    ("vendor", "avx512", "amx", "expected"),
    [
        ("AuthenticAMD", True, False, "bf16-mixed"),
        ("AuthenticAMD", False, False, "32-true"),
        ("GenuineIntel", True, True, "bf16-mixed"),
        ("GenuineIntel", True, False, "32-true"),  # slower than float32
        ("an ARM", False, False, "32-true"),
    ],
)
def test_bf16_where_it_is_faster(
    vendor: str, avx512: bool, amx: bool, expected: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    said = tmp_path / "cpuinfo"
    said.write_text(f"processor\t: 0\nvendor_id\t: {vendor}\ncpu family\t: 6\n")
    monkeypatch.setattr("litgan.precision.CPUINFO", said)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: avx512)
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: amx)
    assert best_precision() == expected


@pytest.mark.parametrize(("capability", "expected"), [((7, 5), "32-true"), ((8, 0), "bf16-mixed")])
def test_bf16_on_gpus_that_multiply_in_it(
    capability: tuple[int, int], expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: capability)
    assert best_precision() == expected


@pytest.mark.parametrize(
    ("options", "expected"),
    [([], True), (["--trainer.deterministic=true"], False)],
    ids=["free", "repeatable"],
)
def test_cudnn_compares_algorithms_unless_runs_must_repeat(
    options: list[str], expected: bool, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: (9, 0))
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.backends.cudnn, "benchmark", not expected)
    before = torch.get_float32_matmul_precision()
    try:
        Recipe(
            [
                f"--config={RING}",
                "--trainer.accelerator=cpu",
                f"--trainer.default_root_dir={tmp_path}",
                *options,
            ]
        )
        assert torch.backends.cudnn.benchmark is expected
    finally:
        torch.set_float32_matmul_precision(before)
        torch.use_deterministic_algorithms(False)


def test_where_nobody_says_who_made_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("litgan.precision.CPUINFO", tmp_path / "none")
    monkeypatch.setattr(platform, "processor", lambda: "AMD64 Family 25 Model 17 Stepping 1, AuthenticAMD")
    assert cpu_vendor() == "AuthenticAMD"
    monkeypatch.setattr(platform, "processor", lambda: "arm")
    assert cpu_vendor() == ""
