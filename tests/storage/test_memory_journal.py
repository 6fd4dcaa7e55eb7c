import pytest

from merit.model.record import Tail, after
from merit.ports.journal import Fenced, JournalUnavailable, LeaderElsewhere, OutcomeUnknown
from merit.storage.memory_journal import FaultPlan, MemoryDisk, MemoryJournal, PendingAppend
from merit.testing.journal_contract import CELL, JournalContract, batch


class TestMemoryJournal(JournalContract):
    @pytest.fixture
    def open_journal(self):
        disk = MemoryDisk(CELL)
        return lambda: MemoryJournal(disk)


def reopened(disk: MemoryDisk) -> tuple[MemoryJournal, Tail]:
    journal = MemoryJournal(disk)
    return journal, journal.lead("next", 2)


def test_a_crash_loses_what_is_pending_and_nothing_else():
    disk = MemoryDisk(CELL)
    journal = MemoryJournal(disk, deferred=True)
    tail = journal.lead("a", 1)
    records = []
    for _ in range(3):
        record = batch(tail)
        tail = after(record)
        pending = journal.append(record)
        assert isinstance(pending, PendingAppend)
        records.append((record, pending))
    assert journal.pending == 3
    assert journal.tail().next == 1
    journal.settle(1)
    assert records[0][1].done
    assert not records[1][1].done
    journal.crash()
    assert isinstance(records[1][1].error, JournalUnavailable)
    with pytest.raises(JournalUnavailable, match="crashed"):
        journal.append(batch(tail))
    again, tail = reopened(disk)
    assert list(again.read()) == [records[0][0]]
    assert tail.next == 2


async def test_a_deferred_append_can_be_awaited():
    disk = MemoryDisk(CELL)
    journal = MemoryJournal(disk, deferred=True)
    pending = journal.append(batch(journal.lead("a", 1)))
    assert isinstance(pending, PendingAppend)
    journal.settle()
    await pending
    pending = journal.append(batch(journal.tail()))
    assert isinstance(pending, PendingAppend)
    disk.depose()
    journal.settle()
    with pytest.raises(Fenced, match="leads no more"):
        await pending
    assert len(disk.records) == 1


@pytest.mark.parametrize(
    ("plan", "error", "stored"),
    [
        (FaultPlan(refused=frozenset({2})), JournalUnavailable, 1),
        (FaultPlan(lost=frozenset({2})), OutcomeUnknown, 1),
        (FaultPlan(stored=frozenset({2})), OutcomeUnknown, 2),
    ],
)
def test_planned_faults_stop_the_journal_and_opening_anew_tells(plan, error, stored):
    disk = MemoryDisk(CELL, plan)
    journal = MemoryJournal(disk)
    record = batch(journal.lead("a", 1))
    journal.append(record)
    with pytest.raises(error, match="append 2"):
        journal.append(batch(after(record)))
    for use in (journal.tail, lambda: journal.append(batch(after(record))), lambda: journal.lead("a", 2)):
        with pytest.raises(JournalUnavailable, match="append 2"):
            use()
    with pytest.raises(LeaderElsewhere):
        MemoryJournal(disk).lead("b", 3)
    journal.close()
    again, tail = reopened(disk)
    assert tail.next == stored + 1
    again.append(batch(tail))
    assert len(disk.records) == stored + 1


def test_a_deposed_leader_is_fenced():
    disk = MemoryDisk(CELL)
    old = MemoryJournal(disk)
    tail = old.lead("old", 1)
    disk.depose()
    new, new_tail = reopened(disk)
    with pytest.raises(Fenced, match=r"leads no more|does so no more"):
        old.append(batch(tail))
    new.append(batch(new_tail))
    old.close()
    new.append(batch(new.tail()))
    assert len(disk.records) == 2
