"""What a worker may and may not do by what was decided about it, in sentences for people."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime

from merit.core.allocating import allowed
from merit.core.desk import Desk
from merit.core.state import State
from merit.core.supervising import dossier_of
from merit.model.limits import SECOND_NS
from merit.model.supervision import FACTOR_ONE, TRUSTED, CircuitState, Conduct, Policy, Stage
from merit.model.workers import Profile, Worker, WorkerState
from merit.supervision.sanctions import wait_ns


def held_back(conduct: Conduct, policy: Policy, spare: int, live: int) -> str:
    """Why a worker is given nothing more now by what was decided about it; empty: that is not why.

    Args:
        conduct: of the worker.
        policy: the numbers that the operator has set.
        spare: attempts that it would take beside those that it has.
        live: attempts that it has.
    """
    circuit = conduct.circuit
    if circuit.state is CircuitState.OPEN:
        return f"failed too often: its breaker is open until {clock(circuit.until_ns)}"
    if conduct.stage is Stage.PROBATION and (live or conduct.right >= policy.canaries):
        return "is on probation: it is given one task at a time, and has it"
    if circuit.state is CircuitState.HALF_OPEN and live >= policy.circuit_probes - circuit.probes:
        return "is tried again after its breaker was open, and has as many tasks as that takes"
    if spare > 0 and conduct.factor < FACTOR_ONE and allowed(conduct, policy, spare, live) <= 0:
        return f"has a factor of {_times(conduct.factor)}: it is given {live:,} of the {live + spare:,} it would take"
    return ""


def holds_back(desk: Desk, worker: Worker) -> str:
    """As ``held_back``, of a worker that is here, now."""
    seat, profile = desk.seats.get(worker.id), desk.state.profiles.get(worker.id)
    if profile is None or seat is None:
        return ""
    spare = seat.granted - seat.used
    return held_back(profile.conduct, desk.state.policy, spare, len(worker.attempts))


def paused_because(state: State, worker: Worker) -> str:
    """Behind the word that a worker is paused: why."""
    profile = state.profiles.get(worker.id)
    if worker.state is not WorkerState.PAUSED or profile is None or not profile.reason:
        return ""
    by = " by supervision" if profile.conduct.stage is Stage.PAUSED else ""
    return f"{by}: {profile.reason}"


def liberties(desk: Desk, profile: Profile) -> Iterator[str]:
    """What the worker may and may not do, and why, one by one."""
    conduct, policy, name = profile.conduct, desk.state.policy, profile.worker
    shut_out = conduct.stage in (Stage.PAUSED, Stage.OUT)
    back = f"merit worker {'pardon' if shut_out else 'resume'} {name}"
    if profile.removed:
        yield f"it may not join: {profile.reason}; let it back with: {back}"
    elif profile.paused and shut_out:
        until_ns = conduct.since_ns + wait_ns(dossier_of(desk, profile), policy, desk.now_ns)
        yield f"it gets no tasks until {clock(until_ns)}, when it may prove itself: {profile.reason}; sooner with: {back}"
    elif profile.paused:
        yield f"it gets no tasks until it is resumed: {profile.reason}; {back}"
    elif conduct.stage is Stage.PROBATION:
        yield (
            f"it is on probation: it gets one task at a time, all of them checked, until {policy.canaries} came out well; "
            f"{conduct.right} did"
        )
    circuit = conduct.circuit
    if circuit.state is CircuitState.OPEN:
        yield f"it gets no tasks until {clock(circuit.until_ns)}: it failed too often, and its breaker is open"
    elif circuit.state is CircuitState.HALF_OPEN:
        yield (
            f"it gets {policy.circuit_probes - circuit.probes} tasks at a time: its breaker was open, and closes when "
            f"{policy.circuit_probes} came out well; {circuit.probes} did"
        )
    yield _by_factor(conduct)
    if conduct.trusted:
        yield f"it may do tasks that ask for the tag {TRUSTED}"
    else:
        checked = sum(record.passed + record.wrong for record in profile.records.values())
        yield (
            f"it may not do tasks that ask for the tag {TRUSTED}: that takes a reputation of at least "
            f"{_times(policy.trusted_at)} and {policy.trusted_attempts} results that were looked at closely; it has at least "
            f"{_times(conduct.rating.low)} and {checked:,}"
        )
    if conduct.pinned:
        yield f"nothing is decided about it: a person has fixed its factor; merit worker unpin {name}"


def _by_factor(conduct: Conduct) -> str:
    times = _times(conduct.factor)
    if conduct.factor < FACTOR_ONE:
        return f"it gets {conduct.factor / 10:g} % of the tasks that it would take at a time: its factor is {times}"
    if conduct.factor > FACTOR_ONE:
        return f"it is chosen as if it had {times} times its concurrency: its factor is {times}"
    return "it gets as many tasks as it takes: its factor is 1"


def clock(time_ns: int) -> str:
    """A moment for people, UTC."""
    return datetime.fromtimestamp(time_ns / SECOND_NS, UTC).isoformat(timespec="seconds")


def _times(permille: int) -> str:
    return f"{permille / 1_000:g}"
