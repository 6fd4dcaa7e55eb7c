"""Audit policies between the model and Protocol Buffers."""

from __future__ import annotations

from enum import IntEnum
from typing import TypeVar

from merit.model.auditing import AuditPolicy, AuditRule, Comparison, GoldTask, Lists, OnBroken, Severity
from merit.wire.v1 import audits_pb2

Kind = TypeVar("Kind", bound=IntEnum)

_USUAL = AuditPolicy("")


def encode_audit(policy: AuditPolicy) -> audits_pb2.AuditPolicy:
    """For the wire."""
    return audits_pb2.AuditPolicy(
        capability=policy.capability,
        schema=policy.schema,
        declared=policy.declared,
        rules=[
            audits_pb2.AuditRule(
                name=rule.name,
                expression=rule.expression,
                message=rule.message,
                severity=audits_pb2.Severity.ValueType(rule.severity),
            )
            for rule in policy.rules
        ],
        auditors=policy.auditors,
        evidence=policy.evidence,
        log_required=policy.log_required,
        log_errors=policy.log_errors,
        norm_ns=policy.norm_ns,
        copies=policy.copies,
        gold=[audits_pb2.GoldTask(parameters=one.parameters, expected=one.expected) for one in policy.gold],
        gold_permille=policy.gold_permille,
        judge=policy.judge,
        floor_permille=policy.floor_permille,
        timeout_ns=policy.timeout_ns,
        retries=policy.retries,
        newcomer_tasks=policy.newcomer_tasks,
        on_broken=audits_pb2.OnBroken.ValueType(policy.on_broken),
        comparison=_encode_comparison(policy.comparison),
    )


def _encode_comparison(comparison: Comparison) -> audits_pb2.Comparison:
    return audits_pb2.Comparison(
        absolute_millionths=comparison.absolute_millionths,
        relative_millionths=comparison.relative_millionths,
        lists=audits_pb2.Lists.ValueType(comparison.lists),
        text_permille=comparison.text_permille,
        ignore=comparison.ignore,
        method=comparison.method,
    )


def decode_audit(message: audits_pb2.AuditPolicy) -> AuditPolicy:
    """From the wire.

    Raises:
        ValueError: a field has a value that it cannot have; the message begins with the field.
    """
    return AuditPolicy(
        message.capability,
        message.schema,
        message.declared,
        tuple(
            AuditRule(
                rule.name,
                rule.expression,
                rule.message,
                _one_of(Severity, f"rules[{place}].severity", rule.severity),
            )
            for place, rule in enumerate(message.rules)
        ),
        tuple(message.auditors),
        tuple(message.evidence),
        message.log_required,
        tuple(message.log_errors),
        message.norm_ns,
        message.copies or _USUAL.copies,
        tuple(GoldTask(one.parameters or b"{}", one.expected) for one in message.gold),
        message.gold_permille if message.HasField("gold_permille") else _USUAL.gold_permille,
        message.judge,
        message.floor_permille if message.HasField("floor_permille") else _USUAL.floor_permille,
        message.timeout_ns or _USUAL.timeout_ns,
        message.retries if message.HasField("retries") else _USUAL.retries,
        message.newcomer_tasks if message.HasField("newcomer_tasks") else _USUAL.newcomer_tasks,
        _one_of(OnBroken, "on_broken", message.on_broken),
        _decode_comparison(message.comparison),
    )


def _decode_comparison(message: audits_pb2.Comparison) -> Comparison:
    usual = _USUAL.comparison
    return Comparison(
        message.absolute_millionths,
        message.relative_millionths,
        _one_of(Lists, "comparison.lists", message.lists),
        message.text_permille if message.HasField("text_permille") else usual.text_permille,
        tuple(message.ignore),
        message.method or usual.method,
    )


def _one_of(kind: type[Kind], field: str, number: int) -> Kind:
    """The value of this number; not said (0): the first one."""
    try:
        return kind(number or 1)
    except ValueError:
        raise ValueError(f"{field}: {number} is none of 1 to {len(kind)}") from None
