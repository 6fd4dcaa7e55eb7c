import pytest

from merit.model.record import JournalCorrupt, Tail, after, merkle_root, record_hash
from merit.model.trail import SignedAnchor, decode_anchor, is_signed
from merit.ports.signer import SignerUnavailable
from merit.runtime.anchoring import Anchoring
from merit.storage.key_file import KeyFile
from merit.storage.memory_archive import MemoryArchive
from merit.testing.archive_contract import ARCHIVED_CELL, some_records


@pytest.fixture
def signer(tmp_path):
    return KeyFile(tmp_path / "key")


def feed(anchoring, records):
    return [anchor for record in records if (anchor := anchoring.take(record)) is not None]


def test_an_anchor_covers_so_many_records_or_what_there_is(signer):
    records = some_records(25)
    anchoring = Anchoring(None, signer, records_max=10)
    anchors = feed(anchoring, records)
    assert anchoring.anchored == 40
    rest = anchoring.flush()
    assert rest is not None
    anchors.append(rest)
    assert anchoring.flush() is None
    assert anchoring.anchored == 50
    archive = MemoryArchive(ARCHIVED_CELL)
    for signed, run in zip(anchors, (records[:10], records[10:20], records[20:]), strict=True):
        archive.add_anchor(signed)  # they follow each other
        anchor = decode_anchor(signed.data)
        assert (anchor.cell, anchor.first, anchor.last, anchor.count) == (
            ARCHIVED_CELL,
            run[0].first,
            run[-1].last,
            len(run),
        )
        assert anchor.root == merkle_root([record_hash(record) for record in run])
        assert (anchor.last_hash, anchor.time_ns) == (record_hash(run[-1]), run[-1].time_ns)
        assert is_signed(signed)
        assert signed.key == signer.public_key


def test_after_a_restart_it_goes_on_behind_the_last_anchor(signer):
    """Wherever the records begin that are fed again."""
    records = some_records(20)
    anchors = feed(Anchoring(None, signer, records_max=6), records)
    for begin in (0, 3, 12):
        anchoring = Anchoring(anchors[1], signer, records_max=6)
        assert anchoring.anchored == 24
        assert feed(anchoring, records[begin:]) == anchors[2:]


def test_it_may_begin_anywhere(signer):
    anchoring = Anchoring(None, signer, records_max=2)
    anchors = feed(anchoring, some_records(9)[5:])
    assert [decode_anchor(anchor.data).first for anchor in anchors] == [11, 15]


def test_what_was_left_out_is_noticed(signer):
    records = some_records(9)
    anchoring = Anchoring(None, signer, records_max=2)
    feed(anchoring, records[:3])
    with pytest.raises(ValueError, match="7 is to be anchored next"):
        anchoring.take(records[4])
    with pytest.raises(ValueError, match="7 is to be anchored next"):
        Anchoring(feed(Anchoring(None, signer, records_max=3), records[:3])[0], signer).take(records[4])


def test_a_journal_that_was_altered_since_is_noticed(signer):
    records = some_records(4)
    last = feed(Anchoring(None, signer, records_max=4), records)[0]
    altered = some_records(4, size=100)
    for wrong in (some_records(1, after(altered[-1])), some_records(1, after(records[-1]), cell="another")):
        with pytest.raises(JournalCorrupt, match="the journal was altered"):
            Anchoring(last, signer).take(wrong[0])
    assert Anchoring(last, signer).take(some_records(1, after(records[-1]))[0]) is None


def test_what_cannot_be_signed_can_be_signed_later(tmp_path):
    signer = KeyFile(tmp_path / "key", make=False)
    anchoring = Anchoring(None, signer)
    feed(anchoring, some_records(3))
    with pytest.raises(SignerUnavailable):
        anchoring.flush()
    assert anchoring.anchored == 0
    KeyFile(tmp_path / "key").sign(b"")
    found = anchoring.flush()
    assert isinstance(found, SignedAnchor)
    assert decode_anchor(found.data).count == 3
    assert feed(anchoring, some_records(1, Tail(7, decode_anchor(found.data).last_hash, 1))) == []
