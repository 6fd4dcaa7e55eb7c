"""What operators set, to and from Protocol Buffers: limits, tenants, schedules."""

from __future__ import annotations

from collections.abc import Mapping

from merit.model.rules import Rule, RuleKind, TenantTerms
from merit.model.schedules import Missed, Overlap, Schedule
from merit.wire.specs import decode_spec, encode_spec
from merit.wire.v1 import queues_pb2, schedules_pb2

_KIND: Mapping[int, RuleKind] = {int(kind): kind for kind in RuleKind}
_MISSED: Mapping[int, Missed] = {0: Missed.ONE, **{int(missed): missed for missed in Missed}}
_OVERLAP: Mapping[int, Overlap] = {0: Overlap.SKIP, **{int(overlap): overlap for overlap in Overlap}}


def encode_rule(rule: Rule) -> queues_pb2.Rule:
    """A limit."""
    return queues_pb2.Rule(
        kind=queues_pb2.RuleKind.ValueType(rule.kind),
        name=rule.name,
        concurrency=rule.concurrency,
        rate_millihz=rule.rate_millihz,
        burst=rule.burst,
    )


def decode_rule(message: queues_pb2.Rule) -> Rule:
    """A limit.

    Raises:
        ValueError: it is of no kind that there is; names the field.
    """
    kind = _KIND.get(message.kind)
    if kind is None:
        raise ValueError(f"rule.kind: {message.kind} is none of 1 to {len(RuleKind)}")
    return Rule(kind, message.name, message.concurrency, message.rate_millihz, message.burst or 1)


def encode_tenant(terms: TenantTerms, live: int = 0) -> queues_pb2.Tenant:
    """What a tenant gets, and how many of its tasks are live."""
    return queues_pb2.Tenant(name=terms.tenant, weight=terms.weight, live_max=terms.live_max, live=live)


def decode_tenant(message: queues_pb2.Tenant) -> TenantTerms:
    """What a tenant gets."""
    return TenantTerms(message.name, message.weight or 1, message.live_max)


def encode_schedule(schedule: Schedule) -> schedules_pb2.Schedule:
    """A schedule."""
    return schedules_pb2.Schedule(
        name=schedule.name,
        tenant=schedule.tenant,
        cron=schedule.cron,
        zone=schedule.zone,
        template=encode_spec(schedule.template),
        missed=schedules_pb2.Missed.ValueType(schedule.missed),
        overlap=schedules_pb2.Overlap.ValueType(schedule.overlap),
        paused=schedule.paused,
    )


def decode_schedule(message: schedules_pb2.Schedule) -> Schedule:
    """A schedule.

    Raises:
        ValueError: a field has a value that it cannot have; names it.
    """
    missed, overlap = _MISSED.get(message.missed), _OVERLAP.get(message.overlap)
    if missed is None:
        raise ValueError(f"schedule.missed: {message.missed} is none of 0 to {len(Missed)}")
    if overlap is None:
        raise ValueError(f"schedule.overlap: {message.overlap} is none of 0 to {len(Overlap)}")
    return Schedule(
        message.name,
        message.tenant,
        message.cron,
        message.zone or "UTC",
        decode_spec(message.template),
        missed,
        overlap,
        message.paused,
    )
