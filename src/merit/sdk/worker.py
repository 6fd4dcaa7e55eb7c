"""The worker's process: an event loop around the session and the runner."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import socket
import time
from collections.abc import Callable, Coroutine, Iterable
from typing import Any, Final
from uuid import uuid4

import grpc

from merit.model.frames import Assignment, AttemptRef, CellFrame, Report, ReportStatus
from merit.model.limits import PAYLOAD_INLINE_BYTES_MAX
from merit.model.tasks import Failure, Progress
from merit.sdk.amounts import Amounts, amounts_of
from merit.sdk.capability import Capability, declared, only_declaring
from merit.sdk.channel import Backoff, Servers, get_blob, put_blob, server_or_default
from merit.sdk.conversation import Conversation
from merit.sdk.execution import Job
from merit.sdk.inputs import check_size, with_inputs
from merit.sdk.operator_words import STOP, Obedience
from merit.sdk.options import words_of
from merit.sdk.outcome import Outcome, ProgressNote
from merit.sdk.reports import report_of
from merit.sdk.runner import Runner
from merit.sdk.schema import InvalidInput
from merit.session.link import ProtocolViolation
from merit.session.worker_end import WorkerEnd
from merit.wire.frames import decode_cell_frame, encode_worker_frame
from merit.wire.v1 import worker_pb2_grpc

log = logging.getLogger("merit.worker")

DRAIN_S: Final = 30.0
"""How long a worker that was asked to stop lets running attempts go on."""

_LOOK_S: Final = 0.05
"""How often a worker that holds something looks for what has begun, how far it is, and what waits too long."""
_UNSTARTED_NS_MAX: Final = 500_000_000
"""An attempt that waits here longer than this is given back, for somebody else."""
_NOT_THERE: Final = frozenset({grpc.StatusCode.NOT_FOUND, grpc.StatusCode.DATA_LOSS, grpc.StatusCode.INVALID_ARGUMENT})


class WorkerRefused(Exception):
    """The control plane will not have this worker; the message says why."""


class WorkerProcess:
    """Offers capabilities to a control plane until it is drained.

    Args:
        capabilities: what it can do.
        server: ``HOST:PORT`` of the control plane, or of all its nodes with commas between them; by default what
            MERIT_SERVER says, or 127.0.0.1:50051. They are tried again for ever when none can be reached.
        name: of this worker, unique in the fleet; by default from the host and the process.
        concurrency: attempts that run at the same time; by default the number of CPUs, at least 4.
        processes: child processes for ``cpu=True`` functions; by default one per CPU.
        tags: words by which workers are told apart.
        capacity: what it has of resources that tasks need: ``cpu`` in cores, ``memory`` in bytes, ``network`` in bytes a
            second, ``gpu`` in devices, or any other by name. Of the first three a worker that says nothing is taken to have
            enough, of all others to have none.
        tenants: whose tasks it takes; none: anybody's.
    """

    def __init__(
        self,
        capabilities: Iterable[Capability[..., Any]],
        server: str | None = None,
        *,
        name: str | None = None,
        concurrency: int | None = None,
        processes: int | None = None,
        tags: Iterable[str] = (),
        capacity: Amounts | None = None,
        tenants: Iterable[str] = (),
    ) -> None:
        self._capabilities = list(capabilities)
        if not self._capabilities:
            raise ValueError("capabilities: a worker needs at least one; decorate a function with @capability")
        self.server = server_or_default(server)
        self._servers = Servers(self.server)
        self.name = name or f"{socket.gethostname()}-{os.getpid()}"
        concurrency = concurrency or max(4, os.cpu_count() or 1)
        self._processes = processes
        self._end = WorkerEnd(
            self.name,
            uuid4().hex,
            tuple(item.offer for item in self._capabilities),
            concurrency,
            words_of("tags", tags),
            amounts_of("capacity", capacity or {}),
            words_of("tenants", tenants),
        )
        self._obedience = Obedience()
        self._backoff = Backoff()
        self._began_ns: dict[str, int] = {}
        self._transfers: set[asyncio.Task[None]] = set()
        self._conversation: Conversation | None = None
        self._channel: grpc.aio.Channel | None = None
        self._drained = asyncio.Event()
        self._leaving = False
        """Nothing is begun any more."""
        self._fetching: set[str] = set()
        """Attempts whose parameters are on their way from the blob store."""
        self._refused: WorkerRefused | None = None
        self._pump_due = False
        self._last_sent_s = 0.0
        self._loop: asyncio.AbstractEventLoop
        self._runner: Runner

    def drain(self) -> None:
        """Take nothing more, finish what runs, report, and leave. ``run`` returns then."""
        if not self._drained.is_set():
            log.info("draining: %d attempts are held", self._end.held)
        self._end.drain()
        self._give_back_older_than(0)
        self._drained.set()
        self._wake()

    async def run(self, *, drain_s: float = DRAIN_S) -> None:
        """Work until ``drain`` is called.

        Raises:
            WorkerRefused: the control plane will not have this worker.
        """
        self._loop = asyncio.get_running_loop()
        self._runner = Runner(
            self._capabilities,
            self._end.concurrency,
            lambda: self._loop.call_soon_threadsafe(self._wake),
            processes=self._processes,
        )
        ticking = asyncio.create_task(self._tick())
        sessions = asyncio.create_task(self._sessions())
        draining = asyncio.create_task(self._drained.wait())
        obeying = asyncio.create_task(self._obedience.run())
        try:
            await asyncio.wait((sessions, draining), return_when=asyncio.FIRST_COMPLETED)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(asyncio.shield(sessions), drain_s)
            if not sessions.done():
                # Out of patience: what still runs is canceled and reported as such, if anybody listens.
                self._leaving = True
                self._give_back_older_than(0)
                await self._runner.close(0)
                self._pump()
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(sessions, 2.0)
        finally:
            # Whoever cancels this must not leave a stream behind, on which the worker would seem to be there.
            own = (ticking, sessions, draining, obeying, *self._transfers)
            for task in own:
                task.cancel()
            await self._runner.close(0)
            await asyncio.gather(*own, return_exceptions=True)
        if self._refused is not None:
            raise self._refused

    # The stream

    async def _sessions(self) -> None:
        while not self._end.left and self._refused is None:
            try:
                async with self._servers.open() as channel:
                    await self._session(channel)
            except (grpc.aio.AioRpcError, ConnectionError, ProtocolViolation, asyncio.InvalidStateError) as error:
                log.warning("no control plane at %s: %s; trying again", self._servers.present, brief(error))
            finally:
                self._end.disconnected()
                self._conversation = self._channel = None
            if self._end.draining and not self._end.held and not self._end.unacknowledged:
                return
            if not self._end.left and self._refused is None and self._servers.next():
                await asyncio.sleep(self._servers.soon(self._backoff.next_s()))

    async def _session(self, channel: grpc.aio.Channel) -> None:
        self._channel = channel
        call = worker_pb2_grpc.WorkersStub(channel).Session()
        self._conversation = Conversation(call, self._take, self._servers.welcome_s)
        self._end.connect()
        self._pump()
        await self._conversation.run()

    def _take(self, message: Any) -> None:
        frame: CellFrame = decode_cell_frame(message)
        if frame.refused:
            if frame.permanent:
                self._refused = WorkerRefused(frame.refused)
            else:
                log.warning("the control plane ended the stream: %s", frame.refused)
            return
        assignments, cancels = self._end.take(frame)
        if frame.welcome is not None:
            self._backoff.reset()
            self._servers.worked()
            if self._conversation is not None:
                self._conversation.welcomed()
            log.info("attached to cell %s at %s as %s", frame.welcome.cell, self._servers.present, self.name)
        for word in self._end.words():
            if word == STOP:
                self.drain()
            else:
                self._obedience.hear(word)
        if self._end.draining and not self._drained.is_set():
            self.drain()
        # First say what is to be said: what begins now wants the interpreter for itself.
        self._pump()
        if assignments:
            self._begin(assignments)
        for ref in cancels:
            self._cancel(ref)
        if self._end.left and self._conversation is not None:
            self._conversation.finish()

    def _wake(self) -> None:
        """Pump at the loop's next turn, together with whatever else has come by then."""
        if not self._pump_due:
            self._pump_due = True
            self._loop.call_soon(self._pump)

    def _pump(self) -> None:
        """Move what has ended to the session, and what the session has to say to the stream."""
        self._pump_due = False
        end = self._end
        for outcome in self._runner.finished():
            self._report(outcome)
        conversation = self._conversation
        if conversation is None:
            return
        while (frame := end.frame()) is not None:
            conversation.send(encode_worker_frame(frame))
            if frame.sequence:
                self._last_sent_s = time.monotonic()

    async def _tick(self) -> None:
        """What is worth telling of attempts that take their time, and the heartbeat when there is nothing else."""
        while True:
            await asyncio.sleep(_LOOK_S)
            if self._end.held:
                self._look()
            welcome = self._end.welcome
            beat_due = welcome is not None and time.monotonic() - self._last_sent_s > welcome.beat_ns / 1e9
            if beat_due and self._conversation is not None:
                frame = self._end.frame(beat=True)
                if frame is not None:
                    self._conversation.send(encode_worker_frame(frame))
                    self._last_sent_s = time.monotonic()

    def _look(self) -> None:
        now_ns = time.monotonic_ns()
        began = self._began_ns
        for attempt in self._runner.started():
            began[attempt] = now_ns
            self._end.started(*_split(attempt))
        for note in self._runner.progress(now_ns):
            self._end.progressed(_progress(note))
        if began:
            self._end.running_for(now_ns - next(iter(began.values())))
        self._give_back_older_than(_UNSTARTED_NS_MAX)
        self._wake()

    # Attempts

    def _begin(self, assignments: list[Assignment]) -> None:
        jobs: list[Job] = []
        for item in assignments:
            if self._leaving:
                self._end.handed_back(item.task, item.number)
            elif item.parameters_blob or item.inputs:
                self._fetching.add(_attempt_id(item.task, item.number))
                self._later(self._begin_when_complete(item))
            else:
                jobs.append(_job(item, item.parameters))
        if jobs:
            self._runner.start(jobs)

    def _cancel(self, ref: AttemptRef) -> None:
        attempt = _attempt_id(ref.task, ref.number)
        if attempt in self._fetching:
            self._fetching.remove(attempt)
            failure = Failure("canceled", "canceled before it began", permanent=True)
            self._end.ended(Report(ref.task, ref.number, ReportStatus.CANCELED, failure=failure))
            self._wake()
        else:
            self._runner.cancel(attempt)

    async def _begin_when_complete(self, item: Assignment) -> None:
        """Put the parameters together first."""
        attempt = _attempt_id(item.task, item.number)
        try:
            parameters = await self._parameters(item)
        except InvalidInput as error:
            failure = Failure("invalid_input", str(error), permanent=True)
            self._end.ended(Report(item.task, item.number, ReportStatus.FAILED, failure=failure))
        except (grpc.aio.AioRpcError, ConnectionError, asyncio.InvalidStateError) as error:
            if isinstance(error, grpc.aio.AioRpcError) and error.code() in _NOT_THERE:
                failure = Failure("blob", f"its parameters could not be fetched: {brief(error)}")
                self._end.ended(Report(item.task, item.number, ReportStatus.FAILED, failure=failure))
            else:
                # The control plane is away, which says nothing about the task: as if it had never been taken.
                self._end.handed_back(item.task, item.number)
        else:
            if self._leaving:
                self._end.handed_back(item.task, item.number)
            elif attempt in self._fetching:  # else it was canceled meanwhile
                self._runner.start([_job(item, parameters)])
        self._fetching.discard(attempt)
        self._wake()

    async def _parameters(self, item: Assignment) -> bytes:
        """All parameters of an attempt, results of other tasks included. Raises InvalidInput, and as ``get_blob``."""
        parameters = await self._content(item.parameters_blob) if item.parameters_blob else item.parameters
        if not item.inputs:
            return parameters
        size_bytes = len(parameters)
        inputs: list[tuple[str, bytes]] = []
        for part in item.inputs:
            value = await self._content(part.blob) if part.blob else part.result
            size_bytes += len(value)
            check_size(size_bytes)  # before more is fetched
            inputs.append((part.name, value))
        return with_inputs(parameters, inputs)

    async def _content(self, digest: str) -> bytes:
        if self._channel is None:
            raise ConnectionError("the stream is gone")
        return await get_blob(self._channel, digest)

    def _give_back_older_than(self, unstarted_ns: int) -> None:
        for attempt in self._runner.unstarted(unstarted_ns, time.monotonic_ns()):
            if self._runner.withdraw(attempt):
                self._end.handed_back(*_split(attempt))

    def _report(self, outcome: Outcome) -> None:
        if self._began_ns:
            self._began_ns.pop(outcome.attempt, None)
        if len(outcome.result) > PAYLOAD_INLINE_BYTES_MAX:
            self._later(self._report_with_blob(outcome))
        else:
            self._end.ended(report_of(*_split(outcome.attempt), outcome, outcome.result, ""))

    async def _report_with_blob(self, outcome: Outcome) -> None:
        """Store the result first: it has to be durable before the report that names it."""
        backoff = Backoff()
        digest = ""
        while not digest:
            try:
                if self._channel is None:
                    raise ConnectionError("the stream is gone")
                digest = await put_blob(self._channel, outcome.result)
            except (grpc.aio.AioRpcError, ConnectionError, asyncio.InvalidStateError) as error:
                log.warning("the result of %s could not be stored: %s; trying again", outcome.attempt, brief(error))
                await asyncio.sleep(backoff.next_s())
        self._end.ended(report_of(*_split(outcome.attempt), outcome, b"", digest))
        self._wake()

    def _later(self, work: Any) -> None:
        task = self._loop.create_task(work)
        self._transfers.add(task)
        task.add_done_callback(self._transfers.discard)


def serve(
    *capabilities: Capability[..., Any],
    server: str | None = None,
    name: str | None = None,
    concurrency: int | None = None,
    processes: int | None = None,
    tags: Iterable[str] = (),
    capacity: Amounts | None = None,
    tenants: Iterable[str] = (),
    drain_s: float = DRAIN_S,
) -> None:
    """Be a worker with these capabilities (by default all that have been declared) until SIGTERM or SIGINT.

    On the first signal, or when an operator drains or stops it, the worker drains: it takes nothing more, finishes what
    runs, reports, and leaves. A second one ends it at once. In a module that is loaded for what it declares (``merit worker
    MODULE``) this does nothing: whoever loads it serves.

    Raises:
        WorkerRefused: the control plane will not have this worker.
    """
    if only_declaring():
        return

    async def run() -> None:
        worker = WorkerProcess(
            capabilities or declared(),
            server,
            name=name,
            concurrency=concurrency,
            processes=processes,
            tags=tags,
            capacity=capacity,
            tenants=tenants,
        )
        await until_signal(worker.drain, worker.run(drain_s=drain_s))

    asyncio.run(run())


async def until_signal(drain: Callable[[], None], work: Coroutine[Any, Any, None]) -> None:
    """Work until SIGTERM or SIGINT, on which ``drain`` has the work end soon; a second one ends it at once."""
    loop = asyncio.get_running_loop()
    running = asyncio.create_task(work)
    signaled = False

    def stop() -> None:
        nonlocal signaled
        if signaled:
            running.cancel()
        signaled = True
        drain()

    await asyncio.sleep(0)  # the worker's own first steps, so that there is something to drain
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop)
    with contextlib.suppress(asyncio.CancelledError):
        await running


def _progress(note: ProgressNote) -> Progress:
    # -1 is a sign of life; whatever else there is, rounding may have brought it out of bounds.
    fraction = -1.0 if note.fraction < 0 else min(1.0, note.fraction)
    return Progress(*_split(note.attempt), fraction, note.message, note.log)


def _job(item: Assignment, parameters: bytes) -> Job:
    return Job(
        _attempt_id(item.task, item.number),
        item.task,
        item.number,
        item.capability,
        parameters,
        time.time_ns() + item.run_timeout_ns,
    )


def _attempt_id(task: str, number: int) -> str:
    return f"{task}#{number}"


def _split(attempt: str) -> tuple[str, int]:
    task, _, number = attempt.rpartition("#")
    return task, int(number)


def brief(error: BaseException) -> str:
    """An error of a call in one line."""
    if isinstance(error, grpc.aio.AioRpcError):
        return f"{error.code().name}: {error.details()}"
    return str(error) or type(error).__name__
