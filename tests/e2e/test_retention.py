"""A control plane, its follower and their clean-up, with real processes and retention in seconds instead of days."""

import asyncio
from contextlib import closing

from merit import AsyncClient
from merit.app.restore import restore
from merit.app.state_directory import StateDirectory
from merit.app.stores import LocalStores
from merit.core.invariants import check
from merit.model.limits import Limits
from merit.model.retention import Retention
from merit.storage.verify import verify_journal
from merit.testing.plane import PlaneFaults
from merit.testing.processes import PlaneProgram, WorkerProgram, running

SECONDS = Retention(journal_keep_s=2.0, trails_keep_s=3600.0, audit_horizon_s=1.0)
WORKER = """
import sys
from merit import capability, serve

@capability
def echo(n: int) -> int:
    return n

serve(echo, server=sys.argv[1], name=sys.argv[2])
"""


async def test_the_journal_is_compacted_under_load_and_a_kill_does_it_no_harm(tmp_path):
    (tmp_path / "worker.py").write_text(WORKER)
    faults = PlaneFaults(limits=Limits(finals_max=50), retention=SECONDS, snapshot_events=200)
    stores = LocalStores(StateDirectory(tmp_path / "state"))
    done: list[str] = []
    async with asyncio.timeout(60), running(PlaneProgram(tmp_path / "state", faults)) as plane:
        async with (
            running(WorkerProgram(str(tmp_path / "worker.py"), plane.address, "w1")),
            AsyncClient(plane.address) as client,
        ):

            async def work_until_compacted(beyond: int) -> int:
                """Tasks until the journal begins later than that; where it begins."""
                while True:
                    handles = [await client.submit("echo", {"n": k}) for k in range(20)]
                    done.extend(handle.id for handle in handles)
                    for handle in handles:
                        await handle.wait()
                    with closing(stores.reader()) as reader:
                        if (first := reader.base().next) > beyond:
                            return first

            first = await work_until_compacted(1)
            await plane.kill()
            await plane.start()
            await work_until_compacted(first)
        with closing(stores.read_model_reader()) as model:
            while {row.id for row in model.tasks(done)} != set(done):  # what has left the journal is found as well
                await asyncio.sleep(0.05)
        assert await plane.stop() == 0
    with closing(stores.reader()) as reader:
        assert verify_journal(reader).ok
        state, _ = restore(reader, stores.snapshots())
        check(None, state)
        base = reader.base().next
    with closing(stores.archive()) as archive:
        held = archive.held()
        assert held.first == 1
        assert held.last >= base - 1
        assert held.anchored >= held.last
    assert any(base - 1 <= one <= held.last for one in stores.snapshots().sequences()), (
        "it may have been on its way there"
    )
