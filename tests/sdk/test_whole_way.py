"""Client, control plane and worker together: what a requester may ask for, and what a running task says."""

import asyncio
import contextlib
import importlib
import sys
import time
from collections import Counter
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import pytest_asyncio

from merit import AsyncClient, Context, Refused, TaskRequest, command_line
from merit.app.control_plane import ControlPlane, Settings
from merit.model.limits import Limits
from merit.model.tasks import TaskState
from merit.sdk.capability import capability
from merit.sdk.following import Step
from merit.sdk.operations import Where
from merit.sdk.options import Retry
from merit.sdk.worker import WorkerProcess

pytestmark = pytest.mark.timeout(60)

calls: Counter[str] = Counter()

CHILD = """
import time
from pathlib import Path

from merit import capability, current

@capability(cpu=True)
def reckons() -> int:
    context = current()
    context.log("info", "from a child")
    context.progress(0.5, message="half")
    while not Path("heard").exists():
        context.beat()
        time.sleep(0.01)
    return 1
"""


@capability
def add(a: int, b: int = 0, c: int | None = 0) -> int:
    return a + b + (c or 0)


@capability
def length(text: str, more: str = "") -> int:
    return len(text) + len(more)


@capability
def long_text(size: int) -> str:
    return "x" * size


@capability
def fails(name: str) -> None:
    calls[name] += 1
    raise ValueError("no such thing")


@capability(safe_to_repeat=False)
def fails_once(name: str) -> None:
    calls[name] += 1
    raise ValueError("no such thing")


@capability
def talks(context: Context) -> str:
    context.progress(1, total=4, message="began")
    context.log("warning", "careful", x=1)
    time.sleep(0.4)
    context.progress(2, total=4)
    context.tell("only for those who look")
    while not Path("heard").exists():
        time.sleep(0.01)
    return "done"


@capability(heartbeat_timeout_s=1.5)
async def sleeps(wait_s: float, every_s: float, context: Context) -> str:
    calls["sleeps"] += 1
    until_s = time.monotonic() + wait_s
    while time.monotonic() < until_s:
        await asyncio.sleep(every_s)
        context.beat()
    return "awake"


@pytest_asyncio.fixture
async def address(tmp_path):
    ready: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    plane = ControlPlane(Settings(state=tmp_path / "state", grpc="127.0.0.1:0"))
    running = asyncio.create_task(plane.run(lambda where, _epoch: ready.set_result(where)))
    yield await asyncio.wait_for(ready, 10)
    plane.stop()
    await asyncio.wait_for(running, 10)


@contextlib.asynccontextmanager
async def working(address, *capabilities):
    worker = WorkerProcess(capabilities, address, name="w", concurrency=4, processes=1)
    running = asyncio.create_task(worker.run())
    try:
        yield
    finally:
        worker.drain()
        await asyncio.wait_for(running, 15)


async def test_results_become_parameters_of_the_tasks_that_need_them(address):
    async with working(address, add, length, long_text, fails), AsyncClient(address) as merit:
        first = await merit.submit("add", {"a": 1})
        second = await merit.submit("add", inputs={"a": first, "b": first.id})
        third = await merit.submit("add", {"c": 10}, inputs={"a": second})
        assert await third.result(10) == 12
        long_one = await merit.submit("long_text", {"size": 100_000})
        other = await merit.submit("long_text", {"size": 10})
        counted = await merit.submit("length", inputs={"text": long_one, "more": other})
        assert await counted.result(10) == 100_010
        large = await merit.submit("length", {"text": "x" * 80_000}, inputs={"more": long_one})
        assert await large.result(10) == 180_000
        wrong = await merit.submit("length", inputs={"text": first})
        result = await wrong.wait(10)
        assert result.failure is not None
        assert (result.failure.kind, result.attempts) == ("invalid_input", 1), (
            "the worker checks what nobody else could"
        )
        dead = await merit.submit("fails", {"name": "x"}, attempts_max=1)
        despite = await merit.submit("add", {"a": 5}, inputs={"c": dead}, despite_dead=True)
        assert await despite.result(10) == 5
        with pytest.raises(Refused, match="inputs"):
            await merit.submit("add", {"a": 5}, inputs={"a": first})


async def test_the_same_key_is_the_same_task(address):
    async with working(address, add), AsyncClient(address) as merit, AsyncClient(address, tenant="them") as others:
        first = await merit.submit("add", {"a": 1}, idempotency_key="k")
        handles = await asyncio.gather(*(merit.submit("add", {"a": 1}, idempotency_key="k") for _ in range(5)))
        assert {handle.id for handle in handles} == {first.id}
        assert [result.value for result in await merit.wait([first, *handles], 10)] == [1] * 6
        late = await merit.submit("add", {"a": 1}, idempotency_key="k")
        assert (late.id, await late.result(10)) == (first.id, 1), "also when it is over"
        theirs = await others.submit("add", {"a": 1}, idempotency_key="k")
        assert theirs.id != first.id
        with pytest.raises(Refused) as raised:
            await merit.submit("add", {"a": 2}, idempotency_key="k")
        assert (raised.value.refusal.code, raised.value.refusal.field) == ("conflict", "terms.idempotency_key")


@pytest.mark.parametrize("kind", ["thread", "process", "program"])
async def test_whoever_follows_sees_what_a_task_says(address, kind, tmp_path, monkeypatch):
    """It ends when all that it said has been heard."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "reckoning.py").write_text(CHILD)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "reckoning", raising=False)
    reckons = importlib.import_module("reckoning").reckons
    # The first line is a note at once, the next ones are joined until a quarter of a second later.
    program = command_line(
        "program", ["sh", "-c", "echo one; sleep 0.4; echo two; until test -e heard; do sleep 0.01; done"], {}
    )
    made = {"thread": talks, "process": reckons, "program": program}[kind]
    lines = {
        "thread": ['warning: careful {"x":1}', "only for those who look"],
        "process": ["from a child"],
        "program": ["one", "two"],
    }[kind]
    fraction = None if kind == "program" else 0.5
    async with working(address, made), AsyncClient(address) as merit:
        # It is followed before it begins, so that nothing is missed.
        await merit.operations.pause_queue(made.name)
        handle = await merit.submit(made.name)
        steps: list[Step] = []
        async for step in handle.follow():
            if not steps:
                await merit.operations.resume_queue(made.name)
            steps.append(step)
            if [line for step in steps for line in step.log] == lines and step.fraction == fraction:
                (tmp_path / "heard").touch()
        assert steps[0].state is TaskState.PENDING
        assert steps[-1].state is TaskState.COMPLETED
        assert TaskState.RUNNING in {step.state for step in steps}
        assert [line for step in steps for line in step.log] == lines
        if kind != "program":
            assert max(step.fraction or 0 for step in steps) == 0.5
            assert {step.worker for step in steps} - {""} == {"w"}


async def test_an_attempt_without_a_sign_of_life_is_lost_and_one_that_beats_is_not(address):
    async with working(address, sleeps), AsyncClient(address) as merit:
        calls["sleeps"] = 0
        beating = await merit.submit("sleeps", {"wait_s": 2.5, "every_s": 0.1})
        assert await beating.result(10) == "awake"
        assert calls["sleeps"] == 1
        silent = await merit.submit("sleeps", {"wait_s": 30, "every_s": 30}, retry=Retry(silent=0))
        result = await silent.wait(20)
        assert result.state is TaskState.DEAD
        assert result.attempts == 1
        (dead,) = (await merit.operations.dead(Where(capability="sleeps"))).tasks
        assert dead["id"] == silent.id


async def test_what_was_asked_for_is_kept_to(address):
    calls.clear()
    async with working(address, add, fails, fails_once), AsyncClient(address) as merit:
        once = await merit.submit("fails_once", {"name": "offer"})
        by_terms = await merit.submit("fails", {"name": "terms"}, safe_to_repeat=False)
        twice = await merit.submit("fails", {"name": "retry"}, retry=Retry(failed=1, backoff_s=0.05))
        results = await merit.wait([once, by_terms, twice], 20)
        assert [result.attempts for result in results] == [1, 1, 2]
        assert calls == {"offer": 1, "terms": 1, "retry": 2}
        begin = datetime.now(UTC) + timedelta(seconds=0.5)
        late = await merit.submit("add", {"a": 1}, not_before=begin, labels={"kind": "late"})
        assert await late.result(10) == 1
        assert datetime.now(UTC) >= begin
        (found,) = (await merit.tasks(where=Where(labels={"kind": "late"}))).tasks
        assert found["id"] == late.id
        hopeless = await merit.submit("nobody has this", deadline=datetime.now(UTC) + timedelta(seconds=0.3))
        also = await merit.submit("nobody has this", timeout_s=0.3)
        queued = await merit.submit("nobody has this", queue_timeout_s=0.3, attempts_max=1)
        states = [result.state for result in await merit.wait([hopeless, also, queued], 10)]
        assert states == [TaskState.DEAD] * 3
        values = [result.value async for result in merit.map("add", [{"a": n} for n in range(5)], delay_s=0.1, key="k")]
        assert values == list(range(5))


async def test_operators_have_their_way(address):
    calls.clear()
    async with working(address, add, fails), AsyncClient(address) as merit:
        operations = merit.operations
        await operations.pause_queue("add", "for a test")
        waiting = await merit.submit_many([TaskRequest(capability="add", parameters={"a": n}) for n in range(3)])
        queue = await operations.queue("add")
        assert (queue["paused"], queue["pause_reason"], queue["pending"]) == (True, "for a test", 3)
        assert await operations.cancel(Where(states=["PENDING"], capability="add")) == 3
        assert [result.state for result in await merit.wait(waiting, 10)] == [TaskState.CANCELED] * 3
        await operations.resume_queue("add")
        assert (await (await merit.submit("add", {"a": 1})).wait(10)).ok
        await operations.set_rule("capability", "add", concurrency=1, rate_hz=100)
        assert [rule["name"] for rule in await operations.rules()] == ["add"]
        await operations.set_tenant("default", weight=3)
        assert {"default"} <= {tenant["tenant"] for tenant in await operations.tenants()}
        dead = await merit.submit("fails", {"name": "x"}, attempts_max=1)
        await dead.wait(10)
        retried = await operations.retry_dead(where=Where(text="no such thing"))
        assert [old for old, _ in retried.pairs] == [dead.id]
        again = merit.watch(retried.pairs[0][1])
        assert (await again.wait(10)).state is TaskState.DEAD
        assert (await merit.task(again.id))["terms"]["origin"] == dead.id
        assert (await operations.purge_dead([again.id])).tasks == [again.id]
        assert (await operations.dead()).tasks == []
        request = TaskRequest(capability="add", parameters={"a": 7})
        assert await operations.set_schedule("s", "0 0 1 1 *", request, zone="Europe/Berlin")
        task_id = await operations.run_schedule("s")
        assert await merit.watch(task_id).result(10) == 7
        (schedule,) = await operations.schedules()
        assert (schedule["name"], schedule["last_task"]) == ("s", task_id)
        await operations.remove_schedule("s")
        assert await operations.schedules() == []


async def test_of_a_task_that_only_the_journal_remembers_another_tenant_hears_nothing(tmp_path):
    ready: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    plane = ControlPlane(Settings(state=tmp_path / "state", grpc="127.0.0.1:0", limits=Limits(finals_max=1)))
    running = asyncio.create_task(plane.run(lambda where, _epoch: ready.set_result(where)))
    address = await asyncio.wait_for(ready, 10)
    async with working(address, add), AsyncClient(address) as merit, AsyncClient(address, tenant="them") as others:
        first, second = [await merit.submit("add", {"a": a}) for a in (1, 2)]
        assert (await first.result(20), await second.result(20)) == (1, 2)
        with pytest.raises(Refused, match="no such task"):
            await others.watch(first.id).wait(20)
    async with AsyncClient(address) as again:
        assert await again.watch(first.id).result(20) == 1
    plane.stop()
    await asyncio.wait_for(running, 10)
