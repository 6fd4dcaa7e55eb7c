"""Many idle workers in one process: ``python -m merit.lab.bench.crowd SERVER COUNT NAME``.

Each has a connection and a session of its own, and beats, as any worker does; only the runner is missing.
"""

from __future__ import annotations

import asyncio
import sys
import time
from typing import Any, Final

from merit.model.workers import Offer
from merit.pools.tether import tether
from merit.sdk.channel import open_channel
from merit.sdk.conversation import Conversation
from merit.session.worker_end import WorkerEnd
from merit.wire.frames import decode_cell_frame, encode_worker_frame
from merit.wire.v1 import worker_pb2_grpc

_OPENING: Final = 32
"""How many connect at the same time."""
_TICK_S: Final = 0.02


class Idler:
    """One worker that nobody has work for."""

    def __init__(self, server: str, name: str) -> None:
        self.next_beat_s = 0.0
        self.attached = asyncio.Event()
        self._server = server
        self._end = WorkerEnd(name, "bench", (Offer("bench.idle"),), 1)
        self._conversation: Conversation

    async def run(self) -> None:
        """Until the control plane ends it."""
        async with open_channel(self._server) as channel:
            self._conversation = Conversation(worker_pb2_grpc.WorkersStub(channel).Session(), self._take)
            self._end.connect()
            self._pump()
            await self._conversation.run()

    def beat(self, now_s: float) -> None:
        """Send one if it is due."""
        welcome = self._end.welcome
        if welcome is not None and now_s >= self.next_beat_s:
            self.next_beat_s = now_s + welcome.beat_ns / 1e9
            frame = self._end.frame(beat=True)
            if frame is not None:
                self._conversation.send(encode_worker_frame(frame))

    def _take(self, message: Any) -> None:
        self._end.take(decode_cell_frame(message))
        if not self.attached.is_set() and self._end.welcome is not None:
            self.next_beat_s = time.monotonic() + self._end.welcome.beat_ns / 1e9
            self.attached.set()
        self._pump()

    def _pump(self) -> None:
        while (frame := self._end.frame()) is not None:
            self._conversation.send(encode_worker_frame(frame))


async def _main(server: str, count: int, name: str) -> None:
    idlers = [Idler(server, f"{name}-{number}") for number in range(count)]
    opening = asyncio.Semaphore(_OPENING)
    running: list[asyncio.Task[None]] = []

    async def open_one(idler: Idler) -> None:
        async with opening:
            running.append(asyncio.create_task(idler.run()))
            await idler.attached.wait()

    await asyncio.gather(*(open_one(idler) for idler in idlers))
    while True:
        now_s = time.monotonic()
        for idler in idlers:
            idler.beat(now_s)
        await asyncio.sleep(_TICK_S)


if __name__ == "__main__":
    tether()
    asyncio.run(_main(sys.argv[1], int(sys.argv[2]), sys.argv[3]))
