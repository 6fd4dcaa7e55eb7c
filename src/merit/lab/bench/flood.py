"""A client that does as little as a client can: it holds a million tasks and is not what is measured."""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections.abc import Callable
from typing import Any, Final

from merit.lab.bench.fleet import FleetFailed, until
from merit.lab.bench.plan import Plan
from merit.model.frames import Settled
from merit.model.ids import make_id
from merit.model.limits import SUBMIT_TASKS_MAX
from merit.model.tasks import TaskSpec, TaskState
from merit.model.tenancy import DEFAULT_TENANT
from merit.sdk.channel import for_tenant, open_channel
from merit.sdk.conversation import Conversation
from merit.session.client_end import ClientEnd
from merit.wire.frames import decode_server_frame, encode_client_frame
from merit.wire.v1 import tasks_pb2_grpc

PREFETCHED: Final = 1_100
"""What one worker takes in advance of tasks as short as no-ops: those do not wait any more."""
_ID_BYTES = 10


def noop(task_id: str, _: int) -> TaskSpec:
    """The usual task of a flood."""
    return TaskSpec(task_id, "bench.noop", b'{"x":1}')


class Flood:
    """Use it as ``async with Flood(server) as flood``; the session's own rules over a stream, without handles.

    With ``refill`` a new task is submitted for each that is completed, so that their number stays.

    Args:
        server: ``HOST:PORT`` of the control plane.
        spec_of: makes a task of its id and its number, from 0.
        tenant: whose tasks they are.
        heard: told each outcome.
    """

    def __init__(
        self,
        server: str,
        spec_of: Callable[[str, int], TaskSpec] = noop,
        *,
        tenant: str = DEFAULT_TENANT,
        heard: Callable[[Settled], None] | None = None,
    ) -> None:
        self.submitted = 0
        self.accepted = 0
        self.completed = 0
        self.refill = False
        self._spec_of = spec_of
        self._heard = heard
        self._channel = open_channel(server)
        self._end = ClientEnd(f"bench-flood-{os.urandom(_ID_BYTES).hex()}")
        stub = tasks_pb2_grpc.TasksStub(for_tenant(self._channel, tenant))
        self._conversation = Conversation(stub.Session(), self._take)
        self._reading: asyncio.Task[None]

    async def __aenter__(self) -> Flood:
        self._reading = asyncio.create_task(self._conversation.run())
        self._end.connect()
        self._pump()
        return self

    async def __aexit__(self, *_: object) -> None:
        self._reading.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._reading
        await self._channel.close()

    async def submit(self, count: int, wait_s: float) -> None:
        """Submit this many, in groups of 1,000; all are durable on return. Raises ``FleetFailed``."""
        self.add(count)
        if not await until(lambda: self.accepted == self.submitted or self._reading.done(), wait_s):
            raise FleetFailed(f"only {self.accepted:,} of {self.submitted:,} tasks were taken within {wait_s:g} s")
        self._check()

    def add(self, count: int) -> None:
        """As ``submit``, without waiting for anything."""
        self._add(count)
        self._pump()

    async def work(self, count: int, wait_s: float) -> None:
        """Wait until this many more are completed. Raises ``FleetFailed``."""
        target = self.completed + count
        if not await until(lambda: self.completed >= target or self._reading.done(), wait_s):
            raise FleetFailed(f"{target - self.completed:,} of {count:,} tasks are missing after {wait_s:g} s")
        self._check()

    async def fill(self, plan: Plan, tasks: int, wait_s: float) -> None:
        """From now on some wait all the time, whatever the workers take in advance; and with so many done, everybody is warm."""
        await self.submit(plan.waiting_few + plan.workers * PREFETCHED, wait_s)
        self.refill = True
        await self.work(tasks, wait_s)

    def _check(self) -> None:
        if self._reading.done():
            self._reading.result()
            raise FleetFailed("the control plane ended the stream")

    def _add(self, count: int) -> None:
        spec_of = self._spec_of
        while count > 0:
            size, first = min(count, SUBMIT_TASKS_MAX), self.submitted
            count -= size
            self.submitted += size
            now_ns, noise = time.time_ns(), os.urandom(_ID_BYTES * size)
            self._end.submit(
                [
                    spec_of(make_id(now_ns, noise[place * _ID_BYTES : (place + 1) * _ID_BYTES]), first + place)
                    for place in range(size)
                ]
            )

    def _take(self, message: Any) -> None:
        news = self._end.take(decode_server_frame(message))
        if news.refusals:
            raise FleetFailed(f"refused: {news.refusals[0]}")
        self.accepted += len(news.accepted)
        if news.outcomes:
            self._count(news.outcomes)
        self._pump()

    def _count(self, outcomes: list[Settled]) -> None:
        for outcome in outcomes:
            if outcome.state is not TaskState.COMPLETED:
                raise FleetFailed(f"a task came to nothing: {outcome}")
            if self._heard is not None:
                self._heard(outcome)
        self.completed += len(outcomes)
        if self.refill:
            self._add(len(outcomes))

    def _pump(self) -> None:
        while (frame := self._end.frame()) is not None:
            self._conversation.send(encode_client_frame(frame))
