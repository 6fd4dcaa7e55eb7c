"""States of the past: at every moment what the fold up to it gives, seen through everything that can be asked."""

from bisect import bisect_right
from datetime import datetime
from hashlib import sha256
from typing import Any

import grpc
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from merit.app.comparing import compare_snapshots
from merit.app.past import NotThere, cell_at, fold_until, instant_after, instant_at, local_time
from merit.app.past_cell import UNCHANGEABLE
from merit.app.past_rows import RowsUntil
from merit.app.past_server import served
from merit.core.apply import apply
from merit.core.codec import FOLD_VERSION, decode_event, encode_state, state_digest
from merit.core.explaining import explain_now
from merit.core.invariants import check
from merit.core.projecting import Projection
from merit.core.standing import Standing
from merit.core.state import State
from merit.core.why import why
from merit.gateway.worker_view import standing_of, view_worker
from merit.model.events import TaskCanceled, TaskCompleted, TaskDied
from merit.model.ids import id_time_ns
from merit.model.limits import SECOND_NS, Limits
from merit.model.record import NO_HASH, JournalError, record_hash
from merit.model.search import TaskQuery, WorkerQuery
from merit.model.tasks import TaskState
from merit.ports.read_model import Portion, Reached, ReadModelUnavailable
from merit.sdk.client import AsyncClient
from merit.sdk.results import MeritError
from merit.storage.memory_journal import MemoryDisk, MemoryJournal
from merit.storage.memory_read_model import MemoryReadModel
from merit.storage.memory_snapshots import MemorySnapshots
from merit.testing.builders import START_NS, allocate, an_id, attach, completed, say, submit, with_terms
from merit.testing.read_model_contract import a_worker
from tests.app.recorded_life import Recorded, a_busy_life


class MemoryStores:
    """As far as the past needs them."""

    def __init__(self, recorded, model) -> None:
        self.model = model
        self.disk = recorded.disk
        self.kept = recorded.snapshots

    def reader(self):
        return MemoryJournal(self.disk)

    def snapshots(self):
        return self.kept

    def read_model_reader(self):
        if self.model is None:
            raise ReadModelUnavailable("there is none")
        return self.model.opened()


def stores(recorded, model=None) -> Any:
    return MemoryStores(recorded, model)


def projected(recorded):
    """What a follower would have made of all of it."""
    projection, model = Projection(State()), MemoryReadModel()
    for record in recorded.disk.records:
        projection.fold(record)
    model.write(Portion(0, Reached(projection.state.sequence, 1), *projection.take()))
    return model


def prefix(records, sequence):
    """The fold of the events up to this one, by the shortest way."""
    state = State()
    for record in records:
        payloads = {sha256(payload).digest(): payload for payload in record.payloads}
        for place, data in enumerate(record.events):
            if record.first + place <= sequence:
                apply(state, decode_event(data), payloads, record.time_ns)
    return state


@settings(max_examples=50)
@given(seed=st.integers(0, 2**32), data=st.data())
def test_at_every_moment_it_is_the_fold_of_what_had_happened(seed, data):
    recorded = a_busy_life(seed, "least-loaded")
    reader, last = MemoryJournal(recorded.disk), recorded.disk.tail.next - 1
    sequence = data.draw(st.integers(1, last))
    state = fold_until(reader, recorded.snapshots, sequence)
    expected = encode_state(prefix(recorded.disk.records, sequence))
    assert encode_state(state) == expected
    instant = instant_after(reader, recorded.snapshots, sequence)
    cell = cell_at(reader, recorded.snapshots, instant)
    # Whoever looks changes nothing, and what follows from the state fits it.
    assert encode_state(cell.state) == expected
    if sequence in {record.last for record in recorded.disk.records}:
        check(None, cell.state)  # between two events of one decision it may be half done
    pending = [task for task in cell.state.tasks.values() if task.state is TaskState.PENDING]
    assert cell.desk.backlog.size == len(pending)
    assert cell.attached == set(cell.state.workers)
    assert cell.now_ns == instant.time_ns
    for task in cell.state.tasks.values():
        assert why(cell.desk, task)
        assert task.state.final or explain_now(cell.desk, task, 100).why
    assert [view_worker(cell, name).id for name in cell.state.profiles] == list(cell.state.profiles)


@settings(max_examples=50)
@given(seed=st.integers(0, 50), data=st.data())
def test_a_moment_means_the_last_event_that_had_happened(seed, data):
    recorded = a_busy_life(seed, "least-loaded")
    reader, records = MemoryJournal(recorded.disk), recorded.disk.records
    first_ns, last_ns = records[0].time_ns, records[-1].time_ns
    around = [record.time_ns + off for record in records for off in (-1, 0, 1)]
    time_ns = data.draw(st.sampled_from(around) | st.integers(first_ns, last_ns + SECOND_NS))
    before = bisect_right(records, time_ns, key=lambda record: record.time_ns)
    if not before:
        with pytest.raises(NotThere):
            instant_at(reader, recorded.snapshots, time_ns)
        return
    found = instant_at(reader, recorded.snapshots, time_ns)
    assert (found.sequence, found.time_ns) == (records[before - 1].last, time_ns)


@settings(max_examples=25)
@given(seed=st.integers(0, 2**32), data=st.data())
def test_what_had_been_forgotten_by_then_is_in_the_rows_of_then(seed, data):
    recorded = a_busy_life(seed, "least-loaded", Limits(backoff_ns=1, backoff_ns_max=1, grace_ns=0, finals_max=2))
    model = projected(recorded)
    last = model.reached().sequence
    sequence = data.draw(st.integers(0, last))
    state = prefix(recorded.disk.records, sequence)
    rows = RowsUntil(model, sequence, state.order)
    ended = {}
    for event in list(recorded.decoded())[:sequence]:
        if isinstance(event, TaskCompleted | TaskDied | TaskCanceled):
            ended[event.task] = type(event)
    found = {row.id: row for row in rows.find(TaskQuery(), 2**62, 1_000).rows}
    at_hand = {task.id for task in state.tasks.values() if task.state.final}
    assert found.keys() | at_hand == ended.keys()
    assert {row.id for row in rows.tasks(list(ended))} == found.keys()
    states = {TaskCompleted: TaskState.COMPLETED, TaskDied: TaskState.DEAD, TaskCanceled: TaskState.CANCELED}
    assert all(row.state is states[ended[name]] for name, row in found.items())
    assert rows.reached().sequence == sequence
    assert all(worker.sequence <= sequence for worker in rows.workers(WorkerQuery(), "", 100))


@pytest.fixture(scope="module")
def recorded():
    return a_busy_life(7, "least-loaded")


def test_what_it_cannot_tell_of_it_says_with_what_it_can(recorded):
    reader, last = MemoryJournal(recorded.disk), recorded.disk.tail.next - 1
    first_ns, last_ns = recorded.disk.records[0].time_ns, recorded.disk.records[-1].time_ns
    known = (local_time(first_ns), local_time(last_ns), "event 1 ", f"event {last:,} ")
    with pytest.raises(NotThere) as early:
        instant_at(reader, recorded.snapshots, first_ns - 1)
    with pytest.raises(NotThere) as late:
        instant_after(reader, recorded.snapshots, last + 1)
    for said in (str(early.value), str(late.value)):
        assert all(one in said for one in known), said
    with pytest.raises(NotThere, match="empty"):
        instant_at(MemoryJournal(MemoryDisk("cell-1")), MemorySnapshots(), first_ns)
    assert instant_at(reader, recorded.snapshots, last_ns + SECOND_NS).sequence == last


def test_what_is_said_of_a_moment_leads_there():
    for time_ns in (START_NS, START_NS + 1, START_NS + 999_999, START_NS + 1_000_001):
        said_ns = round(datetime.fromisoformat(local_time(time_ns)).timestamp() * 1_000) * 1_000_000
        assert time_ns <= said_ns < time_ns + 1_000_000


def test_what_was_compacted_away_is_only_in_snapshots():
    recorded = a_busy_life(7, "least-loaded")
    disk, kept = recorded.disk, MemorySnapshots()
    middle = disk.records[len(disk.records) // 2]
    kept.save(middle.last, FOLD_VERSION, record_hash(middle), encode_state(prefix(disk.records, middle.last)))
    later = middle.last + 3
    expected = state_digest(prefix(disk.records, later))
    whole = list(disk.records)
    leader = MemoryJournal(disk)
    leader.lead("leader", START_NS)
    cut = whole[whole.index(middle) - 1].first
    while leader.compact(cut) < cut:
        pass
    leader.close()
    reader = MemoryJournal(disk)
    assert state_digest(fold_until(reader, kept, later)) == expected
    assert instant_after(reader, kept, middle.last).sequence == middle.last
    for gone in (1, cut, middle.last - 1):  # also what is there, and has no state to begin with
        with pytest.raises(NotThere, match="compacted"):
            instant_after(reader, kept, gone)
    with pytest.raises(NotThere, match=f"event {middle.last:,} at"):
        instant_at(reader, kept, whole[0].time_ns)
    assert [one.problem for one in compare_snapshots(reader, kept, disk.tail.next - 1)] == [""]
    with pytest.raises(JournalError):
        fold_until(reader, kept, cut)


# Snapshots compared with the journal


def with_snapshots(recorded, *, every=5):
    kept, records = MemorySnapshots(), recorded.disk.records
    for record in records[every - 1 :: every]:
        kept.save(record.last, FOLD_VERSION, record_hash(record), encode_state(prefix(records, record.last)))
    return kept


def test_right_snapshots_are_found_to_be_right(recorded):
    kept, last = with_snapshots(recorded), recorded.disk.tail.next - 1
    found = list(compare_snapshots(MemoryJournal(recorded.disk), kept, last))
    assert not any(one.problem for one in found)
    snapshots = [one.sequence for one in found if one.what.startswith("the snapshot")]
    assert snapshots == list(kept.sequences())
    assert len(found) == 2 * len(snapshots) - (last in snapshots)


@pytest.mark.parametrize("wrong", ["state", "hash", "nonsense"])
def test_a_wrong_snapshot_is_found_out_and_the_others_are_not_blamed(recorded, wrong):
    kept, records = with_snapshots(recorded), recorded.disk.records
    victim = list(kept.sequences())[1]
    good = kept.latest(victim)
    state = prefix(records, victim)
    state.completed += 1
    data = {"state": encode_state(state), "hash": good.data, "nonsense": b"nonsense"}[wrong]
    kept.save(victim, FOLD_VERSION, NO_HASH if wrong == "hash" else good.record_hash, data)
    found = [one for one in compare_snapshots(MemoryJournal(recorded.disk), kept, records[-1].last) if one.problem]
    assert found[0].sequence == victim
    assert f"the snapshot of {victim:,}" in found[0].what
    # From a snapshot that is wrong the fold to the next one is wrong as well.
    assert len(found) == (2 if wrong == "state" else 1)


# Asked as a control plane is asked


async def test_a_client_that_orders_something_is_told_that_it_is_too_late(recorded):
    reader = MemoryJournal(recorded.disk)
    cell = cell_at(reader, recorded.snapshots, instant_after(reader, recorded.snapshots, recorded.disk.tail.next - 1))
    before = state_digest(cell.state)
    async with served(cell, stores(recorded)) as address, AsyncClient(address) as client:
        assert (await client.status())["sequence"] == cell.state.sequence
        fleet = client.operations.fleet
        for order in (
            client.operations.pause_queue("echo", "no"),
            fleet.pause_worker("w0", "no"),
            fleet.start_rollout("echo", "3.0.0", 0.5),
        ):
            with pytest.raises(MeritError, match=UNCHANGEABLE):
                await order
        live = next(task.id for task in cell.state.tasks.values() if not task.state.final)
        (refusal,) = await client.cancel([live])
        assert refusal.reason == UNCHANGEABLE
        with pytest.raises(MeritError, match=UNCHANGEABLE):
            await client.submit("echo")
    assert state_digest(cell.state) == before


async def test_workers_find_no_service(recorded):
    reader = MemoryJournal(recorded.disk)
    cell = cell_at(reader, recorded.snapshots, instant_after(reader, recorded.snapshots, 5))
    async with served(cell, stores(recorded)) as address, grpc.aio.insecure_channel(address) as channel:
        call: Any = channel.stream_stream("/merit.v1.Workers/Session")()
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await call.read()
    assert refused.value.code() is grpc.StatusCode.UNIMPLEMENTED


@pytest.mark.parametrize("remembered", [False, True])
async def test_tasks_that_had_been_forgotten_by_then_are_told_of_as_of_then(remembered):
    recorded = Recorded(Limits(grace_ns=0, finals_max=1), id_time_ns(an_id(1)))
    machine = recorded.machine
    attach(machine, granted=100)
    recorded.close()
    ends = []
    for number in (1, 2, 3):
        submit(machine, with_terms(number))
        allocate(machine)
        recorded.close()
        say(machine, reports=[completed(number, result=b'"%d"' % number)])
        recorded.close()
        ends.append(recorded.disk.tail.next - 1)
    reader = MemoryJournal(recorded.disk)
    cell = cell_at(reader, recorded.snapshots, instant_after(reader, recorded.snapshots, ends[1]))
    assert an_id(1) not in cell.state.tasks
    model = projected(recorded) if remembered else None
    async with served(cell, stores(recorded, model)) as address, AsyncClient(address) as client:
        listed = [task["id"] for task in (await client.tasks()).tasks]
        assert listed == ([an_id(2), an_id(1)] if remembered else [an_id(2)])
        assert (await client.task(an_id(1)))["result"] == "1"
        assert (await client.task(an_id(2)))["result"] == "2"
        with pytest.raises(MeritError, match="no task"):
            await client.task(an_id(3))


async def test_a_task_whose_id_came_again_is_told_of_as_of_then():
    recorded = Recorded(Limits(grace_ns=0, finals_max=1), id_time_ns(an_id(1)))
    machine = recorded.machine
    attach(machine, granted=100)
    ends = []
    for number, result in ((1, b'"first"'), (2, b'"other"'), (3, b'"other"'), (1, b'"second"'), (4, b'"other"')):
        submit(machine, with_terms(number))
        allocate(machine)
        recorded.close()
        say(machine, reports=[completed(number, result=result)])
        recorded.close()
        ends.append(recorded.disk.tail.next - 1)
    reader, model = MemoryJournal(recorded.disk), projected(recorded)
    for end, told in ((ends[2], "first"), (ends[3], "second"), (ends[4], "second")):
        cell = cell_at(reader, recorded.snapshots, instant_after(reader, recorded.snapshots, end))
        async with served(cell, stores(recorded, model)) as address, AsyncClient(address) as client:
            assert (await client.task(an_id(1)))["result"] == told


def test_a_page_of_workers_is_full_though_many_have_changed_since():
    model = MemoryReadModel()
    since = [a_worker(f"a{number:04}", sequence=9) for number in range(1_500)]
    model.write(Portion(0, Reached(9, 1), workers=[*since, a_worker("b", sequence=1), a_worker("c", sequence=2)]))
    rows = RowsUntil(model, 5, 1)
    assert [row.worker for row in rows.workers(WorkerQuery(), "", 1)] == ["b"]
    assert [row.worker for row in rows.workers(WorkerQuery(), "b", 10)] == ["c"]


def test_a_worker_is_told_of_as_of_then():
    recorded = Recorded()
    attach(recorded.machine, "w1", granted=3)
    submit(recorded.machine, with_terms(1))
    allocate(recorded.machine)
    recorded.close()
    reader = MemoryJournal(recorded.disk)
    last = recorded.disk.tail.next - 1
    years_later = instant_at(reader, recorded.snapshots, START_NS + 10**9 * SECOND_NS)
    cell = cell_at(reader, recorded.snapshots, years_later)
    assert years_later.sequence == last
    assert standing_of(cell, "w1") is Standing.BUSY
    assert view_worker(cell, "w1").room == recorded.machine.state.workers["w1"].room == 2
