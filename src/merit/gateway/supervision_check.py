"""How the fleet is to be supervised, field by field."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from merit.gateway.fields import BadField, check_distinct, check_name, check_range, check_text
from merit.model.commands import JudgeWorker
from merit.model.limits import DESCRIPTION_LENGTH_MAX, MILLISECOND_NS, SECOND_NS
from merit.model.supervision import DAY_NS, FACTOR_MAX, FACTOR_MIN, SCORE_MAX, Objective, Policy, Verdict
from merit.model.track_record import WINDOW
from merit.model.workers import PERMILLE
from merit.supervision.scoring import Scoring
from merit.wire.supervision import POLICY_FIELDS
from merit.wire.v1 import supervision_pb2

_COUNT_MAX: Final = 1_000_000
_TIME_NS_MAX: Final = 365 * DAY_NS
_WEIGHTS_MAX: Final = 32
_WEIGHT_MILLIPOINTS_MAX: Final = 10 * SCORE_MAX
SEQUENCE_MAX: Final = 2**63 - 1
_ORDERS: Final = (Verdict.PARDON, Verdict.PIN, Verdict.UNPIN)
_BOUNDS: Final[Mapping[str, tuple[int, int]]] = {
    "every_ns": (100 * MILLISECOND_NS, 3_600 * SECOND_NS),
    "reward_at": (0, SCORE_MAX),
    "punish_at": (0, SCORE_MAX),
    "reward_permille": (0, PERMILLE),
    "punish_permille": (0, PERMILLE),
    "pause_after": (1, _COUNT_MAX),
    "pause_below": (0, FACTOR_MAX),
    "pause_ns": (MILLISECOND_NS, _TIME_NS_MAX),
    "pauses_max": (1, _COUNT_MAX),
    "recover_points": (0, SCORE_MAX),
    "canaries": (1, 1_000),
    "cool_down_ns": (MILLISECOND_NS, _TIME_NS_MAX),
    "attempts_min": (1, _COUNT_MAX),
    "trusted_at": (0, PERMILLE),
    "trusted_attempts": (0, _COUNT_MAX),
    "circuit_failures": (1, _COUNT_MAX),
    "circuit_share": (0, PERMILLE),
    "circuit_window": (1, WINDOW),
    "circuit_open_ns": (MILLISECOND_NS, _TIME_NS_MAX),
    "circuit_open_ns_max": (MILLISECOND_NS, _TIME_NS_MAX),
    "circuit_probes": (1, 1_000),
}
"""By field of ``Policy``. More ``circuit_failures`` than ``circuit_window``: no breaker ever opens."""


def check_policy(policy: Policy, scorings: Mapping[str, Scoring]) -> None:
    """Raises ``BadField`` for the first field that cannot be. Whether there is such an engine, scoring and model of
    reputation the machine knows."""
    for name in ("engine", "scoring", "reputation"):
        check_name(f"policy.{name}", getattr(policy, name))
    for name, (least, most) in _BOUNDS.items():
        check_range(f"policy.{POLICY_FIELDS[name]}", getattr(policy, name), least, most)
    if policy.punish_at >= policy.reward_at:
        reason = f"{policy.punish_at:,} is not below reward_at_millipoints, {policy.reward_at:,}"
        raise BadField("policy.punish_at_millipoints", reason)
    if policy.circuit_open_ns > policy.circuit_open_ns_max:
        reason = f"{policy.circuit_open_ns:,} is more than circuit_open_ns_max, {policy.circuit_open_ns_max:,}"
        raise BadField("policy.circuit_open_ns", reason)
    check_range("policy.weights", len(policy.weights), 0, _WEIGHTS_MAX)
    check_distinct("policy.weights", (name for name, _ in policy.weights))
    scoring = scorings.get(policy.scoring)
    for name, millipoints in policy.weights:
        check_range(f"policy.weights.{name[:100]}", millipoints, 0, _WEIGHT_MILLIPOINTS_MAX)
        if scoring is not None and name not in scoring.weights:
            known = ", ".join(sorted(scoring.weights))
            raise BadField("policy.weights", f"{name[:100]!r} is none of those of {policy.scoring}: {known}")


def check_objective(objective: Objective) -> None:
    """Raises ``BadField`` for the first field that cannot be."""
    check_name("objective.capability", objective.capability)
    check_range("objective.share_permille", objective.share_permille, 0, PERMILLE)
    check_range("objective.within_ns", objective.within_ns, 0, _TIME_NS_MAX)
    check_range("objective.window_ns", objective.window_ns, SECOND_NS, _TIME_NS_MAX)


def read_judgement(
    request: supervision_pb2.JudgeWorkerRequest, tenant: str, principal: str, no_reason: str
) -> JudgeWorker:
    """What a person decides. Raises ``BadField`` for the first field that cannot be."""
    check_name("worker_id", request.worker_id)
    if int(request.verdict) not in _ORDERS:
        names = ", ".join(f"{verdict.name} ({int(verdict)})" for verdict in _ORDERS)
        raise BadField("verdict", f"{int(request.verdict)} is none that a person can give: {names}")
    verdict = Verdict(request.verdict)
    if request.factor_permille:
        check_range("factor_permille", request.factor_permille, FACTOR_MIN, FACTOR_MAX)
        if verdict is not Verdict.PIN:
            raise BadField("factor_permille", "is for PIN; leave it out")
    check_range("undoes", request.undoes, 0, SEQUENCE_MAX)
    if request.undoes and verdict is not Verdict.PARDON:
        raise BadField("undoes", "is for PARDON; leave it out")
    check_text("reason", request.reason, 0, DESCRIPTION_LENGTH_MAX)
    reason = request.reason or no_reason
    return JudgeWorker(tenant, principal, request.worker_id, verdict, reason, request.factor_permille, request.undoes)
