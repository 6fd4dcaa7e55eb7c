"""Tasks that must not get in: each is refused by itself, with the field and the reason."""

import json
from typing import Any

import grpc
import pytest

from merit.wire.v1 import tasks_pb2
from tests.gateway.hostile import CLIENT, client_hello, new_id

pytestmark = pytest.mark.asyncio(loop_scope="module")

Spec = tasks_pb2.TaskSpec


def spec(**fields):
    return Spec(**{"id": new_id(), "capability": "increment", "parameters": b'{"n": 1}', **fields})


DIGEST = "0" * 64
BAD: dict[str, tuple[dict[str, Any], str, str]] = {
    "a wrong type": ({"parameters": b'{"n": "1"}'}, "parameters.n", "not of type"),
    "a field that is missing": ({"parameters": b"{}"}, "parameters", "required"),
    "a field too many": ({"parameters": b'{"n": 1, "m": 2}'}, "parameters", "m"),
    "an array": ({"parameters": b"[]"}, "parameters", "must be a JSON object, not list"),
    "null": ({"parameters": b"null"}, "parameters", "must be a JSON object"),
    "nothing": ({"parameters": b""}, "parameters", "not valid JSON"),
    "half of it": ({"parameters": b'{"n": '}, "parameters", "not valid JSON"),
    "two values": ({"parameters": b"{} {}"}, "parameters", "not valid JSON"),
    "NaN": ({"parameters": b'{"n": NaN}'}, "parameters", "not valid JSON"),
    "Infinity": ({"parameters": b'{"n": -Infinity}'}, "parameters", "not valid JSON"),
    "a number beyond all": ({"parameters": b'{"n": 1e999}'}, "parameters", ""),
    "a lone surrogate": ({"parameters": b'{"n": "\\ud800"}'}, "parameters", "not valid JSON"),
    "invalid UTF-8": ({"parameters": b'{"n": "\xff"}'}, "parameters", "not valid UTF-8"),
    "100,000 brackets": ({"parameters": b"[" * 50_000 + b"]" * 14_000}, "parameters", "deeper than 64"),
    "65 brackets": ({"parameters": b'{"n":' + b"[" * 64 + b"]" * 64 + b"}"}, "parameters", "deeper than 64"),
    "too much inline": ({"parameters": b'{"n": "' + b"x" * 70_000 + b'"}'}, "parameters", "blob store"),
    "both": ({"parameters_blob": DIGEST}, "parameters", "must be empty"),
    "a blob that is not there": ({"parameters": b"", "parameters_blob": DIGEST}, "parameters_blob", "not in the blob"),
    "a blob with a path for a name": (
        {"parameters": b"", "parameters_blob": "../" * 21 + "a"},
        "parameters_blob",
        "SHA",
    ),
    "no id": ({"id": ""}, "id", "UUID version 7"),
    "an id in capitals": ({"id": new_id().upper()}, "id", "UUID version 7"),
    "an id of version 4": ({"id": "3d813cbb-47fb-42ba-91df-831e1593ac29"}, "id", "UUID version 7"),
    "no capability": ({"capability": ""}, "capability", "1 to 200"),
    "a capability with a long name": ({"capability": "x" * 201}, "capability", "1 to 200"),
    "a capability with control characters": ({"capability": "a\x00b"}, "capability", "control"),
    "a negative time-out": ({"run_timeout_ns": -1}, "run_timeout_ns", "-1"),
    "a time-out of centuries": ({"run_timeout_ns": 2**62}, "run_timeout_ns", "a year"),
    "too many attempts": ({"attempts_max": 101}, "attempts_max", "between 1 and 100"),
    "most attempts": ({"attempts_max": 2**32 - 1}, "attempts_max", "between 1 and 100"),
    "a long description": ({"description": "x" * 2001}, "description", "2,000"),
    "a dependency that is no id": ({"after": ["x"]}, "after", "no task id"),
    "a dependency that is unknown": ({"after": [new_id()]}, "after", "unknown"),
    "a dependency twice": ({"after": [new_id()] * 2}, "after", "twice"),
    "too many dependencies": ({"after": [new_id(n) for n in range(1001)]}, "after", "1,000 at most"),
}


@pytest.mark.parametrize("name", BAD)
async def test_a_bad_task_is_refused_with_its_field(guest, name):
    fields, field, reason = BAD[name]
    bad = spec(**fields)
    refusals = await guest.refused([bad], cancels=[], watch=[])
    assert [(refusal.task_id, refusal.field) for refusal in refusals] == [(bad.id, field)]
    assert reason in refusals[0].reason
    assert len(refusals[0].reason) < 1_000


async def test_the_others_of_a_frame_are_taken(guest, neighbours):
    good = [spec() for _ in range(3)]
    stream = guest.stream(CLIENT)
    await stream.write(client_hello(tasks=[good[0], spec(id="x"), good[1], spec(parameters=b""), good[2]]))
    assert len(await stream.refusals(2)) == 2
    stream.cancel()
    for task in good:
        assert (await neighbours.watch(task.id).result(20)) == 2


async def test_a_group_is_taken_as_a_whole_or_not_at_all(guest):
    group = [spec(), spec(parameters=b'{"n": "x"}'), spec()]
    refusals = {refusal.task_id: refusal for refusal in await guest.refused(groups=[group])}
    assert [refusals[task.id].code for task in group] == ["batch", "invalid", "batch"]
    assert group[1].id in refusals[group[0].id].reason
    for task in group:
        with pytest.raises(grpc.aio.AioRpcError, match="no task"):
            await guest.tasks.GetTask(tasks_pb2.GetTaskRequest(id=task.id))


async def test_a_group_with_one_that_the_cell_refuses(guest):
    group = [spec(), spec(after=[new_id()])]
    refusals = {refusal.task_id: refusal for refusal in await guest.refused(groups=[group])}
    assert [refusals[task.id].code for task in group] == ["batch", "not_found"]


async def test_a_group_of_1001(guest):
    group = [spec(id=new_id(n)) for n in range(1_001)]
    refusals = await guest.refused(groups=[group])
    assert {refusal.field for refusal in refusals} == {"tasks"}
    assert "1,000 at most" in refusals[0].reason


async def test_an_id_twice(guest):
    first = spec()
    other = Spec(id=first.id, capability="increment", parameters=b'{"n": 2}')
    group = {"groups": [tasks_pb2.TaskGroup(tasks=[first, other])]}
    for fields in (group, {"tasks": [first, other]}, {"tasks": [other]}):
        stream = guest.stream(CLIENT)
        await stream.write(client_hello(**fields))
        (refusal,) = await stream.refusals(1)
        assert (refusal.task_id, refusal.field, refusal.code) == (first.id, "id", "conflict")
        stream.cancel()


async def test_dependencies_that_cannot_be(guest):
    """On itself, in a circle, and on one that is dead."""
    alone = new_id()
    (refusal,) = await guest.refused([spec(id=alone, after=[alone])])
    assert refusal.field == "after"
    one, two = new_id(1), new_id(2)
    refusals = await guest.refused(groups=[[spec(id=one, after=[two]), spec(id=two, after=[one])]])
    assert {refusal.field for refusal in refusals} <= {"after", "tasks"}
    canceled = spec(capability="nobody-can-this", parameters=b"{}")
    stream = guest.stream(CLIENT)
    await stream.write(client_hello(tasks=[canceled], cancels=[canceled.id]))
    frame = await stream.read()
    while not frame.outcomes:
        frame = await stream.read()
    stream.cancel()
    (refusal,) = await guest.refused([spec(after=[canceled.id])])
    assert "CANCELED and will never complete" in refusal.reason


async def test_words_about_tasks_that_are_no_ids(guest):
    stream = guest.stream(CLIENT)
    await stream.write(client_hello(watch=["x", "../etc", new_id()], cancels=["", new_id()]))
    refusals = await stream.refusals(5)
    stream.cancel()
    assert sorted(refusal.field for refusal in refusals) == ["cancels", "id", "watch", "watch", "watch"]


async def test_a_reason_says_what_is_wrong_and_not_all_that_was_sent(guest):
    (refusal,) = await guest.refused([spec(parameters=json.dumps({"n": "x" * 60_000}).encode())])
    assert refusal.field == "parameters.n"
    assert len(refusal.reason) < 1_000


@pytest.mark.parametrize(
    ("method", "request_", "field"),
    [
        ("GetTask", tasks_pb2.GetTaskRequest(id="x"), "id"),
        ("ListTasks", tasks_pb2.ListTasksRequest(cursor="-1"), "cursor"),
        ("ListTasks", tasks_pb2.ListTasksRequest(cursor="9" * 5_000), "cursor"),
        ("CancelTasks", tasks_pb2.CancelTasksRequest(), "ids"),
        ("CancelTasks", tasks_pb2.CancelTasksRequest(ids=[new_id(n) for n in range(1_001)]), "ids"),
        ("CancelTasks", tasks_pb2.CancelTasksRequest(ids=[new_id()], reason="x" * 1_000_000), "reason"),
    ],
)
async def test_a_bad_question_is_refused_with_its_field(guest, method, request_, field):
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await getattr(guest.tasks, method)(request_)
    assert raised.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert (raised.value.details() or "").startswith(f"{field}:")


async def test_blobs(guest):
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        async for _ in guest.blobs.Get(tasks_pb2.BlobRef(digest="../../etc/passwd")):
            pass
    assert raised.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await guest.blobs.Put(tasks_pb2.BlobChunk(data=bytes(8_000_000)) for _ in range(9))
    assert raised.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
