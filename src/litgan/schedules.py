"""Schedules: pure functions of `images_seen`, so that there is nothing to checkpoint.

A number of a recipe that may change (a factor of learning rates, a penalty's weight, the half-life of the
EMA) is a float or one of these. All units are images.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod


class Schedule(ABC):
    """A value as a function of the number of real samples shown to the discriminator."""

    @abstractmethod
    def __call__(self, images_seen: int) -> float: ...


def value_at(schedule: float | Schedule, images_seen: int) -> float:
    """The value of a number or a schedule at `images_seen`."""
    return schedule(images_seen) if isinstance(schedule, Schedule) else float(schedule)


def largest(name: str, schedule: float | Schedule) -> float:
    """The largest value of a number or a schedule, of those after 1, 10, 100, ... 10^12 images.

    Raises ValueError: with the name, if one of them is negative, infinite or NaN.
    """
    values = [value_at(schedule, 10**power) for power in range(13)]
    for value in values:
        if not 0 <= value < math.inf:
            raise ValueError(f"{name} is {value}: give a finite number of at least 0.")
    return max(values)


class Linear(Schedule):
    """A straight line from `start` to `end` between `begin` and `begin + images` images, constant outside.

    Raises ValueError if `images` is not positive or `begin` is negative.
    """

    def __init__(self, start: float, end: float, images: int, begin: int = 0) -> None:
        if images <= 0 or begin < 0:
            raise ValueError(
                f"{type(self).__name__} cannot run over images={images} from begin={begin}: "
                "give a positive number of images and a begin of at least 0."
            )
        self.start, self.end, self.images, self.begin = start, end, images, begin

    def __call__(self, images_seen: int) -> float:
        progress = min(max((images_seen - self.begin) / self.images, 0.0), 1.0)
        return self.start + (self.end - self.start) * self.shape(progress)

    def shape(self, progress: float) -> float:
        """Maps progress in [0, 1] onto [0, 1], monotonically."""
        return progress


class Cosine(Linear):
    """As `Linear`, along half a cosine wave (Loshchilov & Hutter 2017, eq. 5, without restarts)."""

    def shape(self, progress: float) -> float:
        return (1.0 - math.cos(math.pi * progress)) / 2.0


class Exponential(Schedule):
    """From `start` on, half of it after each `halflife` images.

    Raises ValueError if `halflife` is not positive.
    """

    def __init__(self, halflife: float, start: float = 1.0) -> None:
        if not halflife > 0:
            raise ValueError(f"Exponential has halflife={halflife}: give a positive number of images.")
        self.halflife, self.start = halflife, start

    def __call__(self, images_seen: int) -> float:
        return self.start * 0.5 ** (images_seen / self.halflife)


class WarmUp(Schedule):
    """`then`, multiplied by a factor that rises linearly from 0 to 1 over the first `images`."""

    def __init__(self, images: int, then: float | Schedule = 1.0) -> None:
        self.factor, self.then = Linear(0.0, 1.0, images), then

    def __call__(self, images_seen: int) -> float:
        return self.factor(images_seen) * value_at(self.then, images_seen)
