"""How results are to be looked at, as programs say it: nothing is lost on the way, and what cannot be sent is named."""

import math

import msgspec
import pytest

from merit import Audit, GoldExample, LogAudit, ResultComparison, ResultRule
from merit.model.auditing import AuditPolicy, Severity
from merit.model.limits import AUDIT_NORM_NS_DEFAULT

WHOLE = Audit(
    schema={"type": "object"},
    declared=True,
    rules=(ResultRule(name="r", expression="result.a > 0", message="m", severity="warn"),),
    auditors=("nonempty",),
    evidence=("*.png",),
    log=LogAudit(required=True, errors=("panic",)),
    norm_s=0.5,
    copies=3,
    comparison=ResultComparison(absolute=0.001, relative=0.5, lists="sets", text=0.9, ignore=("/a",), method="mine"),
    gold=(GoldExample(parameters={"a": [1, None]}, expected=None),),
    gold_share=0.1,
    judge="review",
    floor=0.2,
    timeout_s=5,
    retries=0,
    newcomer_tasks=3,
    on_broken="accept",
)


def test_nothing_is_lost_on_the_way():
    policy = WHOLE.policy("c")
    assert Audit.of(policy) == WHOLE
    assert policy.rules[0].severity is Severity.WARN
    assert policy.gold[0].expected == b"null"
    assert set(WHOLE.view()) == set(Audit.__struct_fields__)
    assert msgspec.convert(msgspec.json.decode(msgspec.json.encode(WHOLE.view())), Audit).policy("c") == policy


def test_what_is_not_said_is_as_usual():
    assert Audit().policy("c") == AuditPolicy("c", norm_ns=AUDIT_NORM_NS_DEFAULT)
    assert Audit(norm_s=0).policy("c").nothing
    assert Audit().view() == {}
    assert Audit(schema=False).policy("c").schema == b"false"


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"rules": [ResultRule(name="\ud800", expression="true")]}, "rules"),
        ({"auditors": ["\ud800"]}, "auditors"),
        ({"schema": {"const": math.nan, "x": object()}}, "schema"),
        ({"norm_s": -1}, "norm_s"),
        ({"norm_s": math.nan}, "norm_s"),
        ({"timeout_s": 1e12}, "timeout_s"),
        ({"floor": 1.01}, "floor"),
        ({"gold_share": -0.1}, "gold_share"),
        ({"copies": -1}, "copies"),
        ({"comparison": ResultComparison(absolute=-1)}, "comparison.absolute"),
        ({"comparison": ResultComparison(text=2)}, "comparison.text"),
        ({"comparison": ResultComparison(ignore=["\ud800"])}, "comparison"),
        (
            {
                "gold": [
                    GoldExample(parameters={}, expected={1, 2}),
                    GoldExample(parameters={"a": object()}, expected=1),
                ]
            },
            "gold",
        ),
    ],
)
def test_what_cannot_be_sent_is_named(fields, field):
    with pytest.raises(ValueError, match=rf"^{field}"):
        Audit(**fields).policy("c")
