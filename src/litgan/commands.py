"""Commands over a checkpoint: typed functions, each one verb of the command line."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from lightning.pytorch import LightningDataModule
from torch import Tensor, nn

from litgan import checkpoints, sampling
from litgan.callbacks.realism import evaluate_gan
from litgan.condition import choose_classes, describe, interpolate_conditions
from litgan.data import GANDataModule, ImageFolder
from litgan.data.pack import write_pack
from litgan.data.stock import as_gan_data, eval_conditions
from litgan.export import save_generator, save_onnx
from litgan.files import atomic_write, check_output, writing_output
from litgan.gan import GAN
from litgan.metrics import FeatureExtractor, Report, load_extractor
from litgan.noise import Noise
from litgan.processes import best_device, gather_interleaved, init_distributed, local_rank_zero_first
from litgan.rebuild import Builder
from litgan.render import save_gif
from litgan.report import write_report


def sample(
    ckpt: str,
    count: int | None = None,
    seed: int = 0,
    out: str = "samples",
    labels: str | None = None,
    input: str | None = None,
    truncation: float | None = None,
    raw_weights: bool = False,
    ema: int | None = None,
    trust: str | Sequence[str] = (),
) -> None:
    """Draws samples from a checkpoint into a folder: one picture, and the samples themselves as a .pt file.

    Under torchrun the processes share the work, and what is written is the same.

    Args:
        ckpt: the checkpoint.
        count: samples to draw; 64 if left out, or 1 from each input.
        seed: of the latents; sample i of a seed is the same whatever the count.
        out: folder to write to.
        labels: classes to draw, by number or name, separated by commas and repeated as needed; all in turn
            if left out.
        input: file, or folder of files, to make samples from, each under its own name; if left out the
            conditions are of the data, held out if some are.
        truncation: cut-off of the latents in standard deviations, e.g. 0.7; none if left out.
        raw_weights: take the weights of the last step instead of their average.
        ema: half-life of the average to take, one of the recipe's extra_ema_halflives; its own if left out.
        trust: modules of yours whose classes the checkpoint may name, with commas between; they are imported.
    """
    if count is not None and count < 1:
        raise ValueError(f"A count of {count} draws nothing: give at least 1.")
    check_output(out, folder=True)
    inputs = named_inputs(input) if input else {}
    options: dict[str, Any] = {"truncation": truncation, "ema": not raw_weights and (ema or True)}
    with init_distributed() as (rank, world_size, device):
        _, gan, data = load(ckpt, device, Builder(trust, ckpt))
        if inputs:
            for index, (name, path) in [*enumerate(inputs.items())][rank::world_size]:
                condition, size = condition_of(path, gan, data), count or 1
                save(gan.sample(size, seed, condition, first=index * size, **options), data, Path(out) / name)
            return
        count, chosen = count or 64, parse_labels(labels, getattr(data, "class_names", None))
        share = [  # in the batches of a single process, for the same bits
            gan.sample(
                size := min(sampling.CHUNK, count - first), seed, conditions(gan, data, first, size, chosen),
                first=first, **options,
            ).cpu()
            for first in range(rank * sampling.CHUNK, count, world_size * sampling.CHUNK)
        ]  # fmt: skip
        chunks = gather_interleaved(share)
    if rank == 0:
        save(torch.cat(chunks), data, Path(out) / f"samples_seed{seed}", as_tensor=True)


def evaluate(
    ckpt: str,
    count: int = 10_000,
    real_count: int | Literal["all"] | None = None,
    out: str | None = None,
    extractor: FeatureExtractor | str | None = None,
    split: str = "train",
    raw_weights: bool = False,
    ema: int | Literal["all"] | None = None,
    download: bool = False,
    trust: str | Sequence[str] = (),
) -> dict[str, object]:
    """Measures a checkpoint against its data; the last line of stdout is one JSON object.

    With the digits or fashion extractor it has the share of each class among the samples; for a GAN with
    classes, precision and recall within each. Under torchrun the processes share the work, and rank zero
    prints the result.

    Args:
        ckpt: the checkpoint.
        count: samples to draw.
        real_count: reals to compare with; all: those of the split, as published distances have it; if left
            out as many as samples, or as there are.
        out: JSON file to write too.
        extractor: its name, e.g. inception or fashion, or its class; the recipe's own if left out.
        split: of the data to compare with.
        raw_weights: measure the weights of the last step instead of their average.
        ema: half-life of the average to measure, one of the recipe's extra_ema_halflives; all: measure each
            of them and report the best, with the distances of the others; the recipe's own if left out.
        download: fetch data and weights that the checkpoint names and that are missing here.
        trust: modules of yours whose classes the checkpoint may name, with commas between; they are imported.
    """
    if out:
        check_output(out)
    builder = Builder(trust, ckpt, download)
    with init_distributed() as (rank, world_size, device):
        checkpoint, gan, data = load(ckpt, device, builder)
        with local_rank_zero_first():
            data.load(split)
            chosen = load_extractor(extractor) if extractor else None  # what the user names may be fetched
            network = chosen or build_extractor(checkpoint, builder)
            metrics = build_pair_metrics(checkpoint, builder)
        reports: dict[str, Report] = {}
        for halflife in [None, *map(int, gan.extra_emas)] if ema == "all" else [ema]:
            name = "raw" if raw_weights else f"ema {halflife or ''}".strip()
            reports[name] = evaluate_gan(
                gan, data, network, ema=not raw_weights and (halflife or True), count=count,
                real_count=real_count, split=split, rank=rank, world_size=world_size,
                pair_metrics=metrics,
            )  # fmt: skip
    result = best_of(reports) | {"images_seen": gan.images_seen}
    if rank == 0:
        print(json.dumps(result), flush=True)  # first: writing may fail
    if out and rank == 0:
        with writing_output(out), atomic_write(Path(out)) as partial:
            partial.write_text(json.dumps(result, indent=2) + "\n")
    return result


def interpolate(
    ckpt: str,
    out: str = "loop.gif",
    points: int = 6,
    steps: int = 12,
    seed: int = 0,
    label: int | None = None,
    raw_weights: bool = False,
    trust: str | Sequence[str] = (),
) -> None:
    """Interpolates between latents of a checkpoint and back to the first: one animated GIF that repeats.

    Tensor conditions of the data go along, on straight lines.

    Args:
        ckpt: the checkpoint.
        out: GIF to write; with another suffix, e.g. .wav, what the medium plays, one sample after the other.
        points: latents to walk through, along great circles.
        steps: pictures from one to the next.
        seed: of these latents; they are the first ones of `litgan sample`.
        label: class that is shown; the first if left out.
        raw_weights: take the weights of the last step instead of their average.
        trust: modules of yours whose classes the checkpoint may name, with commas between; they are imported.
    """
    if points < 2 or steps < 1:
        raise ValueError(f"A walk of {points} points and {steps} steps goes nowhere: give at least 2 and 1.")
    check_output(out)
    _, gan, data = load(ckpt, best_device(), Builder(trust, ckpt))
    network = gan.generator if raw_weights else gan.ema.average
    corners = Noise(seed, 0, 0, points, "sample", gan.device).normal(network.latent_dim)  # type: ignore[arg-type]
    arcs = [
        sampling.interpolate(*pair, steps + 1)[:-1] for pair in zip(corners, corners.roll(-1, 0), strict=True)
    ]
    shown = 0 if label is None and gan.num_classes else label
    ends = conditions(gan, data, 0, points, None if shown is None else [shown])
    lines = None if ends is None else torch.cat(
        [
            interpolate_conditions(torch.stack(pair), steps + 1)[:-1]  # type: ignore[index]
            for pair in zip(ends, ends.roll(-1, 0), strict=True)
        ]
    )  # fmt: skip
    samples = sampling.generate_in_chunks(network, torch.cat(arcs), lines).cpu()
    if Path(out).suffix != ".gif":
        return save(samples, data, Path(out).with_suffix(""))
    with writing_output(out):
        print(save_gif([data.decode(one[None]).render() for one in samples], Path(out)))


def export(
    ckpt: str,
    format: Literal["safetensors", "onnx"] = "safetensors",
    out: str | None = None,
    raw_weights: bool = False,
    ema: int | None = None,
    trust: str | Sequence[str] = (),
) -> None:
    """Writes the generator of a checkpoint alone: latents (and labels) in, samples out.

    Args:
        ckpt: the checkpoint.
        format: safetensors for litgan.export.load_generator, onnx for other languages and runtimes.
        out: file to write; generator.safetensors or generator.onnx if left out.
        raw_weights: take the weights of the last step instead of their average.
        ema: half-life of the average to take, one of the recipe's extra_ema_halflives; its own if left out.
        trust: modules of yours whose classes the checkpoint may name, with commas between; they are imported.
    """
    path = Path(out or f"generator.{format}")
    check_output(path)
    gan = GAN.load_from_checkpoint(ckpt, map_location="cpu", trust=trust)
    network = sampling.averaged_generator(gan, not raw_weights and (ema or True))
    with writing_output(path):
        if format == "onnx":
            save_onnx(network, gan.condition, path)
        else:
            save_generator(network, gan.recipe["model"], gan.images_seen, path)
    print(path)


def report(run_dir: str, out: str | None = None) -> None:
    """Shows a run as one self-contained web page: curves, grids over time, events, protocol and recipe.

    Args:
        run_dir: the run's folder, runs/<recipe>/<run id>.
        out: HTML file to write; report.html in the run's folder if left out.
    """
    print(write_report(run_dir, out))


def pack(folder: str, out: str, data: Callable[[str], GANDataModule] = ImageFolder) -> None:
    """Reads a data set once and writes it as arrays, which training maps: give `--data.root OUT` then.

    Processes share the arrays in the page cache of their machine, nothing is decoded, and batches are those
    of the folder.

    Args:
        folder: of files, or a .zip of images.
        out: folder to write.
        data: class that reads the files, e.g. litgan.sound.Sound, with its options as --data.NAME.
    """
    check_output(out, folder=True)
    write_pack(data, folder, Path(out))
    print(out)


def save(samples: Tensor, data: Any, stem: Path, *, as_tensor: bool = False) -> None:
    """Writes samples as what the medium shows and plays, if asked as a .pt file too; prints the paths."""
    with writing_output(stem):
        written = data.decode(samples.cpu()).save(stem)
        if as_tensor:
            with atomic_write(stem.with_suffix(".pt")) as partial, partial.open("wb") as file:
                torch.save(samples, file)
    print("\n".join(map(str, written)), flush=True)


def named_inputs(given: str) -> dict[str, Path]:
    """A file, or all files below a folder, by the names of what is made from them.

    Raises FileNotFoundError if there are none.
    """
    root = Path(given).expanduser()
    files = sorted(path for path in root.rglob("[!.]*") if path.is_file()) if root.is_dir() else [root]
    if not files or not files[-1].exists():
        raise FileNotFoundError(f"{root} is no file and no folder with files: give another --input.")
    names = [path.relative_to(root) if root.is_dir() else Path(path.name) for path in files]
    stems = [str(name.with_suffix("")) for name in names]
    unique = [str(name) if stems.count(stem) > 1 else stem for name, stem in zip(names, stems, strict=True)]
    return dict(zip(unique, files, strict=True))


def condition_of(path: Path, gan: GAN, data: Any) -> Tensor:
    """The condition in a file, [1, *shape], as `data.read_condition` gives it.

    Raises ValueError if the GAN has no such conditions.
    """
    if isinstance(gan.condition, int):
        raise ValueError(f"This GAN has {describe(gan.condition)}: leave out --input {path}.")
    condition = data.read_condition(path)
    if condition.ndim != len(gan.condition) or len(condition) != gan.condition[0]:
        raise ValueError(
            f"{path} gives a condition of shape {list(condition.shape)}, but this GAN has "
            f"{describe(gan.condition)}: give one with as many channels."
        )
    return condition[None].to(gan.device)


def load(ckpt: str, device: torch.device, builder: Builder) -> tuple[dict[str, Any], GAN, Any]:
    """The content of a checkpoint, which all ranks read together, its GAN on the device, and its data.

    The data may be of a stock LightningDataModule.
    """
    checkpoint = checkpoints.read_together(ckpt)
    gan = checkpoints.load_gan(GAN, checkpoint, ckpt, device, builder.trust)
    data = checkpoints.build_data(checkpoint, LightningDataModule, builder)
    return checkpoint, gan, as_gan_data(data, gan.condition)


def conditions(
    gan: GAN, data: Any, first: int, count: int, labels: Sequence[int] | None = None
) -> Tensor | None:
    """Conditions of samples `first` and following: the labels, all classes in turn, or those of the data.

    The data's are held out, if there are such.
    """
    if labels is not None:
        return choose_classes(labels, first, count, gan.num_classes)
    split = "test" if "test" in data.splits else "train"
    return eval_conditions(gan, data, count, split=split, first=first)


def best_of(reports: dict[str, Report]) -> dict[str, object]:
    """The report with the shortest distance, and the distances of all if there are several."""
    distances = {weights: next(iter(report.values.values())) for weights, report in reports.items()}
    best = min(distances, key=distances.__getitem__)
    protocol = {**reports[best].protocol, "weights": best}
    averages = {"averages": distances} if len(distances) > 1 else {}
    return {**reports[best].record(), "protocol": protocol, **averages}


def parse_labels(labels: str | None, names: Sequence[str] | None) -> list[int] | None:
    """ "0,snare" -> [0, 2]. Raises ValueError if one is neither a number nor one of the names of classes."""
    if labels is None:
        return None
    try:
        given = [label.strip() for label in str(labels).split(",")]
        return [int(label) if label.isdigit() else (names or ()).index(label) for label in given]
    except ValueError:
        known = f" or {','.join(names[:3])}" if names else ""
        raise ValueError(f'The labels "{labels}" are no classes: write them as 0,1,2{known}.') from None


def build_extractor(checkpoint: dict[str, Any], builder: Builder) -> FeatureExtractor:
    """The feature extractor with which the checkpoint's run measured itself."""
    chosen = checkpoints.recipe_of(checkpoint, "realism").get("extractor")
    if isinstance(chosen, str):
        return load_extractor(chosen, download=builder.download)
    return builder.build_subclass(FeatureExtractor, chosen, "realism.extractor")


def build_pair_metrics(checkpoint: dict[str, Any], builder: Builder) -> list[nn.Module]:
    """The further metrics of pairs of the checkpoint's run."""
    if not (checkpoint["litgan"].get("recipe") or {}).get("realism"):
        return []
    chosen = checkpoints.recipe_of(checkpoint, "realism").get("pair_metrics") or ()
    nodes = chosen if isinstance(chosen, (list, tuple)) else [chosen]
    return [builder.build_subclass(nn.Module, node, "realism.pair_metrics") for node in nodes]
