"""Who is told of every step of which task. Soft: steps may be left out. What is told is what was known when the step
was taken, and it waits for that to be durable like everything else."""

from __future__ import annotations

from collections.abc import Iterable

from merit.core.desk import Desk
from merit.model.events import Event
from merit.model.frames import Update
from merit.model.tasks import Progress, Task
from merit.session.server_end import ServerEnd

Told = list[tuple[ServerEnd, Update]]
"""Whom to tell what."""


class Followers:
    """By task: the clients' streams that follow it, and the other way round."""

    def __init__(self) -> None:
        self._by_task: dict[str, dict[ServerEnd, None]] = {}
        self._by_end: dict[ServerEnd, dict[str, None]] = {}

    def __bool__(self) -> bool:
        return bool(self._by_task)

    def __contains__(self, task_id: object) -> bool:
        return task_id in self._by_task

    def follow(self, desk: Desk, task: Task, end: ServerEnd) -> Update:
        """``end`` is told of each step from here on; where the task is now."""
        if not task.state.final and not end.closing:
            self._by_task.setdefault(task.id, {})[end] = None
            self._by_end.setdefault(end, {})[task.id] = None
        return step(desk, task)

    def gone(self, end: ServerEnd) -> None:
        """Its stream has ended."""
        for task_id in self._by_end.pop(end, ()):
            ends = self._by_task[task_id]
            del ends[end]
            if not ends:
                del self._by_task[task_id]

    def steps(self, desk: Desk, events: Iterable[Event]) -> Told:
        """What these events mean to those who follow their tasks."""
        by_task = self._by_task
        moved = dict.fromkeys(task_id for event in events if (task_id := getattr(event, "task", "")) in by_task)
        return [told for task_id in moved for told in self.tell(desk, task_id)]

    def tell(self, desk: Desk, task_id: str, note: Progress | None = None) -> Told:
        """Where a followed task is; with a note on the progress of its attempt that has just come."""
        ends = self._by_task.get(task_id)
        task = desk.state.tasks.get(task_id)
        if ends is None:
            return []
        # A task that was forgotten in the moment in which it ended takes no more steps.
        told = [(end, step(desk, task, note)) for end in ends] if task is not None else []
        if task is None or task.state.final:
            for end in self._by_task.pop(task_id):
                del self._by_end[end][task_id]
        return told


def step(desk: Desk, task: Task, note: Progress | None = None) -> Update:
    """Where a task is."""
    attempt = task.attempts[-1] if task.attempts else None
    known = note or desk.progress.get(task.id)
    if attempt is None:
        return Update(task.id, task.state)
    if known is None or known.number != attempt.number:
        return Update(task.id, task.state, attempt.number, attempt.worker)
    log = note.log if note is not None else ()
    return Update(task.id, task.state, attempt.number, attempt.worker, known.fraction, known.message, log)
