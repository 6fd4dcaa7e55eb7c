"""How the results of a capability are to be looked at, as people and programs say it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, Literal

import msgspec
from msgspec import Struct

from merit.model.auditing import AuditPolicy, AuditRule, Comparison, GoldTask, Lists, OnBroken, Severity
from merit.model.limits import AUDIT_NORM_NS_DEFAULT, SECOND_NS
from merit.sdk.options import check_text
from merit.sdk.specs import encode_parameters

_PERMILLE: Final = 1_000
_MILLION: Final = 1_000_000
_TIME_S_MAX: Final = 2**33
_NUMBER_END: Final = 2**32


class ResultRule(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """What has to be so of each result: an expression of the Common Expression Language (CEL) over ``result``,
    ``parameters``, ``task`` (``id``, ``capability``, ``priority``, ``worker``) and ``wall_s``."""

    name: str
    expression: str
    message: str = ""
    """What is said when it is not so; empty: the expression."""
    severity: Literal["fail", "warn"] = "fail"
    """``warn``: the result is accepted all the same."""


class LogAudit(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """What has to be so of the log of an attempt."""

    required: bool = False
    """There is one, in order, and no line of it was dropped."""
    errors: Sequence[str] = ()
    """Patterns that no line matches."""


class GoldExample(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """A task of which the right result is known."""

    parameters: dict[str, Any]
    expected: Any


class ResultComparison(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """When two results count as the same. If nothing is said: when they are the same JSON, 1 and 1.0 being the same."""

    absolute: float = 0.0
    """Numbers may differ by so much …"""
    relative: float = 0.0
    """… or by this share of the larger one, whichever is more. Both are taken in millionths."""
    lists: Literal["ordered", "multisets", "sets"] = "ordered"
    """``multisets``: in whatever order; ``sets``: and however often."""
    text: float = 1.0
    """From this likeness on texts are the same, letter case and spacing aside; 1: only those that are equal to the letter."""
    ignore: Sequence[str] = ()
    """What is left out, as JSON Pointers; ``*`` stands for any field or element."""
    method: str = "json"
    """What compares them, by the name under which it is installed beside the control plane."""

    def model(self) -> Comparison:
        """For the model. Raises as ``Audit.policy`` does."""
        for text in (self.method, *self.ignore):
            check_text("comparison", text)
        return Comparison(
            _millionths("comparison.absolute", self.absolute),
            _millionths("comparison.relative", self.relative),
            Lists[self.lists.upper()],
            _permille("comparison.text", self.text),
            tuple(self.ignore),
            self.method,
        )

    @classmethod
    def of(cls, comparison: Comparison) -> ResultComparison:
        """From the model."""
        return cls(
            absolute=comparison.absolute_millionths / _MILLION,
            relative=comparison.relative_millionths / _MILLION,
            lists=_LISTS[comparison.lists],
            text=comparison.text_permille / _PERMILLE,
            ignore=comparison.ignore,
            method=comparison.method,
        )


_LISTS: Final[dict[Lists, Literal["ordered", "multisets", "sets"]]] = {
    Lists.ORDERED: "ordered",
    Lists.MULTISETS: "multisets",
    Lists.SETS: "sets",
}


class Audit(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How the results of a capability are looked at. What is left out is not looked at."""

    schema: dict[str, Any] | bool | None = None
    """JSON Schema 2020-12 that a result has to match."""
    declared: bool = False
    """It has to match the output schema that its worker has declared."""
    rules: Sequence[ResultRule] = ()
    auditors: Sequence[str] = ()
    """In Python, by the names under which they are installed beside the control plane."""
    evidence: Sequence[str] = ()
    """For each of these patterns, such as ``*.png``, a file of such a name has to be recorded."""
    log: LogAudit = LogAudit()
    norm_s: float = AUDIT_NORM_NS_DEFAULT / SECOND_NS
    """What takes longer is slow, which is a warning; 0: nothing is."""
    copies: int = 1
    """Answers by different workers that are wanted for a task of the sample."""
    comparison: ResultComparison = ResultComparison()
    """When a result is the same as that of a copy, or as what is expected of a gold task."""
    gold: Sequence[GoldExample] = ()
    gold_share: float = 0.05
    """Of all tasks, those that are gold ones."""
    judge: str = ""
    """Capability that reviews results."""
    floor: float = 0.05
    """The sample is never less than this share, however well a worker is reputed."""
    timeout_s: float = 60.0
    """How long a result may be looked at."""
    retries: int = 1
    """How often what failed by its own fault is looked at again."""
    newcomer_tasks: int = 10
    """So many results of a worker that nobody knows are all looked at."""
    on_broken: Literal["reject", "accept"] = "reject"
    """What becomes of a result that cannot be looked at, by no fault of its worker."""

    def policy(self, capability: str) -> AuditPolicy:
        """For the model.

        Raises:
            ValueError: a field cannot be sent; the message begins with its name.
        """
        texts = [("capability", capability), ("judge", self.judge)]
        texts += [(field, text) for field in ("auditors", "evidence") for text in getattr(self, field)]
        texts += [("log.errors", text) for text in self.log.errors]
        texts += [("rules", text) for rule in self.rules for text in (rule.name, rule.expression, rule.message)]
        for field, text in texts:
            check_text(field, text)
        return AuditPolicy(
            capability,
            b"" if self.schema is None else _json("schema", self.schema),
            self.declared,
            tuple(
                AuditRule(rule.name, rule.expression, rule.message, Severity[rule.severity.upper()])
                for rule in self.rules
            ),
            tuple(self.auditors),
            tuple(self.evidence),
            self.log.required,
            tuple(self.log.errors),
            _nanoseconds("norm_s", self.norm_s),
            _number("copies", self.copies),
            tuple(
                GoldTask(_json("gold.parameters", one.parameters), _json("gold.expected", one.expected))
                for one in self.gold
            ),
            _permille("gold_share", self.gold_share),
            self.judge,
            _permille("floor", self.floor),
            _nanoseconds("timeout_s", self.timeout_s),
            _number("retries", self.retries),
            _number("newcomer_tasks", self.newcomer_tasks),
            OnBroken[self.on_broken.upper()],
            self.comparison.model(),
        )

    @classmethod
    def of(cls, policy: AuditPolicy) -> Audit:
        """From the model."""
        decode = msgspec.json.decode
        return cls(
            schema=decode(policy.schema) if policy.schema else None,
            declared=policy.declared,
            rules=tuple(
                ResultRule(
                    name=rule.name,
                    expression=rule.expression,
                    message=rule.message,
                    severity="warn" if rule.severity is Severity.WARN else "fail",
                )
                for rule in policy.rules
            ),
            auditors=policy.auditors,
            evidence=policy.evidence,
            log=LogAudit(required=policy.log_required, errors=policy.log_errors),
            norm_s=policy.norm_ns / SECOND_NS,
            copies=policy.copies,
            comparison=ResultComparison.of(policy.comparison),
            gold=tuple(
                GoldExample(parameters=decode(one.parameters), expected=decode(one.expected)) for one in policy.gold
            ),
            gold_share=policy.gold_permille / _PERMILLE,
            judge=policy.judge,
            floor=policy.floor_permille / _PERMILLE,
            timeout_s=policy.timeout_ns / SECOND_NS,
            retries=policy.retries,
            newcomer_tasks=policy.newcomer_tasks,
            on_broken="accept" if policy.on_broken is OnBroken.ACCEPT else "reject",
        )

    def view(self) -> dict[str, Any]:
        """As JSON, without what is as usual."""
        names = [name for name in self.__struct_fields__ if getattr(self, name) != getattr(_USUAL, name)]
        return {name: msgspec.to_builtins(getattr(self, name)) for name in names}


_USUAL: Final = Audit()


def _json(field: str, value: Any) -> bytes:
    try:
        return encode_parameters({"": value})[len('{"":') : -1]
    except ValueError as error:
        raise ValueError(f"{field}: {str(error).removeprefix('parameters: ')}") from None


def _nanoseconds(field: str, seconds: float) -> int:
    if not 0 <= seconds < _TIME_S_MAX:
        raise ValueError(f"{field}: {seconds!r} is not 0 or above, or too long")
    return round(seconds * SECOND_NS)


def _permille(field: str, share: float) -> int:
    if not 0 <= share <= 1:
        raise ValueError(f"{field}: {share!r} is not between 0 and 1")
    return round(share * _PERMILLE)


def _millionths(field: str, number: float) -> int:
    if not 0 <= number < _NUMBER_END:
        raise ValueError(f"{field}: {number!r} is below 0, or too large")
    return round(number * _MILLION)


def _number(field: str, number: int) -> int:
    if not 0 <= number < _NUMBER_END:
        raise ValueError(f"{field}: {number!r} is below 0, or too large")
    return number
