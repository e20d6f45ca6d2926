"""An autoregressive generator of text: a recurrent network samples each character given those before it.

A feed-forward generator maps latents to all characters at once; between the latents of two texts it outputs
mixtures of both. An autoregressive one chooses at the first character that differs, and the others follow.
It learns from scratch, from the discriminator alone, through straight-through Gumbel-softmax (Kusner &
Hernández-Lobato 2016; Press et al. 2017).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from litgan.networks.layers import check_input, check_widths
from litgan.schedules import Schedule, value_at


class FunctionalGRUCell(nn.GRUCell):
    """A GRU cell that takes its weights as an argument, so that all steps share one cast of them."""

    def forward(self, inputs: Tensor, state: Tensor, weights: Sequence[Tensor]) -> Tensor:  # type: ignore[override]
        return torch.gru_cell(inputs, state, *weights)


class FunctionalLinear(nn.Linear):
    """A linear layer that takes its weights as an argument."""

    def forward(self, state: Tensor, weights: Sequence[Tensor]) -> Tensor:  # type: ignore[override]
        return F.linear(state, *weights)


class RecurrentTextGenerator(nn.Module):
    """Latents [B, latent_dim] to one-hot characters [B, alphabet_size, length], from left to right.

    At each position the inputs of a GRU (Cho et al. 2014, section 2.3) are the previous character and the
    code; a linear layer maps its state to logits, from which the character is sampled. Gradients reach the
    logits as those of softmax((logits + Gumbel noise) / temperature), and through all later characters.

    Args:
        sample_shape: (alphabet_size, length).
        num_classes: 0 for an unconditional generator; else an embedding of the class is added to the code.
        latent_dim: Length of the code. The Gumbel noise comes from further latents, alphabet_size * length
            of them: the attribute `latent_dim` counts these too.
        width: Length of the state.
        temperature: A number, or a schedule of `images_seen`; it changes gradients, not samples.
    """

    uses_batch_statistics = False

    def __init__(
        self,
        sample_shape: tuple[int, ...],
        num_classes: int = 0,
        *,
        latent_dim: int = 32,
        width: int = 256,
        temperature: float | Schedule = 1.0,
    ) -> None:
        super().__init__()
        if len(sample_shape) != 2:
            raise ValueError(
                f"{type(self).__name__} needs samples [alphabet_size, length], not {list(sample_shape)}: "
                "choose text as data."
            )
        check_widths([width], self)
        alphabet_size, length = sample_shape
        self.sample_shape, self.num_classes = (alphabet_size, length), num_classes
        self.temperature_schedule = temperature
        self.code_dim, self.latent_dim = latent_dim, latent_dim + alphabet_size * length
        self.class_embed = nn.Embedding(num_classes, latent_dim) if num_classes else None
        self.initial_state = nn.Linear(latent_dim, width)
        self.cell = FunctionalGRUCell(alphabet_size + latent_dim, width)
        self.head = FunctionalLinear(width, alphabet_size)
        nn.init.xavier_normal_(self.head.weight, gain=2.0)  # samples differ at initialization
        # A one-hot vector has norm 1, the state about sqrt(width): at equal norms both weights learn as fast.
        self.input_scale = width**0.5
        self.step_schedule(0)

    def step_schedule(self, images_seen: int) -> None:
        """Sets the temperature that the schedule has after `images_seen` images."""
        self.temperature = value_at(self.temperature_schedule, images_seen)

    def forward(self, latents: Tensor, labels: Tensor | None = None) -> Tensor:
        labels = check_input(self, latents, labels)
        code, normal = latents[:, : self.code_dim], latents[:, self.code_dim :]
        if self.class_embed is not None:
            code = code + self.class_embed(labels)
        noise = gumbel(normal).unflatten(1, self.sample_shape)
        state = self.initial_state(code).tanh()
        return self.unroll(code, state, noise)

    def unroll(self, code: Tensor, state: Tensor, noise: Tensor) -> Tensor:
        """The one-hot characters. Casts weights once: autocast would cast frozen ones again at every step."""
        dtype, device = state.dtype, state.device.type
        if torch.is_autocast_enabled(device):
            dtype = torch.get_autocast_dtype(device)
        code, state = code.to(dtype), state.to(dtype)
        cell_weights, head_weights = (
            [weight.to(dtype) for weight in layer.parameters()] for layer in (self.cell, self.head)
        )
        char, chars = torch.zeros_like(noise[:, :, 0]), []
        with torch.autocast(device, enabled=False):
            for char_noise in noise.unbind(2):
                inputs = torch.cat([(self.input_scale * char).to(dtype), code], dim=1)
                state = self.cell(inputs, state, cell_weights)
                logits = self.head(state, head_weights).float() + char_noise
                char = straight_through(logits.unsqueeze(2), self.temperature).squeeze(2)
                chars.append(char)
        return torch.stack(chars, dim=2)


def gumbel(normal: Tensor) -> Tensor:
    """Maps standard normal to standard Gumbel numbers: -log(-log(Phi(x))), for |x| up to 13."""
    normal = normal.float()
    tail = torch.special.erfc(normal.abs() * 0.5**0.5) / 2  # Phi(-|x|); log_ndtr has no Metal kernel
    return -torch.log(-torch.where(normal > 0, torch.log1p(-tail), tail.log()))


def straight_through(logits: Tensor, temperature: float) -> Tensor:
    """One-hot at the largest of the logits [B, A, T], with the gradient of softmax(logits / temperature)."""
    soft = (logits / temperature).softmax(1)
    hard = F.one_hot(logits.argmax(1), logits.shape[1]).transpose(1, 2).to(soft)
    return hard + (soft - soft.detach())
