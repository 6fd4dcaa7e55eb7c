"""An agent that was not built for Merit: a small gRPC server that keeps to the unary worker contract, as those in the field do.

    python examples/inspection/foreign_agent.py --registry 127.0.0.1:50051

It announces itself to a registry, and is called by whoever finds it there. Of Merit it uses the messages of that contract and
nothing else; any code generated from the same .proto file would do. Its habits are those of its kind: it heartbeats every
5 s and registers again only when a call has failed; a task begins when its stream is opened, and the stream looks twice a
second how far it is, so that news come late and repeat; commands in answers to heartbeats mean nothing to it.

Its one capability tells how the files of a directory are written: line endings, encoding, blanks at ends of lines, tabs.
"""

from __future__ import annotations

import argparse
import codecs
import json
import logging
import os
import re
import signal
import sys
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final

import grpc

from merit.wire.worker_abstraction import worker_abstraction_pb2 as contract
from merit.wire.worker_abstraction.worker_abstraction_pb2_grpc import RegistryServiceStub

CAPABILITY: Final = "text_form"
TASKS_AT_A_TIME: Final = 4
SERVER_THREADS: Final = 10
POLL_S: Final = 0.5
HEARTBEAT_S: Final = 5.0
REGISTER_AGAIN_S: Final = 1.0
CALL_S: Final = 5.0
REMEMBERED_MAX: Final = 1_000
FILES_MAX: Final = 1_000
FILE_BYTES_MAX: Final = 2_000_000

log = logging.getLogger("foreign-agent")

_TRAILING_BLANKS = re.compile(rb"[ \t]\r?(?:\n|\Z)")
_TAB_IN_INDENTATION = re.compile(rb"^ *\t", re.MULTILINE)


class BadRequest(Exception):
    """What was asked for cannot be done; the message is for whoever asked."""


def forms(root: str, directory: str, names: Sequence[str]) -> list[dict[str, Any]]:
    """How each of the files `names` in `directory`, relative to `root`, is written.

    Raises BadRequest if the directory is not inside of the root, or a name is not one of a file directly in it.
    """
    if len(names) > FILES_MAX:
        raise BadRequest(f"names: {len(names):,} files; {FILES_MAX:,} at most")
    base = Path(root).resolve()
    folder = (base / directory).resolve()
    if not folder.is_relative_to(base):
        raise BadRequest(f"directory: {directory!r} leads out of the root")
    return [{"name": name, **_form(folder, name)} for name in names]


def _form(folder: Path, name: str) -> dict[str, Any]:
    file = folder / name
    if file.name != name or file.is_symlink():
        raise BadRequest(f"names: {name!r} is not the name of a file in the directory")
    try:
        with file.open("rb") as stream:
            content = stream.read(FILE_BYTES_MAX + 1)
    except OSError as error:
        return {"problem": f"cannot be read: {error.strerror}"}
    if len(content) > FILE_BYTES_MAX:
        return {"problem": f"larger than {FILE_BYTES_MAX} bytes"}
    crlf = content.count(b"\r\n")
    return {
        "encoding": _encoding(content),
        "byte_order_mark": content.startswith(codecs.BOM_UTF8),
        "lf": content.count(b"\n") - crlf,
        "crlf": crlf,
        "cr": content.count(b"\r") - crlf,
        "ends_in_newline": not content or content.endswith((b"\n", b"\r")),
        "trailing_blanks": sum(1 for _ in _TRAILING_BLANKS.finditer(content)),
        "tab_indented": sum(1 for _ in _TAB_IN_INDENTATION.finditer(content)),
    }


def _encoding(content: bytes) -> str:
    if content.isascii():
        return "ascii"
    try:
        content.decode("utf-8")
    except UnicodeDecodeError:
        return "other"
    return "utf-8"


class TextFormTask:
    """One task from its acceptance on; its `state` is for whoever looks."""

    def __init__(self, task: contract.Task) -> None:
        self._id = task.task_id
        self._parameters = {one.key: one.value_json for one in task.parameters}
        self.state = self._said(contract.TASK_STATUS_PENDING)
        self.begun = False

    @property
    def over(self) -> bool:
        """Whether it has come to an end."""
        return self.state.status in (contract.TASK_STATUS_COMPLETED, contract.TASK_STATUS_FAILED)

    def run(self) -> None:
        """Do it. The state is exchanged as a whole, since others read it meanwhile."""
        self.state = self._said(contract.TASK_STATUS_RUNNING)
        try:
            files = forms(**{key: json.loads(value) for key, value in self._parameters.items()})
            self.state = self._said(contract.TASK_STATUS_COMPLETED, json.dumps({"files": files}))
        except Exception as error:  # noqa: BLE001  (whatever it is: it is this task's, and said to who asked for it)
            message = str(error) if isinstance(error, BadRequest) else f"{type(error).__name__}: {error}"
            self.state = self._said(contract.TASK_STATUS_FAILED, json.dumps({"error": message}), message)

    def _said(
        self, status: contract.TaskStatus.ValueType, output_json: str = "", error_message: str = ""
    ) -> contract.TaskResult:
        result = contract.TaskResult(
            task_id=self._id, status=status, output_json=output_json, error_message=error_message
        )
        result.completed_at.GetCurrentTime()  # as in the field: on every status, though it means nothing before the end
        return result


class TextFormAgent:
    """Serves WorkerService: takes tasks, and tells how they do."""

    def __init__(self, name: str) -> None:
        self.info = contract.WorkerInfo(worker_id=name, name=name, version="1.0", tags=["text", "inspection"])
        tool = self.info.capabilities.add(name=CAPABILITY, description="How the files of a directory are written.")
        tool.parameters.add(name="root", type="string", description="Directory that is never left.", required=True)
        tool.parameters.add(name="directory", type="string", description="Relative to the root.", required=True)
        tool.parameters.add(name="names", type="array", description="Of files in it.", required=True)
        self._tasks: OrderedDict[str, TextFormTask] = OrderedDict()
        self._lock = threading.Lock()
        self._workers = ThreadPoolExecutor(TASKS_AT_A_TIME, thread_name_prefix="task")

    @property
    def load(self) -> int:
        """Tasks that have begun and are not over."""
        with self._lock:
            return sum(task.begun and not task.over for task in self._tasks.values())

    def execute(self, request: contract.ExecuteTaskRequest, _: grpc.ServicerContext) -> contract.ExecuteTaskResponse:
        """Take a task, if it is one of those that this agent can do. It waits for its stream to be opened."""
        task = request.task
        if task.capability_name != CAPABILITY:
            reason = f"there is no {task.capability_name!r} here, only {CAPABILITY!r}"
            return contract.ExecuteTaskResponse(task_id=task.task_id, message=reason)
        with self._lock:
            self._tasks.setdefault(task.task_id, TextFormTask(task))
            while len(self._tasks) > REMEMBERED_MAX:
                self._tasks.popitem(last=False)
        return contract.ExecuteTaskResponse(task_id=task.task_id, accepted=True)

    def stream(
        self, request: contract.GetTaskStatusRequest, context: grpc.ServicerContext
    ) -> Iterator[contract.StreamTaskStatusResponse]:
        """Begin the task, if nobody has opened a stream of it before, and look at it until it is over."""
        with self._lock:
            task = self._tasks.get(request.task_id)
            if task is not None and not task.begun:
                task.begun = True
                self._workers.submit(task.run)
        if task is None:
            context.abort(grpc.StatusCode.NOT_FOUND, f"there is no task {request.task_id!r} here")
        while context.is_active():
            state = task.state
            yield contract.StreamTaskStatusResponse(result=state)
            if state.status in (contract.TASK_STATUS_COMPLETED, contract.TASK_STATUS_FAILED):
                return
            time.sleep(POLL_S)

    def handlers(self) -> grpc.GenericRpcHandler:
        """The three methods that the contract has for workers."""
        unary = grpc.unary_unary_rpc_method_handler
        methods: dict[str, grpc.RpcMethodHandler[Any, Any]] = {
            "ExecuteTask": unary(self.execute, contract.ExecuteTaskRequest.FromString, _written),
            "StreamTaskStatus": grpc.unary_stream_rpc_method_handler(
                self.stream, contract.GetTaskStatusRequest.FromString, _written
            ),
            "GetWorkerInfo": unary(lambda _request, _context: self.info, bytes, _written),  # it is asked with nothing
        }
        return grpc.method_handlers_generic_handler("worker_abstraction.WorkerService", methods)


def _written(message: Any) -> bytes:
    written: bytes = message.SerializeToString()
    return written


def announce(agent: TextFormAgent, registry: str, goes_on: Callable[[float], bool]) -> None:
    """Register, and heartbeat from then on; after a call that failed, register again. `goes_on` waits for so many seconds
    and says whether there is more to do."""
    wait_s, registered = 0.0, False
    with grpc.insecure_channel(registry) as channel:
        stub = RegistryServiceStub(channel)
        while goes_on(wait_s):
            try:
                if registered:
                    # Whether it is a success is not looked at, nor is what the answer commands.
                    beat = contract.HeartbeatRequest(worker_id=agent.info.worker_id, current_load=agent.load)
                    stub.WorkerHeartbeat(beat, timeout=CALL_S)
                else:
                    request = contract.RegisterWorkerRequest(worker_info=agent.info)
                    answer = stub.RegisterWorker(request, timeout=CALL_S)
                    registered = answer.success
                    log.info("%s at %s: %s", "registered" if registered else "refused", registry, answer.message)
                wait_s = HEARTBEAT_S
            except grpc.RpcError as error:
                log.warning("no registry at %s: %s; registering again", registry, error)
                wait_s, registered = REGISTER_AGAIN_S, False


def main() -> int:
    """Serve until SIGTERM or Ctrl-C; the exit code."""
    options = _options()
    logging.basicConfig(format="%(asctime)s %(levelname)s %(message)s", level=logging.INFO, stream=sys.stderr)
    stopping = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stopping.set())
    agent = TextFormAgent(options.name)
    server = grpc.server(
        ThreadPoolExecutor(SERVER_THREADS), handlers=[agent.handlers()], options=[("grpc.so_reuseport", 0)]
    )
    host = options.listen.rpartition(":")[0]
    try:
        port = server.add_insecure_port(options.listen)
    except RuntimeError as error:
        log.error("--listen: %s: %s", options.listen, error)
        return 1
    agent.info.address = f"{host}:{port}"
    server.start()
    log.info("%s serves %s at %s", options.name, CAPABILITY, agent.info.address)

    def goes_on(wait_s: float) -> bool:
        end_s = time.monotonic() + wait_s
        while not stopping.wait(min(POLL_S, max(0.0, end_s - time.monotonic()))):
            if options.parent is not None and os.getppid() != options.parent:
                return False
            if time.monotonic() >= end_s:
                return True
        return False

    announce(agent, options.registry, goes_on)
    server.stop(POLL_S).wait()
    return 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--registry", default="127.0.0.1:50051", help="host:port to register at (%(default)s)")
    parser.add_argument("--listen", default="127.0.0.1:0", help="host:port to serve at; port 0: any (%(default)s)")
    parser.add_argument("--name", default="foreign-agent", help="of this agent, unique at the registry (%(default)s)")
    parser.add_argument("--parent", type=int, help="end when this is not the parent process any more")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
