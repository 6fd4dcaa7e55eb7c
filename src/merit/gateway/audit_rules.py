"""Checks of results that have no bound of their own: rules, which are expressions, and auditors, which are Python.

This runs in a process apart (``AuditingProcess``). The interpreter of expressions holds Python's lock while it evaluates,
nested comprehensions take as long and as much memory as they like, and what is nested too deeply ends the process.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Any, Final

import cel
import msgspec
from msgspec.structs import replace

from merit.auditing.auditor import AuditContext, Auditor, MakeAuditor
from merit.gateway.audit_items import AuditItem, PolicyProblem, brief
from merit.gateway.fields import BadField
from merit.model.auditing import AuditPolicy, AuditRule, Finding, Severity
from merit.model.limits import SECOND_NS

VARIABLES: Final = ("result", "parameters", "task", "wall_s")
FUNCTIONS: Final = (
    "bytes",
    "contains",
    "double",
    "duration",
    "dyn",
    "endsWith",
    "int",
    "matches",
    "size",
    "startsWith",
    "string",
    "timestamp",
    "type",
    "uint",
)
_OPERATOR: Final = re.compile(r"[^A-Za-z]")
"""Operators have names too, such as ``_+_``."""
_BOUND: Final = re.compile(r"\.\s*(?:all|exists|exists_one|filter|map)\s*\(\s*(\w+)\s*,")
_PARSE_ERROR: Final = re.compile(r"ERROR: <input>:(\d+):(\d+): ([^\n]*)")


@lru_cache(maxsize=1_000)
def compiled(expression: str) -> Any:
    """The expression as a program.

    Raises:
        ValueError: it is none, or names what there is not; the message says where and why.
    """
    try:
        program = cel.compile(expression)
    except ValueError as error:
        found = _PARSE_ERROR.search(str(error))
        if found is None:
            raise
        line, column, why = found.groups()
        raise ValueError(f"line {line}, column {column}: {why}") from None
    bound = set(_BOUND.findall(expression))
    for name in program.variables():
        if name not in VARIABLES and name not in bound:
            raise ValueError(f"{name} is unknown; there are {', '.join(VARIABLES)}")
    for name in program.functions():
        if name not in FUNCTIONS and not _OPERATOR.search(name):
            raise ValueError(f"{name}() is unknown; there are {', '.join(FUNCTIONS)}, has, all, exists, filter, map")
    return program


class Auditing:
    """Carries policies out.

    Args:
        catalogue: the auditors that there are.
    """

    def __init__(self, catalogue: Mapping[str, MakeAuditor]) -> None:
        self._catalogue = catalogue
        self._auditors: dict[str, Auditor] = {}

    def problem(self, policy: AuditPolicy) -> PolicyProblem:
        """Why the policy cannot be carried out, if it cannot."""
        try:
            for place, rule in enumerate(policy.rules):
                try:
                    compiled(rule.expression)
                except ValueError as error:
                    raise BadField(f"rules[{place}].expression", str(error)) from None
            for place, name in enumerate(policy.auditors):
                self._make(f"auditors[{place}]", name)
        except BadField as refused:
            return PolicyProblem(refused.field, brief(refused.reason))
        return PolicyProblem()

    def _make(self, field: str, name: str) -> None:
        if name in self._auditors:
            return
        make = self._catalogue.get(name)
        if make is None:
            raise BadField(field, f"{name!r} is none of {', '.join(sorted(self._catalogue))}")
        try:
            self._auditors[name] = make()
        except Exception as error:  # noqa: BLE001  (code of others: whatever it raises)
            raise BadField(field, f"{name} cannot be made: {type(error).__name__}: {error}") from None

    def findings(self, policy: AuditPolicy, item: AuditItem) -> list[Finding]:
        """What the rules and auditors of a policy that has no problem say of a result."""
        try:
            known = _decoded(item)
        except msgspec.DecodeError as error:
            return [Finding("rules", False, f"parameters or result cannot be read: {error}", broken=True)]
        found = [_held(rule, known) for rule in policy.rules]
        # Auditors may change what they are given.
        return found + [self._audited(name, _decoded(item), item) for name in policy.auditors]

    def _audited(self, name: str, known: dict[str, Any], item: AuditItem) -> Finding:
        try:
            context = AuditContext(
                task=item.task,
                capability=item.capability,
                priority=item.priority,
                worker=item.worker,
                wall_s=known["wall_s"],
                trail=msgspec.json.decode(item.trail) if item.trail else None,
            )
            said = self._auditors[name].check(known["parameters"], known["result"], context)
            finding = msgspec.convert(msgspec.to_builtins(said), Finding)  # a word of others: its parts may be anything
            return replace(finding, step=name, reason=brief(finding.reason))
        except Exception as error:  # noqa: BLE001  (code of others: whatever it raises)
            return Finding(name, False, brief(f"failed: {type(error).__name__}: {error}"), broken=True)


def _decoded(item: AuditItem) -> dict[str, Any]:
    parameters = msgspec.json.decode(item.parameters)
    for name, result in item.inputs:
        parameters[name] = msgspec.json.decode(result)
    return {
        "result": msgspec.json.decode(item.result),
        "parameters": parameters,
        "task": {"id": item.task, "capability": item.capability, "priority": item.priority, "worker": item.worker},
        "wall_s": item.took_ns / SECOND_NS,
    }


def _held(rule: AuditRule, known: dict[str, Any]) -> Finding:
    try:
        holds = compiled(rule.expression).execute(known)
    except KeyError as error:
        return _broken(rule, f"there is no field {error}; say has(…) first, or require it in the schema")
    except Exception as error:  # noqa: BLE001  (the interpreter raises whatever fits: of types, ranges, overflow)
        return _broken(rule, f"{type(error).__name__}: {error}")
    if not isinstance(holds, bool):
        return _broken(rule, f"it gives a {type(holds).__name__}, and not true or false")
    if holds:
        return Finding(rule.name, True)
    return Finding(rule.name, rule.severity is Severity.WARN, brief(rule.message or f"it is not so: {rule.expression}"))


def _broken(rule: AuditRule, why: str) -> Finding:
    return Finding(rule.name, False, brief(f"the rule cannot be evaluated: {why}"), broken=True)
