"""How fast the follower catches up after it has been away: a million events, from none, with all that it makes of them.

Measured is the process itself, as the control plane starts it, from its start to its word that the read model knows the last
event; what one interpreter takes to start is part of it.
"""

from __future__ import annotations

import asyncio
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

import msgspec

from merit.app.follower import FollowerOrders, FollowerReport
from merit.app.state_directory import StateDirectory
from merit.app.stores import LocalStores
from merit.lab.bench.figures import Figure
from merit.lab.bench.fleet import FleetFailed
from merit.lab.bench.follower_cost import FOLLOWER
from merit.lab.bench.plan import Plan
from merit.lab.bench.restart import write_journal

EVENTS_PER_S_MIN: Final = 200_000
_WAIT_S: Final = 120.0


async def run(plan: Plan) -> list[Figure]:
    """The journal is made by the machine itself, without streams."""
    with TemporaryDirectory(prefix="merit-bench-", dir=plan.state) as directory:
        stores = LocalStores(StateDirectory(Path(directory)))
        last = write_journal(stores.directory, plan.catch_up_events)
        took_s = await _caught_up(stores, last)
    return [Figure("catch_up_events_per_s", last / took_s, "1/s", floor=EVENTS_PER_S_MIN)]


async def _caught_up(stores: LocalStores, last: int) -> float:
    began_s = time.perf_counter()
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", FOLLOWER, msgspec.json.encode(FollowerOrders()).decode()),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        env=stores.environment(),
    )
    assert process.stdout is not None
    try:
        async with asyncio.timeout(_WAIT_S):
            while line := await process.stdout.readline():
                if msgspec.json.decode(line, type=FollowerReport).sequence >= last:
                    return time.perf_counter() - began_s
    except TimeoutError:
        raise FleetFailed(f"the follower did not catch up within {_WAIT_S:g} s") from None
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()
    raise FleetFailed("the follower has ended before it had caught up; see what it said")
