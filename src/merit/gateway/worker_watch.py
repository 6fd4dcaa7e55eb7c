"""Who watches the fleet: first all workers that are meant, then each in which something has changed and is durable."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncGenerator, AsyncIterator, Iterable
from collections.abc import Set as AbstractSet
from typing import Final

from merit.gateway.portions import portions
from merit.gateway.task_search import LIST_BYTES_MAX
from merit.gateway.worker_view import TURN_WORKERS, WorkerSearch, known_workers, standing_of, view_worker
from merit.ports.cell import Cell
from merit.wire.v1 import fleet_pb2

WATCHES_MAX: Final = 16
"""At a time, of all who watch."""
_GATHER_S: Final = 0.05
"""For so long changes are gathered at least: a worker that is given a thousand tasks is told of a few times."""
_TIME_FOR_WORK: Final = 10
"""All watches together take this part of the loop's time at most: with more to tell they tell it less often."""


class WorkerWatches:
    """All that there are, since they share the time."""

    def __init__(self, cell: Cell) -> None:
        self._cell = cell
        self.count = 0

    async def changes(self, search: WorkerSearch) -> AsyncGenerator[fleet_pb2.FleetChanges, None]:
        """For ever. Whoever takes its time is told of each worker once, as it is by then."""
        watch = _Watch(self._cell, search)
        end = self._cell.watch_workers(watch.moved)
        self.count += 1
        try:
            async for message in watch.news(known_workers(self._cell.desk)):
                yield message
            yield fleet_pb2.FleetChanges(complete=True)
            while True:
                await watch.anything()
                async for message in watch.news(watch.due()):
                    yield message
                await asyncio.sleep(max(_GATHER_S, watch.spent_s * _TIME_FOR_WORK * self.count))
        finally:
            self.count -= 1
            end()


class _Watch:
    """What one of them has been told."""

    def __init__(self, cell: Cell, search: WorkerSearch) -> None:
        self._cell = cell
        self._search = search
        self._moved: set[str] = set()
        self._some = asyncio.Event()
        self._told: dict[str, tuple[int, int]] = {}
        """By worker: digest of what was told, and its standing."""
        self._sweep_s = cell.desk.limits.beat_ns / 1e9
        self._swept_s = time.monotonic()
        self.spent_s = 0.0
        """What the last round took of the loop's time."""

    def moved(self, workers: AbstractSet[str]) -> None:
        """Something has happened to these, and is durable."""
        self._moved |= workers
        self._some.set()

    async def anything(self) -> None:
        """Wait until there may be news. Workers that fall silent do so without a word: now and then all are looked at."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._swept_s + self._sweep_s - time.monotonic()):
                await self._some.wait()
        if time.monotonic() >= self._swept_s + self._sweep_s:
            self._swept_s = time.monotonic()
            async for portion in portions(self._told.items()):
                self._moved.update(name for name, (_, before) in portion if standing_of(self._cell, name) != before)

    def due(self) -> set[str]:
        """The workers in which something may have changed."""
        moved, self._moved = self._moved, set()
        self._some.clear()
        return moved

    async def news(self, workers: Iterable[str]) -> AsyncIterator[fleet_pb2.FleetChanges]:
        """What has to be told of these, if anything."""
        self.spent_s = 0.0
        async for some in portions(workers, TURN_WORKERS):
            began_s = time.perf_counter()
            message, size_bytes = fleet_pb2.FleetChanges(), 0
            for name in some:
                if self._search.matches(self._cell, name):
                    view = view_worker(self._cell, name)
                    data = view.SerializeToString(deterministic=True)
                    told = (hash(data), int(view.standing))
                    if self._told.get(name) != told:
                        self._told[name] = told
                        if size_bytes >= LIST_BYTES_MAX:
                            yield message
                            message, size_bytes = fleet_pb2.FleetChanges(), 0
                        message.workers.append(view)
                        size_bytes += len(data)
                elif self._told.pop(name, None) is not None:
                    message.left.append(name)
            self.spent_s += time.perf_counter() - began_s
            if message.ByteSize():
                yield message
