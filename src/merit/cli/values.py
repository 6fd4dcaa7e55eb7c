"""What words on the command line mean: durations, moments, rates, pairs, resources; and how some of them are shown."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import Any, Final, TypeVar

import click

from merit.cli.present import now

Value = TypeVar("Value")

_UNITS_S: Final = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3_600.0, "d": 86_400.0}
_PART: Final = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d)", re.ASCII)
_DURATION: Final = re.compile(rf"(?:{_PART.pattern})+", re.ASCII)
_RATE_HZ_MIN: Final = 0.001


class Duration(click.ParamType):  # type: ignore[type-arg]  # older versions of click cannot be subscripted
    """Seconds above 0: a plain number, or one with units, such as 500ms, 30s, 5m, 2h, 1d, 1h30m."""

    name = "duration"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        seconds = seconds_of(str(value))
        if seconds is None:
            self.fail(f"{value!r} is no duration, such as 500ms, 30s, 5m, 2h, 1d or a number of seconds", param, ctx)
        if not 0 < seconds < math.inf:
            self.fail(f"{value} is not above 0 and finite", param, ctx)
        return seconds


class Moment(click.ParamType):  # type: ignore[type-arg]  # as above
    """A date and time as in ISO 8601 (without a zone: of this machine), or a duration counted from now.

    Args:
        sign: 1 if a duration leads into the future, -1 if into the past.
    """

    name = "time"

    def __init__(self, sign: int) -> None:
        self._sign = sign

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> datetime:
        if isinstance(value, datetime):
            return value
        seconds = seconds_of(str(value)) if _DURATION.fullmatch(str(value)) else None
        try:
            if seconds is not None:
                return now() + self._sign * timedelta(seconds=seconds)
            return datetime.fromisoformat(str(value)).astimezone()
        except (ValueError, OverflowError):
            side = "from now" if self._sign > 0 else "ago"
            example = "2026-05-01T09:00 or 2026-05-01T09:00Z"
            self.fail(f"{value!r} is no time, such as {example}, or 2h for two hours {side}", param, ctx)


class Rate(click.ParamType):  # type: ignore[type-arg]  # as above
    """How often, in Hertz: N/s, N/m or N/h."""

    name = "N/s|N/m|N/h"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        number, _, unit = str(value).partition("/")
        try:
            rate_hz = float(number) / {"s": 1.0, "m": 60.0, "h": 3_600.0}[unit]
        except (ValueError, KeyError):
            self.fail(f"{value!r} is no rate, such as 5/s, 100/m or 1000/h", param, ctx)
        if not _RATE_HZ_MIN <= rate_hz < math.inf:
            self.fail(f"{value}: from {_RATE_HZ_MIN:g}/s (3.6/h) on", param, ctx)
        return rate_hz


class Pair(click.ParamType):  # type: ignore[type-arg]  # as above
    """``NAME=VALUE``.

    Args:
        left: what is before the sign, for the message.
        right: what is behind it.
    """

    def __init__(self, left: str, right: str) -> None:
        self.name = f"{left}={right}"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, str]:
        if isinstance(value, tuple):
            return value
        left, equals, right = str(value).partition("=")
        if not equals or not left:
            self.fail(f"{value!r} is no {self.name}", param, ctx)
        return left, right


class Quantity(click.ParamType):  # type: ignore[type-arg]  # as above
    """``NAME=AMOUNT`` of a resource: a number of 0 or more, which may have a unit as in 512Mi, 2Gi, 1.5G or 500m."""

    name = "NAME=AMOUNT"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, float]:
        if isinstance(value, tuple):
            return value
        from merit.sdk.amounts import quantity_of  # no line of help needs it

        name, equals, text = str(value).partition("=")
        if not name or not equals:
            self.fail(f"{value!r} is no {self.name}, such as cpu=0.5, memory=512Mi or gpu=1", param, ctx)
        try:
            return name, quantity_of(text)
        except ValueError as error:
            self.fail(f"{name}: {error}", param, ctx)


class Size(click.ParamType):  # type: ignore[type-arg]  # as above
    """Bytes above 0: a plain number, or one with a unit, such as 512Mi, 20Gi or 1.5G; a B may follow."""

    name = "size"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        from merit.sdk.amounts import quantity_of  # no line of help needs it

        try:
            size = quantity_of(str(value).removesuffix("B"))
        except ValueError:
            self.fail(f"{value!r} is no size, such as 512Mi, 20Gi, 1.5G or a number of bytes", param, ctx)
        if size < 1:
            self.fail(f"{value} is less than a byte", param, ctx)
        return int(size)


def distinct(option: str, pairs: Iterable[tuple[str, Value]]) -> dict[str, Value]:
    """What an option that may be repeated was given, by name. Raises ``click.UsageError`` when a name stands twice."""
    found: dict[str, Value] = {}
    for name, value in pairs:
        if name in found:
            raise click.UsageError(f"{option} {name} is given twice")
        found[name] = value
    return found


def seconds_of(text: str) -> float | None:
    """The seconds that a duration has, as ``Duration`` reads it; None: it is none."""
    if _DURATION.fullmatch(text):
        return sum(float(number) * _UNITS_S[unit] for number, unit in _PART.findall(text))
    try:
        return float(text)
    except ValueError:
        return None


def span(seconds: float) -> str:
    """A duration for people, in the two largest units that it has: 18µs, 350ms, 2.5s, 3m20s, 2h5m, 4d."""
    if 0 < seconds < 0.001:
        return f"{seconds * 1e6:.0f}µs"
    if seconds < 1:
        return f"{seconds * 1_000:.0f}ms"
    if seconds < 60:
        return f"{seconds:.1f}".removesuffix(".0") + "s"
    total = round(seconds)
    parts: list[str] = []
    for unit, size in (("d", 86_400), ("h", 3_600), ("m", 60), ("s", 1)):
        count, total = divmod(total, size)
        if count or parts:
            parts.append(f"{count}{unit}" if count else "")
    return "".join(parts[:2])
