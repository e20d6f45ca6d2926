"""A recurrent generator of text: each letter is drawn in the knowledge of those before it.

A map from latents to whole texts must switch every letter at once where two texts meet, and writes mixtures
there. Letters drawn one after the other switch at the first that differs; all others follow. It learns from
scratch, against the discriminator alone, through straight-through Gumbel-softmax (Kusner & Hernández-Lobato
2016; Press et al. 2017).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from litgan.networks.layers import check_input, check_labels, check_widths
from litgan.schedules import Schedule, value_at
from litgan.text.convolutional import gumbel, straight_through


class FunctionalGRUCell(nn.GRUCell):
    """A gated recurrent unit whose weights come with the call: one cast of them serves all letters."""

    def forward(self, inputs: Tensor, state: Tensor, weights: Sequence[Tensor]) -> Tensor:  # type: ignore[override]
        return torch.gru_cell(inputs, state, *weights)


class FunctionalLinear(nn.Linear):
    """A layer whose weights come with the call."""

    def forward(self, state: Tensor, weights: Sequence[Tensor]) -> Tensor:  # type: ignore[override]
        return F.linear(state, *weights)


class RecurrentTextGenerator(nn.Module):
    """Latents [B, latent_dim] to one-hot letters, [B, alphabet_size, length], written from left to right.

    At each position a gated recurrent unit (Cho et al. 2014, section 2.3) reads the letter before and the
    code, and its state gives the distribution from which the letter is drawn. The feedback reaches a letter
    as the gradient of softmax((logits + Gumbel noise) / temperature), and through all letters behind it.

    Args:
        sample_shape: (alphabet_size, length).
        num_classes: 0 for an unconditional generator; else an embedding of the class is added to the code.
        latent_dim: Length of the code. The noise of the draws is made of latents of its own, one a symbol
            and position, which follow the code: the attribute `latent_dim` is the sum of both.
        width: Length of the state.
        temperature: A number, or a schedule of images; it does not change what is drawn.

    Raises:
        ValueError: The samples are no text, or the width is not positive; in `forward`, latents of another
            length, or labels that are missing from a conditional generator or not integers [B].
    """

    mixes_samples = False

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
        nn.init.xavier_normal_(self.head.weight, gain=2.0)  # so that letters differ from the first turn on
        # a single one among zeros: as long as the state, or its weights would learn so much more slowly
        self.input_scale = width**0.5
        self.step_schedule(0)

    def step_schedule(self, images_seen: int) -> None:
        """Sets the present temperature."""
        self.temperature = value_at(self.temperature_schedule, images_seen)

    def forward(self, latents: Tensor, labels: Tensor | None = None) -> Tensor:
        check_input(latents, (self.latent_dim,), self)
        labels = check_labels(labels, self.num_classes, latents.shape[0], self)
        code, normal = latents[:, : self.code_dim], latents[:, self.code_dim :]
        if self.class_embed is not None:
            code = code + self.class_embed(labels)
        noise = gumbel(normal).unflatten(1, self.sample_shape)
        state = self.initial_state(code).tanh()
        return self.unroll(code, state, noise)

    def unroll(self, code: Tensor, state: Tensor, noise: Tensor) -> Tensor:
        """The letters; weights are cast once: autocast casts frozen ones again at every letter."""
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
