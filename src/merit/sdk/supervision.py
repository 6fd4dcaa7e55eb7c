"""Supervision as plain dictionaries, and what can be set of it by name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, TypedDict

from merit.sdk.options import check_text
from merit.sdk.views import when
from merit.wire.v1 import supervision_pb2

_THOUSANDTHS: Final = 1_000
_INT32_END: Final = 2**31
_UNITS: Final = (("_ns", "_s", 1_000_000_000), ("_permille", "", _THOUSANDTHS), ("_millipoints", "", _THOUSANDTHS))
"""A part of the name that a field has on the wire, that which it has here, and how many of its unit are one of ours."""


class SupervisionArguments(TypedDict, total=False):
    """How the fleet is supervised. Scores and points are 0 to 100, shares 0 to 1, times seconds."""

    engine: str
    """Decides about rewards and punishments: ``threshold``, ``adaptive``, or one that is installed."""
    scoring: str
    """Reckons scores: ``relative``, ``reference`` (the formula of the field), or one that is installed."""
    reputation: str
    """The model of reputation: ``beta``, ``simple``, or one that is installed."""
    every_s: float
    """How often workers with news are looked at."""
    reward_at: float
    """The score from which on a worker is rewarded."""
    punish_at: float
    """The score up to which it is punished."""
    reward: float
    """By which share the factor grows."""
    punish: float
    """By which share it shrinks."""
    pause_after: int
    """Punishments in a row until a worker is paused, …"""
    pause_below: float
    """… if its factor is then below this."""
    pause_s: float
    """How long a pause lasts at least."""
    pauses_max: int
    """With so many pauses within a day it is deactivated."""
    recover: float
    """Points above ``punish_at`` to which the score of a paused worker has to have recovered."""
    canaries: int
    """Tasks that a worker on probation has to do right."""
    cool_down_s: float
    """Between two decisions about a worker, at least."""
    attempts_min: int
    """So many ended attempts as well."""
    trusted_at: float
    """The lower bound of reputation from which on a worker is trusted."""
    trusted_attempts: int
    """So many of its results were looked at closely by then."""
    weights: Mapping[str, float]
    """Of the parts of the score, in points; those not named are as the scoring has them."""
    circuit_failures: int
    """Failures among the last ``circuit_window`` attempts from which on the breaker opens; more than these: never."""
    circuit_share: float
    """… if they are this share of them."""
    circuit_window: int
    circuit_open_s: float
    """How long it stays open at first."""
    circuit_open_s_max: float
    """… and at most."""
    circuit_probes: int
    """Tasks that have to come out well for it to close again."""


def _named(wire: str) -> tuple[str, int]:
    """The name that a field has here, and how many of the wire's unit are one of ours; 1: it is as it is."""
    for part, ours, unit in _UNITS:
        if part in wire:
            return wire.replace(part, ours), unit
    return wire, 1


_WIRE: Final = {
    name: (field.name, unit)
    for field in supervision_pb2.SupervisionPolicy.DESCRIPTOR.fields
    for name, unit in (_named(field.name),)
}
"""By the name that a field has here: that on the wire, and the unit."""


def policy_message(given: Mapping[str, Any]) -> supervision_pb2.SupervisionPolicy:
    """What is given of a policy, for the wire.

    Raises:
        ValueError: there is no such field, or its value cannot be sent.
    """
    message = supervision_pb2.SupervisionPolicy()
    for name, value in given.items():
        if name not in _WIRE:
            raise ValueError(f"{name}: there is no such setting; there are {', '.join(_WIRE)}")
        wire, unit = _WIRE[name]
        if name == "weights":
            weights = [
                supervision_pb2.ScoreWeight(name=one, millipoints=_whole(f"weights.{one}", points, _THOUSANDTHS))
                for one, points in value.items()
            ]
            message.weights.CopyFrom(supervision_pb2.ScoreWeights(weights=weights))
        elif isinstance(value, str):
            check_text(name, value)
            _put(message, name, wire, value)
        else:
            _put(message, name, wire, _whole(name, value, unit))
    return message


def _put(message: supervision_pb2.SupervisionPolicy, name: str, wire: str, value: object) -> None:
    try:
        setattr(message, wire, value)
    except TypeError:
        raise ValueError(f"{name}: {value!r} is of the wrong type") from None


def _whole(name: str, value: Any, unit: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < _INT32_END:
        raise ValueError(f"{name}: {value!r} is no number from 0 on, or too large")
    if unit == 1 and value != int(value):
        raise ValueError(f"{name}: {value!r} is no whole number")
    sent = round(value * unit)
    if unit == _THOUSANDTHS and sent >= 2 * _INT32_END:
        raise ValueError(f"{name}: {value!r} is too large")
    return sent


def supervision_view(message: supervision_pb2.SupervisionReport) -> dict[str, Any]:
    """How the fleet is supervised, under the names of ``SupervisionArguments``, and what else there is to choose."""
    policy: dict[str, Any] = {}
    for name, (wire, unit) in _WIRE.items():
        if name == "weights":
            policy[name] = {one.name: one.millipoints / _THOUSANDTHS for one in message.policy.weights.weights}
        else:
            value = getattr(message.policy, wire)
            policy[name] = value if unit == 1 else value / unit
    return {
        **policy,
        "engines": list(message.engines),
        "scorings": list(message.scorings),
        "reputations": list(message.reputations),
        "troubles": list(message.troubles),
    }


def objective_view(message: supervision_pb2.Objective) -> dict[str, Any]:
    """What tasks of a capability are to reach."""
    return {
        "capability": message.capability,
        "share": message.share_permille / _THOUSANDTHS,
        "within_s": message.within_ns / 1e9 if message.within_ns else None,
        "window_s": message.window_ns / 1e9,
    }


def rating_view(message: supervision_pb2.Rating) -> dict[str, float]:
    """How far one is trusted, 0 to 1; the truth is between ``low`` and ``high`` with a probability of nine tenths."""
    return {
        "value": message.value_permille / _THOUSANDTHS,
        "low": message.low_permille / _THOUSANDTHS,
        "high": message.high_permille / _THOUSANDTHS,
    }


def conduct_view(message: supervision_pb2.Conduct | None) -> dict[str, Any]:
    """How a worker stands; None: that is not known any more, and the same for each part of it."""
    if message is None:
        known = supervision_pb2.Conduct()
        return dict.fromkeys(conduct_view(known))
    return {
        "score": message.score_millipoints / _THOUSANDTHS if message.HasField("score_millipoints") else None,
        "factor": message.factor_permille / _THOUSANDTHS,
        "reputation": rating_view(message.reputation),
        "stage": supervision_pb2.Stage.Name(message.stage).removeprefix("STAGE_"),
        "stage_since": when(message.since_ns),
        "circuit": circuit_view(message.circuit),
        "privileges": list(message.privileges),
        "pinned": message.pinned,
        "rewards": message.rewards,
        "punishments": message.punishments,
        "liberties": list(message.liberties),
        "decisions": [judgement_view(judgement) for judgement in message.judgements],
        "history": [
            {
                "at": when(point.at_ns),
                "score": point.score_millipoints / _THOUSANDTHS,
                "factor": point.factor_permille / _THOUSANDTHS,
                "reputation": point.reputation_permille / _THOUSANDTHS,
            }
            for point in message.points
        ],
        "metrics": _metrics_view(message.metrics) if message.HasField("metrics") else None,
    }


def circuit_view(message: supervision_pb2.Circuit) -> dict[str, Any]:
    """A breaker; ``until`` only of an open one."""
    opened = message.state == supervision_pb2.CIRCUIT_STATE_OPEN
    return {
        "state": supervision_pb2.CircuitState.Name(message.state).removeprefix("CIRCUIT_STATE_"),
        "until": when(message.until_ns) if opened else None,
        "openings": message.openings,
    }


def judgement_view(message: supervision_pb2.Judgement) -> dict[str, Any]:
    """One decision about a worker; ``figures`` are thousandths, or nanoseconds where their name says so."""
    return {
        "decision": message.sequence,
        "at": when(message.at_ns),
        "verdict": supervision_pb2.Verdict.Name(message.verdict).removeprefix("VERDICT_"),
        "factor": message.factor_permille / _THOUSANDTHS,
        "score": message.score_millipoints / _THOUSANDTHS,
        "principal": message.principal,
        "reason": message.reason,
        "figures": {figure.name: figure.value for figure in message.figures},
        "undone": message.undone,
    }


def decision_view(message: supervision_pb2.SupervisionDecision) -> dict[str, Any]:
    """One decision as the journal has it; of a breaker, with ``circuit`` in place of verdict, factor and score."""
    view = {"worker": message.worker_id, **judgement_view(message.judgement)}
    if message.HasField("circuit"):
        view |= {"verdict": None, "factor": None, "score": None, "principal": None}
    return {
        **view,
        "circuit": circuit_view(message.circuit) if message.HasField("circuit") else None,
        "undoes": message.undoes or None,
        "reputation": rating_view(message.reputation) if message.HasField("reputation") else None,
        "followed": list(message.followed),
    }


def _metrics_view(message: supervision_pb2.WorkerMetrics) -> dict[str, Any]:
    """Over its last attempts. None: not known."""
    return {
        "attempts": message.attempts,
        "failed": message.failed,
        "error_rate": message.error_permille / _THOUSANDTHS,
        "mean_s": message.mean_ns / 1e9 if message.mean_ns else None,
        "p95_s": message.p95_ns / 1e9 if message.p95_ns else None,
        "rate_hz": message.rate_millihz / _THOUSANDTHS,
        "utilisation": message.utilisation_permille / _THOUSANDTHS,
        "lateness": message.lateness_permille / _THOUSANDTHS,
        "checked": message.checked,
        "quality": message.quality_permille / _THOUSANDTHS if message.checked else None,
    }
