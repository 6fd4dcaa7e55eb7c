"""The client for programs that run an event loop. ``merit.sdk.sync_client`` has the same for all others.

One stream carries everything: submits are gathered into frames by themselves, and a submit returns when the task is
durable. When the stream breaks, or the control plane is started anew, the client opens another one and goes on: nothing
is lost and nothing is run twice, since the ids of tasks are made here.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Final, TypeVar
from uuid import uuid4

import grpc

from merit.model.limits import (
    ATTEMPTS_DEFAULT,
    PAYLOAD_BYTES_MAX,
    PAYLOAD_INLINE_BYTES_MAX,
    RUN_TIMEOUT_NS_DEFAULT,
    SECOND_NS,
)
from merit.model.tasks import Priority, Refusal, TaskSpec
from merit.sdk.channel import Backoff, calling, get_blob, open_channel, put_blob, server_or_default
from merit.sdk.conversation import Conversation
from merit.sdk.handles import Completions, TaskHandle, TaskRequest
from merit.sdk.results import MeritError, Refused, Result, Unreachable
from merit.sdk.specs import SpecMaker, atomic_parts, check_text, encode_parameters
from merit.sdk.views import Page, status_view, task_view, worker_view
from merit.session.client_end import ClientEnd
from merit.session.link import ProtocolViolation
from merit.wire.frames import decode_refusal, decode_server_frame, encode_client_frame
from merit.wire.v1 import tasks_pb2, tasks_pb2_grpc

T = TypeVar("T")

MAP_WINDOW: Final = 10_000
"""Tasks that ``map`` keeps in flight."""


class AsyncClient:
    """Submits tasks to a control plane and tells what became of them.

    Use it as ``async with AsyncClient() as merit: …``. It belongs to the loop in which it was entered.

    Args:
        server: ``HOST:PORT`` of the control plane; by default what MERIT_SERVER says, or 127.0.0.1:50051.
        connect_timeout_s: how long to try at first. Later on a lost control plane is tried again for ever, so that no
            task is lost; only a question (``task``, ``tasks``, ``workers``, ``status``, ``cancel``) gives up after this
            time.
    """

    def __init__(self, server: str | None = None, *, connect_timeout_s: float = 10.0) -> None:
        self.server = server_or_default(server)
        self._connect_timeout_s = connect_timeout_s
        self._end = ClientEnd(uuid4().hex)
        self._handles: dict[str, TaskHandle] = {}
        self._specs: dict[str, list[TaskSpec]] = {}
        """By task that is not yet accepted: what was submitted with it, as a whole."""
        self._welcomed = asyncio.Event()
        self._conversation: Conversation | None = None
        self._channel: grpc.aio.Channel | None = None
        self._running: asyncio.Task[None] | None = None
        self._failure: MeritError | None = None
        self._backoff = Backoff()
        self._pump_due = False
        self._specs_of = SpecMaker()
        self._loop: asyncio.AbstractEventLoop

    async def __aenter__(self) -> AsyncClient:
        self._loop = asyncio.get_running_loop()
        self._running = self._loop.create_task(self._sessions())
        try:
            await asyncio.wait_for(self._welcomed.wait(), self._connect_timeout_s)
        except BaseException as error:
            await self.aclose()  # also when somebody else's patience is at an end: nobody will call __aexit__
            if not isinstance(error, TimeoutError):
                raise
            raise Unreachable(
                f"no control plane answers at {self.server} within {self._connect_timeout_s:g} s; "
                "start one with: merit up"
            ) from None
        if self._failure is not None:
            await self.aclose()
            raise self._failure
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """End the stream. Submitted tasks go on; whoever still waits here gets an error."""
        if self._running is not None:
            self._running.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._running
        self._fail(MeritError("the client was closed"))

    # Submitting

    async def submit(
        self,
        capability: str,
        parameters: Mapping[str, Any] | None = None,
        *,
        priority: Priority | str = Priority.MEDIUM,
        run_timeout_s: float = RUN_TIMEOUT_NS_DEFAULT / SECOND_NS,
        attempts_max: int = ATTEMPTS_DEFAULT,
        after: Iterable[str | TaskHandle] = (),
        description: str = "",
    ) -> TaskHandle:
        """Submit one task; it is durable when this returns.

        Raises:
            Refused: with the field and the reason.
            ValueError: the parameters are no JSON.
        """
        spec = await self._spec(capability, parameters or {}, priority, run_timeout_s, attempts_max, after, description)
        handle = self.start([spec])[0]
        await handle.accepted()
        return handle

    async def submit_many(self, requests: Sequence[TaskRequest]) -> list[TaskHandle]:
        """Submit tasks: each part of up to 1,000 is taken as a whole or not at all; all are durable on return.

        Raises:
            Refused: a part was refused. Parts before it have been taken: they can be found by their handles only if
                one part is submitted at a time.
            ValueError: the parameters of one are no JSON; nothing has been submitted.
        """
        specs = [
            await self._spec(
                request.capability,
                request.parameters,
                request.priority,
                request.run_timeout_s,
                request.attempts_max,
                request.after,
                request.description,
            )
            for request in requests
        ]
        handles: list[TaskHandle] = []
        for part in atomic_parts(specs):
            taken = self.start(part)
            for handle in taken:
                await handle.accepted()
            handles += taken
        return handles

    def start(
        self, specs: list[TaskSpec], sink: Completions | None = None, tags: Sequence[Any] | None = None
    ) -> list[TaskHandle]:
        """Hand specs to the stream as one unit, without waiting: the handles tell when they are durable."""
        self._check()
        handles = [TaskHandle(self, spec.id, sink, tags[place] if tags else None) for place, spec in enumerate(specs)]
        known, pending = self._handles, self._specs
        for spec, handle in zip(specs, handles, strict=True):
            known[spec.id] = handle
            pending[spec.id] = specs
        self._end.submit(specs)
        self._wake()
        return handles

    async def map(
        self,
        capability: str,
        inputs: Iterable[Mapping[str, Any]],
        *,
        ordered: bool = True,
        window: int = MAP_WINDOW,
        priority: Priority | str = Priority.MEDIUM,
        run_timeout_s: float = RUN_TIMEOUT_NS_DEFAULT / SECOND_NS,
        attempts_max: int = ATTEMPTS_DEFAULT,
    ) -> AsyncIterator[Result]:
        """Run a capability on each input, ``window`` of them in flight; results in the order of the inputs, or with
        ``ordered=False`` as they come.

        A task that fails yields a result that is not ``ok``.

        Raises:
            Refused: an input was refused. Tasks that were taken before go on.
        """
        options = (priority, run_timeout_s, attempts_max)
        pairs = ((capability, parameters) for parameters in inputs)
        async for batch in self.batches(pairs, window=window, options=options, ordered=ordered):
            for handle in batch:
                yield await handle.wait()

    async def batches(
        self,
        calls: Iterable[tuple[str, Mapping[str, Any]]],
        *,
        window: int = MAP_WINDOW,
        options: tuple[Priority | str, float, int] = (
            Priority.MEDIUM,
            RUN_TIMEOUT_NS_DEFAULT / SECOND_NS,
            ATTEMPTS_DEFAULT,
        ),
        ordered: bool = False,
    ) -> AsyncIterator[list[TaskHandle]]:
        """The machinery of ``map``: handles that are done, in batches as they come; ``tag`` is the place of the call.

        Args:
            calls: capability and parameters of each.
            window: how many are in flight, or done and held back for the order.
            options: priority, run time-out in seconds, attempts.
            ordered: keep the order of the calls.
        """
        sink = Completions()
        source = enumerate(calls)
        in_flight, exhausted = 0, False
        held: dict[int, TaskHandle] = {}
        expected = 0
        while True:
            while not exhausted and in_flight + len(held) < window:
                entry = next(source, None)
                if entry is None:
                    exhausted = True
                    break
                place, (capability, parameters) = entry
                data = encode_parameters(parameters)
                if len(data) > PAYLOAD_INLINE_BYTES_MAX:
                    spec = await self._spec(capability, parameters, *options, (), "")
                else:
                    spec = self._specs_of.make(capability, data, *options, (), "")
                self.start([spec], sink, [place])
                in_flight += 1
                if not in_flight % 1_000:
                    await asyncio.sleep(0)  # let the stream carry what there is while more is made
            if not in_flight:
                return
            done = await sink.take()
            in_flight -= len(done)
            if ordered:
                held.update((handle.tag, handle) for handle in done)
                done = []
                while expected in held:
                    done.append(held.pop(expected))
                    expected += 1
            if done:
                yield done

    async def _spec(
        self,
        capability: str,
        parameters: Mapping[str, Any],
        priority: Priority | str,
        run_timeout_s: float,
        attempts_max: int,
        after: Iterable[str | TaskHandle],
        description: str,
    ) -> TaskSpec:
        data = encode_parameters(parameters)
        if len(data) <= PAYLOAD_INLINE_BYTES_MAX:
            return self._specs_of.make(capability, data, priority, run_timeout_s, attempts_max, after, description)
        if len(data) > PAYLOAD_BYTES_MAX:
            raise ValueError(f"parameters: {len(data):,} bytes; {PAYLOAD_BYTES_MAX:,} at most: split the task")
        blob = await self._ask(lambda channel: put_blob(channel, data))
        return self._specs_of.make(capability, b"", priority, run_timeout_s, attempts_max, after, description, blob)

    # Asking

    def watch(self, task_id: str) -> TaskHandle:
        """A handle for a task that was submitted before, by anybody."""
        check_text("id", task_id)
        handle = self._handles.get(task_id)
        if handle is None:
            handle = self._handles[task_id] = TaskHandle(self, task_id)
            self._end.watch(task_id)
            self._wake()
        return handle

    def request_cancel(self, task_id: str) -> None:
        """Ask for a task to be called off, without waiting."""
        check_text("id", task_id)
        self._end.cancel(task_id)
        self._wake()

    async def cancel(self, ids: Sequence[str], reason: str = "") -> list[Refusal]:
        """Call tasks off; durable on return. What could not be, with the reason (one that is final already, say)."""
        request = tasks_pb2.CancelTasksRequest(ids=ids, reason=reason)
        answer = await self._ask(lambda channel: tasks_pb2_grpc.TasksStub(channel).CancelTasks(request))
        return [decode_refusal(refusal) for refusal in answer.refusals]

    async def task(self, task_id: str) -> dict[str, Any]:
        """Everything about one task, as JSON has it. Raises ``Refused`` when there is none."""
        request = tasks_pb2.GetTaskRequest(id=task_id)
        message = await self._ask(lambda channel: tasks_pb2_grpc.TasksStub(channel).GetTask(request))
        view = task_view(message)
        for field, blob in (("parameters", message.parameters_blob), ("result", message.result_blob)):
            if blob:
                view[field] = {"blob": blob}
        return view

    async def tasks(self, *, state: str = "", capability: str = "", limit: int = 100, cursor: str = "") -> Page:
        """Tasks, newest first, a page at a time."""
        number = tasks_pb2.TaskState.Value(f"TASK_STATE_{state.upper()}") if state else 0
        request = tasks_pb2.ListTasksRequest(
            state=number,  # type: ignore[arg-type]  # the name was looked up just now
            capability=capability,
            limit=limit,
            cursor=cursor,
        )
        answer = await self._ask(lambda channel: tasks_pb2_grpc.TasksStub(channel).ListTasks(request))
        return Page([task_view(message) for message in answer.tasks], answer.next_cursor)

    async def workers(self) -> list[dict[str, Any]]:
        """The workers that the control plane knows."""
        request = tasks_pb2.ListWorkersRequest()
        answer = await self._ask(lambda channel: tasks_pb2_grpc.TasksStub(channel).ListWorkers(request))
        return [worker_view(message) for message in answer.workers]

    async def status(self) -> dict[str, Any]:
        """The control plane in a few numbers."""
        request = tasks_pb2.GetStatusRequest()
        return status_view(await self._ask(lambda channel: tasks_pb2_grpc.TasksStub(channel).GetStatus(request)))

    async def _ask(self, call: Callable[[grpc.aio.Channel], Awaitable[T]], patience_s: float | None = None) -> T:
        """Make a call that may be made twice; while the control plane is away it is made again.

        Args:
            call: with the channel that there is at the time.
            patience_s: how long, by default as long as for the first connection.

        Raises:
            Unreachable: it was away all the time.
            Refused: what was asked for does not exist, or cannot be.
            MeritError: it cannot answer this, or the client was closed.
        """
        self._check()
        until_s = self._loop.time() + (self._connect_timeout_s if patience_s is None else patience_s)
        backoff = Backoff()
        while True:
            try:
                with _asking(self.server):
                    if self._channel is None:
                        raise ConnectionError("it is not back yet")
                    return await call(self._channel)
            except Unreachable:
                wait_s = backoff.next_s()
                if self._loop.time() + wait_s >= until_s:
                    raise
                await asyncio.sleep(wait_s)
                self._check()

    def _check(self) -> None:
        if self._failure is not None:
            raise self._failure
        if self._running is None:
            raise MeritError("the client is not connected yet: use it as `with Client() as merit:` (or `async with`)")

    # For the handles

    def unaccepted(self, handle: TaskHandle) -> bool:
        """Whether it is not known yet if the task was taken."""
        return handle.id in self._specs

    async def content(self, blob: str) -> bytes:
        """A content from the blob store; while the control plane is away it is asked for again and again."""
        return await self._ask(lambda channel: get_blob(channel, blob), patience_s=math.inf)

    # The stream

    async def _sessions(self) -> None:
        backoff = self._backoff
        while self._failure is None:
            try:
                async with open_channel(self.server) as channel:
                    self._channel = channel
                    self._conversation = Conversation(tasks_pb2_grpc.TasksStub(channel).Session(), self._take)
                    self._end.connect()
                    self._pump()
                    await self._conversation.run()
            except (grpc.aio.AioRpcError, ConnectionError, ProtocolViolation, asyncio.InvalidStateError):
                pass  # said by whatever waits for too long; the next try may work
            except Exception as error:  # noqa: BLE001  (whatever it is: nobody may wait for ever for what cannot come)
                self._fail(MeritError(f"the client cannot go on: {type(error).__name__}: {error}"))
                self._welcomed.set()
            finally:
                self._end.disconnected()
                self._conversation = self._channel = None
            await asyncio.sleep(backoff.next_s())

    def _take(self, message: tasks_pb2.ServerFrame) -> None:
        frame = decode_server_frame(message)
        if frame.refused:
            if frame.permanent:
                self._fail(Refused(Refusal("", "invalid", "stream", frame.refused)))
                self._welcomed.set()
            return
        news = self._end.take(frame)
        if frame.welcome is not None:
            self._welcomed.set()
            self._backoff.reset()
        handles, specs = self._handles, self._specs
        self._refuse(news.refusals)
        for task_id in news.accepted:
            if specs.pop(task_id, None) is not None and (handle := handles.get(task_id)) is not None:
                handle.accept()
        for outcome in news.outcomes:
            if (handle := handles.pop(outcome.task, None)) is not None:
                specs.pop(outcome.task, None)
                handle.settle(outcome)
        self._pump()

    def _refuse(self, refusals: Sequence[Refusal]) -> None:
        crowded: dict[int, list[TaskSpec]] = {}
        for refusal in refusals:
            submit = self._specs.get(refusal.task)
            if submit is not None and refusal.code == "exhausted":
                # Back-pressure: the same again, a little later, and not all at once.
                if id(submit) not in crowded:
                    crowded[id(submit)] = submit
                    wait_s = refusal.retry_after_ns / SECOND_NS * random.uniform(1.0, 2.0)
                    self._loop.call_later(wait_s, self._again, submit)
                continue
            self._specs.pop(refusal.task, None)
            handle = self._handles.pop(refusal.task, None)
            if handle is not None:
                handle.refuse(refusal)

    def _again(self, submit: list[TaskSpec]) -> None:
        wanted = [spec for spec in submit if spec.id in self._specs]  # the others have been called off since
        if wanted and self._failure is None:
            self._end.submit(wanted)
            self._wake()

    def _fail(self, error: MeritError) -> None:
        if self._failure is None:
            self._failure = error
        for handle in self._handles.values():
            handle.fail(self._failure)
        self._handles.clear()  # but not the specs: whether those tasks were taken is not known, and never will be

    def _wake(self) -> None:
        if not self._pump_due:
            self._pump_due = True
            self._loop.call_soon(self._pump)

    def _pump(self) -> None:
        self._pump_due = False
        conversation = self._conversation
        if conversation is not None:
            while (frame := self._end.frame()) is not None:
                conversation.send(encode_client_frame(frame))


@contextlib.contextmanager
def _asking(server: str) -> Iterator[None]:
    """Around a call: what goes wrong is raised as ``Refused`` or ``Unreachable``."""
    try:
        with calling():
            yield
    except grpc.aio.AioRpcError as error:
        raise _translated(error, server) from error
    except ConnectionError as error:
        raise Unreachable(f"the control plane at {server} went away: {error}; try again") from error


def _translated(error: grpc.aio.AioRpcError, server: str) -> MeritError:
    if error.code() in (grpc.StatusCode.NOT_FOUND, grpc.StatusCode.INVALID_ARGUMENT):
        field, _, reason = (error.details() or "").partition(": ")
        return Refused(Refusal("", error.code().name.lower(), field, reason))
    if error.code() is grpc.StatusCode.DATA_LOSS:
        return MeritError(error.details() or "a stored content is damaged")  # asking again cannot help
    return Unreachable(f"the control plane at {server} did not answer: {error.code().name}: {error.details()}")
