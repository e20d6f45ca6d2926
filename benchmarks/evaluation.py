"""Evaluation: the Fréchet distance alone, Inception's images a second, its memory, and what it costs a run.

    python benchmarks/evaluation.py [--only distances inception memory run] [--weights FILE]

distances   litgan against torchmetrics and torch-fidelity, which both take the eigenvalues of C_r C_f in
            float64. With more samples than dimensions (5 D) all start from the moments, with fewer (D / 2)
            litgan starts from the features and the others from moments that cost them nothing. `error` is
            relative, against roots by eigenvalues and the singular values of their product.
inception   the same weights and pictures through litgan, torchmetrics (without its antialiasing, as it was
            before 1.8) and torch-fidelity, in batches of 64 (torch-fidelity's default) that take turns.
            `distance` is each library's own; `of its features` is litgan's distance of the side's features,
            and `off by` that one's relative error against torch-fidelity's features, `off float64 by`
            against those of torch-fidelity's network in double precision, which takes minutes more.
memory      the peak memory of a process for one batch of 250, torch and weights included.
run         10,000 samples of the fashion recipe (real side cached), and their share of a 10-minute run.

The published weights cannot be had everywhere: without --weights random ones of the same architecture, with
made-up batch-norm statistics, take their place.
"""

from __future__ import annotations

import argparse
import json
import math
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import measure
import torch
from measure import Row
from synthetic import Synthetic
from torch import Tensor, nn
from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3
from torch_fidelity.metric_fid import KEY_METRIC_FID, fid_statistics_to_metric
from torchmetrics.image.fid import NoTrainInceptionV3, _compute_fid

from litgan.callbacks import Realism
from litgan.data import Digits
from litgan.metrics import Inception, evaluate, frechet_distance, load_extractor
from litgan.metrics.distances import Moments, frechet_from_moments
from litgan.recipe import Recipe

RECIPE = Path(__file__).parents[1] / "configs" / "fashion_mnist.yaml"
RUN_SECONDS = 600  # of the recipe, as its last comment says
BATCH = 64

# ------------------------------------------------------------------------------ distances


def rectified(count: int, dimension: int, seed: int) -> Tensor:
    """Features as a pooled ReLU gives them: correlated, not negative, of a decaying spectrum."""
    mixing = torch.randn(dimension, dimension, generator=torch.Generator().manual_seed(0)) / dimension**0.5
    drawn = torch.randn(count, dimension, generator=torch.Generator().manual_seed(seed))
    return (drawn * torch.logspace(0, -2, dimension) * (1 + 0.1 * seed) @ mixing).relu()


def by_torchmetrics(real: Moments, fake: Moments) -> Tensor:
    return _compute_fid(real.mean, real.covariance, fake.mean, fake.covariance)


def by_torch_fidelity(real: Moments, fake: Moments) -> float:
    sides = [{"mu": side.mean.numpy(), "sigma": side.covariance.numpy()} for side in (real, fake)]
    return fid_statistics_to_metric(*sides, verbose=False)[KEY_METRIC_FID]


def by_roots(real: Moments, fake: Moments) -> float:
    roots = []
    for values, vectors in (torch.linalg.eigh(side.covariance) for side in (real, fake)):
        kept = values > values[-1] * len(values) * torch.finfo(values.dtype).eps
        roots.append(vectors[:, kept] * values[kept].sqrt())
    spread = (
        sum(root.square().sum() for root in roots) - 2 * torch.linalg.svdvals(roots[0].T @ roots[1]).sum()
    )
    return ((real.mean - fake.mean).square().sum() + spread).item()


def distances(options: argparse.Namespace) -> list[Row]:
    rows = []
    for dimension in (64, 192) if options.quick else (192, 768, 2048):
        for count in (5 * dimension, dimension // 2):
            real, fake = rectified(count, dimension, 1), rectified(count, dimension, 2)
            moments = Moments.of(real), Moments.of(fake)
            sides: dict[str, Callable[[], Any]] = {
                "litgan": lambda: frechet_from_moments(real=moments[0], fake=moments[1]),  # noqa: B023
                "torchmetrics": lambda: by_torchmetrics(*moments),  # noqa: B023
                "torch-fidelity": lambda: by_torch_fidelity(*moments),  # noqa: B023
            }
            if count < dimension:
                sides["litgan"] = lambda: frechet_distance(real=real, fake=fake)  # noqa: B023
            large = dimension > 1000
            seconds = measure.in_turns(sides, rounds=3 if large else 7, warm_up=0 if large else 1)
            exact = by_roots(*moments)
            row: Row = {"dimensions": dimension, "samples": count}
            row |= {f"{name}, ms": measure.show(times, 1e3) for name, times in seconds.items()}
            row["torchmetrics / litgan"] = measure.show(
                measure.ratios(seconds["torchmetrics"], seconds["litgan"])
            )
            row |= {f"error of {name}": abs(float(side()) / exact - 1) for name, side in sides.items()}
            rows.append(row)
    return rows


# ------------------------------------------------------------------------------ inception


def made_up_weights(path: Path) -> None:
    """Fills torch-fidelity's architecture so that signals keep their size from layer to layer."""
    generator = torch.Generator().manual_seed(0)
    load = torch.hub.load_state_dict_from_url
    module = sys.modules[FeatureExtractorInceptionV3.__module__]
    module.load_state_dict_from_url = lambda *_, **__: {}  # its constructor would load weights
    accept = FeatureExtractorInceptionV3.load_state_dict
    FeatureExtractorInceptionV3.load_state_dict = lambda *_: None
    try:
        network = FeatureExtractorInceptionV3("inception", ["2048"])
    finally:
        module.load_state_dict_from_url, FeatureExtractorInceptionV3.load_state_dict = load, accept
    for part in network.modules():
        if isinstance(part, nn.Conv2d):
            nn.init.kaiming_normal_(part.weight, nonlinearity="relu", generator=generator)
        elif isinstance(part, nn.BatchNorm2d):
            part.running_mean.normal_(0, 0.1, generator=generator)
            part.running_var.uniform_(0.5, 1.5, generator=generator)
            nn.init.uniform_(part.weight, 0.8, 1.2, generator=generator)
            nn.init.normal_(part.bias, 0, 0.1, generator=generator)
    torch.save(network.state_dict(), path)


def sides_of(weights: Path) -> dict[str, Callable[[], Callable[[Tensor], Tensor]]]:
    """Name to what builds it: a function of uint8 pictures [N, 3, H, W] to features [N, 2048]."""

    def ours(precision: Any) -> Callable[[Tensor], Tensor]:
        extractor = Inception(weights, precision=precision)
        return lambda pixels: extractor(pixels / 127.5 - 1)

    def fidelity() -> Callable[[Tensor], Tensor]:
        network = FeatureExtractorInceptionV3("inception", ["2048"], str(weights))
        return lambda pixels: network(pixels)[0]

    return {
        "torch-fidelity": fidelity,
        "torchmetrics": lambda: NoTrainInceptionV3("inception", ["2048"], str(weights), antialias=False),
        "litgan": lambda: ours("fp32"),
        "litgan bf16": lambda: ours("bf16"),
    }


def pictures(count: int) -> Tensor:
    """`count` of scikit-learn's digits, uint8 [count, 3, 8, 8], then `count` others under noise."""
    samples = next(Digits().real_batches(2 * count, batch_size=2 * count))[0]
    noise = torch.randn(count, *samples.shape[1:], generator=torch.Generator().manual_seed(0))
    samples[count:] += 0.3 * noise
    return ((samples.clamp(-1, 1) + 1) * 127.5).round().byte().expand(-1, 3, -1, -1)


@torch.no_grad()
def inception(options: argparse.Namespace) -> list[Row]:
    count = 2 if options.quick else 3 * BATCH  # a side of the distance
    batches = pictures(count).split(1 if options.quick else BATCH)
    extractors = {name: make() for name, make in sides_of(options.weights).items()}
    features: dict[str, list[Tensor]] = {name: [] for name in extractors}

    def extract(name: str) -> Callable[[], None]:
        return lambda: features[name].append(extractors[name](batches[len(features[name])]))

    for side in extractors.values():
        side(batches[0][:8])
    seconds = measure.in_turns({name: extract(name) for name in extractors}, rounds=len(batches), warm_up=0)
    own = {"torch-fidelity": by_torch_fidelity, "torchmetrics": by_torchmetrics}
    truth = FeatureExtractorInceptionV3("inception", ["2048"], str(options.weights)).double()
    # torch-fidelity 0.4.0 takes its own option "float64" for float32
    truth.feature_extractor_internal_dtype = torch.float64
    real, fake = torch.cat([truth(batch)[0] for batch in batches]).split(count)
    exact = frechet_distance(real=real, fake=fake).item()
    rows, reference = [], math.nan
    for name, found in features.items():
        real, fake = torch.cat(found).split(count)
        value = frechet_distance(real=real, fake=fake).item()
        reference = value if name == "torch-fidelity" else reference
        distance = float(own[name](Moments.of(real), Moments.of(fake))) if name in own else value
        faster = measure.ratios(seconds["torch-fidelity"], seconds[name])
        rows.append(
            {
                "extractor": name,
                "images/s": measure.show([len(batches[0]) / each for each in seconds[name]]),
                "torch-fidelity's time / its": measure.show(faster),
                "distance": f"{distance:.8g}",
                "of its features": f"{value:.8g}",
                "off by": value / reference - 1,
                "off float64 by": value / exact - 1,
            }
        )
    return rows


# ------------------------------------------------------------------------------ memory


def memory(options: argparse.Namespace) -> list[Row]:
    count = 8 if options.quick else 250
    rows = []
    for name in sides_of(options.weights):
        command = [sys.executable, __file__, "--threads", str(torch.get_num_threads())]
        command += ["--weights", str(options.weights), "--child", name, "--count", str(count)]
        output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        rows.append({"extractor": name, "batch": count, "peak, MiB": json.loads(output.splitlines()[-1])})
    return rows


@torch.no_grad()
def child(options: argparse.Namespace) -> None:
    """Extracts one batch; prints the peak memory of the process in MiB."""
    sides_of(options.weights)[options.child]()(pictures(options.count)[: options.count])
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)


# ------------------------------------------------------------------------------ run


def run(options: argparse.Namespace) -> list[Row]:
    """What the default cadence of the fashion recipe costs; on made-up reals, for they are cached anyway."""
    recipe = Recipe(["--config", str(RECIPE), "--trainer.logger", "false"])
    gan, data = recipe.model, Synthetic(32, 1, samples=10_000)
    (realism,) = (each for each in recipe.trainer.callbacks if isinstance(each, Realism))
    images = recipe.trainer.max_steps * recipe.datamodule.batch_size
    times_a_run = 1 + math.ceil(images / realism.every)  # one before the first step, one at the end
    count, extractor = 500 if options.quick else realism.count, load_extractor("fashion")
    spent: dict[str, float] = {}

    def timed(part: str, function: Callable[..., Tensor]) -> Callable[..., Tensor]:
        def call(*arguments: Any) -> Tensor:
            began = time.perf_counter()
            result = function(*arguments)
            spent[part] = spent.get(part, 0.0) + time.perf_counter() - began
            return result

        return call

    sample = timed("sampling, s", lambda first, size: gan.sample(size, first=first))
    extractor.features = timed("extractor, s", extractor.features)  # type: ignore[method-assign]
    found: list[dict[str, float]] = []
    with tempfile.TemporaryDirectory() as cache:
        for turn in range(2 if options.quick else 6):  # the first one computes the real side
            spent.clear()
            began = time.perf_counter()
            evaluate(sample, data, extractor, count=count, cache_dir=cache)
            whole = time.perf_counter() - began
            parts = {**spent, "sums and distances, s": whole - sum(spent.values()), "all, s": whole}
            found += [parts] * (turn > 0)
    row: Row = {"samples": count} | {part: measure.show([each[part] for each in found]) for part in found[0]}
    total = times_a_run * statistics.median(each["all, s"] for each in found)
    return [row | {"times a run": times_a_run, "% of 10 minutes": 100 * total / RUN_SECONDS}]


PARTS: dict[str, Callable[[argparse.Namespace], list[Row]]] = {
    "distances": distances,
    "inception": inception,
    "memory": memory,
    "run": run,
}


def main() -> None:
    parser = measure.options(__doc__, __file__)
    parser.add_argument("--only", choices=PARTS, nargs="+", default=list(PARTS), metavar="PART")
    parser.add_argument("--weights", type=Path, help="torch-fidelity's weights; made up if left out")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    parser.add_argument("--count", type=int, help=argparse.SUPPRESS)
    options = measure.parse(parser)
    if options.child:
        child(options)
        return
    result: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        if options.weights is None and {"inception", "memory"} & set(options.only):
            options.weights = Path(folder) / "weights.pth"
            made_up_weights(options.weights)
        for part in options.only:
            result[part] = PARTS[part](options)
            print(f"\n{part}\n{measure.table(result[part])}", flush=True)
    measure.write(options, result)


if __name__ == "__main__":
    main()
