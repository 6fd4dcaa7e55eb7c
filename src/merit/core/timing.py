"""When something is due for a task: one timer per task, for whatever comes first."""

from __future__ import annotations

from merit.core.desk import Desk
from merit.model.limits import SECOND_NS
from merit.model.tasks import Attempt, AttemptState, Task, TaskState

_WAITING = TaskState.WAITING
_PENDING = TaskState.PENDING
_AUDITING = TaskState.AUDITING
_ATTEMPT_LIVE_MAX = AttemptState.RUNNING


def arm(desk: Desk, task: Task) -> None:
    """Set the task's timer for what is due next, or clear it."""
    due_ns = due_next_ns(desk, task)
    if due_ns is None:
        desk.timers.disarm(task.id)
    else:
        desk.timers.arm(task.id, due_ns)


def due_next_ns(desk: Desk, task: Task) -> int | None:
    """When something is due for the task, or None.

    While it waits: its time or the end of its back-off (unless it waits for others too); while it is pending its queue
    time-out; while it has an attempt the time-outs of that; while its result is looked at, until when; and always its deadline. Time-outs of queues and attempts
    stand still while a new leader's workers come back.
    """
    if task.state is _WAITING:
        due_ns = 0 if task.blocked_by else task.due_ns
    elif task.state is _PENDING:
        due_ns = task.due_ns and max(task.due_ns, desk.state.grace_until_ns)
    elif task.state is _AUDITING:
        due_ns = task.due_ns
    else:
        due = [attempt_due_ns(desk, task, a) for a in task.attempts if a.state <= _ATTEMPT_LIVE_MAX]
        return max(min(due), desk.state.grace_until_ns) if due else None
    if due_ns and task.deadline_ns:
        return min(due_ns, task.deadline_ns)
    return due_ns or task.deadline_ns or None


def attempt_due_ns(desk: Desk, task: Task, attempt: Attempt) -> int:
    """When a time-out of a live attempt strikes: of its run (its deadline is in that), or of its heartbeat."""
    if attempt.state is AttemptState.RUNNING and (beat_ns := heartbeat_ns(desk, task, attempt.worker)):
        since_ns = desk.beats_ns.setdefault(task.id, max(desk.now_ns, desk.state.grace_until_ns))
        return min(attempt.due_ns, since_ns + beat_ns)
    return attempt.due_ns


def heartbeat_ns(desk: Desk, task: Task, worker_id: str) -> int:
    """How often an attempt at the task by this worker has to show a sign of progress; 0: never. The worker's own offer
    counts: it knows of no other, whatever has been offered since."""
    if task.terms is not None and task.terms.heartbeat_timeout_ns:
        return task.terms.heartbeat_timeout_ns
    if task.capability not in desk.beating:
        return 0
    offers = desk.state.workers[worker_id].offers
    return next((offer.heartbeat_timeout_ns for offer in offers if offer.name == task.capability), 0)


def hears(desk: Desk, task: Task) -> bool:
    """Whether a sign of progress could reach us, now and during all of the last heartbeat: if not, its silence says
    nothing, and it is counted from now."""
    seat = desk.seats.get(task.attempts[-1].worker)
    if seat is not None and seat.attached and desk.beats_ns.get(task.id, 0) >= max(seat.since_ns, desk.quiet_until_ns):
        return True
    desk.beats_ns[task.id] = desk.now_ns
    return False


def seconds(duration_ns: int) -> str:
    """A duration for people."""
    return f"{duration_ns / SECOND_NS:g} s"
