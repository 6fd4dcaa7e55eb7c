"""What operators set, field by field."""

from __future__ import annotations

from typing import Final

from merit.gateway.fields import BadField, check_name, check_range
from merit.gateway.identity import check_tenant
from merit.model.limits import WEIGHT_MAX
from merit.model.rules import Rule, RuleKind, TenantTerms
from merit.model.schedules import Schedule
from merit.runtime.cron_planner import next_times

RULE_CONCURRENCY_MAX: Final = 10_000_000
RULE_RATE_MILLIHZ_MAX: Final = 1_000_000_000
"""A million a second: more than a cell could give out."""
RULE_BURST_MAX: Final = 10_000_000
TENANT_LIVE_MAX: Final = 1_000_000_000


def check_rule(rule: Rule) -> None:
    """Raises ``BadField`` for the first field that cannot be."""
    if rule.kind is RuleKind.TENANT:
        _check_tenant("rule.name", rule.name)
    else:
        check_name("rule.name", rule.name)
    check_range("rule.concurrency", rule.concurrency, 0, RULE_CONCURRENCY_MAX)
    check_range("rule.rate_millihz", rule.rate_millihz, 0, RULE_RATE_MILLIHZ_MAX)
    check_range("rule.burst", rule.burst, 1, RULE_BURST_MAX)


def check_tenant_terms(terms: TenantTerms) -> None:
    """Raises ``BadField`` for the first field that cannot be."""
    _check_tenant("tenant.name", terms.tenant)
    check_range("tenant.weight", terms.weight, 1, WEIGHT_MAX)
    check_range("tenant.live_max", terms.live_max, 0, TENANT_LIVE_MAX)


def check_schedule(schedule: Schedule, now_ns: int) -> tuple[int, ...]:
    """When the schedule is due next; its template is checked by the door. Raises ``BadField`` for the first field that
    cannot be."""
    check_name("schedule.name", schedule.name)
    try:
        return next_times(schedule.cron, schedule.zone, now_ns)
    except ValueError as error:
        field, _, reason = str(error).partition(": ")
        raise BadField(f"schedule.{field}", reason) from None


def _check_tenant(field: str, name: str) -> None:
    try:
        check_tenant(name)
    except ValueError as error:
        raise BadField(field, str(error)) from None
