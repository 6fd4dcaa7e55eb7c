"""The child process in which CPU-bound functions run, and the frames it speaks with its parent.

It serves one attempt at a time. A thread of its own listens to the parent: for cancels, and for the end of the connection,
which ends the child and whatever it started at once, however busy the function is.
"""

from __future__ import annotations

import ctypes
import multiprocessing.spawn
import os
import queue
import resource
import signal
import sys
import threading
import time
from multiprocessing.connection import Connection
from typing import Any, NoReturn

import msgspec

from merit.sdk.capability import Capability, declaring, find
from merit.sdk.context import Context
from merit.sdk.execution import finish, run_here
from merit.sdk.memory import AttemptGauge
from merit.sdk.outcome import AttemptError, LogLine, Outcome, ProgressNote, detail_of, message_of

BEAT_NS_MIN = 50_000_000
PR_SET_PDEATHSIG = 1  # prctl(2)

# Whether this process is a child that is just importing the parent's script.
importing_main = False


class Prepare(msgspec.Struct, tag=True, frozen=True):
    """The first frame: what multiprocessing's spawn prepares (empty unless the script itself holds a capability)."""

    main_path: str | None
    main_name: str | None
    arguments: list[str]
    modules: list[str]


class Run(msgspec.Struct, tag=True, frozen=True):
    """Run one attempt."""

    module: str
    qualified_name: str
    attempt: str
    task: str
    number: int
    deadline_ns: int
    parameters: bytes
    result_bytes_max: int


class Cancel(msgspec.Struct, tag=True, frozen=True):
    """Let the function see that its attempt is cancelled."""

    attempt: str


class Said(msgspec.Struct, tag=True, frozen=True):
    """Progress or a log line, sent when it is made, so that it outlives a crash."""

    progress: ProgressNote | None = None
    line: LogLine | None = None


class Ended(msgspec.Struct, tag=True, frozen=True):
    """The outcome of the attempt."""

    outcome: Outcome


encode_frame = msgspec.msgpack.Encoder().encode
decode_down = msgspec.msgpack.Decoder(Prepare | Run | Cancel).decode
decode_up = msgspec.msgpack.Decoder(Said | Ended).decode


class _Child:
    """The child's end of the connection."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._sending = threading.Lock()
        self._jobs: queue.SimpleQueue[Run] = queue.SimpleQueue()
        self._context: Context | None = None
        self._memory = AttemptGauge()
        self._beat_ns = 0

    def listen(self) -> NoReturn:
        """Take frames until the parent is gone, then end everything."""
        while True:
            try:
                frame = decode_down(self._connection.recv_bytes())
            except (EOFError, OSError):
                end_group()
            match frame:
                case Run():
                    self._jobs.put(frame)
                case Cancel(attempt):
                    context = self._context
                    if context is not None and context.attempt == attempt:
                        context.set_cancelled()

    def serve(self) -> NoReturn:
        """Run attempts, one after the other."""
        while True:
            self._run(self._jobs.get())

    def _run(self, job: Run) -> None:
        context = Context(job.attempt, job.task, job.number, job.deadline_ns, self._send_progress, self._send_line)
        self._context = context
        self._beat_ns = 0
        try:
            found: Capability[..., Any] = find(job.module, job.qualified_name)
        except BaseException as raised:  # noqa: BLE001 — importing runs the user's code, which may do anything
            broken = AttemptError("exception", message_of(raised), detail_of(raised))
            outcome = finish(context, b"", broken, time.time_ns(), 0, 0, 0)
        else:
            outcome = run_here(found, job.parameters, context, self._memory, job.result_bytes_max, _cpu_ns)
        self._context = None
        self._send(Ended(outcome))

    def _send_progress(self, note: ProgressNote) -> None:
        if note.fraction < 0 and not note.log:
            # One sign of life in a while does: a function may give them in its innermost loop.
            if note.time_ns - self._beat_ns < BEAT_NS_MIN:
                return
            self._beat_ns = note.time_ns
        self._send(Said(progress=note))

    def _send_line(self, line: LogLine) -> None:
        self._send(Said(line=line))

    def _send(self, frame: Said | Ended) -> None:
        try:
            with self._sending:
                self._connection.send_bytes(encode_frame(frame))
        except OSError:  # the parent is gone
            end_group()


def _cpu_ns() -> int:
    """CPU time of this process, of all its threads, and of the programs that it has run to their end."""
    own, others = resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN)
    return int((own.ru_utime + own.ru_stime + others.ru_utime + others.ru_stime) * 1e9)


def end_group() -> NoReturn:
    """End this process and those that it started, at once. The child leads a process group of its own."""
    if os.getpgrp() == os.getpid():
        os.killpg(os.getpgrp(), signal.SIGKILL)
    os._exit(1)


def _end_with_parent() -> None:
    """Have the kernel kill this process when the parent's thread that started it ends: a function that never lets go of the
    interpreter keeps `listen` from seeing the end of the connection. That thread lives as long as the child is wanted.
    """
    if sys.platform != "linux":
        return
    try:
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    except (OSError, AttributeError):  # no prctl in this C library: the connection's end remains
        pass


def _prepare(frame: Prepare) -> None:
    """Import the parent's script the way multiprocessing's spawn does, and the modules of the capabilities."""
    global importing_main  # noqa: PLW0603 — a fact about the process
    data: dict[str, Any] = {"sys_argv": frame.arguments}
    if frame.main_path is not None:
        data["init_main_from_path"] = frame.main_path
    elif frame.main_name is not None:
        data["init_main_from_name"] = frame.main_name
    importing_main = True
    try:
        multiprocessing.spawn.prepare(data)
    finally:
        importing_main = False
    for module in frame.modules:
        try:
            with declaring():
                __import__(module)
        except BaseException:  # noqa: BLE001, S110 — the attempt that needs it fails by the same error, and says so
            pass


def main(descriptor: int) -> NoReturn:
    """Serve the parent on that socket until it closes it."""
    _end_with_parent()
    # The worker decides when its children end: a Ctrl-C or SIGTERM to all processes must leave them time to drain. Handlers
    # rather than SIG_IGN, which the programs that a function starts would inherit.
    signal.signal(signal.SIGINT, lambda _number, _frame: None)
    signal.signal(signal.SIGTERM, lambda _number, _frame: None)
    connection = Connection(descriptor)
    try:
        first = decode_down(connection.recv_bytes())
    except (EOFError, OSError):
        end_group()
    assert isinstance(first, Prepare)
    child = _Child(connection)
    threading.Thread(target=child.listen, name="merit-parent", daemon=True).start()
    _prepare(first)
    child.serve()
