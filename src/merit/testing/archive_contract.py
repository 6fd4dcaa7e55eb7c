"""What every adapter of the archive's port must do."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from hashlib import sha256
from typing import Final

import pytest

from merit.model.record import NO_HASH, Record, Tail, after, record_hash, seal, verify
from merit.model.trail import SignedAnchor, decode_anchor, encode_anchor, make_anchor
from merit.ports.archive import Archive, Archived
from merit.storage.segments import SEGMENT_BYTES_MAX, SEGMENT_RECORDS_MAX

OpenArchive = Callable[[], Archive]
"""Opens the same archive once more, as another process would."""

ARCHIVED_CELL: Final = "archived"
"""The cell whose archive `OpenArchive` opens."""

_BYTES_MAX: Final = 2**62


def some_records(count: int, tail: Tail | None = None, size: int = 20, cell: str = ARCHIVED_CELL) -> list[Record]:
    """Records that follow `tail`, of two events each; record n of a journal is of second n."""
    tail = tail or Tail(epoch=1)
    records = []
    for _ in range(count):
        events = [
            b"%d:" % (tail.next + index) + sha256(b"%d" % (tail.next + index)).digest() * (size // 32 + 1)
            for index in (0, 1)
        ]
        time_ns = (tail.next + 1) // 2 * 1_000_000_000
        records.append(seal(cell, tail.next, tail.epoch, "leader", time_ns, tail.last_hash, events, [b"payload"]))
        tail = after(records[-1])
    return records


def an_anchor(records: Sequence[Record], before: SignedAnchor | None = None) -> SignedAnchor:
    """The anchor over records, behind another one. Its signature is none: that is for others to look at."""
    first, last = records[0], records[-1]
    hashes = [record_hash(record) for record in records]
    anchor = make_anchor(last.cell, first.first, last.last, last.time_ns, hashes, before)
    return SignedAnchor(encode_anchor(anchor), bytes(64), bytes(32))


def without_payloads(records: Sequence[Record]) -> list[Record]:
    """As they come out of an archive."""
    return [
        Record(r.cell, r.first, r.epoch, r.holder, r.time_ns, r.previous, r.root, r.count, r.events, ())
        for r in records
    ]


class ArchiveContract:
    """Subclass it and override the fixture `open_archive`."""

    @pytest.fixture
    def open_archive(self) -> OpenArchive:
        """Opens the same empty archive of `ARCHIVED_CELL` again and again; whatever is opened is closed after the test."""
        raise NotImplementedError

    def test_at_first_it_is_empty(self, open_archive: OpenArchive) -> None:
        """Also for those who only read, and come before anybody has written."""
        archive = open_archive()
        assert archive.held() == Archived()
        assert list(archive.records(1, 100)) == []
        assert list(archive.anchors(1, 100)) == []
        assert archive.last_anchor() is None
        assert archive.drop(2**62, 0) == 0
        archive.close()
        archive.close()

    def test_records_come_back_without_payloads(self, open_archive: OpenArchive) -> None:
        """They are whole: chain and roots verify. They are seen by who has it open, and by who opens it later."""
        writer, reader = open_archive(), open_archive()
        records = some_records(50)
        assert reader.held() == Archived()
        writer.add_segment(records[:20])
        writer.add_segment(records[20:])
        for archive in (writer, reader, open_archive()):
            held = archive.held()
            assert (held.first, held.last, held.anchored) == (1, 100, 0)
            assert held.segments_bytes > 0
            tail = Tail(epoch=1)
            found = list(archive.records(1, 100))
            for record in found:
                tail = verify(record, tail)
            assert found == without_payloads(records)
            assert tail == after(records[-1])

    def test_reading_a_range(self, open_archive: OpenArchive) -> None:
        """The records that hold any of the events; what is not there is left out."""
        archive = open_archive()
        records = some_records(12)
        for start in range(0, 12, 3):
            archive.add_segment(records[start : start + 3])
        plain = without_payloads(records)
        for first in range(1, 26):
            assert list(archive.records(first, first - 1)) == []
            for last in range(first, 27):
                expected = [record for record in plain if record.last >= first and record.first <= last]
                assert list(archive.records(first, last)) == expected

    def test_what_is_there_is_passed_over(self, open_archive: OpenArchive) -> None:
        """Whoever was killed in between does it again, with the same or with more."""
        archive = open_archive()
        records = some_records(10)
        for part in (records[:4], records[:4], records[1:3], records[2:7], records, []):
            archive.add_segment(part)
        assert list(archive.records(1, 100)) == without_payloads(records)
        assert archive.held().last == 20

    def test_what_does_not_follow_is_refused(self, open_archive: OpenArchive) -> None:
        """A gap, within or behind what is there, and records of another journal; nothing of them is stored."""
        archive = open_archive()
        records = some_records(10)
        other = some_records(3, Tail(9, NO_HASH, 1))
        archive.add_segment(records[:4])
        for part in (records[5:], [*records[4:6], *records[7:]], other, [records[4], other[1]]):
            with pytest.raises(ValueError, match="does not follow"):
                archive.add_segment(part)
        assert list(archive.records(1, 100)) == without_payloads(records[:4])
        archive.add_segment(records)
        assert archive.held().last == 20

    def test_it_may_begin_anywhere(self, open_archive: OpenArchive) -> None:
        """Where the journal began when the first follower came."""
        archive = open_archive()
        records = some_records(10)
        archive.add_segment(records[5:])
        assert (archive.held().first, archive.held().last) == (11, 20)
        assert list(archive.records(1, 100)) == without_payloads(records[5:])

    def test_segments_are_bounded(self, open_archive: OpenArchive) -> None:
        """So many records, and so many bytes, are more than one: they can be dropped apart."""
        many = some_records(SEGMENT_RECORDS_MAX + 10)
        large = some_records(4, after(many[-1]), size=SEGMENT_BYTES_MAX // 5)
        archive = open_archive()
        archive.add_segment([*many, *large])
        assert archive.drop(many[SEGMENT_RECORDS_MAX].time_ns, _BYTES_MAX) == many[SEGMENT_RECORDS_MAX].first
        first = archive.drop(large[-1].time_ns, _BYTES_MAX)
        assert many[-1].last < first < large[-1].last
        assert [record.last for record in archive.records(1, large[-1].last)][-1] == large[-1].last

    def test_dropping_by_time(self, open_archive: OpenArchive) -> None:
        """Only whole segments, the oldest first, of which every record is older; what is left stays readable."""
        archive = open_archive()
        records = some_records(40)
        for start in range(0, 40, 2):  # of seconds 1 and 2, 3 and 4, …
            archive.add_segment(records[start : start + 2])
        second = 1_000_000_000
        assert archive.drop(2 * second, _BYTES_MAX) == 1
        assert archive.drop(2 * second + 1, _BYTES_MAX) == 5
        assert archive.drop(39 * second, _BYTES_MAX) == 77
        assert list(archive.records(1, 100)) == without_payloads(records[38:])
        assert archive.held().first == 77
        assert archive.drop(100 * second, _BYTES_MAX) == 0
        assert archive.held() == Archived()
        archive.add_segment(some_records(2, after(records[-1])))
        assert archive.held().first == 81

    def test_dropping_by_size(self, open_archive: OpenArchive) -> None:
        """As many as are too many, and not one more."""
        archive = open_archive()
        records = some_records(40)
        for start in range(0, 40, 4):
            archive.add_segment(records[start : start + 4])
        size = archive.held().segments_bytes
        assert archive.drop(0, size) == 1
        assert archive.drop(0, size - 1) == 9
        half = archive.held().segments_bytes // 2
        assert archive.drop(0, half) > 1
        assert archive.held().segments_bytes <= half < archive.held().segments_bytes + size // 5
        assert archive.drop(0, 0) == 0

    def test_anchors_are_found_by_what_they_cover(self, open_archive: OpenArchive) -> None:
        """And stay when segments go."""
        archive, reader = open_archive(), open_archive()
        records = some_records(600)
        anchors: list[SignedAnchor] = []
        for start in range(0, 600, 2):
            anchors.append(an_anchor(records[start : start + 2], anchors[-1] if anchors else None))
            archive.add_anchor(anchors[-1])
        archive.add_segment(records)
        archive.drop(2**62, 0)
        for one in (archive, reader, open_archive()):
            assert one.held().anchored == 1_200
            assert one.last_anchor() == anchors[-1]
            assert list(one.anchors(1, 5_000)) == anchors
            assert list(one.anchors(4, 4)) == anchors[:1]
            assert list(one.anchors(4, 5)) == anchors[:2]
            assert list(one.anchors(9, 16)) == anchors[2:4]
            assert list(one.anchors(1_201, 5_000)) == list(one.anchors(5, 4)) == []

    def test_anchors_follow_each_other(self, open_archive: OpenArchive) -> None:
        """The same one again changes nothing; any other that is not next is refused."""
        archive = open_archive()
        records = some_records(12)
        first = an_anchor(records[2:4])  # it may begin anywhere
        second = an_anchor(records[4:8], first)
        for anchor in (first, first, second, first, second):
            archive.add_anchor(anchor)
        for wrong in (
            an_anchor(records[8:10], first),
            an_anchor(records[8:10]),
            an_anchor(records[9:10], second),
            an_anchor(records[7:10], second),
            an_anchor(records[4:6], first),
            an_anchor(some_records(12, cell="another")[8:10], second),
        ):
            with pytest.raises(ValueError, match="anchor"):
                archive.add_anchor(wrong)
        with pytest.raises(ValueError, match="not an anchor"):
            archive.add_anchor(SignedAnchor(b"none", b"", b""))
        assert list(archive.anchors(1, 100)) == [first, second]
        third = an_anchor(records[8:], second)
        open_archive().add_anchor(third)
        assert archive.last_anchor() == third
        assert decode_anchor(third.data).previous == sha256(second.data).digest()
