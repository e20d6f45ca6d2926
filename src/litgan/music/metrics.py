"""Features of piano rolls for the Fréchet distance: histograms from music theory; and metrics of music.

`litgan.music.midi.sounding_and_onsets` defines the notes of rolls [N, tracks, steps, pitches]. Pitch classes
are counted from the lowest row: values are comparable only between rolls with the same lowest pitch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from litgan.metrics.distances import jensen_shannon
from litgan.metrics.extractors import FeatureExtractor
from litgan.music.counterpoint import rule_breaks, strong_steps, voice_lines
from litgan.music.midi import sounding_and_onsets
from litgan.noise import torch_generator

if TYPE_CHECKING:
    from litgan.music.rolls import PianoRolls

MAX_INTERVAL = 12  # semitones; wider intervals are clipped to it
DURATION_BINS = (1, 2, 3, 4, 6, 8, 12, 16)  # lower edges in steps
ONSET_PERIOD = 16  # steps; onsets are counted by their step modulo this
CLASS_PAIRS = torch.triu_indices(12, 12, 1)  # of two different pitch classes
HISTOGRAMS = {  # name -> number of bins
    "pitch_classes": 12, "intervals": 2 * MAX_INTERVAL + 1, "durations": len(DURATION_BINS),
    "onsets": ONSET_PERIOD, "bass_intervals": 12, "pitch_class_pairs": CLASS_PAIRS.shape[1], "polyphony": 9,
}  # fmt: skip
MAX_CELLS = 32_768  # per roll, of the fixed size of `extras`
SAME_IOU = 0.9  # intersection over union from which two rolls count as equal
MAJOR, MINOR = (0, 2, 4, 5, 7, 9, 11), (0, 2, 3, 5, 7, 8, 11)  # harmonic minor
CHUNK_SIZE = 256  # rolls compared at once, to bound memory
MULTIPLIER = -7046029254386353131  # 2^64 / golden ratio: Knuth 1998, "Sorting and Searching", section 6.4


class MusicStatistics(FeatureExtractor):
    """Computes seven histograms of each roll; nothing is learned or downloaded.

    A histogram is normalized to sum 1 (or is all zero), and the features are its square roots: Euclidean
    distances between features are Hellinger distances, up to a factor that makes their mean square about 1.

        pitch_classes: number of steps at which each pitch class sounds.
        intervals: semitones between successive onsets of the highest voice of a track, clipped to an octave.
        durations: lengths of all notes, binned by `DURATION_BINS`.
        onsets: steps at which notes begin, modulo `ONSET_PERIOD`.
        bass_intervals: semitones above the lowest note of the same step, modulo an octave.
        pitch_class_pairs: pairs of pitch classes that sound at the same step.
        polyphony: number of pitches that sound at a step, 0 to 7, and 8 or more.

    `extra_metrics` returns these metrics of data of `litgan.music.PianoRolls`:

        pitch_class_js, interval_js, duration_js: Jensen-Shannon divergence in bits, 0 to 1, between real and
            fake histograms of pitch classes (one histogram per track, joined), intervals, and note lengths.
        polyphony: mean number of pitches that sound at a step, over all tracks.
        in_scale: fraction of a roll's sounding cells in the major or harmonic minor scale that fits it best,
            averaged over rolls that are not silent.
        empty_bars: fraction of bars without a note, each track separately.
        repetition: fraction of rolls with an intersection over union of at least 0.9 with a roll of the
            training split, both transposed to the same lowest pitch.
        longest_copy: mean over rolls of `longest_copies`.
        rule_breaks: breaks of the rules of counterpoint per 1,000 steps, and by rule; `counterpoint`.
    """

    name, dimension = "music", sum(HISTOGRAMS.values())
    extras_size, extras_dtype = MAX_CELLS // 8, torch.uint8
    needs = ("sample_shape", "steps_per_bar", "quarters_per_bar", "load")

    def __init__(self) -> None:
        super().__init__()
        self.finalize()

    def check(self, samples: Tensor) -> None:
        if samples.ndim != 4 or samples.shape[1:].numel() > MAX_CELLS:
            raise ValueError(
                f"The extractor 'music' takes piano rolls [N, tracks, steps, pitches] of at most "
                f"{MAX_CELLS:,} cells, not {list(samples.shape)}: choose one that fits this data set."
            )

    def features(self, samples: Tensor) -> Tensor:
        roll = samples > 0.5
        sounding, onset = sounding_and_onsets(roll)
        any_track = sounding.any(1)  # [N, steps, pitches]
        classes = _fold_octaves(any_track.float())  # [N, steps, 12]
        present = (classes > 0).float()
        onsets = onset.sum((1, 3)).float()  # [N, steps]
        position = torch.arange(onsets.shape[1], device=roll.device) % ONSET_PERIOD
        histograms = [
            classes.sum(1),
            intervals(sounding, onset),
            _duration_histogram(sounding, onset),
            torch.zeros(len(roll), ONSET_PERIOD, device=roll.device).index_add_(1, position, onsets),
            _bass_intervals(any_track).sum(1),
            (present.transpose(1, 2) @ present)[:, CLASS_PAIRS[0], CLASS_PAIRS[1]],
            _histogram(any_track.sum(2).clamp(max=HISTOGRAMS["polyphony"] - 1), HISTOGRAMS["polyphony"]),
        ]
        shares = [each / each.sum(1, keepdim=True).clamp_min(1) for each in histograms]
        return torch.cat(shares, dim=1).sqrt() * (self.dimension / len(HISTOGRAMS)) ** 0.5

    def extras(self, samples: Tensor) -> Tensor:
        """Packs the rolls, eight cells per byte, padded with zeros, uint8 [N, MAX_CELLS // 8]."""
        cells = torch.zeros(len(samples), MAX_CELLS, dtype=torch.uint8, device=samples.device)
        cells[:, : samples[0].numel()] = samples.flatten(1) > 0.5
        return (cells.view(-1, MAX_CELLS // 8, 8) << _bit_positions(samples.device)).sum(2, dtype=torch.uint8)

    def extra_metrics(self, *, real: Tensor, fake: Tensor, data: PianoRolls) -> dict[str, float]:
        real, fake = (_unpack_rolls(side, data.sample_shape) for side in (real, fake))
        counts = [
            (
                _fold_octaves(each.float()).sum((0, 2)).flatten(),
                intervals(*masks).sum(0),
                _duration_counts(*masks),
            )
            for each, masks in ((side, sounding_and_onsets(side)) for side in (real, fake))
        ]
        divergences = [jensen_shannon(real=a, fake=b).item() for a, b in zip(*counts, strict=True)]
        sounding = sounding_and_onsets(fake)[0]
        bars = fake.unflatten(2, (-1, data.steps_per_bar)).any(-1).any(-1)
        strong = strong_steps(fake.shape[2], data.steps_per_bar, data.quarters_per_bar)
        training: Any = data.load("train")[0]
        return {
            **dict(zip(("pitch_class_js", "interval_js", "duration_js"), divergences, strict=True)),
            "polyphony": sounding.any(1).sum(2).double().mean().item(),
            "in_scale": in_scale(sounding),
            "empty_bars": 1 - bars.double().mean().item(),
            "repetition": repetition(fake, training),
            "longest_copy": longest_copies(fake, training).double().mean().item(),
            **rule_breaks(sounding, strong),
        }

    def pair_metrics(self, *, real: Tensor, fake: Tensor) -> dict[str, Tensor]:
        """`agreement`: the share of a pair's steps, of each track, that hold the same notes."""
        same = ((real > 0.5) == (fake > 0.5)).all(3)
        return {"agreement": same.float().flatten(1).mean(1)}


def intervals(sounding: Tensor, onset: Tensor) -> Tensor:
    """Returns histograms [N, 2 * MAX_INTERVAL + 1] of the intervals between successive onsets of the highest
    voice of each track.

    Args:
        sounding: bool [N, tracks, steps, pitches], from `sounding_and_onsets`.
        onset: of the same shape.
    """
    steps, line = sounding.shape[-2], voice_lines(sounding)
    top = line.clamp_min(1)[..., None] - 1
    starts = onset.gather(-1, top)[..., 0] & (line > 0)
    times = torch.arange(1, steps + 1, device=sounding.device) * starts
    latest = times.cummax(-1).values
    previous = latest.roll(1, -1)
    previous[..., 0] = 0
    pairs = starts & (previous > 0)
    interval = line - line.gather(-1, (previous - 1).clamp_min(0))
    index = interval.clamp(-MAX_INTERVAL, MAX_INTERVAL) + MAX_INTERVAL
    return _histogram(index.flatten(1), 2 * MAX_INTERVAL + 1, pairs.flatten(1))


def durations(sounding: Tensor, onset: Tensor) -> Tensor:
    """Returns the length in steps of the note that begins in each cell, else 0; of the shape of `onset`."""
    steps = onset.shape[-2]
    ends = ~sounding | onset
    time = torch.arange(steps, device=onset.device)[:, None]
    stop = torch.where(ends, time, steps)  # step at which a note that sounds before it ends
    following = torch.full_like(stop, steps)
    following[..., :-1, :] = stop[..., 1:, :].flip(-2).cummin(-2).values.flip(-2)
    return (following - time) * onset


def in_scale(sounding: Tensor) -> float:
    """Returns the mean fraction of sounding cells in the best scale of each roll; 0 if all are silent.

    Args:
        sounding: bool [N, tracks, steps, pitches].
    """
    classes = _fold_octaves(sounding.sum(1).double()).sum(1)  # [N, 12]
    scales = torch.zeros(24, 12, dtype=torch.float64, device=sounding.device)
    for tonic in range(12):
        for kind, scale in enumerate((MAJOR, MINOR)):
            scales[2 * tonic + kind, [(tonic + degree) % 12 for degree in scale]] = 1
    total = classes.sum(1)
    best = (classes @ scales.T).amax(1)[total > 0] / total[total > 0]
    return best.mean().item() if len(best) else 0.0


def repetition(rolls: Tensor, training: Tensor) -> float:
    """Returns the fraction of `rolls` that nearly equal one of `training`, up to transposition.

    Args:
        rolls: bool [N, tracks, steps, pitches].
        training: 0 and 1, [M, tracks, steps, pitches].
    """
    references_by_chunk = [
        _align_lowest(part.to(rolls.device)).flatten(1).float() for part in training.split(CHUNK_SIZE)
    ]
    repeated = 0
    for part in rolls.split(CHUNK_SIZE):
        candidates = _align_lowest(part).flatten(1).float()
        nearest = torch.zeros(len(candidates), device=candidates.device)
        for references in references_by_chunk:
            common = candidates @ references.T
            union = candidates.sum(1, keepdim=True) + references.sum(1) - common
            nearest = torch.maximum(nearest, (common / union.clamp_min(1)).amax(1))
        repeated += int((nearest >= SAME_IOU).sum())
    return repeated / len(rolls)


def longest_copies(rolls: Tensor, training: Tensor) -> Tensor:
    """Steps of the longest stretch of each roll that a training roll holds in any key: int64 [N].

    Args:
        rolls: bool [N, tracks, steps, pitches].
        training: 0 and 1, [M, tracks, steps, pitches].
    """
    longest = torch.zeros(len(rolls), dtype=torch.int64)
    sides = [_step_codes(side.cpu()) for side in (rolls, training)]
    stretches = [alone for alone, _ in sides]
    for length in range(1, rolls.shape[2] + 1):
        copied = torch.isin(*stretches).any(1)
        if not copied.any():
            break
        longest[copied] = length
        stretches = [
            stretch[:, :-1] * MULTIPLIER + after[:, length:]
            for stretch, (_, after) in zip(stretches, sides, strict=True)
        ]
    return longest


def _step_codes(rolls: Tensor) -> tuple[Tensor, Tensor]:
    """A number for what sounds in each step in any key, and one for that and the way from the step before,
    int64 [N, steps]: equal for equal steps, and by chance only for others."""
    weights = torch.randint(2**62, rolls.shape[1::2], generator=torch_generator("music", "steps"))
    found = []
    for part in rolls.split(CHUNK_SIZE):
        columns = part.transpose(1, 2).flatten(0, 1)[:, :, None]  # [N * steps, tracks, 1, pitches]
        lowest = columns.flatten(1, 2).amax(1).int().argmax(1).view(len(part), -1)
        alone = (_align_lowest(columns)[:, :, 0].long() * weights).sum((1, 2)).view_as(lowest)
        ways = lowest.diff(dim=1, prepend=lowest[:, :1])
        found.append((alone, alone + ways * MULTIPLIER))
    alone, after = (torch.cat(parts) for parts in zip(*found, strict=True))
    return alone, after


def _fold_octaves(pitches: Tensor) -> Tensor:
    """Sums [..., pitches] over octaves, [..., 12]."""
    position = torch.arange(pitches.shape[-1], device=pitches.device) % 12
    return torch.zeros(*pitches.shape[:-1], 12, dtype=pitches.dtype, device=pitches.device).index_add_(
        -1, position, pitches
    )


def _bass_intervals(any_track: Tensor) -> Tensor:
    """Marks intervals above the lowest note of each step, modulo an octave: [N, steps, pitches] to
    [N, steps, 12]."""
    pitches = any_track.shape[-1]
    bass = any_track.int().argmax(-1, keepdim=True)
    rows = (torch.arange(pitches, device=any_track.device) + bass).clamp(max=pitches - 1)
    inside = torch.arange(pitches, device=any_track.device) + bass < pitches
    return _fold_octaves((any_track.gather(-1, rows) & inside).float())


def _duration_histogram(sounding: Tensor, onset: Tensor) -> Tensor:
    """Counts the notes in each bin of lengths, [N, len(DURATION_BINS)]."""
    length = durations(sounding, onset).flatten(1)
    edges = torch.tensor(DURATION_BINS, device=length.device)
    return _histogram(
        (torch.bucketize(length, edges, right=True) - 1).clamp_min(0), len(DURATION_BINS), length > 0
    )


def _duration_counts(sounding: Tensor, onset: Tensor) -> Tensor:
    """Counts the notes of all rolls by length in steps, [steps + 1]."""
    length = durations(sounding, onset)
    return length[length > 0].bincount(minlength=onset.shape[-2] + 1)


def _histogram(index: Tensor, size: int, mask: Tensor | None = None) -> Tensor:
    """Returns the histogram [N, size] of each row of `index` [N, K] where `mask` is true."""
    weight = torch.ones_like(index, dtype=torch.float32) if mask is None else mask.float()
    return torch.zeros(len(index), size, device=index.device).scatter_add_(1, index, weight)


def _align_lowest(rolls: Tensor) -> Tensor:
    """Transposes each roll so that its lowest note is in row 0."""
    lowest = rolls.flatten(1, 2).amax(1).int().argmax(1)
    rows = torch.arange(rolls.shape[-1], device=rolls.device) + lowest[:, None]
    return rolls.gather(3, rows.remainder(rolls.shape[-1])[:, None, None].expand(rolls.shape))


def _bit_positions(device: torch.device) -> Tensor:
    return torch.arange(8, dtype=torch.uint8, device=device)


def _unpack_rolls(extras: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Unpacks what `extras` packed, bool [N, *shape]."""
    cells = (extras[..., None] >> _bit_positions(extras.device) & 1).flatten(1).bool()
    return cells[:, : torch.Size(shape).numel()].unflatten(1, shape)
