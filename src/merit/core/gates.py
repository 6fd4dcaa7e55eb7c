"""Limits on how much runs at once and how fast it begins.

A gate is one limit at work: it knows the tasks that have a live attempt under it (rebuilt from the state by a new
leader, never journalled beside it) and what waits for it to open. What waits is a whole queue, a tenant's flow in it or
the lane of a key: never single tasks, so that a closed gate costs the same however much stands before it.

Rates are kept by the generic cell rate algorithm (ITU-T I.371, annex A): one number, the time at which the next one would
be due if all came evenly. It is soft: a new leader begins without a burst.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
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
_NO_LIMIT = 2**62
_LIVE = (TaskState.ASSIGNED, TaskState.RUNNING)


class Parked(Protocol):
    """What can wait for a gate."""

    @property
    def line(self) -> str:
        """Whose tasks it holds."""
        ...

    def unpark(self) -> None:
        """The gate has opened, or may have: come forward again."""
        ...


class Gate:
    """See the module."""

    __slots__ = ("_burst_ns", "_concurrency", "_interval_ns", "_next_ns", "_timers", "holders", "key", "parked", "rule")

    def __init__(self, key: str, rule: Rule, now_ns: int, timers: Timers) -> None:
        self._timers = timers
        self.key = key
        """Of its timer."""
        self.holders: set[str] = set()
        self.parked: dict[tuple[str, str, str], Parked] = {}
        """By line, tenant and key, as far as they are told apart here: a queue that empties and fills again and
        again waits once."""
        self._next_ns = now_ns
        self.change(rule)

    def change(self, rule: Rule) -> None:
        """From now on this holds."""
        self.rule = rule
        self._concurrency = rule.concurrency or _NO_LIMIT
        self._interval_ns = 1_000 * SECOND_NS // rule.rate_millihz if rule.rate_millihz else 0
        self._burst_ns = self._interval_ns * (max(1, rule.burst) - 1)

    def closed(self, now_ns: int) -> bool:
        """Whether nothing may begin now. One that opens by itself sees to it that somebody looks then."""
        if len(self.holders) >= self._concurrency:
            return True
        if self._interval_ns and self._next_ns - self._burst_ns > now_ns:
            self._timers.arm(self.key, self._next_ns - self._burst_ns)
            return True
        return False

    def room(self, now_ns: int) -> int:
        """How many may begin now, as far as this limit goes."""
        free = self._concurrency - len(self.holders)
        if self._interval_ns:
            since_ns = max(self._next_ns, now_ns - _TIMER_SLACK_NS)
            free = min(free, (now_ns + self._burst_ns - since_ns) // self._interval_ns + 1)
        return max(0, free)

    def enter(self, task: str, now_ns: int) -> bool:
        """Begin an attempt at the task if it is open; whether it was."""
        holders = self.holders
        if len(holders) >= self._concurrency:
            return False
        if self._interval_ns:
            if self.closed(now_ns):
                return False
            self.take((task,), now_ns)
        holders.add(task)
        return True

    def take(self, tasks: Sequence[str], now_ns: int) -> None:
        """Attempts at these tasks begin."""
        self.holders.update(tasks)
        if self._interval_ns:
            # What a late timer kept back may be made up for, but no more than that.
            since_ns = max(self._next_ns, now_ns - _TIMER_SLACK_NS)
            self._next_ns = since_ns + self._interval_ns * len(tasks)

    def idle(self, now_ns: int) -> bool:
        """Whether it would be just the same if it were made anew."""
        return not self.holders and not self.parked and self._next_ns <= now_ns

    def open(self) -> list[Parked]:
        """Let everything that waits look again."""
        waiting, self.parked = list(self.parked.values()), {}
        for unit in waiting:
            unit.unpark()
        return waiting


class KeyGates:
    """The gates of the keys of one capability, each made when it is first asked for."""

    def __init__(self, rule: Rule, timers: Timers, by_timer: dict[str, Gate]) -> None:
        self.rule = rule
        self._timers = timers
        self._by_timer = by_timer
        self.gates: dict[str, Gate] = {}
        self._sweep_at = _SWEEP_AT_LEAST

    def of(self, key: str, now_ns: int) -> Gate:
        """The gate of a key, which is there from now on."""
        gate = self.gates.get(key)
        if gate is None:
            if len(self.gates) >= self._sweep_at:
                self._sweep(now_ns)
            at = _timer_key(self.rule, key)
            gate = self.gates[key] = self._by_timer[at] = Gate(at, self.rule, now_ns, self._timers)
        return gate

    def change(self, rule: Rule) -> list[Parked]:
        """From now on this holds; what may come forward because of that."""
        self.rule = rule
        for gate in self.gates.values():
            gate.change(rule)
        return [unit for gate in self.gates.values() for unit in gate.open()]

    def remove(self) -> None:
        """Keys are not limited any more."""
        for key in list(self.gates):
            self._remove(key)

    def _sweep(self, now_ns: int) -> None:
        """Keys come and go; a gate that holds nobody back and has nothing to remember need not be there."""
        for key in [key for key, gate in self.gates.items() if gate.idle(now_ns)]:
            self._remove(key)
        self._sweep_at = max(_SWEEP_AT_LEAST, 2 * len(self.gates))

    def _remove(self, key: str) -> None:
        gate = self.gates.pop(key)
        del self._by_timer[gate.key]
        self._timers.disarm(gate.key)


class Gates:
    """All of a cell, by the names of capabilities and tenants."""

    def __init__(self, timers: Timers) -> None:
        self._timers = timers
        self.capabilities: dict[str, Gate] = {}
        self.tenants: dict[str, Gate] = {}
        self.keys: dict[str, KeyGates] = {}
        """By capability whose keys are limited."""
        self._by_timer: dict[str, Gate] = {}
        self.any = False
        """Whether there is any limit."""

    def __iter__(self) -> Iterator[Gate]:
        return iter(self._by_timer.values())

    def set(self, rule: Rule, now_ns: int) -> list[Parked]:
        """A limit is there, changed or gone; what may come forward because of that."""
        woken = self._set_keys(rule) if rule.kind is RuleKind.KEY else self._set_one(rule, now_ns)
        self.any = bool(self.capabilities or self.tenants or self.keys)
        return woken

    def _set_keys(self, rule: Rule) -> list[Parked]:
        gates = self.keys.get(rule.name)
        if gates is None:
            if rule.limits:
                self.keys[rule.name] = KeyGates(rule, self._timers, self._by_timer)
            return []
        woken = gates.change(rule)
        if not rule.limits:
            gates.remove()
            del self.keys[rule.name]
        return woken

    def _set_one(self, rule: Rule, now_ns: int) -> list[Parked]:
        gates = self.capabilities if rule.kind is RuleKind.CAPABILITY else self.tenants
        gate = gates.get(rule.name)
        if gate is None:
            if rule.limits:
                at = _timer_key(rule)
                gates[rule.name] = self._by_timer[at] = Gate(at, rule, now_ns, self._timers)
            return []
        gate.change(rule)
        if not rule.limits:
            del gates[rule.name], self._by_timer[gate.key]
            self._timers.disarm(gate.key)
        return gate.open()

    def due(self, key: str) -> list[Parked]:
        """The timer of a gate went off: what may come forward because of that."""
        gate = self._by_timer.get(key)
        return gate.open() if gate is not None else []

    def over(self, task: Task, now_ns: int) -> list[Gate]:
        """The gates that the task stands before."""
        found = [self.capabilities.get(task.capability), self.tenants.get(task.tenant)]
        if self.keys and task.terms is not None and task.terms.key:
            keys = self.keys.get(task.capability)
            found.append(keys.of(task.terms.key, now_ns) if keys is not None else None)
        return [gate for gate in found if gate is not None]

    def hold(self, tasks: Iterable[Task], now_ns: int) -> None:
        """Count the tasks that have a live attempt, without their having passed now."""
        for task in tasks:
            if task.state in _LIVE:
                for gate in self.over(task, now_ns):
                    gate.holders.add(task.id)

    def release(self, task: Task) -> list[Parked]:
        """No attempt at the task lives any more; what may come forward because of that."""
        woken: list[Parked] = []
        if self.capabilities:
            _release(self.capabilities.get(task.capability), task.id, woken)
        if self.tenants:
            _release(self.tenants.get(task.tenant), task.id, woken)
        if self.keys and task.terms is not None:
            keys = self.keys.get(task.capability)
            if keys is not None:
                _release(keys.gates.get(task.terms.key), task.id, woken)
        return woken


def _release(gate: Gate | None, task: str, woken: list[Parked]) -> None:
    if gate is not None:
        gate.holders.discard(task)
        if gate.parked:
            woken += gate.open()


def _timer_key(rule: Rule, key: str = "") -> str:
    # The length makes sure that no two pairs of names give the same text.
    return f"{GATE_KEY}{rule.kind.name}/{len(rule.name)}/{rule.name}/{key}"
