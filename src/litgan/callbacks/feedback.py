"""Feedback: how much each network is moved, and the feedback that the discriminator sends back."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, Trainer
from torch import Tensor
from torch.optim import Optimizer
from torch.utils.hooks import RemovableHandle

from litgan import gradient_flow
from litgan.callbacks.heat_map import heat_map
from litgan.callbacks.throughput import untimed
from litgan.files import ignore_disk_errors
from litgan.gan import GAN, Batch
from litgan.loggers import log_picture
from litgan.noise import Noise
from litgan.precision import loss_scale
from litgan.render import add_caption, save_png
from litgan.sampling import choose_classes


class Feedback(Callback):
    """Logs the norm of each network's gradient and of the feedback; follows the feedback through the blocks.

    `gradient/generator`, `gradient/discriminator`: norm over all parameters, before any clipping.
    `gradient/feedback`: mean over samples of ||dL_i/dx_i||, the gradient of a sample's own generator
    loss with respect to that fake sample, so it does not depend on the batch size. It is caught on its
    way through the generator's turn at logging points: no second pass, nothing waits for the device.

    At the cadence, a trace: one forward and backward pass of fixed latents, both networks
    in evaluation mode, in the weights' own precision, on rank zero. Logged are

    - `feedback/norm`, as `gradient/feedback`, and `feedback/cosine` to the feedback of these latents at the
      look before: near 1 the generator is sent the same way again, below 0 back;
    - `gradient_flow/discriminator/<layer>`, `gradient_flow/generator/<layer>`: mean over samples of the norm
      of dL_i/dh_i at each layer's output h, and at the latents (`litgan.gradient_flow.layers` lists them);
    - `update/generator`, `update/discriminator`: norm of the last step over the norm of the weights;
    - `gradient/below_eps`: share of the generator's parameters whose last gradient is below Adam's eps;
    - `logits/accuracy` and others, of the present batch and as many fakes: `gradient_flow.logit_statistics`.

    `samples/<images_seen>_feedback.png` shows samples beside the feedback that each gets, and
    `samples/gradient_flow.png` the norms of all looks so far; W&B gets them as `feedback`, `gradient_flow`.

    Args:
        every: images between two looks, 0 for never.
        count: samples in a look, and in its picture.
        seed: of their fixed latents.
        folder: of the pictures; None for `samples` in the run's own folder.
    """

    def __init__(
        self, every: int = 50_000, count: int = 16, seed: int = 0, folder: str | None = None
    ) -> None:
        self.every, self.count, self.seed, self.folder = every, count, seed, folder
        self.values: dict[str, Tensor] = {}
        self.feedback_norms: list[Tensor] = []  # of the feedback of each sample, one tensor a micro-batch
        self.handle: RemovableHandle | None = None
        self.params_before: dict[
            str, list[Tensor]
        ] = {}  # weights before the steps of an iteration with a look
        self.history: list[tuple[int, dict[str, float]]] = []  # images_seen, norms on the way back
        self.previous: Tensor | None = None  # the feedback of the last look

    def on_train_batch_start(self, trainer: Trainer, gan: GAN, batch: Batch, batch_idx: int) -> None:
        will_be_logged = (trainer.global_step + 1) % trainer.log_every_n_steps == 0
        if will_be_logged and self.handle is None:  # an iteration may have several turns
            self.handle = gan.generator.register_forward_hook(self.hook_fake)
        if trainer.is_global_zero and will_be_due(gan, batch, self.every):
            self.params_before = {
                name: gradient_flow.clone_params(network) for name, network in networks(gan).items()
            }

    def hook_fake(self, generator: torch.nn.Module, inputs: object, fake: Tensor) -> None:
        """Attaches to fakes that will be differentiated, i.e. to those of the generator's turn."""
        if fake.requires_grad:
            fake.register_hook(self.record_norms)

    def record_norms(self, feedback: Tensor) -> None:
        self.feedback_norms.append(feedback.detach().float().flatten(1).norm(dim=1))

    def on_before_optimizer_step(self, trainer: Trainer, gan: GAN, optimizer: Optimizer) -> None:
        if self.handle is not None:
            gradients = [
                p.grad for group in optimizer.param_groups for p in group["params"] if p.grad is not None
            ]
            self.values[f"gradient/{gan.updating}"] = torch.nn.utils.get_total_norm(gradients)
        if (
            self.feedback_norms
        ):  # the loss is a mean over the batch: the sum of norms is the mean of dL_i/dx_i's
            self.values["gradient/feedback"] = torch.cat(self.feedback_norms).sum() / loss_scale(
                trainer, "generator"
            )
            self.feedback_norms = []

    def on_train_batch_end(
        self, trainer: Trainer, gan: GAN, outputs: Any, batch: Batch, batch_idx: int
    ) -> None:
        if self.handle is not None and gan.iteration_is_complete:
            self.handle.remove()
            self.handle = None
            gan.log_scalars(self.values)
            self.values = {}
        if gan.is_due(self.every) and trainer.is_global_zero:
            with untimed(gan):
                self.measure(trainer, gan, batch)

    def measure(self, trainer: Trainer, gan: GAN, batch: Batch) -> None:
        """Measures, logs and draws the present state; rank zero's."""
        seen = self.trace(gan)
        way = seen.gradient_norms()
        values = {key: value for key, value in way.items() if key != "samples"}
        values = {f"gradient_flow/{key}": value for key, value in values.items()}
        values |= {
            "feedback/norm": way["samples"],
            **self.update_ratios(gan),
            **self.logit_statistics(gan, batch),
        }
        if self.previous is not None and self.previous.shape == seen.feedback.shape:
            last = self.previous.to(gan.device)
            values["feedback/cosine"] = gradient_flow.mean_cosine(seen.feedback, last)
        self.previous = seen.feedback
        numbers = dict(zip(values, torch.stack(list(values.values())).tolist(), strict=True))
        gan.log_scalars(numbers)
        norms = {key: numbers.get(f"gradient_flow/{key}", numbers["feedback/norm"]) for key in way}
        self.history.append((gan.images_seen, norms))
        self.save_pictures(trainer, gan, seen)

    def trace(self, gan: GAN) -> gradient_flow.BackwardTrace:
        """The look itself."""
        latents, labels = self.fixed_latents(gan, self.count)
        return gradient_flow.trace_gradients(gan.generator, gan.discriminator, gan.loss, latents, labels)

    def fixed_latents(self, gan: GAN, count: int) -> tuple[Tensor, Tensor | None]:
        """The latents of so many samples, the same at every look, and their labels."""
        latents = Noise(self.seed, 0, 0, count, "sample", gan.device).normal(gan.generator.latent_dim)  # type: ignore[arg-type]
        labels = choose_classes(None, 0, count, gan.num_classes)
        return latents, None if labels is None else labels.to(gan.device)

    def update_ratios(self, gan: GAN) -> dict[str, Tensor]:
        """What the last step of each network made of its gradient."""
        ratios = {
            f"update/{name}": gradient_flow.update_ratio(before, networks(gan)[name])
            for name, before in self.params_before.items()
        }
        self.params_before = {}
        return {
            **ratios,
            "gradient/below_eps": gradient_flow.grad_below_eps(gan.trainer.optimizers[0]),
        }

    @torch.no_grad()
    def logit_statistics(self, gan: GAN, batch: Batch) -> dict[str, Tensor]:
        """How surely the discriminator tells this batch from as many fakes of the same classes."""
        real, labels = batch
        latents, _ = self.fixed_latents(gan, len(real))
        with gradient_flow.eval_mode(gan.generator, gan.discriminator):
            fake_logits = gan.discriminator(gan.generator(latents, labels), labels)
            told = gradient_flow.logit_statistics(real=gan.discriminator(real, labels), fake=fake_logits)
        return {f"logits/{key}": value for key, value in told.items()}

    def feedback(self, gan: GAN) -> tuple[Tensor, Tensor]:
        """Samples [count, *sample_shape] and dL_i/dx_i of each, both networks in evaluation mode."""
        seen = self.trace(gan)
        return seen.samples, seen.feedback

    def save_pictures(self, trainer: Trainer, gan: GAN, seen: gradient_flow.BackwardTrace) -> None:
        """Saves and sends the samples beside their feedback, and the heat map of all looks."""
        folder = Path(self.folder) if self.folder else Path(trainer.default_root_dir) / "samples"
        media = trainer.datamodule.decode(seen.samples)
        rendered = add_caption(media.render_with_grad(seen.feedback, columns=8), media.caption)
        names = {"feedback": f"{gan.images_seen:09d}_feedback.png", "gradient_flow": "gradient_flow.png"}
        pictures = {"feedback": rendered, "gradient_flow": heat_map(self.history)}
        for name, picture in pictures.items():
            with ignore_disk_errors(f"The picture of the {name}"):
                save_png(picture, folder / names[name])
                log_picture(trainer, name, picture)

    def state_dict(self) -> dict[str, Any]:
        return {"history": self.history, "previous": self.previous}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.history = [(images_seen, dict(norms)) for images_seen, norms in state_dict["history"]]
        self.previous = state_dict["previous"]


def networks(gan: GAN) -> dict[str, torch.nn.Module]:
    """The two adversaries by name."""
    return {"generator": gan.generator, "discriminator": gan.discriminator}


def will_be_due(gan: GAN, batch: Batch, every: int, ahead: int = 0) -> bool:
    """Whether the iteration that this batch ends will pass a multiple of `every` images (`GAN.passes`).

    `ahead` asks for the iteration so many after it; false for a batch that does not end its iteration.
    """
    if not every or (gan.discriminator_updates + 1) % gan.discriminator_steps:
        return False
    shown = len(batch[0]) * gan.trainer.world_size
    iteration = shown * gan.discriminator_steps
    end = gan.images_seen + shown + ahead * iteration
    return end // every > (end - iteration) // every
