"""The unary contract byte for byte, and capabilities in its words."""

import json
from typing import Any

import pytest
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp
from hypothesis import given
from hypothesis import strategies as st

from merit.model.workers import Offer
from merit.wire.unary import describe, schema_of
from merit.wire.worker_abstraction import worker_abstraction_pb2 as unary
from merit.wire.worker_abstraction import worker_abstraction_pb2_grpc


def text(number: int, value: str) -> bytes:
    """A field of wire type 2; all contents here are shorter than 128 bytes."""
    return inner(number, value.encode())


def inner(number: int, content: bytes) -> bytes:
    assert len(content) < 128
    return bytes([number << 3 | 2, len(content)]) + content


def small(number: int, value: int) -> bytes:
    """A field of wire type 0."""
    return bytes([number << 3, value])


PARAMETER = text(1, "n") + text(2, "int") + text(3, "how many") + small(4, 1)
TOOL = text(1, "add") + text(2, "adds") + inner(3, PARAMETER)
TIME = small(1, 5) + small(2, 7)
INFO = (
    text(1, "w")
    + text(2, "name")
    + text(3, "1.0")
    + text(4, "h:1")
    + text(5, "a")
    + text(5, "b=c")
    + inner(6, TIME)
    + inner(7, TOOL)
)
TASK = (
    text(1, "t")
    + text(2, "w")
    + text(3, "add")
    + inner(4, text(1, "n") + text(2, "1"))
    + small(5, 9)
    + inner(6, TIME)
    + inner(7, text(1, "k") + text(2, "v"))
)
RESULT = (
    text(1, "t") + small(2, 4) + text(3, "{}") + text(4, "why") + inner(5, TIME) + inner(6, text(1, "k") + text(2, "v"))
)
time = Timestamp(seconds=5, nanos=7)
parameter = unary.ToolParameter(name="n", type="int", description="how many", required=True)
tool = unary.ToolCapability(name="add", description="adds", parameters=[parameter])
info = unary.WorkerInfo(
    worker_id="w",
    name="name",
    version="1.0",
    address="h:1",
    tags=["a", "b=c"],
    last_heartbeat=time,
    capabilities=[tool],
)
task = unary.Task(
    task_id="t",
    worker_id="w",
    capability_name="add",
    parameters=[unary.TaskParameter(key="n", value_json="1")],
    timeout_seconds=9,
    created_at=time,
    metadata={"k": "v"},
)
result = unary.TaskResult(
    task_id="t",
    status=unary.TASK_STATUS_FAILED,
    output_json="{}",
    error_message="why",
    completed_at=time,
    metadata={"k": "v"},
)


@pytest.mark.parametrize(
    ("message", "written"),
    [
        (info, INFO),
        (task, TASK),
        (result, RESULT),
        (unary.RegisterWorkerRequest(worker_info=info), inner(1, INFO)),
        (unary.RegisterWorkerResponse(success=True, message="w"), small(1, 1) + text(2, "w")),
        (unary.HeartbeatRequest(worker_id="w", current_load=3), text(1, "w") + small(2, 3)),
        (
            unary.HeartbeatResponse(success=True, message="m", commands=["STOP", "RESET"]),
            small(1, 1) + text(2, "m") + text(3, "STOP") + text(3, "RESET"),
        ),
        (unary.ExecuteTaskRequest(task=task), inner(1, TASK)),
        (
            unary.ExecuteTaskResponse(task_id="t", accepted=True, message="m"),
            text(1, "t") + small(2, 1) + text(3, "m"),
        ),
        (unary.GetTaskStatusRequest(task_id="t"), text(1, "t")),
        (unary.StreamTaskStatusResponse(result=result), inner(1, RESULT)),
        (unary.GetWorkerByIdRequest(worker_id="w"), text(1, "w")),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Message) else "",
)
def test_messages_are_what_the_table_says(message: Message, written: bytes):
    assert type(message).FromString(written) == message
    assert message.SerializeToString(deterministic=True) == written


def test_names_and_numbers_of_the_statuses():
    assert dict(unary.TaskStatus.items()) == {
        "TASK_STATUS_UNKNOWN": 0,
        "TASK_STATUS_PENDING": 1,
        "TASK_STATUS_RUNNING": 2,
        "TASK_STATUS_COMPLETED": 3,
        "TASK_STATUS_FAILED": 4,
        "TASK_STATUS_CANCELED": 5,
    }


def test_numbers_that_are_kept_free_are_passed_over():
    """Of an agent that has enum_values and default_value already."""
    from_there = PARAMETER + text(5, "x") + inner(6, text(1, "type"))
    assert unary.ToolParameter.FromString(from_there).name == "n"
    taken = {field.number for field in unary.ToolParameter.DESCRIPTOR.fields}
    assert taken == {1, 2, 3, 4}


def test_methods_are_called_as_the_table_says():
    seen: dict[str, Any] = {}

    class Recorder:
        def __getattr__(self, kind: str) -> Any:
            return lambda path, **_: seen.setdefault(path, kind)

    channel: Any = Recorder()
    worker_abstraction_pb2_grpc.RegistryServiceStub(channel)
    worker_abstraction_pb2_grpc.WorkerServiceStub(channel)
    assert seen == {
        "/worker_abstraction.RegistryService/RegisterWorker": "unary_unary",
        "/worker_abstraction.RegistryService/WorkerHeartbeat": "unary_unary",
        "/worker_abstraction.RegistryService/GetAvailableWorkers": "unary_stream",
        "/worker_abstraction.RegistryService/GetWorkerById": "unary_unary",
        "/worker_abstraction.WorkerService/ExecuteTask": "unary_unary",
        "/worker_abstraction.WorkerService/StreamTaskStatus": "unary_stream",
        "/worker_abstraction.WorkerService/GetWorkerInfo": "unary_unary",
        "/worker_abstraction.WorkerService/CancelTask": "unary_unary",
    }


def parameters(*declared: tuple[str, str, bool]) -> list[unary.ToolParameter]:
    return [unary.ToolParameter(name=name, type=kind, required=required) for name, kind, required in declared]


def test_parameters_become_a_schema():
    made = schema_of(parameters(("a", "string", True), ("b", "int", False), ("c", "float", True), ("d", "Date", False)))
    assert json.loads(made) == {
        "type": "object",
        "properties": {
            "a": {"type": "string"},
            "b": {"type": "integer"},
            "c": {"type": "number", "x-merit-type": "float"},
            "d": {"x-merit-type": "Date"},
        },
        "required": ["a", "c"],
    }
    assert schema_of([]) == b"", "who declares nothing takes anything"


@pytest.mark.parametrize(
    ("declared", "reason"),
    [
        (parameters(("a", "int", True), ("a", "int", True)), "'a' stands twice"),
        (parameters(("", "int", True)), "0 characters"),
        (parameters(*((str(n), "int", True) for n in range(257))), "257 parameters; 256 at most"),
    ],
)
def test_parameters_that_make_none(declared: list[unary.ToolParameter], reason: str):
    with pytest.raises(ValueError, match=reason):
        schema_of(declared)


KINDS = ["string", "int", "boolean", "object", "array", "number", "float", "list", "Date", "any", "", "int | None"]
NAMES = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=20)


@given(
    st.lists(st.tuples(NAMES, st.sampled_from(KINDS), NAMES, st.booleans()), unique_by=lambda one: one[0], max_size=6)
)
def test_what_a_worker_declares_is_what_others_are_told(declared):
    said = [
        unary.ToolParameter(name=name, type=kind, description=description, required=required)
        for name, kind, description, required in declared
    ]
    told = describe(Offer("c", description="d", input_schema=schema_of(said)))
    assert (told.name, told.description, list(told.parameters)) == ("c", "d", said)


@pytest.mark.parametrize(
    "schema", [b"", b"true", b"{}", b'{"type":"string"}', b'{"properties":[]}', b'{"properties":{"a":true}}']
)
def test_of_any_schema_something_can_be_said(schema: bytes):
    told = describe(Offer("c", input_schema=schema))
    assert [(one.name, one.type) for one in told.parameters] in ([], [("a", "any")])
