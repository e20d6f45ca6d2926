"""An autoregressive generator of text: a recurrent network samples each character given those before it.

A feed-forward generator maps latents to all characters at once; between the latents of two texts it outputs
mixtures of both. An autoregressive one chooses at the first character that differs, and the others follow.
It learns from scratch, from the discriminator alone, through straight-through Gumbel-softmax (Kusner &
Hernández-Lobato 2016; Press et al. 2017); with the term `Likelihood` it learns by maximum likelihood as well.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from litgan.networks.layers import check_input, check_widths
from litgan.noise import gumbel
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
    logits as those of softmax((logits + Gumbel noise) / temperature), and through all later characters. The
    characters may be pieces of words.

    Args:
        sample_shape: (alphabet_size, length).
        num_classes: 0 for an unconditional generator; else an embedding of the class is added to the code.
        latent_dim: Length of the code. The noise that chooses characters comes from further latents: the
            attribute `latent_dim` counts these too.
        width: Length of the state.
        temperature: A number, or a schedule of `images_seen`; it changes gradients, not samples.
        sampling: "gumbel" adds Gumbel noise to the logits, alphabet_size * length latents; "inverse" inverts
            the distribution function of the softmax with `length` latents, which is faster for a large
            vocabulary, and gradients are those of softmax(logits / temperature).
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
        sampling: Literal["gumbel", "inverse"] = "gumbel",
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
        self.sampling, self.code_dim = sampling, latent_dim
        self.latent_dim = latent_dim + length * (alphabet_size if sampling == "gumbel" else 1)
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
        noise = normal.unflatten(1, (-1, self.sample_shape[1]))
        if self.sampling == "gumbel":
            noise = gumbel(noise)
        return torch.stack(self.unroll(code, noise)[0], dim=2)

    def log_likelihood(self, samples: Tensor, latents: Tensor, labels: Tensor | None = None) -> Tensor:
        """Log-probability of samples [B, alphabet_size, length], mean over their characters, nats [B]."""
        labels, code = check_input(self, latents, labels), latents[:, : self.code_dim]
        if self.class_embed is not None:
            code = code + self.class_embed(labels)
        _, logits = self.unroll(code, torch.zeros_like(samples[:, :1]), samples)
        return (torch.stack(logits, dim=2).log_softmax(1) * samples).sum(1).mean(1)

    def unroll(
        self, code: Tensor, noise: Tensor, given: Tensor | None = None
    ) -> tuple[list[Tensor], list[Tensor]]:
        """One-hot characters and their logits given those before them, one [B, alphabet_size] a position.

        Noise is [B, alphabet_size or 1, length]. `given` are characters to take in place of sampled ones.
        Casts weights once: autocast would cast frozen ones again at every step.
        """
        state = self.initial_state(code).tanh()
        dtype, device = state.dtype, state.device.type
        if torch.is_autocast_enabled(device):
            dtype = torch.get_autocast_dtype(device)
        code, state = code.to(dtype), state.to(dtype)
        cell_weights, head_weights = (
            [weight.to(dtype) for weight in layer.parameters()] for layer in (self.cell, self.head)
        )
        char, chars, scores = code.new_zeros(len(code), self.sample_shape[0]), [], []
        with torch.autocast(device, enabled=False):
            for place, char_noise in enumerate(noise.unbind(2)):
                inputs = torch.cat([(self.input_scale * char).to(dtype), code], dim=1)
                state = self.cell(inputs, state, cell_weights)
                logits = self.head(state, head_weights).float()
                char = self.draw(logits, char_noise) if given is None else given[:, :, place]
                chars.append(char)
                scores.append(logits)
        return chars, scores

    def draw(self, logits: Tensor, noise: Tensor) -> Tensor:
        """One-hot characters [B, alphabet_size], with gradients."""
        if self.sampling == "gumbel":
            return straight_through((logits + noise).unsqueeze(2), self.temperature).squeeze(2)
        with torch.no_grad():
            uniform = torch.special.erfc(noise * -(0.5**0.5)) / 2  # Phi; ndtr has no Metal kernel
            below = logits.softmax(1).cumsum(1) < uniform
            chosen = below.sum(1).clamp(max=logits.shape[1] - 1)
        soft = (logits / self.temperature).softmax(1)
        return F.one_hot(chosen, logits.shape[1]).to(soft) + (soft - soft.detach())


def straight_through(logits: Tensor, temperature: float) -> Tensor:
    """One-hot at the largest of the logits [B, A, T], with the gradient of softmax(logits / temperature)."""
    soft = (logits / temperature).softmax(1)
    hard = F.one_hot(logits.argmax(1), logits.shape[1]).transpose(1, 2).to(soft)
    return hard + (soft - soft.detach())
