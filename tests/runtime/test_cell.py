"""The cell's loop and the clock."""

import asyncio
import time

import pytest

from merit.allocation.catalogue import BUILT_IN
from merit.core.machine import Machine
from merit.core.state import State
from merit.kernel.quarantine import Quarantine
from merit.kernel.waiting import Lookup
from merit.model.commands import SubmitTasks
from merit.model.frames import Settled
from merit.model.limits import SECOND_NS, Limits
from merit.model.tasks import TaskState
from merit.ports.cell import CellStopped
from merit.ports.journal import Fenced
from merit.runtime import cell as cell_module
from merit.runtime.cell import CellLoop
from merit.runtime.elapsed import elapsed_s
from merit.session.cell_end import CellEnd
from merit.session.server_end import ServerEnd
from merit.session.worker_end import WorkerEnd
from merit.storage.memory_journal import MemoryDisk, MemoryJournal
from merit.testing.builders import START_NS, TENANT, a_spec, an_offer


class Stream:
    """Takes what the cell says."""

    def __init__(self):
        self.told = []

    def deliver(self, frame):
        self.told.append(frame)

    def end(self):
        pass


class Slow(MemoryJournal):
    """Each append is on its way until the test says what became of it."""

    def __init__(self):
        super().__init__(MemoryDisk("cell"))
        self.on_the_way = []

    def append(self, record):
        super().append(record)
        future = asyncio.get_running_loop().create_future()
        self.on_the_way.append((record, future))
        return future

    async def ends(self, place, error=None):
        _, future = self.on_the_way[place]
        future.set_exception(error) if error is not None else future.set_result(None)
        await turns()


class NothingFound:
    """A journal in which nothing is."""

    async def outcomes(self, ids, tenant):
        return []

    async def keys(self, wanted):
        return {}


class Busy(NothingFound):
    """Looks for one thing after the other, each until it is let go."""

    def __init__(self):
        self.searches = []
        self.go = asyncio.Semaphore(0)

    async def outcomes(self, ids, tenant):
        self.searches.append((tenant, ids))
        await self.go.acquire()
        return [Settled(name, TaskState.COMPLETED) for name in ids if name != "unknown"]


def a_cell(journal, **settings):
    return CellLoop(
        Machine(State(), BUILT_IN, settings.pop("limits", Limits())),
        journal,
        journal.lead("leader", START_NS),
        "leader",
        Quarantine(),
        settings.pop("finder", NothingFound()),
        lambda _schedule, _after_ns, _now_ns: (),
        **settings,
    )


async def turns():
    """What is due at the loop's next turns is done."""
    for _ in range(10):
        await asyncio.sleep(0)


def submit(cell, number):
    return asyncio.ensure_future(cell.command(SubmitTasks(TENANT, "p", [a_spec(number)], False)))


async def test_a_cell_that_was_stopped_in_the_middle_of_its_work_hears_the_workers_before_it_loses_them(monkeypatch):
    now_s = 0.0
    monkeypatch.setattr(cell_module, "elapsed_s", lambda: now_s)
    journal = MemoryJournal(MemoryDisk("cell"))
    cell = a_cell(journal, limits=Limits(stale_ns=30 * SECOND_NS), clock=lambda: START_NS + round(now_s * SECOND_NS))
    worker, end = WorkerEnd("w1", "b1", (an_offer(),), 2), CellEnd()
    cell.open_worker(end, Stream())
    worker.connect()
    hello = worker.frame()
    assert hello is not None
    cell.worker_frame(end, hello)
    await turns()
    assert cell.attached == {"w1"}
    # A batch was about to be handled when the process was stopped: it comes before whatever looks for such a gap.
    cell._wake()
    now_s = 60.0
    await turns()
    assert cell.attached == {"w1"}, "lost for the silence of the cell itself"
    await cell.close()


async def test_two_records_are_on_their_way_and_the_rest_gathers():
    journal = Slow()
    cell = a_cell(journal)
    await turns()
    submits = []
    for number in range(1, 6):
        submits.append(submit(cell, number))
        await turns()
    assert len(journal.on_the_way) == 2  # leadership, the first task
    assert not any(done.done() for done in submits)
    await journal.ends(0)
    assert len(journal.on_the_way) == 3
    assert len(journal.on_the_way[2][0].events) >= 4, "the others have become one record"
    await journal.ends(1)
    assert [done.done() for done in submits] == [True, False, False, False, False]
    await journal.ends(2)
    assert [done.result() for done in submits] == [[]] * 5
    await cell.close()


async def test_what_is_durable_before_what_came_before_it_waits_for_it():
    journal = Slow()
    cell = a_cell(journal)
    await turns()
    answer = submit(cell, 1)
    await turns()
    await journal.ends(1)
    assert not answer.done()
    await journal.ends(0)
    assert answer.result() == []
    await cell.close()


@pytest.mark.parametrize("error", [Fenced("planned"), RuntimeError("planned"), asyncio.CancelledError()], ids=repr)
async def test_whatever_becomes_of_an_append_ends_the_cell_and_nothing_behind_it_gets_out(error):
    journal = Slow()
    cell = a_cell(journal)
    await turns()
    answer = submit(cell, 1)
    await turns()
    await journal.ends(0, error)
    await journal.ends(1)
    assert cell.failed.done()
    with pytest.raises(CellStopped):
        answer.result()
    with pytest.raises(CellStopped):
        await submit(cell, 2)
    assert len(journal.on_the_way) == 2
    await cell.close()


async def test_an_end_in_the_middle_of_appends_lets_nothing_out_and_leaves_nothing_behind():
    journal = Slow()
    cell = a_cell(journal)
    worker, end, stream = WorkerEnd("w1", "b1", (an_offer(),), 2), CellEnd(), Stream()
    cell.open_worker(end, stream)
    worker.connect()
    cell.worker_frame(end, worker.frame())
    answer = submit(cell, 1)
    await turns()
    assert journal.on_the_way
    before = asyncio.all_tasks()
    await cell.close()
    assert not stream.told
    assert all(future.cancelled() for _, future in journal.on_the_way)
    with pytest.raises(CellStopped):
        answer.result()
    assert asyncio.all_tasks() - {asyncio.current_task()} <= before
    assert all(task.done() for task in before - {asyncio.current_task()})


async def test_what_is_read_is_told_when_it_is_durable():
    journal = Slow()
    cell = a_cell(journal)
    await turns()
    await journal.ends(0)
    await asyncio.wait_for(cell.settled(), 1)
    submit(cell, 1)
    await turns()
    assert len(cell.state.tasks) == 1
    reading = asyncio.ensure_future(cell.settled())
    hopeless = asyncio.ensure_future(cell.settled())
    await turns()
    assert not reading.done()
    hopeless.cancel()  # whoever asked has gone
    await journal.ends(1)
    assert reading.result() is None
    failing = submit(cell, 2)
    await turns()
    reading = asyncio.ensure_future(cell.settled())
    await journal.ends(2, Fenced("planned"))
    for waiting in (failing, reading):
        with pytest.raises(CellStopped, match="planned"):
            await waiting
    with pytest.raises(CellStopped, match="planned"):
        await cell.settled()  # what is in the state will never be durable
    await cell.close()


async def test_a_lease_is_over_though_the_usual_clock_stood_still(monkeypatch):
    """As that of Linux does while the machine is suspended."""
    cell = a_cell(MemoryJournal(MemoryDisk("cell")))
    still_s = time.monotonic()
    with monkeypatch.context() as patched:
        patched.setattr(time, "monotonic", lambda: still_s)
        cell.leads_until(elapsed_s() + 0.5)
        cell.check_lease()
        time.sleep(0.6)  # nothing can be waited for: it is the time that has to pass
        with pytest.raises(CellStopped, match="lease"):
            cell.check_lease()
    await cell.close()


@pytest.mark.skipif(not hasattr(time, "CLOCK_BOOTTIME"), reason="only Linux has two such clocks")
def test_elapsed_time_is_that_since_the_machine_was_started():
    before_s = time.clock_gettime(time.CLOCK_BOOTTIME)
    assert before_s <= elapsed_s() <= time.clock_gettime(time.CLOCK_BOOTTIME)


async def test_when_the_lease_may_be_over_nothing_is_told_until_it_is_renewed():
    journal = Slow()
    cell = a_cell(journal)
    await turns()
    answer = submit(cell, 1)
    await turns()
    cell.leads_until(elapsed_s() - 1)
    await journal.ends(0)
    await journal.ends(1)
    assert not answer.done(), "durable, but somebody else may lead and know more"
    with pytest.raises(CellStopped, match="lease"):
        cell.check_lease()
    with pytest.raises(CellStopped, match="lease"):
        await cell.settled()
    with pytest.raises(CellStopped, match="lease"):
        await submit(cell, 2)
    cell.leads_until(elapsed_s() + 60)
    await turns()
    assert answer.result() == []
    await cell.settled()
    again = submit(cell, 2)
    await turns()
    await journal.ends(2)
    assert again.result() == []
    await cell.close()


async def test_forgotten_tasks_that_come_up_while_others_are_looked_for_are_looked_for_together():
    finder = Busy()
    cell = a_cell(MemoryJournal(MemoryDisk("cell")), finder=finder)
    one, other, stranger = ServerEnd(), ServerEnd(), ServerEnd(tenant="acme")
    streams = {end: Stream() for end in (one, other)}
    for end, stream in streams.items():
        cell.open_client(end, stream)
    cell._gather(Lookup(other, ["task 0"]))
    await turns()
    for number in range(1, 1_200):
        cell._gather(Lookup(one if number % 2 else other, [f"task {number}"]))
    cell._gather(Lookup(one, ["unknown"]))
    cell._gather(Lookup(stranger, ["its own"]))
    await turns()
    assert [(tenant, len(ids)) for tenant, ids in finder.searches] == [(TENANT, 1), ("acme", 1)]
    for _ in range(4):
        finder.go.release()
        await turns()
    assert [(tenant, len(ids)) for tenant, ids in finder.searches[2:]] == [(TENANT, 1_000), (TENANT, 200)]
    for place, (end, stream) in enumerate(((other, streams[other]), (one, streams[one]))):
        sent = [outcome.task for frame in stream.told for outcome in frame.outcomes]
        assert sent + [outcome.task for outcome in end._outcomes] == [f"task {n}" for n in range(place, 1_200, 2)]
    assert [refusal.task for frame in streams[one].told for refusal in frame.refusals] == ["unknown"]
    assert not cell._wanted
    await cell.close()
