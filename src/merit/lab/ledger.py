"""What the journal of a simulated cell says, read by somebody who trusts nobody.

The ledger keeps its own small books of every task and attempt, made from the events alone, and besides folds the events
with the product's own ``apply``, so that a state can be compared with the fold of what is durable.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from hashlib import sha256
from typing import Any

from merit.core.apply import apply
from merit.core.codec import decode_event
from merit.core.lifecycles import IllegalTransition
from merit.core.state import State
from merit.core.story import story
from merit.model.events import (
    AttemptAssigned,
    AttemptFailed,
    AttemptReturned,
    Event,
    LeadershipStarted,
    TaskCanceled,
    TaskCompleted,
    TaskDied,
    TaskSubmitted,
    WorkerJoined,
    WorkerLeft,
)
from merit.model.frames import Settled, settled
from merit.model.limits import SECOND_NS
from merit.model.record import JournalCorrupt, Record, Tail, verify
from merit.model.tasks import AttemptState, TaskState

Holder = tuple[int, str, str]
"""Number of an attempt, and the worker and boot that have it."""


class Violation(Exception):
    """The product broke a promise: ``check`` names it, ``about`` is the id of the task or worker, if it is about one."""

    def __init__(self, check: str, about: str, message: str) -> None:
        super().__init__(message)
        self.check = check
        self.about = about


def result_of(task: str, number: int, worker: str, boot: str) -> bytes:
    """What every simulated worker gives as a task's result: who made it, and in which attempt."""
    return f'{{"by":"{task} {number} {worker} {boot}"}}'.encode()


class Ledger:
    """See the module. Everything in it is durable."""

    def __init__(self) -> None:
        self.tail = Tail()
        self.state = State()
        self.events: list[tuple[int, int, Event]] = []
        self.submitted: dict[str, TaskSubmitted] = {}
        self.settled: dict[str, Settled] = {}
        """By task: its final state, as watchers have to hear of it."""
        self.live: dict[str, Holder] = {}
        """By task: its live attempt."""
        self.attempts: dict[str, int] = {}
        """By task: how many there have been."""
        self._counted: dict[str, int] = {}
        self.boots: dict[str, str] = {}
        """By worker that is there: its boot."""
        self._hopeless: set[str] = set()
        """Tasks whose last attempt failed for good, by its own word."""
        self._places: dict[str, int] = {}
        self._grace_until_ns = 0

    def take(self, record: Record, events: Sequence[Event] | None = None) -> None:
        """Read the next durable record; ``events`` are its decoded events, if the caller has them.

        Raises:
            Violation: it says something that must not be.
        """
        try:
            self.tail = verify(record, self.tail)
        except JournalCorrupt as error:
            raise Violation("journal", "", str(error)) from error
        payloads = {sha256(payload).digest(): payload for payload in record.payloads}
        for event in events or map(decode_event, record.events):
            self.events.append((self.state.sequence + 1, record.time_ns, event))
            check = _BOOKS.get(type(event))
            if check is not None:
                check(self, event, payloads, record.time_ns)
            task = self.state.tasks.get(event.task) if isinstance(event, _FINAL) else None
            try:
                apply(self.state, event, payloads, record.time_ns)
            except (IllegalTransition, LookupError) as error:
                raise Violation("replay", _about(event), f"the journal cannot be folded: {error!r}") from error
            if task is not None:
                self.settled[task.id] = settled(task)

    def unsettled(self) -> list[str]:
        """The submitted tasks that are not final."""
        return [task for task in self.submitted if task not in self.settled]

    def story_of(self, about: str) -> list[str]:
        """The journal's events about one task or worker, a line each."""
        return [
            f"{sequence:5d} {time_ns / SECOND_NS:9.3f} s {name} "
            + " ".join(f"{key}={value}" for key, value in fields.items() if value not in ("", 0, [], None))
            for sequence, time_ns, name, fields in story(self.events, about)
        ]

    def _leadership_started(self, event: LeadershipStarted, _payloads: Mapping[bytes, bytes], _now_ns: int) -> None:
        self._grace_until_ns = event.grace_until_ns

    def _task_submitted(self, event: TaskSubmitted, _payloads: Mapping[bytes, bytes], _now_ns: int) -> None:
        if event.task in self.submitted:
            raise Violation("one task", event.task, "was taken in twice")
        self._places[event.task] = len(self.submitted)
        self.submitted[event.task] = event

    def _attempt_assigned(self, event: AttemptAssigned, _payloads: Mapping[bytes, bytes], _now_ns: int) -> None:
        task = event.task
        if task not in self.submitted or task in self.settled or task in self.live:
            raise Violation("lifecycle", task, f"was assigned while {self._how(task)}")
        spec = self.submitted[task]
        waits = [
            name for name in spec.after if name not in self.settled or self.settled[name].state != TaskState.COMPLETED
        ]
        if waits:
            raise Violation("dependencies", task, f"was assigned before {waits[0]} was completed")
        if event.number != self.attempts.get(task, 0) + 1:
            raise Violation("attempts", task, f"attempt {event.number} after {self.attempts.get(task, 0)}")
        self.attempts[task] = event.number
        self._counted[task] = self._counted.get(task, 0) + 1
        if self._counted[task] > spec.attempts_max:
            raise Violation("attempts", task, f"attempt {event.number}, though {spec.attempts_max} are the most")
        self._check_turn(event)
        if event.worker not in self.boots:
            raise Violation("lifecycle", task, f"was assigned to {event.worker}, who is not there")
        self.live[task] = (event.number, event.worker, self.boots[event.worker])

    def _check_turn(self, event: AttemptAssigned) -> None:
        """Higher priorities go first; then what was tried before; then first come, first served
        (but what waited for others comes when it is free)."""
        spec = self.submitted[event.task]
        queue = self.state.queues.get(spec.capability)
        lanes = list(queue.lanes()) if queue is not None else []
        if not lanes or event.task not in lanes[spec.priority - 1]:
            raise Violation("turn", event.task, "was assigned and was not in its queue")
        before = [other for lane in lanes[spec.priority :] for other in lane]
        if event.number == 1:
            place = self._places[event.task]
            same = (other for other in lanes[spec.priority - 1] if other != event.task)
            before += [
                other
                for other in same
                if self.attempts.get(other) or (self._places[other] < place and not self.submitted[other].after)
            ]
        if before:
            raise Violation("turn", event.task, f"was assigned before {before[0]}, whose turn it was")

    def _attempt_over(self, event: AttemptFailed | AttemptReturned, _p: Mapping[bytes, bytes], now_ns: int) -> None:
        holder = self.live.pop(event.task, None)
        if holder is None or holder[0] != event.number:
            raise Violation("stale report", event.task, f"attempt {event.number} ended, the live one is {holder}")
        if isinstance(event, AttemptReturned):
            self._counted[event.task] -= 1
            return
        if event.failure.permanent:
            self._hopeless.add(event.task)
        if event.failure.message.endswith("said goodbye"):
            raise Violation("goodbye", event.task, f"attempt {event.number}, which never began, counts as lost")
        if event.state is AttemptState.TIMED_OUT and now_ns < self._grace_until_ns:
            raise Violation("grace", event.task, f"attempt {event.number} timed out within the time of grace")

    def _task_completed(self, event: TaskCompleted, payloads: Mapping[bytes, bytes], _now_ns: int) -> None:
        task = event.task
        holder = self.live.pop(task, None)
        if holder is None or holder[0] != event.number:
            raise Violation("stale report", task, f"attempt {event.number} completed, the live one is {holder}")
        result = payloads.get(event.result, b"")
        if result != result_of(task, *holder):
            raise Violation("stale report", task, f"the result is {result!r}, the live attempt was {holder}")
        self._once(task)

    def _task_over(self, event: TaskDied | TaskCanceled, _payloads: Mapping[bytes, bytes], _now_ns: int) -> None:
        task, spec = event.task, self.submitted.get(event.task)
        self.live.pop(task, None)
        self._once(task)
        if spec is None or isinstance(event, TaskCanceled) or event.failure.kind == "dependency":
            return
        if task not in self._hopeless and self._counted.get(task, 0) < spec.attempts_max:
            message = f"was given up after {self._counted.get(task, 0)} of {spec.attempts_max} attempts"
            raise Violation("attempts", task, message)

    def _once(self, task: str) -> None:
        if task not in self.submitted or task in self.settled:
            raise Violation("one final state", task, f"became final while {self._how(task)}")

    def _worker_joined(self, event: WorkerJoined, _payloads: Mapping[bytes, bytes], _now_ns: int) -> None:
        held = [task for task, holder in self.live.items() if holder[1] == event.worker]
        if held:
            raise Violation("lifecycle", event.worker, f"joined while {held[0]} was alive with it")
        if self.boots.get(event.worker) == event.boot and self.state.workers[event.worker].offers == event.offers:
            raise Violation("resume", event.worker, f"{event.boot} joined a second time instead of going on")
        self.boots[event.worker] = event.boot

    def _worker_left(self, event: WorkerLeft, _payloads: Mapping[bytes, bytes], now_ns: int) -> None:
        if event.lost and now_ns < self._grace_until_ns:
            raise Violation("grace", event.worker, "was given up within the time of grace")
        self.boots.pop(event.worker, None)

    def _how(self, task: str) -> str:
        if task in self.settled:
            return f"it was {self.settled[task].state.name}"
        if task in self.live:
            return f"attempt {self.live[task]} was alive"
        return "it was waiting" if task in self.submitted else "it was unknown"


_FINAL = (TaskCompleted, TaskDied, TaskCanceled)

_BOOKS: Mapping[type[Event], Callable[[Ledger, Any, Mapping[bytes, bytes], int], None]] = {
    LeadershipStarted: Ledger._leadership_started,
    TaskSubmitted: Ledger._task_submitted,
    AttemptAssigned: Ledger._attempt_assigned,
    AttemptFailed: Ledger._attempt_over,
    AttemptReturned: Ledger._attempt_over,
    TaskCompleted: Ledger._task_completed,
    TaskDied: Ledger._task_over,
    TaskCanceled: Ledger._task_over,
    WorkerJoined: Ledger._worker_joined,
    WorkerLeft: Ledger._worker_left,
}


def _about(event: Event) -> str:
    return str(getattr(event, "task", getattr(event, "worker", "")))
