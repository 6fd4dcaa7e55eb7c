"""A worker that is told something on its stream, over the real wire."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from typing import Any

import grpc
import pytest

from merit.model.frames import Assignment, AttemptRef, Hello, Welcome
from merit.model.limits import SECOND_NS
from merit.model.workers import Amount
from merit.sdk import operator_words
from merit.sdk.capability import capability
from merit.sdk.operator_words import on_command
from merit.sdk.worker import WorkerProcess
from merit.session.cell_end import CellEnd
from merit.testing.builders import an_id
from merit.wire.frames import decode_worker_frame, encode_cell_frame
from merit.wire.v1 import worker_pb2_grpc

WAIT_S = 10.0
ASSIGNMENT = Assignment(an_id(1), 1, "waits", b"{}", "", 60 * SECOND_NS)
gates: list[asyncio.Event] = []
"""The one of the present test; an event belongs to the loop that waits for it."""


@capability(resources={"cpu": 0.5}, preference=0.8, stateful=True)
async def waits() -> int:
    await gates[-1].wait()
    return 1


class _Commander(worker_pb2_grpc.WorkersServicer):
    """A control plane for one worker: takes everything, and says what the test wants said."""

    def __init__(self) -> None:
        self.end = CellEnd()
        self.hello: Hello | None = None
        self.started: list[AttemptRef] = []
        self.reported: list[str] = []
        self.heard = 0
        self._context: Any = None

    async def Session(self, _frames: Any, context: Any) -> None:  # type: ignore[override]
        self._context, self.end = context, CellEnd()
        while (message := await context.read()) is not grpc.aio.EOF:
            frame = decode_worker_frame(message)
            if self.end.take(frame):
                if frame.hello is not None:
                    self.hello = frame.hello
                    # Beats often, so that what was heard is soon acknowledged.
                    self.end.welcome(Welcome("cell", 1, 50_000_000))
                self.started += frame.started
                self.reported += [report.task for report in frame.reports]
                self.end.durable(frame.sequence)
            self.heard += self.end.heard()
            await self.say()

    async def say(self) -> None:
        while (frame := self.end.frame()) is not None:
            await self._context.write(encode_cell_frame(frame))


async def _until(condition: Callable[[], Any]) -> None:
    async with asyncio.timeout(WAIT_S):
        while not condition():
            await asyncio.sleep(0.01)


@contextlib.asynccontextmanager
async def told(**settings: Any) -> AsyncIterator[tuple[_Commander, "asyncio.Task[None]"]]:
    commander, server = _Commander(), grpc.aio.server()
    worker_pb2_grpc.add_WorkersServicer_to_server(commander, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    worker = WorkerProcess([waits], f"127.0.0.1:{port}", name="w", **settings)
    working = asyncio.create_task(worker.run())
    try:
        await _until(lambda: commander.hello)
        yield commander, working
    finally:
        working.cancel()
        await asyncio.gather(working, return_exceptions=True)
        await server.stop(None)


@pytest.fixture(autouse=True)
def _afresh(monkeypatch):
    monkeypatch.setattr(operator_words, "_hooks", {})
    gates[:] = [asyncio.Event()]


async def test_it_says_what_it_has_what_it_likes_and_whom_it_works_for():
    async with told(capacity={"memory": 2**30, "cpu": 4}, tenants=["acme"], tags=["gpu"]) as (commander, _):
        hello = commander.hello
        assert hello is not None
        assert hello.capacity == (Amount("cpu", 4_000), Amount("memory", 2**30 * 1_000))
        assert (hello.tenants, hello.tags) == (("acme",), ("gpu",))
        (offer,) = hello.offers
        assert offer == waits.offer
        assert (offer.resources, offer.preference_permille, offer.stateful) == ((Amount("cpu", 500),), 800, True)


async def test_what_it_is_told_is_carried_out_while_it_goes_on_working():
    seen: list[str] = []
    on_command("RESET")(lambda: seen.append("reset"))
    on_command("UPDATE_CONFIG")(lambda: seen.append("config"))
    async with told() as (commander, working):
        commander.end.assign(ASSIGNMENT)
        commander.end.tell(["RESET", "PAUSE", "UPDATE_CONFIG"])
        await commander.say()
        await _until(lambda: len(seen) == 2)
        assert seen == ["reset", "config"]
        await _until(lambda: commander.heard == 3)
        assert not commander.reported
        gates[-1].set()
        await _until(lambda: commander.reported)
        assert not working.done()


@pytest.mark.parametrize("way", ["STOP", "drain"])
async def test_a_stop_or_a_drain_lets_it_finish_what_it_holds_and_leave(way):
    async with told() as (commander, working):
        commander.end.assign(ASSIGNMENT)
        await commander.say()
        await _until(lambda: commander.started)
        commander.end.tell(["STOP"]) if way == "STOP" else commander.end.drain()
        await commander.say()
        done, _ = await asyncio.wait((working,), timeout=0.2)
        assert not done
        gates[-1].set()
        await asyncio.wait_for(working, WAIT_S)
        assert len(commander.reported) == 1
