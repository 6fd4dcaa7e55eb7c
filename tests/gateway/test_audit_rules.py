"""Rules and auditors: what is compiled and what is refused, what holds, and what cannot be told."""

from typing import Any

import msgspec
import pytest

from merit.auditing.catalogue import AUDITORS
from merit.gateway.audit_items import AuditItem, PolicyProblem
from merit.gateway.audit_rules import FUNCTIONS, Auditing, compiled
from merit.model.auditing import AuditPolicy, AuditRule, Finding, Severity
from merit.model.limits import AUDIT_EXPRESSION_LENGTH_MAX, AUDIT_REASON_LENGTH_MAX


def item(result, parameters=None, **fields):
    encode = msgspec.json.encode
    usual = {"inputs": (), "took_ns": 1_500_000_000, **fields}
    return AuditItem("task-1", "sum", 2, "w1", parameters=encode(parameters or {}), result=encode(result), **usual)


def held(expression, result, parameters=None, message="", severity=Severity.FAIL, **fields):
    policy = AuditPolicy("sum", rules=(AuditRule("rule", expression, message, severity),))
    auditing = Auditing({})
    assert auditing.problem(policy) == PolicyProblem()
    (finding,) = auditing.findings(policy, item(result, parameters, **fields))
    return finding


@pytest.mark.parametrize(
    ("expression", "result"),
    [
        ("result == 3", 3),
        ("result == 3", 3.0),
        ("result.sum == parameters.a + parameters.b", {"sum": 3}),
        ("result.all(x, x > 0 && x < 10) && size(result) == 2", [1, 2]),
        ("has(result.a) && !has(result.b)", {"a": None}),
        ("result.matches('^[a-z]+$') && result.startsWith('a') && result.contains('b')", "abc"),
        ("task.priority == 2 && task.capability == 'sum' && task.worker == 'w1' && wall_s > 1.0", None),
        ("result.exists(x, x.kind in ['a', 'b'])", [{"kind": "b"}]),
        ("timestamp(result) < timestamp('2027-01-01T00:00:00Z')", "2026-01-01T00:00:00Z"),
        ("result > 9223372036854775807", 2**70),
    ],
)
def test_what_is_so_passes(expression, result):
    assert held(expression, result, {"a": 1, "b": 2}) == Finding("rule", True)


def test_what_is_not_so_does_not_and_says_what_was_to_be_said():
    assert held("result > 0", -1, message="must be above 0") == Finding("rule", False, "must be above 0")
    assert held("result > 0", -1).reason == "it is not so: result > 0"
    assert held("result > 0", -1, severity=Severity.WARN, message="odd") == Finding("rule", True, "odd")


@pytest.mark.parametrize(
    ("expression", "result", "why"),
    [
        ("result.nope > 0", {}, "there is no field 'nope'; say has(…) first"),
        ("result > 0", "text", "TypeError"),
        ("result[3] > 0", [1], "IndexError"),
        ("1 / result > 0", 0, "ZeroDivisionError"),
        ("result + 9223372036854775807 > 0", 9, "OverflowError"),
        ("result.startsWith('a')", 1, "RuntimeError"),
        ("result", 1, "it gives a int, and not true or false"),
        ("result.matches(parameters.p)", "a", "not a valid regex"),
    ],
)
def test_what_cannot_be_told_is_nobodys_fault(expression, result, why):
    finding = held(expression, result, {"p": "("})
    assert (finding.ok, finding.broken) == (False, True)
    assert why in finding.reason
    assert len(finding.reason) <= AUDIT_REASON_LENGTH_MAX


@pytest.mark.parametrize(
    ("expression", "why"),
    [
        ("result ==", "line 1, column 10: "),
        ("result.a ==\n  && 3", "line 2, column 3: "),
        ("resul > 0", "resul is unknown; there are result, parameters, task, wall_s"),
        ("result.all(x, y > 0)", "y is unknown"),
        ("now() > 0", "now() is unknown; there are bytes, "),
        ("result.__class__.__mro__[0]()", "line 1"),
        ("import os", "line 1, column 1: reserved identifier"),
        ("(" * 500 + "1" + ")" * 500, "line 1"),
    ],
)
def test_what_is_no_expression_is_refused_with_the_place(expression, why):
    policy = AuditPolicy("sum", rules=(AuditRule("fine", "true"), AuditRule("rule", expression)))
    problem = Auditing({}).problem(policy)
    assert problem.field == "rules[1].expression"
    assert problem.reason.startswith(why)


def test_all_functions_that_are_named_are_there():
    """And none that the interpreter has is missing among those that people know."""
    subjects = ("'1'", "'a', 'b'", "1", "[1]", "'1s'", "'2026-01-01T00:00:00Z'")
    for name in FUNCTIONS:
        forms = [f"{name}({subject})" for subject in subjects] + [f"'ab'.{name}('a')"]
        assert any(_evaluates(form) for form in forms), name


def _evaluates(expression):
    try:
        compiled(expression).execute({})
    except (ValueError, RuntimeError, TypeError):
        return False
    return True


def test_the_longest_and_deepest_expressions_that_are_taken_do_no_harm():
    for form in ("1{}>0", "result{}==1", "{}true"):
        part = {"1{}>0": "+1", "result{}==1": ".a", "{}true": "!"}[form]
        expression = form.format(part * ((AUDIT_EXPRESSION_LENGTH_MAX - len(form)) // len(part)))
        value: object = 1
        for _ in range(60):
            value = {"a": value}
        assert isinstance(held(expression, value), Finding)


def test_inputs_are_parameters_too():
    assert held("parameters.a + parameters.given == result", 3, {"a": 1}, inputs=(("given", b"2"),)).ok


def test_contents_that_have_been_erased_are_nobodys_fault():
    policy = AuditPolicy("sum", rules=(AuditRule("rule", "true"),))
    (finding,) = Auditing({}).findings(policy, msgspec.structs.replace(item(1), parameters=b""))
    assert finding.broken


class Failing:
    def check(self, parameters, result, context):
        raise KeyError("x" * 1_000)


class Greedy:
    """Changes what it is given."""

    def check(self, parameters, result, context):
        result.clear()
        return Finding("mine", True, f"{context.wall_s:g} {context.trail}")


class Wordy:
    """What it says is no finding."""

    def check(self, parameters: Any, result: Any, context: Any) -> Any:
        return "fine"


class Refusing(Wordy):
    def __init__(self):
        raise OSError("no licence")


def test_auditors_are_asked_each_by_itself():
    policy = AuditPolicy("sum", auditors=("greedy", "nonempty", "failing", "wordy"))
    auditing = Auditing({**AUDITORS, "greedy": Greedy, "failing": Failing, "wordy": Wordy})
    assert auditing.problem(policy) == PolicyProblem()
    greedy, nonempty, failing, wordy = auditing.findings(policy, item([1], trail=b'{"log": []}'))
    assert greedy == Finding("greedy", True, "1.5 {'log': []}")
    assert nonempty == Finding("nonempty", True)
    assert failing.broken
    assert failing.reason.startswith("failed: KeyError: ")
    assert wordy.broken


def test_auditors_that_are_not_there_are_refused():
    found = Auditing(AUDITORS).problem(AuditPolicy("sum", auditors=("nonempty", "mine")))
    assert found == PolicyProblem("auditors[1]", "'mine' is none of nonempty")
    found = Auditing({"mine": Refusing}).problem(AuditPolicy("sum", auditors=("mine",)))
    assert found == PolicyProblem("auditors[0]", "mine cannot be made: OSError: no licence")
