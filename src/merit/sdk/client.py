"""The client for programs that run an event loop. ``merit.sdk.sync_client`` has the same for all others.

One stream carries everything: submits are gathered into frames by themselves, and a submit returns when the task is
durable. When the stream breaks, or the control plane is started anew, the client opens another one and goes on: nothing
is lost and nothing is run twice, since the ids of tasks are made here.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import AsyncGenerator, AsyncIterator, Iterable, Mapping, Sequence
from typing import Any, Final, Unpack
from uuid import uuid4

import grpc

from merit.model.limits import NAME_LENGTH_MAX, PAYLOAD_BYTES_MAX, PAYLOAD_INLINE_BYTES_MAX, SECOND_NS
from merit.model.tasks import Refusal, TaskSpec
from merit.model.tenancy import DEFAULT_TENANT
from merit.sdk.asking import Asker
from merit.sdk.channel import (
    Backoff,
    Servers,
    for_tenant,
    get_blob,
    put_blob,
    server_or_default,
)
from merit.sdk.conversation import Conversation
from merit.sdk.handles import Completions, TaskHandle
from merit.sdk.operations import Operations, Where
from merit.sdk.options import USUAL, MapArguments, OptionArguments, Options, Prepared, TaskRequest, check_text
from merit.sdk.results import MeritError, Refused, Result, Unreachable
from merit.sdk.specs import SpecMaker, atomic_parts, encode_parameters
from merit.sdk.views import Page
from merit.session.client_end import ClientEnd
from merit.session.link import ProtocolViolation
from merit.wire.frames import decode_server_frame, encode_client_frame
from merit.wire.v1 import tasks_pb2, tasks_pb2_grpc

MAP_WINDOW: Final = 10_000
"""Tasks that ``map`` keeps in flight."""


class AsyncClient:
    """Submits tasks to a control plane and tells what became of them.

    Use it as ``async with AsyncClient() as merit: …``. It belongs to the loop in which it was entered.

    Args:
        server: ``HOST:PORT`` of the control plane, or of all its nodes with commas between them; by default what
            MERIT_SERVER says, or 127.0.0.1:50051.
        connect_timeout_s: how long to try at first. Later on a lost control plane is tried again for ever, so that no
            task is lost; only a question (``task``, ``tasks``, ``workers``, ``status``, ``cancel``, ``operations``) gives
            up after this time.
        tenant: whose tasks they are; printable ASCII of at most 200 characters.
    """

    def __init__(
        self, server: str | None = None, *, connect_timeout_s: float = 10.0, tenant: str = DEFAULT_TENANT
    ) -> None:
        if not (tenant.isascii() and tenant.isprintable()) or not 0 < len(tenant.strip()) <= NAME_LENGTH_MAX:
            raise ValueError(f"tenant: {tenant!r} is not printable ASCII of 1 to {NAME_LENGTH_MAX} characters")
        self.server = server_or_default(server)
        self._servers = Servers(self.server)
        self.tenant = tenant
        self._connect_timeout_s = connect_timeout_s
        self._end = ClientEnd(uuid4().hex)
        self._handles: dict[str, TaskHandle] = {}
        self._specs: dict[str, list[TaskSpec]] = {}
        """By task that is not yet accepted: what was submitted with it, as a whole."""
        self._welcomed = asyncio.Event()
        self._conversation: Conversation | None = None
        self._channel: grpc.aio.Channel | None = None
        self._asker = Asker(self.server, connect_timeout_s, self._check)
        self._operations = Operations(self._asker, tenant)
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
        **options: Unpack[OptionArguments],
    ) -> TaskHandle:
        """Submit one task; it is durable when this returns. ``Options`` says what may be asked for.

        Raises:
            Refused: with the field and the reason.
            ValueError: the parameters are no JSON, or an option has no value that can be sent.
        """
        prepared = Prepared.of(Options(**options)) if options else USUAL
        handle = self.start([await self._spec(capability, parameters or {}, prepared)])[0]
        await handle.accepted()
        return handle

    async def submit_many(self, requests: Sequence[TaskRequest]) -> list[TaskHandle]:
        """Submit tasks: each part of up to 1,000 is taken as a whole or not at all; all are durable on return.

        Raises:
            Refused: a part was refused. Parts before it have been taken: they can be found by their handles only if
                one part is submitted at a time.
            ValueError: the parameters of one are no JSON; nothing has been submitted.
        """
        specs = [await self._spec(item.capability, item.parameters, Prepared.of(item)) for item in requests]
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
        **options: Unpack[MapArguments],
    ) -> AsyncIterator[Result]:
        """Run a capability on each input, ``window`` of them in flight; results in the order of the inputs, or with
        ``ordered=False`` as they come. ``Options`` says what may be asked for.

        A task that fails yields a result that is not ``ok``.

        Raises:
            Refused: an input was refused. Tasks that were taken before go on.
        """
        pairs = ((capability, parameters) for parameters in inputs)
        async for batch in self.batches(pairs, window=window, options=Options(**options), ordered=ordered):
            for handle in batch:
                yield await handle.wait()

    async def batches(
        self,
        calls: Iterable[tuple[str, Mapping[str, Any]]],
        *,
        window: int = MAP_WINDOW,
        options: Options | None = None,
        ordered: bool = False,
    ) -> AsyncIterator[list[TaskHandle]]:
        """The machinery of ``map``: handles that are done, in batches as they come; ``tag`` is the place of the call.

        Args:
            calls: capability and parameters of each.
            window: how many are in flight, or done and held back for the order.
            options: of each.
            ordered: keep the order of the calls.
        """
        prepared = USUAL if options is None else Prepared.of(options)
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
                    spec = await self._spec(capability, parameters, prepared)
                else:
                    spec = self._specs_of.make(capability, data, prepared)
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

    async def _spec(self, capability: str, parameters: Mapping[str, Any], prepared: Prepared) -> TaskSpec:
        data = encode_parameters(parameters)
        if len(data) <= PAYLOAD_INLINE_BYTES_MAX:
            return self._specs_of.make(capability, data, prepared)
        if len(data) > PAYLOAD_BYTES_MAX:
            raise ValueError(f"parameters: {len(data):,} bytes; {PAYLOAD_BYTES_MAX:,} at most: split the task")
        blob = await self._asker.ask(lambda channel: put_blob(channel, data))
        return self._specs_of.make(capability, b"", prepared, blob)

    # Waiting for many

    async def wait(self, handles: Iterable[TaskHandle], timeout_s: float | None = None) -> list[Result]:
        """How these tasks ended, in their order, once all have. A task that failed is no error: its result is not ``ok``.

        Raises:
            TimeoutError: some have not ended within ``timeout_s``; they go on.
            Refused: one was never taken.
            MeritError: the client was closed.
        """
        wanted = list(handles)
        async for _ in self.as_completed(wanted, timeout_s):
            pass
        return [await handle.wait() for handle in wanted]

    async def as_completed(
        self, handles: Iterable[TaskHandle], timeout_s: float | None = None
    ) -> AsyncGenerator[TaskHandle, None]:
        """These tasks in the order in which they end: those handles of which the outcome is known. Raises as ``wait``."""
        wanted = list(dict.fromkeys(handles))
        until_s = None if timeout_s is None else self._loop.time() + timeout_s
        sink = Completions()
        left = len(wanted)
        try:
            for handle in wanted:
                handle.listen(sink)
            while left:
                try:
                    async with asyncio.timeout_at(until_s):
                        done = await sink.take()
                except TimeoutError:
                    raise TimeoutError(
                        f"{left:,} of {len(wanted):,} tasks have not ended within {timeout_s:g} s; they go on"
                    ) from None
                left -= len(done)
                for handle in done:
                    yield handle
        finally:
            for handle in wanted:
                handle.unlisten(sink)

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

    @property
    def operations(self) -> Operations:
        """What operators see and set: queues, limits, tenants, dead letters, schedules."""
        return self._operations

    async def cancel(self, ids: Sequence[str], reason: str = "") -> list[Refusal]:
        """Call tasks off; durable on return. What could not be, with the reason (one that is final already, say).

        ``operations.cancel`` does it for all that fit a filter.
        """
        return await self._operations.cancel_each(ids, reason)

    async def task(self, task_id: str) -> dict[str, Any]:
        """Everything about one task, as JSON has it. Raises ``Refused`` when there is none."""
        return await self._operations.task(task_id)

    async def tasks(
        self,
        *,
        state: str = "",
        capability: str = "",
        limit: int = 100,
        cursor: str = "",
        where: Where | None = None,
        at_least: int = 0,
    ) -> Page:
        """Tasks, newest first, a page at a time. ``state`` and ``capability`` are short for those of ``where``; the rest is as
        ``Operations.tasks`` has it."""
        chosen = (where or Where()).narrowed(state, capability)
        return await self._operations.tasks(chosen, limit=limit, cursor=cursor, at_least=at_least)

    async def workers(self) -> list[dict[str, Any]]:
        """The workers that the control plane knows."""
        return await self._operations.workers()

    async def status(self) -> dict[str, Any]:
        """The control plane in a few numbers."""
        return await self._operations.status()

    def _check(self) -> None:
        if self._failure is not None:
            raise self._failure
        if self._running is None:
            raise MeritError("the client is not connected yet: use it as `with Client() as merit:` (or `async with`)")

    # For the handles

    def unaccepted(self, handle: TaskHandle) -> bool:
        """Whether it is not known yet if the task was taken."""
        return handle.id in self._specs

    def request_follow(self, task_id: str) -> None:
        """Ask for every step of a task, without waiting."""
        self._end.follow(task_id)
        self._wake()

    def unfollow(self, task_id: str) -> None:
        """Nobody here follows the task any more."""
        self._end.unfollow(task_id)

    async def content(self, blob: str) -> bytes:
        """A content from the blob store; while the control plane is away it is asked for again and again."""
        return await self._asker.ask_for_ever(lambda channel: get_blob(channel, blob))

    # The stream

    async def _sessions(self) -> None:
        backoff = self._backoff
        while self._failure is None:
            try:
                async with self._servers.open() as raw:
                    self._channel = channel = for_tenant(raw, self.tenant)
                    call = tasks_pb2_grpc.TasksStub(channel).Session()
                    self._conversation = Conversation(call, self._take, self._servers.welcome_s)
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
                self._conversation = self._channel = self._asker.channel = None
            if self._servers.next():
                await asyncio.sleep(self._servers.soon(backoff.next_s()))

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
            self._servers.worked()
            # Not before: whoever takes a connection need not answer on it.
            self._asker.channel = self._channel
            if self._conversation is not None:
                self._conversation.welcomed()
        handles, specs = self._handles, self._specs
        self._refuse(news.refusals)
        for task_id in news.accepted:
            if specs.pop(task_id, None) is not None and (handle := handles.get(task_id)) is not None:
                handle.accept()
        for task_id, existing in news.known:
            self._known(task_id, existing)
        for update in news.updates:
            if (handle := handles.get(update.task)) is not None:
                handle.update(update)
        for outcome in news.outcomes:
            if (handle := handles.pop(outcome.task, None)) is not None:
                specs.pop(outcome.task, None)
                handle.settle(outcome)
        self._pump()

    def _known(self, task_id: str, existing: str) -> None:
        """What was submitted is another task; it may have a handle here already, which is told first then."""
        self._specs.pop(task_id, None)
        handle = self._handles.pop(task_id, None)
        if handle is None:
            return
        handle.id = existing
        other = self._handles.setdefault(existing, handle)
        if other is not handle:
            other.listen(handle)
        handle.accept()

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
