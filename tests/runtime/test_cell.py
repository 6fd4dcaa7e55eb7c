"""The cell's loop and the clock."""

import asyncio
from types import SimpleNamespace

from merit.allocation.catalogue import BUILT_IN
from merit.core.machine import Machine
from merit.core.state import State
from merit.kernel.quarantine import Quarantine
from merit.model.limits import SECOND_NS, Limits
from merit.runtime import cell as cell_module
from merit.runtime.cell import CellLoop
from merit.session.cell_end import CellEnd
from merit.session.worker_end import WorkerEnd
from merit.storage.memory_journal import MemoryDisk, MemoryJournal
from merit.testing.builders import START_NS, an_offer


class Stream:
    """Takes what the cell says."""

    def deliver(self, frame):
        pass

    def end(self):
        pass


class NothingFound:
    """A journal in which nothing is."""

    async def outcomes(self, ids, tenant):
        return []

    async def keys(self, wanted):
        return {}


async def test_a_cell_that_was_stopped_in_the_middle_of_its_work_hears_the_workers_before_it_loses_them(monkeypatch):
    now_s = 0.0
    monkeypatch.setattr(cell_module, "time", SimpleNamespace(monotonic=lambda: now_s, time_ns=None))
    journal = MemoryJournal(MemoryDisk("cell"))
    limits = Limits(stale_ns=30 * SECOND_NS)
    cell = CellLoop(
        Machine(State(), BUILT_IN, limits),
        journal,
        journal.lead("leader", START_NS),
        "leader",
        Quarantine(),
        NothingFound(),
        lambda _schedule, _after_ns, _now_ns: (),
        clock=lambda: START_NS + round(now_s * SECOND_NS),
    )
    worker, end = WorkerEnd("w1", "b1", (an_offer(),), 2), CellEnd()
    cell.open_worker(end, Stream())
    worker.connect()
    hello = worker.frame()
    assert hello is not None
    cell.worker_frame(end, hello)
    await asyncio.sleep(0.01)
    assert cell.attached == {"w1"}
    # A batch was about to be handled when the process was stopped: it comes before whatever looks for such a gap.
    cell._wake()
    now_s = 60.0
    await asyncio.sleep(0.01)
    assert cell.attached == {"w1"}, "lost for the silence of the cell itself"
    await cell.close()
