"""What one worker that is dialled can do to the others: nothing that they would notice."""

import asyncio
import json
import threading

import pytest
import pytest_asyncio
from google.protobuf.empty_pb2 import Empty

from merit import AsyncClient
from merit.gateway import gateway_worker_service, registry_service
from merit.gateway.unary import attempt, driver, roster
from merit.gateway.unary.registration import read_info
from merit.model.limits import MESSAGE_BYTES_MAX
from merit.model.tasks import TaskState
from merit.wire.worker_abstraction import worker_abstraction_pb2 as unary
from tests.gateway.foreign import COMPLETED, FAILED, RUNNING, Foreign, info, planed, serving, status, until

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


@pytest.mark.parametrize(("size_bytes", "most"), [(1_000, 100_000), (4_000_000, 5)])
async def test_a_flood_of_words_takes_nothing_from_others(plane, merit, size_bytes, most):
    said: list[str] = []

    class Floods(Foreign):
        async def run(self, task):
            for _ in range(100_000):
                said.append(task.task_id)
                yield status(task.task_id, RUNNING, output_json="x" * size_bytes)

    floods, works = Floods(), Foreign()
    async with serving(floods) as one, serving(works) as two:
        ids = [await plane.register(info(one, "flood", name="floods")), await plane.register(info(two, name="works"))]
        async with plane.beating(*ids):
            noisy = [await merit.submit("flood") for _ in range(4)]
            await until(lambda: floods.open >= 4, "it floods")
            handles = [await merit.submit("work") for _ in range(50)]
            assert all(result.ok for result in await merit.wait(handles, 20))
            assert max(said.count(task_id) for task_id in set(said)) < most, "it is read no faster than it makes sense"
            for handle in noisy:
                handle.cancel()


async def test_a_message_that_is_too_large_costs_an_attempt_and_says_so(plane, merit):
    class Large(Foreign):
        async def run(self, task):
            yield status(task.task_id, COMPLETED, output_json=json.dumps("x" * MESSAGE_BYTES_MAX))

    foreign = Large()
    async with serving(foreign) as address:
        await plane.register(info(address))
        result = await (await merit.submit("work", **ONCE)).wait(20)
        assert result.failure is not None
        assert f"vs. {MESSAGE_BYTES_MAX})" in result.failure.message


async def test_one_that_again_leaves_its_tasks_without_an_answer_is_left_alone(plane, merit, monkeypatch):
    monkeypatch.setattr(attempt, "EXECUTE_S", 0.2)
    monkeypatch.setattr(driver, "SILENT_S", (3600.0, 3600.0))

    class Silent(Foreign):
        asked = 0

        async def ExecuteTask(self, request, context):
            self.asked += 1
            if not self.go.is_set():
                await asyncio.sleep(3600)
            return await super().ExecuteTask(request, context)

    silent = Silent()
    async with serving(silent) as address:
        worker = await plane.register(info(address, tags=["max_concurrency=1"]))
        async with plane.beating(worker):
            first = [await merit.submit("work", **ONCE) for _ in range(2)]
            assert [(await handle.wait(10)).state for handle in first] == [TaskState.DEAD] * 2
            third = await merit.submit("work", **ONCE)
            await asyncio.sleep(0.5)
            assert silent.asked == 2, "it has answered GetWorkerInfo each time, but that is not enough"
            silent.go.set()
            await plane.register(info(address, tags=["max_concurrency=1"], version="2"))
            assert (await third.wait(20)).ok, "it says that it is another one now"


async def test_one_that_takes_a_new_id_each_time_finds_no_place_until_the_others_are_silent(plane, monkeypatch):
    monkeypatch.setattr(roster, "UNARY_WORKERS_PER_ADDRESS_MAX", 3)
    async with serving(Foreign()) as address, serving(Foreign()) as other:
        requests = [info(address, worker_id=f"w{number}") for number in range(10)]
        answers = await asyncio.gather(
            *(plane.stub.RegisterWorker(unary.RegisterWorkerRequest(worker_info=said)) for said in requests)
        )
        known = [answer.message for answer in answers if answer.success]
        assert len(known) == 3
        fresh = next(said for said, answer in zip(requests, answers, strict=True) if not answer.success)
        assert {answer.message.partition(" has ")[0] for answer in answers if not answer.success} == {
            f"worker_info.address: {address}"
        }
        assert await plane.register(info(other, worker_id="another")) == "another"
        assert await plane.register(info(address, "more", worker_id=known[0])) == known[0], "it may say more of itself"
        async with asyncio.timeout(20), plane.beating("another"):
            while not (await plane.stub.RegisterWorker(unary.RegisterWorkerRequest(worker_info=fresh))).success:
                await asyncio.sleep(0.1)


async def test_no_more_workers_are_dialled_than_there_are_places_for(plane, monkeypatch):
    monkeypatch.setattr(roster, "UNARY_WORKERS_MAX", 2)
    async with serving(Foreign()) as address:
        for number in range(2):
            await plane.register(info(address, worker_id=f"w{number}"))
        assert "2 workers are being dialled" in await plane.refused(info(address, worker_id="w2"))
        async with plane.beating("w1"):
            async with asyncio.timeout(20):
                while not (
                    await plane.stub.RegisterWorker(
                        unary.RegisterWorkerRequest(worker_info=info(address, worker_id="w2"))
                    )
                ).success:
                    await asyncio.sleep(0.1)
            answer = await plane.beat("w0")
            assert answer.success, "it has registered, and need not do so again"
            assert "2 workers are being dialled" in answer.message, "it has lost its place"
            assert "w0" not in await plane.available()
            assert (await plane.beat("w2")).success


async def test_the_bound_of_an_address_holds_for_one_that_moves_there_and_for_old_registrations(plane, monkeypatch):
    monkeypatch.setattr(roster, "UNARY_WORKERS_PER_ADDRESS_MAX", 2)
    async with serving(Foreign()) as address, serving(Foreign()) as other:
        assert await plane.register(info(other, worker_id="moves")) == "moves"
        async with plane.beating("moves"):
            old = await plane.register(info(address, worker_id="old"))
            async with asyncio.timeout(20):
                while old in await plane.available():
                    await asyncio.sleep(0.1)
                for name in ("w0", "w1"):
                    request = unary.RegisterWorkerRequest(worker_info=info(address, worker_id=name))
                    while not (await plane.stub.RegisterWorker(request)).success:
                        await asyncio.sleep(0.1)
            assert f"{address} has 2 other workers" in await plane.refused(info(address, worker_id="moves"))
            async with plane.beating("w0", "w1"):
                async with asyncio.timeout(20):
                    while not (answer := await plane.beat(old)).message:
                        await asyncio.sleep(0.1)
                assert answer.success
                assert f"{address} has 2 other workers" in answer.message


async def test_two_registrations_of_one_id_at_a_time_are_one_place(plane, monkeypatch):
    monkeypatch.setattr(roster, "UNARY_WORKERS_PER_ADDRESS_MAX", 1)
    async with serving(Foreign()) as address:
        said = unary.RegisterWorkerRequest(worker_info=info(address, worker_id="w"))
        other = unary.RegisterWorkerRequest(worker_info=info(address, worker_id="x"))
        answers = await asyncio.gather(*(plane.stub.RegisterWorker(one) for one in (said, said, other, said)))
        taken = [answer.success for answer in answers]
        assert taken in ([True, True, False, True], [False, False, True, False]), "whoever came first has it"


async def test_what_a_worker_says_of_others_does_not_close_it(plane, merit):
    """As another control plane says it, of a worker behind it."""

    class Gateway(Foreign):
        asked = 0

        async def GetWorkerInfo(self, request, context):
            self.asked += 1
            return await super().GetWorkerInfo(request, context)

        async def run(self, task):
            yield status(task.task_id, FAILED, error_message="away", metadata={"merit-kind": "unreachable"})

    gateway = Gateway()
    async with serving(gateway) as address:
        worker = await plane.register(info(address))
        async with plane.beating(worker):
            for _ in range(3):
                result = await (await merit.submit("work", **ONCE)).wait(10)
                assert result.failure is not None
                assert result.failure.kind == "unreachable"
        assert gateway.asked == 1, "when it came, and not again"


async def test_many_capabilities_are_told_as_far_as_a_message_holds_them(plane, monkeypatch):
    monkeypatch.setattr(gateway_worker_service, "_OUTPUT_BYTES_MAX", 2_000)
    await plane.register(info("127.0.0.1:9", *(f"capability-{number:03}" for number in range(250))))
    async with asyncio.timeout(10):
        while not (told := await plane.worker.GetWorkerInfo(Empty())).capabilities:
            await asyncio.sleep(0.02)
    assert 50 < len(told.capabilities) < 250
    assert told.ByteSize() < 2_500


async def test_what_is_large_is_read_beside_the_loop(plane, monkeypatch):
    threads: list[bool] = []

    def seen(said):
        threads.append(threading.current_thread() is threading.main_thread())
        return read_info(said)

    monkeypatch.setattr(registry_service, "read_info", seen)
    tools = [unary.ToolCapability(name=f"t{number}", description="x" * 10_000) for number in range(20)]
    large = unary.WorkerInfo(name="large", address="127.0.0.1:9", capabilities=tools)
    worker = await plane.register(large)
    assert len((await plane.by_id(worker)).capabilities) == 20
    await plane.register(info("127.0.0.1:9", name="small"))
    assert threads == [False, True]
