"""What a ledger knows of what was agreed for each task: its times, its retries, its key; of schedules and dead letters."""

from __future__ import annotations

from hashlib import sha256
from heapq import heappop, heappush
from typing import TYPE_CHECKING

from merit.lab.asked import review_of
from merit.lab.violation import Violation
from merit.model.events import (
    AttemptFailed,
    AttemptReturned,
    AttemptStarted,
    DeadLetterClosed,
    Event,
    LeadershipStarted,
    ScheduleFired,
    SchedulePlanned,
    ScheduleRemoved,
    ScheduleSet,
    TaskDied,
    TaskReleased,
    TaskSubmitted,
    WorkerJoined,
)
from merit.model.schedules import Missed, Overlap, Schedule
from merit.model.tasks import AttemptState, RetryPolicy, TaskSpec

if TYPE_CHECKING:
    from merit.lab.ledger import Ledger

TIMER_SLACK_NS = 20_000_000
_NOT_BEGUN = (AttemptState.REFUSED, AttemptState.RETURNED)


class TermsBook:
    """Reads every event before it is folded.

    Args:
        ledger: whose book it is.
    """

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._keys: dict[tuple[str, str], str] = {}
        self._unsafe: set[str] = set()
        """Capabilities that are not safe to repeat."""
        self._begun: set[str] = set()
        """Tasks of which an attempt has failed that may have begun."""
        self._failures: dict[str, list[str]] = {}
        """By task: the fields of a retry policy that its failed attempts count in."""
        self._hopeless: set[str] = set()
        """Tasks whose last attempt failed for good, by its own word."""
        self._started: dict[str, int] = {}
        self._queued: dict[str, int] = {}
        self._deadlines: list[tuple[int, str]] = []
        self._grace_until_ns = 0
        self._letters_max = 0
        self.letters: dict[str, None] = {}
        """Dead letters, oldest first."""
        self._schedules: dict[str, Schedule] = {}
        self._times: dict[str, list[int]] = {}
        self._fired: set[tuple[str, int]] = set()
        self._made: dict[str, str] = {}
        """By schedule: the task that it made last."""

    def take(self, event: Event, now_ns: int) -> None:
        """The next event.

        Raises:
            Violation: it must not be.
        """
        match event:
            case TaskSubmitted():
                self._submitted(event, now_ns)
            case TaskReleased() | AttemptReturned():
                self._queued[event.task] = now_ns
            case AttemptStarted():
                self._started[event.task] = now_ns
            case AttemptFailed():
                self._failed(event, now_ns)
            case TaskDied():
                self._died(event, now_ns)
            case DeadLetterClosed():
                self._closed(event)
            case LeadershipStarted():
                self._grace_until_ns = event.grace_until_ns
                self._letters_max = event.dead_letters_max
            case WorkerJoined():
                self._unsafe.update(offer.name for offer in event.offers if not offer.safe_to_repeat)
            case ScheduleSet() | ScheduleRemoved() | SchedulePlanned() | ScheduleFired():
                self._schedule(event, now_ns)
            case _:
                pass

    def record_over(self, now_ns: int, *, led: bool) -> None:
        """A whole record has been read: what was due before it was made has been done. ``led``: it is not the first of
        a new leader, who has not looked yet.

        Raises:
            Violation: a deadline has passed a task by.
        """
        deadlines, ledger = self._deadlines, self._ledger
        quiet_until_ns = max(self._grace_until_ns, ledger.quiet_ns[1])
        if not led or now_ns < quiet_until_ns + TIMER_SLACK_NS:
            return
        while deadlines and deadlines[0][0] + TIMER_SLACK_NS <= now_ns:
            deadline_ns, task = heappop(deadlines)
            if task not in ledger.settled:
                late_ms = (now_ns - deadline_ns) // 1_000_000
                raise Violation("deadline", task, f"is not final, {late_ms} ms after its deadline")

    def check_start(self, task: str) -> None:
        """An attempt is about to begin.

        Raises:
            Violation: it must not, after how those before it ended.
        """
        if task in self._begun and self.not_safe(task):
            raise Violation("not safe to repeat", task, "is tried again after an attempt that may have begun")
        for kind in set(self._failures.get(task, ())):
            if self._spent(task, kind):
                raise Violation("retry policy", task, f"is tried again after {self._failures[task]}")

    def _submitted(self, event: TaskSubmitted, now_ns: int) -> None:
        self._queued[event.task] = now_ns
        if event.deadline_ns:
            # One that has passed already is dealt with after the task has been taken in.
            heappush(self._deadlines, (max(event.deadline_ns, now_ns), event.task))
        terms = event.terms
        if terms is None:
            return
        at = (event.tenant, terms.idempotency_key)
        if terms.idempotency_key and self._keys.setdefault(at, event.task) != event.task:
            raise Violation("one task per key", event.task, f"was taken in, and {self._keys[at]} has its key")
        if terms.origin and terms.origin not in self.letters:
            raise Violation("dead letters", terms.origin, f"is tried again by {event.task} and is no dead letter")

    @property
    def keys(self) -> list[tuple[str, str]]:
        """All idempotency keys there ever were, each with its tenant."""
        return list(self._keys)

    def key_of(self, tenant: str, key: str) -> str:
        """The task that has an idempotency key, or nothing."""
        return self._keys.get((tenant, key), "")

    def stands_for(self, tenant: str, spec: TaskSpec) -> str:
        """The task that a submit is by its idempotency key, or nothing."""
        terms = spec.terms
        made = self._ledger.submitted.get(self.key_of(tenant, terms.idempotency_key)) if terms is not None else None
        if made is None:
            return ""
        asked = (spec.capability, sha256(spec.parameters).digest(), spec.after)
        return made.task if (made.capability, made.parameters, made.after) == asked else ""

    def not_safe(self, task: str) -> bool:
        """Whether the task must not be done twice."""
        spec = self._ledger.submitted[task]
        return spec.capability in self._unsafe or (spec.terms is not None and not spec.terms.safe_to_repeat)

    def _spent(self, task: str, kind: str) -> bool:
        terms = self._ledger.submitted[task].terms
        policy = terms.retry if terms is not None and terms.retry is not None else RetryPolicy()
        allowed: int = getattr(policy, kind, -1)
        return 0 <= allowed < self._failures[task].count(kind)

    def _failed(self, event: AttemptFailed, now_ns: int) -> None:
        task = event.task
        if event.state not in _NOT_BEGUN:
            self._begun.add(task)
        if event.failure.permanent:
            self._hopeless.add(task)
        kind = event.state.name.lower()
        if event.state is AttemptState.TIMED_OUT and event.failure.kind == "heartbeat":
            kind = "silent"
            spec = self._ledger.submitted[task]
            asked_ns = spec.terms.heartbeat_timeout_ns if spec.terms is not None else 0
            offer = self._ledger.state.offers.get(spec.capability)
            beat_ns = asked_ns or (offer.heartbeat_timeout_ns if offer is not None else 0)
            if not beat_ns or now_ns < self._started.get(task, now_ns) + beat_ns:
                raise Violation("heartbeat", task, f"was called silent before its {beat_ns} ns were over")
        self._failures.setdefault(task, []).append(kind)
        self._started.pop(task, None)

    def _died(self, event: TaskDied, now_ns: int) -> None:
        task, kind = event.task, event.failure.kind
        if review_of(self._ledger.submitted[task]) is None:
            self.letters[task] = None
        if len(self.letters) > self._letters_max:
            del self.letters[next(iter(self.letters))]
        if kind == "dependency" or task in self._hopeless:
            return
        spec = self._ledger.submitted[task]
        if kind == "deadline":
            if not spec.deadline_ns or now_ns < spec.deadline_ns:
                raise Violation("deadline", task, f"died of its deadline {spec.deadline_ns - now_ns} ns before that")
        elif kind == "queue_timeout":
            allowed_ns = spec.terms.queue_timeout_ns if spec.terms is not None else 0
            if not allowed_ns or now_ns < self._queued[task] + allowed_ns:
                raise Violation("queue time-out", task, f"died of waiting before its {allowed_ns} ns were over")
        elif task in self._begun and self.not_safe(task):
            return
        elif not any(self._spent(task, kind) for kind in self._failures.get(task, ())):
            tried = self._ledger.counted.get(task, 0)
            if tried < spec.attempts_max:
                raise Violation("attempts", task, f"was given up after {tried} of {spec.attempts_max} attempts")

    def _closed(self, event: DeadLetterClosed) -> None:
        if event.task not in self.letters:
            raise Violation("dead letters", event.task, "was closed and is no dead letter")
        del self.letters[event.task]
        if event.successor:
            made = self._ledger.submitted.get(event.successor)
            if made is None or made.terms is None or made.terms.origin != event.task:
                raise Violation("dead letters", event.task, f"{event.successor} should try it again, and is {made}")

    def _schedule(self, event: ScheduleSet | ScheduleRemoved | SchedulePlanned | ScheduleFired, now_ns: int) -> None:
        if isinstance(event, ScheduleSet):
            self._schedules[event.schedule.name] = event.schedule
            self._times[event.schedule.name] = []
        elif isinstance(event, ScheduleRemoved):
            del self._schedules[event.schedule]
            self._made.pop(event.schedule, None)
        elif isinstance(event, SchedulePlanned):
            self._times[event.schedule] = list(event.times_ns)
        else:
            self._check_fired(event, now_ns)

    def _check_fired(self, event: ScheduleFired, now_ns: int) -> None:
        name, schedule = event.schedule, self._schedules.get(event.schedule)
        if schedule is None:
            raise Violation("schedule", name, f"made {event.task}, and is not there")
        if event.at_ns:
            times = self._times[name]
            if (name, event.at_ns) in self._fired:
                raise Violation("schedule", name, f"dealt with its time {event.at_ns} twice")
            if not times or times.pop(0) != event.at_ns:
                raise Violation("schedule", name, f"dealt with {event.at_ns} out of turn; planned are {times}")
            if event.at_ns > now_ns or schedule.paused:
                raise Violation("schedule", name, f"dealt with {event.at_ns} too early")
            self._fired.add((name, event.at_ns))
            if schedule.missed is Missed.ALL and event.why.startswith("nobody was there"):
                raise Violation("schedule", name, f"left out {event.at_ns}: {event.why}")
        if event.task:
            made = self._ledger.submitted.get(event.task)
            if made is None or made.terms is None or made.terms.schedule != name:
                raise Violation("schedule", name, f"says that it made {event.task}, which is {made}")
            before = self._made.get(name)
            if before is not None and before not in self._ledger.settled and schedule.overlap is not Overlap.ALLOW:
                raise Violation("schedule", name, f"made {event.task} beside {before}")
            self._made[name] = event.task
