"""Medians and spread of what was measured more than once. Pure."""

from __future__ import annotations

import statistics
from typing import Any, Final

Measured = dict[str, Any]
FIGURE: Final = {"median", "least", "most"}


def summary(turns: list[Measured]) -> Measured:
    """Return the medians of all figures, and of each how far it was spread; what is no figure, as it was in all turns.

    Shape: each figure is {"median", "least", "most"}; dictionaries keep their keys; what differs from turn to turn and
    is no figure becomes a list.
    """
    found: Measured = {}
    for name in dict.fromkeys(name for turn in turns for name in turn):
        values = [turn[name] for turn in turns if name in turn]
        first = values[0]
        if isinstance(first, dict):
            found[name] = summary(values)
        elif isinstance(first, int | float) and not isinstance(first, bool):
            found[name] = {"median": statistics.median(values), "least": min(values), "most": max(values)}
        else:
            found[name] = first if all(value == first for value in values) else values
    return found


def median(figure: object) -> float:
    """Return the figure, or of many its median."""
    value = figure["median"] if isinstance(figure, dict) else figure
    if not isinstance(value, int | float):
        raise TypeError(f"{figure!r} is no figure")
    return float(value)
