"""A control plane, workers and a client that are killed again and again while work goes on."""

import asyncio
import contextlib
import random
import signal
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

from msgspec import Struct, field, structs

from merit import AsyncClient, Result, TaskHandle, TaskRequest
from merit.model.limits import MILLISECOND_NS, SECOND_NS, Limits
from merit.model.tasks import TaskState
from merit.sdk import client as sdk_client
from merit.sdk.channel import Backoff
from merit.sdk.results import MeritError
from merit.testing.plane import PlaneFaults
from merit.testing.processes import PlaneProgram, Program, ProgramFailed, WorkerProgram
from tests.crash.evidence import Journalled, check
from tests.crash.queue_work import QueueWork

FLEET = Path(__file__).with_name("fleet.py")
# Times short enough that a restart costs a test no patience, bounds small enough that the cell forgets final tasks.
LIMITS = Limits(
    finals_max=300,
    dead_letters_max=100,
    keys_max=15,
    grace_ns=SECOND_NS,
    reconnect_ns=SECOND_NS // 2,
    stale_ns=5 * SECOND_NS,
    beat_ns=SECOND_NS,
    backoff_ns=20 * MILLISECOND_NS,
    backoff_ns_max=200 * MILLISECOND_NS,
)
TENANTS = ("default", "other")
IN_FLIGHT_MAX = 150
BIG = 100_000
LIFE_S_MAX = 3.0
"""A control plane that is up, and has not come to the step at which it is to die, is killed after this long."""
SETTLE_S = 60.0


class Tally(Struct):
    """What a campaign did."""

    plane_kills: int = 0
    by_step: int = 0
    """Of these, at the very file operation."""
    worker_kills: int = 0
    clients: int = 0
    acknowledged: int = 0
    completed: int = 0
    dead: int = 0
    canceled: int = 0
    epochs: int = 0
    delayed: int = 0
    keys_again: int = 0
    """Submits that turned out to be an earlier task."""
    retried: int = 0
    """Dead letters."""
    scheduled: int = 0
    limits_reached: dict[str, int] = field(default_factory=dict)
    """How often, by limit."""


class Campaign:
    """Kills `kills` times; by the n-th file operation (n = 1, 2, 3, …) and at random moments in turns."""

    def __init__(self, home: Path, kills: int, seed: int, *, first_step: int = 1, steps_only: bool = False) -> None:
        self.chance = random.Random(seed)
        self.kills = kills
        self.steps = first_step
        self.steps_only = steps_only
        self.executions = home / "executions"
        self.state = home / "state"
        self.plane = PlaneProgram(self.state, PlaneFaults(limits=LIMITS, log_bytes=300_000, snapshot_events=2_000))
        self.workers = [
            WorkerProgram(FLEET, self.plane.address, f"w{number}", str(self.executions)) for number in range(2)
        ]
        self.tally = Tally()
        self.over = False
        self.acknowledged: set[str] = set()
        self.told: dict[str, Result] = {}
        self.expected: dict[str, Any] = {}
        """By task: its result, or the state in which it must end."""
        self.waiting: dict[str, TaskHandle] = {}
        self.tenants: dict[str, str] = {}
        """By task."""
        self.clients: dict[str, AsyncClient] = {}
        """By tenant."""
        self.queue = QueueWork(self)

    async def run(self) -> Tally:
        vars(sdk_client)["Backoff"] = partial(Backoff, 0.02, 0.2)  # as in fleet.py
        programs: list[Program] = [self.plane, *self.workers]
        killing = [asyncio.create_task(self.kill_workers(worker)) for worker in self.workers]
        planes = asyncio.create_task(self.kill_planes())
        try:
            for tenant in TENANTS:
                await self.connect(tenant)
            await self.queue.prepare()
            submitting = asyncio.create_task(self.submit_all())
            await asyncio.gather(planes, submitting, *killing)
            await asyncio.wait_for(self.settle(), SETTLE_S)
            for client in self.clients.values():
                await client.aclose()
            for program in (*self.workers, self.plane):
                assert await program.stop() == 0, program.failure("did not end in an orderly way")
        finally:
            for task in (planes, *killing):
                task.cancel()
            for program in programs:
                if program.running:
                    await program.kill()
            vars(sdk_client)["Backoff"] = Backoff
        self.count(check(self.state, self.executions, self.acknowledged, self.told))
        return self.tally

    # Killing

    async def kill_planes(self) -> None:
        plane, chance = self.plane, self.chance
        for number in range(self.kills):
            by_step = self.steps_only or number % 2 == 0
            plane.faults = structs.replace(
                plane.faults, die_at=self.steps if by_step else 0, torn=chance.random() < 0.5
            )
            await plane.start(until_ready=False)
            # Every other life is long enough for work to get done, however slow the machine; the rest may end before.
            with contextlib.suppress(ProgramFailed):
                if by_step or chance.random() < 0.5:
                    await plane.up()
            if by_step:
                self.steps += 1
                with contextlib.suppress(ProgramFailed):
                    self.tally.by_step += await plane.ended(LIFE_S_MAX) == -signal.SIGKILL
            else:
                await asyncio.sleep(chance.uniform(0.0, 0.8))
            await plane.kill()
            self.tally.plane_kills += 1
        self.over = True
        plane.faults = structs.replace(plane.faults, die_at=0)
        await plane.start()

    async def kill_workers(self, worker: WorkerProgram) -> None:
        while not self.over:
            await worker.start()
            await asyncio.sleep(self.chance.uniform(0.8, 4.0))
            if not self.over:
                await worker.kill()
                self.tally.worker_kills += 1
        if not worker.running:
            await worker.start()

    # Working

    async def submit_all(self) -> None:
        makers = self.makers()
        while not self.over:
            await self.collect()
            if len(self.waiting) < IN_FLIGHT_MAX:
                maker = next(makers)
                await maker()
            await asyncio.sleep(0.002)
            if self.chance.random() < 0.01:
                await self.change_client()

    def makers(self) -> Iterator[Any]:
        while True:
            queue = self.queue
            makers = (self.single, self.group, self.chain, self.large, self.failing, self.canceled)
            of_queue = (queue.delayed, queue.limited, queue.keyed, queue.retried)
            yield self.chance.choices((*makers, *of_queue), (6, 2, 2, 1, 1, 1, 2, 1, 4, 1))[0]

    def anyone(self) -> AsyncClient:
        """A client of one of the tenants."""
        return self.clients[self.chance.choice(TENANTS)]

    async def take(self, client: AsyncClient, handles: list[TaskHandle], *expected: Any) -> None:
        """The client has said that these are durable."""
        for handle, value in zip(handles, expected, strict=True):
            self.acknowledged.add(handle.id)
            self.expected[handle.id] = value
            self.waiting[handle.id] = handle
            self.tenants[handle.id] = client.tenant

    async def single(self) -> None:
        n = self.chance.randrange(1000)
        client = self.anyone()
        await self.take(client, [await client.submit("double", {"n": n}, attempts_max=100)], 2 * n)

    async def group(self) -> None:
        client = self.anyone()
        requests = [TaskRequest(capability="double", parameters={"n": n}, attempts_max=100) for n in range(20)]
        await self.take(client, await client.submit_many(requests), *(2 * n for n in range(20)))

    async def chain(self) -> None:
        client = self.anyone()
        first = await client.submit("double", {"n": 1}, attempts_max=100)
        await self.take(client, [first], 2)
        second = await client.submit("double", attempts_max=100, inputs={"n": first})
        await self.take(client, [second], 4)
        doomed = await client.submit("boom", {"n": 3}, attempts_max=1)
        await self.take(client, [doomed], TaskState.DEAD)
        try:
            third = await client.submit("double", {"n": 3}, attempts_max=100, after=[second, doomed])
        except MeritError as error:
            if "never complete" not in str(error):  # that is: `doomed` had died already
                raise
        else:
            await self.take(client, [third], TaskState.DEAD)

    async def large(self) -> None:
        client = self.anyone()
        small = await client.submit("lengthen", {"text": "ab", "times": BIG}, attempts_max=100)
        await self.take(client, [small], "ab" * BIG)
        text = self.chance.choice("xyz") * BIG
        await self.take(client, [await client.submit("measure", {"text": text}, attempts_max=100)], BIG)

    async def failing(self) -> None:
        client = self.anyone()
        await self.take(client, [await client.submit("boom", {"n": 1})], TaskState.DEAD)

    async def canceled(self) -> None:
        client = self.anyone()
        handle = await client.submit("nap", {"seconds": 60}, attempts_max=100)
        await self.take(client, [handle], TaskState.CANCELED)
        await asyncio.sleep(self.chance.choice((0, 0, 0.05)))
        handle.cancel()

    async def change_client(self) -> None:
        """As if a program that submits were killed and another one took over what it knew to be durable."""
        tenant = self.chance.choice(TENANTS)
        await self.clients[tenant].aclose()
        client = await self.connect(tenant)
        self.tally.clients += 1
        for task in [task for task in self.waiting if self.tenants[task] == tenant]:
            handle = self.waiting[task] = client.watch(task)
            if self.expected[task] is TaskState.CANCELED:
                handle.cancel()  # the former client may have died before its word got out

    async def connect(self, tenant: str) -> AsyncClient:
        client = self.clients[tenant] = AsyncClient(self.plane.address, connect_timeout_s=60, tenant=tenant)
        return await client.__aenter__()

    async def collect(self) -> None:
        for task, handle in list(self.waiting.items()):
            if handle.done:
                self.judge(task, await handle.wait())
                del self.waiting[task]

    async def settle(self) -> None:
        while self.waiting:
            await self.collect()
            await asyncio.sleep(0.02)
        await self.queue.finish()

    def judge(self, task: str, result: Result) -> None:
        expected = self.expected[task]
        if isinstance(expected, TaskState):
            assert result.state is expected, f"{task}: {result}"
            if expected is TaskState.DEAD and result.attempts:
                self.queue.letters.append(task)
        else:
            assert result.ok, f"{task}: {result}"
            assert result.value == expected
        self.told[task] = result

    def count(self, journalled: Journalled) -> None:
        assert all(journalled.tasks[task].spec.tenant == tenant for task, tenant in self.tenants.items())
        self.queue.check(journalled.queue)
        states = [trail.finals[0] for trail in journalled.tasks.values()]
        self.tally.acknowledged = len(self.acknowledged)
        self.tally.completed = states.count(TaskState.COMPLETED)
        self.tally.dead = states.count(TaskState.DEAD)
        self.tally.canceled = states.count(TaskState.CANCELED)
        self.tally.epochs = journalled.epochs
