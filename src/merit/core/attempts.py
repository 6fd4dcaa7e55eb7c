"""What becomes of attempts, and of their tasks with them: reports, failures, retries, time-outs."""

from __future__ import annotations

from collections.abc import Mapping
from zlib import crc32

from merit.core.allocating import rate
from merit.core.depending import ended, release
from merit.core.desk import Desk
from merit.model.effects import SendCancel, TellSettled
from merit.model.events import (
    AttemptFailed,
    AttemptReturned,
    AttemptStarted,
    TaskCompleted,
    TaskDelayed,
    TaskDied,
)
from merit.model.frames import AttemptRef, Report, ReportStatus
from merit.model.limits import RETURNS_MAX, SECOND_NS
from merit.model.tasks import Attempt, AttemptState, Failure, Task, TaskState
from merit.model.workers import Worker

_COMPLETED = ReportStatus.COMPLETED
_ATTEMPT_LIVE_MAX = AttemptState.RUNNING
_TASK_WAITING = TaskState.WAITING

_REPORTED: Mapping[ReportStatus, AttemptState] = {
    ReportStatus.FAILED: AttemptState.FAILED,
    ReportStatus.CANCELED: AttemptState.CANCELED,
    ReportStatus.REFUSED: AttemptState.REFUSED,
}


def take_report(desk: Desk, worker: Worker, report: Report) -> None:
    """Accept it if it is of an attempt that is alive on this very worker; otherwise it changes nothing."""
    task_id, number = report.task, report.number
    if worker.attempts.get(task_id) != number:
        return
    task = desk.state.tasks[task_id]
    if report.status is not _COMPLETED:
        _take_failure(desk, task, report)
        return
    others = len(task.attempts) > 1 and [a for a in task.attempts if a.live and a.number != number]
    dependents = desk.state.dependents.get(task_id)
    desk.emit(
        TaskCompleted(
            task_id,
            number,
            desk.keep(report.result),
            report.result_blob,
            report.wall_ns,
            report.cpu_ns,
            report.memory_bytes,
            desk.keep(report.trail),
        )
    )
    settled(desk, task)
    if others:
        cancel_attempts(desk, task, others)
    if dependents:
        ended(desk, task, dependents.values())


def _take_failure(desk: Desk, task: Task, report: Report) -> None:
    failure = report.failure or Failure("unexplained", "the worker gave no reason")
    fail(
        desk,
        task,
        report.number,
        _REPORTED[report.status],
        failure,
        report.wall_ns,
        report.cpu_ns,
        report.memory_bytes,
        desk.keep(report.trail),
    )


def take_started(desk: Desk, worker: Worker, ref: AttemptRef) -> None:
    """The worker has begun: from here its run time-out counts."""
    if worker.attempts.get(ref.task) != ref.number:
        return
    task = desk.state.tasks[ref.task]
    attempt = task.attempts[ref.number - 1]
    if attempt.state is AttemptState.ASSIGNED:
        desk.emit(AttemptStarted(ref.task, ref.number, desk.now_ns + task.run_timeout_ns))
        arm(desk, task)


def take_returned(desk: Desk, worker: Worker, ref: AttemptRef) -> None:
    """The worker gives an attempt back unstarted: its task goes to the head of its queue, for somebody else."""
    if worker.attempts.get(ref.task) != ref.number:
        return
    task = desk.state.tasks[ref.task]
    if task.attempts[ref.number - 1].state is not AttemptState.ASSIGNED:
        return
    returns = len(task.attempts) - task.counted
    if returns >= RETURNS_MAX:
        message = f"handed back unstarted for the {returns + 1}. time, last by {worker.id}"
        fail(desk, task, ref.number, AttemptState.REFUSED, Failure("returned", message))
    else:
        desk.emit(AttemptReturned(ref.task, ref.number))
        desk.timers.disarm(task.id)
        desk.ready[task.capability] = None
    rate(desk, worker.id)


def fail(
    desk: Desk,
    task: Task,
    number: int,
    how: AttemptState,
    failure: Failure,
    wall_ns: int = 0,
    cpu_ns: int = 0,
    memory_bytes: int = 0,
    trail: bytes = b"",
) -> None:
    """End an attempt that did not succeed, and decide what becomes of its task."""
    desk.emit(AttemptFailed(task.id, number, how, failure, wall_ns, cpu_ns, memory_bytes, trail))
    desk.progress.pop(task.id, None)
    desk.timers.disarm(task.id)
    tried = task.counted
    if failure.permanent:
        _die(desk, task, failure)
    elif tried >= task.attempts_max:
        message = f"all {tried} attempts failed; the last one: {failure.message}"
        _die(desk, task, Failure(failure.kind, message, failure.detail, permanent=True))
    else:
        desk.emit(TaskDelayed(task.id, desk.now_ns + _backoff_ns(desk, task, tried)))
        arm(desk, task)


def _backoff_ns(desk: Desk, task: Task, tried: int) -> int:
    """Doubles with each attempt; the jitter (half to all of it) comes from the task's id, so that a replay of the
    same commands waits just as long."""
    full = min(desk.limits.backoff_ns_max, desk.limits.backoff_ns << min(tried - 1, 40))
    share = crc32(f"{task.id}.{tried}".encode())
    return full // 2 + (full // 2) * share // 2**32


def _die(desk: Desk, task: Task, failure: Failure) -> None:
    dependents = desk.state.dependents.get(task.id, {}).values()
    desk.emit(TaskDied(task.id, failure))
    settled(desk, task)
    ended(desk, task, dependents)


def settled(desk: Desk, task: Task) -> None:
    """A task has just become final: nothing is due any more, and its watchers are told."""
    desk.timers.disarm(task.id)
    if desk.progress:
        desk.progress.pop(task.id, None)
    desk.effects.append(TellSettled(task.id))


def cancel_attempts(desk: Desk, task: Task, attempts: list[Attempt]) -> None:
    """Tell the workers to stop attempts that are over by decision."""
    for attempt in attempts:
        desk.effects.append(SendCancel(attempt.worker, AttemptRef(task.id, attempt.number)))
        rate(desk, attempt.worker)


def arm(desk: Desk, task: Task) -> None:
    """The task's one timer: the end of its back-off, or the time-out of its attempt."""
    if task.state is _TASK_WAITING:
        if task.due_ns:
            desk.timers.arm(task.id, task.due_ns)
        return
    due = [attempt.due_ns for attempt in task.attempts if attempt.state <= _ATTEMPT_LIVE_MAX]
    if due:
        desk.timers.arm(task.id, max(min(due), desk.state.grace_until_ns))


def task_due(desk: Desk, task_id: str) -> None:
    """A task's timer went off: its back-off has ended, or its attempt has run out of time."""
    task = desk.state.tasks.get(task_id)
    if task is None:
        return
    if task.state is _TASK_WAITING:
        if task.due_ns and task.due_ns <= desk.now_ns and not task.blocked_by:
            release(desk, task)
        return
    for attempt in task.attempts:
        if attempt.state <= _ATTEMPT_LIVE_MAX and attempt.due_ns <= desk.now_ns:
            desk.effects.append(SendCancel(attempt.worker, AttemptRef(task.id, attempt.number)))
            limit = f"{task.run_timeout_ns / SECOND_NS:g} s"
            begun = "ran" if attempt.started_ns else "was with the worker"
            message = f"{begun} longer than its run time-out of {limit} on {attempt.worker}"
            fail(desk, task, attempt.number, AttemptState.TIMED_OUT, Failure("timed_out", message))
            rate(desk, attempt.worker)
            return
