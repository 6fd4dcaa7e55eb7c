"""What the machine wants done in the world, once the events it came with are durable.

Every effect can be derived from the state again, so that one that was lost in a crash is repeated.
"""

from __future__ import annotations

from msgspec import Struct

from merit.model.frames import Assignment, AttemptRef
from merit.model.schedules import Schedule


class Effect(Struct, frozen=True, gc=False):
    """Base of all effects."""


class SendAssignment(Effect, frozen=True):
    """Hand an attempt to its worker."""

    worker: str
    assignment: Assignment


class SendCancel(Effect, frozen=True):
    """Tell a worker that an attempt is over."""

    worker: str
    attempt: AttemptRef


class TellSettled(Effect, frozen=True):
    """Tell whoever watches the task that it has come to its end."""

    task: str


class SendDrain(Effect, frozen=True):
    """Tell a worker to finish what it holds, and leave."""

    worker: str


class SendWords(Effect, frozen=True):
    """Tell a worker commands of an operator."""

    worker: str
    words: tuple[str, ...]


class CloseWorker(Effect, frozen=True):
    """End the worker's stream of this session, saying why."""

    worker: str
    boot: str
    session: int
    reason: str
    permanent: bool = False


class WorkOutTimes(Effect, frozen=True):
    """Find out when the schedule is due next, after ``after_ns``, and say it by ``PlanSchedule``."""

    schedule: Schedule
    after_ns: int


class TellKnown(Effect, frozen=True):
    """Tell whoever submitted ``task`` that ``known`` is the task with its idempotency key."""

    task: str
    known: str
