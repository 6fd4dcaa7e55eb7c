"""How long it takes until another node leads when the one that did is killed or stands still, and what it costs: nothing
that was acknowledged may be lost, nothing be done twice, and nothing of an old leader be stored after a new one has begun.

Two nodes on one database, a worker and a client that know both, and work that goes on all the time.
"""

from __future__ import annotations

import asyncio
import random
import sys
import tempfile
import time
from collections import Counter
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Final

from msgspec import Struct, field

from merit.app.stores import open_stores
from merit.core.codec import decode_event
from merit.lab.bench.figures import Figure
from merit.lab.bench.fleet import CAPABILITIES
from merit.lab.bench.plan import Plan
from merit.model.events import TaskCompleted, TaskSubmitted
from merit.sdk.client import AsyncClient
from merit.sdk.handles import TaskHandle
from merit.storage.verify import verify_journal
from merit.testing.plane import PlaneFaults
from merit.testing.processes import NodeProgram, Program, running

LEASE_S: Final = 3.0
GRACE_S: Final = 2.0
"""A take-over may take so much longer than the lease."""
_IN_FLIGHT_MAX: Final = 100
_PAUSE_S: Final = 0.005
_REST_S: Final = (0.3, 1.5)
"""Between two take-overs, with everybody in order; by chance, so that each kill meets another moment."""
_WAIT_S: Final = 60.0


class TakeOver(Struct, frozen=True):
    """One of them. Times are counted from the end, or the pause, of the one that led."""

    paused: bool
    """It was stopped, and went on when the other one led; otherwise it was killed and started again."""
    ready_s: float
    """Until the other one led."""
    acknowledged_s: float
    """Until something was acknowledged that was submitted after it."""


class TakeOvers(Struct):
    """A campaign of them."""

    each: list[TakeOver] = field(default_factory=list)
    acknowledged: int = 0
    """Tasks."""
    lost: int = 0
    """Of these, such that are not in the journal, or of which the client was told no result."""
    doubled: int = 0
    """Tasks that were completed twice."""
    stale: int = 0
    """Records of an epoch behind one of a later epoch, and whatever else is wrong with the journal."""


async def run(plan: Plan, url: str) -> list[Figure]:
    """``url``: of an empty database."""
    with tempfile.TemporaryDirectory(prefix="merit-bench-", dir=plan.state) as home:
        found = await take_over(url, Path(home), plan.takeovers)
    return [
        Figure("takeover_s", max((one.ready_s for one in found.each), default=0.0), "s", ceiling=LEASE_S + GRACE_S),
        Figure("takeover_acknowledged_s", max((one.acknowledged_s for one in found.each), default=0.0), "s"),
        Figure("takeovers", len(found.each), "", floor=plan.takeovers),
        Figure("takeover_lost", found.lost, "tasks", ceiling=0),
        Figure("takeover_doubled", found.doubled, "tasks", ceiling=0),
        Figure("stale_appends", found.stale, "records", ceiling=0),
    ]


async def take_over(url: str, home: Path, count: int, lease_s: float = LEASE_S, seed: int = 0) -> TakeOvers:
    """Kill the node that leads and have it stand still, in turns, ``count`` times.

    Args:
        url: of a database in which no cell is yet.
        home: directory for the nodes.
        lease_s: how long a node leads that is not heard of.
        seed: of the moments at which it happens.

    Raises:
        ProgramFailed: a node did not lead, or did not stand by, when it should have.
    """
    chance = random.Random(seed)
    nodes = [NodeProgram(home / name, PlaneFaults(store=url, lease_s=lease_s)) for name in ("a", "b")]
    servers = ",".join(node.address for node in nodes)
    worker = Program([sys.executable, "-m", "merit", "worker", CAPABILITIES, "--server", servers, "--name", "w1"])
    found = TakeOvers()
    async with AsyncExitStack() as opened:
        for node in nodes:
            await opened.enter_async_context(running(node))
        await opened.enter_async_context(running(worker))
        client = await opened.enter_async_context(AsyncClient(servers, connect_timeout_s=_WAIT_S))
        load = _Load(client)
        working = asyncio.create_task(load.work())
        try:
            leader, other = nodes
            for number in range(count):
                await asyncio.sleep(chance.uniform(*_REST_S))
                found.each.append(await _take_over_once(leader, other, client, paused=number % 2 == 1))
                leader, other = other, leader
            load.over = True
            await asyncio.wait_for(working, _WAIT_S)
        finally:
            working.cancel()
            await asyncio.gather(working, return_exceptions=True)
    found.acknowledged = len(load.acknowledged)
    await asyncio.to_thread(_judge, url, home, load, found)
    return found


async def _take_over_once(leader: NodeProgram, other: NodeProgram, client: AsyncClient, *, paused: bool) -> TakeOver:
    before, stood = other.printed, leader.printed
    since_s = time.monotonic()
    if paused:
        leader.pause()
    else:
        await leader.kill()
    submitting = asyncio.create_task(client.submit("bench.noop", {"x": 0}))
    try:
        await other.leads(before, _WAIT_S)
        ready_s = time.monotonic() - since_s
        await asyncio.wait_for(submitting, _WAIT_S)
        acknowledged_s = time.monotonic() - since_s
    finally:
        submitting.cancel()
        leader.resume()
    if not paused:
        await leader.start()
    await leader.stands_by(stood, _WAIT_S)
    return TakeOver(paused, ready_s, acknowledged_s)


class _Load:
    """Tasks, some at a time, until it is ``over``; then until all have ended."""

    def __init__(self, client: AsyncClient) -> None:
        self._client = client
        self._waiting: set[asyncio.Task[None]] = set()
        self.over = False
        self.acknowledged: set[str] = set()
        self.told: Counter[str] = Counter()
        """By task: how often its right result came."""

    async def work(self) -> None:
        number = 0
        while not self.over:
            if len(self._waiting) < _IN_FLIGHT_MAX:
                handle = await self._client.submit("bench.noop", {"x": number}, attempts_max=100)
                self.acknowledged.add(handle.id)
                waiting = asyncio.create_task(self._hear(handle, number))
                self._waiting.add(waiting)
                waiting.add_done_callback(self._waiting.discard)
                number += 1
            await asyncio.sleep(_PAUSE_S)
        await asyncio.gather(*self._waiting)

    async def _hear(self, handle: TaskHandle, number: int) -> None:
        self.told[handle.id] += (await handle.wait()).value == number


def _judge(url: str, home: Path, load: _Load, found: TakeOvers) -> None:
    """What the journal says of it."""
    submitted: set[str] = set()
    completed: Counter[str] = Counter()
    epoch = 0
    reader = open_stores(home / "judge", url).reader()
    try:
        for record in reader.read():
            found.stale += record.epoch < epoch
            epoch = max(epoch, record.epoch)
            for event in map(decode_event, record.events):
                if isinstance(event, TaskSubmitted):
                    submitted.add(event.task)
                elif isinstance(event, TaskCompleted):
                    completed[event.task] += 1
        found.stale += verify_journal(reader, reader.cell).problem_count
    finally:
        reader.close()
    found.lost = sum(task not in submitted or load.told[task] != 1 for task in load.acknowledged)
    found.doubled = sum(count > 1 for count in completed.values())
