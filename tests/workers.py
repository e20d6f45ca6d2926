"""What a rank of the tests of many devices does: `python workers.py FOLDER` forks one rank, then two.

Each scenario trains a small GAN with the real Trainer and returns plain data; a rank saves all of
them in `FOLDER/<world size>-<rank>.pt`. The tests compare one rank's with two ranks'.
"""

from __future__ import annotations

import multiprocessing
import os
import socket
import sys
import warnings
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningDataModule, Trainer
from lightning.pytorch.callbacks import EarlyStopping
from shared.pairs import Flipped, Translator, game
from torch import Tensor, nn
from torch.distributed.algorithms.ddp_comm_hooks import default_hooks, powerSGD_hook
from torch.utils.data import DataLoader, TensorDataset

import litgan.gan
from litgan import GAN
from litgan.adversarial_weight import AdaptiveWeight
from litgan.augment import DiffAugment
from litgan.callbacks import Feedback, Realism
from litgan.checkpoints import AtomicCheckpointIO
from litgan.compilation import compile_networks
from litgan.data import GANDataModule, Ring
from litgan.losses import Hinge, NonSaturating, Relativistic, Wasserstein
from litgan.metrics import evaluate
from litgan.networks import (
    DCGANDiscriminator,
    DCGANGenerator,
    MLPDiscriminator,
    MLPGenerator,
    R3GANDiscriminator,
    R3GANGenerator,
)
from litgan.noise import Noise, torch_generator
from litgan.penalties import R1, R2, WGANGP
from litgan.reconstruction import L1
from litgan.schedules import Linear
from litgan.strategy import AdversarialDDPStrategy, register

WORLD, RANK = 1, 0  # of this process; forked ranks differ
ITERATIONS = 20
ADAM = partial(torch.optim.Adam, lr=1e-3, betas=(0.5, 0.99))
POINTS = {
    "generator": partial(MLPGenerator, latent_dim=4, widths=(16,), activation="silu"),
    "discriminator": partial(MLPDiscriminator, widths=(16,), activation="silu"),
    "generator_optimizer": ADAM,
    "discriminator_optimizer": ADAM,
    "sample_shape": (2,),
}
PICTURES = {
    "generator": partial(DCGANGenerator, latent_dim=8, widths=(16, 8), norm="none"),
    "discriminator": partial(DCGANDiscriminator, widths=(8, 16), spectral_norm=True),
    "generator_optimizer": ADAM,
    "discriminator_optimizer": ADAM,
    "sample_shape": (1, 8, 8),
    "condition": 3,
}


class Pictures(GANDataModule):
    """Noise in three classes, 8 x 8."""

    def __init__(self, **common: Any) -> None:
        super().__init__((1, 8, 8), **common)

    def read(self, split: str) -> tuple[Tensor, Tensor]:
        pixels = torch.randint(0, 256, (72, 1, 8, 8), generator=torch_generator("pictures"))
        return pixels.to(torch.uint8), torch.arange(72) % 3

    def decode(self, samples: Tensor) -> Tensor:
        return samples


class Witnessed(GAN):
    """Keeps the latents that it draws, in order of updates, parts of one update joined."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.drawn: dict[tuple[int, str], list[Tensor]] = {}

    def generate(self, condition: Tensor | None, noise: Noise) -> Tensor:
        latents = noise.normal(self.generator.latent_dim)
        self.drawn.setdefault((self.discriminator_updates, self.updating), []).append(latents)
        return super().generate(condition, noise)


class Encoding(Witnessed):
    """Has a third network, which learns to find a sample's latents, in an update of its own."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.encoder = nn.Linear(2, 4)

    def configure_optimizers(self) -> Any:
        return [*super().configure_optimizers(), ADAM(self.encoder.parameters())]

    def update(
        self, name: str, optimizer: Any, loss_function: Any, real: Tensor, condition: Tensor | None
    ) -> Any:
        logs = super().update(name, optimizer, loss_function, real, condition)
        if name == "generator":
            logs |= super().update("encoder", self.optimizers()[2], self.encoder_loss, real, condition)
        return logs

    def encoder_loss(self, real: Tensor, condition: Tensor | None, noise: Noise) -> Any:
        with torch.no_grad():
            fake = self.generate(condition, noise)
        error = (self.encoder(fake) - noise.normal(self.generator.latent_dim)).square().mean()
        return error, {"loss/encoder": error}


class HalfIdle(MLPDiscriminator):
    """Forgets to use one of its layers."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.forgotten = nn.Linear(2, 2)


class Reals(Callback):
    """Keeps the real samples that this rank is shown."""

    def __init__(self) -> None:
        self.shown: list[Tensor] = []

    def on_train_batch_start(self, trainer: Trainer, gan: GAN, batch: Any, batch_idx: int) -> None:
        self.shown.append(batch[0].clone())


class Traffic(Callback):
    """Counts the bytes that each reducer sends, by the network that is updated, in a communication hook."""

    def __init__(self) -> None:
        self.bytes: Counter[tuple[str, str]] = Counter()

    def on_train_start(self, trainer: Trainer, gan: GAN) -> None:
        model = trainer.strategy.model
        wrapped = {} if model is gan else {"everything": model}
        for name, reducer in {**getattr(trainer.strategy, "reducers", {}), **wrapped}.items():
            reducer.register_comm_hook((gan, name), self.count)

    def count(self, state, bucket):  # torch refuses annotations that are strings
        gan, name = state
        self.bytes[gan.updating, name] += bucket.buffer().nbytes
        return default_hooks.allreduce_hook(None, bucket)


def train(
    gan: GAN,
    data: LightningDataModule,
    *watchers: Callback,
    iterations: int = ITERATIONS,
    start: Path | None = None,
    end: Path | None = None,
    strategy: Any = "adversarial_ddp",
    **options: Any,
) -> dict[str, Any]:
    """What came of so many iterations on all ranks, as plain data; from a checkpoint, and to one."""
    reals = Reals()
    trainer = Trainer(
        max_steps=iterations, max_epochs=-1, accelerator="cpu", devices=WORLD, strategy=strategy,
        callbacks=[reals, *watchers], plugins=[AtomicCheckpointIO()], logger=False,
        enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False,
        log_every_n_steps=5, **options,
    )  # fmt: skip
    trainer.fit(gan, datamodule=data, ckpt_path=start)
    if end is not None:
        trainer.save_checkpoint(end)
    drawn = {key: torch.cat(parts) for key, parts in getattr(gan, "drawn", {}).items()}
    return {
        "weights": {name: value.clone() for name, value in gan.state_dict().items()},
        "optimizers": [optimizer.state_dict() for optimizer in trainer.optimizers],
        "clock": (gan.images_seen, gan.discriminator_updates, trainer.global_step),
        "latents": drawn,
        "reals": reals.shown,
    }


def pictures() -> dict[str, Any]:
    """Convolutions, spectral norm, projection, lazy R1, two discriminator steps, clipping; counts bytes."""
    gan = Witnessed(
        loss=NonSaturating(), penalties=[R1(0.5, interval=3)], discriminator_steps=2,
        gradient_clip_val={"discriminator": 0.2, "generator": 0.1}, **PICTURES,
    )  # fmt: skip
    traffic = Traffic()
    sizes = {
        name: sum(p.nbytes for p in network.parameters() if p.requires_grad)
        for name, network in gan.named_children()
    }
    return train(gan, Pictures(batch_size=8, num_classes=3), traffic) | {
        "traffic": traffic.bytes,
        "sizes": sizes,
    }


def points(**options: Any) -> dict[str, Any]:
    """A penalty with a pass of its own, on a mixture of real and fake."""
    gan = Witnessed(loss=Wasserstein(), penalties=[WGANGP()], discriminator_steps=3, **POINTS)
    return train(gan, Ring(batch_size=12, samples=60), **options)


def pairs() -> dict[str, Any]:
    """A loss that compares real i with fake i, both zero-centered penalties, and micro-batches."""
    gan = Witnessed(loss=Relativistic(), penalties=[R1(0.1), R2(0.1, interval=2)], micro_batches=2, **POINTS)
    traffic = Traffic()
    return train(gan, Ring(batch_size=8, samples=40), traffic) | {"traffic": traffic.bytes}


def residual() -> dict[str, Any]:
    """Convolutions with derivatives of their own, differentiated twice on both sides."""
    options = {"widths": (8, 8), "cardinalities": (4, 4), "blocks": (1, 1)}
    networks = {
        "generator": partial(R3GANGenerator, latent_dim=8, **options),
        "discriminator": partial(R3GANDiscriminator, **options),
    }
    gan = Witnessed(loss=Relativistic(), penalties=[R1(0.1), R2(0.1)], **PICTURES | networks)
    return train(gan, Pictures(batch_size=8, num_classes=3))


def translated() -> dict[str, Any]:
    """An image as the condition, moved by an augmentation with the sample, in micro-batches; no latents.

    And a weight of the adversarial loss that depends on gradients of the whole batch.
    """
    options = game(
        generator=Translator, augment=DiffAugment(), micro_batches=2, discriminator_steps=2,
        penalties=[WGANGP()], reconstruction=[L1()], discriminator_start=16,
        adversarial_weight=AdaptiveWeight(Linear(0.0, 1.0, images=80, begin=32)),
    )  # fmt: skip
    return train(Witnessed(loss=NonSaturating(), **options), Flipped())


def encoder() -> dict[str, Any]:
    """A third network."""
    traffic = Traffic()
    result = train(Encoding(loss=Hinge(), **POINTS), Ring(batch_size=8, samples=40), traffic)
    return result | {"traffic": traffic.bytes}


def compiled() -> dict[str, Any]:
    """On several ranks the networks run as graphs, without Inductor."""
    warnings.filterwarnings("error", ".*training goes on uncompiled")
    litgan.gan.compile_networks = partial(compile_networks, backend="aot_eager")
    gan = GAN(
        loss=NonSaturating(), penalties=[R1(0.1, interval=3)], compile=WORLD > 1, micro_batches=2,
        gradient_clip_val=0.5, **POINTS,
    )  # fmt: skip
    return train(gan, Ring(batch_size=8, samples=40))


FROZEN = ("discriminator.backbone.0", "generator.stages.0", "generator.head.bias")


def frozen() -> dict[str, Any]:
    """Parts of both networks are not trained."""
    gan = Witnessed(loss=NonSaturating(), penalties=[R1(0.5)], freeze=FROZEN, **PICTURES)
    before = {name: value.clone() for name, value in gan.state_dict().items() if name.startswith(FROZEN)}
    return train(gan, Pictures(batch_size=8, num_classes=3)) | {"before": before}


class Plain(LightningDataModule):
    """A stock loader, whose batches Lightning shares out."""

    def train_dataloader(self) -> DataLoader[Any]:
        data = Pictures(num_classes=3)
        samples, labels = data.load()
        return DataLoader(TensorDataset(data.encode(samples), labels), batch_size=8 // WORLD, shuffle=True)


def loader() -> dict[str, Any]:
    """Reals and pictures of a stock loader, and an end that all ranks come to together."""
    stopper = EarlyStopping("feedback/norm", patience=3, min_delta=1e9)
    realism, feedback = Realism("digits", count=40), Feedback(every=8, count=4, folder=sys.argv[1])
    result = train(GAN(loss=Hinge(), **PICTURES), Plain(), realism, feedback, stopper)
    assert realism.report is not None
    return result | {"protocol": realism.report.protocol}


def bf16() -> dict[str, Any]:
    """Mixed precision, clipped and penalized."""
    gan = Witnessed(loss=NonSaturating(), penalties=[R1(0.5)], gradient_clip_val=1.0, **PICTURES)
    return train(gan, Pictures(batch_size=8, num_classes=3), precision="bf16-mixed")


def compressed() -> dict[str, Any]:
    """Half of the bits of each gradient."""
    strategy = AdversarialDDPStrategy(ddp_comm_hook=default_hooks.bf16_compress_hook)
    return train(Witnessed(loss=Hinge(), **POINTS), Ring(batch_size=8, samples=40), strategy=strategy)


def power_sgd() -> dict[str, Any]:
    """Low-rank gradients, with a state for each adversary."""
    strategy = AdversarialDDPStrategy(
        ddp_comm_hook=powerSGD_hook.powerSGD_hook,
        ddp_comm_state=lambda: powerSGD_hook.PowerSGDState(
            None, start_powerSGD_iter=4, min_compression_rate=1
        ),
    )
    return train(Witnessed(loss=Hinge(), **POINTS), Ring(batch_size=8, samples=40), strategy=strategy)


def stock() -> dict[str, Any]:
    """Lightning's own strategy that looks for unused parameters."""
    traffic = Traffic()
    gan = Witnessed(loss=NonSaturating(), **PICTURES)
    result = train(
        gan, Pictures(batch_size=8, num_classes=3), traffic, strategy="ddp_find_unused_parameters_true"
    )
    own, twin = Traffic(), Witnessed(loss=NonSaturating(), **PICTURES)
    ours = train(twin, Pictures(batch_size=8, num_classes=3), own)
    return {"stock": result, "ours": ours, "traffic": (traffic.bytes.total(), own.bytes.total())}


def refusal(run: Callable[[], Any]) -> str:
    """The sentence with which `run` ends."""
    try:
        run()
    except (ValueError, RuntimeError) as error:
        return str(error)
    return "nothing was refused"


def refusals() -> dict[str, str]:
    """What two ranks cannot do, and what each of them says."""
    idle = POINTS | {"discriminator": partial(HalfIdle, widths=(16,))}
    astray = GAN(loss=Hinge(), **POINTS)
    astray.images_seen = 1024 * RANK  # as if ranks had found different checkpoints
    return {
        "astray": refusal(lambda: train(astray, Ring(batch_size=8, samples=40))),
        "uneven": refusal(lambda: train(GAN(loss=Hinge(), **POINTS), Ring(batch_size=9, samples=45))),
        "idle": refusal(lambda: train(GAN(loss=Hinge(), **idle), Ring(batch_size=8, samples=40))),
        "stock": refusal(
            lambda: train(GAN(loss=Hinge(), **POINTS), Ring(batch_size=8, samples=40), strategy="ddp")
        ),
    }


def metrics() -> dict[str, float]:
    """The evaluation set, drawn and measured by all ranks together."""
    gan = GAN(loss=Hinge(), **PICTURES)

    def sample(first: int, count: int) -> Tensor:
        """Near enough to the data for each metric to be neither 0 nor 1."""
        noise = Noise(0, 0, first, count).uniform(1, 8, 8)
        return 0.2 * gan.sample(count, first=first) + 1.6 * noise - 0.8

    options: dict[str, Any] = {"batch_size": 8, "neighbours_count": 30, "rank": RANK, "world_size": WORLD}
    options["cache_dir"] = Path(sys.argv[1]) / f"cache-{WORLD}"
    values = evaluate(sample, Pictures(num_classes=3), "digits", count=70, **options).values
    data = Flipped()

    def faint(first: int, count: int) -> Tensor:
        """What the condition asks for, with less contrast."""
        return -0.9 * data.eval_conditions(count, first=first)

    of_pairs = evaluate(faint, data, "digits", count=40, pairs=True, **options).values
    return values | {f"pairs {key}": value for key, value in of_pairs.items()}


def alone() -> dict[str, Any]:
    """The strategy that Lightning takes for one device."""
    return points(strategy="auto")


def launch(world_size: int, work: Callable[..., None], *arguments: Any) -> list[multiprocessing.Process]:
    """Forks ranks that torchrun might have started: what they import is imported once for all of them."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    context: Any = multiprocessing.get_context("fork")
    ranks = range(world_size)
    processes = [context.Process(target=become, args=(r, world_size, port, work, *arguments)) for r in ranks]
    for process in processes:
        process.start()
    return processes


def become(rank: int, world_size: int, port: int, work: Callable[..., None], *arguments: Any) -> None:
    """Turns this process into one rank of several."""
    global WORLD, RANK
    WORLD, RANK = world_size, rank
    os.environ |= {
        "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "TORCHELASTIC_RUN_ID": "tests",
        "WORLD_SIZE": str(world_size), "LOCAL_WORLD_SIZE": str(world_size),
        "RANK": str(rank), "LOCAL_RANK": str(rank),
    }  # fmt: skip
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    work(*arguments)


def in_turn(world_size: int, work: Callable[..., None], *arguments: Any) -> None:
    """Launches ranks, and ends with an error if one of them does."""
    processes = launch(world_size, work, *arguments)
    for process in processes:
        process.join()
    if any(process.exitcode for process in processes):
        sys.exit(f"ranks ended with {[process.exitcode for process in processes]}")


BOTH = (pictures, points, pairs, residual, translated, encoder, frozen, bf16, metrics, compiled, loader)
ONE, SEVERAL = (alone,), (compressed, power_sgd, stock, refusals)


def invariance(folder: Path) -> None:
    """All scenarios of this number of ranks."""
    scenarios = (*BOTH, *(SEVERAL if WORLD > 1 else ONE))
    torch.save({scenario.__name__: scenario() for scenario in scenarios}, folder / f"{WORLD}-{RANK}.pt")


if __name__ == "__main__":
    register()
    for world_size in (1, 2):
        in_turn(world_size, invariance, Path(sys.argv[1]))
