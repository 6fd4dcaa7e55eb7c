"""What only the journal remembers."""

import itertools
import os

import msgspec
import pytest
from msgspec.structs import replace

from merit.core.codec import encode_event
from merit.core.projecting import Projection
from merit.core.recollect import NotRemembered
from merit.core.state import KeyEntry, State
from merit.core.submitting import asked_for
from merit.model.events import TaskSubmitted
from merit.model.ids import id_time_ns, make_id
from merit.model.limits import SECOND_NS
from merit.model.record import seal
from merit.model.tasks import Priority, TaskState, Terms
from merit.ports.blobs import BlobUnavailable
from merit.ports.read_model import Portion, Reached, ReadModelUnavailable
from merit.runtime.task_finder import CannotTell, TaskFinder
from merit.storage.memory_journal import MemoryDisk, MemoryJournal
from merit.storage.memory_read_model import MemoryReadModel
from merit.storage.sqlite_journal import SqliteJournal
from merit.storage.sqlite_reader import open_reader
from merit.testing.builders import START_NS, a_spec, an_id, attach, completed, say, submit, with_terms
from merit.testing.read_model_contract import a_row
from tests.app.a_life import Life

TASKS = 2_000


def submitted(number, key="", tenant="default"):
    terms = Terms(idempotency_key=key) if key else None
    return encode_event(
        TaskSubmitted(an_id(number), tenant, "p", "echo", os.urandom(32), "", Priority.MEDIUM, 1, 1, terms=terms)
    )


@pytest.fixture
def finder(tmp_path):
    journal = SqliteJournal(tmp_path, "cell")
    tail = journal.lead("leader", START_NS)
    events = [submitted(number, f"key {number}" if number % 2 else "") for number in range(TASKS)]
    events.append(submitted(TASKS, "key 1", tenant="them"))
    journal.append(seal("cell", tail.next, tail.epoch, "leader", START_NS, tail.last_hash, events))
    journal.close()
    return TaskFinder(lambda: open_reader(tmp_path, "cell"))


async def test_a_key_is_found_for_its_own_tenant_only(finder):
    found = await finder.keys([("default", "key 1"), ("them", "key 1"), ("them", "key 3"), ("default", "key 2")])
    assert {at: entry.task for at, entry in found.items()} == {
        ("default", "key 1"): an_id(1),
        ("them", "key 1"): an_id(TASKS),
    }
    assert found["default", "key 1"].content != found["them", "key 1"].content


# A bound on time, since that is what it is about: it was minutes before, with the interpreter's lock held throughout.
@pytest.mark.timeout(20)
async def test_looking_for_thousands_of_keys_costs_no_more_than_for_one(finder):
    keys = [("default", os.urandom(12).hex()) for _ in range(60_000)]
    assert await finder.keys([*keys, ("default", "key 7")]) == await finder.keys([("default", "key 7")])


class Remembered:
    """A life in a journal, and a read model that knows it up to some record."""

    def __init__(self, tasks=40):
        self.disk = MemoryDisk("cell-1")
        self.life = Life(MemoryJournal(self.disk), now_ns=id_time_ns(an_id(0)))
        self.life.go_on(tasks)
        self.model = MemoryReadModel()

    def know(self, records):
        projection = Projection(State())
        for record in self.disk.records[:records]:
            projection.fold(record)
        tasks, workers = projection.take()
        self.model.clear()
        self.model.write(Portion(0, Reached(projection.state.sequence, 1), tasks, workers))

    def finder(self, **changed):
        given = {
            "open_reader": lambda: MemoryJournal(self.disk),
            "open_read_model": self.model.opened,
            "state": None,
            **changed,
        }
        return TaskFinder(**given)


@pytest.mark.parametrize("known", [0, 1, 17, 60, 1_000])
async def test_tasks_are_found_whole_wherever_they_are_remembered(known):
    past = Remembered()
    past.know(known)
    ids = [an_id(number) for number in range(1, 42)]
    whole = {task.id: task for task in await TaskFinder(lambda: MemoryJournal(past.disk)).tasks(ids)}
    assert len(whole) == 40
    found = {task.id: task for task in await past.finder().tasks(ids)}
    # The one put together of its own events does not know its place among others.
    assert {task.id: msgspec.structs.replace(task, order=0, due_ns=0) for task in found.values()} == {
        task.id: msgspec.structs.replace(task, order=0, due_ns=0) for task in whole.values()
    }
    assert found[an_id(1)].parameters == b'{"n":1}'
    assert found[an_id(1)].result == b'"done"'
    assert not any(task.contents_gone for task in found.values())
    (one,) = await past.finder().tasks([an_id(7)])
    assert one.state is TaskState.DEAD
    assert await past.finder().tasks([]) == []


async def test_only_what_the_read_model_does_not_know_is_looked_for_in_the_journal():
    past = Remembered()
    past.know(1_000)
    journal = Watched(past.disk)
    finder = past.finder(open_reader=lambda: journal)
    assert len(await finder.tasks([an_id(20)])) == 1
    assert await finder.tasks([an_id(999)]) == []
    assert await finder.keys([("default", "nobody's")]) == {}
    assert 0 < len(journal.seen) < len(past.disk.records) / 2


async def test_after_compaction_a_task_is_shown_without_its_contents_and_its_outcome_says_so():
    past = Remembered()
    past.know(1_000)
    until = past.disk.records[60].first
    while past.life.journal.compact(until) < until:
        pass
    found = await past.finder().tasks([an_id(1), an_id(39), an_id(7)])
    old, dead, young = sorted(found, key=lambda task: task.id)
    assert (old.state, old.parameters, old.result, old.contents_gone) == (TaskState.COMPLETED, b"", b"", True)
    assert (young.parameters, young.result, young.contents_gone) == (b'{"n":39}', b'"done"', False)
    assert dead.failure is not None
    outcomes = await past.finder().outcomes([an_id(1), an_id(39), an_id(7)], "default")
    gone, failed, kept = sorted(outcomes, key=lambda outcome: outcome.task)
    assert gone.state is TaskState.COMPLETED
    assert gone.failure is not None
    assert (gone.failure.kind, gone.failure.permanent) == ("expired", True)
    assert (kept.result, kept.failure) == (b'"done"', None)
    assert failed.failure == dead.failure
    assert await past.finder().outcomes([an_id(1)], "them") == []


def compacted(tasks=40, record=60):
    """A life of which the journal has lost the beginning, and from which task on it is all there."""
    past = Remembered(tasks)
    until = past.disk.records[record].first
    while past.life.journal.compact(until) < until:
        pass
    return past


class Watched(MemoryJournal):
    """Notes which records were read."""

    def __init__(self, disk):
        super().__init__(disk)
        self.seen = []

    def read(self, first=None, last=None):
        for record in super().read(first, last):
            self.seen.append(record.first)
            yield record

    def close(self):
        """It is looked at afterwards."""


def forgetful(hours=200, forgotten=150):
    """A task an hour, of which the read model has forgotten those of the first hours; each takes a moment."""
    past = Remembered(tasks=0)
    for number in range(1, hours + 1):
        past.life.now_ns = id_time_ns(an_id_at(number))
        past.life.tell(attach, "w1", granted=1_000)
        past.life.tell(submit, replace(a_spec(number, parameters=b'{"n":%d}' % number), id=an_id_at(number)))
        past.life.bind()
        past.life.now_ns += 1_000_000
        past.life.tell(say, "w1", reports=[replace(completed(number), task=an_id_at(number))])
    past.know(len(past.disk.records))
    while past.model.forget(id_time_ns(an_id_at(forgotten + 1)), 10):
        pass
    return past


def an_id_at(hour, number=0):
    return make_id(id_time_ns(an_id(0)) + hour * 3600 * SECOND_NS, number.to_bytes(10, "big"))


async def test_what_the_read_model_has_forgotten_is_found_in_the_journal():
    past = forgetful()
    assert past.model.tasks([an_id_at(7)]) == []
    journal = Watched(past.disk)
    finder = past.finder(open_reader=lambda: journal)
    task = await finder.task(an_id_at(7))
    assert (task.state, task.parameters, task.result) == (TaskState.COMPLETED, b'{"n":7}', b'"done"')
    assert [outcome.task for outcome in await finder.outcomes([an_id_at(150), an_id_at(151)], "default")] == [
        an_id_at(151),
        an_id_at(150),
    ]


async def test_what_is_new_does_not_make_the_journal_be_read():
    past = forgetful()
    journal = Watched(past.disk)
    finder = past.finder(open_reader=lambda: journal)
    # Younger than all that was forgotten, whatever the client's clock says.
    new = [an_id_at(hour, number) for hour in (153, 200, 300) for number in range(1, 100)]
    assert await finder.outcomes(new, "default") == []
    assert journal.seen == []
    # Nobody has it, and it could have been forgotten: only as far as that goes.
    assert await finder.tasks([an_id_at(140, 1)]) == []
    read = [record for record in past.disk.records if record.first in set(journal.seen[20:])]
    assert 0 < len(read) < 4 * 15 + 20
    with pytest.raises(NotRemembered, match=f"^there is no task {an_id_at(140, 1)} in this cell$"):
        await finder.task(an_id_at(140, 1))


async def test_one_that_ended_long_after_it_came_is_found_by_its_submission():
    past = forgetful()
    past.model.clear()
    rows = [a_row(500, ended_ns=id_time_ns(an_id_at(7)))]
    past.model.write(Portion(0, Reached(past.life.tail[0] - 1, 1), rows))
    # All that is known of what was forgotten is roughly so: this one ended a moment after what is there.
    task = await past.finder().task(an_id_at(7))
    assert task.state is TaskState.COMPLETED


async def test_a_read_model_that_has_nothing_left_may_have_forgotten_everything():
    past = forgetful()
    while past.model.forget(2**62, 100):
        pass
    assert past.model.oldest_ns() == 0
    assert [task.id for task in await past.finder().tasks([an_id_at(199), an_id_at(199, 1)])] == [an_id_at(199)]


async def test_of_what_nobody_can_remember_it_is_not_said_that_it_never_was():
    past = forgetful()
    cut = next(record.first for record in past.disk.records if record.time_ns >= id_time_ns(an_id_at(100)))
    while past.life.journal.compact(cut) < cut:
        pass
    finder = past.finder()
    assert (await finder.task(an_id_at(120))).result == b'"done"'
    for lost in (an_id_at(7), an_id_at(99, 5)):
        with pytest.raises(NotRemembered, match=f"^if task {lost} was ever .* not remembered any more"):
            await finder.task(lost)
    # It may be said again all the same: then it is new.
    assert await finder.outcomes([an_id_at(7)], "default") == []
    for new in (an_id_at(120, 1), an_id_at(180, 1)):
        with pytest.raises(NotRemembered, match=r"^there is no task"):
            await finder.task(new)


async def test_while_the_read_model_is_made_anew_the_journal_is_read_from_where_the_task_can_be():
    past = forgetful()
    past.know(4)
    journal = Watched(past.disk)
    finder = past.finder(open_reader=lambda: journal)
    assert (await finder.task(an_id_at(190))).result == b'"done"'
    assert len(journal.seen) < 150, "11 hours of 200, twice, and where they begin"
    journal.seen.clear()
    assert await finder.outcomes([an_id_at(300)], "default") == []
    assert len(journal.seen) < 20


def unavailable():
    raise ReadModelUnavailable("locked")


OLD_KEY = [("default", "a key of long ago")]


@pytest.mark.parametrize("without", [{"open_read_model": unavailable}, {"open_read_model": None}, {}])
async def test_what_may_have_been_before_the_journals_beginning_is_not_taken_for_new(without):
    # Without a read model, or with one that was begun anew and has not come so far: both are empty here.
    finder = compacted().finder(**without)
    with pytest.raises(CannotTell, match=r"look at the alarms of the follower"):
        await finder.outcomes([an_id(1)], "default")
    with pytest.raises(CannotTell):
        await finder.tasks([an_id(40), an_id(1)])
    with pytest.raises(CannotTell):
        await finder.keys(OLD_KEY)


async def test_what_the_journal_has_or_must_have_needs_no_read_model():
    past = Remembered()
    past.life.now_ns += 2 * 3600 * SECOND_NS
    until = past.life.tail[0]
    past.life.go_on(3)
    while past.life.journal.compact(until) < until:
        pass
    finder = past.finder(open_read_model=unavailable)
    assert [task.id for task in await finder.tasks([an_id(42)])] == [an_id(42)]
    # An id that was made hours after the journal's first record.
    time_ms = (past.life.now_ns + 2 * 3600 * SECOND_NS) // 1_000_000
    new = f"{time_ms >> 16:08x}-{time_ms & 0xFFFF:04x}-7000-8000-000000000000"
    assert await finder.tasks([new]) == []
    assert [outcome.task for outcome in await finder.outcomes([an_id(42), new], "default")] == [an_id(42)]
    with pytest.raises(CannotTell):
        await finder.keys(OLD_KEY)


async def test_from_where_the_read_model_reaches_the_journal_there_is_an_answer():
    past = compacted()
    first = past.life.journal.base().next
    rows = [a_row(1, idempotency_key="known")]
    past.model.write(Portion(0, Reached(first - 2, 1), rows))
    assert len(await past.finder().tasks([an_id(1)])) == 1, "what is found is no news"
    assert len(await past.finder().keys([("default", "known")])) == 1
    for question in (past.finder().tasks([an_id(2)]), past.finder().keys(OLD_KEY)):
        with pytest.raises(CannotTell, match=f"has only come to {first - 2}"):
            await question
    past.model.write(Portion(first - 2, Reached(first - 1, 1)))
    assert await past.finder().tasks([an_id(2)]) == []
    past.model.write(Portion(first - 1, Reached(past.life.tail[0] - 1, 1)))
    assert await past.finder().keys(OLD_KEY) == {}, "nor is it that of one which came before and has ended since"


async def test_a_task_whose_end_alone_is_left_and_not_known_yet_is_not_taken_for_new():
    past = Remembered()
    # The journal is cut between a task's submission and its end, and the read model knows nothing of what is behind the cut.
    submits = [record for record in past.disk.records if b"TaskSubmitted" in record.events[0]]
    cut = next(b for a, b in itertools.pairwise(past.disk.records) if a is submits[20])
    past.know(past.disk.records.index(cut))
    while past.life.journal.compact(cut.first) < cut.first:
        pass
    assert past.model.reached().sequence == cut.first - 1
    with pytest.raises(CannotTell):
        await past.finder().outcomes([an_id(21)], "default")
    assert {task.id for task in await past.finder().tasks([an_id(19), an_id(22)])} == {an_id(19), an_id(22)}


@pytest.mark.parametrize("known", [0, 1_000])
async def test_a_large_result_that_was_swept_is_told_like_one_that_was_compacted(known):
    past = Remembered(tasks=1)
    for number, blob in ((2, "a" * 64), (3, "b" * 64)):
        past.life.tell(submit, a_spec(number))
        past.life.bind()
        past.life.tell(say, "w1", reports=[completed(number, result=b"", result_blob=blob)])
    past.know(known)
    ids = [an_id(1), an_id(2), an_id(3)]
    assert not any(task.contents_gone for task in await past.finder().tasks(ids))
    finder = past.finder(has_blob=lambda digest: digest == "b" * 64)
    assert {task.id: task.contents_gone for task in await finder.tasks(ids)} == {
        ids[0]: False,
        ids[1]: True,
        ids[2]: False,
    }
    failures = {outcome.task: outcome.failure for outcome in await finder.outcomes(ids, "default")}
    assert failures[ids[0]] is failures[ids[2]] is None
    assert failures[ids[1]].kind == "expired"
    assert "older than what the journal keeps" in failures[ids[1]].message

    def unavailable(_digest):
        raise BlobUnavailable("planned")

    assert not any(task.contents_gone for task in await past.finder(has_blob=unavailable).tasks(ids))


async def test_an_id_that_came_again_is_the_later_task():
    past = Remembered(tasks=3)
    past.know(1_000)
    past.life.tasks = 0
    past.life.machine.state.tasks.clear()
    past.life.machine.state.finals.clear()
    past.life.go_on(1, step_ns=SECOND_NS)
    (task,) = await past.finder().tasks([an_id(1)])
    assert task.submitted_ns == past.life.now_ns


async def test_without_a_read_model_the_journal_has_to_do():
    past = Remembered()

    def none():
        raise ReadModelUnavailable("there is none yet")

    finder = past.finder(open_read_model=none)
    assert (await finder.tasks([an_id(1)]))[0].result == b'"done"'


async def test_keys_are_those_of_final_tasks_of_late_ones_and_of_old_ones_that_live():
    past = Remembered(tasks=2)
    final = a_row(1, idempotency_key="final", content="0f" * 16)
    past.model.write(Portion(0, Reached(past.life.tail[0] - 1, 1), [final]))
    past.life.tell(submit, with_terms(3, idempotency_key="late"))
    live = a_row(4, idempotency_key="live", state=TaskState.WAITING, parameters=b"{}").task
    young = a_row(5, idempotency_key="young", state=TaskState.WAITING, submitted_ns=live.submitted_ns + 1).task
    state = State(keys_ns=SECOND_NS, tasks={live.id: live, young.id: young})
    state.keys[("default", "kept")] = KeyEntry(an_id(9), b"", live.submitted_ns + SECOND_NS)
    names = [("default", name) for name in ("final", "late", "live", "young", "none")]
    found = await past.finder(state=state).keys(names)
    # The cell has all keys of tasks that are younger than the oldest key that it has: it need not look for them.
    assert {name: entry.task for (_, name), entry in found.items()} == {
        "final": an_id(1),
        "late": an_id(3),
        "live": an_id(4),
    }
    assert found["default", "final"].content == bytes.fromhex("0f" * 16)
    assert found["default", "live"].content == asked_for(with_terms(4))
    assert len(await past.finder(state=State(tasks={live.id: live, young.id: young})).keys(names)) == 4


def ended_late():
    """A task with a key that came while the read model knew everything, and has ended since; nor does the cell have it."""
    past = Remembered(tasks=3)
    past.life.tell(submit, with_terms(41, idempotency_key="late"))
    submitted = past.life.tail[0] - 1
    past.life.go_on(3)
    past.know(len(past.disk.records))
    past.life.tell(say, "w1", reports=[completed(41)])
    past.life.tell(submit, with_terms(42, idempotency_key="later"))
    return past, submitted


ASKED_LATE = [("default", "late"), ("default", "later"), ("default", "none")]


async def test_the_key_of_a_task_that_came_before_and_ended_after_what_the_read_model_knows_is_found_in_the_journal():
    past, submitted = ended_late()
    assert submitted <= past.model.reached().sequence
    found = await past.finder().keys(ASKED_LATE)
    assert {key: entry.task for (_, key), entry in found.items()} == {"late": an_id(41), "later": an_id(42)}
    assert found["default", "late"].content == asked_for(with_terms(41))


async def test_a_key_whose_submit_has_left_the_journal_is_not_taken_for_new_until_the_read_model_knows_it():
    past, submitted = ended_late()
    while past.life.journal.compact(submitted + 1) <= submitted:
        pass
    assert len(await past.finder().keys(ASKED_LATE[1:2])) == 1
    with pytest.raises(CannotTell, match=r"has only come to"):
        await past.finder().keys(ASKED_LATE)
    reached = past.model.reached().sequence
    row = a_row(41, idempotency_key="late")
    past.model.write(Portion(reached, Reached(past.life.tail[0] - 1, 1), [row]))
    assert [entry.task for entry in (await past.finder().keys(ASKED_LATE[:1])).values()] == [an_id(41)]
    assert await past.finder().keys(ASKED_LATE[2:]) == {}


@pytest.mark.parametrize("cell", ["has it", "has all keys since"])
async def test_it_is_looked_for_only_where_the_cell_may_have_forgotten_it(cell):
    past, _ = ended_late()
    state = State(keys_ns=SECOND_NS)
    if cell == "has it":
        task = a_row(41).task
        state.tasks[task.id] = task
    else:
        state.keys["default", "old"] = KeyEntry(an_id(9), b"", id_time_ns(an_id(41)) - 3601 * SECOND_NS)
    read = []

    class Watched(MemoryJournal):
        def read(self, first=None, last=None):
            for record in super().read(first, last):
                read.append(record.last)
                yield record

    finder = TaskFinder(lambda: Watched(past.disk), past.model.opened, state)
    assert set(await finder.keys(ASKED_LATE[1:])) == {ASKED_LATE[1]}
    assert min(read) > past.model.reached().sequence


async def test_the_key_of_a_task_that_has_just_ended_is_found_in_the_cell():
    past = Remembered(tasks=2)
    past.model.write(Portion(0, Reached(past.life.tail[0] - 1, 1)))
    ended = a_row(4, idempotency_key="ended").task
    assert ended.state.final
    found = await past.finder(state=State(tasks={ended.id: ended})).keys([("default", "ended")])
    assert [entry.task for entry in found.values()] == [ended.id]
