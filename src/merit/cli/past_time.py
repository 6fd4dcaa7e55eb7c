"""What a moment of the past is on the command line: a time of day, a date and time, a duration ago, an event."""

from __future__ import annotations

import re
from datetime import UTC, datetime, time, timedelta, tzinfo
from typing import Any, Final

import click

from merit.cli.values import seconds_of

_TIME_OF_DAY: Final = re.compile(r"\d{1,2}:\d{2}(?::\d{2}(?:\.\d{1,6})?)?", re.ASCII)
_AGO: Final = re.compile(r"-(?=[\d.])(?P<length>.+)", re.ASCII)
_EVENT: Final = re.compile(r"#(?P<sequence>\d{1,18})", re.ASCII)
EXAMPLES: Final = (
    "14:03, 14:03:05, 2026-11-20T14:03, 2026-11-20T14:03:05Z, -10m (ten minutes ago), or '#1234' (after that event)"
)


def past_time(text: str, present: datetime, zone: tzinfo | None = None) -> datetime | int:
    """What the text means: a moment, or the sequence of an event.

    Args:
        text: see ``EXAMPLES``.
        present: with its time zone.
        zone: of times that do not say theirs; None: that of this machine.

    Raises:
        ValueError: it means nothing, or is still to come; the message is for the user.
    """
    if event := _EVENT.fullmatch(text):
        return int(event["sequence"])
    try:
        moment = _moment(text, present, zone)
    except (ValueError, OverflowError):
        raise ValueError(f"{text!r} is no moment of the past, such as {EXAMPLES}") from None
    if moment > present:
        raise ValueError(f"{text} is still to come; it is {present.astimezone(zone).isoformat(timespec='seconds')} now")
    return moment


def _moment(text: str, present: datetime, zone: tzinfo | None) -> datetime:
    if ago := _AGO.fullmatch(text):
        seconds = seconds_of(ago["length"])
        if seconds is None:
            raise ValueError(text)
        return present - timedelta(seconds=seconds)
    if _TIME_OF_DAY.fullmatch(text):
        return _last_time(time.fromisoformat(text.zfill(len(text) + (text.index(":") == 1))), present, zone)
    moment = datetime.fromisoformat(text)
    return (moment if moment.tzinfo is not None else _in_zone(moment, zone)).astimezone(UTC)


def _last_time(of_day: time, present: datetime, zone: tzinfo | None) -> datetime:
    """When it was this time of day last. Where clocks are set back a time comes twice on a day, and counts as the later one
    once that has come."""
    today = present.astimezone(zone).date()
    candidates = (
        _in_zone(datetime.combine(day, of_day.replace(fold=fold)), zone).astimezone(UTC)
        for day in (today, today - timedelta(days=1))
        for fold in (1, 0)
    )
    return max(moment for moment in candidates if moment <= present)


def _in_zone(moment: datetime, zone: tzinfo | None) -> datetime:
    # Without a zone of its own, astimezone takes it for one of this machine, with the offset that held on that day.
    return moment.replace(tzinfo=zone) if zone is not None else moment.astimezone()


class PastTime(click.ParamType):  # type: ignore[type-arg]  # older versions of click cannot be subscripted
    """A moment of the past, or the sequence of an event."""

    name = "TIME"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> datetime | int:
        if not isinstance(value, str):
            return value  # type: ignore[no-any-return]  # it has been converted already
        try:
            return past_time(value, datetime.now(UTC))
        except ValueError as error:
            self.fail(str(error), param, ctx)
