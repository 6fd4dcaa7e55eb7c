"""What a benchmark comes to: figures, some with a bar to reach."""

from __future__ import annotations

from collections.abc import Sequence
from math import isfinite
from typing import Any, Final

from msgspec import Struct
from msgspec.structs import replace

_DIGITS: Final = 4


class Figure(Struct, frozen=True):
    """A measured value. ``floor`` and ``ceiling`` are its bar, from below or from above; most have at most one."""

    name: str
    value: float
    unit: str
    floor: float | None = None
    ceiling: float | None = None

    @property
    def bar(self) -> float | None:
        """What the value has to reach, or to stay below; None for a figure that only informs."""
        return self.floor if self.floor is not None else self.ceiling

    @property
    def ok(self) -> bool | None:
        """Whether the bar is met; None without one."""
        if self.floor is not None:
            return self.value >= self.floor
        return self.value <= self.ceiling if self.ceiling is not None else None

    def of(self, benchmark: str) -> Figure:
        """The same, with the benchmark's name before its own."""
        return replace(self, name=f"{benchmark}.{self.name}")

    def view(self) -> dict[str, Any]:
        """As JSON has it."""
        bar = rounded(self.bar) if self.bar is not None else None
        # JSON knows no infinity, which is what "it never came" is here.
        value = rounded(self.value) if isfinite(self.value) else None
        return {"name": self.name, "value": value, "unit": self.unit, "bar": bar, "ok": self.ok}


def percentile(values: Sequence[float], share: float) -> float:
    """The value below which ``share`` (0 to 1) of the values lie; nearest rank. NaN for none."""
    if not values:
        return float("nan")
    ranked = sorted(values)
    return ranked[min(len(ranked) - 1, int(share * len(ranked)))]


def median(values: Sequence[float]) -> float:
    """The middle one; NaN for none."""
    return percentile(values, 0.5)


def rounded(value: float) -> float:
    """To as many digits as such a measurement is worth; whole numbers stay whole."""
    if isinstance(value, int) or abs(value) >= 10**_DIGITS:
        return round(value)
    return float(f"{value:.{_DIGITS}g}")
