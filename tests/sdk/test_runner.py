import asyncio
import hashlib
import importlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import psutil
import pytest

from merit.sdk.capability import capability
from merit.sdk.context import LOG_BYTES_MAX, LOG_LINES_MAX, Cancelled, Context, Permanent, current
from merit.sdk.execution import Job
from merit.sdk.outcome import ProgressNote
from merit.sdk.runner import Runner
from merit.sdk.schema import CapabilityError

WAIT_S = 30
SOURCE = Path(__file__).resolve().parents[2] / "src"

# Functions for child processes stand in a module of their own, which a child can import by name.
CHILD_MODULE = """
import os, signal, subprocess, sys, time
from merit.sdk.capability import capability
from merit.sdk.context import Context, Permanent, current

@capability(cpu=True)
def child_pid(x: int) -> int:
    return os.getpid()

@capability(cpu=True)
def exit_now(code: int) -> int:
    os._exit(code)

@capability(cpu=True)
def kill_self(x: int) -> int:
    current().log("info", "last words")
    os.kill(os.getpid(), signal.SIGKILL)
    return x

@capability(cpu=True)
def heeds(path: str, context: Context) -> None:
    open(path, "w").close()
    while True:
        context.check_cancelled()
        time.sleep(0.01)

@capability(cpu=True)
def heeds_nothing(path: str) -> None:
    grandchild = subprocess.Popen(["sleep", "300"])
    with open(path + ".part", "w") as file:
        file.write(f"{os.getpid()} {grandchild.pid}")
    os.replace(path + ".part", path)
    sum(range(10**15))  # one call that never lets go of the interpreter

@capability(cpu=True)
def talks(path: str) -> int:
    context = current()
    context.progress(1, total=4, message="began")
    context.log("warning", "careful", x=1)
    context.evidence(path)
    return context.attempt_number

@capability(cpu=True)
def burns(ms: int) -> int:
    ballast = bytearray(64 * 1024 * 1024)
    ballast[::4096] = b"x" * len(ballast[::4096])
    end = time.process_time() + ms / 1000
    while time.process_time() < end:
        pass
    return len(ballast)

@capability(cpu=True)
def exits(x: int) -> int:
    raise SystemExit(x)

@capability(cpu=True)
def large(size: int) -> str:
    return "x" * size
"""


@pytest.fixture
def children(tmp_path, monkeypatch):
    (tmp_path / "child_functions.py").write_text(CHILD_MODULE)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "child_functions", raising=False)
    child_functions = importlib.import_module("child_functions")

    return [value for name, value in vars(child_functions).items() if hasattr(value, "signature")]


@capability
def double(x: int) -> int:
    return 2 * x


@capability
def fails(how: str) -> int:
    match how:
        case "empty":
            raise ValueError
        case "text":
            raise ValueError("no such thing")
        case "permanent":
            raise Permanent("gone for good")
        case "exit":
            sys.exit(3)
        case "interrupt":
            raise KeyboardInterrupt
        case "cancelled":
            raise Cancelled("of my own")
        case "surrogate":
            raise ValueError("\ud800")
        case "long":
            raise ValueError("x" * 100_000)
        case "unprintable":
            raise Unprintable
        case "deep":
            return fails.function(how)
        case _:
            return how  # type: ignore[return-value] # what is tested


class Unprintable(Exception):
    def __str__(self):
        raise RuntimeError("no text")


release = threading.Event()
here: list[str] = []


@capability
def waits(x: int, context: Context) -> int:
    here.append(context.attempt)
    while not release.wait(0.005):
        context.check_cancelled()
    return x


@capability(name="gated", concurrency=2)
def gated(x: int) -> int:
    here.append(current().attempt)
    release.wait(WAIT_S)
    here.remove(current().attempt)
    return x


@capability
async def sleeps(seconds: float) -> str:
    await asyncio.sleep(seconds)
    return current().attempt


@capability
async def async_fails(how: str) -> int:
    await asyncio.sleep(0)
    return fails.function(how)


@capability
async def async_burns(ms: int) -> int:
    for _ in range(3):
        end = time.thread_time() + ms / 3000
        while time.thread_time() < end:
            pass
        await asyncio.sleep(0.05)
    return ms


@capability
def says(lines: int, size: int) -> None:
    for number in range(lines):
        current().log("info", "x" * size, number=number)


@capability
def large(size: int) -> str:
    return "x" * size


LOCAL = [double, fails, waits, gated, sleeps, async_fails, async_burns, says, large]


class Harness:
    def __init__(self, capabilities, concurrency, **options):
        loop = asyncio.get_running_loop()
        self.wakes = 0
        self._changed = asyncio.Event()
        self._outcomes = {}
        self._number = 0
        self.runner = Runner(capabilities, concurrency, lambda: loop.call_soon_threadsafe(self._on_wake), **options)

    def _on_wake(self):
        self.wakes += 1
        self._changed.set()

    def start(self, name, count=1, **parameters):
        jobs = []
        for _ in range(count):
            self._number += 1
            raw = json.dumps(parameters).encode()
            jobs.append(Job(f"a{self._number}", f"t{self._number}", 1, name, raw))
        self.runner.start(jobs)
        return [job.attempt for job in jobs]

    async def outcomes(self, attempts):
        async with asyncio.timeout(WAIT_S):
            while True:
                self._changed.clear()
                self._outcomes |= {outcome.attempt: outcome for outcome in self.runner.finished()}
                if all(a in self._outcomes for a in attempts):
                    return [self._outcomes[a] for a in attempts]
                await self._changed.wait()

    async def run(self, name, **parameters):
        return (await self.outcomes(self.start(name, **parameters)))[0]


async def until(condition):
    async with asyncio.timeout(WAIT_S):
        while not condition():
            await asyncio.sleep(0.005)


@asynccontextmanager
async def harness(capabilities=LOCAL, concurrency=4, **options):
    release.clear()
    here.clear()
    made = Harness(capabilities, concurrency, **options)
    try:
        yield made
    finally:
        release.set()
        await made.runner.close(5)


async def test_plain_functions_run_in_threads():
    async with harness() as h:
        outcomes = await h.outcomes(h.start("double", count=2_000, x=21))
        assert {o.status for o in outcomes} == {"completed"}
        assert {o.result for o in outcomes} == {b"42"}
        assert h.runner.held() == []
        one = outcomes[0]
        assert one.error is None
        assert one.ended_ns - one.started_ns == one.wall_ns > 0
        assert one.memory_bytes > 1_000_000
        assert abs(one.started_ns - time.time_ns()) < 60e9


@pytest.mark.parametrize(
    ("how", "kind", "message", "retry"),
    [
        ("empty", "exception", "ValueError", True),
        ("text", "exception", "ValueError: no such thing", True),
        ("permanent", "permanent", "gone for good", False),
        ("exit", "exception", "SystemExit: 3", True),
        ("interrupt", "exception", "KeyboardInterrupt", True),
        ("cancelled", "exception", "Cancelled: of my own", True),
        ("surrogate", "exception", "ValueError: \\ud800", True),
        (
            "wrong type",
            "invalid_output",
            "not of the declared return type: result: Input should be a valid integer",
            True,
        ),
    ],
)
@pytest.mark.parametrize("name", ["fails", "async_fails"])
async def test_whatever_a_function_raises_fails_its_attempt_only(name, how, kind, message, retry):
    async with harness() as h:
        outcome = await h.run(name, how=how)
        assert (outcome.status, outcome.result) == ("failed", b"")
        assert outcome.error.kind == kind
        assert outcome.error.message.startswith(message)
        assert outcome.error.retry is retry
        if kind == "exception":
            assert "in fails" in outcome.error.detail
        assert (await h.run("double", x=1)).result == b"2"


async def test_errors_are_bounded_and_always_have_a_text():
    async with harness() as h:
        long = (await h.run("fails", how="long")).error
        assert len(long.message.encode()) <= 4 * 1024
        assert len(long.detail.encode()) <= 16 * 1024
        assert (await h.run("fails", how="unprintable")).error.message.startswith("Unprintable: ")
        deep = (await h.run("fails", how="deep")).error
        assert deep.message.startswith("RecursionError")


async def test_input_that_does_not_fit_is_not_run():
    async with harness() as h:
        for outcome in [await h.run("double", x="1"), await h.run("sleeps"), await h.run("double", x=1, y=2)]:
            assert outcome.status == "failed"
            assert (outcome.error.kind, outcome.error.retry) == ("invalid_input", False)
        assert (await h.run("double", x="1")).error.message == "x: Input should be a valid integer (got '1')"


async def test_an_unknown_capability_fails_and_can_be_tried_elsewhere():
    async with harness() as h:
        error = (await h.run("nothing")).error
        assert (error.kind, error.retry) == ("unknown_capability", True)
        assert "'nothing'" in error.message


async def test_a_result_above_the_limit_is_refused_at_the_very_byte():
    async with harness(result_bytes_max=1_000) as h:
        assert (await h.run("large", size=998)).status == "completed"
        error = (await h.run("large", size=999)).error
        assert (error.kind, error.retry) == ("result_too_large", False)
        assert "1001 bytes, the limit is 1000" in error.message


async def test_at_most_concurrency_functions_run_at_a_time():
    async with harness(concurrency=3) as h:
        attempts = h.start("waits", count=10, x=1)
        await until(lambda: len(here) == 3)
        assert h.runner.started() == here
        assert h.runner.started() == []
        assert len(h.runner.held()) == 10
        assert h.runner.unstarted(0, time.monotonic_ns()) == attempts[3:]
        assert h.runner.unstarted(10**12, time.monotonic_ns()) == []
        release.set()
        assert len(await h.outcomes(attempts)) == 10


async def test_blocked_threads_do_not_hold_up_the_others():
    async with harness(concurrency=3) as h:
        blocked = h.start("waits", count=2, x=1)
        quick = await h.outcomes(h.start("double", count=500, x=1))
        assert len(quick) == 500
        release.set()
        await h.outcomes(blocked)


async def test_a_capabilitys_own_concurrency_is_kept():
    async with harness(concurrency=8) as h:
        attempts = h.start("gated", count=6, x=1)
        await until(lambda: len(here) == 2)
        assert (await h.run("double", x=1)).status == "completed"
        assert h.runner.withdraw(attempts[5])
        assert len(here) == 2
        release.set()
        assert len(await h.outcomes(attempts[:5])) == 5


async def test_async_functions_are_bounded_too():
    async with harness(concurrency=2) as h:
        attempts = h.start("sleeps", count=3, seconds=60)
        await until(lambda: len(h.runner.started()) == 2)
        assert h.runner.unstarted(0, time.monotonic_ns()) == attempts[2:]
        for attempt in attempts:
            h.runner.cancel(attempt)
        assert {o.status for o in await h.outcomes(attempts)} == {"canceled"}


async def test_wake_is_called_once_until_the_outcomes_are_taken():
    async with harness(concurrency=1) as h:
        h.start("double", count=200, x=1)
        await until(lambda: h.runner._running == 0)
        await asyncio.sleep(0)
        assert h.wakes == 1
        assert len(h.runner.finished()) == 200
        h.start("double", x=1)
        await until(lambda: h.wakes == 2)


async def test_withdrawing_succeeds_before_the_beginning_only():
    async with harness(concurrency=1) as h:
        first, second = h.start("waits", count=2, x=1)
        await until(lambda: here == [first])
        assert not h.runner.withdraw(first)
        assert h.runner.withdraw(second)
        assert not h.runner.withdraw(second)
        assert h.runner.held() == [first]
        release.set()
        await h.outcomes([first])
        assert here == [first]


async def test_each_attempt_is_either_withdrawn_or_run_never_both():
    async with harness(concurrency=4) as h:
        for _ in range(30):
            attempts = h.start("double", count=50, x=1)
            withdrawn = {a for a in reversed(attempts) if h.runner.withdraw(a)}
            run = {o.attempt for o in await h.outcomes([a for a in attempts if a not in withdrawn])}
            assert run | withdrawn == set(attempts)
            assert not run & withdrawn
            assert h.runner.held() == []


async def test_an_attempt_that_is_held_is_not_started_again():
    async with harness(concurrency=1) as h:
        (attempt,) = h.start("waits", x=1)
        h.runner.start([Job(attempt, "t", 1, "waits", b'{"x":1}')])
        release.set()
        await h.outcomes([attempt])
        assert h.runner.finished() == []


async def test_cancel_reaches_threads_tasks_and_the_queue():
    async with harness(concurrency=1) as h:
        running, queued = h.start("waits", count=2, x=1)
        (task,) = h.start("sleeps", seconds=60)
        (task_queued,) = h.start("sleeps", seconds=60)
        await until(lambda: here == [running])
        for attempt in (running, queued, task, task_queued, "unknown"):
            h.runner.cancel(attempt)
            h.runner.cancel(attempt)
        outcomes = await h.outcomes([running, queued, task, task_queued])
        assert [o.status for o in outcomes] == ["canceled"] * 4
        assert [o.error.retry for o in outcomes] == [False] * 4
        assert "before it began" in outcomes[1].error.message
        assert outcomes[1].started_ns == 0


async def test_a_function_that_ends_in_spite_of_a_cancel_has_its_result():
    async with harness() as h:
        (attempt,) = h.start("gated", x=7)
        await until(lambda: here == [attempt])
        h.runner.cancel(attempt)
        release.set()
        (outcome,) = await h.outcomes([attempt])
        assert (outcome.status, outcome.result) == ("completed", b"7")


async def test_logs_are_bounded_and_the_rest_is_counted():
    async with harness() as h:
        outcome = await h.run("says", lines=LOG_LINES_MAX + 7, size=1)
        assert (len(outcome.log), outcome.log_dropped) == (LOG_LINES_MAX, 7)
        assert json.loads(outcome.log[3].fields) == {"number": 3}
        outcome = await h.run("says", lines=200, size=100_000)
        assert sum(len(line.message.encode()) for line in outcome.log) <= LOG_BYTES_MAX
        assert len(outcome.log) + outcome.log_dropped == 200


async def test_cpu_time_of_an_async_function_is_its_own():
    async with harness(concurrency=8) as h:
        outcomes = await h.outcomes(h.start("async_burns", count=4, ms=30))
        for outcome in outcomes:
            assert 30e6 <= outcome.cpu_ns < 60e6
            assert outcome.wall_ns >= 150e6


async def test_two_capabilities_of_one_name_are_refused():
    @capability(name="double")
    def other(x: int) -> int:
        return x

    with pytest.raises(CapabilityError, match="two capabilities are called double"):
        Runner([double, other], 1, lambda: None)
    with pytest.raises(ValueError, match="at least 1"):
        Runner([double], 0, lambda: None)


async def test_closing_gives_back_what_has_not_begun_and_waits_for_the_rest():
    async with harness(concurrency=1) as h:
        running, queued = h.start("waits", count=2, x=1)
        await until(lambda: here == [running])
        closing = asyncio.create_task(h.runner.close(WAIT_S))
        await asyncio.sleep(0)
        release.set()
        assert await closing == [queued]
        assert [o.status for o in h.runner.finished()] == ["completed"]
        with pytest.raises(RuntimeError, match="closed"):
            h.start("double", x=1)


async def test_closing_without_time_cancels():
    async with harness(concurrency=2) as h:
        attempts = h.start("waits", x=1) + h.start("sleeps", seconds=60)
        await until(lambda: len(here) == 1)
        assert await h.runner.close(0) == []
        assert {o.attempt: o.status for o in h.runner.finished()} == dict.fromkeys(attempts, "canceled")


# --- the context --------------------------------------------------------------------------------------------------------


def test_the_context_checks_what_it_is_told(tmp_path):
    notes: list[ProgressNote] = []
    context = Context("a", "t", 2, deadline_ns=1_700_000_000_000_000_000, on_progress=notes.append)
    context.progress(0.25)
    context.progress(3, total=4, message="x" * 10_000)
    assert [n.fraction for n in notes] == [0.25, 0.75]
    assert len(notes[1].message.encode()) <= 512
    for bad in [(-1, None), (1.5, None), (float("nan"), None), (5, 4), (1, 0), (1, float("inf"))]:
        with pytest.raises(ValueError, match="progress: "):
            context.progress(*bad)
    with pytest.raises(ValueError, match="level must be one of"):
        context.log("loud", "x")  # type: ignore[arg-type] # what is tested
    with pytest.raises(ValueError, match="not a regular file"):
        context.evidence(tmp_path)
    with pytest.raises(FileNotFoundError):
        context.evidence(tmp_path / "missing")
    assert str(context.deadline) == "2023-11-14 22:13:20+00:00"
    assert context.attempt_number == 2
    context.check_cancelled()
    with pytest.raises(LookupError, match="no attempt runs here"):
        current()


def test_log_fields_of_any_kind_become_json():
    context = Context()
    context.log("info", "x", path=Path("a"), bad=Unprintable(), odd="\ud800", many=list(range(10_000)))
    context.log("info", "\ud800", when=object())
    deep: list[Any] = []
    for _ in range(70):
        deep = [deep]
    context.log("info", "the door takes no deeper ones, and would end the worker's stream", deep=deep)
    lines, dropped, _ = context.said()
    assert max(line.fields.count(b"[") for line in lines if b"truncated" not in line.fields) <= 61
    assert dropped == 0
    for line in lines:
        json.loads(line.fields)
        line.message.encode()


# --- child processes ----------------------------------------------------------------------------------------------------


async def test_cpu_functions_run_in_children_that_are_kept(children):
    async with harness(children, concurrency=1) as h:
        first, second = await h.run("child_pid", x=1), await h.run("child_pid", x=1)
        assert first.result == second.result != str(os.getpid()).encode()
        assert (await h.run("child_pid", x="1")).error.kind == "invalid_input"
        assert "SystemExit: 3" in (await h.run("exits", x=3)).error.message
        assert (await h.run("child_pid", x=1)).result == first.result
        large_one = await h.run("large", size=20_000_000)
        assert len(large_one.result) == 20_000_002
    assert not psutil.pid_exists(int(first.result))


async def test_cpu_time_and_peak_memory_are_those_of_the_child(children):
    async with harness(children, concurrency=1) as h:
        small = await h.run("child_pid", x=1)
        outcome = await h.run("burns", ms=100)
        assert outcome.cpu_ns >= 95e6
        assert outcome.memory_bytes >= small.memory_bytes + 50 * 1024 * 1024


async def test_progress_logs_and_evidence_come_from_children(children, tmp_path):
    proof = tmp_path / "proof"
    proof.write_bytes(b"proof")
    async with harness(children, concurrency=1) as h:
        (attempt,) = h.start("talks", path=str(proof))
        await until(lambda: h.wakes)
        (note,) = h.runner.progress(time.monotonic_ns())
        assert (note.attempt, note.fraction, note.done, note.total, note.message) == (attempt, 0.25, 1.0, 4.0, "began")
        (outcome,) = await h.outcomes([attempt])
        assert outcome.result == b"1"
        assert [(line.level, line.message, line.fields) for line in outcome.log] == [("warning", "careful", b'{"x":1}')]
        assert [(e.path, e.size_bytes, e.sha256) for e in outcome.evidence] == [
            (str(proof), 5, hashlib.sha256(b"proof").hexdigest())
        ]


async def test_a_child_that_dies_fails_its_own_attempt_and_is_replaced(children):
    async with harness(children, concurrency=1) as h:
        before = int((await h.run("child_pid", x=1)).result)
        outcome = await h.run("exit_now", code=3)
        assert (outcome.status, outcome.error.kind, outcome.error.retry) == ("failed", "crashed", True)
        assert outcome.error.message.endswith("exit code 3")
        outcome = await h.run("kill_self", x=1)
        assert outcome.error.kind == "crashed"
        assert outcome.error.message.endswith("signal SIGKILL (9)")
        assert [line.message for line in outcome.log] == ["last words"]
        after = await h.run("child_pid", x=1)
        assert after.status == "completed"
        assert int(after.result) != before


async def test_an_idle_child_that_was_killed_is_replaced(children):
    async with harness(children, concurrency=1) as h:
        pid = int((await h.run("child_pid", x=1)).result)
        os.kill(pid, signal.SIGKILL)
        # A zombie is not enough: its threads end after it.
        await until(lambda: os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None)
        outcome = await h.run("child_pid", x=1)
        assert outcome.status == "completed"
        assert int(outcome.result) != pid


async def test_a_child_that_heeds_a_cancel_lives_on(children, tmp_path):
    async with harness(children, concurrency=1, cancel_grace_s=WAIT_S) as h:
        pid = (await h.run("child_pid", x=1)).result
        (attempt,) = h.start("heeds", path=str(tmp_path / "running"))
        await until((tmp_path / "running").exists)
        h.runner.cancel(attempt)
        (outcome,) = await h.outcomes([attempt])
        assert (outcome.status, outcome.error.kind) == ("canceled", "canceled")
        assert (await h.run("child_pid", x=1)).result == pid


async def test_a_child_that_heeds_no_cancel_is_killed_with_what_it_started(children, tmp_path):
    async with harness(children, concurrency=1, cancel_grace_s=0.1) as h:
        (attempt,) = h.start("heeds_nothing", path=str(tmp_path / "pids"))
        await until((tmp_path / "pids").exists)
        h.runner.cancel(attempt)
        (outcome,) = await h.outcomes([attempt])
        assert outcome.status == "canceled"
        assert "killed after 0.1 s" in outcome.error.message
        for pid in (tmp_path / "pids").read_text().split():
            await until(lambda pid=pid: gone(int(pid)))
        assert (await h.run("child_pid", x=1)).status == "completed"


def gone(pid):
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


SCRIPT = (
    CHILD_MODULE
    + """
import asyncio, signal, threading
from merit.sdk.execution import Job
from merit.sdk.runner import Runner

async def main():
    done = asyncio.Event()
    loop = asyncio.get_running_loop()
    runner = Runner([child_pid, heeds_nothing], 1, lambda: loop.call_soon_threadsafe(done.set))
    runner.start([Job("a", "t", 1, sys.argv[1], sys.argv[2].encode())])
    await done.wait()
    print(runner.finished()[0].result.decode(), flush=True)
    await runner.close(1)

if __name__ == "__main__":
    asyncio.run(main())
"""
)


@pytest.fixture
def script(tmp_path):
    path = tmp_path / "a_script.py"
    path.write_text(SCRIPT)
    environment = os.environ | {"PYTHONPATH": str(SOURCE)}
    started = []

    def start(*arguments):
        made = subprocess.Popen([sys.executable, path, *arguments], stdout=subprocess.PIPE, text=True, env=environment)
        started.append(made)
        return made

    yield start
    for made in started:
        made.kill()
        made.communicate()


async def test_functions_of_the_script_itself_run_in_children(script):
    process = script("child_pid", '{"x":1}')
    output, _ = process.communicate(timeout=WAIT_S)
    assert process.returncode == 0
    assert int(output) != process.pid
    await until(lambda: gone(int(output)))


@pytest.mark.skipif(sys.platform != "linux", reason="a call that holds the interpreter can be ended on Linux only")
async def test_busy_children_die_with_a_worker_that_is_killed(script, tmp_path):
    process = script("heeds_nothing", json.dumps({"path": str(tmp_path / "pids")}))
    await until((tmp_path / "pids").exists)
    child = int((tmp_path / "pids").read_text().split()[0])
    grandchild = int((tmp_path / "pids").read_text().split()[1])
    assert not gone(child)
    process.kill()
    process.wait(WAIT_S)
    try:
        await until(lambda: gone(child))
    finally:
        os.kill(grandchild, signal.SIGKILL)


async def test_outcomes_can_be_sent(children):
    async with harness() as h:
        outcome = await h.run("says", lines=2, size=3)
        assert msgspec.msgpack.decode(msgspec.msgpack.encode(outcome), type=type(outcome)) == outcome
