"""What every adapter of the journal's port must do."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import pytest

from merit.model.record import NO_HASH, RECORD_BYTES_MAX, Record, Tail, after, payload_digests, record_hash, seal
from merit.ports.journal import Fenced, Journal, JournalCompacted, JournalCorrupt, JournalUnavailable, LeaderElsewhere
from merit.storage.verify import verify_journal

OpenJournal = Callable[[], Journal]
"""Opens the same journal once more, as another process would."""

CELL = "contract"
"""The cell whose journal `OpenJournal` opens."""


def batch(
    tail: Tail, events: Sequence[bytes] = (b"event",), payloads: Sequence[bytes] = (), cell: str = CELL
) -> Record:
    """The record of `events` that follows `tail`."""
    return seal(cell, tail.next, tail.epoch, "leader", 1_000, tail.last_hash, events, payloads)


async def put(journal: Journal, record: Record) -> Tail:
    """Appends `record`, waits until it is durable, and returns the tail after it."""
    pending = journal.append(record)
    if pending is not None:
        await pending
    return after(record)


async def fill(journal: Journal, tail: Tail, sizes: Sequence[int]) -> list[Record]:
    """Appends records of so many events each behind `tail`."""
    records = []
    for size in sizes:
        record = batch(tail, [b"event %d" % (tail.next + index) for index in range(size)], [b"payload %d" % tail.next])
        tail = await put(journal, record)
        records.append(record)
    return records


def compact_all(journal: Journal, until: int) -> int:
    """Compacts portion by portion, until nothing more goes; returns where the journal begins then."""
    first = journal.base().next
    while (following := journal.compact(until)) > first:
        first = following
    return first


class JournalContract:
    """Subclass it and override the fixture `open_journal`."""

    @pytest.fixture
    def open_journal(self) -> OpenJournal:
        """Opens the same empty journal of `CELL` again and again; whatever is opened is closed after the test."""
        raise NotImplementedError

    async def test_an_empty_journal_starts_at_one(self, open_journal: OpenJournal) -> None:
        """The first event has sequence 1, and there is nothing before it."""
        journal = open_journal()
        tail = journal.lead("a", 1)
        assert (tail.next, tail.last_hash) == (1, NO_HASH)
        assert tail.epoch >= 1
        assert journal.tail() == tail
        assert list(journal.read()) == []

    async def test_what_is_appended_is_read(self, open_journal: OpenJournal) -> None:
        """Records come back as they were, from the same journal and from one that is opened later."""
        journal = open_journal()
        records = await fill(journal, journal.lead("a", 1), [1, 3, 2, 200])
        assert list(journal.read()) == records
        assert journal.tail() == after(records[-1])
        journal.close()
        later = open_journal()
        tail = later.lead("b", 2)
        assert (tail.next, tail.last_hash) == (207, record_hash(records[-1]))
        assert list(later.read()) == records
        assert [payload_digests(record) for record in later.read()] == [payload_digests(record) for record in records]

    async def test_reading_a_range(self, open_journal: OpenJournal) -> None:
        """A range begins with the record that contains its first sequence, and ends with the one that contains its
        last."""
        journal = open_journal()
        records = await fill(journal, journal.lead("a", 1), [2, 3, 4])
        for first in range(1, 10):
            expected = [record for record in records if record.last >= first]
            assert list(journal.read(first)) == expected
            for last in range(first, 12):
                assert list(journal.read(first, last)) == [record for record in expected if record.first <= last]
        assert list(journal.read(10)) == []
        assert list(journal.read(5, 4)) == [record for record in records if record.last >= 5 and record.first <= 4]

    async def test_epochs_only_grow(self, open_journal: OpenJournal) -> None:
        """Also when the leader before wrote nothing, and when a leader leads anew."""
        epochs = []
        for number in range(3):
            journal = open_journal()
            epochs.append(journal.lead("a", number).epoch)
            epochs.append(journal.lead("a", number).epoch)
            journal.close()
        assert epochs == sorted(set(epochs))

    async def test_a_new_epoch_goes_on_with_the_chain(self, open_journal: OpenJournal) -> None:
        """The whole journal verifies after several leaders."""
        for number in range(3):
            journal = open_journal()
            await fill(journal, journal.lead(f"leader {number}", number), [2, 2])
            journal.close()
        journal = open_journal()
        journal.lead("last", 9)
        seen: list[tuple[int, int]] = []
        verification = verify_journal(journal, progress=lambda records, events: seen.append((records, events)))
        assert verification.ok
        assert (verification.records, verification.events, verification.payloads) == (6, 12, 6)
        assert (verification.first, verification.last, verification.epochs) == (1, 12, 3)
        assert verification.cell == CELL
        assert verification.last_hash == journal.tail().last_hash
        assert seen[-1] == (6, 12)

    async def test_only_one_leads(self, open_journal: OpenJournal) -> None:
        """A second one is refused and told who leads; it can lead once the first has closed."""
        first, second = open_journal(), open_journal()
        tail = first.lead("the first one", 1)
        with pytest.raises(LeaderElsewhere, match="the first one") as refused:
            second.lead("the second one", 2)
        assert refused.value.holder == "the first one"
        tail = await put(first, batch(tail))
        first.close()
        assert second.lead("the second one", 3).next == tail.next

    @pytest.mark.parametrize("how", ["gap", "overlap", "chain", "old epoch", "new epoch", "cell"])
    async def test_what_does_not_fit_is_fenced(self, open_journal: OpenJournal, how: str) -> None:
        """Nothing of it is stored."""
        journal = open_journal()
        records = await fill(journal, journal.lead("a", 1), [2, 2])
        tail = after(records[-1])
        misfit = {
            "gap": batch(Tail(tail.next + 1, tail.last_hash, tail.epoch)),
            "overlap": batch(Tail(tail.next - 1, tail.last_hash, tail.epoch)),
            "chain": batch(Tail(tail.next, records[0].previous, tail.epoch)),
            "old epoch": batch(Tail(tail.next, tail.last_hash, tail.epoch - 1)),
            "new epoch": batch(Tail(tail.next, tail.last_hash, tail.epoch + 1)),
            "cell": batch(tail, cell="another"),
        }[how]
        with pytest.raises(Fenced, match=str(misfit.first)):
            await put(journal, misfit)
        journal.close()
        again = open_journal()
        again.lead("b", 2)
        assert list(again.read()) == records

    async def test_who_does_not_lead_cannot_append(self, open_journal: OpenJournal) -> None:
        """Not before `lead`, and not after `close`."""
        journal = open_journal()
        with pytest.raises((Fenced, JournalUnavailable)):
            await put(journal, batch(Tail()))
        tail = journal.lead("a", 1)
        journal.close()
        with pytest.raises(JournalUnavailable):
            await put(journal, batch(tail))
        with pytest.raises(JournalUnavailable):
            journal.tail()
        journal.close()

    async def test_payloads_and_sizes(self, open_journal: OpenJournal) -> None:
        """Empty and large events and payloads, and every byte value, come back as they were."""
        journal = open_journal()
        tail = journal.lead("a", 1)
        before = journal.size_bytes()
        everything = bytes(range(256))
        record = batch(tail, [b"", everything, everything * 4096], [b"", everything * 8192])
        await put(journal, record)
        assert list(journal.read()) == [record]
        assert journal.size_bytes() >= before + 3 * 1024 * 1024
        assert RECORD_BYTES_MAX > 3 * 1024 * 1024

    async def test_reading_while_writing(self, open_journal: OpenJournal) -> None:
        """A reader that has begun goes on unharmed while records are appended."""
        journal = open_journal()
        records = await fill(journal, journal.lead("a", 1), [1] * 5)
        reading = journal.read()
        seen = [next(reading)]
        records += await fill(journal, after(records[-1]), [1] * 5)
        seen += list(reading)
        assert seen == records[: len(seen)]
        assert len(seen) >= 5

    async def test_without_compaction_it_begins_at_one(self, open_journal: OpenJournal) -> None:
        """There is no record before the first one."""
        journal = open_journal()
        journal.lead("a", 1)
        assert journal.base() == Tail()
        assert journal.compact(100) == 1
        await fill(journal, journal.tail(), [2])
        assert journal.compact(100) == 1  # the last record always stays
        assert journal.compact(0) == 1
        assert journal.base() == Tail()

    async def test_what_is_left_after_compaction(self, open_journal: OpenJournal) -> None:
        """Whole records go, and only those before the sequence; what is left can be read and verified."""
        journal = open_journal()
        records = await fill(journal, journal.lead("a", 1), [2, 3, 2, 4, 1, 2])
        compact_all(journal, 9)  # in the middle of the fourth, which therefore stays
        for _ in range(2):
            assert journal.base() == after(records[2])
            assert list(journal.read()) == list(journal.scan()) == records[3:]
            for sequence in (8, 11):
                assert list(journal.read(sequence)) == list(journal.scan(sequence)) == records[3:]
            assert list(journal.read(12, 13)) == records[4:]
            assert list(journal.read(100)) == []
            for sequence in (1, 5, 7):
                for read in (journal.read, journal.scan):
                    with pytest.raises(JournalCompacted, match=f"sequence {sequence} .* begins at 8") as gone:
                        list(read(sequence))
                    assert (gone.value.wanted, gone.value.first) == (sequence, 8)
            verification = verify_journal(journal)
            assert verification.ok
            assert (verification.first, verification.last, verification.records) == (8, 14, 3)
            journal.close()
            journal = open_journal()
            assert journal.lead("b", 2).next == 15

    async def test_a_compacted_journal_goes_on(self, open_journal: OpenJournal) -> None:
        """Appends follow the tail as ever; all but the last record can go, also under the next leader."""
        journal = open_journal()
        records = await fill(journal, journal.lead("a", 1), [1] * 5)
        compact_all(journal, 100)
        assert list(journal.read()) == records[-1:]
        records += await fill(journal, after(records[-1]), [1] * 3)
        journal.close()
        journal = open_journal()
        tail = journal.lead("b", 2)
        assert (tail.next, tail.last_hash) == (9, record_hash(records[-1]))
        records += await fill(journal, tail, [2])
        assert list(journal.read()) == records[4:]
        assert compact_all(journal, 8) == 8
        assert list(journal.read()) == records[7:]
        assert verify_journal(journal).ok

    async def test_compaction_goes_in_portions(self, open_journal: OpenJournal) -> None:
        """Between any two of them the journal is whole, whoever stops there; what was begun is gone on with."""
        journal = open_journal()
        records = await fill(journal, journal.lead("a", 1), [1] * 700)
        begins = [1]
        while (first := journal.compact(600)) > begins[-1]:
            begins.append(first)
            assert first <= 600
            journal.close()
            journal = open_journal()
            journal.lead("b", 2)
            assert journal.base() == after(records[first - 2])
            assert next(journal.read()) == records[first - 1]
            assert journal.tail().next == 701
        assert begins[-1] == 600
        assert len(begins) > 2
        assert verify_journal(journal).records == 101

    async def test_compaction_while_reading(self, open_journal: OpenJournal) -> None:
        """Who reads what is being removed reads on, or is told; never is a gap passed over, or damage seen."""
        journal = open_journal()
        records = await fill(journal, journal.lead("a", 1), [1] * 700)
        ways: list[Iterator[Record | JournalCorrupt]] = [journal.read(), journal.scan()]
        begun = [[next(way)] for way in ways]
        compact_all(journal, 690)
        for way, seen in zip(ways, begun, strict=True):
            try:
                seen.extend(way)
            except JournalCompacted as gone:
                assert gone.first == 690
            assert seen == records[: len(seen)]
        assert list(journal.read()) == records[689:]

    async def test_who_does_not_lead_cannot_compact(self, open_journal: OpenJournal) -> None:
        """Not before `lead`, and not after `close`."""
        journal = open_journal()
        with pytest.raises((Fenced, JournalUnavailable)):
            journal.compact(2)
        journal.lead("a", 1)
        journal.close()
        with pytest.raises(JournalUnavailable):
            journal.compact(2)
        with pytest.raises(JournalUnavailable):
            journal.base()
