"""The generator alone: what other programs read draws what the checkpoint draws."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, safe_open, save_file
from shared import exporting
from shared.fits import Run
from torch import nn

from litgan import GAN, cli
from litgan.export import load_generator, save_onnx
from litgan.networks import UNetGenerator
from litgan.noise import Noise


@pytest.fixture
def export(digits_run: Run, tmp_path: Path) -> Callable[..., Path]:
    """`litgan export` of a checkpoint; returns where."""

    def run(name: str, *options: str) -> Path:
        with redirect_stdout(StringIO()) as said:
            cli.main(["export", str(digits_run.checkpoint), f"--out={tmp_path / name}", *options])
        assert said.getvalue() == f"{tmp_path / name}\n"
        assert [path.name for path in tmp_path.iterdir() if path.is_file()] == [name]
        return tmp_path / name

    return run


def inputs(generator: nn.Module, count: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The latents and labels of `GAN.sample` with seed 3."""
    return Noise(3, 0, 0, count, "sample").normal(int(generator.latent_dim)), torch.arange(count) % 10


@pytest.mark.parametrize(
    ("option", "ema"), [([], True), (["--raw-weights"], False), (["--ema=1000000"], 1_000_000)]
)
def test_safetensors_hold_the_generator_and_how_to_build_it(
    option: list[str], ema: bool | int, export: Callable[..., Path], digits_run: Run
) -> None:
    generator = load_generator(export("generator.safetensors", *option))
    assert not generator.training
    with torch.no_grad():
        samples = generator(*inputs(generator, 5))
    expected = GAN.load_from_checkpoint(digits_run.checkpoint, map_location="cpu").sample(5, seed=3, ema=ema)
    torch.testing.assert_close(samples, expected, rtol=0, atol=0)


@pytest.mark.heavy
def test_onnx_runs_without_torch_for_any_batch(export: Callable[..., Path], digits_run: Run) -> None:
    runtime = pytest.importorskip("onnxruntime", reason="pip install litgan[export] onnxruntime")
    session = runtime.InferenceSession(export("generator.onnx", "--format=onnx"))
    gan = GAN.load_from_checkpoint(digits_run.checkpoint, map_location="cpu")
    for count in (1, 7):
        latents, labels = inputs(gan.generator, count)
        (samples,) = session.run(None, {"latents": latents.numpy(), "labels": labels.numpy()})
        torch.testing.assert_close(torch.tensor(samples), gan.sample(count, seed=3), rtol=1e-4, atol=1e-5)


@pytest.mark.heavy
def test_onnx_takes_an_image_of_any_size(tmp_path: Path) -> None:
    generator = UNetGenerator((3, 16, 16), (2, 16, 16), widths=(4, 6, 8)).eval()
    exporting.check_any_size(generator, (2, 16, 16), tmp_path)


class Unspeakable(nn.Module):
    """A generator whose output depends on the values of its latents in a way that no graph can hold."""

    latent_dim = 4

    def forward(self, latents: torch.Tensor, labels: torch.Tensor | None = None) -> torch.Tensor:
        return latents if latents.sum().item() > 0 else -latents


@pytest.mark.heavy
def test_what_onnx_cannot_say_is_told_in_a_sentence(tmp_path: Path) -> None:
    pytest.importorskip("onnxscript", reason="pip install litgan[export]")
    with pytest.raises(ValueError, match=r"Unspeakable cannot .* ONNX .*take --format safetensors"):
        save_onnx(Unspeakable(), 0, tmp_path / "generator.onnx")
    assert not list(tmp_path.iterdir())


def test_a_missing_package_names_its_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "onnxscript", None)
    with pytest.raises(ImportError, match=r"pip install litgan\[export\]"):
        save_onnx(Unspeakable(), 0, tmp_path / "generator.onnx")


def test_a_damaged_or_foreign_file_is_refused_in_a_sentence(
    export: Callable[..., Path], tmp_path: Path
) -> None:
    path = export("generator.safetensors")
    weights = load_file(path)
    name = next(iter(weights))
    with safe_open(path, framework="pt") as file:
        about = file.metadata()
    save_file(weights | {name: torch.full_like(weights[name], float("nan"))}, path, about)
    with pytest.raises(ValueError, match=f"{name} is NaN"):
        load_generator(path)
    save_file(weights | {name: weights[name].to(torch.complex64)}, path, about)
    with pytest.raises(ValueError, match=f"{name} is complex"):
        load_generator(path)
    for wrong in ({name: weights[name][:-1].contiguous()}, {"another": torch.ones(1)}):
        save_file(weights | wrong, path, about)
        with pytest.raises(ValueError, match=f"architecture.*{next(iter(wrong))}"):
            load_generator(path)
    save_file({key: one for key, one in weights.items() if key != name}, path, about)
    with pytest.raises(ValueError, match=f"architecture.*{name}"):
        load_generator(path)
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(ValueError, match=r"no complete safetensors file.*export it again"):
        load_generator(path)
    save_file({"weight": torch.zeros(1)}, path)
    with pytest.raises(ValueError, match="does not say how to build its network"):
        load_generator(path)
