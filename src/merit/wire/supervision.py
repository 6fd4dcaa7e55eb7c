"""Supervision between the model and Protocol Buffers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

from msgspec.structs import replace

from merit.model.supervision import Circuit, Judgement, Objective, Point, Policy
from merit.model.track_record import Rating
from merit.wire.v1 import supervision_pb2

_RENAMED: Final[Mapping[str, str]] = {
    "reward_at": "reward_at_millipoints",
    "punish_at": "punish_at_millipoints",
    "pause_below": "pause_below_permille",
    "recover_points": "recover_millipoints",
    "trusted_at": "trusted_at_permille",
    "circuit_share": "circuit_share_permille",
}
POLICY_FIELDS: Final[Mapping[str, str]] = {
    name: _RENAMED.get(name, name) for name in Policy.__struct_fields__ if name != "weights"
}
"""By the name that a field of ``Policy`` has: that which it has on the wire, which says its unit. The weights stand apart."""
_OBJECTIVE: Final = Objective("")


def encode_policy(policy: Policy, weights: Iterable[tuple[str, int]]) -> supervision_pb2.SupervisionPolicy:
    """All of a policy.

    Args:
        policy: as it is.
        weights: all that its scoring goes by.
    """
    fields: dict[str, Any] = {wire: getattr(policy, name) for name, wire in POLICY_FIELDS.items()}
    message = supervision_pb2.SupervisionPolicy(**fields)
    message.weights.CopyFrom(
        supervision_pb2.ScoreWeights(
            weights=[supervision_pb2.ScoreWeight(name=name, millipoints=points) for name, points in weights]
        )
    )
    return message


def decode_policy(message: supervision_pb2.SupervisionPolicy, before: Policy) -> Policy:
    """A policy; what is not given is as before. Another scoring begins with its own weights."""
    given = {name: getattr(message, wire) for name, wire in POLICY_FIELDS.items() if message.HasField(wire)}  # type: ignore[arg-type]  # names of the table
    if message.HasField("weights"):
        given["weights"] = tuple((weight.name, weight.millipoints) for weight in message.weights.weights)
    elif given.get("scoring", before.scoring) != before.scoring:
        given["weights"] = ()
    return replace(before, **given)


def encode_objective(objective: Objective) -> supervision_pb2.Objective:
    """What tasks of a capability are to reach."""
    return supervision_pb2.Objective(
        capability=objective.capability,
        share_permille=objective.share_permille,
        within_ns=objective.within_ns,
        window_ns=objective.window_ns,
    )


def decode_objective(message: supervision_pb2.Objective) -> Objective:
    """What tasks of a capability are to reach."""
    window_ns = message.window_ns or _OBJECTIVE.window_ns
    return Objective(message.capability, message.share_permille, message.within_ns, window_ns)


def encode_rating(rating: Rating) -> supervision_pb2.Rating:
    """How far one is trusted."""
    return supervision_pb2.Rating(value_permille=rating.value, low_permille=rating.low, high_permille=rating.high)


def encode_circuit(circuit: Circuit) -> supervision_pb2.Circuit:
    """A breaker."""
    return supervision_pb2.Circuit(
        state=supervision_pb2.CircuitState.ValueType(circuit.state),
        until_ns=circuit.until_ns,
        openings=circuit.openings,
    )


def encode_judgement(judgement: Judgement) -> supervision_pb2.Judgement:
    """One decision about a worker."""
    return supervision_pb2.Judgement(
        sequence=judgement.sequence,
        at_ns=judgement.at_ns,
        verdict=supervision_pb2.Verdict.ValueType(judgement.verdict),
        factor_permille=judgement.factor,
        score_millipoints=judgement.score,
        principal=judgement.principal,
        reason=judgement.reason,
        figures=[supervision_pb2.JudgedBy(name=name, value=value) for name, value in judgement.figures],
        undone=judgement.undone,
    )


def encode_point(point: Point) -> supervision_pb2.StandingPoint:
    """How a worker stood at a time."""
    return supervision_pb2.StandingPoint(
        at_ns=point.at_ns,
        score_millipoints=point.score,
        factor_permille=point.factor,
        reputation_permille=point.reputation,
    )
