"""A control plane that says what a test wants it to say, over the real wire."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from typing import Any

import grpc

from merit.model.frames import ClientFrame, ClientWelcome, Settled, Update
from merit.model.tasks import TaskSpec, TaskState
from merit.session.server_end import ServerEnd
from merit.wire.frames import decode_client_frame, encode_server_frame
from merit.wire.v1 import (
    dead_letters_pb2_grpc,
    fleet_pb2_grpc,
    queues_pb2_grpc,
    schedules_pb2_grpc,
    supervision_pb2_grpc,
    tasks_pb2_grpc,
)


class Guest:
    """One client's stream."""

    def __init__(self, context: Any) -> None:
        self.end = ServerEnd()
        self._context = context
        self._writing = asyncio.Lock()
        self._over = asyncio.Event()

    async def next(self) -> Any:
        """What the client sends next; the end of the stream also when this side has hung up."""
        reading = asyncio.ensure_future(self._context.read())
        over = asyncio.ensure_future(self._over.wait())
        await asyncio.wait((reading, over), return_when=asyncio.FIRST_COMPLETED)
        over.cancel()
        if reading.done():
            return reading.result()
        reading.cancel()
        return grpc.aio.EOF

    def hang_up(self) -> None:
        """End the stream."""
        self._over.set()

    async def say(self) -> None:
        """Send what there is to send."""
        async with self._writing:
            while (frame := self.end.frame()) is not None:
                await self._context.write(encode_server_frame(frame))

    async def update(self, task: str, state: TaskState = TaskState.RUNNING, *more: Any) -> None:
        self.end.update(Update(task, state, *more))
        await self.say()

    async def settle(self, task: str, result: bytes = b"1") -> None:
        self.end.outcome(Settled(task, TaskState.COMPLETED, result, "", None, 1, "w"))
        await self.say()


class ScriptedPlane:
    """Takes everything that is submitted. ``known`` says which tasks are others by their idempotency keys; ``answers`` has the
    answers to unary calls by name, ``asked`` the questions with the tenant they came with.
    """

    def __init__(self) -> None:
        self.tasks: dict[str, TaskSpec] = {}
        self.known: dict[str, str] = {}
        self.followed: list[str] = []
        self.watched: list[str] = []
        self.tenants: list[str] = []
        self.guests: list[Guest] = []
        self.answers: dict[str, Callable[[Any], Any]] = {}
        self.asked: list[tuple[str, Any, str]] = []
        self.changed = asyncio.Event()

    async def session(self, _frames: Any, context: Any) -> None:
        guest = Guest(context)
        self.tenants.append(tenant(context))
        self.guests.append(guest)
        while (message := await guest.next()) is not grpc.aio.EOF:
            frame = decode_client_frame(message)
            if guest.end.take(frame):
                self._take(guest, frame)
            await guest.say()  # also after a mere acknowledgement, which opens the window
            self.changed.set()

    def _take(self, guest: Guest, frame: ClientFrame) -> None:
        if frame.hello is not None:
            guest.end.welcome(ClientWelcome("scripted", 1))
        for spec in [*frame.tasks, *(spec for group in frame.groups for spec in group)]:
            self.tasks[spec.id] = spec
            key = spec.terms.idempotency_key if spec.terms is not None else ""
            if key and self.known.setdefault(key, spec.id) != spec.id:
                guest.end.known(spec.id, self.known[key])
        self.watched += frame.watch
        self.followed += frame.follow
        guest.end.durable(frame.sequence)

    async def until(self, condition: Callable[[], bool]) -> None:
        """Wait until a client has said something."""
        async with asyncio.timeout(10):
            while not condition():
                self.changed.clear()
                await self.changed.wait()


_STREAMS = ("WatchWorkers", "ExplainTask")
"""Calls with many answers."""


def tenant(context: Any) -> str:
    """What the metadata of a call says."""
    return str(dict(context.invocation_metadata()).get("merit-tenant", ""))


def _add_services(plane: ScriptedPlane, server: grpc.aio.Server) -> None:
    """All services; the unary calls answer what the test has put into ``answers``."""

    async def session(_self: Any, frames: Any, context: Any) -> None:
        await plane.session(frames, context)

    for module, name in (
        (tasks_pb2_grpc, "Tasks"),
        (queues_pb2_grpc, "Queues"),
        (dead_letters_pb2_grpc, "DeadLetters"),
        (schedules_pb2_grpc, "Schedules"),
        (fleet_pb2_grpc, "Fleet"),
        (supervision_pb2_grpc, "Supervision"),
    ):
        base = getattr(module, f"{name}Servicer")
        calls = [call for call in vars(base) if not call.startswith("_") and call != "Session"]

        def answering(call: str) -> Any:
            async def answer(_self: Any, request: Any, context: Any) -> Any:
                plane.asked.append((call, request, tenant(context)))
                made = plane.answers[call](request)
                if isinstance(made, tuple):
                    await context.abort(*made)
                return made

            return answer

        def answering_more(call: str) -> Any:
            async def answers(_self: Any, request: Any, context: Any) -> AsyncIterator[Any]:
                plane.asked.append((call, request, tenant(context)))
                for made in plane.answers[call](request):
                    if isinstance(made, tuple):
                        await context.abort(*made)
                    yield made

            return answers

        members = {call: (answering_more if call in _STREAMS else answering)(call) for call in calls}
        if name == "Tasks":
            members["Session"] = session
        servicer = type(f"Scripted{name}", (base,), members)()
        getattr(module, f"add_{name}Servicer_to_server")(servicer, server)


@contextlib.asynccontextmanager
async def a_scripted_plane() -> AsyncIterator[tuple[ScriptedPlane, str]]:
    """The plane and its address."""
    plane, server = ScriptedPlane(), grpc.aio.server()
    _add_services(plane, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        yield plane, f"127.0.0.1:{port}"
    finally:
        await server.stop(None)
