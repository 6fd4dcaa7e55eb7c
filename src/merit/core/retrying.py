"""Whether a task is tried again after an attempt that failed, and when."""

from __future__ import annotations

from zlib import crc32

from merit.core.desk import Desk
from merit.model.tasks import Attempt, AttemptState, Failure, RetryPolicy, Task

SILENT = "heartbeat"
"""Kind of the failure of an attempt that lived and showed no progress."""
DEADLINE = "deadline"
QUEUE_TIMEOUT = "queue_timeout"
DEPENDENCY = "dependency"

_NOT_STARTED = (AttemptState.REFUSED, AttemptState.RETURNED)
"""Ends of an attempt after which it is known that nothing was begun."""
_FAULTS = (
    AttemptState.FAILED,
    AttemptState.REFUSED,
    AttemptState.TIMED_OUT,
    AttemptState.LOST,
    AttemptState.REJECTED,
)
_USUAL = RetryPolicy()


def last_word(desk: Desk, task: Task, attempt: Attempt, failure: Failure) -> Failure | None:
    """Why the task is not tried again after ``attempt``, which has just ended; None if it is."""
    if failure.permanent:
        return failure
    if attempt.state not in _NOT_STARTED and not _safe_to_repeat(desk, task, attempt):
        message = f"it may have been begun and is not safe to repeat: {failure.message}"
        return Failure(failure.kind, message, failure.detail, permanent=True)
    tried = task.counted
    if tried >= task.attempts_max:
        message = f"all {tried} attempts failed; the last one: {failure.message}" if tried > 1 else failure.message
        return Failure(failure.kind, message, failure.detail, permanent=True)
    if task.terms is not None and task.terms.retry is not None:
        kind = _kind(attempt)
        retries: int = getattr(task.terms.retry, kind, -1)
        alike = sum(1 for other in task.attempts if _kind(other) == kind)
        if 0 <= retries < alike:
            again = f"{retries} retries" if retries != 1 else "1 retry"
            message = f"{alike} attempts {kind}, and {again} after such are allowed; the last one: {failure.message}"
            return Failure(failure.kind, message, failure.detail, permanent=True)
    return None


def _kind(attempt: Attempt) -> str:
    """The field of a retry policy that an ended attempt counts in; empty for one that counts in none."""
    if attempt.state is AttemptState.TIMED_OUT:
        return "silent" if attempt.failure is not None and attempt.failure.kind == SILENT else "timed_out"
    return attempt.state.name.lower()


def _safe_to_repeat(desk: Desk, task: Task, attempt: Attempt) -> bool:
    """By its own terms, by the word of the worker that made the attempt, and by the last word on its capability."""
    if task.terms is not None and not task.terms.safe_to_repeat:
        return False
    worker, latest = desk.state.workers.get(attempt.worker), desk.state.offers.get(task.capability)
    own = [offer for offer in worker.offers if offer.name == task.capability] if worker is not None else []
    return all(offer.safe_to_repeat for offer in own) and (latest is None or latest.safe_to_repeat)


def backoff_ns(desk: Desk, task: Task, tried: int) -> int:
    """How long to wait before the next attempt after ``tried`` of them: doubles with each; the jitter (half to all of it)
    comes from the task's id, so that a replay of the same commands waits just as long."""
    policy = task.terms.retry if task.terms is not None and task.terms.retry is not None else _USUAL
    first_ns = policy.backoff_ns or desk.limits.backoff_ns
    full = min(policy.backoff_ns_max or max(first_ns, desk.limits.backoff_ns_max), first_ns << min(tried - 1, 40))
    share = crc32(f"{task.id}.{tried}".encode())
    return full // 2 + (full // 2) * share // 2**32


def failed_by(task: Task) -> set[str]:
    """The workers that have failed the task: another one shall try next if there is one."""
    return {attempt.worker for attempt in task.attempts if attempt.state in _FAULTS}
