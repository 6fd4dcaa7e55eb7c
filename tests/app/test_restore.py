"""Where a start begins."""

import json
import zlib
from base64 import b64decode

import pytest

from merit.app.restore import NoBeginning, restore
from merit.core.codec import FOLD_VERSION, encode_state, fold
from merit.core.state import State
from merit.model.record import JournalCorrupt, record_hash
from merit.ports.journal import JournalCompacted
from merit.storage.memory_journal import MemoryDisk, MemoryJournal
from merit.storage.memory_snapshots import MemorySnapshots
from tests.app.a_life import Life
from tests.histories.replay import HERE, records_of


class Stored:
    """A journal with a snapshot after every tenth record."""

    def __init__(self):
        self.disk = MemoryDisk("cell-1")
        self.journal = MemoryJournal(self.disk)
        Life(self.journal).go_on(30)
        self.snapshots = MemorySnapshots()
        self.at_end = State()
        for count, record in enumerate(self.disk.records, 1):
            fold(self.at_end, record)
            if count % 10 == 0:
                self.snapshots.save(record.last, FOLD_VERSION, record_hash(record), encode_state(self.at_end))

    def compact(self, until):
        while self.journal.compact(until) < until:
            pass

    def restored(self, until=None):
        return restore(self.journal, self.snapshots, last_wanted=until)[0]


@pytest.fixture
def stored():
    return Stored()


def test_the_latest_snapshot_that_can_be_read_is_where_it_begins(stored):
    assert encode_state(stored.restored()) == encode_state(stored.at_end)
    first, *_, last = stored.snapshots.sequences()
    stored.snapshots.save(last, FOLD_VERSION + 1, bytes(32), b"of a newer version")
    assert encode_state(stored.restored()) == encode_state(stored.at_end)
    for sequence in list(stored.snapshots.sequences()):
        stored.snapshots.save(sequence, 1, bytes(32), b"of an old one")
    assert encode_state(stored.restored()) == encode_state(stored.at_end), "from the journal's beginning"
    stored.compact(first + 1)
    with pytest.raises(
        NoBeginning, match=f"begins at sequence {first + 1}.*that of sequence {first}: .*restore the state"
    ):
        stored.restored()


def test_a_compacted_journal_is_folded_from_the_snapshot_at_its_beginning(stored):
    first, *_ = later = list(stored.snapshots.sequences())
    stored.compact(first + 1)
    stored.snapshots.drop(later[1:])
    assert encode_state(stored.restored()) == encode_state(stored.at_end)
    assert stored.restored(first).sequence == first
    with pytest.raises(JournalCompacted, match=f"begins at {first + 1}"):
        stored.restored(first - 1)
    stored.snapshots.drop([first])
    with pytest.raises(NoBeginning, match="there is none"):
        stored.restored()


def test_a_snapshot_before_the_beginning_is_of_no_use(stored):
    first, second, *_ = stored.snapshots.sequences()
    stored.compact(first + 5)
    stored.snapshots.drop([one for one in stored.snapshots.sequences() if one >= second])
    with pytest.raises(NoBeginning):
        stored.restored()


def test_a_snapshot_of_another_journal_is_refused(stored):
    *_, last = stored.snapshots.sequences()
    latest = stored.snapshots.latest()
    assert latest is not None
    stored.snapshots.save(last, FOLD_VERSION, bytes(32), latest.data)
    with pytest.raises(JournalCorrupt, match="different journals"):
        stored.restored()


def test_a_journal_that_has_lost_its_end_is_refused(stored):
    stored.snapshots.save(10**6, FOLD_VERSION, bytes(32), encode_state(State(10**6)))
    with pytest.raises(JournalCorrupt, match="its end was lost"):
        stored.restored()


def test_a_start_goes_on_from_a_snapshot_of_the_version_before():
    old = json.loads((HERE / "snapshots" / "fold-2.json").read_text())
    records = records_of(json.loads((HERE / "queue.json").read_text()))
    count, data = old["histories"]["queue"][1]
    disk = MemoryDisk(records[0].cell)
    for record in records:
        disk.store(record)
    snapshots = MemorySnapshots()
    snapshots.save(records[count - 1].last, 2, record_hash(records[count - 1]), zlib.decompress(b64decode(data)))
    state, _ = restore(MemoryJournal(disk), snapshots)
    whole, _ = restore(MemoryJournal(disk), MemorySnapshots())
    for worker in (*state.workers.values(), *whole.workers.values()):
        worker.given = worker.turn = 0  # the one thing that such snapshots did not hold
    assert encode_state(state) == encode_state(whole)
