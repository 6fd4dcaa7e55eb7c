"""The part of the fold that is about workers: how they come and go, what is kept of them, and what operators set for
them. See :mod:`merit.core.apply`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from itertools import islice
from typing import Any

from msgspec.structs import replace

from merit.core.lifecycles import WORKER, IllegalTransition
from merit.core.state import Payloads, State
from merit.model.events import (
    AdmissionSet,
    AllocationSet,
    AuditSet,
    Event,
    RolloutEnded,
    RolloutShared,
    RolloutStarted,
    RoomSeen,
    WorkerAdmitted,
    WorkerDraining,
    WorkerHeard,
    WorkerJoined,
    WorkerLeft,
    WorkerPaused,
    WorkerRegistered,
    WorkerReleased,
    WorkerRemoved,
    WorkerReserved,
    WorkerResumed,
    WorkerTold,
)
from merit.model.fleet import Rollout, RolloutState, Tally
from merit.model.limits import RECORDS_KEPT
from merit.model.supervision import Stage
from merit.model.tasks import Attempt, AttemptState, Task
from merit.model.track_record import Ending, TrackRecord, measured_ns
from merit.model.workers import PERMILLE, Offer, Profile, Worker, WorkerState

_AVERAGED_OVER = 8
_COMPLETED = Ending.COMPLETED
_ENDINGS: Mapping[AttemptState, Ending] = {
    AttemptState.FAILED: Ending.FAILED,
    AttemptState.REFUSED: Ending.REFUSED,
    AttemptState.TIMED_OUT: Ending.TIMED_OUT,
    AttemptState.LOST: Ending.LOST,
    AttemptState.REJECTED: Ending.REJECTED,
}
"""What is held against a worker; a canceled attempt is not."""
_SHUT_OUT = (Stage.PAUSED, Stage.OUT)
_LOOKED_AT_MAX = 64
"""Profiles that are looked at to find one that can be forgotten: nearly always the first is one."""


def settle(state: State, task: Task, key: str, worker: Worker) -> None:
    """The worker has been given a task with this key: if its capability is stateful, those of the key that follow are for
    the worker too."""
    if not state.homes_max:
        return
    offer = worker.offer(task.capability)
    at = (task.tenant, task.capability, key)
    home = state.workers.get(state.homes.get(at, ""))
    if offer is None or not offer.stateful or (home is not None and home.state is not WorkerState.DRAINING):
        return  # a task that had to go elsewhere does not take its key along
    _unhome(state, at)
    state.homes[at] = worker.id
    state.homes_of.setdefault(worker.id, {})[at] = None
    if len(state.homes) > state.homes_max:
        _unhome(state, next(iter(state.homes)))


def _unhome(state: State, at: tuple[str, str, str]) -> None:
    worker = state.homes.pop(at, None)
    if worker is not None:
        of_worker = state.homes_of[worker]
        del of_worker[at]
        if not of_worker:
            del state.homes_of[worker]


def completed(
    state: State, task: Task, attempt: Attempt, worker: Worker | None, claimed_ns: int, ended_ns: int
) -> None:
    """An attempt has come out well, which ended at ``ended_ns``; its worker may be gone since."""
    capability = task.capability
    took_ns = min(claimed_ns, ended_ns - attempt.assigned_ns)
    record = _record(state, capability, worker, attempt, claimed_ns, ended_ns, _COMPLETED)
    if record is not None:
        profile = state.profiles[attempt.worker]
        profile.completed += 1
        record.completed += 1
        if profile.conduct.stage is Stage.PROBATION:
            profile.conduct.right += 1
        if record.attempts < _AVERAGED_OVER:
            record.attempts += 1
        record.took_ns += (took_ns - record.took_ns) // record.attempts
    if state.rollouts and (tally := _tally(state, capability, worker)) is not None:
        tally.completed += 1
        tally.took_ns += took_ns


def failed(state: State, task: Task, attempt: Attempt, worker: Worker | None, claimed_ns: int, ended_ns: int) -> None:
    """An attempt has failed, by whatever fault, which ended at ``ended_ns``; its worker may be gone since."""
    ending = _ENDINGS.get(attempt.state)
    if ending is None:
        return
    record = _record(state, task.capability, worker, attempt, claimed_ns, ended_ns, ending)
    if record is not None:
        profile = state.profiles[attempt.worker]
        profile.failed += 1
        if profile.conduct.stage is Stage.PROBATION:
            profile.conduct.wrong += 1
        if ending is Ending.REJECTED:
            record.rejected += 1
        else:
            record.failed += 1
    if state.rollouts and (tally := _tally(state, task.capability, worker)) is not None:
        tally.failed += 1


def _record(
    state: State,
    capability: str,
    worker: Worker | None,
    attempt: Attempt,
    claimed_ns: int,
    ended_ns: int,
    ending: Ending,
) -> TrackRecord | None:
    """How the worker has done at the capability, with one more attempt in the window."""
    profile = state.profiles.get(attempt.worker)
    if profile is None:
        return None
    record = profile.records.get(capability)
    if record is None:
        record = profile.records[capability] = TrackRecord()
    took_ns = measured_ns(claimed_ns, attempt.assigned_ns, attempt.started_ns, ended_ns)
    load_permille = PERMILLE * (len(worker.attempts) + 1) // worker.concurrency if worker is not None else 0
    record.note(ended_ns, took_ns, load_permille, ending)
    return record


def _tally(state: State, capability: str, worker: Worker | None) -> Tally | None:
    rollout = state.rollouts.get(capability)
    offer = worker.offer(capability) if rollout is not None and worker is not None else None
    if rollout is None or offer is None:
        return None
    return rollout.canary if offer.version == rollout.version else rollout.stable


def _profile(state: State, worker: str, now_ns: int) -> Profile | None:
    """That of a worker which has just come: the youngest. The caller sees to the bound."""
    if not state.profiles_max:
        return None
    profile = state.profiles.pop(worker, None)
    if profile is None:
        profile = Profile(worker, now_ns)
    state.profiles[worker] = profile
    return profile


def keep_profile(state: State, worker: Worker) -> None:
    """One who is here has a profile, also if none were kept when it came."""
    if worker.id not in state.profiles:
        _profile(state, worker.id, worker.joined_ns)


def forget_profiles(state: State) -> None:
    """Beyond their bound the oldest of workers that are away; those last that have registered, or of whom an operator has
    said something."""
    profiles = state.profiles
    while len(profiles) > state.profiles_max:
        first = list(islice(profiles, _LOOKED_AT_MAX))
        away = [name for name in first if name not in state.workers]
        if not away:
            # Otherwise these, if they stay for ever, would keep all others from ever being looked at.
            for name in first:
                profiles[name] = profiles.pop(name)
            return
        del profiles[next((name for name in away if not _kept_long(profiles[name])), away[0])]


def _kept_long(profile: Profile) -> bool:
    shut_out = profile.paused or profile.removed or profile.conduct.stage is not Stage.ACTIVE
    return shut_out or profile.registration is not None


def _worker_joined(state: State, event: WorkerJoined, _payloads: Payloads, now_ns: int) -> None:
    known = state.workers.get(event.worker)
    if known is not None and known.attempts:
        raise IllegalTransition(event, f"worker {event.worker}", f"with {len(known.attempts)} live attempts", [])
    if known is not None and known.reserved:
        raise IllegalTransition(event, f"worker {event.worker}", f"reserved for {known.reserved}", [])
    if event.state not in WORKER[WorkerJoined].get(known.state if known else None, ()):
        raise IllegalTransition(event, f"worker {event.worker}", known and known.state, [])
    state.workers[event.worker] = Worker(
        event.worker,
        event.boot,
        event.tenant,
        event.offers,
        event.concurrency,
        event.tags,
        now_ns,
        event.state,
        {},
        event.capacity,
        event.tenants,
    )
    for offer in event.offers:
        state.offers[offer.name] = offer
    stateful = {offer.name for offer in event.offers if offer.stateful}
    for at in list(state.homes_of.get(event.worker, ())):
        _, capability, _ = at
        if capability not in stateful:
            _unhome(state, at)
    profile = _profile(state, event.worker, now_ns)
    if profile is not None:
        _forget_records(profile, {offer.name for offer in event.offers})
        state.workers[event.worker].privileges = profile.conduct.privileges
    forget_profiles(state)


def _forget_records(profile: Profile, offered: set[str]) -> None:
    """Beyond their bound the oldest of what it does not offer any more: nobody sheds a record by not offering for a while
    what he did badly."""
    records = profile.records
    spare = len(records.keys() - offered) - RECORDS_KEPT
    for name in [name for name in records if name not in offered][: max(0, spare)]:
        del records[name]


def _room_seen(state: State, event: RoomSeen, _payloads: Payloads, _now_ns: int) -> None:
    for name, room in event.rooms:
        _worker(state, event, name).room = room


def _worker_draining(state: State, event: WorkerDraining, _payloads: Payloads, _now_ns: int) -> None:
    worker = _worker(state, event, event.worker)
    worker.state = _next(event, worker, WorkerState.DRAINING)


def _worker_admitted(state: State, event: WorkerAdmitted, _payloads: Payloads, _now_ns: int) -> None:
    worker = _worker(state, event, event.worker)
    worker.state = _next(event, worker, WorkerState.ACTIVE)
    profile = state.profiles.get(event.worker)
    if profile is not None:
        profile.admitted = event.admitted


def _worker_paused(state: State, event: WorkerPaused, _payloads: Payloads, _now_ns: int) -> None:
    worker = state.workers.get(event.worker)
    if worker is not None:
        worker.state = _next(event, worker, WorkerState.PAUSED)
    profile = state.profiles.get(event.worker)
    if profile is not None:
        profile.paused, profile.reason = True, event.reason


def _worker_resumed(state: State, event: WorkerResumed, _payloads: Payloads, now_ns: int) -> None:
    worker = state.workers.get(event.worker)
    if worker is not None:
        worker.state = _next(event, worker, event.state)
    profile = state.profiles.get(event.worker)
    if profile is not None:
        profile.paused, profile.removed, profile.reason = False, False, ""
        if profile.conduct.stage in _SHUT_OUT:
            profile.conduct.stage, profile.conduct.since_ns = Stage.ACTIVE, now_ns


def _worker_left(state: State, event: WorkerLeft, _payloads: Payloads, _now_ns: int) -> None:
    worker = _worker(state, event, event.worker)
    after = _next(event, worker, WorkerState.GONE)
    if worker.attempts:
        raise IllegalTransition(event, f"worker {event.worker}", f"with {len(worker.attempts)} live attempts", [])
    if worker.reserved:
        raise IllegalTransition(event, f"worker {event.worker}", f"reserved for {worker.reserved}", [])
    worker.state = after
    del state.workers[event.worker]
    for at in list(state.homes_of.get(event.worker, ())):
        _unhome(state, at)
    for offer in worker.offers:
        # What it said last binds submitters no longer where somebody else is there to ask.
        if state.offers.get(offer.name) == offer:
            other = _offered_by_another(state, offer.name)
            if other is not None:
                state.offers[offer.name] = other


def _offered_by_another(state: State, capability: str) -> Offer | None:
    """The capability as the first worker that is there offers it. Where all offer the same this looks at one only."""
    for worker in state.workers.values():
        offer = worker.offer(capability)
        if offer is not None:
            return offer
    return None


def _worker_removed(state: State, event: WorkerRemoved, _payloads: Payloads, _now_ns: int) -> None:
    if event.worker in state.workers:
        raise IllegalTransition(event, f"worker {event.worker}", "that is here", [])
    profile = state.profiles.get(event.worker)
    if profile is None:
        raise IllegalTransition(event, f"worker {event.worker}", "that is unknown", [])
    profile.paused, profile.removed, profile.reason = False, True, event.reason
    profile.words = ()


def _worker_reserved(state: State, event: WorkerReserved, _payloads: Payloads, _now_ns: int) -> None:
    worker = _worker(state, event, event.worker)
    if worker.reserved or event.task in state.reserved:
        raise IllegalTransition(event, f"worker {event.worker}", f"reserved for {worker.reserved or 'another one'}", [])
    worker.reserved = event.task
    state.reserved[event.task] = worker.id


def _worker_released(state: State, event: WorkerReleased, _payloads: Payloads, _now_ns: int) -> None:
    worker = _worker(state, event, event.worker)
    if not worker.reserved:
        raise IllegalTransition(event, f"worker {event.worker}", "that is not reserved", [])
    del state.reserved[worker.reserved]
    worker.reserved = ""


def _worker_registered(state: State, event: WorkerRegistered, _payloads: Payloads, now_ns: int) -> None:
    profile = _profile(state, event.worker, now_ns)
    if profile is not None:
        profile.registration = event.registration
        forget_profiles(state)


def _worker_told(state: State, event: WorkerTold, _payloads: Payloads, _now_ns: int) -> None:
    profile = state.profiles.get(event.worker)
    if profile is None:
        raise IllegalTransition(event, f"worker {event.worker}", "that is unknown", [])
    profile.words += (event.word,)


def _worker_heard(state: State, event: WorkerHeard, _payloads: Payloads, _now_ns: int) -> None:
    profile = state.profiles.get(event.worker)
    if profile is not None:
        profile.words = profile.words[event.count :]


def _allocation_set(state: State, event: AllocationSet, _payloads: Payloads, _now_ns: int) -> None:
    if event.allocation.strategy:
        state.allocations[event.allocation.capability] = event.allocation
    else:
        state.allocations.pop(event.allocation.capability, None)


def _admission_set(state: State, event: AdmissionSet, _payloads: Payloads, _now_ns: int) -> None:
    if event.admission.probes:
        state.admissions[event.admission.capability] = event.admission
    else:
        state.admissions.pop(event.admission.capability, None)


def _audit_set(state: State, event: AuditSet, _payloads: Payloads, _now_ns: int) -> None:
    if event.policy.nothing:
        state.audits.pop(event.policy.capability, None)
    else:
        state.audits[event.policy.capability] = event.policy


def _rollout_started(state: State, event: RolloutStarted, _payloads: Payloads, now_ns: int) -> None:
    state.rollouts[event.capability] = Rollout(
        event.capability,
        event.version,
        event.share_permille,
        RolloutState.RUNNING,
        now_ns,
        Tally(),
        Tally(),
        event.floors,
        event.barred,
    )


def _rollout_shared(state: State, event: RolloutShared, _payloads: Payloads, _now_ns: int) -> None:
    rollout = _rollout(state, event, event.capability)
    if rollout.state is not RolloutState.RUNNING:
        raise IllegalTransition(event, f"rollout of {event.capability}", rollout.state, [])
    state.rollouts[event.capability] = replace(rollout, share_permille=event.share_permille)


def _rollout_ended(state: State, event: RolloutEnded, _payloads: Payloads, _now_ns: int) -> None:
    rollout = _rollout(state, event, event.capability)
    after = RolloutState.PROMOTED if event.promoted else RolloutState.ABORTED
    if rollout.state is after:
        raise IllegalTransition(event, f"rollout of {event.capability}", rollout.state, [])
    state.rollouts[event.capability] = replace(rollout, state=after)


def _rollout(state: State, event: Event, capability: str) -> Rollout:
    rollout = state.rollouts.get(capability)
    if rollout is None:
        raise IllegalTransition(event, f"rollout of {capability}", "that is unknown", [])
    return rollout


def _worker(state: State, event: Event, worker_id: str) -> Worker:
    worker = state.workers.get(worker_id)
    if worker is None:
        raise IllegalTransition(event, f"worker {worker_id}", "that is unknown", [])
    return worker


def _next(event: Event, worker: Worker, after: WorkerState) -> WorkerState:
    if after not in WORKER[type(event)].get(worker.state, ()):
        raise IllegalTransition(event, f"worker {worker.id}", worker.state.name, [])
    return after


APPLY_FLEET: Mapping[type[Event], Callable[[State, Any, Payloads, int], None]] = {
    WorkerJoined: _worker_joined,
    WorkerDraining: _worker_draining,
    WorkerAdmitted: _worker_admitted,
    WorkerPaused: _worker_paused,
    WorkerResumed: _worker_resumed,
    WorkerLeft: _worker_left,
    WorkerRemoved: _worker_removed,
    WorkerRegistered: _worker_registered,
    WorkerReserved: _worker_reserved,
    WorkerReleased: _worker_released,
    WorkerTold: _worker_told,
    WorkerHeard: _worker_heard,
    RoomSeen: _room_seen,
    AllocationSet: _allocation_set,
    AdmissionSet: _admission_set,
    AuditSet: _audit_set,
    RolloutStarted: _rollout_started,
    RolloutShared: _rollout_shared,
    RolloutEnded: _rollout_ended,
}
