"""The history of one id, for people: from a task's own record, or from the journal's events."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from enum import IntEnum
from operator import itemgetter
from typing import Any

import msgspec

from merit.model.events import AuditAnswered, AuditStarted, Event, ResultJudged
from merit.model.limits import SECOND_NS
from merit.model.tasks import AttemptState, ReviewKind, Task, TaskState

_ASKED = {
    ReviewKind.COPY: ", as a copy of task {of}",
    ReviewKind.JUDGE: ", as a judge of the result of task {of}",
    ReviewKind.GOLD: ", to look at its worker",
}


def story_of_task(task: Task, events: Iterable[tuple[int, Event]] = ()) -> list[str]:
    """What the task itself remembers, a line a step; times in seconds since it was submitted.

    Args:
        task: as it is now.
        events: of its life, each with its time, if they are known: what others said of its results stands in them alone.
    """
    review = task.terms.review if task.terms is not None else None
    asked = "" if review is None else _ASKED[review.kind].format(of=review.of)
    submitted = f"submitted by {task.principal} for {task.capability}, {task.priority.name}{asked}"
    steps = [(task.submitted_ns, submitted)]
    for attempt in task.attempts:
        step = f"attempt {attempt.number} on {attempt.worker}"
        steps.append((attempt.assigned_ns, f"{step} assigned"))
        if attempt.started_ns:
            steps.append((attempt.started_ns, f"{step} started"))
        if attempt.ended_ns:
            why = f": {attempt.failure.message}" if attempt.failure else ""
            steps.append((attempt.ended_ns, f"{step} {attempt.state.name}{why}"))
    said = [(time_ns, line) for time_ns, event in events if (line := _said(event))]
    if said:
        steps = sorted([*steps, *said], key=itemgetter(0))
    if task.ended_ns:
        why = f": {task.failure.message}" if task.failure else _looked_at(task)
        steps.append((task.ended_ns, f"{task.state.name}{why}"))
    return [f"{(time_ns - task.submitted_ns) / SECOND_NS:+.3f} s {step}" for time_ns, step in steps]


def _said(event: Event) -> str:
    """What others have to do with a result of the task, in words; empty: nothing."""
    if isinstance(event, AuditStarted):
        return f"others are asked about the result of attempt {event.number}"
    if isinstance(event, AuditAnswered):
        return f"{event.worker or 'nobody'} has answered (task {event.review})"
    if isinstance(event, ResultJudged):
        return f"{event.worker} is {'right' if event.right else 'wrong'}, by {event.how}: {event.reason}"
    return ""


def _looked_at(task: Task) -> str:
    """Whose result it is, where others were asked whether it is right."""
    if task.state is not TaskState.COMPLETED:
        return ""
    own = [attempt for attempt in task.attempts if attempt.state is AttemptState.COMPLETED]
    if not own:
        return " with the answer of another worker"
    return "" if own[0].ended_ns == task.ended_ns else " after others were asked whether the result is right"


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
