"""Feedback: the gradient that the discriminator sends to the fake samples, and where it gets lost."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, Trainer
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.utils.hooks import RemovableHandle

from litgan import gradient_flow
from litgan.axis import is_logging_point
from litgan.callbacks.heat_map import heat_map
from litgan.callbacks.throughput import untimed
from litgan.condition import choose_conditions
from litgan.data.stock import LoaderData, data_of, eval_conditions
from litgan.files import ignore_disk_errors
from litgan.gan import GAN, Batch
from litgan.loggers import log_picture
from litgan.memory import AutoBatchSize
from litgan.noise import Noise
from litgan.options import check_counts
from litgan.precision import loss_scale
from litgan.render import add_caption, save_png
from litgan.resuming import restoring
from litgan.sampling import eval_mode
from litgan.updates import unpack

NETWORKS = ("generator", "discriminator")


class Feedback(Callback):
    """Logs gradient norms of the networks and of the feedback, and follows the feedback layer by layer.

    At logging points, without a second pass and without waiting for the device:

    - `gradient/<network>`: norm over all parameters of the network that is updated, before any clipping;
    - `gradient/feedback`: mean over samples of ||dL_i/dx_i||, the gradient of a sample's own generator loss
      with respect to that fake sample, so it does not depend on the batch size.

    Every `every` images, on rank zero, one forward and backward pass of fixed latents, both networks in
    evaluation mode and in the weights' own precision, in parts where the memory is too small:

    - `feedback/norm`, as `gradient/feedback`, and `feedback/cosine` to the feedback of the same latents the
      time before: near 1 the generator is pushed the same way again, below 0 back;
    - `gradient_flow/discriminator/<layer>`, `gradient_flow/generator/<layer>`: mean over samples of the norm
      of dL_i/dh_i at each layer's output h, and at the latents (`litgan.gradient_flow.layers` lists them);
    - `update/generator`, `update/discriminator`: norm of the last update over the norm of the weights;
    - `gradient/below_eps`: share of the generator's parameters whose last gradient is below Adam's eps;
    - `logits/accuracy` and others, of this batch and as many fakes (`gradient_flow.logit_statistics`).

    `samples/<images_seen>_feedback.png` shows samples beside their feedback, `samples/gradient_flow.png` the
    norms over time; W&B gets them as `feedback` and `gradient_flow`.

    Args:
        every: images between two traces, 0 for never.
        count: samples in a trace, and in its picture.
        seed: of their fixed latents.
        folder: of the pictures; None for `samples` in the run's own folder.
    """

    def __init__(
        self, every: int = 50_000, count: int = 16, seed: int = 0, folder: str | None = None
    ) -> None:
        check_counts("gradients.", least=0, every=every)
        check_counts("gradients.", count=count)
        self.every, self.count, self.seed, self.folder = every, count, seed, folder
        self.values: dict[str, Tensor] = {}  # to log when the iteration ends
        self.handle: RemovableHandle | None = None  # of the generator's hook, in iterations that are logged
        self.awaiting_gradient = self.in_backward = False
        self.feedback_norms: list[Tensor] = []  # [B] for each micro-batch
        self.params_before: dict[str, list[Tensor]] = {}  # weights before the last updates
        self.history: list[tuple[int, dict[str, float]]] = []  # images_seen, norms by layer
        self.previous: Tensor | None = None  # feedback of the last trace

    def on_train_start(self, trainer: Trainer, gan: GAN) -> None:
        if self.every and isinstance(data := data_of(trainer), LoaderData):
            data.decode(torch.zeros(1, *gan.sample_shape))  # raises an error now if nothing can be drawn

    def on_train_batch_start(self, trainer: Trainer, gan: GAN, batch: Batch, batch_idx: int) -> None:
        # An iteration may have several batches.
        if is_logging_point(trainer, ahead=1) and self.handle is None:
            self.handle = gan.generator.register_forward_hook(partial(self.hook_fake, gan))
            self.awaiting_gradient = False
        if trainer.is_global_zero and will_be_due(gan, batch, self.every):
            self.params_before = {name: gradient_flow.clone_params(getattr(gan, name)) for name in NETWORKS}

    def hook_fake(self, gan: GAN, generator: nn.Module, inputs: object, fake: Tensor) -> None:
        is_penalty = gan.updating == "generator" and self.awaiting_gradient  # draws fakes after the loss
        if fake.requires_grad and not is_penalty:
            self.awaiting_gradient = True
            fake.register_hook(partial(self.record_norms, gan))

    def on_before_backward(self, trainer: Trainer, gan: GAN, loss: Tensor) -> None:
        self.in_backward = True  # an adaptive weight looks at gradients of its own before

    def record_norms(self, gan: GAN, feedback: Tensor) -> None:
        # Further networks may be updated through the generator.
        if gan.updating == "generator" and self.in_backward:
            self.feedback_norms.append(feedback.detach().float().flatten(1).norm(dim=1))

    def on_after_backward(self, trainer: Trainer, gan: GAN) -> None:
        self.in_backward = self.awaiting_gradient = False

    def on_before_optimizer_step(self, trainer: Trainer, gan: GAN, optimizer: Optimizer) -> None:
        if self.handle is not None:
            gradients = [p.grad for group in optimizer.param_groups for p in group["params"]]
            self.values[f"gradient/{gan.updating}"] = nn.utils.get_total_norm(
                [gradient for gradient in gradients if gradient is not None]
            )
        if self.feedback_norms:  # the loss is a mean over the batch: their sum is the mean of ||dL_i/dx_i||
            norms = torch.cat(self.feedback_norms)
            self.values["gradient/feedback"] = norms.sum() / loss_scale(trainer, "generator")
            self.feedback_norms = []

    def on_train_batch_end(
        self, trainer: Trainer, gan: GAN, outputs: Any, batch: Batch, batch_idx: int
    ) -> None:
        if self.handle is not None and gan.iteration_is_complete:
            self.handle.remove()
            self.handle = None
            gan.log_scalars(self.values)
            self.values = {}
        if gan.is_due(self.every):
            with untimed(gan):
                measured = self.measure(trainer, gan, batch) if trainer.is_global_zero else {}
                gan.log_scalars(trainer.strategy.broadcast(measured))

    def measure(self, trainer: Trainer, gan: GAN, batch: Batch) -> dict[str, float]:
        """Traces and draws, on rank zero alone; returns what is logged."""
        trace = self.trace(gan, eval_conditions(gan, data_of(trainer), self.count))
        norms = trace.gradient_norms()
        values = {
            "feedback/norm" if row == "samples" else f"gradient_flow/{row}": norm
            for row, norm in norms.items()
        }
        if self.previous is not None and self.previous.shape == trace.feedback.shape:
            previous = self.previous.to(gan.device)
            values["feedback/cosine"] = gradient_flow.mean_cosine(trace.feedback, previous)
        self.previous = trace.feedback
        for name, before in self.params_before.items():
            values[f"update/{name}"] = gradient_flow.update_ratio(before, getattr(gan, name))
        self.params_before = {}
        values["gradient/below_eps"] = gradient_flow.grad_below_eps(trainer.optimizers[0])
        values |= self.logit_statistics(gan, batch)
        numbers = torch.stack(list(values.values())).tolist()  # one transfer from the device
        self.history.append((gan.images_seen, dict(zip(norms, numbers, strict=False))))  # the first of them
        self.save_pictures(trainer, gan, trace)
        return dict(zip(values, numbers, strict=True))

    def trace(self, gan: GAN, condition: Tensor | None = None) -> gradient_flow.BackwardTrace:
        """Samples of the fixed latents [count, *sample_shape], their feedback and its norm at each layer.

        `condition` is theirs, as in `GAN.sample`.
        """
        latents = self.fixed_latents(gan, self.count)
        given = choose_conditions(condition, 0, self.count, gan.condition)
        given = None if given is None else given.to(gan.device)

        def part(first: int, size: int) -> gradient_flow.BackwardTrace:
            rows = slice(first, first + size)
            return gradient_flow.trace_gradients(
                gan.generator, gan.discriminator, gan.loss, latents[rows],
                None if given is None else given[rows],
            )  # fmt: skip

        return gradient_flow.BackwardTrace.join(AutoBatchSize().parts(part, self.count))

    def fixed_latents(self, gan: GAN, count: int) -> Tensor:
        return Noise(self.seed, 0, 0, count, "sample", gan.device).normal(gan.generator.latent_dim)  # type: ignore[arg-type]

    @torch.no_grad()
    def logit_statistics(self, gan: GAN, batch: Batch) -> dict[str, Tensor]:
        """How well the discriminator separates this batch from as many fakes for the same conditions."""
        real, condition = unpack(batch, gan.condition)
        latents = self.fixed_latents(gan, len(real))

        def part(first: int, size: int) -> Tensor:
            rows = slice(first, first + size)
            given = None if condition is None else condition[rows]
            fake = gan.generator(latents[rows], given)
            return torch.stack([gan.discriminator(side, given) for side in (real[rows], fake)], dim=1)

        with eval_mode(gan.generator, gan.discriminator):
            on_real, on_fake = AutoBatchSize()(part, len(real)).unbind(1)
        statistics = gradient_flow.logit_statistics(real=on_real, fake=on_fake)
        return {f"logits/{key}": value for key, value in statistics.items()}

    def save_pictures(self, trainer: Trainer, gan: GAN, trace: gradient_flow.BackwardTrace) -> None:
        """Saves and logs the samples beside their feedback, and the heat map of all traces."""
        folder = Path(self.folder) if self.folder else Path(trainer.default_root_dir) / "samples"
        media = data_of(trainer).decode(trace.samples)
        feedback = add_caption(media.render_with_grad(trace.feedback, columns=8), media.caption)
        for name, file, picture in (
            ("feedback", f"{gan.images_seen:09d}_feedback.png", feedback),
            ("gradient_flow", "gradient_flow.png", heat_map(self.history)),
        ):
            with ignore_disk_errors(f"The picture of the {name}"):
                save_png(picture, folder / file)
                log_picture(trainer, name, picture)

    def state_dict(self) -> dict[str, Any]:
        return {"history": self.history, "previous": self.previous}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        with restoring("Feedback"):
            self.history = [(int(images_seen), dict(norms)) for images_seen, norms in state_dict["history"]]
            self.previous = state_dict["previous"]


def will_be_due(gan: GAN, batch: Batch, every: int, ahead: int = 0) -> bool:
    """Whether `gan.is_due(every)` after the iteration that this batch ends, or the `ahead`-th after it.

    False for a batch that does not end its iteration.
    """
    if not every or (gan.discriminator_updates + 1) % gan.discriminator_steps:
        return False
    images = len(unpack(batch, gan.condition)[0]) * gan.trainer.world_size
    iteration = images + (0 if gan.iteration_is_complete else gan.images_per_iteration)
    end = gan.images_seen + images + ahead * iteration
    return end // every > (end - iteration) // every
