"""The geometry of the report's plots: numbers in, coordinates and labels out. The template only writes them as SVG."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

WIDTH = 560
HEIGHT = 300
LEFT, RIGHT, TOP, BOTTOM = 48, 16, 16, 40
PLOT_WIDTH = WIDTH - LEFT - RIGHT
PLOT_HEIGHT = HEIGHT - TOP - BOTTOM
STRIP_LEAST = 0.1


@dataclass(frozen=True, slots=True)
class AxisTick:
    """A mark on an axis: where, in units of the drawing, and what stands there."""

    at: float
    label: str


@dataclass(frozen=True, slots=True)
class Bar:
    """One bar of a histogram; `label` stands below it and `value` above, `level` is how grave it is (0..2)."""

    x: float
    y: float
    width: float
    height: float
    label: str
    value: str
    level: int = 0


@dataclass(frozen=True, slots=True)
class Dot:
    """One point of a plot; `title` is shown when it is pointed at, `label` (often empty) beside it, `level` (0..2) says which
    of three kinds it is."""

    x: float
    y: float
    title: str
    level: int
    label: str = ""
    label_end: bool = False


@dataclass(frozen=True, slots=True)
class Chart:
    """A plot of one kind: `bars`, or `dots` (all over or in `strips`, of which the upper edges are given), or the `line` and
    `area` of a series with its `marks`; and its axes."""

    x_ticks: tuple[AxisTick, ...] = ()
    y_ticks: tuple[AxisTick, ...] = ()
    bars: tuple[Bar, ...] = ()
    dots: tuple[Dot, ...] = ()
    strips: tuple[AxisTick, ...] = ()
    line: str = ""
    area: str = ""
    marks: tuple[AxisTick, ...] = ()


@dataclass(frozen=True, slots=True)
class StripValue:
    """What a point in one of several strips stands for; `x` is drawn on a logarithmic axis from `STRIP_LEAST` on."""

    strip: str
    x: float
    title: str
    level: int


@dataclass(frozen=True, slots=True)
class DotValue:
    """What a point of a scatter plot stands for; both values at least 0, and drawn from 1 on, for the axes are logarithmic."""

    x: float
    y: float
    title: str
    marked: bool
    name: str


def histogram(values: Sequence[int], labels: Sequence[str], levels: Sequence[int]) -> Chart:
    """Bars of the given heights side by side, on a scale of square roots, so that small ones can be told from none."""
    top = nice_ceiling(max(values, default=0))
    step = PLOT_WIDTH / max(1, len(values))
    bars = []
    for index, (value, label, level) in enumerate(zip(values, labels, levels, strict=True)):
        height = PLOT_HEIGHT * math.sqrt(value / top)
        bars.append(
            Bar(
                x=_round(LEFT + index * step + step * 0.12),
                y=_round(TOP + PLOT_HEIGHT - height),
                width=_round(step * 0.76),
                height=_round(height),
                label=label,
                value=f"{value:,}",
                level=level,
            )
        )
    y_ticks = tuple(
        AxisTick(_round(TOP + PLOT_HEIGHT * (1 - math.sqrt(part))), f"{top * part:,.0f}")
        for part in (0.0, 0.1, 0.4, 1.0)
    )
    return Chart(bars=tuple(bars), y_ticks=y_ticks if top >= 10 else ())


def scatter(values: Sequence[DotValue], *, labelled: int = 6) -> Chart:
    """Points on two logarithmic axes; at most `labelled` of the highest and furthest have their names beside them."""
    x_decades = _decades([one.x for one in values])
    y_decades = _decades([one.y for one in values])

    def x_of(value: float) -> float:
        return _round(LEFT + PLOT_WIDTH * math.log10(max(1.0, value)) / x_decades)

    def y_of(value: float) -> float:
        return _round(TOP + PLOT_HEIGHT * (1 - math.log10(max(1.0, value)) / y_decades))

    named: set[int] = set()
    taken: list[tuple[float, float]] = []
    highest = sorted(range(len(values)), key=lambda one: (-values[one].y, values[one].title))[: labelled // 2]
    furthest = sorted(range(len(values)), key=lambda one: (-values[one].x, values[one].title))[: 2 * labelled]
    for index in (*highest, *furthest):
        x, y = x_of(values[index].x), y_of(values[index].y)
        if len(named) < labelled and all(abs(y - other_y) > 14 or abs(x - other_x) > 140 for other_x, other_y in taken):
            named.add(index)
            taken.append((x, y))
    dots = tuple(
        Dot(
            x=x_of(one.x),
            y=y_of(one.y),
            title=one.title,
            level=int(one.marked),
            label=one.name if index in named else "",
            label_end=x_of(one.x) > LEFT + PLOT_WIDTH * 0.75,
        )
        for index, one in enumerate(values)
    )
    return Chart(
        dots=dots,
        x_ticks=tuple(AxisTick(x_of(10**power), f"{10**power:,}") for power in range(int(x_decades) + 1)),
        y_ticks=tuple(AxisTick(y_of(10**power), f"{10**power:,}") for power in range(int(y_decades) + 1)),
    )


def strips(values: Sequence[StripValue]) -> Chart:
    """Points in strips, one above the other by name, on one logarithmic axis; a point of a higher level is lower in its strip."""
    names = sorted({one.strip for one in values})
    step = PLOT_HEIGHT / max(1, len(names))
    tops = {name: TOP + index * step for index, name in enumerate(names)}
    decades = _decades([one.x / STRIP_LEAST for one in values])

    def x_of(value: float) -> float:
        return _round(LEFT + PLOT_WIDTH * math.log10(max(1.0, value / STRIP_LEAST)) / decades)

    dots = tuple(
        Dot(
            x=x_of(one.x), y=_round(tops[one.strip] + step * (0.45 + 0.2 * one.level)), title=one.title, level=one.level
        )
        for one in values
    )
    steps = [STRIP_LEAST * 10**power for power in range(int(decades) + 1)]
    return Chart(
        dots=dots,
        strips=tuple(AxisTick(_round(top), name) for name, top in tops.items()),
        x_ticks=tuple(AxisTick(x_of(value), f"{value:,g}") for value in steps),
    )


def timeline(counts: Sequence[int], bucket_s: float, incidents: Sequence[tuple[float, str]]) -> Chart:
    """Tasks finished per second, from their numbers in buckets of `bucket_s` seconds, with a mark for each incident."""
    buckets = len(counts)
    end_s = buckets * bucket_s
    rates = [count / bucket_s for count in counts]
    top = nice_ceiling(max(rates))

    def x_of(at_s: float) -> float:
        return _round(LEFT + PLOT_WIDTH * min(1.0, max(0.0, at_s / end_s)))

    points = [
        (x_of((index + 0.5) * end_s / buckets), _round(TOP + PLOT_HEIGHT * (1 - rate / top)))
        for index, rate in enumerate(rates)
    ]
    points = [(float(LEFT), points[0][1]), *points, (float(LEFT + PLOT_WIDTH), points[-1][1])]
    line = " ".join(f"{'L' if index else 'M'}{x:g} {y:g}" for index, (x, y) in enumerate(points))
    base = TOP + PLOT_HEIGHT
    step = nice_ceiling(end_s / 6)
    return Chart(
        line=line,
        area=f"{line} L{LEFT + PLOT_WIDTH} {base} L{LEFT} {base} Z",
        x_ticks=tuple(AxisTick(x_of(n * step), f"{n * step:g} s") for n in range(int(end_s / step) + 1)),
        y_ticks=tuple(
            AxisTick(_round(TOP + PLOT_HEIGHT * (1 - part)), f"{top * part:,.0f}")
            for part in (0.0, 0.25, 0.5, 0.75, 1.0)
        ),
        marks=tuple(AxisTick(x_of(at_s), text) for at_s, text in incidents),
    )


def nice_ceiling(value: float) -> float:
    """The least of 1, 2, 2.5 or 5 times a power of ten that is not below `value`; 1 for next to nothing."""
    if value < 1e-9:
        return 1.0
    power = 10.0 ** math.floor(math.log10(value))
    for factor in (1.0, 2.0, 2.5, 5.0, 10.0):
        if factor * power >= value:
            return factor * power
    return 10.0 * power


def _decades(values: Sequence[float]) -> float:
    """How many powers of ten an axis spans: at least one, and a little more than the largest value needs."""
    return max(1.0, math.log10(max(1.0, *values, 1.0)) * 1.04)


def _round(value: float) -> float:
    return round(value, 1)
