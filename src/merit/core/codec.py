"""Events and state as bytes, and how those of older versions are read."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from functools import reduce
from hashlib import sha256
from operator import or_
from typing import Any

import msgspec

from merit.core.apply import apply
from merit.core.state import KeyEntry, State, Tenant
from merit.model.auditing import AuditCase, AuditPolicy
from merit.model.events import Event
from merit.model.fleet import Admission, Allocation, Rollout
from merit.model.record import Record
from merit.model.rules import Rule, TenantTerms
from merit.model.schedules import Planned
from merit.model.supervision import Objective, Policy
from merit.model.tasks import Task, TaskState
from merit.model.workers import Offer, Profile, Worker

FOLD_VERSION = 4
"""Goes up when the same events give another state, or when the snapshot's form changes."""

Upgrade = Callable[[list[Any]], list[Any]]

UPGRADES: Mapping[str, Upgrade] = {}
"""By old tag: what turns the array of an old event into that of its successor. Applied until the tag is a current one."""


class UnreadableEvent(ValueError):
    """The bytes are no event that this version, or an upgrade known to it, understands."""


_UNDECODABLE = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)
"""What msgspec raises on bytes that are not what was expected."""

encode_event = msgspec.msgpack.Encoder().encode
_ANY_EVENT: Any = reduce(or_, Event.__subclasses__())
_decode_current = msgspec.msgpack.Decoder(_ANY_EVENT).decode


def decode_event(data: bytes, upgrades: Mapping[str, Upgrade] = UPGRADES) -> Event:
    """One event, upgraded to its current form where it is an older one.

    Raises:
        UnreadableEvent: it is not an event, or one of a newer version of Merit.
    """
    try:
        event: Event = _decode_current(data)
    except _UNDECODABLE as error:
        event = _decode_old(data, upgrades, error)
    return event


def decode_events(blocks: Sequence[bytes]) -> list[Event]:
    """All events of a record, as ``decode_event`` has each, and raises as that."""
    try:
        return [_decode_current(data) for data in blocks]
    except _UNDECODABLE:
        return [decode_event(data) for data in blocks]


def _decode_old(data: bytes, upgrades: Mapping[str, Upgrade], error: Exception) -> Event:
    try:
        raw = msgspec.msgpack.decode(data)
        tag = raw[0]
        if tag not in upgrades:
            raise UnreadableEvent(f"event {tag!r}: {error}; was it written by a newer version of Merit?") from error
        while raw[0] in upgrades:
            raw = upgrades[raw[0]](raw)
        event: Event = msgspec.convert(raw, _ANY_EVENT)
    except (*_UNDECODABLE, TypeError, IndexError, KeyError) as cause:
        raise UnreadableEvent(f"not an event: {cause}") from cause
    return event


def fold(state: State, record: Record) -> None:
    """Apply all events of a record that follows the state.

    Raises:
        ValueError: the record does not follow.
        UnreadableEvent, IllegalTransition: the journal and this version disagree.
    """
    if record.first != state.sequence + 1:
        raise ValueError(f"record {record.first} does not follow a state at {state.sequence}")
    payloads = {sha256(payload).digest(): payload for payload in record.payloads}
    time_ns = record.time_ns
    for event in decode_events(record.events):
        apply(state, event, payloads, time_ns)


class _Snapshot(msgspec.Struct, array_like=True):
    """The state without what follows from the rest of it."""

    sequence: int
    epoch: int
    holder: str
    grace_until_ns: int
    finals_max: int
    finals_bytes_max: int
    order: int
    completed: int
    dead: int
    canceled: int
    forgotten: int
    tasks: list[Task]
    finals: list[str]
    workers: list[Worker]
    offers: list[Offer]
    dead_letters_max: int
    dead_letters_bytes_max: int
    dead_letters: list[str]
    keys_max: int
    keys_ns: int
    keys: list[tuple[str, str, KeyEntry]]
    keys_forgotten: int
    tenants: list[TenantTerms]
    paused: list[tuple[str, str]]
    rules: list[Rule]
    schedules: list[Planned]
    profiles_max: int
    homes_max: int
    profiles: list[Profile]
    allocations: list[Allocation]
    admissions: list[Admission]
    rollouts: list[Rollout]
    homes: list[tuple[str, str, str, str]]
    policy: Policy
    objectives: list[Objective]
    audits: list[AuditPolicy]
    salt: bytes
    cases: list[AuditCase]


_encode_snapshot = msgspec.msgpack.Encoder().encode
_decode_snapshot = msgspec.msgpack.Decoder(_Snapshot).decode


def encode_state(state: State) -> bytes:
    """The state as bytes; equal states give equal bytes, whatever way they came about."""
    return _encode_snapshot(
        _Snapshot(
            state.sequence,
            state.epoch,
            state.holder,
            state.grace_until_ns,
            state.finals_max,
            state.finals_bytes_max,
            state.order,
            state.completed,
            state.dead,
            state.canceled,
            state.forgotten,
            list(state.tasks.values()),
            [task.id for task in state.finals],
            list(state.workers.values()),  # as they stand: whose offer follows on another's depends on it
            [state.offers[name] for name in sorted(state.offers)],
            state.dead_letters_max,
            state.dead_letters_bytes_max,
            list(state.dead_letters),
            state.keys_max,
            state.keys_ns,
            [(tenant, key, entry) for (tenant, key), entry in state.keys.items()],
            state.keys_forgotten,
            [state.tenants[name].terms for name in sorted(state.tenants) if not state.tenants[name].terms.usual],
            sorted(state.paused.items()),
            [state.rules[at] for at in sorted(state.rules)],
            [state.schedules[name] for name in sorted(state.schedules)],
            state.profiles_max,
            state.homes_max,
            list(state.profiles.values()),
            [state.allocations[name] for name in sorted(state.allocations)],
            [state.admissions[name] for name in sorted(state.admissions)],
            [state.rollouts[name] for name in sorted(state.rollouts)],
            [(*at, worker) for at, worker in state.homes.items()],
            state.policy,
            [state.objectives[name] for name in sorted(state.objectives)],
            [state.audits[name] for name in sorted(state.audits)],
            state.salt,
            list(state.cases.values()),
        )
    )


def _add_the_fleet(raw: list[Any]) -> list[Any]:
    """From 2 to 3: no profiles and no homes of keys were kept, and nothing was set for the fleet.

    All else that is new has defaults that mean what was. Only whose turn it was is not known any more (``Worker.given`` and
    ``Worker.turn`` are 0 until the worker's next attempt), so that workers may take turns in another order once.
    """
    return [*raw, 0, 0, [], [], [], [], []]


def _add_records(raw: list[Any]) -> list[Any]:
    """From 3 to 4: of each worker and capability only a moving average was kept, where now its record is. What was not
    counted then counts from now on; and nobody had been judged."""
    return [*raw, [], [], [], b"", []]


SNAPSHOT_UPGRADES: Mapping[int, Upgrade] = {2: _add_the_fleet, 3: _add_records}
"""By version of the fold: what turns the array of a snapshot into that of the next version."""


def decode_state(data: bytes, fold_version: int = FOLD_VERSION) -> State:
    """The state that ``encode_state`` was given, by this version of the fold or by one that it can be upgraded from.

    Raises:
        ValueError: it is something else, or of a version that is too old or too new.
    """
    try:
        if fold_version == FOLD_VERSION:
            return _restore(_decode_snapshot(data))
        raw = msgspec.msgpack.decode(data)
        for version in range(fold_version, FOLD_VERSION):
            raw = SNAPSHOT_UPGRADES[version](raw)
        if fold_version > FOLD_VERSION:
            raise ValueError(f"it is of a newer version of Merit (fold {fold_version}, this one has {FOLD_VERSION})")
        return _restore(msgspec.convert(raw, _Snapshot))
    except (*_UNDECODABLE, KeyError, TypeError) as error:
        raise ValueError(f"not a snapshot of this version: {error!r}") from error


def _restore(kept: _Snapshot) -> State:
    tasks = {task.id: task for task in kept.tasks}
    state = State(
        kept.sequence,
        kept.epoch,
        kept.holder,
        kept.grace_until_ns,
        kept.finals_max,
        kept.finals_bytes_max,
        kept.order,
        kept.completed,
        kept.dead,
        kept.canceled,
        tasks,
        deque(tasks[name] for name in kept.finals),
        forgotten=kept.forgotten,
        workers={worker.id: worker for worker in kept.workers},
        offers={offer.name: offer for offer in kept.offers},
        dead_letters_max=kept.dead_letters_max,
        dead_letters_bytes_max=kept.dead_letters_bytes_max,
        dead_letters={name: tasks[name] for name in kept.dead_letters},
        keys_max=kept.keys_max,
        keys_ns=kept.keys_ns,
        keys={(tenant, key): entry for tenant, key, entry in kept.keys},
        keys_forgotten=kept.keys_forgotten,
        tenants={terms.tenant: Tenant(terms) for terms in kept.tenants},
        paused=dict(kept.paused),
        rules={(rule.kind, rule.name): rule for rule in kept.rules},
        schedules={planned.schedule.name: planned for planned in kept.schedules},
        profiles_max=kept.profiles_max,
        homes_max=kept.homes_max,
        profiles={profile.worker: profile for profile in kept.profiles},
        allocations={allocation.capability: allocation for allocation in kept.allocations},
        admissions={admission.capability: admission for admission in kept.admissions},
        rollouts={rollout.capability: rollout for rollout in kept.rollouts},
        policy=kept.policy,
        objectives={objective.capability: objective for objective in kept.objectives},
        homes={(tenant, capability, key): worker for tenant, capability, key, worker in kept.homes},
        audits={policy.capability: policy for policy in kept.audits},
        salt=kept.salt,
        cases={case.task: case for case in kept.cases},
    )
    state.reserved = {worker.reserved: worker.id for worker in kept.workers if worker.reserved}
    for at, worker in state.homes.items():
        state.homes_of.setdefault(worker, {})[at] = None
    state.finals_weights.extend(task.weight_bytes() for task in state.finals)
    state.finals_bytes = sum(state.finals_weights)
    state.dead_letters_bytes = sum(task.weight_bytes() for task in state.dead_letters.values())
    shared: dict[str, str] = {}
    for task in tasks.values():
        # Decoding made a string of its own for each occurrence of a name; millions of tasks share a few.
        task.capability = shared.setdefault(task.capability, task.capability)
        task.tenant = shared.setdefault(task.tenant, task.tenant)
        task.principal = shared.setdefault(task.principal, task.principal)
        if not task.state.final:
            state.live_bytes += task.request_bytes
            state.tenants.setdefault(task.tenant, Tenant(TenantTerms(task.tenant))).live += 1
            if task.state is TaskState.WAITING and task.blocked_by:
                for other in state.needed(task):
                    if not other.state.final:
                        state.dependents.setdefault(other.id, {})[task.id] = task
    return state


def state_digest(state: State) -> str:
    """SHA-256 of the encoded state, hexadecimal: two replays agree when their digests do."""
    return sha256(encode_state(state)).hexdigest()
