"""Checks of single numbers among the options of networks, data, callbacks and recipes."""

from __future__ import annotations


def check_counts(section: str = "", *, least: int = 1, **counts: float) -> None:
    """Raises a ValueError if one of these numbers, of a section of recipes, is below `least` or NaN."""
    for name, count in counts.items():
        if not count >= least:
            raise ValueError(f"{section}{name} is {count}: give at least {least}.")


def check_seed(seed: int) -> None:
    """Raises ValueError if numpy and torch take no such seed."""
    if not 0 <= seed < 2**32:
        raise ValueError(f"The seed is {seed}: give an integer from 0 to {2**32 - 1:,}.")
