"""Whatever a check does, the others are made, and the control plane goes on."""

import asyncio
import sys
from pathlib import Path

import msgspec
import pytest
import pytest_asyncio

from merit.app.control_plane import AUDITING
from merit.gateway import auditing_process
from merit.gateway.audit_items import AuditItem, PolicyProblem
from merit.gateway.auditing_process import AuditingProcess, CannotAudit
from merit.model.auditing import AuditPolicy, AuditRule

TOLD = AuditPolicy("c", auditors=("told",))
BESIDE = (sys.executable, str(Path(__file__).with_name("audit_beside.py")))


def item(result):
    return AuditItem("task", "c", 2, "w1", 10**9, b"{}", (), msgspec.json.encode(result))


def later(seconds=20.0):
    return asyncio.get_running_loop().time() + seconds


@pytest_asyncio.fixture
async def beside():
    process = AuditingProcess(BESIDE)
    yield process
    await process.close()


@pytest.fixture
def quick(monkeypatch):
    monkeypatch.setattr(auditing_process, "CHECK_S", 0.3)


async def said(process, policy, *results, until_s=None):
    found = await process.findings(policy, [item(result) for result in results], until_s or later())
    return [finding for (finding,) in found]


async def given_up(waiting):
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting


async def test_rules_are_checked_and_bad_ones_refused():
    process = AuditingProcess(AUDITING)
    assert await process.problem(AuditPolicy("c", rules=(AuditRule("r", "result ="),))) == PolicyProblem(
        "rules[0].expression", "line 1, column 8: Syntax error: token recognition error at: '='"
    )
    policy = AuditPolicy("c", rules=(AuditRule("r", "result > 1"),))
    assert await process.problem(policy) == PolicyProblem()
    assert [finding.ok for finding in await said(process, policy, 1, 2, 3)] == [False, True, True]
    await process.close()
    assert [finding.ok for finding in await said(process, policy, 2)] == [True], "it is started again"
    await process.close()


@pytest.mark.parametrize("how", ["die", "leave", "sleep"])
async def test_one_that_ends_the_process_is_broken_and_no_other(beside, quick, how):
    found = await said(beside, TOLD, "a", how, "b", "wrong", how)
    assert [finding.ok for finding in found] == [True, False, True, False, False]
    assert [finding.broken for finding in found] == [False, True, False, False, True]
    why = {"die": "signal 6", "leave": "exit code 3", "sleep": "took too long"}[how]
    assert why in found[1].reason
    assert found[0].reason != found[2].reason, "the same process"


async def test_an_expression_without_end_is_cut_short(quick):
    """It holds the interpreter's lock: in the control plane's own process nothing else would go on."""
    process = AuditingProcess(AUDITING)
    policy = AuditPolicy("c", rules=(AuditRule("r", "result.all(x, result.all(y, result.all(z, x + y + z >= 0)))"),))
    turns = 0

    async def tick():
        nonlocal turns
        while True:
            await asyncio.sleep(0.01)
            turns += 1

    ticking = asyncio.create_task(tick())
    found = await said(process, policy, [1, 2], list(range(3_000)), [3])
    ticking.cancel()
    assert [finding.broken for finding in found] == [False, True, False]
    assert turns >= 20
    await process.close()


async def test_an_expression_that_wants_all_memory_is_ended():
    process = AuditingProcess(AUDITING)
    doubled = "[result].map(a, a + a)" + ".map(a, a + a)" * 30
    policy = AuditPolicy("c", rules=(AuditRule("r", f"size({doubled}) > 0"),))
    (finding,) = await said(process, policy, "x" * 10_000)
    assert finding.broken
    await process.close()


async def test_what_auditors_print_is_no_answer(beside):
    found = await said(beside, TOLD, "print", "a")
    assert [finding.ok for finding in found] == [True, True]


async def test_what_there_is_no_time_for_is_left_unchecked(beside, quick):
    found = await said(beside, TOLD, "a", *["sleep"] * 10, "a", until_s=later(2.0))
    assert found[0].ok
    assert found[-1].reason == "there was no time left to check it"
    waiting = asyncio.create_task(said(beside, TOLD, *["sleep"] * 10))
    await asyncio.sleep(0.05)
    (found,) = await said(beside, TOLD, "a", until_s=later(0.2))
    assert found.reason == "there was no time left to check it"
    await given_up(waiting)


async def test_who_does_not_wait_for_the_answer_leaves_none_to_others(beside):
    assert (await said(beside, TOLD, "a"))[0].ok
    waiting = asyncio.create_task(said(beside, TOLD, "sleep"))
    await asyncio.sleep(0.1)
    await given_up(waiting)
    (finding,) = await said(beside, TOLD, "wrong")
    assert (finding.ok, finding.broken) == (False, False)


@pytest.mark.parametrize("command", [("/no/such/program",), (sys.executable, "-c", "raise SystemExit(1)")])
async def test_without_a_process_nothing_is_known(command):
    process = AuditingProcess(command)
    found = await said(process, TOLD, "a", "b")
    assert [finding.broken for finding in found] == [True, True]
    with pytest.raises(CannotAudit):
        await process.problem(TOLD)


async def test_an_auditor_that_is_not_installed_any_more_breaks_the_audit(beside):
    (finding,) = await said(beside, AuditPolicy("c", auditors=("gone",)), "a")
    assert finding.broken
    assert "auditors[0]: 'gone' is none of told" in finding.reason
