"""How results are looked at is set and asked for over gRPC; what cannot be is refused with its field."""

import grpc
import pytest
import pytest_asyncio

from merit.model.auditing import AuditPolicy, AuditRule, Comparison, GoldTask, Lists, OnBroken, Severity
from merit.model.limits import SECOND_NS
from merit.wire.audits import decode_audit, encode_audit
from merit.wire.v1 import audits_pb2
from tests.gateway.operated import operated

WHOLE = AuditPolicy(
    "echo",
    schema=b'{"type": "object"}',
    declared=True,
    rules=(
        AuditRule("sum", "result.sum == parameters.a", "wrong", Severity.WARN),
        AuditRule("positive", "result.sum > 0"),
    ),
    auditors=("nonempty",),
    evidence=("*.png",),
    log_required=True,
    log_errors=("Traceback",),
    norm_ns=SECOND_NS,
    copies=3,
    gold=(GoldTask(b'{"a": 1}', b"1"),),
    gold_permille=0,
    judge="review",
    floor_permille=0,
    timeout_ns=5 * SECOND_NS,
    retries=0,
    newcomer_tasks=0,
    on_broken=OnBroken.ACCEPT,
    comparison=Comparison(1, 2, Lists.SETS, 900, ("/a",)),
)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def plane():
    async with operated() as made:
        yield made


@pytest.mark.asyncio(loop_scope="module")
async def test_all_of_it_is_set_told_and_ended(plane):
    assert decode_audit(encode_audit(WHOLE)) == WHOLE
    await plane.audits.SetAudit(audits_pb2.SetAuditRequest(policy=encode_audit(WHOLE)))
    assert plane.cell.state.audits == {"echo": WHOLE}
    assert decode_audit(await plane.audits.GetAudit(audits_pb2.GetAuditRequest(capability="echo"))) == WHOLE
    await plane.audits.SetAudit(audits_pb2.SetAuditRequest(policy=audits_pb2.AuditPolicy(capability="echo")))
    assert plane.cell.state.audits == {}
    with pytest.raises(grpc.aio.AioRpcError, match="no audit is set for echo") as raised:
        await plane.audits.GetAudit(audits_pb2.GetAuditRequest(capability="echo"))
    assert raised.value.code() is grpc.StatusCode.NOT_FOUND


def test_what_is_left_out_is_as_usual():
    assert decode_audit(audits_pb2.AuditPolicy(capability="echo")) == AuditPolicy("echo")


RULE = {"name": "r", "expression": "true"}


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"capability": ""}, "capability: "),
        ({"capability": "x" * 201}, "capability: "),
        ({"schema": b"{"}, "schema: is not valid JSON"),
        ({"schema": b'{"$ref": "http://localhost/x"}'}, "schema: "),
        ({"schema": b'{"pattern": "(a)\\\\1"}'}, "schema: "),
        ({"rules": [RULE, {"name": "", "expression": "true"}]}, "rules[1].name: "),
        ({"rules": [{"name": "r"}]}, "rules[0].expression: "),
        ({"rules": [{"name": "r", "expression": "1" * 2_001}]}, "rules[0].expression: has 2,001"),
        ({"rules": [{"name": "r", "expression": "result >"}]}, "rules[0].expression: line 1, column 9: "),
        ({"rules": [RULE | {"message": "x" * 501}]}, "rules[0].message: "),
        ({"rules": [RULE | {"severity": 9}]}, "rules[0].severity: 9 is none of"),
        ({"rules": [RULE, RULE]}, "rules.name: 'r' stands twice"),
        ({"rules": [RULE] * 51}, "rules: 51 is not between"),
        ({"auditors": ["nobody"]}, "auditors[0]: 'nobody' is none of nonempty"),
        ({"auditors": [str(n) for n in range(9)]}, "auditors: more than 8"),
        ({"evidence": [""]}, "evidence: "),
        ({"log_errors": ["fine", "("]}, "log_errors[1]: "),
        ({"log_errors": ["(a)\\1"]}, "log_errors[0]: "),
        ({"norm_ns": -1}, "norm_ns: "),
        ({"copies": 16}, "copies: "),
        (
            {"gold": [{"expected": b"1"}, {"parameters": b"[]", "expected": b"1"}]},
            "gold[1].parameters: must be a JSON object",
        ),
        ({"gold": [{"expected": b"NaN"}]}, "gold[0].expected: "),
        ({"gold_permille": 1_001}, "gold_permille: "),
        ({"judge": "echo"}, "judge: echo cannot be its own judge"),
        ({"floor_permille": 1_001}, "floor_permille: "),
        ({"timeout_ns": -1}, "timeout_ns: "),
        ({"retries": 11}, "retries: "),
        ({"newcomer_tasks": 1_001}, "newcomer_tasks: "),
        ({"on_broken": 7}, "on_broken: 7 is none of"),
        ({"comparison": {"lists": 9}}, "comparison.lists: 9 is none of"),
        ({"comparison": {"method": "mine"}}, "comparison: method is 'mine'; there are json"),
        ({"comparison": {"ignore": [""]}}, "comparison.ignore: "),
        ({"schema": b" " * 600_000}, "policy: "),
    ],
)
async def test_what_cannot_be_is_refused_with_its_field(plane, fields, said):
    policy = audits_pb2.AuditPolicy(**{"capability": "echo", **fields})
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await plane.audits.SetAudit(audits_pb2.SetAuditRequest(policy=policy))
    assert raised.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert str(raised.value.details()).startswith(said)
    assert plane.cell.state.audits == {}


async def test_without_the_process_nothing_that_needs_it_is_set():
    async with operated() as made:
        made.auditing._command = ("/no/such/program",)
        with pytest.raises(grpc.aio.AioRpcError, match="rules cannot be looked at just now") as raised:
            await made.audits.SetAudit(audits_pb2.SetAuditRequest(policy=encode_audit(WHOLE)))
        assert raised.value.code() is grpc.StatusCode.UNAVAILABLE
