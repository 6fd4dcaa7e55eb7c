"""One attempt at a worker of the unary contract: told once, followed until it has come to an end.

Agents in the field differ. Many begin only when the stream of a task is opened; many look at their own state twice a
second, and say the same again; some never say the end on the stream that is open, but do on one that is opened then.
So the stream is opened at once, and stays open, for there are those that work in it; beside it another one is opened every
few seconds, just to look. Whatever says first that the task has ended is right, and nothing that comes after it counts.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

import grpc
import msgspec
from google.protobuf.message import DecodeError

from merit.gateway.unary.contents import Contents
from merit.model.frames import AttemptRef, Report, ReportStatus
from merit.model.json_check import BadJson
from merit.model.limits import (
    FAILURE_DETAIL_LENGTH_MAX,
    FAILURE_MESSAGE_LENGTH_MAX,
    NAME_LENGTH_MAX,
    PAYLOAD_INLINE_BYTES_MAX,
)
from merit.model.tasks import Failure
from merit.wire.calls import calling
from merit.wire.unary import FINAL, KIND_KEY, PERMANENT_KEY
from merit.wire.worker_abstraction import worker_abstraction_pb2 as unary

if TYPE_CHECKING:
    from merit.wire.worker_abstraction.worker_abstraction_pb2_grpc import WorkerServiceAsyncStub  # a type only

UNREACHABLE: Final = "unreachable"
"""Kind of the failures that say that the worker itself cannot be had."""
LOST: Final = "lost"
"""… and that it does not know the task any more."""

EXECUTE_S: Final = 10.0
"""A worker has to say within this time whether it takes a task."""
CANCELED: Final = "the call was canceled by the worker"
CANCEL_S: Final = 5.0
LOOK_AFTER_S: Final = (2.0, 10.0)
"""How long the stream of a task may be open before another one is opened to look, the first time and at most."""
LOOK_S: Final = 2.0
"""How long that one is kept: workers that look at their own state twice a second have said it by then."""
REOPEN_S: Final = (0.2, 5.0)
"""Before a stream that has ended without an end of the task is opened again, the first time and at most."""
AWAY_S: Final = 3.0
"""A worker that cannot be reached for so long is taken to have forgotten its tasks."""
LIVES_S: Final = 0.25
"""Signs of life are passed on no more often."""
ERRORS_MAX: Final = 3
"""Streams that may break one after the other, without a word between them."""

_FREELY: Final = 20
"""Messages of one stream that are read as they come …"""
_PAUSE_S: Final = 0.05
"""… and this is waited after each one more, and after each 64 KiB that are no result: whoever floods is slowed down, and
takes nothing from the others."""

_AWAY: Final = frozenset({grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED})
_MAY_HAVE_BEGUN: Final = frozenset(
    {grpc.StatusCode.UNKNOWN, grpc.StatusCode.INTERNAL, grpc.StatusCode.ABORTED, grpc.StatusCode.CANCELLED}
)

_Stream = grpc.aio.UnaryStreamCall[unary.GetTaskStatusRequest, bytes]
Statuses = grpc.aio.UnaryStreamMultiCallable[unary.GetTaskStatusRequest, bytes]
"""Opens the stream of a task; what comes on it are messages as they are, so that large ones are known for such before
they are read."""


class UnaryAttempt:
    """See the module.

    Args:
        worker: where it runs.
        statuses: its StreamTaskStatus.
        ref: the attempt.
        contents: checks results, and stores large ones.
        began: called once, when the worker says that it runs.
        lives: called whenever it says that again, four times a second at most.
    """

    def __init__(
        self,
        worker: WorkerServiceAsyncStub,
        statuses: Statuses,
        ref: AttemptRef,
        contents: Contents,
        began: Callable[[], object],
        lives: Callable[[], object],
    ) -> None:
        self._worker = worker
        self._statuses = statuses
        self.ref = ref
        self.away = False
        """The worker was not to be reached: found by this process, whatever the worker says of others."""
        self._contents = contents
        self._began: Callable[[], object] | None = began
        self._lives = lives
        self._lived_s = 0.0
        self._since_ns = time.monotonic_ns()
        self._heard = False
        """Something has come on a stream since this was set to False."""
        self._report: Report | None = None
        """What the task has come to, as whichever stream said first."""
        self._stream: _Stream
        """The one that stays open."""
        self._looking: asyncio.Task[None] | None = None
        self._ask = unary.GetTaskStatusRequest(task_id=wire_id(ref))

    async def execute(self, task: unary.Task) -> Report | None:
        """Have the worker begin. The report, if it comes to nothing; None: the worker has taken the task."""
        try:
            with calling(CANCELED):
                answer = await self._worker.ExecuteTask(unary.ExecuteTaskRequest(task=task), timeout=EXECUTE_S)
        except ConnectionError as error:
            return self._failed("failed", f"ExecuteTask ended with {error}")
        except grpc.aio.AioRpcError as error:
            code = error.code()
            if code in _AWAY:
                self.away = True
                return self._failed(UNREACHABLE, f"the worker did not say whether it takes the task: {brief(error)}")
            if code in _MAY_HAVE_BEGUN:
                return self._failed("failed", f"ExecuteTask ended with {brief(error)}")
            return self._failed("refused", brief(error), ReportStatus.REFUSED)
        if not answer.accepted:
            return self._failed("refused", answer.message or "the worker gave no reason", ReportStatus.REFUSED)
        self._since_ns = time.monotonic_ns()
        return None

    async def watch(self) -> Report:
        """Follow the task to its end, however long that takes. Canceling this closes its streams."""
        # Most tasks are over before anybody has to look: until then that is a timer, and no more.
        timer = asyncio.get_running_loop().call_later(LOOK_AFTER_S[0], self._begin_to_look)
        try:
            return await self._watch()
        finally:
            timer.cancel()
            if self._looking is not None:
                self._looking.cancel()
                await asyncio.wait((self._looking,))

    async def _watch(self) -> Report:
        pause_s = REOPEN_S[0]
        away_since_s, errors = 0.0, 0
        while True:
            error = await self._follow_anew()
            if self._report is not None:
                return self._report
            if self._heard:
                self._heard, errors, away_since_s = False, 0, 0.0
            if error is None:
                pause_s = min(REOPEN_S[1], pause_s * 2)
            elif isinstance(error, grpc.aio.AioRpcError) and error.code() in _AWAY:
                away_since_s = away_since_s or time.monotonic()
                if time.monotonic() - away_since_s > AWAY_S:
                    self.away = True
                    return self._failed(UNREACHABLE, f"the worker is away: {brief(error)}")
            else:
                errors += 1
                if (report := self._given_up(error, errors)) is not None:
                    return report
            await asyncio.sleep(pause_s)

    def _given_up(self, error: Exception, errors: int) -> Report | None:
        """What the attempt comes to if opening another stream after such an error makes no sense."""
        code = error.code() if isinstance(error, grpc.aio.AioRpcError) else None
        if code is grpc.StatusCode.UNIMPLEMENTED:
            return self._failed("contract", f"the worker has no StreamTaskStatus: {brief(error)}")
        # Once it may be a worker that was asked before it had written down what it has just accepted.
        if code is grpc.StatusCode.NOT_FOUND and errors > 1:
            return self._failed(LOST, "the worker does not know the task any more")
        if errors >= ERRORS_MAX:
            return self._failed("failed", f"the task's stream broke {errors} times: {brief(error)}")
        return None

    def _begin_to_look(self) -> None:
        self._looking = asyncio.create_task(self._look())

    async def _look(self) -> None:
        """See now and then on another stream whether the task has ended. Nothing else that happens to that stream means
        anything, since there is the first one."""
        after_s, most_s = LOOK_AFTER_S
        while True:
            with contextlib.suppress(grpc.aio.AioRpcError, ConnectionError, DecodeError):
                await self._follow(self._statuses(self._ask, timeout=LOOK_S))
            if self._report is not None:
                self._stream.cancel()  # of the first one: who follows it sees that there is a report
                return
            after_s = min(most_s, after_s * 1.5)
            await asyncio.sleep(after_s)

    async def _follow_anew(self) -> Exception | None:
        """Open the stream that stays open, and follow it; how it broke, if it did not end."""
        self._stream = self._statuses(self._ask)
        try:
            await self._follow(self._stream)
        except (grpc.aio.AioRpcError, ConnectionError) as error:
            return error
        return None

    async def _follow(self, stream: _Stream) -> None:
        """Read one stream until it ends, or the task. Raises ``AioRpcError`` and ``ConnectionError``."""
        messages = 0
        try:
            with calling(CANCELED):
                while self._report is None and isinstance(message := await stream.read(), bytes):
                    await self._hear(await self._contents.result(message))
                    messages += 1
                    pauses = (messages > _FREELY) + len(message) // PAYLOAD_INLINE_BYTES_MAX
                    if pauses and self._report is None:
                        await asyncio.sleep(_PAUSE_S * pauses)
        finally:
            stream.cancel()

    async def _hear(self, result: unary.TaskResult) -> None:
        self._heard = True
        # Of another task, or of none: nonsense that says nothing about this one.
        if result.task_id and result.task_id != self._ask.task_id:
            return
        if result.status in FINAL:
            report = await self._report_of(result)
            self._report = self._report or report
            return
        if result.status != unary.TASK_STATUS_RUNNING:
            return
        if self._began is not None:
            began, self._began = self._began, None
            began()
        elif time.monotonic() - self._lived_s > LIVES_S:
            self._lived_s = time.monotonic()
            self._lives()

    async def _report_of(self, result: unary.TaskResult) -> Report:
        """What a final status comes to."""
        if result.status == unary.TASK_STATUS_COMPLETED:
            data = result.output_json.encode() or b"null"
            try:
                await self._contents.check(data)
                blob = await self._contents.put(data) if len(data) > PAYLOAD_INLINE_BYTES_MAX else ""
            except BadJson as error:
                return self._failed("invalid_output", f"output_json {error}")
            except OSError as error:
                return self._failed("blob", f"the result could not be stored: {error}")
            return Report(
                self.ref.task,
                self.ref.number,
                ReportStatus.COMPLETED,
                b"" if blob else data,
                blob,
                wall_ns=time.monotonic_ns() - self._since_ns,
            )
        said = await self._error_in(result.output_json)
        message = result.error_message or said or "the worker gave no reason"
        canceled = result.status == unary.TASK_STATUS_CANCELED
        return self._failed(
            result.metadata.get(KIND_KEY, "")[:NAME_LENGTH_MAX] or ("canceled" if canceled else "failed"),
            message,
            ReportStatus.CANCELED if canceled else ReportStatus.FAILED,
            detail=said if said != message else "",
            permanent=result.metadata.get(PERMANENT_KEY) == "true",
        )

    async def _error_in(self, output_json: str) -> str:
        """What many workers say of a failure there: ``{"error": …}``."""
        try:
            value = await self._contents.check(output_json.encode()) if output_json else None
        except BadJson:
            return ""
        said = value.get("error") if isinstance(value, dict) else None
        if said is None or isinstance(said, str):
            return said or ""
        return msgspec.json.encode(said).decode()

    def _failed(
        self,
        kind: str,
        message: str,
        status: ReportStatus = ReportStatus.FAILED,
        *,
        detail: str = "",
        permanent: bool = False,
    ) -> Report:
        failure = Failure(
            kind, message[:FAILURE_MESSAGE_LENGTH_MAX], detail[:FAILURE_DETAIL_LENGTH_MAX], permanent=permanent
        )
        wall_ns = time.monotonic_ns() - self._since_ns
        return Report(self.ref.task, self.ref.number, status, failure=failure, wall_ns=wall_ns)


def wire_id(ref: AttemptRef) -> str:
    """The task id of an attempt on the wire: to the worker each attempt is a task of its own."""
    return f"{ref.task}.{ref.number}"


def brief(error: BaseException) -> str:
    """An error of a call in one line."""
    if isinstance(error, grpc.aio.AioRpcError):
        return f"{error.code().name}: {error.details()}"
    return str(error) or type(error).__name__
