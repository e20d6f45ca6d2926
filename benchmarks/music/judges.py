"""What judges harmonizations, and the opponent without training: a training phrase under a similar tune."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from litgan.metrics import FeatureExtractor
from litgan.music import MusicStatistics

KEYS = range(-6, 6)  # semitones by which training phrases are moved


def judge(data: Any) -> FeatureExtractor:
    """The statistics of rolls, which no term of a loss uses."""
    return MusicStatistics()


def nearest_phrase(condition: Tensor, data: Any) -> Tensor:
    """The lower voices of the training phrase, in any key, whose tune has most steps in common with it.

    Rolls [B, tracks, steps, pitches] of conditions, with one track that sounds.
    """
    phrases = torch.as_tensor(data.load("train")[0])
    used, wanted = phrases.amax((1, 2)).bool(), condition[:, 0].flatten(1)
    best, chosen = torch.full((len(condition),), -1.0), condition.clone()
    for key in KEYS:
        outside = used[:, phrases.shape[3] - key :] if key > 0 else used[:, :-key]
        moved = phrases[~outside.any(1)].roll(key, 3)
        common, nearest = (wanted @ moved[:, 0].flatten(1).float().T).max(1)
        better = common > best
        best = torch.where(better, common, best)
        chosen[better, 1:] = data.encode(moved[nearest[better], 1:])
    return chosen


OPPONENT = nearest_phrase
