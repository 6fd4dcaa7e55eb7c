"""What results are held against at the door: each check by itself, and the reports of a frame."""

import asyncio
import time
from types import SimpleNamespace

import msgspec
import pytest
import pytest_asyncio
from msgspec.structs import replace

from merit.app.control_plane import AUDITING
from merit.gateway import report_check
from merit.gateway.auditing_process import AuditingProcess
from merit.gateway.report_check import ReportCheck, findings_of
from merit.gateway.schemas import Schemas
from merit.model.auditing import SLOW, AuditPolicy, AuditRule
from merit.model.commands import SetAudit
from merit.model.frames import WorkerFrame
from merit.model.limits import AUDITED_BYTES_MAX, SECOND_NS
from merit.model.tasks import Input
from merit.testing.builders import a_machine, a_spec, allocate, an_id, an_offer, attach, completed, failed, submit, tell

LINE = {"time_ns": 5 * SECOND_NS, "level": "info", "message": "fine", "fields": {}}
FILE = {"path": "out/page-1.png", "size_bytes": 3, "sha256": "0" * 64}


def found(policy, result=b"1", trail=None, took_ns=0, offer=None):
    report = completed(1, result=result, trail=msgspec.json.encode(trail) if trail is not None else b"")
    return findings_of(replace(policy, capability="echo"), offer, report, result, took_ns, Schemas())


def only(*args, **kwargs):
    (finding,) = found(*args, **kwargs)
    return finding


def test_nothing_asked_is_nothing_found():
    assert found(AuditPolicy("")) == []


def test_a_schema_of_the_policy_or_of_the_worker():
    own = AuditPolicy("", schema=b'{"properties": {"n": {"maximum": 3}}, "required": ["n"]}')
    assert only(own, b'{"n": 3}').ok
    assert only(own, b'{"n": 4}').reason == "result.n: 4 is greater than the maximum of 3"
    assert only(own, b"{}").reason == 'result: "n" is a required property'
    declared = AuditPolicy("", declared=True)
    offer = an_offer(output_schema=b'{"type": "integer"}')
    assert only(declared, b"1", offer=offer).ok
    assert not only(declared, b'"1"', offer=offer).ok
    assert found(declared, b'"1"', offer=an_offer()) == [], "it has declared none"


def test_evidence():
    policy = AuditPolicy("", evidence=("*.png", "page-?.*"))
    assert only(policy, trail={"evidence": [FILE]}).ok
    assert only(policy, trail={"evidence": [{**FILE, "path": r"C:\out\page-2.png"}]}).ok
    assert (
        only(policy, trail={"evidence": [{**FILE, "path": "out.png/page-1.jpg"}]}).reason
        == "no file *.png was recorded"
    )
    assert only(policy).reason == "no file *.png was recorded"
    assert "proves nothing" in only(policy, trail={"evidence": [{**FILE, "sha256": "00"}]}).reason


@pytest.mark.parametrize(
    "trail", [[], {"log": 3}, {"log": [{}]}, {"evidence": [[]]}, {"log": [{**LINE, "time_ns": "1"}]}]
)
def test_a_trail_of_another_form_is_the_workers_fault(trail):
    finding = only(AuditPolicy("", log_required=True, evidence=("*",)), trail=trail)
    assert (finding.step, finding.ok, finding.broken) == ("trail", False, False)


def test_a_log_that_is_required():
    policy = AuditPolicy("", log_required=True)
    assert only(policy, trail={"log": [LINE, {**LINE, "time_ns": 9 * SECOND_NS}]}).ok
    assert only(policy, trail={"log": [LINE, {**LINE, "time_ns": 5 * SECOND_NS - 10**6}]}).ok, "threads"
    assert only(policy).reason == "there is none"
    assert only(policy, trail={"log": [LINE], "log_dropped": 7}).reason == "7 lines of it are missing"
    assert "not in order" in only(policy, trail={"log": [LINE, {**LINE, "time_ns": 1}]}).reason


def test_errors_in_a_log():
    policy = AuditPolicy("", log_errors=("^panic", "[Tt]raceback"))
    assert found(policy)[0].ok, "none is fine"
    assert only(policy, trail={"log": [LINE]}).ok
    assert only(policy, trail={"log": [{**LINE, "message": "no panic"}]}).ok
    finding = only(policy, trail={"log": [LINE, {**LINE, "message": "a traceback " + "x" * 4_000}]})
    assert finding.reason.startswith("[Tt]raceback is in a line of it: a traceback xxx")
    assert len(finding.reason) <= 500


def test_patterns_take_linear_time():
    trail = {"log": [{**LINE, "message": "a" * 4_000 + "b"}] * 14}
    began_s = time.process_time()
    assert only(AuditPolicy("", log_errors=("^(a+)+$", "(x+x+)+y")), trail=trail).ok
    assert time.process_time() - began_s < 1


def test_slow_is_a_warning():
    policy = AuditPolicy("", norm_ns=6 * SECOND_NS)
    assert found(policy, took_ns=6 * SECOND_NS) == []
    finding = only(policy, took_ns=7 * SECOND_NS)
    assert (finding.step, finding.ok, finding.reason) == (SLOW, True, "it took 7 s; 6 s are the norm")


# Frames


@pytest.fixture
def machine():
    made = a_machine()
    attach(made, "w1", offers=(an_offer("echo"), an_offer("other")), granted=10_000, concurrency=10_000)
    attach(made, "w2", offers=(an_offer("third"),))
    return made


@pytest_asyncio.fixture
async def check(machine):
    apart = AuditingProcess(AUDITING)
    blobs = {"large": b'"' + b"x" * 100_000 + b'"', "huge": b'"' + b"x" * AUDITED_BYTES_MAX + b'"', "bad": b"NaN"}
    cell = SimpleNamespace(state=machine.state, now_ns=machine.now_ns + 2 * SECOND_NS)
    yield ReportCheck(cell, Schemas(), blobs.__getitem__, apart)
    await apart.close()


def given(machine, *specs, **policies):
    submit(machine, *specs)
    allocate(machine)
    for capability, policy in policies.items():
        tell(machine, SetAudit, replace(policy, capability=capability))


async def checked(check, *reports):
    frame = WorkerFrame(reports=list(reports))
    assert check.is_due("w1", frame)
    await check.check("w1", frame)
    return [report.findings for report in frame.reports]


RULE = AuditPolicy("", schema=b'{"type": ["number", "string"]}', rules=(AuditRule("size", "result == parameters.n"),))


async def test_reports_of_capabilities_without_a_policy_are_left_alone(machine, check):
    given(machine, a_spec(1), a_spec(2, "other"))
    one, other = completed(1), completed(2)
    assert not check.is_due("w1", WorkerFrame(reports=[one, other]))
    given(machine, other=RULE)
    frame = WorkerFrame(reports=[one])
    assert not check.is_due("w1", frame)
    frame.reports.append(failed(2))
    assert not check.is_due("w1", frame), "a failure has no result"
    findings = await checked(check, one, completed(2, result=b"[]"))
    assert findings[0] == ()
    assert [finding.step for finding in findings[1]] == ["schema"], "rules get what has passed before"


async def test_each_is_held_against_its_own_task(machine, check):
    count = 700
    given(machine, *(a_spec(n, parameters=b'{"n": %d}' % n) for n in range(1, count + 1)), echo=RULE)
    wrong = {3, 650}
    reports = [completed(n, result=b"0" if n in wrong else b"%d" % n) for n in range(1, count + 1)]
    findings = await checked(check, *reports)
    refused = {n for n, found in enumerate(findings, 1) if not all(finding.ok for finding in found)}
    assert refused == wrong
    assert all([finding.step for finding in found] == ["schema", "size"] for found in findings)


async def test_results_of_attempts_that_the_worker_does_not_have_are_taken_out(machine, check):
    """Otherwise one that guesses which attempt it gets next could have its result in before it is looked at."""
    given(machine, a_spec(1), a_spec(2), a_spec(3, "third"), echo=RULE)
    guessed = [completed(1, attempt=2), completed(9), completed(3)]
    assert check.is_due("w1", WorkerFrame(reports=guessed))
    frame = WorkerFrame(reports=[*guessed, failed(1, attempt=2), completed(2, result=b"[]")])
    await check.check("w1", frame)
    assert [(report.task, len(report.findings)) for report in frame.reports] == [(an_id(1), 0), (an_id(2), 1)]


async def test_time_is_measured_here_and_not_believed(machine, check):
    given(machine, a_spec(1), echo=AuditPolicy("", norm_ns=SECOND_NS // 2))
    ((finding,),) = await checked(check, replace(completed(1), wall_ns=1))
    assert finding.step == SLOW


async def test_large_contents_are_read_within_bounds(machine, check):
    policy = replace(RULE, rules=(AuditRule("size", "size(result) == size(parameters.n) && parameters.more == 1"),))
    specs = [a_spec(n, parameters=b'{"n": "%s"}' % (b"y" * 100_000)) for n in (1, 2, 3)]
    given(machine, *specs, a_spec(4), echo=policy)
    for n in (1, 2, 3):
        machine.state.tasks[an_id(n)].inputs = (Input("more", b"1"),)
    machine.state.tasks[an_id(4)].parameters_blob = "gone"
    reports = [completed(n, result=b"", result_blob=blob) for n, blob in ((1, "large"), (2, "huge"), (3, "bad"))]
    large, huge, bad, gone = await checked(check, *reports, completed(4, result=b"1"))
    assert [finding.ok for finding in large] == [True, True]
    assert huge[0].broken
    assert "too large to be checked here" in huge[0].reason
    assert [(finding.step, finding.ok, finding.broken) for finding in bad] == [("json", False, False)]
    assert gone[-1].broken


async def test_the_loop_goes_on_meanwhile(machine, check, monkeypatch):
    """While hundreds are checked that cost nothing, others have their turn."""
    monkeypatch.setattr(report_check, "_TURN_REPORTS", 10)
    given(machine, *(a_spec(n) for n in range(1, 201)), echo=AuditPolicy("", schema=b'{"type": "string"}'))
    turns = 0

    async def tick():
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    ticking = asyncio.create_task(tick())
    await checked(check, *(completed(n) for n in range(1, 201)))
    ticking.cancel()
    assert turns >= 20
