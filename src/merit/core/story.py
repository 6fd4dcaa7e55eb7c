"""The history of one id, for people: from a task's own record, or from the journal's events."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from enum import IntEnum
from typing import Any

import msgspec

from merit.model.events import Event
from merit.model.limits import SECOND_NS
from merit.model.tasks import Task


def story_of_task(task: Task) -> list[str]:
    """What the task itself remembers, a line a step; times in seconds since it was submitted."""

    def at(time_ns: int) -> str:
        return f"{(time_ns - task.submitted_ns) / SECOND_NS:+.3f} s"

    lines = [f"+0.000 s submitted by {task.principal} for {task.capability}, {task.priority.name}"]
    for attempt in task.attempts:
        step = f"attempt {attempt.number} on {attempt.worker}"
        lines.append(f"{at(attempt.assigned_ns)} {step} assigned")
        if attempt.started_ns:
            lines.append(f"{at(attempt.started_ns)} {step} started")
        if attempt.ended_ns:
            why = f": {attempt.failure.message}" if attempt.failure else ""
            lines.append(f"{at(attempt.ended_ns)} {step} {attempt.state.name}{why}")
    if task.ended_ns:
        why = f": {task.failure.message}" if task.failure else ""
        lines.append(f"{at(task.ended_ns)} {task.state.name}{why}")
    return lines


def story(events: Iterable[tuple[int, int, Event]], about: str) -> Iterator[tuple[int, int, str, dict[str, Any]]]:
    """The events that concern one id (of a task or a worker).

    Args:
        events: sequence, Unix time in nanoseconds and event, in order.
        about: the id.

    Yields:
        sequence, time, name of the event, and its fields (digests in hexadecimal).
    """
    for sequence, time_ns, event in events:
        fields = msgspec.structs.asdict(event)
        if about in (fields.get("task"), fields.get("worker")):
            yield sequence, time_ns, type(event).__name__, plain(fields)


def plain(fields: dict[str, Any]) -> dict[str, Any]:
    """An event's fields as JSON has them: digests in hexadecimal, states by name."""

    def value(item: Any) -> Any:
        if isinstance(item, bytes):
            return item.hex()
        if isinstance(item, IntEnum):
            return item.name
        if isinstance(item, msgspec.Struct):
            return plain(msgspec.structs.asdict(item))
        if isinstance(item, tuple | list):
            return [value(part) for part in item]
        return item

    return {name: value(item) for name, item in fields.items()}
