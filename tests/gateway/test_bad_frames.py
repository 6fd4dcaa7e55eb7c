"""Frames that must not be: the stream of whoever sends them is ended with a reason, and nobody else notices (see the
neighbours in conftest.py)."""

import asyncio
import json
import os
import random
import time
from typing import Any

import grpc
import pytest
from hypothesis import given
from hypothesis import strategies as st

from merit.model.tasks import TaskState
from merit.wire.v1 import tasks_pb2, worker_pb2
from tests.gateway.hostile import CLIENT, WORKER, client_hello, hello, new_id

pytestmark = pytest.mark.asyncio(loop_scope="module")

Report: Any = worker_pb2.Report
"""Any: what is no status at all, above all, is to be sent too."""
Capability = worker_pb2.Capability


def frame(**fields):
    return worker_pb2.WorkerFrame(**{"sequence": 2, **fields})


def report(**fields):
    return frame(reports=[Report(**{"task_id": new_id(), "number": 1, "status": 1, "result": b"1", **fields})])


def schema(document):
    data = document if isinstance(document, bytes) else json.dumps(document).encode()
    return hello(capabilities=[Capability(name="x", version="1.0.0", input_schema=data)])


WORKER_VIOLATIONS = {
    "no hello": ([worker_pb2.WorkerFrame(sequence=1)], "hello: must be in the first frame"),
    "a second hello": ([hello(), frame(hello=hello().hello)], "hello: only in the first frame"),
    "a frame is missing": ([hello(), frame(sequence=3)], "sequence: 3 came after 1"),
    "it begins in the middle": ([frame(sequence=7, hello=hello().hello)], "sequence: 7 came after 0"),
    "the largest sequence": ([frame(sequence=2**64 - 1, hello=hello().hello)], "sequence"),
    "an ack of what was never sent": ([hello(), frame(ack=2**60)], "ack"),
    "a result that is no JSON": ([hello(), report(result=b"{")], "reports.result"),
    "a result that is NaN": ([hello(), report(result=b"NaN")], "reports.result"),
    "a result as deep as the sea": ([hello(), report(result=b"[" * 30_000 + b"]" * 30_000)], "reports.result"),
    "a result that is too large": ([hello(), report(result=b'"' + b"x" * 70_000 + b'"')], "reports.result"),
    "no result": ([hello(), report(result=b"")], "reports.result"),
    "a result in two places": ([hello(), report(result_blob="x" * 1000)], "reports.result"),
    "a blob that is no digest": ([hello(), report(result=b"", result_blob="../x")], "reports.result_blob"),
    "an unknown status": ([hello(), report(status=9)], "reports.status"),
    "no status": ([hello(), report(status=0)], "reports.status"),
    "a long failure": (
        [hello(), report(status=2, result=b"", failure=worker_pb2.Failure(kind="x", message="y" * 5_000))],
        "reports.failure",
    ),
    "a trail that is no JSON": ([hello(), report(trail=b"x")], "reports.trail"),
    "a trail that is too large": ([hello(), report(trail=b'"' + b"x" * 70_000 + b'"')], "reports.trail"),
    "progress beyond all": (
        [hello(), frame(progress=[worker_pb2.Progress(task_id=new_id(), number=1, fraction=2.0)])],
        "progress",
    ),
    "progress that is NaN": (
        [hello(), frame(progress=[worker_pb2.Progress(task_id=new_id(), number=1, fraction=float("nan"))])],
        "progress",
    ),
    "no name": ([hello("")], "hello.worker_id"),
    "a name with control characters": ([hello("a\nb\x07")], "hello.worker_id"),
    "no boot": ([hello(boot_id="")], "hello.boot_id"),
    "no session": ([hello(session=0)], "hello.session"),
    "no concurrency": ([hello(concurrency=0)], "hello.concurrency"),
    "too much concurrency": ([hello(concurrency=2**32 - 1)], "hello.concurrency"),
    "no capability": ([hello(capabilities=[])], "hello.capabilities"),
    "10,000 capabilities": (
        [hello(capabilities=[Capability(name=f"c{n}", version="1.0.0") for n in range(10_000)])],
        "hello.capabilities",
    ),
    "a capability twice": ([hello(capabilities=[Capability(name="x", version="1.0.0")] * 2)], "hello.capabilities"),
    "a capability without a name": ([hello(capability="")], "hello.capabilities.name"),
    "a capability without a version": ([hello(capabilities=[Capability(name="x")])], "hello.capabilities.version"),
    "a description that is a book": (
        [hello(capabilities=[Capability(name="x", version="1.0.0", description="x" * 70_000)])],
        "hello.capabilities.description",
    ),
    "too many tags": ([hello(tags=["x"] * 100)], "hello.tags"),
    "a tag that has to be earned": ([hello(tags=["eu", "merit.trusted"])], "hello.tags"),
    "such a tag of a capability": (
        [hello(capabilities=[Capability(name="x", version="1.0.0", tags=["merit.trusted"])])],
        "hello.capabilities.tags of x",
    ),
    "too many tags of a capability": (
        [hello(capabilities=[Capability(name="x", version="1.0.0", tags=["x"] * 100_000)])],
        "hello.capabilities.tags",
    ),
    "more attempts held than a frame may name": (
        [hello(held=[worker_pb2.AttemptRef(task_id="x", number=1)] * 70_000)],
        "items",
    ),
    "70,000 reports": ([hello(), frame(reports=[Report(status=3)] * 70_000)], "items"),
    "a version that is no semantic one": ([hello(capabilities=[Capability(name="x", version="1.0")])], "such as 1.0.0"),
    "a schema that is no JSON": ([schema(b"{")], "hello.capabilities.input_schema of x"),
    "a schema that is no schema": ([schema({"type": "integr"})], "hello.capabilities.input_schema of x"),
    "a schema that is a list": ([schema([])], "must be an object or a boolean"),
    "a schema that is too large": ([schema({"description": "x" * 300_000})], "262,144 at most"),
    "a schema as deep as the sea": ([schema(b'{"not":' * 1000 + b"{}" + b"}" * 1000)], "deeper than 64"),
    "a schema with a pattern that no machine can match": ([schema({"pattern": "((a{100}){100}){100}"})], "of x"),
    "a schema with a pattern that looks back": ([schema({"pattern": r"(a)\1"})], "of x"),
    "a schema that is elsewhere, by file": ([schema({"$ref": "file:///etc/passwd"})], "complete in itself"),
}


@pytest.mark.parametrize("name", WORKER_VIOLATIONS)
async def test_a_worker_that_breaks_the_rules_loses_its_stream(guest, name):
    messages, reason = WORKER_VIOLATIONS[name]
    said = await guest.said(WORKER, *messages)
    assert reason in said
    assert len(said) < 2_000


@pytest.mark.parametrize("there", [False, True])
async def test_contents_that_are_named_stay_and_a_result_that_is_gone_is_none(plane, guest, neighbours, there):
    """Its worker was away for so long that it was swept; the task must not be completed with nothing."""
    large = json.dumps({"x": "x" * 100_000}).encode()
    digest = (await guest.blobs.Put(iter([tasks_pb2.BlobChunk(data=large)]))).digest
    (path,) = (plane.state / "blobs").rglob(digest)

    def touched():
        """Whether it was since this was asked last."""
        age_s = time.time() - path.stat().st_mtime
        os.utime(path, (1, 1))
        return age_s < 1_000

    assert touched()
    worker, client = guest.stream(WORKER), guest.stream(CLIENT)
    await worker.write(hello(capability="forgetful"))
    task = new_id()
    spec = tasks_pb2.TaskSpec(id=task, capability="forgetful", parameters_blob=digest, attempts_max=1)
    await client.write(client_hello(tasks=[spec]))
    while not (read := await worker.read()).assignments:
        pass
    assert touched(), "by the submit"
    report = Report(task_id=task, number=1, status=1, result_blob=digest if there else "0" * 64)
    await worker.write(worker_pb2.WorkerFrame(sequence=2, ack=read.sequence, reports=[report]))
    result = await neighbours.watch(task).wait(30)
    worker.cancel()
    client.cancel()
    assert touched() == there, "by the report"
    if there:
        assert result.json == large
    else:
        assert result.state is TaskState.DEAD
        assert result.failure.kind == "blob"
        assert "lost before it was reported" in result.failure.message


CLIENT_VIOLATIONS = {
    "no hello": ([tasks_pb2.ClientFrame(sequence=1, watch=[new_id()])], "hello: must be in the first frame"),
    "a second hello": ([client_hello(), tasks_pb2.ClientFrame(sequence=2, hello=client_hello().hello)], "hello: only"),
    "no name": ([tasks_pb2.ClientFrame(sequence=1, hello=tasks_pb2.ClientHello())], "hello.client_id"),
    "a frame is missing": ([client_hello(), tasks_pb2.ClientFrame(sequence=5)], "sequence: 5 came after 1"),
    "an ack of what was never sent": ([client_hello(), tasks_pb2.ClientFrame(sequence=2, ack=99)], "ack: 99"),
    "a priority that there is not": ([client_hello(tasks=[tasks_pb2.TaskSpec(priority=77)])], "tasks.priority: 77"),
    "70,000 tasks": ([client_hello(tasks=[tasks_pb2.TaskSpec()] * 70_000)], "items"),
    "70,000 tasks in a group": (
        [client_hello(groups=[tasks_pb2.TaskGroup(tasks=[tasks_pb2.TaskSpec()] * 70_000)])],
        "items",
    ),
    "70,000 groups": ([client_hello(groups=[tasks_pb2.TaskGroup()] * 70_000)], "items"),
    "70,000 ids": ([client_hello(watch=["x"] * 70_000)], "items"),
}


@pytest.mark.parametrize("name", CLIENT_VIOLATIONS)
async def test_a_client_that_breaks_the_rules_loses_its_stream(guest, name):
    messages, reason = CLIENT_VIOLATIONS[name]
    said = await guest.said(CLIENT, *messages)
    assert reason in said
    assert len(said) < 2_000


@pytest.mark.parametrize("method", [CLIENT, WORKER])
@pytest.mark.parametrize("first", [True, False])
async def test_bytes_that_are_no_message_end_the_stream(guest, method, first):
    chance = random.Random(1)
    for _ in range(20):
        garbage = b"\xff" + chance.randbytes(chance.randrange(1, 200))
        before = [] if first else [hello() if method == WORKER else client_hello()]
        assert "no message of this protocol" in await guest.said(method, *before, garbage)


@pytest.mark.parametrize("method", [CLIENT, WORKER])
async def test_text_that_is_not_utf_8_ends_the_stream(guest, method):
    good = hello("hostile") if method == WORKER else client_hello()
    bad = good.SerializeToString().replace(b"hostile", b"host\xff\xfee")
    assert bad != good.SerializeToString()
    assert "no message of this protocol" in await guest.said(method, bad)


@pytest.mark.parametrize("method", [CLIENT, WORKER])
async def test_a_message_over_its_bound_ends_the_stream(guest, method):
    said = await guest.said(method, b"\x32" + bytes(17 * 1024 * 1024))
    assert "RESOURCE_EXHAUSTED" in said


@pytest.mark.parametrize("reference", ["$ref", "$dynamicRef", "$schema", "$id"])
async def test_nothing_is_fetched_for_a_schema(guest, reference):
    asked = asyncio.Event()

    async def answer(reader, writer):
        asked.set()
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    async with server:
        where = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/schema"
        document = {reference: where, "$ref": "other"} if reference == "$id" else {reference: where}
        said = await guest.said(WORKER, schema(document))
        assert "hello.capabilities.input_schema of x" in said
        nested = {"properties": {"a": document}}
        said = await guest.said(WORKER, schema(nested), frame(reports=[Report(status=9)]))
        assert said
        assert not asked.is_set()


async def test_reports_of_tasks_that_a_worker_never_had_change_nothing(guest, neighbours):
    handle = await neighbours.submit("increment", {"n": 1})
    await handle.wait(20)
    stream = guest.stream(WORKER)
    ids = [handle.id, new_id(), "x" * 10_000, ""]
    await stream.write(
        hello(),
        frame(
            reports=[
                Report(task_id=name, number=number, status=1, result=b"13") for name in ids for number in (0, 1, 2**31)
            ],
            started=[worker_pb2.AttemptRef(task_id=name, number=1) for name in ids],
            returned=[worker_pb2.AttemptRef(task_id=name, number=1) for name in ids],
            credits=2**64 - 1,
        ),
    )
    while (answer := await stream.read()).ack < 2:
        assert not answer.refused
    stream.cancel()
    view = await neighbours.task(handle.id)
    assert view["result"] == 2
    assert len(view["attempts"]) == 1


async def test_two_hundred_streams_that_say_nothing(guest, neighbours):
    streams = [guest.stream(method) for method in (CLIENT, WORKER) for _ in range(100)]
    handle = await neighbours.submit("increment", {"n": 1})
    assert await handle.result(20) == 2
    for stream in streams:
        stream.cancel()


async def test_a_client_that_never_reads(guest, neighbours):
    """Its outcomes wait, and nobody else does."""
    before = (await guest.tasks.GetStatus(tasks_pb2.GetStatusRequest())).completed
    stream = guest.stream(CLIENT)
    specs = [tasks_pb2.TaskSpec(id=new_id(n), capability="increment", parameters=b'{"n": 1}') for n in range(1_000)]
    await stream.write(client_hello(tasks=specs))
    async with asyncio.timeout(30):
        while (await guest.tasks.GetStatus(tasks_pb2.GetStatusRequest())).completed < before + len(specs):
            await asyncio.sleep(0.01)
    assert await neighbours.watch(specs[-1].id).result(30) == 2
    stream.cancel()


async def test_a_name_that_another_worker_has(guest, neighbours):
    """The newest stream wins a name: the one before is told so, and comes back under its own."""
    first, second = guest.stream(WORKER), guest.stream(WORKER)
    await first.write(hello("twin"))
    assert (await first.read()).welcome.cell
    await second.write(hello("twin", boot_id="other"))
    assert "another process has its name" in await first.end()
    second.cancel()


FRAMES = st.one_of(
    st.builds(
        worker_pb2.WorkerFrame,
        sequence=st.integers(0, 3),
        ack=st.integers(0, 3),
        hello=st.none() | st.just(hello().hello),
        reports=st.lists(
            st.builds(
                Report,
                task_id=st.text(max_size=8),
                number=st.integers(0, 2**32 - 1),
                status=st.integers(0, 5),
                result=st.binary(max_size=8),
                result_blob=st.text(max_size=4),
                wall_ns=st.integers(0, 2**64 - 1),
                trail=st.binary(max_size=4),
            ),
            max_size=3,
        ),
        credits=st.integers(0, 2**64 - 1),
        draining=st.booleans(),
        bye=st.booleans(),
    ).map(lambda message: (WORKER, message.SerializeToString())),
    st.tuples(st.sampled_from([CLIENT, WORKER]), st.binary(max_size=40)),
)


async def test_streams_of_random_frames(guest):
    """Whatever comes, the stream ends in order: with a reason, or by being taken away."""
    examples = []

    @given(st.lists(FRAMES, min_size=1, max_size=4))
    def collect(frames):
        examples.append(frames)

    collect()
    for frames in examples:
        stream = guest.stream(frames[0][0])
        try:
            await stream.write(*(data for _, data in frames))
        except (grpc.aio.AioRpcError, asyncio.InvalidStateError):
            pass
        stream.cancel()
