"""The part of the fold that is about settings: queues, limits, tenants, schedules. See :mod:`merit.core.apply`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from merit.core.lifecycles import IllegalTransition
from merit.core.state import Payloads, State, Tenant
from merit.model.events import (
    Event,
    QueuePaused,
    QueueResumed,
    RuleSet,
    ScheduleFired,
    SchedulePlanned,
    ScheduleRemoved,
    ScheduleSet,
    TenantSet,
)
from merit.model.rules import TenantTerms
from merit.model.schedules import Planned


def _queue_paused(state: State, event: QueuePaused, _payloads: Payloads, _now_ns: int) -> None:
    state.paused[event.capability] = event.reason


def _queue_resumed(state: State, event: QueueResumed, _payloads: Payloads, _now_ns: int) -> None:
    if state.paused.pop(event.capability, None) is None:
        raise IllegalTransition(event, f"queue {event.capability}", "that is not paused", [])


def _rule_set(state: State, event: RuleSet, _payloads: Payloads, _now_ns: int) -> None:
    rule = event.rule
    if rule.limits:
        state.rules[rule.kind, rule.name] = rule
    else:
        state.rules.pop((rule.kind, rule.name), None)


def _tenant_set(state: State, event: TenantSet, _payloads: Payloads, _now_ns: int) -> None:
    name = event.terms.tenant
    tenant = state.tenants.get(name)
    if tenant is None:
        tenant = state.tenants[name] = Tenant(TenantTerms(name))
    tenant.terms = event.terms
    if event.terms.usual and not tenant.live:
        del state.tenants[name]


def _schedule_set(state: State, event: ScheduleSet, _payloads: Payloads, now_ns: int) -> None:
    before = state.schedules.get(event.schedule.name)
    made, passed_over, last = (before.made, before.passed_over, before.last) if before is not None else (0, 0, "")
    state.schedules[event.schedule.name] = Planned(event.schedule, now_ns, (), last, made, passed_over)


def _schedule_removed(state: State, event: ScheduleRemoved, _payloads: Payloads, _now_ns: int) -> None:
    _planned(state, event, event.schedule)
    del state.schedules[event.schedule]


def _schedule_planned(state: State, event: SchedulePlanned, _payloads: Payloads, _now_ns: int) -> None:
    _planned(state, event, event.schedule).times_ns = event.times_ns


def _schedule_fired(state: State, event: ScheduleFired, _payloads: Payloads, _now_ns: int) -> None:
    planned = _planned(state, event, event.schedule)
    if event.at_ns > planned.since_ns:
        planned.since_ns = event.at_ns
        planned.times_ns = tuple(time_ns for time_ns in planned.times_ns if time_ns > event.at_ns)
    if event.task:
        planned.last = event.task
        planned.made += 1
    else:
        planned.passed_over += 1


def _planned(state: State, event: Event, name: str) -> Planned:
    planned = state.schedules.get(name)
    if planned is None:
        raise IllegalTransition(event, f"schedule {name}", "that is unknown", [])
    return planned


APPLY_SETTINGS: Mapping[type[Event], Callable[[State, Any, Payloads, int], None]] = {
    QueuePaused: _queue_paused,
    QueueResumed: _queue_resumed,
    RuleSet: _rule_set,
    TenantSet: _tenant_set,
    ScheduleSet: _schedule_set,
    ScheduleRemoved: _schedule_removed,
    SchedulePlanned: _schedule_planned,
    ScheduleFired: _schedule_fired,
}
