"""A task that the cell has forgotten, put together again from its own events in the journal."""

from __future__ import annotations

from collections.abc import Iterable

from merit.core.apply import apply
from merit.core.state import Payloads, State
from merit.model.events import (
    AttemptAssigned,
    AttemptFailed,
    AuditAnswered,
    AuditStarted,
    Event,
    ResultJudged,
    ScheduleFired,
    TaskCompleted,
    TaskReleased,
    TaskSubmitted,
    WorkerReserved,
)
from merit.model.tasks import Task, TaskState
from merit.model.workers import Worker, WorkerState

_ALL = 2**62
"""Nothing of a single task is forgotten."""


class NotRemembered(Exception):
    """There never was such a task, or it is forgotten; the message says what is known of that."""


class Recollection:
    """Folds the events of single tasks, in order, whatever else the journal holds.

    A task's fold needs its workers to be there and its dependencies to count as done; both are supplied. Each has a
    state of its own: in a common one they would stand in each other's way in the queues, where they come in the order
    of what they depend on.
    """

    def __init__(self) -> None:
        self._states: dict[str, State] = {}

    def take(self, event: Event, payloads: Payloads, time_ns: int) -> None:
        """One event of one of the tasks; its ``TaskSubmitted`` has to come first."""
        name: str = event.task  # type: ignore[attr-defined]  # only events of tasks are given
        if isinstance(event, TaskSubmitted):
            self._states[name] = State(
                finals_max=_ALL,
                finals_bytes_max=_ALL,
                dead_letters_max=_ALL,
                dead_letters_bytes_max=_ALL,
                keys_max=_ALL,
                keys_ns=_ALL,
            )
        state = self._states.get(name)
        if state is None or isinstance(event, (ScheduleFired, WorkerReserved, AuditAnswered, ResultJudged)):
            return  # it names the task, and is about something else
        if isinstance(event, AttemptAssigned) and event.worker not in state.workers:
            state.workers[event.worker] = Worker(event.worker, "", "", (), 1, (), 0, WorkerState.ACTIVE, {})
        if isinstance(event, TaskReleased) and state.tasks[name].state is not TaskState.WAITING:
            return
        apply(state, event, payloads, time_ns)

    def tasks(self) -> Iterable[Task]:
        """The tasks as they are after what was taken."""
        return [task for state in self._states.values() for task in state.tasks.values()]


def contents_at(task: Task) -> set[int]:
    """The times of the records in which a final task's contents are."""
    return {task.submitted_ns, task.ended_ns, *(attempt.ended_ns for attempt in task.attempts)} - {0}


def give_back(task: Task, event: Event, payloads: Payloads) -> None:
    """Give a final task the contents that one of its events has."""
    if isinstance(event, TaskSubmitted):
        task.parameters = payloads.get(event.parameters, b"")
        return
    attempt = task.attempt(event.number) if isinstance(event, (TaskCompleted, AttemptFailed, AuditStarted)) else None
    if attempt is not None and event.trail:  # type: ignore[attr-defined]  # all of these have one
        attempt.trail = payloads.get(event.trail, b"")  # type: ignore[attr-defined]  # as before
    if isinstance(event, TaskCompleted):
        task.result = payloads.get(event.result, b"")
