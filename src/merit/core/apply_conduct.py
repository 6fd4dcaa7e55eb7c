"""The part of the fold that is about how workers stand: what was made of their records, and what was decided. See
:mod:`merit.core.apply`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from msgspec.structs import replace

from merit.core.lifecycles import IllegalTransition
from merit.core.state import Payloads, State
from merit.model.events import (
    CircuitChanged,
    Event,
    ObjectiveSet,
    ResultJudged,
    SupervisionSet,
    WorkerJudged,
    WorkerRated,
)
from merit.model.supervision import (
    DAY_NS,
    JUDGEMENTS_KEPT,
    POINTS_KEPT,
    Circuit,
    Conduct,
    Judgement,
    Point,
    Stage,
    Verdict,
)
from merit.model.track_record import TrackRecord
from merit.model.workers import Profile
from merit.supervision.sanctions import FRESH


def _profile(state: State, event: Event, worker: str) -> Profile:
    profile = state.profiles.get(worker)
    if profile is None:
        raise IllegalTransition(event, f"worker {worker}", "that is unknown", [])
    return profile


def _worker_rated(state: State, event: WorkerRated, _payloads: Payloads, now_ns: int) -> None:
    profile = _profile(state, event, event.worker)
    for capability, rating, memory in event.ratings:
        record = profile.records[capability]
        record.rating, record.memory, record.counted = rating, memory, record.counts
    conduct = profile.conduct
    conduct.score, conduct.rating, conduct.rated_ns = event.score, event.rating, now_ns
    _note_point(conduct, now_ns)


def _note_point(conduct: Conduct, now_ns: int) -> None:
    point = Point(now_ns, conduct.score, conduct.factor, conduct.rating.low)
    before = conduct.points
    if before and before[-1].at_ns == now_ns:
        before = before[:-1]
    conduct.points = (*before[-(POINTS_KEPT - 1) :], point)


def _worker_judged(state: State, event: WorkerJudged, _payloads: Payloads, now_ns: int) -> None:
    profile = _profile(state, event, event.worker)
    conduct = profile.conduct
    conduct.factor = event.factor
    _FOLLOWS[event.verdict](state, conduct, event, now_ns)
    judgements = conduct.judgements
    if event.undoes:
        judgements = tuple(
            replace(judgement, undone=True) if judgement.sequence == event.undoes else judgement
            for judgement in judgements
        )
    sequence = state.sequence + 1
    judgement = Judgement(
        sequence, now_ns, event.verdict, event.factor, conduct.score, event.principal, event.reason, event.figures
    )
    conduct.judgements = (*judgements[-(JUDGEMENTS_KEPT - 1) :], judgement)
    if event.verdict in FRESH:
        conduct.fresh_ns = now_ns
    conduct.right = conduct.wrong = 0
    conduct.judged_ns = now_ns
    conduct.judged_at = profile.completed + profile.failed
    _note_point(conduct, now_ns)


def _reward(_state: State, conduct: Conduct, _event: WorkerJudged, _now_ns: int) -> None:
    conduct.rewards += 1
    conduct.strikes = 0


def _punish(_state: State, conduct: Conduct, _event: WorkerJudged, _now_ns: int) -> None:
    conduct.punishments += 1
    conduct.strikes += 1


def _pause(_state: State, conduct: Conduct, _event: WorkerJudged, now_ns: int) -> None:
    if conduct.stage is Stage.PROBATION:
        conduct.relapses += 1
    else:
        conduct.pauses_ns = (*(at_ns for at_ns in conduct.pauses_ns if now_ns - at_ns < DAY_NS), now_ns)
    _enter(conduct, Stage.PAUSED, now_ns)


def _probation(_state: State, conduct: Conduct, _event: WorkerJudged, now_ns: int) -> None:
    _enter(conduct, Stage.PROBATION, now_ns)


def _restore(_state: State, conduct: Conduct, _event: WorkerJudged, now_ns: int) -> None:
    conduct.relapses = 0
    _enter(conduct, Stage.ACTIVE, now_ns)


def _deactivate(_state: State, conduct: Conduct, _event: WorkerJudged, now_ns: int) -> None:
    _enter(conduct, Stage.OUT, now_ns)


def _enter(conduct: Conduct, stage: Stage, now_ns: int) -> None:
    conduct.stage, conduct.since_ns, conduct.strikes = stage, now_ns, 0


def _authorise(state: State, conduct: Conduct, event: WorkerJudged, _now_ns: int) -> None:
    conduct.trusted = event.verdict is Verdict.AUTHORISE
    worker = state.workers.get(event.worker)
    if worker is not None:
        worker.privileges = conduct.privileges


def _pardon(_state: State, conduct: Conduct, event: WorkerJudged, now_ns: int) -> None:
    undone = next((one.verdict for one in conduct.judgements if one.sequence == event.undoes), None)
    if undone is not None and undone not in _SHUTS_OUT:
        conduct.strikes = max(0, conduct.strikes - (undone is Verdict.PUNISH))
        return
    conduct.pauses_ns, conduct.relapses = (), 0
    conduct.circuit = Circuit(until_ns=now_ns)  # what failed before does not count any more
    _enter(conduct, Stage.ACTIVE, now_ns)


def _pin(_state: State, conduct: Conduct, event: WorkerJudged, _now_ns: int) -> None:
    conduct.pinned = event.verdict is Verdict.PIN


def _nothing_more(_state: State, _conduct: Conduct, _event: WorkerJudged, _now_ns: int) -> None:
    """What it is told stands in an event of its own."""


_SHUTS_OUT = frozenset({Verdict.PAUSE, Verdict.PROBATION, Verdict.DEACTIVATE})
_FOLLOWS: Mapping[Verdict, Callable[[State, Conduct, WorkerJudged, int], None]] = {
    Verdict.REWARD: _reward,
    Verdict.PUNISH: _punish,
    Verdict.PAUSE: _pause,
    Verdict.PROBATION: _probation,
    Verdict.RESTORE: _restore,
    Verdict.DEACTIVATE: _deactivate,
    Verdict.RESET: _nothing_more,
    Verdict.RETRAIN: _nothing_more,
    Verdict.AUTHORISE: _authorise,
    Verdict.REVOKE: _authorise,
    Verdict.PARDON: _pardon,
    Verdict.PIN: _pin,
    Verdict.UNPIN: _pin,
}


def _result_judged(state: State, event: ResultJudged, _payloads: Payloads, _now_ns: int) -> None:
    profile = state.profiles.get(event.worker)
    if profile is None:
        return  # it is forgotten
    record = profile.records.setdefault(event.capability, TrackRecord())
    if event.right:
        record.passed += 1
        record.in_row += 1
    else:
        record.wrong += 1
        record.in_row = 0


def _circuit_changed(state: State, event: CircuitChanged, _payloads: Payloads, _now_ns: int) -> None:
    _profile(state, event, event.worker).conduct.circuit = event.circuit


def _supervision_set(state: State, event: SupervisionSet, _payloads: Payloads, _now_ns: int) -> None:
    state.policy = event.policy


def _objective_set(state: State, event: ObjectiveSet, _payloads: Payloads, _now_ns: int) -> None:
    if event.objective.share_permille:
        state.objectives[event.objective.capability] = event.objective
    else:
        state.objectives.pop(event.objective.capability, None)


APPLY_CONDUCT: Mapping[type[Event], Callable[[State, Any, Payloads, int], None]] = {
    WorkerRated: _worker_rated,
    WorkerJudged: _worker_judged,
    ResultJudged: _result_judged,
    CircuitChanged: _circuit_changed,
    SupervisionSet: _supervision_set,
    ObjectiveSet: _objective_set,
}
