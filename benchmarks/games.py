"""GANs from the recipes' YAML without the command line, so that torch and what litgan imports suffice."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import yaml
from lightning.pytorch import Callback, Trainer
from synthetic import Synthetic

from litgan.checkpoints import AtomicCheckpointIO
from litgan.gan import GAN
from litgan.rebuild import Builder

CONFIGS = Path(__file__).parents[1] / "configs"


@dataclass(frozen=True)
class Game:
    """A recipe, images for it, and what is changed of its `model`, by dotted path.

    The numbers in lists of widths are divided by `narrow`; `rate` is that of a `steady` game.
    """

    recipe: str
    shape: tuple[int, int, int] = (3, 32, 32)
    changes: dict[str, Any] = field(default_factory=dict)
    narrow: int = 1
    classes: int = 0
    cls: str = "litgan.gan.GAN"
    rate: float = 0.02
    float16: bool = True  # whether its GAN takes this precision

    def build(self, steady: bool = False, **options: Any) -> GAN:
        """The GAN, on the CPU; `options` replace those of the recipe.

        A `steady` one learns by SGD, as Adam turns rounding near a gradient of zero into whole steps.
        """
        model = yaml.safe_load((CONFIGS / self.recipe).read_text())["model"]
        arguments = _as_plain(model.get("init_args", model), self.narrow)
        for path, value in self.changes.items():
            *above, name = path.split(".")
            node = arguments
            for key in above:
                node = node[key]
            node[name] = value
        if steady:
            sgd = {"class_path": "torch.optim.SGD", "init_args": {"lr": self.rate}}
            arguments |= {"generator_optimizer": sgd, "discriminator_optimizer": sgd}
        arguments |= {"sample_shape": list(self.shape), "condition": self.classes, **options}
        node = {"class_path": self.cls, "init_args": arguments}
        gan: GAN = Builder().build_subclass(GAN, node, "model")
        return gan

    def data(self, batch_size: int = 16, samples: int = 1024) -> Synthetic:
        channels, side, _ = self.shape
        options: dict[str, Any] = {"num_classes": self.classes, "batch_size": batch_size}
        return Synthetic(side, channels, samples, memory="device", **options)


def _as_plain(node: Any, narrow: int, key: str = "") -> Any:
    """As `Builder` takes it, where the command line also takes a class by its path alone."""
    if isinstance(node, dict):
        return {name: _as_plain(value, narrow, name) for name, value in node.items()}
    if isinstance(node, list):
        divided = key in ("widths", "flat_widths", "cardinalities")
        return [max(1, item // narrow) if divided else _as_plain(item, narrow) for item in node]
    if isinstance(node, str) and node.startswith("litgan.") and key != "class_path":
        return {"class_path": node}
    return node


GAMES = {  # small ones, which differ in what they compute
    "DCGAN, R1": Game("fashion_mnist.yaml", (1, 32, 32), narrow=4),
    "R3GAN": Game(
        "cifar10_r3gan.yaml",
        changes={f"{network}.init_args.blocks": [1, 1, 1, 1] for network in ("generator", "discriminator")},
        narrow=32,
    ),
    # wing: zoo
    "SNGAN, labels": Game(
        "zoo/cifar10_sngan_conditional.yaml",
        changes={"discriminator_steps": 2},
        narrow=8,
        classes=10,
        rate=3e-4,  # at higher ones, batches of 8 make rounding grow tenfold in an iteration
    ),
    "StyleGAN2, path length": Game(
        "zoo/fashion_mnist_stylegan2.yaml",
        (1, 32, 32),
        {"generator_penalties": [{"class_path": "litgan.zoo.PathLength"}]},
    ),
    "ADA": Game(
        "zoo/cifar10_stylegan2_ada.yaml",
        changes={"augment.init_args": {"p": 0.5, "target": None}},
        narrow=32,
    ),
    "one stage": Game(
        "fashion_mnist.yaml", (1, 32, 32), narrow=4, cls="litgan.zoo.OneStageGAN", float16=False
    ),
    # end: zoo
}


def play(
    gan: GAN,
    data: Any,
    device: str,
    iterations: int,
    *,
    precision: str = "32-true",
    callbacks: tuple[Callback, ...] = (),
    resume: Path | None = None,
    save: Path | None = None,
    **options: Any,
) -> GAN:
    """Trains up to so many iterations without logger, progress and checkpoints; returns it on the CPU.

    Args:
        gan: trained in place.
        data: a data module.
        device: cpu, cuda or mps.
        iterations: since the beginning of the run.
        precision: Lightning's.
        callbacks: further ones.
        resume: checkpoint to go on from.
        save: where to write one at the end.
        options: of the Trainer.
    """
    trainer = Trainer(
        max_steps=iterations, max_epochs=-1, accelerator=device, devices=1, precision=precision,  # type: ignore[arg-type]
        logger=False, enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False,
        num_sanity_val_steps=0, log_every_n_steps=10**6, callbacks=list(callbacks),
        plugins=[AtomicCheckpointIO()], **options,
    )  # fmt: skip
    trainer.fit(gan, datamodule=data, ckpt_path=resume)
    if save is not None:
        trainer.save_checkpoint(save)
    return gan.cpu()


def apart(one: GAN, other: GAN, start: GAN) -> float:
    """The larger, of both networks, of ||a - b|| / ||b - start|| over all weights; infinite if not finite."""
    shares = []
    for name in ("generator", "discriminator"):
        a, b, before = (
            torch.cat([weight.detach().double().flatten() for weight in getattr(gan, name).parameters()])
            for gan in (one, other, start)
        )
        share = (a - b).norm() / (b - before).norm()
        shares.append(share.item() if share.isfinite() else torch.inf)
    return max(shares)
