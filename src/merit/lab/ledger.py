"""What the journal of a simulated cell says, read by somebody who trusts nobody.

The ledger keeps its own small books of every task and attempt, made from the events alone, and besides folds the events
with the product's own ``apply``, so that a state can be compared with the fold of what is durable.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from hashlib import sha256
from typing import Any

from merit.core.apply import apply
from merit.core.codec import decode_event
from merit.core.lifecycles import IllegalTransition
from merit.core.state import State
from merit.core.story import story
from merit.lab.answers import PROBE, PROBE_RESULT, made_by, read
from merit.lab.audit_book import AuditBook
from merit.lab.fleet_book import FleetBook, kit_of
from merit.lab.queue_book import QueueBook
from merit.lab.terms_book import TermsBook
from merit.lab.violation import Violation
from merit.model.events import (
    AttemptAssigned,
    AttemptFailed,
    AttemptReturned,
    AuditStarted,
    DeadLetterClosed,
    Event,
    LeadershipStarted,
    ScheduleFired,
    TaskCanceled,
    TaskCompleted,
    TaskDelayed,
    TaskDied,
    TaskSubmitted,
    WorkerJoined,
    WorkerLeft,
)
from merit.model.frames import Settled, settled
from merit.model.limits import SECOND_NS
from merit.model.record import JournalCorrupt, Record, Tail, verify
from merit.model.tasks import AttemptState, Failure, TaskState
from merit.model.tenancy import PROBE_TENANT

Holder = tuple[int, str, str]
"""Number of an attempt, and the worker and boot that have it."""


_PROBE = sha256(PROBE).digest()


class Ledger:
    """See the module. Everything in it is durable."""

    def __init__(self, ageing_ns: int) -> None:
        self.queue_book = QueueBook(self, ageing_ns)
        self.terms_book = TermsBook(self)
        self.audit_book = AuditBook(self)
        self.fleet_book = FleetBook(self)
        self.tail = Tail()
        self.state = State()
        self.events: list[tuple[int, int, Event]] = []
        self.submitted: dict[str, TaskSubmitted] = {}
        self.settled: dict[str, Settled] = {}
        """By task: its final state, as watchers have to hear of it."""
        self.live: dict[str, Holder] = {}
        """By task: its live attempt."""
        self.reported: dict[str, Holder] = {}
        """By task: the attempt whose result is being looked at."""
        self.attempts: dict[str, int] = {}
        """By task: how many there have been."""
        self.counted: dict[str, int] = {}
        """Without those that were handed back."""
        self.boots: dict[str, str] = {}
        """By worker that is there: its boot."""
        self.quiet_ns = (0, 0)
        """From when to when nothing times out, since the process had been asleep; not in the journal."""
        self._grace_until_ns = 0
        self._epoch = 0

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
            self.queue_book.take(event, record.time_ns)
            self.terms_book.take(event, record.time_ns)
            self.audit_book.take(event, payloads, record.time_ns)
            check = _BOOKS.get(type(event))
            if check is not None:
                check(self, event, payloads, record.time_ns)
            self.fleet_book.take(event)
            task = self.state.tasks.get(event.task) if isinstance(event, _FINAL) else None
            try:
                apply(self.state, event, payloads, record.time_ns)
            except (IllegalTransition, LookupError) as error:
                raise Violation("replay", _about(event), f"the journal cannot be folded: {error!r}") from error
            if task is not None:
                self.settled[task.id] = settled(task)
        self.terms_book.record_over(record.time_ns, led=record.epoch == self._epoch)
        self.audit_book.record_over(record.time_ns, led=record.epoch == self._epoch)
        self._epoch = record.epoch

    def unsettled(self) -> list[str]:
        """The submitted tasks that are not final."""
        return [task for task in self.submitted if task not in self.settled]

    def met(self) -> Counter[str]:
        """What has happened in this world that does not happen in every one, and how often."""
        found = self.queue_book.reached + self.fleet_book.met + self.audit_book.met
        for _, _, event in self.events:
            match event:
                case TaskDied(failure=failure):
                    found[f"died: {_why(failure)}"] += 1
                case AttemptFailed():
                    found[f"attempt ended: {event.state.name}"] += 1
                case ScheduleFired(task=""):
                    found[f"schedule passed over: {_passed_over(event.why)}"] += 1
                case ScheduleFired():
                    found["schedule made a task"] += 1
                case DeadLetterClosed():
                    found["dead letter tried again" if event.successor else "dead letter purged"] += 1
                case TaskCompleted() if self.submitted[event.task].terms is not None:
                    terms = self.submitted[event.task].terms
                    assert terms is not None
                    found["completed with inputs"] += bool(terms.inputs)
                    found["completed after a delay"] += bool(terms.not_before_ns)
                    found["completed under a key"] += bool(terms.key)
                case _:
                    pass
        return found

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
        self.submitted[event.task] = event

    def _attempt_assigned(self, event: AttemptAssigned, _payloads: Mapping[bytes, bytes], _now_ns: int) -> None:
        task = event.task
        if task not in self.submitted or any(task in those for those in (self.settled, self.live, self.reported)):
            raise Violation("lifecycle", task, f"was assigned while {self._how(task)}")
        spec = self.submitted[task]
        self._check_needed(task, spec)
        if event.number != self.attempts.get(task, 0) + 1:
            raise Violation("attempts", task, f"attempt {event.number} after {self.attempts.get(task, 0)}")
        self.attempts[task] = event.number
        self.counted[task] = self.counted.get(task, 0) + 1
        if self.counted[task] > spec.attempts_max:
            raise Violation("attempts", task, f"attempt {event.number}, though {spec.attempts_max} are the most")
        self.terms_book.check_start(task)
        if event.worker not in self.boots:
            raise Violation("lifecycle", task, f"was assigned to {event.worker}, who is not there")
        self.live[task] = (event.number, event.worker, self.boots[event.worker])

    def _check_needed(self, task: str, spec: TaskSubmitted) -> None:
        despite = spec.terms is not None and spec.terms.despite_dead
        for name in spec.after:
            outcome = self.settled.get(name)
            if outcome is None or (outcome.state is not TaskState.COMPLETED and not despite):
                raise Violation("dependencies", task, f"was assigned before {name} was completed")

    def _attempt_over(self, event: AttemptFailed | AttemptReturned, _p: Mapping[bytes, bytes], now_ns: int) -> None:
        if event.task in self.reported:
            return  # it was over before; what is found out about its result is the audit book's business
        holder = self.live.pop(event.task, None)
        if holder is None or holder[0] != event.number:
            raise Violation("stale report", event.task, f"attempt {event.number} ended, the live one is {holder}")
        if isinstance(event, AttemptReturned):
            self.counted[event.task] -= 1
            return
        if event.failure.message.endswith("said goodbye"):
            raise Violation("goodbye", event.task, f"attempt {event.number}, which never began, counts as lost")
        quiet = self.quiet_ns[0] <= now_ns < self.quiet_ns[1]
        if event.state is AttemptState.TIMED_OUT and (quiet or now_ns < self._grace_until_ns):
            raise Violation("grace", event.task, f"attempt {event.number} timed out within the time of grace")

    def _task_completed(self, event: TaskCompleted, payloads: Mapping[bytes, bytes], _now_ns: int) -> None:
        task = event.task
        if self.reported.pop(task, None) is None:
            holder, spec = self._take_result(event, payloads), self.submitted[task]
            if spec.tenant == PROBE_TENANT:
                self.fleet_book.did_probe(holder[1], spec.capability, payloads[event.result])
        self._once(task)

    def _audit_started(self, event: AuditStarted, payloads: Mapping[bytes, bytes], _now_ns: int) -> None:
        self.reported[event.task] = self._take_result(event, payloads)

    def _take_result(self, event: TaskCompleted | AuditStarted, payloads: Mapping[bytes, bytes]) -> Holder:
        """The live attempt has come to its end, with a result that it has really made."""
        task, holder = event.task, self.live.pop(event.task, None)
        if holder is None or holder[0] != event.number:
            raise Violation("stale report", task, f"attempt {event.number} completed, the live one is {holder}")
        result = payloads.get(event.result, b"")
        known = result == PROBE_RESULT and self.submitted[task].parameters == _PROBE
        if not known and read(result).by != made_by(task, *holder):
            raise Violation("stale report", task, f"the result is {result!r}, the live attempt was {holder}")
        return holder

    def _task_delayed(self, event: TaskDelayed, _payloads: Mapping[bytes, bytes], _now_ns: int) -> None:
        self.reported.pop(event.task, None)

    def _task_over(self, event: TaskDied | TaskCanceled, _payloads: Mapping[bytes, bytes], _now_ns: int) -> None:
        self.live.pop(event.task, None)
        self.reported.pop(event.task, None)
        self._once(event.task)

    def _once(self, task: str) -> None:
        if task not in self.submitted or task in self.settled:
            raise Violation("one final state", task, f"became final while {self._how(task)}")

    def _worker_joined(self, event: WorkerJoined, _payloads: Mapping[bytes, bytes], _now_ns: int) -> None:
        held = [task for task, holder in self.live.items() if holder[1] == event.worker]
        if held:
            raise Violation("lifecycle", event.worker, f"joined while {held[0]} was alive with it")
        present, kit = self.fleet_book.workers.get(event.worker), kit_of(event)
        if self.boots.get(event.worker) == event.boot and present is not None and present.kit == kit:
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
        if task in self.reported:
            return f"the result of attempt {self.reported[task]} was looked at"
        return "it was waiting" if task in self.submitted else "it was unknown"


_FINAL = (TaskCompleted, TaskDied, TaskCanceled)

_BOOKS: Mapping[type[Event], Callable[[Ledger, Any, Mapping[bytes, bytes], int], None]] = {
    LeadershipStarted: Ledger._leadership_started,
    TaskSubmitted: Ledger._task_submitted,
    AttemptAssigned: Ledger._attempt_assigned,
    AttemptFailed: Ledger._attempt_over,
    AttemptReturned: Ledger._attempt_over,
    TaskCompleted: Ledger._task_completed,
    AuditStarted: Ledger._audit_started,
    TaskDelayed: Ledger._task_delayed,
    TaskDied: Ledger._task_over,
    TaskCanceled: Ledger._task_over,
    WorkerJoined: Ledger._worker_joined,
    WorkerLeft: Ledger._worker_left,
}


def _about(event: Event) -> str:
    return str(getattr(event, "task", getattr(event, "worker", "")))


def _why(failure: Failure) -> str:
    if "not safe to repeat" in failure.message:
        return "not safe to repeat"
    return "retry policy" if "after such are allowed" in failure.message else failure.kind


def _passed_over(why: str) -> str:
    if why.startswith("nobody was there"):
        return "missed"
    return "overlap" if why.startswith("the task before it") else "no room"
