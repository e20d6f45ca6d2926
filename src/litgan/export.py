"""The finished generator in formats that others read: safetensors for Python, ONNX for everything else."""

from __future__ import annotations

import json
import re
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from litgan import checkpoints, extras
from litgan.condition import Condition, probe
from litgan.files import atomic_write
from litgan.rebuild import Builder, first_line

LONGEST = 1_000_000  # characters of a recipe
LARGEST_BATCH = 4096  # of an exported graph


def save_generator(network: nn.Module, recipe: dict[str, Any], images_seen: int, path: Path) -> None:
    """Writes the weights of a generator to a .safetensors file, with the recipe of the model.

    From that, as the checkpoint carries it, `load_generator` makes the network again.
    """
    weights = {name: value.contiguous().cpu() for name, value in network.state_dict().items()}
    about = {"model": json.dumps(recipe), "images_seen": str(images_seen)}
    with atomic_write(path) as partial:
        partial.write_bytes(save(weights, about))


def load_generator(path: str | Path, trust: str | Sequence[str] = ()) -> nn.Module:
    """The generator of a .safetensors file that `litgan export` wrote, on the CPU, in evaluation mode.

    Its forward pass takes latents [B, generator.latent_dim], drawn from N(0, 1), and its condition, such as
    labels [B], if it has one, and gives samples [B, *sample_shape].

    Args:
        path: of the file.
        trust: modules whose classes it may name besides litgan's and torch's; they are imported, which runs
            their code.

    Raises:
        ValueError: if the file is damaged, was not written by litgan, or names another class, or if its
            weights do not fit its recipe.
    """
    from litgan.gan import GAN

    try:
        with safe_open(path, framework="pt") as file:
            about = file.metadata() or {}
            weights = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except SafetensorError as error:
        raise ValueError(f"{path} is no complete safetensors file ({error}): export it again.") from error
    if not {"model", "images_seen"} <= about.keys():
        raise ValueError(f"{path} does not say how to build its network: give a file of litgan export.")
    try:
        if len(about["model"]) > LONGEST or not re.fullmatch(r"[0-9]{1,18}", about["images_seen"]):
            raise ValueError("a recipe that is too long, or a number of images that is none")
        recipe = json.loads(about["model"])
    except (ValueError, RecursionError) as error:
        raise ValueError(
            f"{path} does not say how to build its network ({first_line(error)}): export it anew."
        ) from error
    described, builder = {"litgan": {"recipe": {"model": recipe}}}, Builder(trust, path)
    generator = checkpoints.build_fitting(
        {"state_dict": weights}, lambda: checkpoints.build_gan(described, GAN, builder).generator
    )
    generator.load_state_dict(weights)
    if hasattr(generator, "step_schedule"):
        generator.step_schedule(int(about["images_seen"]))  # type: ignore[operator]
    return generator.eval()


class OfCondition(nn.Module):
    """A generator without latents, of the condition alone."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, condition: Tensor) -> Tensor:
        return self.network(torch.zeros(condition.shape[0], 0), condition)


def save_onnx(network: nn.Module, condition: Condition, path: Path) -> None:
    """Writes a generator as an ONNX graph with the output `samples` [batch, *sample_shape].

    Inputs are `latents` [batch, latent_dim] (float32), unless the length of the latents is 0, and of a
    generator with a condition `labels` [batch] (int64) or `condition` [batch, *condition] (float32). The
    batch is free; so are the sides of a condition [C, ...] if the network takes any.

    Noise inside the generator is constant, the same for all samples.

    Raises:
        ImportError: if the packages of litgan[export] are missing.
        ValueError: if torch cannot express the network in ONNX.
    """
    extras.require("onnxscript", "export")
    network = network.cpu().eval()
    name, inputs, free = type(network).__name__, dict[str, Tensor](), dict[str, dict[int, Any]]()
    batch = torch.export.Dim("batch", min=1, max=LARGEST_BATCH)
    if network.latent_dim or not condition:
        inputs["latents"], free["latents"] = torch.zeros(2, network.latent_dim), {0: batch}  # type: ignore[call-overload]
    else:
        network = OfCondition(network)
    if (given := probe(condition, 2)) is not None:
        key = "condition" if given.is_floating_point() else "labels"
        sides = {place: torch.export.Dim(f"side_{place - 1}") for place in range(2, given.ndim)}
        inputs[key], free[key] = given, {0: batch, **sides}
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of the exporter, about itself
            program = torch.onnx.export(
                network, tuple(inputs.values()), dynamo=True, verbose=False, input_names=list(inputs),
                output_names=["samples"], dynamic_shapes=tuple(free.values()),
            )  # fmt: skip
    except torch.onnx.errors.OnnxExporterError as error:
        raise ValueError(
            f"{name} cannot be written as ONNX ({first_line(error)}): take --format safetensors."
        ) from error
    with atomic_write(path) as partial:
        program.save(str(partial))  # type: ignore[union-attr]
