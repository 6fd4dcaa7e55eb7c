"""Curves over time, drawn with letters: on a terminal and in a file alike."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import ceil, floor
from typing import Final

from msgspec import Struct

Curve = Sequence[tuple[float, float]]
"""Points in the order of time: when, and how much from then on."""

WIDTH: Final = 72
HEIGHT: Final = 11
SHARED: Final = "•"
"""Where several curves are the same."""


class Axis(Struct, frozen=True):
    """What a plot is drawn along."""

    low: float
    high: float
    unit: str = ""


def plot(curves: Mapping[str, Curve], over: Axis, up: Axis, width: int = WIDTH, height: int = HEIGHT) -> list[str]:
    """Lines of a plot, the axes with it.

    Args:
        curves: by the letter that each is drawn with. What is out of bounds is drawn at the edge.
        over: time, from left to right.
        up: figures, from bottom to top.
        width: columns of the plot, axis apart.
        height: its lines, axis apart.
    """
    cells = [[" "] * width for _ in range(height)]
    for letter, curve in curves.items():
        for column in range(width):
            value = _at(curve, over.low + (over.high - over.low) * column / max(1, width - 1))
            if value is None:
                continue
            share = (value - up.low) / ((up.high - up.low) or 1)
            row = cells[height - 1 - round(max(0.0, min(share, 1.0)) * (height - 1))]
            row[column] = letter if row[column] in {" ", letter} else SHARED
    labels = [_label(up.low + (up.high - up.low) * (height - 1 - line) / max(1, height - 1)) for line in range(height)]
    margin = max(map(len, labels))
    shown = {0, height // 2, height - 1}
    lines = [
        f"{labels[line] if line in shown else '':>{margin}} {'┤' if line in shown else '│'}{''.join(row).rstrip()}"
        for line, row in enumerate(cells)
    ]
    first, last = _label(over.low), f"{_label(over.high)} {over.unit}".rstrip()
    return [
        *lines,
        f"{'':>{margin}} └{'─' * width}",
        f"{'':>{margin}}  {first}{last:>{max(1, width - len(first))}}",
    ]


def around(curves: Mapping[str, Curve], step: float) -> Axis:
    """An axis from bottom to top on which all figures have room, between multiples of a step."""
    figures = [figure for curve in curves.values() for _, figure in curve]
    if not figures:
        return Axis(0, step)
    low, high = floor(min(figures) / step), ceil(max(figures) / step)
    return Axis(low * step, max(high, low + 1) * step)


def _at(curve: Curve, when: float) -> float | None:
    """The figure that held then."""
    held = None
    for at, value in curve:
        if at > when:
            break
        held = value
    return held


def _label(value: float) -> str:
    return f"{value:.2f}".rstrip("0").rstrip(".")
