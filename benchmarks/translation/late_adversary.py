"""Does a late adversary break a run: PSNR before it is let in and at the end, and what the diagnosis says.

    python benchmarks/translation/late_adversary.py --seeds 10 --iterations 600 --threads 1

A recipe with an adversary that is let in late, `fashion_vq` unless said otherwise, is shortened so that the
adversary comes after a third of the iterations, along a ramp of a sixth of them; "careless" is ten times as
loud and has no ramp. PSNR is that of averaged weights and of held-out pairs, the same for all rows. Other
options go to the recipe.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))
import measure
from lightning.pytorch import Callback, Trainer

from litgan.adversarial_weight import AdaptiveWeight
from litgan.data.stock import eval_conditions
from litgan.diagnosis import Diagnosis
from litgan.gan import GAN
from litgan.metrics.pairs import image_metrics
from litgan.recipe import Recipe

FOLDER = Path(__file__).parents[2] / "configs" / "translation"
WEIGHT = "--model.adversarial_weight"
LOOKS = 24  # measurements of the diagnosis in a run
LOUDNESS = {"ramp": 1.0, "careless": 10.0}  # setting -> factor of the adversary's weight


class Psnr(Callback):
    """That of held-out pairs when the adversary is let in, and at the end."""

    def __init__(self, count: int, start: int) -> None:
        self.count, self.start, self.before = count, start, 0.0

    def on_train_batch_end(self, trainer: Trainer, gan: GAN, *_: object) -> None:
        if gan.is_due(self.start) and not self.before:
            self.before = self.measure(trainer, gan)

    def on_train_end(self, trainer: Trainer, gan: GAN) -> None:
        self.after = self.measure(trainer, gan)

    def measure(self, trainer: Trainer, gan: GAN) -> float:
        data: Any = trainer.datamodule
        split = data.splits[-1]
        real = next(data.real_batches(self.count, batch_size=self.count, split=split))[0]
        fake = gan.sample(self.count, condition=eval_conditions(gan, data, self.count, split=split))
        return image_metrics(real=real, fake=fake)["psnr"].mean().item()


def play(recipe: str, setting: str, seed: int, options: Any, extra: list[str]) -> measure.Row:
    """One run."""
    known = Recipe(["--config", recipe, "--trainer.logger=false"], "validate")
    batch, schedule, weight = known.datamodule.batch_size, known.model.adversarial_weight, WEIGHT
    if isinstance(schedule, AdaptiveWeight):
        schedule, weight = schedule.weight, f"{WEIGHT}.weight"
    start, end = options.iterations // 3 * batch, options.iterations * batch
    ramp = end // 6 if setting == "ramp" else 1
    off = [f"--{part}.every=0" for part in ("realism", "samples", "gradients", "checkpoint")]
    with tempfile.TemporaryDirectory() as folder:
        chosen = [
            "--config", recipe, f"--seed_everything={seed}", f"--trainer.max_steps={options.iterations}",
            "--trainer.logger=false", "--trainer.enable_progress_bar=false",
            f"--trainer.default_root_dir={folder}", *off, f"--health.every={end // LOOKS}",
            f"--model.discriminator_start={start}", f"{weight}.begin={start}", f"{weight}.images={ramp}",
            f"{weight}.end={schedule.end * LOUDNESS[setting]}", *extra,
        ]  # fmt: skip
        run = Recipe(chosen)
        psnr = Psnr(options.count, start)
        run.trainer.callbacks.append(psnr)
        run.trainer.fit(run.model, datamodule=run.datamodule)
        (diagnosis,) = (one for one in run.trainer.callbacks if isinstance(one, Diagnosis))
    states = ", ".join(dict.fromkeys(name for _, name in diagnosis.history))
    change = psnr.after - psnr.before
    row = {"setting": setting, "seed": seed, "before": psnr.before, "after": psnr.after, "change": change}
    print(row, states, file=sys.stderr, flush=True)
    return {**row, "states": states or "-"}


def main() -> None:
    parser = measure.options(__doc__, __file__)
    parser.add_argument("--recipe", default=str(FOLDER / "fashion_vq.yaml"))
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--iterations", type=int, default=600)
    parser.add_argument("--count", type=int, default=500, help="held-out pairs")
    parser.add_argument("--settings", nargs="+", default=list(LOUDNESS), choices=list(LOUDNESS))
    options, extra = parser.parse_known_args()
    measure.setup(options)
    seeds = range(1 if options.quick else options.seeds)
    rows = [play(options.recipe, name, seed, options, extra) for name in options.settings for seed in seeds]
    print(measure.table(rows))
    measure.write(options, {"rows": rows})


if __name__ == "__main__":
    main()
