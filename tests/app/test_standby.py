"""The state that is kept warm, and the lease on which a node leads."""

import asyncio

import pytest

from merit.allocation.catalogue import BUILT_IN
from merit.app import lease as lease_module
from merit.app.lease import Lease
from merit.app.restore import restore
from merit.app.standby import WarmState
from merit.core.codec import FOLD_VERSION, encode_event, encode_state, state_digest
from merit.core.machine import Machine
from merit.core.state import State
from merit.model.commands import StartLeadership
from merit.model.limits import Limits
from merit.model.record import JournalCorrupt, Tail, after, record_hash, seal
from merit.ports.journal import Fenced, JournalUnavailable
from merit.runtime.elapsed import elapsed_s
from merit.storage.memory_journal import MemoryDisk, MemoryJournal
from merit.storage.memory_snapshots import MemorySnapshots
from merit.testing.builders import START_NS, a_spec, attach, submit


class Written:
    """A journal that somebody writes."""

    def __init__(self):
        self.disk = MemoryDisk("cell")
        self.journal = MemoryJournal(self.disk)
        self.tail = self.journal.lead("leader", START_NS)
        self.machine = Machine(State(), BUILT_IN, Limits())
        self.take(self.machine.handle(StartLeadership("default", "cell", 1, "leader"), START_NS))
        self.take(attach(self.machine))
        self.number = 0

    def take(self, decision):
        events = [encode_event(event) for event in decision.events]
        payloads = list(self.machine.take_payloads().values())
        record = seal("cell", self.tail.next, 1, "leader", START_NS, self.tail.last_hash, events, payloads)
        self.journal.append(record)
        self.tail = after(record)
        return record

    def submit(self, count):
        """The last record."""
        numbers = range(self.number + 1, self.number + count + 1)
        self.number += count
        return [self.take(submit(self.machine, a_spec(number))) for number in numbers][-1]


def caught_up(warm):
    while warm.step():
        pass


def test_it_comes_to_the_same_as_a_start_however_it_was_stepped(monkeypatch):
    written = Written()
    written.submit(20)
    snapshots = MemorySnapshots()
    warm = WarmState(MemoryJournal(written.disk), snapshots)
    monkeypatch.setattr("merit.app.standby._STEP_S", 0.0)
    steps = 1
    while warm.step():
        steps += 1
    assert steps > 20, "a record at a time"
    written.submit(5)
    caught_up(warm)
    state = warm.taken(written.tail)
    assert state_digest(state) == state_digest(restore(written.journal, snapshots)[0])


def test_of_an_empty_journal_it_is_the_beginning():
    warm = WarmState(MemoryJournal(MemoryDisk("cell")), MemorySnapshots())
    assert not warm.step()
    assert warm.taken(Tail(epoch=1)).sequence == 0


def test_left_behind_by_compaction_it_begins_anew():
    written = Written()
    written.submit(3)
    snapshots = MemorySnapshots()
    warm = WarmState(MemoryJournal(written.disk), snapshots)
    caught_up(warm)
    last = written.submit(10)
    snapshots.save(last.last, FOLD_VERSION, record_hash(last), encode_state(written.machine.state))
    written.submit(3)
    while written.journal.compact(last.last) < last.first:
        pass
    caught_up(warm)
    assert warm.taken(written.tail).sequence == written.tail.next - 1


def test_a_state_that_is_not_the_journals_is_not_taken():
    written = Written()
    written.submit(3)
    warm = WarmState(MemoryJournal(written.disk), MemorySnapshots())
    caught_up(warm)
    for tail in (Tail(written.tail.next, b"x" * 32, 1), Tail(written.tail.next + 1, written.tail.last_hash, 1)):
        with pytest.raises(JournalCorrupt, match="what was read of it goes to"):
            warm.taken(tail)


@pytest.mark.parametrize("more", [True, False])
def test_a_journal_that_has_lost_its_end_is_read_anew(more, caplog):
    """As after a fail-over to a replica that had not everything: before anything else is there, and afterwards."""
    written, replica, snapshots = Written(), Written(), MemorySnapshots()
    kept, same = written.submit(3), replica.submit(3)
    assert kept == same
    snapshots.save(kept.last, FOLD_VERSION, record_hash(kept), encode_state(written.machine.state))
    warm = WarmState(MemoryJournal(written.disk), snapshots)
    caught_up(warm)
    written.submit(5)
    caught_up(warm)
    if more:
        replica.number += 100
        replica.submit(9)
    written.disk.records[:], tail = replica.disk.records, replica.tail
    while warm.step(tail):
        pass
    assert "it is read anew" in caplog.text
    assert state_digest(warm.taken(tail)) == state_digest(replica.machine.state)


def test_a_journal_that_ends_before_its_snapshot_is_damaged():
    written, snapshots = Written(), MemorySnapshots()
    last = written.submit(5)
    snapshots.save(last.last, FOLD_VERSION, record_hash(last), encode_state(written.machine.state))
    del written.disk.records[-2:]
    tail = after(written.disk.records[-1])
    warm = WarmState(MemoryJournal(written.disk), snapshots)
    for _ in range(10):
        if not warm.step(tail):
            break
    with pytest.raises(JournalCorrupt, match="the journal ends before it"):
        warm.taken(tail)


def test_a_journal_that_was_exchanged_is_noticed(caplog):
    written, other = Written(), Written()
    written.submit(3)
    other.take(attach(other.machine, "w2"))
    other.submit(10)
    reader = MemoryJournal(written.disk)
    warm = WarmState(reader, MemorySnapshots())
    caught_up(warm)
    written.disk.records[:] = other.disk.records
    caught_up(warm)
    assert "it is read anew" in caplog.text
    assert state_digest(warm.taken(other.tail)) == state_digest(other.machine.state)


def test_a_snapshot_of_another_journal_is_noticed():
    written, other, snapshots = Written(), Written(), MemorySnapshots()
    last = written.submit(3)
    other.take(attach(other.machine, "w2"))
    other.submit(10)
    snapshots.save(last.last, FOLD_VERSION, record_hash(last), encode_state(written.machine.state))
    warm = WarmState(MemoryJournal(other.disk), snapshots)
    with pytest.raises(JournalCorrupt, match="does not follow"):
        caught_up(warm)


def test_when_the_journal_is_away_it_goes_on_from_where_it_is():
    written = Written()
    written.submit(5)

    class Flaky(MemoryJournal):
        away = 2

        def read(self, first=None, last=None):
            for place, record in enumerate(super().read(first, last)):
                if place == 2 and self.away:
                    Flaky.away -= 1
                    raise JournalUnavailable("planned")
                yield record

    warm = WarmState(Flaky(written.disk), MemorySnapshots())
    for _ in range(2):
        with pytest.raises(JournalUnavailable):
            warm.step()
    caught_up(warm)
    assert warm.taken(written.tail).sequence == written.tail.next - 1


class Renewed(MemoryJournal):
    """A journal of which only the lease counts. ``answers``: what becomes of the next renewals; then they go well."""

    lease_s = 0.3

    def __init__(self, *answers):
        super().__init__(MemoryDisk("cell"))
        self.answers = list(answers)
        self.count = 0

    async def renew(self):
        self.count += 1
        answer = self.answers.pop(0) if self.answers else None
        if isinstance(answer, float):
            await asyncio.sleep(answer)
        elif answer is not None:
            raise answer


async def a_while(lease, journal, renewals):
    async with asyncio.timeout(10):
        while journal.count < renewals and not lease.lost.done():
            await asyncio.sleep(0.01)


async def test_it_is_renewed_all_the_time_and_tells_until_when_it_holds():
    journal = Renewed()
    told: list[float] = []
    since_s = elapsed_s()
    lease = Lease(journal, since_s)
    lease.tell(told.append)
    assert told == [since_s + 0.3]
    await a_while(lease, journal, 4)
    lease.check()
    assert elapsed_s() - since_s > 0.3
    assert told == sorted(told)
    assert len(told) >= 4
    await lease.end()
    assert lease.lost.cancelled(), "it is renewed no more"


@pytest.mark.parametrize("answer", [JournalUnavailable("planned"), 10.0], ids=["away", "silent"])
async def test_one_renewal_may_fail(answer, monkeypatch):
    monkeypatch.setattr(lease_module, "_AGAIN_S", 0.02)
    monkeypatch.setattr(Renewed, "lease_s", 1.5)
    journal = Renewed(answer)
    lease = Lease(journal, elapsed_s())
    await a_while(lease, journal, 3)
    lease.check()
    await lease.end()


async def test_it_is_lost_when_it_is_over_and_could_not_be_renewed(monkeypatch):
    monkeypatch.setattr(lease_module, "_AGAIN_S", 0.02)
    lease = Lease(Renewed(*[JournalUnavailable("planned")] * 1000), elapsed_s())
    with pytest.raises(JournalUnavailable, match=r"the lease is over, and could not be renewed: planned"):
        await asyncio.wait_for(asyncio.shield(lease.lost), 10)
    with pytest.raises(JournalUnavailable):
        lease.check()
    await lease.end()


async def test_it_is_lost_at_once_when_somebody_else_has_it():
    journal = Renewed(Fenced("planned"))
    lease = Lease(journal, elapsed_s())
    with pytest.raises(Fenced):
        await asyncio.wait_for(asyncio.shield(lease.lost), 10)
    assert journal.count == 1
    await lease.end()
