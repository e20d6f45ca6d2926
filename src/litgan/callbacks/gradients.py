"""Gradients: how much each network is moved, and the feedback that the discriminator sends back."""

from __future__ import annotations

from pathlib import Path

import torch
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.utilities import rank_zero_only
from torch import Tensor
from torch.optim import Optimizer
from torch.utils.hooks import RemovableHandle

from litgan import runs, tracking
from litgan.gan import GAN
from litgan.media import save_png
from litgan.noise import Noise
from litgan.precision import ScaledTurns
from litgan.sampling import choose_labels


class Gradients(Callback):
    """Logs the norm of each network's gradient and of the feedback; draws the feedback beside samples.

    `gradient/generator`, `gradient/discriminator`: norm over all parameters, before any clipping.
    `gradient/feedback`: mean over samples of ||dL_i/dx_i||, the gradient of a sample's own generator
    loss with respect to that fake sample, so it does not depend on the batch size. It is caught on its
    way through the generator's turn at logging points: no second pass, nothing waits for the device.

    Args:
        every: images between two pictures of the feedback, 0 for never.
        count: samples in the picture.
        seed: of the fixed latents of the picture.
        folder: where to; None for the run's own folder.
    """

    def __init__(
        self, every: int = 50_000, count: int = 16, seed: int = 0, folder: str | None = None
    ) -> None:
        self.every, self.count, self.seed, self.folder = every, count, seed, folder
        self.values: dict[str, Tensor] = {}
        self.norms: list[Tensor] = []  # of the feedback of each sample, one tensor a micro-batch
        self.handle: RemovableHandle | None = None

    def on_train_batch_start(self, trainer: Trainer, gan: GAN, *_: object) -> None:
        will_be_logged = (trainer.global_step + 1) % trainer.log_every_n_steps == 0
        if will_be_logged and self.handle is None:  # an iteration may have several turns
            self.handle = gan.generator.register_forward_hook(self.listen)

    def listen(self, generator: torch.nn.Module, inputs: object, fake: Tensor) -> None:
        """Attaches to fakes that will be differentiated, i.e. to those of the generator's turn."""
        if fake.requires_grad:
            fake.register_hook(self.receive)

    def receive(self, feedback: Tensor) -> None:
        self.norms.append(feedback.detach().float().flatten(1).norm(dim=1))

    def on_before_optimizer_step(self, trainer: Trainer, gan: GAN, optimizer: Optimizer) -> None:
        if self.handle is not None:
            network = "generator" if optimizer is gan.generator_optimizer.optimizer else "discriminator"
            gradients = [
                p.grad for group in optimizer.param_groups for p in group["params"] if p.grad is not None
            ]
            self.values[f"gradient/{network}"] = torch.nn.utils.get_total_norm(gradients)
        if self.norms:  # the loss is a mean over the batch: the sum of norms is the mean of dL_i/dx_i's
            self.values["gradient/feedback"] = torch.cat(self.norms).sum() / generator_scale(trainer)
            self.norms = []

    def on_train_batch_end(self, trainer: Trainer, gan: GAN, *_: object) -> None:
        if self.handle is not None and gan.iteration_ends:
            self.handle.remove()
            self.handle = None
            tracking.record(trainer, self.values)
            self.values = {}
        if gan.passes(self.every):
            self.draw(trainer, gan)

    @rank_zero_only
    def draw(self, trainer: Trainer, gan: GAN) -> None:
        """Saves and logs fixed samples of the present generator beside the feedback that they get."""
        with tracking.aside(gan):
            samples, feedback = self.feedback(gan)
            media = trainer.datamodule.decode(samples)
            picture = media.criticised(feedback, columns=8)
            folder = Path(self.folder) if self.folder else Path(trainer.default_root_dir) / "samples"
            with runs.dispensable("The picture of the feedback"):
                save_png(picture, folder / f"{gan.images_seen:09d}_feedback.png")
                tracking.publish_picture(trainer, "feedback", picture)

    def feedback(self, gan: GAN) -> tuple[Tensor, Tensor]:
        """Samples [count, *sample_shape] and dL_i/dx_i of each, both networks in evaluation mode."""
        noise = Noise(self.seed, 0, 0, self.count, "sample", gan.device)
        labels = choose_labels(None, 0, self.count, gan.num_classes)
        labels = None if labels is None else labels.to(gan.device)
        networks = (gan.generator, gan.discriminator)
        modes = [network.training for network in networks]
        try:
            for network in networks:
                network.eval()
            with torch.no_grad():
                fake = gan.generator(gan.latents(noise), labels)
            with torch.enable_grad():
                fake = fake.detach().requires_grad_()
                logits = gan.discriminator(fake, labels)
                losses = gan.loss.generator(
                    real=logits.detach().flip(0) if gan.loss.pairs else None, fake=logits
                )
                return fake.detach(), torch.autograd.grad(losses.sum(), fake)[0]
        finally:
            for network, mode in zip(networks, modes, strict=True):
                network.train(mode)


def generator_scale(trainer: Trainer) -> float:
    """What float16 multiplies the generator's loss by; 1 in other precisions."""
    plugin = trainer.precision_plugin
    return plugin.scaler_of("generator").get_scale() if isinstance(plugin, ScaledTurns) else 1.0
