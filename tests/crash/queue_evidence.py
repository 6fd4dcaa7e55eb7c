"""What must be true of the queue in a journal, event by event, in the order in which they were written."""

from collections import Counter, defaultdict

from merit.model.events import (
    AttemptAssigned,
    AttemptFailed,
    AttemptReturned,
    DeadLetterClosed,
    Event,
    RuleSet,
    ScheduleFired,
    ScheduleSet,
    TaskCanceled,
    TaskCompleted,
    TaskDied,
    TaskSubmitted,
)
from merit.model.rules import RuleKind

Counted = tuple[RuleKind, str, str]
"""What a limit counts: kind, name of the capability or tenant, key."""


class QueueTrail:
    """Limits that hold, keys and dead letters that stand for one task each, times of schedules that came once."""

    def __init__(self) -> None:
        self.specs: dict[str, TaskSubmitted] = {}
        self.keys: dict[tuple[str, str], str] = {}
        self.successors: dict[str, str] = {}
        """By dead letter that was retried."""
        self.fired: dict[str, list[int]] = {}
        """By schedule: its times since it was set last."""
        self.scheduled: set[str] = set()
        self.reached: Counter[tuple[RuleKind, str]] = Counter()
        """How often a limit was just reached: that it did something."""
        self._concurrency: dict[tuple[RuleKind, str], int] = {}
        self._live: dict[str, set[int]] = defaultdict(set)
        """By task: attempts that have not ended."""
        self._counts: Counter[Counted] = Counter()
        self._dead: set[str] = set()

    def take(self, event: Event, time_ns: int) -> None:
        """The next event, of a record of this time."""
        match event:
            case RuleSet():
                self._concurrency[event.rule.kind, event.rule.name] = event.rule.concurrency
            case TaskSubmitted():
                self._submitted(event)
            case AttemptAssigned():
                self._assigned(event, time_ns)
            case AttemptFailed() | AttemptReturned():
                self._ended(event.task, {event.number})
            case TaskCompleted() | TaskDied() | TaskCanceled():
                self._ended(event.task, self._live[event.task])
                if isinstance(event, TaskDied):
                    self._dead.add(event.task)
            case DeadLetterClosed():
                self._closed(event)
            case ScheduleSet():
                self.fired[event.schedule.name] = []
            case ScheduleFired():
                self._fired(event)

    def check(self) -> None:
        """At the end."""
        assert not +self._counts, "nothing is live"
        origins = {spec.terms.origin: task for task, spec in self.specs.items() if spec.terms and spec.terms.origin}
        assert origins == self.successors, (
            "each retried dead letter has one successor, and each successor a dead letter"
        )
        made = {task for task, spec in self.specs.items() if spec.terms and spec.terms.schedule}
        assert made == self.scheduled, "each task of a schedule was made for one of its times"

    def _submitted(self, event: TaskSubmitted) -> None:
        self.specs[event.task] = event
        if event.terms is not None and event.terms.idempotency_key:
            at = (event.tenant, event.terms.idempotency_key)
            assert at not in self.keys, f"{event.task} was made although {self.keys[at]} has its key, {at}"
            self.keys[at] = event.task

    def _counted(self, task: str) -> list[Counted]:
        spec = self.specs[task]
        counted = [(RuleKind.CAPABILITY, spec.capability, ""), (RuleKind.TENANT, spec.tenant, "")]
        if spec.terms is not None and spec.terms.key:
            counted.append((RuleKind.KEY, spec.capability, spec.terms.key))
        return counted

    def _assigned(self, event: AttemptAssigned, time_ns: int) -> None:
        terms = self.specs[event.task].terms
        assert terms is None or terms.not_before_ns <= time_ns, f"{event.task} was given out before its time"
        self._live[event.task].add(event.number)
        for counted in self._counted(event.task):
            kind, name, key = counted
            self._counts[counted] += 1
            limit = self._concurrency.get((kind, name), 0)
            assert not limit or self._counts[counted] <= limit, (
                f"{event.task} is one too many for {kind.name} {name} {key}"
            )
            self.reached[kind, name] += self._counts[counted] == limit

    def _ended(self, task: str, numbers: set[int]) -> None:
        ended = self._live[task] & numbers
        self._live[task] -= ended
        for counted in self._counted(task) if ended else ():
            self._counts[counted] -= len(ended)

    def _closed(self, event: DeadLetterClosed) -> None:
        assert event.task in self._dead, f"{event.task} never died"
        assert event.task not in self.successors, f"{event.task} was retried twice"
        if event.successor:
            self.successors[event.task] = event.successor

    def _fired(self, event: ScheduleFired) -> None:
        times = self.fired[event.schedule]
        assert not times or times[-1] < event.at_ns, f"{event.schedule}: {event.at_ns} came twice"
        times.append(event.at_ns)
        if event.task:
            assert event.task not in self.scheduled, f"{event.task} stands for two times of {event.schedule}"
            self.scheduled.add(event.task)
