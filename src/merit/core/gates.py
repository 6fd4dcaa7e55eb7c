"""Limits on how much runs at once and how fast it begins.

A gate is one limit at work: it knows the tasks that have a live attempt under it (rebuilt from the state by a new
leader, never journalled beside it) and what waits for it to open. What waits is a whole queue, a tenant's flow in it or
the lane of a key: never single tasks, so that a closed gate costs the same however much stands before it.

Rates are kept by the generic cell rate algorithm (ITU-T I.371, annex A): one number, the time at which the next one would
be due if all came evenly. It is soft: a new leader begins without a burst.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Protocol

from merit.core.timers import Timers
from merit.model.limits import SECOND_NS
from merit.model.rules import Rule, RuleKind
from merit.model.tasks import Task, TaskState

GATE_KEY = "gate/"
"""Prefix of the timer keys of gates."""
_TIMER_SLACK_NS = 1 << 25
"""A timer goes off up to 17 ms late, and what the rate allows meanwhile must not be lost: twice that."""
_SWEEP_AT_LEAST = 1_024
_LIVE = (TaskState.ASSIGNED, TaskState.RUNNING)


class Parked(Protocol):
    """What can wait for a gate."""

    @property
    def capability(self) -> str:
        """Whose tasks it holds."""
        ...

    def unpark(self) -> None:
        """The gate has opened, or may have: come forward again."""
        ...


class Gate:
    """See the module."""

    __slots__ = ("_burst_ns", "_interval_ns", "_next_ns", "_timers", "holders", "key", "parked", "rule")

    def __init__(self, key: str, rule: Rule, now_ns: int, timers: Timers) -> None:
        self._timers = timers
        self.key = key
        """Of its timer."""
        self.holders: set[str] = set()
        self.parked: dict[tuple[str, str, str], Parked] = {}
        """By capability, tenant and key, as far as they are told apart here: a queue that empties and fills again and
        again waits once."""
        self._next_ns = now_ns
        self.change(rule)

    def change(self, rule: Rule) -> None:
        """From now on this holds."""
        self.rule = rule
        self._interval_ns = 1_000 * SECOND_NS // rule.rate_millihz if rule.rate_millihz else 0
        self._burst_ns = self._interval_ns * (max(1, rule.burst) - 1)

    def closed(self, now_ns: int) -> bool:
        """Whether nothing may begin now. One that opens by itself sees to it that somebody looks then."""
        if self.rule.concurrency and len(self.holders) >= self.rule.concurrency:
            return True
        if self._interval_ns and self._next_ns - self._burst_ns > now_ns:
            self._timers.arm(self.key, self._next_ns - self._burst_ns)
            return True
        return False

    def take(self, task: str, now_ns: int) -> None:
        """An attempt at the task begins."""
        self.holders.add(task)
        if self._interval_ns:
            # What a late timer kept back may be made up for, but no more than that.
            self._next_ns = max(self._next_ns, now_ns - _TIMER_SLACK_NS) + self._interval_ns

    def release(self, task: str) -> Iterable[Parked]:
        """No attempt at the task lives any more; what may come forward because of that."""
        if task in self.holders:
            self.holders.discard(task)
            if self.parked:
                return self.open()
        return ()

    def idle(self, now_ns: int) -> bool:
        """Whether it would be just the same if it were made anew."""
        return not self.holders and not self.parked and self._next_ns <= now_ns

    def open(self) -> list[Parked]:
        """Let everything that waits look again."""
        waiting, self.parked = list(self.parked.values()), {}
        for unit in waiting:
            unit.unpark()
        return waiting


class Gates:
    """All of a cell. Those of keys come and go with their tasks."""

    def __init__(self, timers: Timers) -> None:
        self._timers = timers
        self.key_rules: dict[str, Rule] = {}
        self._gates: dict[str, Gate] = {}
        """By timer key."""
        self._sweep_at = _SWEEP_AT_LEAST
        self.any = False
        """Whether there is any limit."""

    def __iter__(self) -> Iterator[Gate]:
        return iter(self._gates.values())

    def of(self, kind: RuleKind, name: str) -> Gate | None:
        """The gate of a capability or a tenant."""
        return self._gates.get(_timer_key(kind, name))

    def of_key(self, capability: str, key: str, now_ns: int) -> Gate | None:
        """The gate of one key, which is there from now on; None where keys are not limited."""
        rule = self.key_rules.get(capability)
        if rule is None or not key:
            return None
        at = _timer_key(RuleKind.KEY, capability, key)
        gate = self._gates.get(at)
        if gate is None:
            if len(self._gates) >= self._sweep_at:
                self._sweep(now_ns)
            gate = self._gates[at] = Gate(at, rule, now_ns, self._timers)
        return gate

    def set(self, rule: Rule, now_ns: int) -> list[Parked]:
        """A limit is there, changed or gone; what may come forward because of that."""
        if rule.kind is RuleKind.KEY:
            if rule.limits:
                self.key_rules[rule.name] = rule
            else:
                self.key_rules.pop(rule.name, None)
            changed = [gate for gate in self if gate.rule.kind is RuleKind.KEY and gate.rule.name == rule.name]
        else:
            at = _timer_key(rule.kind, rule.name)
            if at not in self._gates and rule.limits:
                self._gates[at] = Gate(at, rule, now_ns, self._timers)
            changed = [self._gates[at]] if at in self._gates else []
        woken: list[Parked] = []
        for gate in changed:
            gate.change(rule)
            woken += gate.open()
            if not rule.limits:
                self._remove(gate)
        self.any = bool(self._gates or self.key_rules)
        return woken

    def due(self, key: str) -> list[Parked]:
        """The timer of a gate went off: what may come forward because of that."""
        gate = self._gates.get(key)
        return gate.open() if gate is not None else []

    def over(self, task: Task, now_ns: int) -> list[Gate]:
        """The gates that the task stands before."""
        found = [self.of(RuleKind.CAPABILITY, task.capability), self.of(RuleKind.TENANT, task.tenant)]
        if task.terms is not None and self.key_rules:
            found.append(self.of_key(task.capability, task.terms.key, now_ns))
        return [gate for gate in found if gate is not None]

    def hold(self, tasks: Iterable[Task], now_ns: int) -> None:
        """Count the tasks that have a live attempt, without their having passed now."""
        for task in tasks:
            if task.state in _LIVE:
                for gate in self.over(task, now_ns):
                    gate.holders.add(task.id)

    def release(self, task: Task, now_ns: int) -> list[Parked]:
        """No attempt at the task lives any more; what may come forward because of that."""
        return [unit for gate in self.over(task, now_ns) for unit in gate.release(task.id)]

    def _sweep(self, now_ns: int) -> None:
        """Keys come and go; a gate that holds nobody back and has nothing to remember need not be there."""
        for gate in [gate for gate in self if gate.rule.kind is RuleKind.KEY and gate.idle(now_ns)]:
            self._remove(gate)
        self._sweep_at = max(_SWEEP_AT_LEAST, 2 * len(self._gates))

    def _remove(self, gate: Gate) -> None:
        del self._gates[gate.key]
        self._timers.disarm(gate.key)


def _timer_key(kind: RuleKind, name: str, key: str = "") -> str:
    # The length makes sure that no two pairs of names give the same text.
    return f"{GATE_KEY}{kind.name}/{len(name)}/{name}/{key}"
