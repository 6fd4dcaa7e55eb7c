"""Tasks that come again and again."""

from __future__ import annotations

from enum import IntEnum

from msgspec import Struct

from merit.model.tasks import TaskSpec


class Missed(IntEnum):
    """What becomes of times that passed while nobody was there; the numbers are those of the wire."""

    SKIP = 1
    ONE = 2
    """One task for all of them."""
    ALL = 3
    """A task for each, up to ``SCHEDULE_TIMES_MAX``."""


class Overlap(IntEnum):
    """What becomes of a time that comes while a task of the schedule is not final; the numbers are those of the wire."""

    SKIP = 1
    ALLOW = 2
    CANCEL = 3
    """The one before is called off."""


class Schedule(Struct, frozen=True, array_like=True, gc=False):
    """When which task is to be made. ``template`` is the task, without an id of its own."""

    name: str
    tenant: str
    cron: str
    """Five fields, as in crontab(5), or six with seconds first."""
    zone: str
    """Of the IANA database, such as Europe/Berlin."""
    template: TaskSpec
    missed: Missed = Missed.ONE
    overlap: Overlap = Overlap.SKIP
    paused: bool = False


class Planned(Struct, array_like=True, gc=False):
    """A schedule and where it is. Only :mod:`merit.core.apply` changes one."""

    schedule: Schedule
    since_ns: int
    """From when on its times count: when it was set, or the last one that was dealt with."""
    times_ns: tuple[int, ...] = ()
    """The next ones, in order; empty until the shell has worked them out."""
    last: str = ""
    """The task that it made last."""
    made: int = 0
    passed_over: int = 0
