"""When a schedule is due: cron expressions in time zones.

The library is cronsim, which keeps to Debian's cron also where clocks are changed: what is to happen at a certain time
happens once a day, in the first of two hours that are the same, and after a gap if its time is in it; what happens
every so often goes on happening so often.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta
from itertools import islice
from typing import Final
from zoneinfo import ZoneInfo

from cronsim import CronSim, CronSimError

from merit.model.limits import NAME_LENGTH_MAX, SCHEDULE_TIMES_MAX, SECOND_NS
from merit.model.schedules import Missed, Schedule

AHEAD: Final = 4
"""Times to come that are worked out at once: a schedule goes on for so long when nobody can work out more."""
_SECOND: Final = timedelta(seconds=1)
_DAY: Final = timedelta(days=1)


def plan(schedule: Schedule, after_ns: int, now_ns: int) -> tuple[int, ...]:
    """The times of a schedule, in order: those after ``after_ns`` that were missed and count, then the next ones.

    Of the missed ones the last counts, or the last ``SCHEDULE_TIMES_MAX`` if all are to be made up for; of those that
    come after ``now_ns``, ``AHEAD``, or fewer if there are no more within 50 years.

    Raises:
        ValueError: the expression or the time zone cannot be; it begins with the name of the field.
    """
    cron, zone = schedule.cron, _zone(schedule.zone)
    count_max = SCHEDULE_TIMES_MAX if schedule.missed is Missed.ALL else 1
    missed = list(islice(_back(cron, zone, now_ns, after_ns), count_max))
    return (*reversed(missed), *islice(_on(cron, zone, max(now_ns, after_ns)), AHEAD))


def next_times(cron: str, zone: str, now_ns: int) -> tuple[int, ...]:
    """The next times of an expression, ``AHEAD`` of them at most.

    Raises:
        ValueError: as ``plan``, and when it never comes.
    """
    times = tuple(islice(_on(cron, _zone(zone), now_ns), AHEAD))
    if not times:
        raise ValueError(f"cron: {cron!r} does not come within 50 years")
    return times


def _on(cron: str, zone: ZoneInfo, after_ns: int) -> Iterator[int]:
    """The times after ``after_ns``, in order."""
    for time in _simulated(cron, _local(after_ns, zone)):
        time_ns = _unix_ns(time)
        # In the second of two hours that are the same, the library goes by the clock on the wall and begins with the
        # first. The clocks having been set back is also why times could come in disorder.
        if time_ns > after_ns:
            yield time_ns
            after_ns = time_ns


def _back(cron: str, zone: ZoneInfo, now_ns: int, after_ns: int) -> Iterator[int]:
    """The times up to ``now_ns`` and after ``after_ns``, the last one first."""
    now = _local(now_ns, zone)
    # Where the clocks were set back lately, a time that has passed may be later by the clock on the wall.
    set_back = _offset(now - _DAY) - _offset(now)
    start = _local(now_ns + max(0, int(set_back.total_seconds())) * SECOND_NS, zone) + _SECOND
    before_ns = now_ns + 1
    for time in _simulated(cron, start, reverse=True):
        time_ns = _unix_ns(time)
        if time_ns <= after_ns:
            return
        if time_ns < before_ns:
            yield time_ns
            before_ns = time_ns


def _simulated(cron: str, start: datetime, *, reverse: bool = False) -> Iterator[datetime]:
    if len(cron) > NAME_LENGTH_MAX:
        raise ValueError(f"cron: has {len(cron):,} characters; {NAME_LENGTH_MAX} at most")
    try:
        return CronSim(cron, start, reverse=reverse)
    except CronSimError as error:
        raise ValueError(
            f"cron: {str(error).lower()} in {cron!r}; five fields as in crontab(5), or six with seconds first"
        ) from None


def _zone(name: str) -> ZoneInfo:
    try:
        if len(name) > NAME_LENGTH_MAX:
            raise ValueError("too long")
        return ZoneInfo(name)
    except (KeyError, ValueError, OSError):  # no such file; not a path below the database; a folder of it
        shown = name[:NAME_LENGTH_MAX]
        raise ValueError(f"zone: {shown!r} is no time zone of the IANA database, such as Europe/Berlin") from None


def _local(time_ns: int, zone: ZoneInfo) -> datetime:
    return datetime.fromtimestamp(time_ns // SECOND_NS, zone)


def _offset(time: datetime) -> timedelta:
    return time.utcoffset() or timedelta()


def _unix_ns(time: datetime) -> int:
    return int(time.timestamp()) * SECOND_NS
