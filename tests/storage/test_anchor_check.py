"""Altered journals whose hashes were all computed anew are found out by what was anchored before."""

import pytest

from merit.model.record import Record, Tail, after, seal
from merit.model.trail import SignedAnchor
from merit.ports.journal import JournalCompacted, JournalCorrupt
from merit.runtime.anchoring import Anchoring
from merit.storage.history import History
from merit.storage.key_file import KeyFile
from merit.storage.memory_archive import MemoryArchive
from merit.storage.memory_journal import MemoryDisk, MemoryJournal
from merit.storage.verify import verify_journal
from merit.testing.archive_contract import ARCHIVED_CELL, some_records, without_payloads
from merit.testing.journal_contract import compact_all


@pytest.fixture
def signer(tmp_path):
    return KeyFile(tmp_path / "key")


def journal_of(records: list[Record]) -> MemoryJournal:
    disk = MemoryDisk(ARCHIVED_CELL)
    for record in records:
        disk.store(record)
    return MemoryJournal(disk)


def archive_of(records, signer, until=None, records_max=4):
    """With anchors over the records up to `until`."""
    archive, anchoring = MemoryArchive(ARCHIVED_CELL), Anchoring(None, signer, records_max)
    for record in records[:until]:
        if (anchor := anchoring.take(record)) is not None:
            archive.add_anchor(anchor)
    if (anchor := anchoring.flush()) is not None:
        archive.add_anchor(anchor)
    return archive


def rechained(records, number, events):
    """All records, one with other events, and every hash after it computed anew."""
    altered: list[Record] = []
    tail = Tail()
    for index, record in enumerate(records):
        content = events if index == number else record.events
        altered.append(
            seal(record.cell, tail.next, record.epoch, record.holder, record.time_ns, tail.last_hash, content, [])
        )
        tail = after(altered[-1])
    return altered


def problems(records, archive, *keys, compacted=0):
    journal = journal_of(records)
    if compacted:
        journal.lead("a", 1)
        archive.add_segment(records[:compacted])
        compact_all(journal, records[compacted].first)
    return [
        (problem.sequence, problem.reason) for problem in verify_journal(journal, archive=archive, keys=keys).problems
    ]


@pytest.mark.parametrize("compacted", [0, 6])
def test_a_whole_journal_is_told_up_to_where_it_is_anchored(signer, compacted):
    records = some_records(14)
    archive = archive_of(records, signer, 11)
    journal = journal_of(records)
    if compacted:
        journal.lead("a", 1)
        archive.add_segment(records[: compacted + 3])
        compact_all(journal, records[compacted].first)
    found = verify_journal(journal, archive=archive, keys=[signer.public_key])
    assert found.ok
    assert (found.first, found.last, found.records, found.events) == (1, 28, 14, 28)
    assert (found.anchored, found.anchors, found.keys) == (22, 3, (signer.public_key.hex(),))
    assert found.payloads == 14 - compacted


def test_without_anchors_it_says_so(signer):
    found = verify_journal(journal_of(some_records(3)), archive=MemoryArchive(ARCHIVED_CELL), keys=[signer.public_key])
    assert found.ok
    assert (found.anchored, found.anchors, found.keys) == (0, 0, ())


@pytest.mark.parametrize("number", range(11))
def test_an_altered_journal_with_new_hashes_is_found_out(signer, number):
    records = some_records(14)
    altered = rechained(records, number, [b"another", b"event"])
    assert verify_journal(journal_of(altered)).ok  # by itself it is whole
    found = problems(altered, archive_of(records, signer, 11), signer.public_key)
    assert found[0][0] == [1, 9, 17][number // 4]
    assert "the journal was altered" in found[0][1]


def test_what_is_not_anchored_yet_can_be_altered_unseen(signer):
    """Which is why it says up to where it is anchored."""
    records = some_records(14)
    assert problems(rechained(records, 12, [b"x", b"y"]), archive_of(records, signer, 11)) == []


def test_altered_segments_are_found_out(signer):
    records = some_records(14)
    altered = rechained(records, 2, [b"another", b"event"])
    archive = archive_of(records, signer)
    assert problems(records, archive_of(records, signer), compacted=9) == []
    found = problems(altered, archive, compacted=9)
    assert [sequence for sequence, _ in found] == [1, 9, 17, 25]


def test_records_that_begin_within_an_anchor_are_compared_by_its_end(signer):
    """What is before has been dropped."""
    records = some_records(14)
    archive = archive_of(records, signer)
    for altered, expected in ((records, []), (rechained(records, 7, [b"x", b"y"]), [9, 17, 25])):
        journal = journal_of(altered)
        journal.lead("a", 1)
        compact_all(journal, 12)
        found = verify_journal(journal, archive=archive)
        assert [problem.sequence for problem in found.problems] == expected


def test_a_lost_end_is_noticed(signer):
    records = some_records(14)
    found = problems(records[:9], archive_of(records, signer, 11))
    assert found[-1][0] == 19
    assert "anchored up to 22: its end was lost" in found[-1][1]


def test_other_keys_and_signatures_do_not_pass(signer, tmp_path):
    records = some_records(8)
    other = KeyFile(tmp_path / "other")
    assert problems(records, archive_of(records, other)) == []
    assert problems(records, archive_of(records, other), signer.public_key, other.public_key) == []
    found = problems(records, archive_of(records, other), signer.public_key)
    assert len(found) == 1  # said once for each key
    assert other.public_key.hex() in found[0][1]
    forged = MemoryArchive(ARCHIVED_CELL)
    for one in archive_of(records, other).anchors(1, 16):
        forged.add_anchor(SignedAnchor(one.data, one.signature, signer.public_key))
    assert ["does not have the signature" in reason for _, reason in problems(records, forged, signer.public_key)] == [
        True,
        True,
    ]


def test_a_missing_anchor_is_noticed(signer):
    records = some_records(14)
    archive = archive_of(records, signer)
    del archive._anchors[1]
    found = problems(records, archive)
    assert [sequence for sequence, _ in found] == [17]
    assert "does not follow" in found[0][1]


# --- a journal with its archive


def test_a_history_reads_what_was_archived_and_what_is_left(signer):
    records = some_records(14)
    journal, archive = journal_of(records), MemoryArchive(ARCHIVED_CELL)
    history = History(journal, archive)
    assert history.base() == Tail()
    archive.add_segment(records[:9])
    journal.lead("a", 1)
    compact_all(journal, records[6].first)
    whole = without_payloads(records[:6]) + records[6:]
    assert history.base().next == 1
    assert history.tail() == journal.tail()
    assert history.size_bytes() > journal.size_bytes()
    assert history.cell == ARCHIVED_CELL
    for first in range(1, 30):
        for last in (None, *range(first, 30)):
            expected = [one for one in whole if one.last >= first and (last is None or one.first <= last)]
            assert list(history.read(first, last)) == expected
            assert list(history.scan(first, last)) == expected
    assert list(history.read()) == whole
    history.close()
    assert list(history.read()) == whole


def test_a_history_goes_on_where_compaction_overtakes_it(signer):
    records = some_records(14)
    journal, archive = journal_of(records), MemoryArchive(ARCHIVED_CELL)
    reading = History(journal, archive).read()
    seen = [next(reading)]
    archive.add_segment(records[:9])
    journal.lead("a", 1)
    compact_all(journal, records[8].first)
    seen += reading
    assert [record.first for record in seen] == [record.first for record in records]


def test_a_history_says_where_it_begins(signer):
    records = some_records(14)
    journal, archive = journal_of(records), MemoryArchive(ARCHIVED_CELL)
    journal.lead("a", 1)
    archive.add_segment(records[4:9])
    compact_all(journal, records[8].first)
    history = History(journal, archive)
    assert history.base() == Tail(9, records[4].previous, 0)
    with pytest.raises(JournalCompacted, match=r"sequence 3 .* begins at 9"):
        list(history.read(3))
    assert len(list(history.read())) == 10
    assert verify_journal(journal, archive=archive).ok


def test_what_is_missing_between_the_two_is_damage(signer):
    records = some_records(14)
    journal, archive = journal_of(records), MemoryArchive(ARCHIVED_CELL)
    journal.lead("a", 1)
    archive.add_segment(records[2:5])
    compact_all(journal, records[8].first)
    with pytest.raises(JournalCorrupt, match="a gap: the record starts at 17, but 11 was expected"):
        list(History(journal, archive).read())
    assert [problem.sequence for problem in verify_journal(journal, archive=archive).problems] == [17]
