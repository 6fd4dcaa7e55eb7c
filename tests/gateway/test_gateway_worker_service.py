"""Orchestrators that were never built against Merit, and what the fleet does for them."""

import asyncio
import contextlib
import json
import time

import grpc
import pytest
import pytest_asyncio
from google.protobuf.empty_pb2 import Empty

from merit import AsyncClient, Context, Permanent, WorkerProcess, capability
from merit.model.limits import SECOND_NS, Limits
from merit.wire.worker_abstraction import worker_abstraction_pb2 as unary
from tests.gateway.foreign import CANCELED, COMPLETED, FAILED, PENDING, RUNNING, Foreign, info, planed, serving

pytestmark = pytest.mark.timeout(60)


@capability
def add(a: int, b: int = 0) -> int:
    return a + b


@capability
def fails() -> None:
    raise Permanent("there is no way")


@capability
async def waits(wait_s: float, context: Context) -> str:
    until_s = time.monotonic() + wait_s
    while time.monotonic() < until_s:
        await asyncio.sleep(0.02)
    return "waited"


@capability
def long_text(size: int) -> str:
    return "x" * size


@contextlib.asynccontextmanager
async def working(address, name="w"):
    process = WorkerProcess([add, fails, waits, long_text], address, name=name, concurrency=4)
    running = asyncio.create_task(process.run())
    try:
        yield
    finally:
        process.drain()
        await asyncio.wait_for(running, 15)


@pytest_asyncio.fixture
async def plane(tmp_path):
    async with planed(tmp_path / "state") as registry, working(registry.address):
        async with asyncio.timeout(10):
            while "w" not in await registry.available():
                await asyncio.sleep(0.02)
        yield registry


def task(task_id: str, name: str = "add", worker: str = "", timeout_s: int = 0, metadata=None, **given):
    parameters = [unary.TaskParameter(key=key, value_json=json.dumps(value)) for key, value in given.items()]
    return unary.Task(
        task_id=task_id,
        worker_id=worker,
        capability_name=name,
        parameters=parameters,
        timeout_seconds=timeout_s,
        metadata=metadata or {},
    )


async def execute(plane, wanted, tenant=None):
    metadata = (("merit-tenant", tenant),) if tenant else None
    return await plane.worker.ExecuteTask(unary.ExecuteTaskRequest(task=wanted), metadata=metadata)


async def accepted(plane, wanted, tenant=None):
    answer = await execute(plane, wanted, tenant)
    assert (answer.accepted, answer.task_id) == (True, wanted.task_id), answer.message


async def results(plane, task_id, tenant=None):
    metadata = (("merit-tenant", tenant),) if tenant else None
    call = plane.worker.StreamTaskStatus(unary.GetTaskStatusRequest(task_id=task_id), metadata=metadata, timeout=20)
    return [message.result async for message in call]


async def test_an_orchestrator_finds_a_worker_and_has_it_work(plane):
    """As they do it: the first worker that has the capability, at its address, and the stream of the task there."""
    found = next(
        one for one in (await plane.available()).values() if any(tool.name == "add" for tool in one.capabilities)
    )
    async with grpc.aio.insecure_channel(found.address) as channel:
        from merit.wire.worker_abstraction.worker_abstraction_pb2_grpc import WorkerServiceStub

        worker = WorkerServiceStub(channel)
        wanted = task("o-1", worker=found.worker_id, a=1, b=2, metadata={"project": "p"})
        answer = await worker.ExecuteTask(unary.ExecuteTaskRequest(task=wanted))
        assert answer.accepted
        said = [message.result async for message in worker.StreamTaskStatus(unary.GetTaskStatusRequest(task_id="o-1"))]
    last = said[-1]
    assert {one.status for one in said[:-1]} <= {PENDING, RUNNING}
    assert (last.task_id, last.status, last.output_json) == ("o-1", COMPLETED, "3")
    assert last.completed_at.seconds
    assert (last.metadata["merit-worker"], last.metadata["merit-attempts"]) == ("w", "1")
    async with AsyncClient(plane.address) as merit:
        seen = await merit.task(last.metadata["merit-task"])
        assert seen["terms"]["idempotency_key"] == "unary/o-1"
        assert seen["terms"]["labels"] == {"project": "p"}
        assert seen["terms"]["demand"]["worker"] == "w"
        assert seen["attempts"][0]["worker"] == "w"


async def test_any_worker_does_it_if_none_is_named(plane):
    gateway = await plane.worker.GetWorkerInfo(Empty())
    assert gateway.address == plane.address
    assert {tool.name for tool in gateway.capabilities} == {"add", "fails", "waits", "long_text"}
    for number, worker in enumerate(("", gateway.worker_id)):
        await accepted(plane, task(f"any-{number}", worker=worker, a=1))
        assert (await results(plane, f"any-{number}"))[-1].output_json == "1"


async def test_a_foreign_worker_is_driven_for_a_foreign_orchestrator(plane):
    async with serving(Foreign()) as address:
        worker = await plane.register(info(address))
        async with plane.beating(worker), asyncio.timeout(10):
            while not (await execute(plane, task("f-1", "work", worker, n=1))).accepted:
                await asyncio.sleep(0.02)
            last = (await results(plane, "f-1"))[-1]
            assert (last.status, last.output_json, last.metadata["merit-worker"]) == (COMPLETED, '{"n": 1}', worker)


async def test_running_is_shown_and_the_stream_can_be_read_by_many(plane):
    await accepted(plane, task("r-1", "waits", wait_s=0.6))
    first, second = await asyncio.gather(results(plane, "r-1"), results(plane, "r-1"))
    for said in (first, second):
        assert [one.status for one in said] in ([PENDING, RUNNING, COMPLETED], [RUNNING, COMPLETED])
    assert [one.status for one in await results(plane, "r-1")] == [COMPLETED], "it is over"


async def test_a_task_that_is_dead_has_failed(plane):
    await accepted(plane, task("d-1", "fails"))
    last = (await results(plane, "d-1"))[-1]
    assert last.status == FAILED
    assert "there is no way" in last.error_message
    assert json.loads(last.output_json) == {"error": last.error_message}
    assert last.metadata["merit-permanent"] == "true"


async def test_its_time_out_is_kept(plane):
    await accepted(plane, task("t-1", "waits", timeout_s=1, wait_s=30))
    async with AsyncClient(plane.address) as merit:
        (seen,) = (await merit.tasks()).tasks
        assert seen["run_timeout_s"] == 1
    await plane.worker.CancelTask(unary.GetTaskStatusRequest(task_id="t-1"))


async def test_a_task_is_called_off(plane):
    await accepted(plane, task("c-1", "waits", wait_s=30))
    reading = asyncio.create_task(results(plane, "c-1"))
    await plane.worker.CancelTask(unary.GetTaskStatusRequest(task_id="c-1"))
    assert (await asyncio.wait_for(reading, 10))[-1].status == CANCELED
    await plane.worker.CancelTask(unary.GetTaskStatusRequest(task_id="c-1"))
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await plane.worker.CancelTask(unary.GetTaskStatusRequest(task_id="c-2"))
    assert refused.value.code() is grpc.StatusCode.NOT_FOUND


async def test_large_parameters_and_results(plane):
    await accepted(plane, task("l-1", "long_text", size=200_000))
    assert len((await results(plane, "l-1"))[-1].output_json) == 200_002
    refused = await execute(plane, task("l-2", a="x" * 200_000))
    assert "parameters.a" in refused.message, "the schema binds large ones too"


async def test_the_same_id_is_the_same_task_and_ids_are_apart_by_tenant(plane):
    for _ in range(3):
        await accepted(plane, task("s-1", a=1))
    refused = await execute(plane, task("s-1", a=2))
    assert "has this key and other content" in refused.message
    await accepted(plane, task("s-1", a=2), tenant="acme")
    assert (await results(plane, "s-1"))[-1].output_json == "1"
    assert (await results(plane, "s-1", "acme"))[-1].output_json == "2"
    async with AsyncClient(plane.address) as merit:
        assert len((await merit.tasks()).tasks) == 2
    for unknown in ("s-2", "", "x" * 1000):
        with pytest.raises(grpc.aio.AioRpcError) as not_found:
            await results(plane, unknown)
        assert not_found.value.code() is grpc.StatusCode.NOT_FOUND


async def test_metadata_that_cannot_be_labels_are_none(plane):
    many = {f"k{number:02}": "v" for number in range(40)}
    await accepted(plane, task("l-1", metadata={"": "v", "a": "x" * 300, "x" * 300: "v", "b": "\x00", **many}, a=1))
    last = (await results(plane, "l-1"))[-1]
    async with AsyncClient(plane.address) as merit:
        labels = (await merit.task(last.metadata["merit-task"]))["terms"]["labels"]
    assert labels == dict(sorted(many.items())[:32])


@pytest.mark.parametrize(
    ("wanted", "reason"),
    [
        (unary.Task(), "task.task_id: has 0 characters"),
        (task("x" * 300), "task.task_id: has 300 characters"),
        (task("a", "nobody"), "task.capability_name: no worker behind this gateway has the capability 'nobody'"),
        (task("a", "nobody", worker="w"), "task.capability_name: w has not the capability 'nobody'"),
        (task("a", worker="gone"), "task.worker_id: there is no worker 'gone' here now"),
        (task("a", timeout_s=-1, a=1), "task.timeout_seconds: -1 is not"),
        (task("a", a="one"), "parameters.a"),
        (task("a"), "parameters"),
        (task("a", metadata={"merit-tenant": "acme"}, a=1), "task.metadata.merit-tenant: say 'acme'"),
        (
            unary.Task(
                task_id="a",
                capability_name="add",
                parameters=[unary.TaskParameter(key="a", value_json="hello")],
            ),
            "parameters.a: value_json is not valid JSON",
        ),
        (
            unary.Task(
                task_id="a",
                capability_name="add",
                parameters=[unary.TaskParameter(key="a", value_json="1")] * 2,
            ),
            "parameters.a: stands twice",
        ),
    ],
)
async def test_what_cannot_be_is_not_accepted(plane, wanted, reason):
    answer = await execute(plane, wanted)
    assert not answer.accepted
    assert reason in answer.message


async def test_streams_go_on_after_a_restart_also_of_tasks_that_the_cell_has_forgotten(tmp_path):
    limits = Limits(finals_max=1, keys_max=1, grace_ns=SECOND_NS, reconnect_ns=SECOND_NS)
    async with planed(tmp_path / "state", limits=limits) as plane, working(plane.address):
        async with asyncio.timeout(10):
            while not (await execute(plane, task("z-0", a=0))).accepted:
                await asyncio.sleep(0.02)
        for number in range(3):
            await accepted(plane, task(f"z-{number}", a=number))
            assert (await results(plane, f"z-{number}"))[-1].output_json == str(number)
        assert (await results(plane, "z-0"))[-1].output_json == "0"
    async with planed(tmp_path / "state", limits=limits) as plane, working(plane.address):
        for number in range(3):
            assert (await results(plane, f"z-{number}"))[-1].output_json == str(number)
        async with asyncio.timeout(10):
            while not (await execute(plane, task("z-0", a=0))).accepted:
                await asyncio.sleep(0.02)
        async with AsyncClient(plane.address) as merit:
            assert len({one["id"] for one in (await merit.tasks()).tasks}) == 3, "no task was made again"
