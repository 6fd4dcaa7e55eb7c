"""The foreign agent as others see it: by the unary worker contract alone, and with the habits that it is there for."""

import ast
import json
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import grpc
import pytest
from google.protobuf.empty_pb2 import Empty

from examples.inspection import foreign_agent
from examples.inspection.foreign_agent import BadRequest, forms
from merit.wire.worker_abstraction import worker_abstraction_pb2 as unary
from merit.wire.worker_abstraction import worker_abstraction_pb2_grpc
from tests.merit_command import WAIT_S, Running, until

PROGRAM = Path(foreign_agent.__file__)


class Registry(worker_abstraction_pb2_grpc.RegistryServiceServicer):
    """Takes everybody; knows nobody when it comes back."""

    def __init__(self) -> None:
        self.registered: list[unary.WorkerInfo] = []
        self.beats: list[unary.HeartbeatRequest] = []

    def RegisterWorker(self, request, context):
        self.registered.append(request.worker_info)
        return unary.RegisterWorkerResponse(success=True, message=request.worker_info.worker_id)

    def WorkerHeartbeat(self, request, context):
        self.beats.append(request)
        return unary.HeartbeatResponse(success=True, commands=["STOP", "UNHEARD_OF"])

    def GetAvailableWorkers(self, request, context):
        return iter(self.registered)

    def GetWorkerById(self, request, context):
        return next(info for info in self.registered if info.worker_id == request.worker_id)


@contextmanager
def serving(registry: Registry, address: str = "127.0.0.1:0") -> Iterator[str]:
    server = grpc.server(ThreadPoolExecutor(4), options=[("grpc.so_reuseport", 0)])
    worker_abstraction_pb2_grpc.add_RegistryServiceServicer_to_server(registry, server)
    port = server.add_insecure_port(address)
    server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        server.stop(0).wait()


@pytest.fixture
def worker(tmp_path):
    """What it has said of itself, and a stub to call it by."""
    registry = Registry()
    with serving(registry) as address:
        agent = Running([str(PROGRAM), "--registry", address], tmp_path, "agent")
        try:
            info = until(lambda: registry.registered, "it has registered")[0]
            with grpc.insecure_channel(info.address) as channel:
                yield info, worker_abstraction_pb2_grpc.WorkerServiceStub(channel)
            assert agent.stop() == 0
        finally:
            agent.kill()


def task(task_id: str, parameters: dict[str, object], capability: str = "text_form") -> unary.ExecuteTaskRequest:
    made = [unary.TaskParameter(key=key, value_json=json.dumps(value)) for key, value in parameters.items()]
    return unary.ExecuteTaskRequest(task=unary.Task(task_id=task_id, capability_name=capability, parameters=made))


def test_it_knows_nothing_of_merit_but_the_contract():
    imported = [
        name
        for node in ast.walk(ast.parse(PROGRAM.read_text()))
        for name in (
            [node.module or ""]
            if isinstance(node, ast.ImportFrom)
            else [alias.name for alias in node.names]
            if isinstance(node, ast.Import)
            else []
        )
    ]
    assert {name for name in imported if name.startswith(("merit", "examples"))} == {
        "merit.wire.worker_abstraction",
        "merit.wire.worker_abstraction.worker_abstraction_pb2_grpc",
    }


def test_a_task_begins_when_its_stream_is_opened_and_is_looked_at_until_it_is_over(worker, tmp_path):
    info, stub = worker
    assert [tool.name for tool in info.capabilities] == ["text_form"]
    assert list(info.tags) == ["text", "inspection"]
    assert stub.GetWorkerInfo(Empty(), timeout=WAIT_S) == info
    assert stub.ExecuteTask(
        task("t1", {"root": str(tmp_path), "directory": ".", "names": ["one.py"]}), timeout=WAIT_S
    ).accepted
    (tmp_path / "one.py").write_bytes(b"x = 1\r\n")  # only now: nothing has begun
    said = list(stub.StreamTaskStatus(unary.GetTaskStatusRequest(task_id="t1"), timeout=WAIT_S))
    assert said[-1].result.status == unary.TASK_STATUS_COMPLETED
    assert all(one.result.HasField("completed_at") for one in said)
    assert json.loads(said[-1].result.output_json)["files"][0]["crlf"] == 1
    again = list(stub.StreamTaskStatus(unary.GetTaskStatusRequest(task_id="t1"), timeout=WAIT_S))
    assert [one.result for one in again] == [said[-1].result]


def test_what_cannot_be_done_is_said(worker, tmp_path):
    _, stub = worker
    refused = stub.ExecuteTask(task("t1", {}, "something_else"), timeout=WAIT_S)
    assert not refused.accepted
    assert "something_else" in refused.message
    with pytest.raises(grpc.RpcError) as unknown:
        list(stub.StreamTaskStatus(unary.GetTaskStatusRequest(task_id="t2"), timeout=WAIT_S))
    assert unknown.value.code() is grpc.StatusCode.NOT_FOUND
    bad: list[dict[str, object]] = [
        {"root": str(tmp_path), "directory": "..", "names": []},
        {"root": str(tmp_path)},
        {"other": 1},
    ]
    for number, parameters in enumerate(bad):
        assert stub.ExecuteTask(task(f"bad{number}", parameters), timeout=WAIT_S).accepted
        ended = list(stub.StreamTaskStatus(unary.GetTaskStatusRequest(task_id=f"bad{number}"), timeout=WAIT_S))[-1]
        assert ended.result.status == unary.TASK_STATUS_FAILED
        assert json.loads(ended.result.output_json)["error"] == ended.result.error_message != ""


def test_it_registers_again_when_a_call_has_failed(tmp_path):
    before, after = Registry(), Registry()
    with serving(before) as address:
        agent = Running([str(PROGRAM), "--registry", address, "--name", "n1"], tmp_path, "agent")
        try:
            until(lambda: before.beats, "it heartbeats")
        except BaseException:
            agent.kill()
            raise
    try:
        until(lambda: "registering again" in agent.err, "it has seen that the registry is away")
        with serving(after, address):
            until(lambda: after.registered, "it has registered again")
        assert agent.stop() == 0
    finally:
        agent.kill()
    assert {info.worker_id for info in (*before.registered, *after.registered)} == {"n1"}
    assert before.registered[0].address == after.registered[0].address


def test_it_ends_with_the_process_that_it_is_told(tmp_path):
    program = "import subprocess, sys, os; subprocess.Popen([*sys.argv[1:], '--parent', str(os.getpid())]).pid"
    ran = subprocess.run(
        [sys.executable, "-c", program, sys.executable, str(PROGRAM), "--registry", "127.0.0.1:1"],
        capture_output=True,
        text=True,
        timeout=WAIT_S,
        check=True,
    )
    # It holds the pipe as long as it lives, so that its end has come when `run` returns.
    assert "serves text_form" in ran.stderr


def test_forms_of_files(tmp_path):
    for name, content in {
        "a.py": b"x = 1\n",
        "b.py": b"\xef\xbb\xbfx = 1 \r\n\tif x:\r\n",
        "c.py": b"x\ry\n \tz",
        "d.py": "é = 1\n".encode(),
        "e.py": b"\xff",
        "f.py": b"",
    }.items():
        (tmp_path / name).write_bytes(content)
    found = {one.pop("name"): one for one in forms(str(tmp_path), ".", [f"{letter}.py" for letter in "abcdefg"])}
    plain = {"encoding": "ascii", "byte_order_mark": False, "lf": 1, "crlf": 0, "cr": 0}
    plain |= {"ends_in_newline": True, "trailing_blanks": 0, "tab_indented": 0}
    assert found["a.py"] == plain
    assert found["b.py"] == plain | {
        "encoding": "utf-8",
        "byte_order_mark": True,
        "lf": 0,
        "crlf": 2,
        "trailing_blanks": 1,
        "tab_indented": 1,
    }
    assert found["c.py"] == plain | {"cr": 1, "ends_in_newline": False, "tab_indented": 1}
    assert found["d.py"] == plain | {"encoding": "utf-8"}
    assert found["e.py"] == plain | {"encoding": "other", "lf": 0, "ends_in_newline": False}
    assert found["f.py"] == plain | {"lf": 0}
    assert found["g.py"]["problem"].startswith("cannot be read")


def test_forms_never_leave_the_root(tmp_path):
    (tmp_path / "inner").mkdir()
    (tmp_path / "secret.py").write_text("x = 1\n")
    (tmp_path / "inner" / "link.py").symlink_to(tmp_path / "secret.py")
    for directory, name in (
        (".", "../secret.py"),
        ("..", "secret.py"),
        (".", "link.py"),
        (".", ""),
        (str(tmp_path), "secret.py"),
    ):
        with pytest.raises(BadRequest):
            forms(str(tmp_path / "inner"), directory, [name])
    with pytest.raises(BadRequest, match="names: 1,001 files"):
        forms(str(tmp_path), ".", ["x"] * 1_001)
