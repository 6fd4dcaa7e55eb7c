"""What a campaign asks of the queue while it kills: tenants, limits, delays, keys, dead letters, a schedule."""

from __future__ import annotations

import asyncio
from collections import deque
from itertools import pairwise
from typing import TYPE_CHECKING

import pytest

from merit import Refused, TaskRequest, Unreachable
from merit.model.limits import SECOND_NS
from merit.model.rules import RuleKind
from merit.model.schedules import Missed, Overlap
from merit.model.tasks import TaskState
from tests.crash.queue_evidence import QueueTrail

if TYPE_CHECKING:
    from tests.crash.campaign import Campaign

KEYS = 20
"""More than the cell keeps: the others are found in the journal."""
RULES = [
    (RuleKind.CAPABILITY, "double", 6),
    (RuleKind.CAPABILITY, "measure", 1),
    (RuleKind.TENANT, "other", 4),
    (RuleKind.KEY, "nap", 1),
]
SCHEDULE = "every second"


class QueueWork:
    """Errands about the queue for a campaign, which knows what is to become of each task."""

    def __init__(self, campaign: Campaign) -> None:
        self.campaign = campaign
        self.chance = campaign.chance
        self.tally = campaign.tally
        self.keys: dict[tuple[str, str], tuple[str, int]] = {}
        """By tenant and key: the task, and the number that it doubles."""
        self.letters: deque[str] = deque()

    async def prepare(self) -> None:
        """Set limits, shares and a schedule."""
        operations = self.campaign.clients["default"].operations
        for kind, name, concurrency in RULES:
            await operations.set_rule(kind, name, concurrency=concurrency)
        await operations.set_tenant("other", weight=3)
        # Who is killed again and again is left alone for a while otherwise, and so are the tasks.
        await operations.fleet.set_supervision(circuit_failures=1_000, pause_after=1_000)
        request = TaskRequest(capability="double", parameters={"n": 21}, attempts_max=100)
        await operations.set_schedule(SCHEDULE, "* * * * * *", request, missed=Missed.ALL, overlap=Overlap.ALLOW)

    async def finish(self) -> None:
        """End the schedule, and wait for what it has made."""
        client = self.campaign.clients["default"]
        while await client.operations.schedules():
            try:
                await client.operations.remove_schedule(SCHEDULE)
            except Unreachable:
                await asyncio.sleep(0.02)  # the stream has not noticed yet that the last one it spoke to is gone
        while True:
            status = await client.status()
            if not status["waiting"] + status["pending"] + status["assigned"]:
                return
            await asyncio.sleep(0.02)

    def check(self, trail: QueueTrail) -> None:
        """What the journal says of it all."""
        trail.check()
        for at, (task, _) in self.keys.items():
            assert trail.keys[at] == task
        times = trail.fired[SCHEDULE]
        gaps = [(one, other) for one, other in pairwise(times) if other - one != SECOND_NS]
        assert not gaps, "each second came once"
        self.tally.scheduled = len(trail.scheduled)
        self.tally.limits_reached = {f"{kind.name} {name}": trail.reached[kind, name] for kind, name, _ in RULES}

    # Errands

    async def delayed(self) -> None:
        """A task that is not to begin at once."""
        client, n = self.campaign.anyone(), self.chance.randrange(1000)
        delay_s = self.chance.uniform(0.05, 1.5)
        handle = await client.submit("double", {"n": n}, delay_s=delay_s, attempts_max=100)
        await self.campaign.take(client, [handle], 2 * n)
        self.tally.delayed += 1

    async def limited(self) -> None:
        """Tasks of one key, which are done one by one; long enough for a kill to come between."""
        client, key = self.campaign.anyone(), self.chance.choice("abcd")
        request = TaskRequest(capability="nap", parameters={"seconds": 0.2}, key=key, attempts_max=100)
        await self.campaign.take(client, await client.submit_many([request] * 3), 0.2, 0.2, 0.2)

    async def keyed(self) -> None:
        """A task by an idempotency key, which may have been used before: then it is that task, or an error."""
        client = self.campaign.anyone()
        at = (client.tenant, f"k{self.chance.randrange(KEYS)}")
        known, n = self.keys.get(at, ("", self.chance.randrange(1000)))
        if known and self.chance.random() < 0.2:
            with pytest.raises(Refused) as raised:
                await client.submit("double", {"n": n + 1}, idempotency_key=at[1], attempts_max=100)
            assert (raised.value.refusal.code, raised.value.refusal.field) == ("conflict", "terms.idempotency_key")
            return
        handle = await client.submit("double", {"n": n}, idempotency_key=at[1], attempts_max=100)
        assert not known or handle.id == known, f"{at} stands for two tasks"
        self.tally.keys_again += bool(known)
        self.keys[at] = handle.id, n
        await self.campaign.take(client, [handle], 2 * n)

    async def retried(self) -> None:
        """A dead letter is tried again, and dies again."""
        if not self.letters:
            return
        dead = self.letters.popleft()
        client = self.campaign.clients[self.campaign.tenants[dead]]
        try:
            pairs = (await client.operations.retry_dead([dead])).pairs
        except Unreachable:
            pairs = []
        # Without an answer it is not known whether it was done; and then it may have been done by an earlier try.
        view = await client.task(dead)
        successor = pairs[0][1] if pairs else view["successor"]
        if successor:
            await self.campaign.take(client, [client.watch(successor)], TaskState.DEAD)
            self.tally.retried += 1
        elif view["dead_letter"]:
            self.letters.append(dead)
