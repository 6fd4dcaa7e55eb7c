"""Bugs to plant in the product, so that the simulator shows that it would find them.

Each is a context manager that alters the real code from outside while it lasts; the product itself knows nothing of
them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from typing import Any

from merit.core import attempts, staffing
from merit.core.desk import Desk, Seat
from merit.kernel.kernel import Kernel
from merit.model.frames import AttemptRef, Report, WorkerFrame
from merit.model.record import Record
from merit.model.workers import Worker
from merit.session.cell_end import CellEnd
from merit.session.link import Link


@contextmanager
def instead(place: object, name: str, altered: object) -> Iterator[None]:
    """While it lasts, ``place`` has ``altered`` under ``name``."""
    original = getattr(place, name)
    setattr(place, name, altered)
    try:
        yield
    finally:
        setattr(place, name, original)


def acknowledge_before_durable() -> AbstractContextManager[None]:
    """The kernel lets everything out as soon as it is decided."""
    original = Kernel.step

    def step(self: Kernel, now_ns: int) -> Record | None:
        record = original(self, now_ns)
        while self._batches:
            self._release(self._batches.popleft())
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

    def seat(names: tuple[str, ...], session: int, attached: bool, granted: int, used: int, seen_ns: int) -> Seat:
        return Seat(names, session, attached, 2 * granted, used, seen_ns)

    return instead(staffing, "Seat", seat)


PLANTS: Mapping[str, Callable[[], AbstractContextManager[Any]]] = {
    "acknowledge-before-durable": acknowledge_before_durable,
    "forget-attempt-check": forget_attempt_check,
    "drop-report-ack": drop_report_ack,
    "reuse-journal-sequence": reuse_journal_sequence,
    "reuse-link-sequence": reuse_link_sequence,
    "forget-effects": forget_effects,
    "double-credit": double_credit,
}
"""By the name that ``merit lab simulate --plant`` takes."""
