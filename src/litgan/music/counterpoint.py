"""Breaks of the rules of strict counterpoint in piano rolls, counted.

A voice is the highest note of a track, and the first track should be the highest voice. Rolls have keys and
no names of notes: a diminished sixth counts as the fifth that sounds the same.
"""

from __future__ import annotations

import torch
from torch import Tensor

LARGEST_LEAP = 12  # semitones
BAD_LEAPS = (6, 10, 11)  # tritone and sevenths
DISSONANCES = (1, 2, 6, 10, 11)  # seconds, tritone and sevenths; a fourth is one above the bass only
RULES = ("parallel_fifths", "parallel_octaves", "crossings", "leaps", "dissonances")


def voice_lines(sounding: Tensor) -> Tensor:
    """The highest row of each track at each step plus 1, or 0 for a rest.

    Bool [N, tracks, steps, pitches] to int64 [N, tracks, steps].
    """
    rows = torch.arange(1, sounding.shape[-1] + 1, device=sounding.device)
    return (sounding * rows).amax(-1)


def strong_steps(steps: int, steps_per_bar: int, quarters_per_bar: int) -> Tensor:
    """Marks the first step of each bar, and the middle of a bar of four quarters: bool [steps]."""
    period = steps_per_bar // 2 if quarters_per_bar == 4 else steps_per_bar
    return torch.arange(steps) % max(1, period) == 0


def rule_breaks(sounding: Tensor, strong: Tensor) -> dict[str, float]:
    """How often each rule is broken, per 1,000 steps of all rolls together; `rule_breaks` is the sum.

        parallel_fifths: two voices move at the same step from a fifth to a fifth, in either direction and in
            any octave.
        parallel_octaves: likewise from octave to octave or unison to unison, and in contrary motion from one
            of them to the other.
        crossings: a voice comes to be above a higher one.
        leaps: a voice moves by a tritone, a seventh, or more than an octave.
        dissonances: on a strong beat two voices are a second, a tritone or a seventh apart, in any octave,
            and both have moved there: none is prepared, as in a suspension.

    Args:
        sounding: bool [N, tracks, steps, pitches], from `sounding_and_onsets`.
        strong: bool [steps].
    """
    lines = voice_lines(sounding)
    tracks, steps = lines.shape[1:]
    upper, lower = torch.triu_indices(tracks, tracks, 1)
    step = lines.diff(dim=2)
    moved = (lines[..., 1:] > 0) & (lines[..., :-1] > 0) & (step != 0)
    together = moved[:, upper] & moved[:, lower]  # [N, pairs, steps - 1]
    gap = lines[:, upper] - lines[:, lower]
    crossed = (lines[:, lower] > 0) & (lines[:, upper] > 0) & (gap < 0)
    crossed[..., 1:] &= ~crossed[..., :-1]
    contrary = step[:, upper].sign() != step[:, lower].sign()
    before, after = gap.abs()[..., :-1], gap.abs()[..., 1:]

    def parallel(semitones: int) -> Tensor:
        same = (before % 12 == semitones) & (after % 12 == semitones)
        return together & same & (contrary | ((before == 0) == (after == 0)))

    bad_leap = _is_in(step.abs(), BAD_LEAPS) | (step.abs() > LARGEST_LEAP)
    on_beat = strong[1:].to(lines.device)
    dissonant = together & on_beat & _is_in(after % 12, DISSONANCES)
    found = (parallel(7), parallel(0), crossed, moved & bad_leap, dissonant)
    rates = [1000 * each.sum().item() / (len(lines) * steps) for each in found]
    return {"rule_breaks": sum(rates), **dict(zip(RULES, rates, strict=True))}


def _is_in(values: Tensor, chosen: tuple[int, ...]) -> Tensor:
    return torch.isin(values, torch.tensor(chosen, device=values.device))
