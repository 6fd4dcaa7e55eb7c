"""Where a worker is in its life, as people see it: from what the journal knows of it and what this process sees."""

from __future__ import annotations

from enum import IntEnum

from merit.core.desk import Seat
from merit.model.workers import Profile, Worker, WorkerState

BEATS_MISSED = 2
"""Silence of more beats than this is suspicious; it is lost much later (``Limits.stale_ns``)."""


class Standing(IntEnum):
    """A step of a worker's life; the numbers are those of the wire."""

    JOINING = 1
    """It has said what it is, and not yet that it takes anything."""
    PROBATION = 2
    """Tried with small known tasks."""
    IDLE = 3
    BUSY = 4
    DRAINING = 5
    """Finishes what it holds, and leaves."""
    GONE = 6
    SUSPECT = 7
    """Its stream broke, or it is silent for longer than it should be. It may come back, and keeps what it has till then."""
    PAUSED = 8
    """Gets nothing until it is resumed."""
    DEACTIVATED = 9
    """Removed: it may not join until it is resumed."""


_BY_STATE = {
    WorkerState.DRAINING: Standing.DRAINING,
    WorkerState.PROBATION: Standing.PROBATION,
    WorkerState.PAUSED: Standing.PAUSED,
    WorkerState.GONE: Standing.GONE,
}


def standing(
    worker: Worker | None,
    profile: Profile | None,
    seat: Seat | None,
    now_ns: int,
    heard_ns: int,
    beat_ns: int,
    stale_ns: int,
) -> Standing:
    """Where a worker is in its life.

    Args:
        worker: as the journal knows it while it is here.
        profile: what is kept of it.
        seat: as this process sees it.
        now_ns: Unix time.
        heard_ns: from when on this process could hear it: the end of a grace, or of its own sleep.
        beat_ns: how often a worker has to say something.
        stale_ns: for how long it may say nothing until it is lost, and a newcomer until it has come.
    """
    if profile is not None and profile.removed:
        return Standing.DEACTIVATED
    if worker is None:
        comes = profile is not None and _is_new(profile) and now_ns <= max(profile.first_ns, heard_ns) + stale_ns
        return Standing.JOINING if comes else Standing.GONE
    if seat is None or not seat.attached or now_ns > max(seat.seen_ns, heard_ns) + BEATS_MISSED * beat_ns:
        return Standing.SUSPECT
    if worker.state is not WorkerState.ACTIVE:
        return _BY_STATE[worker.state]
    if worker.attempts:
        return Standing.BUSY
    return Standing.IDLE if seat.granted else Standing.JOINING


def _is_new(profile: Profile) -> bool:
    """Whether it has registered and done nothing yet: it waits to be dialled."""
    return profile.registration is not None and not (profile.completed or profile.failed or profile.admitted)
