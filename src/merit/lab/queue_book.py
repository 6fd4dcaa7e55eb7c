"""What a ledger knows of order and limits: whose turn it is, what is paused, delayed, or too much at once."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

from merit.lab.asked import key_of
from merit.lab.violation import Violation
from merit.model.events import (
    AttemptAssigned,
    AttemptFailed,
    Event,
    LeadershipStarted,
    QueuePaused,
    QueueResumed,
    RuleSet,
    TaskDelayed,
    TaskSubmitted,
)
from merit.model.limits import SECOND_NS
from merit.model.rules import Rule, RuleKind
from merit.model.tasks import AttemptState, TaskState

if TYPE_CHECKING:
    from merit.lab.ledger import Ledger

Gate = tuple[RuleKind, str, str]
Place = tuple[int, bool, int, int]

_RATE_SLACK_NS = 40_000_000
"""A timer goes off up to 17 ms late, and what the rate allows meanwhile may be made up for."""
_NEVER = 2**63
_HELD_AGAINST = (
    AttemptState.FAILED,
    AttemptState.REFUSED,
    AttemptState.TIMED_OUT,
    AttemptState.LOST,
    AttemptState.REJECTED,
)


class QueueBook:
    """Reads every event before it is folded.

    Args:
        ledger: whose book it is.
        ageing_ns: how long waiting counts as much as half a step of priority.
    """

    def __init__(self, ledger: Ledger, ageing_ns: int) -> None:
        self._ledger = ledger
        self._ageing_ns = ageing_ns
        self._since_ns: dict[str, int] = {}
        self._places: dict[str, int] = {}
        self._not_before_ns: dict[str, int] = {}
        self._paused: set[str] = set()
        self._rules: dict[tuple[RuleKind, str], Rule] = {}
        self._starts: dict[Gate, list[int]] = {}
        """When attempts began under a limit on their rate, since it was set or somebody else leads."""
        self.reached: Counter[str] = Counter()
        """How often an attempt took the last place under a limit."""
        self._failed_by: dict[str, set[str]] = {}

    def take(self, event: Event, now_ns: int) -> None:
        """The next event.

        Raises:
            Violation: it must not be.
        """
        match event:
            case TaskSubmitted():
                terms = event.terms
                self._places[event.task] = len(self._places)
                self._not_before_ns[event.task] = terms.not_before_ns if terms is not None else 0
                self._since_ns[event.task] = max(now_ns, self._not_before_ns[event.task])
            case TaskDelayed():
                self._not_before_ns[event.task] = event.until_ns
            case AttemptAssigned():
                self._check_start(event, now_ns)
            case AttemptFailed() if event.state in _HELD_AGAINST:
                holder = self._ledger.live.get(event.task) or self._ledger.reported.get(event.task)
                if holder is not None:
                    self._failed_by.setdefault(event.task, set()).add(holder[1])
            case QueuePaused():
                self._paused.add(event.capability)
            case QueueResumed():
                self._paused.discard(event.capability)
            case RuleSet():
                self._set(event.rule)
            case LeadershipStarted():
                self._starts.clear()
            case _:
                pass

    def _set(self, rule: Rule) -> None:
        if rule.limits:
            self._rules[rule.kind, rule.name] = rule
        else:
            self._rules.pop((rule.kind, rule.name), None)
        for gate in [gate for gate in self._starts if gate[:2] == (rule.kind, rule.name)]:
            del self._starts[gate]

    def _check_start(self, event: AttemptAssigned, now_ns: int) -> None:
        task, spec = event.task, self._ledger.submitted.get(event.task)
        if spec is None:
            return  # the ledger itself says so
        if spec.capability in self._paused:
            raise Violation("pause", task, f"was given out while {spec.capability} was paused")
        if now_ns < self._not_before_ns[task]:
            early_ms = (self._not_before_ns[task] - now_ns) // 1_000_000
            raise Violation("delay", task, f"attempt {event.number} began {early_ms} ms before its time")
        self._check_turn(event, spec, now_ns)
        for gate in _gates(spec):
            rule = self._rules.get(gate[:2])
            if rule is not None:
                self._check_limit(task, gate, rule, now_ns)

    def _check_limit(self, task: str, gate: Gate, rule: Rule, now_ns: int) -> None:
        ledger = self._ledger
        if rule.concurrency:
            alive = sorted(other for other in ledger.live if gate in _gates(ledger.submitted[other]))
            if len(alive) == rule.concurrency - 1:
                self.reached[f"limit reached: {rule.kind.name}"] += 1
            if len(alive) >= rule.concurrency:
                raise Violation("limit", task, f"began beside {alive}, and {rule.concurrency} are the most at {gate}")
        if rule.rate_millihz:
            starts = self._starts.setdefault(gate, [])
            starts.append(now_ns)
            for index, since_ns in enumerate(starts):
                allowed = rule.burst + (now_ns - since_ns + _RATE_SLACK_NS) * rule.rate_millihz // (1_000 * SECOND_NS)
                if len(starts) - index > allowed:
                    message = (
                        f"is the {len(starts) - index}. at {gate} in {now_ns - since_ns} ns, {allowed} are allowed"
                    )
                    raise Violation("rate", task, message)

    def _check_turn(self, event: AttemptAssigned, spec: TaskSubmitted, now_ns: int) -> None:
        """Among tasks of one tenant and capability that no limit holds back and that ask the same of a worker: higher
        priorities go first, then what was tried before, then what is due first, then first come, first served; what
        waited long enough counts more."""
        ledger, task = self._ledger, event.task
        known = ledger.state.tasks.get(task)
        if known is None or known.state is not TaskState.PENDING:
            raise Violation("turn", task, "was assigned and was not in its queue")
        mine = self._place(task)
        keyed = (RuleKind.KEY, spec.capability) in self._rules
        if keyed and ledger.quiet_ns[0] <= now_ns < ledger.quiet_ns[1] + _RATE_SLACK_NS:
            return  # nothing was due while the process slept, so that what a rate put aside has yet to come forward
        for other, waiting in ledger.state.tasks.items():
            if waiting.state is not TaskState.PENDING or other == task:
                continue
            rival = ledger.submitted[other]
            if (rival.capability, rival.tenant) != (spec.capability, spec.tenant):
                continue
            if keyed and key_of(rival) != key_of(spec):
                continue
            if not ledger.fleet_book.alike(spec, rival):
                continue
            if event.worker in self._failed_by.get(other, ()) or event.worker in ledger.audit_book.shunned(other):
                continue
            if self._place(other) < mine:
                raise Violation("turn", task, f"was assigned before {other}, whose turn it was")

    def _place(self, task: str) -> Place:
        spec = self._ledger.submitted[task]
        return (
            self._since_ns[task] // self._ageing_ns - 2 * spec.priority,
            not self._ledger.attempts.get(task),
            spec.deadline_ns or _NEVER,
            self._places[task],
        )


def _gates(spec: TaskSubmitted) -> list[Gate]:
    gates: list[Any] = [(RuleKind.CAPABILITY, spec.capability, ""), (RuleKind.TENANT, spec.tenant, "")]
    if key_of(spec):
        gates.append((RuleKind.KEY, spec.capability, key_of(spec)))
    return gates
