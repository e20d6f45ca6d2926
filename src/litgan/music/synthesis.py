"""Notes as sound: a plain tone, so that rolls are heard without an instrument."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from litgan.music.midi import Note

SAMPLE_RATE = 16_000
PARTIALS = (1.0, 0.5, 0.25, 0.12, 0.06)  # amplitudes of the fundamental and its multiples
ATTACK, RELEASE, DECAY = 0.01, 0.05, 1.5  # seconds to full level, from it, and to 1/e of it
PEAK, CONCERT_PITCH = 0.8, 69  # of full scale; the MIDI number of 440 Hz


def synthesize(notes: Sequence[Note], *, steps: int, lowest: int, seconds_per_step: float) -> Tensor:
    """The sound of notes, int16 [steps * seconds_per_step * SAMPLE_RATE], as loud as `PEAK`.

    Args:
        notes: in any order.
        steps: length; later notes are cut.
        lowest: MIDI number of row 0.
        seconds_per_step: duration of a step.
    """
    wave = torch.zeros(round(steps * seconds_per_step * SAMPLE_RATE))
    for _, start, end, row in notes:
        first = round(start * seconds_per_step * SAMPLE_RATE)
        place = wave[first : round(end * seconds_per_step * SAMPLE_RATE)]
        time = torch.arange(len(place), dtype=torch.float64) / SAMPLE_RATE
        phase = 2 * math.pi * 440 * 2 ** ((lowest + row - CONCERT_PITCH) / 12) * time
        tone = sum(level * torch.sin((k + 1) * phase) for k, level in enumerate(PARTIALS))
        remaining = len(place) / SAMPLE_RATE - time
        envelope = (
            (time / ATTACK).clamp(max=1) * (remaining / RELEASE).clamp(max=1) * torch.exp(-time / DECAY)
        )
        place += (tone * envelope).float()
    loudest = wave.abs().max().clamp_min(1e-9) if len(wave) else 1
    return (wave * (PEAK * 32767 / loudest)).round().to(torch.int16)
