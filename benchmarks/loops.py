"""The loops that litgan's step is compared with: the limit, what people copy, and stock Lightning.

Each is an endless generator: one `next` is one iteration of the same game, with the same networks.
"""

from __future__ import annotations

import copy
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms

from litgan.data import GANDataModule
from litgan.gan import GAN
from litgan.penalties import Context
from litgan.schedules import value_at


def raw(gan: GAN, data: GANDataModule, precision: str) -> Iterator[None]:
    """The limit: the game of `gan` written out by hand, with every flag that litgan sets and nothing else."""
    generator, discriminator = copy.deepcopy(gan.generator), copy.deepcopy(gan.discriminator)
    average = copy.deepcopy(generator).requires_grad_(False)
    weights, averages = list(generator.parameters()), list(average.parameters())
    opponent = list(discriminator.parameters())
    adam_g, adam_d = (
        make(group) for make, group in zip(gan.optimizer_factories, (weights, opponent), strict=True)
    )
    device, loss, n, updates = weights[0].device, gan.loss, data.batch_size, 0
    stored, labels = (side if side is None else side.to(device) for side in data.load("train"))
    low = precision == "bf16-mixed"

    def batches() -> Iterator[tuple[Tensor, Tensor | None]]:
        while True:
            order = torch.randperm(len(stored), device=device)
            for chosen in order[: len(order) // n * n].split(n):
                yield data.encode(stored[chosen]), None if not gan.num_classes else labels[chosen]

    source = batches()
    while True:
        with torch.autocast(device.type, torch.bfloat16, enabled=low, cache_enabled=False):
            for _ in range(gan.discriminator_steps):
                real, classes = next(source)
                due = [penalty for penalty in gan.penalties if updates % penalty.interval == 0]
                sides = {side for penalty in due for side in penalty.differentiates}
                with torch.no_grad():
                    fake = generator(torch.randn(n, generator.latent_dim, device=device), classes)
                real.requires_grad_("real" in sides), fake.requires_grad_("fake" in sides)
                on_real, on_fake = discriminator(real, classes), discriminator(fake, classes)
                objective = loss.discriminator(real=on_real, fake=on_fake).mean()
                for penalty in due:
                    context = Context(
                        generator, discriminator, classes,
                        real=real, fake=fake, real_logits=on_real, fake_logits=on_fake,
                    )  # fmt: skip
                    term = penalty(context)
                    objective = objective + value_at(penalty.weight, 0) * penalty.interval * term.mean()
                adam_d.zero_grad()
                objective.backward()
                adam_d.step()
                updates += 1
            discriminator.requires_grad_(False)
            fake = generator(torch.randn(n, generator.latent_dim, device=device), classes)
            on_real = discriminator(real, classes) if loss.relativistic else None
            objective = loss.generator(real=on_real, fake=discriminator(fake, classes)).mean()
            adam_g.zero_grad()
            objective.backward()
            adam_g.step()
            discriminator.requires_grad_(True)
            with torch.no_grad():
                torch._foreach_lerp_(averages, weights, 0.01)
        yield


class Pictures(Dataset[Tensor]):
    """As torchvision's classes: a PIL image made and transformed anew for every sample."""

    def __init__(self, stored: Tensor) -> None:
        self.images = stored.permute(0, 2, 3, 1).squeeze(-1).numpy()
        half = (0.5,) * stored.shape[1]
        self.transform = transforms.Compose([transforms.ToTensor(), transforms.Normalize(half, half)])

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> Tensor:
        return self.transform(transforms.functional.to_pil_image(self.images[index]))


def contiguous(gan: GAN) -> tuple[torch.nn.Module, torch.nn.Module]:
    """Copies of both networks in PyTorch's own memory layout."""
    networks = copy.deepcopy(gan.generator), copy.deepcopy(gan.discriminator)
    return tuple(network.to(memory_format=torch.contiguous_format) for network in networks)  # type: ignore[return-value]


def usual(gan: GAN, data: GANDataModule) -> Iterator[None]:
    """PyTorch's DCGAN example: float32, two backward passes an update, a DataLoader without workers."""
    generator, discriminator = contiguous(gan)
    adam_g, adam_d = (
        torch.optim.Adam(net.parameters(), 2e-4, (0.5, 0.999)) for net in (generator, discriminator)
    )
    loader = DataLoader(Pictures(data.load("train")[0]), data.batch_size, shuffle=True, drop_last=True)
    while True:
        for real in loader:
            discriminator.zero_grad()
            on_real = discriminator(real)
            of_real = F.binary_cross_entropy_with_logits(on_real, torch.ones_like(on_real))
            of_real.backward()
            fake = generator(torch.randn(len(real), generator.latent_dim))
            on_fake = discriminator(fake.detach())
            of_fake = F.binary_cross_entropy_with_logits(on_fake, torch.zeros_like(on_fake))
            of_fake.backward()
            adam_d.step()
            generator.zero_grad()
            on_fake = discriminator(fake)
            of_generator = F.binary_cross_entropy_with_logits(on_fake, torch.ones_like(on_fake))
            of_generator.backward()
            adam_g.step()
            yield


class StockGAN(LightningModule):
    """As Lightning's GAN example: manual optimization, `self.log` with a progress bar in every step."""

    def __init__(self, gan: GAN) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.generator, self.discriminator = contiguous(gan)

    def configure_optimizers(self) -> tuple[list[Any], list[Any]]:
        return [
            torch.optim.Adam(net.parameters(), 2e-4, (0.5, 0.999))
            for net in (self.generator, self.discriminator)
        ], []

    def training_step(self, real: Tensor) -> None:
        adam_g, adam_d = self.optimizers()  # type: ignore[misc]
        latents = torch.randn(len(real), self.generator.latent_dim, device=self.device)
        self.toggle_optimizer(adam_g)
        on_fake = self.discriminator(self.generator(latents))
        g_loss = F.binary_cross_entropy_with_logits(on_fake, torch.ones_like(on_fake))
        self.log("g_loss", g_loss, prog_bar=True)
        self.manual_backward(g_loss)
        adam_g.step()
        adam_g.zero_grad()
        self.untoggle_optimizer(adam_g)
        self.toggle_optimizer(adam_d)
        on_real, on_fake = self.discriminator(real), self.discriminator(self.generator(latents).detach())
        of_real = F.binary_cross_entropy_with_logits(on_real, torch.ones_like(on_real))
        of_fake = F.binary_cross_entropy_with_logits(on_fake, torch.zeros_like(on_fake))
        d_loss = (of_real + of_fake) / 2
        self.log("d_loss", d_loss, prog_bar=True)
        self.manual_backward(d_loss)
        adam_d.step()
        adam_d.zero_grad()
        self.untoggle_optimizer(adam_d)


class Clock(Callback):
    """Seconds from the end of one iteration to the end of another."""

    def __init__(self, first: int, last: int) -> None:
        self.first, self.last, self.moments = first, last, {}

    def on_train_batch_end(self, trainer: Trainer, module: LightningModule, *_: object) -> None:
        import time

        if trainer.global_step // 2 in (self.first, self.last):  # Lightning counts both optimizers' steps
            self.moments[trainer.global_step // 2] = time.perf_counter()


def stock_block(gan: GAN, data: GANDataModule, iterations: int) -> float:
    """Seconds an iteration of Lightning's example with Lightning's defaults, start-up left out."""
    clock, warm_up = Clock(3, 3 + iterations), 3
    with tempfile.TemporaryDirectory() as folder:
        trainer = Trainer(
            max_steps=2 * (warm_up + iterations), default_root_dir=Path(folder), callbacks=[clock],
            enable_model_summary=False, accelerator=gan.device.type, devices=1,
        )  # fmt: skip
        loader = DataLoader(Pictures(data.load("train")[0]), data.batch_size, shuffle=True, drop_last=True)
        trainer.fit(StockGAN(gan), loader)
    return (clock.moments[clock.last] - clock.moments[clock.first]) / iterations
