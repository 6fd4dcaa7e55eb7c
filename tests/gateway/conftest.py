"""A control plane with a worker and a client that keep to the rules, and must not notice what others do beside them."""

import asyncio
import contextlib
from pathlib import Path

import pytest_asyncio

from merit import AsyncClient
from merit.model.limits import SECOND_NS, Limits
from merit.testing.plane import PlaneFaults
from merit.testing.processes import PlaneProgram, WorkerProgram, running
from tests.gateway.hostile import peer

WELL_BEHAVED = Path(__file__).with_name("well_behaved.py")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def plane(tmp_path_factory):
    limits = Limits(stale_ns=3 * SECOND_NS, beat_ns=SECOND_NS, reconnect_ns=SECOND_NS, grace_ns=SECOND_NS)
    state = tmp_path_factory.mktemp("hostile") / "state"
    async with running(PlaneProgram(state, PlaneFaults(limits=limits))) as program:
        yield program
        assert program.running, program.failure("did not outlive its guests")
        assert await program.stop() == 0, program.failure("did not end in an orderly way")
        noise = [line for line in program.lines if "Traceback" in line or "never retrieved" in line]
        assert not noise, program.failure("an exception that nobody expected")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def neighbours(plane):
    """A pair that works through the whole of it; asks in the end whether everything was done."""
    async with running(WorkerProgram(WELL_BEHAVED, plane.address, "well-behaved")) as worker:
        async with AsyncClient(plane.address) as merit:
            stop = asyncio.Event()
            done = 0

            async def work():
                nonlocal done
                while not stop.is_set():
                    handle = await merit.submit("increment", {"n": done})
                    assert await handle.result(30) == done + 1
                    assert (await handle.wait()).attempts == 1, "an attempt was lost"
                    done += 1
                    with contextlib.suppress(TimeoutError):
                        await asyncio.wait_for(stop.wait(), 0.02)

            # From here on the capability's schema is known to the door.
            assert await (await merit.submit("increment", {"n": 1})).result(30) == 2
            working = asyncio.create_task(work())
            yield merit
            stop.set()
            await asyncio.wait_for(working, 60)
            assert done > 0
        assert await worker.stop() == 0
        lines = [line for line in worker.lines if "no control plane" in line or "ended the stream" in line]
        assert not lines, worker.failure("its stream was ended")


@pytest_asyncio.fixture(loop_scope="module")
async def guest(plane, neighbours):
    async with peer(plane.address) as connection:
        yield connection
