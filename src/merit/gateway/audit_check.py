"""An audit policy, field by field."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Final

from merit.auditing.compare import MakeComparer, check_comparison
from merit.gateway.audit_items import PolicyProblem
from merit.gateway.fields import BadField, check_distinct, check_name, check_range, check_text, check_words
from merit.gateway.report_check import pattern_schema
from merit.gateway.schemas import BadSchema, Schemas
from merit.model.auditing import AuditPolicy, AuditRule, GoldTask
from merit.model.json_check import BadJson, check_json
from merit.model.limits import (
    AUDIT_COPIES_MAX,
    AUDIT_EXPRESSION_LENGTH_MAX,
    AUDIT_NEWCOMER_TASKS_MAX,
    AUDIT_PATTERNS_MAX,
    AUDIT_REASON_LENGTH_MAX,
    AUDIT_RETRIES_MAX,
    AUDIT_RULES_MAX,
    AUDITORS_MAX,
    COMPARISON_IGNORED_MAX,
    NAME_LENGTH_MAX,
    PAYLOAD_INLINE_BYTES_MAX,
    RUN_TIMEOUT_NS_MAX,
    SCHEMA_BYTES_MAX,
)
from merit.model.workers import PERMILLE

_GOLD_MAX: Final = 1_000


async def check_audit(
    policy: AuditPolicy,
    schemas: Schemas,
    comparers: Mapping[str, MakeComparer],
    problem: Callable[[AuditPolicy], Awaitable[PolicyProblem]],
) -> None:
    """Raises ``BadField`` for the first field that cannot be, and ``CannotAudit``.

    Args:
        policy: as it is asked for.
        schemas: compile the policy's own.
        comparers: those that there are.
        problem: says why rules and auditors cannot be carried out.
    """
    check_name("capability", policy.capability)
    check_range("rules", len(policy.rules), 0, AUDIT_RULES_MAX)
    for place, rule in enumerate(policy.rules):
        _check_rule(f"rules[{place}]", rule)
    check_distinct("rules.name", (rule.name for rule in policy.rules))
    for field, words, most in (
        ("auditors", policy.auditors, AUDITORS_MAX),
        ("evidence", policy.evidence, AUDIT_PATTERNS_MAX),
        ("log_errors", policy.log_errors, AUDIT_PATTERNS_MAX),
    ):
        check_words(field, words, most)
        check_distinct(field, words)
    check_range("norm_ns", policy.norm_ns, 0, RUN_TIMEOUT_NS_MAX)
    check_range("copies", policy.copies, 1, AUDIT_COPIES_MAX)
    check_range("gold", len(policy.gold), 0, _GOLD_MAX)
    for place, gold in enumerate(policy.gold):
        _check_gold(f"gold[{place}]", gold)
    check_range("gold_permille", policy.gold_permille, 0, PERMILLE)
    check_text("judge", policy.judge, 0, NAME_LENGTH_MAX)
    if policy.judge == policy.capability:
        raise BadField("judge", f"{policy.judge} cannot be its own judge")
    check_range("floor_permille", policy.floor_permille, 0, PERMILLE)
    check_range("timeout_ns", policy.timeout_ns, 1, RUN_TIMEOUT_NS_MAX)
    check_range("retries", policy.retries, 0, AUDIT_RETRIES_MAX)
    check_range("newcomer_tasks", policy.newcomer_tasks, 0, AUDIT_NEWCOMER_TASKS_MAX)
    check_words("comparison.ignore", policy.comparison.ignore, COMPARISON_IGNORED_MAX)
    try:
        check_comparison(policy.comparison, comparers)
    except ValueError as error:
        raise BadField("comparison", str(error)) from None
    await asyncio.to_thread(_check_compiled, policy, schemas)
    if policy.apart:
        found = await problem(policy)
        if found.reason:
            raise BadField(found.field, found.reason)


def _check_rule(field: str, rule: AuditRule) -> None:
    check_name(f"{field}.name", rule.name)
    check_text(f"{field}.expression", rule.expression, 1, AUDIT_EXPRESSION_LENGTH_MAX)
    check_text(f"{field}.message", rule.message, 0, AUDIT_REASON_LENGTH_MAX)


def _check_gold(field: str, gold: GoldTask) -> None:
    for name, data in (("parameters", gold.parameters), ("expected", gold.expected)):
        check_range(f"{field}.{name}", len(data), 0, PAYLOAD_INLINE_BYTES_MAX)
        try:
            value = check_json(data)
        except BadJson as error:
            raise BadField(f"{field}.{name}", str(error)) from None
        if name == "parameters" and not isinstance(value, dict):
            raise BadField(f"{field}.{name}", f"must be a JSON object, not {type(value).__name__}")


def _check_compiled(policy: AuditPolicy, schemas: Schemas) -> None:
    check_range("schema", len(policy.schema), 0, SCHEMA_BYTES_MAX)
    if policy.schema:
        try:
            schemas.validator(policy.schema)
        except BadSchema as error:
            raise BadField("schema", str(error)) from None
    for place, pattern in enumerate(policy.log_errors):
        try:
            schemas.validator(pattern_schema(pattern))
        except BadSchema as error:
            raise BadField(f"log_errors[{place}]", str(error)) from None
