"""Foreign workers with the habits of the field, and worse ones, driven by a real control plane."""

import asyncio
import json
import time
from typing import Any, ClassVar

import grpc
import pytest
import pytest_asyncio
from google.protobuf.empty_pb2 import Empty

from merit import AsyncClient, Retry, WorkerProcess, capability
from merit.gateway.unary import attempt, contents, roster
from merit.model.tasks import TaskState
from merit.ports.blobs import BlobUnavailable
from merit.testing.plane import PlaneFaults
from merit.testing.processes import PlaneProgram, free_port, running
from merit.wire.v1 import fleet_pb2
from merit.wire.worker_abstraction import worker_abstraction_pb2 as unary
from tests.gateway.foreign import (
    COMPLETED,
    FAILED,
    PENDING,
    QUICK,
    RUNNING,
    Foreign,
    Polling,
    Registry,
    info,
    planed,
    serving,
    status,
    until,
)

pytestmark = pytest.mark.timeout(60)
ONCE = {"attempts_max": 1}


@pytest_asyncio.fixture
async def plane(tmp_path):
    async with planed(tmp_path / "state") as registry:
        yield registry


@pytest_asyncio.fixture
async def merit(plane):
    async with AsyncClient(plane.address) as client:
        yield client


@pytest.fixture
def quick_looks(monkeypatch):
    monkeypatch.setattr(attempt, "LOOK_AFTER_S", (0.3, 1.0))
    monkeypatch.setattr(attempt, "LOOK_S", 0.3)


async def attempts(merit: AsyncClient, task_id: str) -> list[tuple[str, str]]:
    """State, and worker, of each."""
    return [(one["state"], one["worker"]) for one in (await merit.task(task_id))["attempts"]]


async def test_a_task_is_done_by_a_worker_that_has_never_heard_of_merit(plane, merit):
    foreign = Foreign()
    async with serving(foreign) as address:
        worker = await plane.register(info(address))
        handle = await merit.submit("work", {"a": 1, "b": {"c": [None]}}, labels={"kind": "x"}, run_timeout_s=1.2)
        assert await handle.result(10) == {"a": 1, "b": {"c": [None]}}
        (task,) = foreign.tasks.values()
        assert task.task_id == f"{handle.id}.1"
        assert (task.worker_id, task.capability_name, task.timeout_seconds) == (worker, "work", 2)
        assert abs(task.created_at.ToNanoseconds() / 1e9 - time.time()) < 60
        wanted = {"merit-task": handle.id, "merit-attempt": "1", "merit-tenant": "default", "kind": "x"}
        assert dict(task.metadata) == wanted
        assert await attempts(merit, handle.id) == [("COMPLETED", worker)]
        assert foreign.streams == [task.task_id]


async def test_nothing_said_is_null_and_large_things_go_through_the_store(plane, merit):
    class Quiet(Foreign):
        async def run(self, task):
            output = "" if len(task.parameters) == 1 else json.dumps("y" * 200_000)
            yield status(task.task_id, COMPLETED, output_json=output)

    foreign = Quiet()
    async with serving(foreign) as address:
        await plane.register(info(address))
        large = await merit.submit("work", {"text": "x" * 200_000})
        assert await large.result(10) is None
        both = await merit.submit("work", {"n": 2}, inputs={"result": large})
        assert await both.result(10) == "y" * 200_000
        again = await merit.submit("work", {"n": 3}, inputs={"result": both})
        assert await again.result(10) == "y" * 200_000
        last = foreign.tasks[f"{again.id}.1"]
        assert {one.key: len(one.value_json) for one in last.parameters} == {"n": 1, "result": 200_002}


class Struggling:
    """A store of which every third question is answered; none while it is away."""

    def __init__(self):
        self.blobs: Any = None
        self.questions = 0
        self.away = False

    def get(self, tenant, digest):
        return self.answer(lambda: self.blobs.get(tenant, digest))

    def put(self, tenant, data):
        return self.answer(lambda: self.blobs.put(tenant, data))

    def answer(self, ask):
        self.questions += 1
        if self.away or self.questions % 3:
            raise BlobUnavailable("the database is away")
        return ask()


@pytest.fixture
def store(monkeypatch):
    """The one of the driver; that of clients is in order."""
    store: Any = Struggling()

    def struggling(blobs):
        store.blobs = blobs
        return contents.Contents(store)

    monkeypatch.setattr(contents, "STORE_AGAIN_S", (0.01, 0.02))
    monkeypatch.setattr(roster, "Contents", struggling)
    return store


class Talkative(Foreign):
    async def run(self, task):
        yield status(task.task_id, COMPLETED, output_json=json.dumps("y" * 200_000))


async def test_a_store_that_cannot_be_had_for_a_moment_costs_no_attempt(store, plane, merit):
    async with serving(Talkative()) as address:
        worker = await plane.register(info(address))
        handle = await merit.submit("work", {"text": "x" * 200_000}, **ONCE)
        assert await handle.result(10) == "y" * 200_000
        assert await attempts(merit, handle.id) == [("COMPLETED", worker)]
    assert store.questions == 6


@pytest.mark.parametrize(
    ("text", "said"),
    [("x" * 200_000, "its parameters could not be put together: "), ("", "the result could not be stored: ")],
)
async def test_a_store_that_cannot_be_had_for_long_ends_the_attempt(store, plane, merit, monkeypatch, text, said):
    monkeypatch.setattr(contents, "STORE_S", 0.1)
    store.away = True
    async with serving(Talkative()) as address:
        await plane.register(info(address))
        failure = (await (await merit.submit("work", {"text": text}, **ONCE)).wait(10)).failure
        assert (failure.kind, failure.message) == ("blob", f"{said}the database is away (tried for 0.1 s)")


async def test_one_that_begins_with_the_stream_and_looks_at_itself_twice_a_second(plane, merit):
    foreign = Polling()
    async with serving(foreign) as address:
        worker = await plane.register(info(address))
        async with plane.beating(worker):
            handles = [await merit.submit("work", {"n": n}) for n in range(4)]
            assert [(await handle.result(20))["n"] for handle in handles] == list(range(4))
        assert foreign.executions == 4, "none was begun twice"
        assert [await attempts(merit, handle.id) for handle in handles] == [[("COMPLETED", worker)]] * 4


async def test_one_that_never_says_the_end_on_the_stream_that_is_open(plane, merit, quick_looks):
    class Mute(Foreign):
        async def run(self, task):
            if self.streams.count(task.task_id) == 1:
                yield status(task.task_id, RUNNING)
                await asyncio.sleep(3600)
            yield status(task.task_id, RUNNING)
            yield status(task.task_id, COMPLETED, output_json="1")

    foreign = Mute()
    async with serving(foreign) as address:
        await plane.register(info(address))
        handle = await merit.submit("work")
        assert await handle.result(10) == 1
        assert (await handle.wait()).attempts == 1
        await until(lambda: not foreign.open, "no stream is left open")


async def test_one_that_works_in_its_stream_is_not_disturbed_by_looks(plane, merit, quick_looks):
    """Its first stream is what does the work; all others only see that it runs."""

    class Working(Foreign):
        async def run(self, task):
            first = len(self.streams) == 1
            yield status(task.task_id, RUNNING)
            await asyncio.sleep(1.5 if first else 3600)
            yield status(task.task_id, COMPLETED, output_json='"first"')

    foreign = Working()
    async with serving(foreign) as address:
        await plane.register(info(address))
        handle = await merit.submit("work")
        assert await handle.result(10) == "first"
        assert len(foreign.streams) > 1


async def test_a_stream_that_ends_without_an_end_is_opened_again(plane, merit):
    class Short(Foreign):
        async def run(self, task):
            yield status(task.task_id, RUNNING)
            if self.streams.count(task.task_id) == 3:
                yield status(task.task_id, COMPLETED, output_json="3")

    foreign = Short()
    async with serving(foreign) as address:
        await plane.register(info(address))
        assert await (await merit.submit("work")).result(10) == 3
        assert len(foreign.streams) == 3


async def test_one_that_dies_silently_is_timed_out_and_what_comes_late_is_not_heard(plane, merit):
    class Late(Foreign):
        async def run(self, task):
            yield status(task.task_id, RUNNING)
            await self.go.wait()
            yield status(task.task_id, COMPLETED, output_json='"late"')

    foreign = Late()
    async with serving(foreign) as address:
        worker = await plane.register(info(address))
        async with plane.beating(worker):
            handle = await merit.submit("work", run_timeout_s=0.5, **ONCE)
            assert (await handle.wait(10)).state is TaskState.DEAD
            await until(lambda: foreign.closed, "its stream is closed")
            foreign.go.set()
            assert await attempts(merit, handle.id) == [("TIMED_OUT", worker)]
            assert await (await merit.submit("work")).result(10) == "late", "it is given others all the same"


async def test_one_that_can_be_told_is_told_of_a_cancel(plane, merit):
    class Cancels(Foreign):
        canceled: ClassVar[list[str]] = []

        async def run(self, task):
            yield status(task.task_id, RUNNING)
            await asyncio.sleep(3600)

        async def CancelTask(self, request, context):
            self.canceled.append(request.task_id)
            return Empty()

    foreign = Cancels()
    async with serving(foreign) as address:
        await plane.register(info(address))
        handle = await merit.submit("work")
        await until(lambda: foreign.open, "it runs")
        handle.cancel()
        assert (await handle.wait(10)).state is TaskState.CANCELED
        await until(lambda: foreign.canceled == [f"{handle.id}.1"], "it has heard of it")
        await until(lambda: not foreign.open, "its stream is closed")


async def test_one_that_cannot_be_told_has_its_stream_closed(plane, merit):
    class Deaf(Foreign):
        async def run(self, task):
            yield status(task.task_id, RUNNING)
            await asyncio.sleep(3600)

    foreign = Deaf()
    async with serving(foreign) as address:
        await plane.register(info(address))
        for _ in range(2):
            handle = await merit.submit("work")
            await until(lambda: foreign.open, "it runs")
            handle.cancel()
            assert (await handle.wait(10)).state is TaskState.CANCELED
            await until(lambda: not foreign.open, "its stream is closed")


@pytest.mark.parametrize("output", ["{", "nonsense", "NaN", '"\\ud800"', "[" * 100 + "]" * 100])
async def test_a_result_that_is_no_json_is_a_failed_attempt(plane, merit, output):
    class Nonsense(Foreign):
        async def run(self, task):
            yield status(task.task_id, COMPLETED, output_json=output)

    foreign = Nonsense()
    async with serving(foreign) as address:
        worker = await plane.register(info(address))
        handle = await merit.submit("work", **ONCE)
        result = await handle.wait(10)
        assert result.failure is not None
        assert result.failure.kind == "invalid_output"
        assert await attempts(merit, handle.id) == [("FAILED", worker)]


async def test_nonsense_on_a_stream_means_nothing(plane, merit):
    class Noisy(Foreign):
        async def run(self, task):
            yield unary.StreamTaskStatusResponse()
            yield status("another", FAILED, error_message="not mine")
            yield status(task.task_id, 77)
            yield status(task.task_id, PENDING)
            yield status(task.task_id, RUNNING)
            yield status(task.task_id, PENDING)
            yield status("", COMPLETED, output_json='"a worker that does not say of which task"')

    foreign = Noisy()
    async with serving(foreign) as address:
        await plane.register(info(address))
        assert "of which task" in await (await merit.submit("work")).result(10)


async def test_one_that_answers_twice_is_heard_once(plane, merit):
    class Twice(Foreign):
        async def run(self, task):
            yield status(task.task_id, COMPLETED, output_json="1")
            yield status(task.task_id, FAILED, error_message="no, it is not")
            yield status(task.task_id, COMPLETED, output_json="2")

    foreign = Twice()
    async with serving(foreign) as address:
        await plane.register(info(address))
        assert [await (await merit.submit("work")).result(10) for _ in range(3)] == [1, 1, 1]


@pytest.mark.parametrize(
    ("said", "kind", "message", "detail"),
    [
        ({"error_message": "broke"}, "failed", "broke", ""),
        ({"output_json": '{"error": "from inside"}'}, "failed", "from inside", ""),
        ({"error_message": "broke", "output_json": '{"error": "from inside"}'}, "failed", "broke", "from inside"),
        ({"output_json": '{"error": {"code": 7}}'}, "failed", '{"code":7}', ""),
        ({"output_json": "not json"}, "failed", "the worker gave no reason", ""),
        (
            {"error_message": "b", "metadata": {"merit-kind": "permanent", "merit-permanent": "true"}},
            "permanent",
            "b",
            "",
        ),
    ],
)
async def test_why_a_task_failed_is_told(plane, merit, said, kind, message, detail):
    class Fails(Foreign):
        async def run(self, task):
            yield status(task.task_id, FAILED, **said)

    foreign = Fails()
    async with serving(foreign) as address:
        await plane.register(info(address))
        handle = await merit.submit("work", retry=Retry(failed=1, backoff_s=0.01))
        result = await handle.wait(10)
        assert result.failure is not None
        assert (result.failure.kind, result.failure.detail) == (kind, detail)
        assert result.failure.message.endswith(message)
        assert result.attempts == (1 if kind == "permanent" else 2)


async def test_one_that_refuses_hurts_nobody(plane, merit):
    class Refuses(Foreign):
        async def ExecuteTask(self, request, context):
            return unary.ExecuteTaskResponse(message="not today")

    class Aborts(Foreign):
        async def ExecuteTask(self, request, context):
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, "not like this")

    refuses, aborts, works = Refuses(), Aborts(), Foreign()
    async with serving(refuses) as one, serving(aborts) as two:
        await plane.register(info(one, name="refuses"))
        handle = await merit.submit("work", safe_to_repeat=False, retry=Retry(backoff_s=0.01))
        first = await _first_attempt(merit, handle.id)
        assert (first["state"], first["error"]["message"]) == ("REFUSED", "not today")
        async with serving(works) as three:
            await plane.register(info(three, name="works"))
            assert (await handle.wait(20)).ok, "it is known not to have begun"
        await plane.register(info(two, "other", name="aborts"))
        other = await (await merit.submit("other", **ONCE)).wait(10)
        assert other.failure is not None
        assert "not like this" in other.failure.message


async def _first_attempt(merit, task_id):
    end_s = time.monotonic() + 10
    while time.monotonic() < end_s:
        task = await merit.task(task_id)
        if task["attempts"] and task["attempts"][0]["error"]:
            return task["attempts"][0]
        await asyncio.sleep(0.02)
    raise AssertionError("no attempt has ended")


async def test_one_that_never_answers_gets_nothing_more_until_it_does(plane, merit, monkeypatch):
    monkeypatch.setattr(attempt, "EXECUTE_S", 0.3)

    class Stuck(Foreign):
        asked = 0

        async def ExecuteTask(self, request, context):
            self.asked += 1
            await self.go.wait()
            return await super().ExecuteTask(request, context)

        async def GetWorkerInfo(self, request, context):
            if self.asked:
                await self.go.wait()
            return unary.WorkerInfo()

    stuck, works = Stuck(), Foreign()
    async with serving(stuck) as one, serving(works) as two:
        stuck_id = await plane.register(info(one, name="stuck"))
        first = await merit.submit("work", retry=Retry(backoff_s=0.01))
        await until(lambda: stuck.asked, "it was asked")
        works_id = await plane.register(info(two, name="works"))
        async with plane.beating(stuck_id, works_id):
            assert (await first.wait(10)).ok
            assert await attempts(merit, first.id) == [("FAILED", stuck_id), ("COMPLETED", works_id)]
            others = [await merit.submit("work") for _ in range(20)]
            assert {result.worker for result in await merit.wait(others, 10)} == {works_id}
            assert stuck.asked == 1
            stuck.go.set()
            handle = await merit.submit("work", worker=stuck_id)
            assert (await handle.wait(20)).worker == stuck_id


async def test_one_that_is_not_there_gets_nothing(plane, merit):
    worker = await plane.register(info(f"127.0.0.1:{free_port()}"))
    async with plane.beating(worker):
        handle = await merit.submit("work", timeout_s=1.5)
        assert (await handle.wait(10)).attempts == 0


async def test_one_that_goes_away_loses_its_attempts(plane, merit, monkeypatch):
    monkeypatch.setattr(attempt, "AWAY_S", 0.5)

    class Slow(Foreign):
        async def run(self, task):
            yield status(task.task_id, RUNNING)
            await asyncio.sleep(3600)

    slow, works = Slow(), Foreign()
    async with serving(works) as two:
        async with serving(slow) as one:
            gone = await plane.register(info(one, name="slow"))
            handle = await merit.submit("work", retry=Retry(backoff_s=0.01))
            await until(lambda: slow.open, "it runs")
        stays = await plane.register(info(two, name="works"))
        async with plane.beating(gone, stays):
            assert (await handle.wait(20)).worker == stays
            (first, _) = await attempts(merit, handle.id)
            assert first == ("FAILED", gone)


async def test_one_that_has_forgotten_a_task_has_lost_it(plane, merit):
    class Forgets(Foreign):
        async def run(self, task):
            yield status(task.task_id, RUNNING)
            if task.task_id.endswith(".1"):
                del self.tasks[task.task_id]
            else:
                yield status(task.task_id, COMPLETED, output_json="2")

    foreign = Forgets()
    async with serving(foreign) as address:
        worker = await plane.register(info(address))
        handle = await merit.submit("work", retry=Retry(backoff_s=0.01))
        assert await handle.result(10) == 2
        first = (await merit.task(handle.id))["attempts"][0]
        assert (first["state"], first["worker"], first["error"]["kind"]) == ("FAILED", worker, "lost")


@pytest.mark.parametrize(("tags", "most"), [((), 4), (("max_concurrency=2",), 2), (("max_concurrency=7",), 7)])
async def test_so_many_tasks_at_a_time_as_it_says(plane, merit, tags, most):
    class Slow(Foreign):
        async def run(self, task):
            yield status(task.task_id, RUNNING)
            await self.go.wait()
            yield status(task.task_id, COMPLETED, output_json="1")

    foreign = Slow()
    async with serving(foreign) as address:
        await plane.register(info(address, tags=tags))
        handles = [await merit.submit("work") for _ in range(20)]
        await until(lambda: foreign.open >= most, "it is busy")
        async with plane.beating(next(iter(await plane.available()))):
            await asyncio.sleep(0.3)
            assert len(foreign.tasks) == most
            foreign.go.set()
            assert all(result.ok for result in await merit.wait(handles, 20))
        assert foreign.open_max == most
        assert all(result.attempts == 1 for result in await merit.wait(handles, 20))


async def test_one_that_is_silent_is_stale_and_a_heartbeat_brings_it_back(plane, merit):
    class Slow(Foreign):
        async def run(self, task):
            yield status(task.task_id, RUNNING)
            if task.task_id.endswith(".1"):
                await asyncio.sleep(3600)
            yield status(task.task_id, COMPLETED, output_json='"again"')

    foreign = Slow()
    async with serving(foreign) as address:
        worker = await plane.register(info(address))
        handle = await merit.submit("work", retry=Retry(backoff_s=0.01))
        await until(lambda: foreign.open, "it runs")
        await until(lambda: foreign.closed, "its stream is closed, since it is silent")
        assert worker not in await plane.available()
        assert await attempts(merit, handle.id) == [("LOST", worker)]
        async with plane.beating(worker):
            assert await handle.result(10) == "again"
            assert worker in await plane.available()


async def test_what_repeats_that_it_runs_lives(plane, merit):
    class Repeats(Foreign):
        async def run(self, task):
            for _ in range(20 if len(task.parameters) else 1):
                yield status(task.task_id, RUNNING)
                await asyncio.sleep(0.1)
            if not task.parameters:
                await asyncio.sleep(3600)
            yield status(task.task_id, COMPLETED, output_json="1")

    foreign = Repeats()
    async with serving(foreign) as address:
        worker = await plane.register(info(address))
        async with plane.beating(worker):
            lives = await merit.submit("work", {"n": 1}, heartbeat_timeout_s=1, **ONCE)
            silent = await merit.submit("work", heartbeat_timeout_s=1, run_timeout_s=30, **ONCE)
            assert (await lives.wait(10)).ok
            assert (await silent.wait(20)).state is TaskState.DEAD


async def test_a_session_under_the_same_id_is_not_driven_out(plane, merit):
    @capability(name="work")
    def work() -> str:
        return "by session"

    async with serving(Foreign()) as address:
        worker = await plane.register(info(address, worker_id="twin"))
        assert (await (await merit.submit("work")).wait(10)).ok
        await plane.fleet.DrainWorker(fleet_pb2.DrainWorkerRequest(id=worker))
        async with asyncio.timeout(10):
            while "STOP" not in (await plane.beat(worker)).commands:
                await asyncio.sleep(0.02)
        process = WorkerProcess([work], plane.address, name="twin")
        processing = asyncio.create_task(process.run())
        assert await (await merit.submit("work", {})).result(10) == "by session"
        await plane.register(info(address, worker_id="twin", version="2"))
        async with plane.beating(worker):
            for _ in range(5):
                await asyncio.sleep(0.1)
                assert await (await merit.submit("work", {})).result(10) == "by session"
        process.drain()
        await asyncio.wait_for(processing, 15)


async def test_a_pause_holds_back_until_the_worker_has_heard_that_it_is_over(plane, merit):
    foreign = Foreign()
    async with serving(foreign) as address:
        worker = await plane.register(info(address))
        assert await (await merit.submit("work")).result(10) == {}
        assert list((await plane.beat(worker)).commands) == []
        await plane.fleet.PauseWorker(fleet_pb2.PauseWorkerRequest(id=worker, reason="for a test"))
        assert [list((await plane.beat(worker)).commands) for _ in range(2)] == [["PAUSE"]] * 2
        assert worker not in await plane.available()
        handle = await merit.submit("work")
        await plane.fleet.ResumeWorker(fleet_pb2.ResumeWorkerRequest(id=worker))
        await asyncio.sleep(0.2)
        assert len(foreign.tasks) == 1
        assert [list((await plane.beat(worker)).commands) for _ in range(2)] == [["RESUME"], []]
        assert await handle.result(10) == {}


async def test_operators_words_come_with_the_next_heartbeat(plane, merit):
    foreign = Foreign()
    async with serving(foreign) as address:
        worker = await plane.register(info(address))
        await until_joined(plane, worker)
        for word in ("RESET", "RETRAIN"):
            await plane.fleet.TellWorker(fleet_pb2.TellWorkerRequest(id=worker, word=word))
        heard: list[str] = []
        while len(heard) < 2:
            heard += (await plane.beat(worker)).commands
        assert heard == ["RESET", "RETRAIN"]
        assert list((await plane.beat(worker)).commands) == []


async def until_joined(plane, worker):
    async with asyncio.timeout(10):
        while not (await plane.fleet.GetWorker(fleet_pb2.GetWorkerRequest(id=worker))).room:
            await asyncio.sleep(0.02)


async def test_one_that_is_drained_finishes_and_is_stopped_until_it_registers_again(plane, merit):
    class Slow(Foreign):
        async def run(self, task):
            yield status(task.task_id, RUNNING)
            await self.go.wait()
            yield status(task.task_id, COMPLETED, output_json="1")

    foreign = Slow()
    async with serving(foreign) as address:
        worker = await plane.register(info(address))
        handle = await merit.submit("work")
        await until(lambda: foreign.open, "it runs")
        await plane.fleet.DrainWorker(fleet_pb2.DrainWorkerRequest(id=worker))
        assert list((await plane.beat(worker)).commands) == []
        waiting = await merit.submit("work")
        foreign.go.set()
        assert (await handle.wait(10)).attempts == 1
        async with asyncio.timeout(10):
            while "STOP" not in (await plane.beat(worker)).commands:
                await asyncio.sleep(0.02)
        assert worker not in await plane.available()
        assert len(foreign.tasks) == 1
        assert await plane.register(info(address)) == worker
        assert (await waiting.wait(10)).ok


async def test_one_that_is_removed_is_stopped_and_its_task_done_elsewhere(plane, merit):
    class Slow(Foreign):
        async def run(self, task):
            yield status(task.task_id, RUNNING)
            await asyncio.sleep(3600)

    slow, works = Slow(), Foreign()
    async with serving(slow) as one, serving(works) as two:
        removed = await plane.register(info(one, name="slow"))
        handle = await merit.submit("work", retry=Retry(backoff_s=0.01))
        await until(lambda: slow.open, "it runs")
        await plane.fleet.RemoveWorker(fleet_pb2.RemoveWorkerRequest(id=removed, reason="for a test"))
        await until(lambda: not slow.open, "its stream is closed")
        assert [list((await plane.beat(removed)).commands) for _ in range(2)] == [["STOP"]] * 2
        assert "was removed" in await plane.refused(info(one, name="slow"))
        stays = await plane.register(info(two, name="works"))
        assert (await handle.wait(10)).worker == stays
        await plane.fleet.ResumeWorker(fleet_pb2.ResumeWorkerRequest(id=removed))
        assert await plane.register(info(one, name="slow")) == removed


async def test_another_address_is_another_worker_and_other_capabilities_are_the_same(plane, merit):
    first, second = Foreign(), Foreign()
    async with serving(first) as one, serving(second) as two:
        assert await plane.register(info(one, worker_id="w")) == "w"
        assert (await (await merit.submit("work")).wait(10)).ok
        await plane.register(info(one, "other", worker_id="w"))
        assert (await (await merit.submit("other")).wait(10)).worker == "w"
        await plane.register(info(two, "other", worker_id="w"))
        assert (await (await merit.submit("other")).wait(10)).worker == "w"
        assert (len(first.tasks), len(second.tasks)) == (2, 1)


async def test_bytes_that_are_no_message_cost_an_attempt(plane, merit):
    async def accept(request, context):
        return unary.ExecuteTaskResponse(accepted=True).SerializeToString()

    async def stream(request, context):
        yield b"\xff\xff\xff\xff"

    server = grpc.aio.server()
    handlers: dict[str, Any] = {
        "ExecuteTask": grpc.unary_unary_rpc_method_handler(accept),
        "StreamTaskStatus": grpc.unary_stream_rpc_method_handler(stream),
    }
    server.add_generic_rpc_handlers(
        (grpc.method_handlers_generic_handler("worker_abstraction.WorkerService", handlers),)
    )
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    worker = await plane.register(info(f"127.0.0.1:{port}"))
    async with plane.beating(worker):
        handle = await merit.submit("work", **ONCE)
        assert (await handle.wait(20)).state is TaskState.DEAD
        assert await attempts(merit, handle.id) == [("FAILED", worker)]
    await server.stop(0)


async def test_what_has_ended_in_a_moment_is_not_said_to_have_begun(plane, merit, monkeypatch):
    monkeypatch.setattr(roster, "_GATHER_S", 1.0)

    class Asked(Foreign):
        async def run(self, task):
            yield status(task.task_id, RUNNING)
            if task.parameters:
                await self.go.wait()
            yield status(task.task_id, COMPLETED, output_json="1")

    foreign = Asked()
    async with serving(foreign) as address:
        await plane.register(info(address))
        slow = await merit.submit("work", {"slow": True})
        quick = await merit.submit("work")
        assert (await quick.wait(10)).ok
        assert (await merit.task(quick.id))["attempts"][0]["started"] is None
        async with asyncio.timeout(10):
            while (await merit.task(slow.id))["state"] != "RUNNING":
                await asyncio.sleep(0.02)
        assert (await merit.task(slow.id))["attempts"][0]["started"] is not None
        foreign.go.set()
        assert (await slow.wait(10)).ok


async def restarted(tmp_path, foreign, tags):
    """A task that runs while the control plane is started again; its attempts as they are in the end."""
    address = f"127.0.0.1:{free_port()}"
    async with serving(foreign) as worker_address:
        async with planed(tmp_path / "state", address) as plane, AsyncClient(address) as merit:
            worker = await plane.register(info(worker_address, tags=tags))
            handle = await merit.submit("work", retry=Retry(backoff_s=0.01))
            await until(lambda: foreign.open, "it runs")
            async with asyncio.timeout(10):
                while (await merit.task(handle.id))["state"] != "RUNNING":
                    await asyncio.sleep(0.02)
        await until(lambda: not foreign.open, "its stream is closed")
        async with planed(tmp_path / "state", address) as plane, AsyncClient(address) as merit:
            assert (await plane.by_id(worker)).address == worker_address
            async with plane.beating(worker):
                await until(lambda: foreign.open, "it is watched again")
                foreign.go.set()
                assert (await merit.watch(handle.id).wait(20)).ok
                return worker, await attempts(merit, handle.id)


class Patient(Foreign):
    async def run(self, task):
        yield status(task.task_id, RUNNING)
        await self.go.wait()
        yield status(task.task_id, COMPLETED, output_json="1")


async def test_a_restart_loses_what_a_worker_was_doing_and_does_it_again(tmp_path):
    foreign = Patient()
    worker, tried = await restarted(tmp_path, foreign, ())
    assert tried == [("LOST", worker), ("COMPLETED", worker)]


async def test_a_restart_takes_up_what_a_worker_is_doing_that_allows_it(tmp_path):
    foreign = Patient()
    worker, tried = await restarted(tmp_path, foreign, ("reopen=true",))
    assert tried == [("COMPLETED", worker)]
    assert len(foreign.tasks) == 1
    assert len(foreign.streams) == 2


@pytest.mark.parametrize(("tags", "tried"), [((), ["LOST", "COMPLETED"]), (("reopen=true",), ["COMPLETED"])])
async def test_a_kill_of_the_control_plane_is_as_harmless(tmp_path, tags, tried):
    foreign = Patient()
    async with (
        serving(foreign) as address,
        running(PlaneProgram(tmp_path / "state", PlaneFaults(limits=QUICK))) as program,
        grpc.aio.insecure_channel(program.address) as channel,
        AsyncClient(program.address) as merit,
    ):
        plane = Registry(channel, program.address)
        worker = await plane.register(info(address, tags=tags))
        handle = await merit.submit("work", retry=Retry(backoff_s=0.01))
        async with plane.beating(worker):
            async with asyncio.timeout(10):
                while (await merit.task(handle.id))["state"] != "RUNNING":
                    await asyncio.sleep(0.02)
            await program.kill()
            await until(lambda: not foreign.open, "its stream is closed")
            await program.start()
            await until(lambda: foreign.open, "it is watched again")
            foreign.go.set()
            assert (await handle.wait(20)).ok
            assert [state for state, _ in await attempts(merit, handle.id)] == tried
