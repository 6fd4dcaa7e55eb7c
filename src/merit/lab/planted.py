"""Bugs to plant in the product, so that the simulator shows that it would find them.

Each is a context manager that alters the real code from outside while it lasts; the product itself knows nothing of
them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager
from typing import Any

from merit.core import apply, attempts, depending, retrying, schedules, staffing, timing
from merit.core.desk import Desk, Seat
from merit.core.gates import Gate, Gates, Parked
from merit.core.machine import Machine
from merit.core.state import State
from merit.kernel.following import Followers, Told
from merit.kernel.kernel import Kernel
from merit.lab.instead import instead
from merit.lab.planted_audit import AUDIT_PLANTS
from merit.lab.planted_fleet import FLEET_PLANTS
from merit.lab.planted_memory import MEMORY_PLANTS
from merit.model.events import Event
from merit.model.frames import AttemptRef, Report, WorkerFrame
from merit.model.record import Record
from merit.model.schedules import Planned
from merit.model.tasks import Attempt, Task, TaskState
from merit.model.workers import Worker
from merit.session.cell_end import CellEnd
from merit.session.link import Link


def acknowledge_before_durable() -> AbstractContextManager[None]:
    """The kernel lets everything out as soon as it is decided."""
    original = Kernel.step

    def step(self: Kernel, now_ns: int) -> Record | None:
        record = original(self, now_ns)
        while self._batches:
            self._release.release(self._batches.popleft())
        return record

    return instead(Kernel, "step", step)


def forget_attempt_check() -> AbstractContextManager[None]:
    """A report counts for whatever attempt of its task is alive, whosoever has it."""

    def take_report(desk: Desk, worker: Worker, report: Report) -> None:
        task = desk.state.tasks.get(report.task)
        for attempt in task.attempts if task is not None else ():
            if attempt.live:
                worker = desk.state.workers[attempt.worker]
                changed = {name: getattr(report, name) for name in report.__struct_fields__} | {
                    "number": attempt.number
                }
                attempts.take_report(desk, worker, Report(**changed))
                return

    return instead(staffing, "take_report", take_report)


def drop_report_ack() -> AbstractContextManager[None]:
    """A frame with reports is dealt with and never acknowledged."""
    original = Kernel._from_worker

    def from_worker(self: Kernel, end: CellEnd, frame: WorkerFrame) -> None:
        original(self, end, frame)
        if frame.reports and self._batch.acks and self._batch.acks[-1] == (end, frame.sequence):
            self._batch.acks.pop()

    return instead(Kernel, "_from_worker", from_worker)


def reuse_journal_sequence() -> AbstractContextManager[None]:
    """Now and then a record begins with the sequence that the one before ended with."""
    original = Kernel._close_batch

    def close_batch(self: Kernel) -> Record | None:
        record = original(self)
        if record is not None and record.first % 7 == 0:
            self._next -= 1
        return record

    return instead(Kernel, "_close_batch", close_batch)


def reuse_link_sequence() -> AbstractContextManager[None]:
    """Now and then two frames of a stream have the same number."""
    original = Link.stamp
    count = 0

    def stamp(self: Link, *, content: bool) -> tuple[int, int]:
        nonlocal count
        count += content
        if content and count % 25 == 0 and self._sent:
            self._sent -= 1
        return original(self, content=content)

    return instead(Link, "stamp", stamp)


def forget_effects() -> AbstractContextManager[None]:
    """A worker that attaches is not told again what may have been lost on the way."""

    def reconcile(_desk: Desk, _worker: Worker, _held: tuple[AttemptRef, ...]) -> None:
        return

    return instead(staffing, "_reconcile", reconcile)


def double_credit() -> AbstractContextManager[None]:
    """The credits that a worker attaches with count twice."""

    def seat(session: int, attached: bool, granted: int, *rest: int) -> Seat:
        return Seat(session, attached, 2 * granted, *rest)

    return instead(staffing, "Seat", seat)


def limit_not_released() -> AbstractContextManager[None]:
    """A place at a limit that was taken once is taken for ever."""

    def release(_self: Gates, _task: Task) -> list[Parked]:
        return []

    return instead(Gates, "release", release)


def limit_forgotten_by_new_leader() -> AbstractContextManager[None]:
    """What runs already is not counted by who leads from now on, nor by a new limit."""

    def hold(_self: Gates, _tasks: Iterable[Task], _now_ns: int) -> None:
        return

    return instead(Gates, "hold", hold)


def ignore_rate() -> AbstractContextManager[None]:
    """A limit on the rate holds nobody back."""

    def closed(self: Gate, _now_ns: int) -> bool:
        return bool(self.rule.concurrency) and len(self.holders) >= self.rule.concurrency

    return instead(Gate, "closed", closed)


def retry_unsafe() -> AbstractContextManager[None]:
    """Everything is held to be safe to repeat."""

    def safe_to_repeat(*_what: object) -> bool:
        return True

    return instead(retrying, "_safe_to_repeat", safe_to_repeat)


def ignore_retry_policy() -> AbstractContextManager[None]:
    """Failures count in no kind, only in all together."""

    def kind(_attempt: Attempt) -> str:
        return ""

    return instead(retrying, "_kind", kind)


def forget_keys() -> AbstractContextManager[None]:
    """A new leader knows no idempotency keys, and does not know that it does not."""
    original = Kernel.__init__

    def init(self: Kernel, cell: str, machine: Machine, *rest: Any) -> None:
        machine.state.keys.clear()
        original(self, cell, machine, *rest)

    return instead(Kernel, "__init__", init)


def double_fire() -> AbstractContextManager[None]:
    """Each time of a schedule is dealt with twice."""
    original = schedules._fire

    def fire(desk: Desk, planned: Planned, at_ns: int, task_id: str) -> str:
        original(desk, planned, at_ns, task_id)
        return original(desk, planned, at_ns, f"{task_id} again")

    return instead(schedules, "_fire", fire)


def forget_delay() -> AbstractContextManager[None]:
    """A task goes as soon as it has all that it needs, though its time has not come."""
    original = timing.arm

    def arm(desk: Desk, task: Task) -> None:
        if task.state is TaskState.WAITING:
            depending.release(desk, task)
        else:
            original(desk, task)

    return instead(depending, "arm", arm)


def forget_deadline() -> AbstractContextManager[None]:
    """An attempt that has begun has its whole run time-out, whatever the deadline of its task."""

    def run_due_ns(desk: Desk, task: Task) -> int:
        return desk.now_ns + task.run_timeout_ns

    return instead(attempts, "run_due_ns", run_due_ns)


def lose_inputs() -> AbstractContextManager[None]:
    """The result that a task waited for last is not given to it."""
    original = apply._hand_over

    def hand_over(state: State, other: Task, task: Task) -> None:
        if task.blocked_by:
            original(state, other, task)

    return instead(apply, "_hand_over", hand_over)


def deaf_followers() -> AbstractContextManager[None]:
    """Who follows a task hears where it is, and then nothing any more."""

    def steps(_self: Followers, _desk: Desk, _events: Iterable[Event]) -> Told:
        return []

    return instead(Followers, "steps", steps)


PLANTS: Mapping[str, Callable[[], AbstractContextManager[Any]]] = {
    "acknowledge-before-durable": acknowledge_before_durable,
    "forget-attempt-check": forget_attempt_check,
    "drop-report-ack": drop_report_ack,
    "reuse-journal-sequence": reuse_journal_sequence,
    "reuse-link-sequence": reuse_link_sequence,
    "forget-effects": forget_effects,
    "double-credit": double_credit,
    "limit-not-released": limit_not_released,
    "limit-forgotten-by-new-leader": limit_forgotten_by_new_leader,
    "ignore-rate": ignore_rate,
    "retry-unsafe": retry_unsafe,
    "ignore-retry-policy": ignore_retry_policy,
    "forget-keys": forget_keys,
    "double-fire": double_fire,
    "forget-delay": forget_delay,
    "forget-deadline": forget_deadline,
    "lose-inputs": lose_inputs,
    "deaf-followers": deaf_followers,
    **FLEET_PLANTS,
    **AUDIT_PLANTS,
    **MEMORY_PLANTS,
}
"""By the name that ``merit lab simulate --plant`` takes."""
