"""What becomes of attempts, and of their tasks with them: reports, failures, retries, time-outs."""

from __future__ import annotations

from collections.abc import Mapping

from merit.core.allocating import rate
from merit.core.depending import ended, release
from merit.core.desk import Desk
from merit.core.looking import is_to_be_audited
from merit.core.noting import note_end, note_ending, note_lost
from merit.core.queueing import come_forward, enqueue, freed, queue_due_ns, took_ns
from merit.core.reserving import let_go
from merit.core.retrying import DEADLINE, QUEUE_TIMEOUT, SILENT, backoff_ns, last_word
from merit.core.timing import arm, due_next_ns, hears, heartbeat_ns, seconds
from merit.model.auditing import Finding, OnBroken
from merit.model.effects import SendCancel, TellSettled
from merit.model.events import (
    AttemptFailed,
    AttemptReturned,
    AttemptStarted,
    AuditStarted,
    TaskCompleted,
    TaskDelayed,
    TaskDied,
)
from merit.model.frames import AttemptRef, Report, ReportStatus
from merit.model.limits import FAILURE_DETAIL_LENGTH_MAX, RETURNS_MAX
from merit.model.tasks import Attempt, AttemptState, Failure, Task, TaskState
from merit.model.tenancy import PROBE_TENANT
from merit.model.workers import Worker

_COMPLETED = ReportStatus.COMPLETED
_ATTEMPT_LIVE_MAX = AttemptState.RUNNING
_TASK_WAITING = TaskState.WAITING
_TASK_PENDING = TaskState.PENDING

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
        failure = report.failure or Failure("unexplained", "the worker gave no reason")
        _take_failure(desk, task, report, _REPORTED[report.status], failure)
        return
    if report.findings and (finding := _refusal(desk, task, report)) is not None:
        _take_failure(desk, task, report, *_refused(report, finding))
        return
    audits = desk.state.audits
    if audits and task.capability in audits and not report.result_blob and is_to_be_audited(desk, worker, task):
        _start_audit(desk, task, report)
    else:
        note_ending(desk, worker.id, well=True)
        complete(
            desk,
            task,
            number,
            desk.keep(report.result),
            report.result_blob,
            report.wall_ns,
            report.cpu_ns,
            report.memory_bytes,
            desk.keep(report.trail),
        )
    took_ns(desk, task, min(report.wall_ns, desk.now_ns - task.attempts[number - 1].assigned_ns))
    if audits and task.capability in audits:
        desk.reported.append((worker.id, task))


def complete(
    desk: Desk,
    task: Task,
    number: int,
    result: bytes,
    blob: str = "",
    wall_ns: int = 0,
    cpu_ns: int = 0,
    memory_bytes: int = 0,
    trail: bytes = b"",
) -> None:
    """The task has its result: that of one of its attempts, or (``number`` 0) another one; contents by their digests."""
    others = len(task.attempts) > 1 and [a for a in task.attempts if a.live and a.number != number]
    dependents = desk.state.dependents.get(task.id)
    desk.emit(TaskCompleted(task.id, number, result, blob, wall_ns, cpu_ns, memory_bytes, trail))
    settled(desk, task)
    if others:
        cancel_attempts(desk, task, others)
    if dependents:
        ended(desk, task, dependents.values())


def _start_audit(desk: Desk, task: Task, report: Report) -> None:
    """Whether the result is right is found out first; others are asked when the command has been handled."""
    others = [attempt for attempt in task.attempts if attempt.live and attempt.number != report.number]
    desk.emit(
        AuditStarted(
            task.id,
            report.number,
            desk.keep(report.result),
            report.wall_ns,
            report.cpu_ns,
            report.memory_bytes,
            desk.keep(report.trail),
            desk.now_ns + desk.state.audits[task.capability].timeout_ns,
        )
    )
    desk.progress.pop(task.id, None)
    desk.beats_ns.pop(task.id, None)
    freed(desk, task)
    cancel_attempts(desk, task, others)
    arm(desk, task)


def _refusal(desk: Desk, task: Task, report: Report) -> Finding | None:
    """What has been found that speaks against the result, the worker's own fault first; None: it is accepted."""
    policy = desk.state.audits.get(task.capability)
    accepts = policy is None or policy.on_broken is OnBroken.ACCEPT
    against = [finding for finding in report.findings if not finding.ok and not (finding.broken and accepts)]
    return min(against, key=lambda finding: finding.broken, default=None)


def _refused(report: Report, finding: Finding) -> tuple[AttemptState, Failure]:
    """How an attempt ends of which the result is not accepted. Where nothing could be found out, that is not its worker's
    failure."""
    lines = [f"{one.step}: {one.reason}" for one in report.findings if not one.ok]
    detail = "\n".join(lines)[:FAILURE_DETAIL_LENGTH_MAX] if len(lines) > 1 else ""
    kind, how = ("audit_broken", AttemptState.CANCELED) if finding.broken else ("audit", AttemptState.REJECTED)
    return how, Failure(kind, f"{finding.step}: {finding.reason}", detail)


def _take_failure(desk: Desk, task: Task, report: Report, how: AttemptState, failure: Failure) -> None:
    fail(
        desk,
        task,
        report.number,
        how,
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
        desk.emit(AttemptStarted(ref.task, ref.number, run_due_ns(desk, task)))
        if heartbeat_ns(desk, task, worker.id):
            desk.beats_ns[task.id] = desk.now_ns
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
        desk.emit(AttemptReturned(ref.task, ref.number, queue_due_ns(desk, task)))
        freed(desk, task)
        enqueue(desk, task)
        arm(desk, task)
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
    if how is AttemptState.LOST:
        note_lost(desk, task.attempts[number - 1].worker)
    elif how is not AttemptState.CANCELED:
        note_ending(desk, task.attempts[number - 1].worker, well=False)
    desk.progress.pop(task.id, None)
    desk.beats_ns.pop(task.id, None)
    freed(desk, task)
    final = last_word(desk, task, task.attempts[number - 1], failure)
    if final is not None:
        die(desk, task, final)
    else:
        desk.emit(TaskDelayed(task.id, desk.now_ns + backoff_ns(desk, task, task.counted)))
        arm(desk, task)


def die(desk: Desk, task: Task, failure: Failure) -> None:
    """The task, which has no live attempt, fails for good."""
    dependents = desk.state.dependents.get(task.id, {}).values()
    pending = task.state is _TASK_PENDING
    desk.orphan(task)
    desk.emit(TaskDied(task.id, failure))
    if pending:
        desk.backlog.drop(task)
    settled(desk, task)
    ended(desk, task, dependents)


def settled(desk: Desk, task: Task) -> None:
    """A task has just become final: nothing is due any more, and its watchers are told."""
    desk.timers.disarm(task.id)
    if desk.progress:
        desk.progress.pop(task.id, None)
    if desk.beats_ns:
        desk.beats_ns.pop(task.id, None)
    if desk.gates.any and (units := desk.gates.release(task)):
        come_forward(desk, units)
    if desk.state.reserved and (kept := desk.state.reserved.get(task.id)):
        let_go(desk, kept)
    if desk.state.objectives and task.capability in desk.state.objectives:
        note_end(desk, task)
    if task.tenant == PROBE_TENANT:
        desk.probed.append(task)
    if task.terms is not None and task.terms.review is not None:
        desk.reviewed.append(task)
    desk.effects.append(TellSettled(task.id))


def cancel_attempts(desk: Desk, task: Task, attempts: list[Attempt]) -> None:
    """Tell the workers to stop attempts that are over by decision."""
    for attempt in attempts:
        desk.effects.append(SendCancel(attempt.worker, AttemptRef(task.id, attempt.number)))
        rate(desk, attempt.worker)


def run_due_ns(desk: Desk, task: Task) -> int:
    """When an attempt that begins now has run out of time: its own, or the task's."""
    due_ns = desk.now_ns + task.run_timeout_ns
    return min(due_ns, task.deadline_ns) if task.deadline_ns else due_ns


def task_due(desk: Desk, task_id: str) -> None:
    """A task's timer went off: its time has come or its back-off has ended, or something has taken too long."""
    task = desk.state.tasks.get(task_id)
    if task is None or task.state.final:
        return
    now_ns = desk.now_ns
    if task.state is _TASK_WAITING or task.state is _TASK_PENDING:
        if task.deadline_ns and task.deadline_ns <= now_ns:
            die(desk, task, past_deadline(task))
        elif not task.due_ns or task.blocked_by or (due_next_ns(desk, task) or now_ns) > now_ns:
            arm(desk, task)
        elif task.state is _TASK_WAITING:
            release(desk, task)
        else:
            assert task.terms is not None
            message = f"no worker took it within its queue time-out of {seconds(task.terms.queue_timeout_ns)}"
            die(desk, task, Failure(QUEUE_TIMEOUT, message, permanent=True))
        return
    attempt = next(attempt for attempt in task.attempts if attempt.state <= _ATTEMPT_LIVE_MAX)
    failure = _overdue(desk, task, attempt)
    if failure is None:
        arm(desk, task)
        return
    desk.effects.append(SendCancel(attempt.worker, AttemptRef(task.id, attempt.number)))
    fail(desk, task, attempt.number, AttemptState.TIMED_OUT, failure)
    rate(desk, attempt.worker)


def _overdue(desk: Desk, task: Task, attempt: Attempt) -> Failure | None:
    """What a live attempt has taken too long for, if it has."""
    now_ns = desk.now_ns
    if now_ns < desk.state.grace_until_ns:
        return None
    if task.deadline_ns and task.deadline_ns <= now_ns:
        return past_deadline(task)
    if attempt.due_ns <= now_ns:
        begun = "ran" if attempt.started_ns else "was with the worker"
        limit = seconds(task.run_timeout_ns)
        return Failure("timed_out", f"{begun} longer than its run time-out of {limit} on {attempt.worker}")
    beat_ns = heartbeat_ns(desk, task, attempt.worker) if attempt.state is AttemptState.RUNNING else 0
    if beat_ns and desk.beats_ns.get(task.id, now_ns) + beat_ns <= now_ns and hears(desk, task):
        return Failure(SILENT, f"showed no progress for {seconds(beat_ns)} on {attempt.worker}, which is alive")
    return None


def past_deadline(task: Task) -> Failure:
    """Why a task dies that is not done in time."""
    allowed = seconds(task.deadline_ns - task.since_ns)
    return Failure(DEADLINE, f"was not done by its deadline, {allowed} after its time had come", permanent=True)
