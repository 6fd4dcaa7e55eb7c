"""Which snapshots can be relied on."""

import pytest

from merit.app.snapshotting import Snapshotting
from merit.core.codec import FOLD_VERSION, encode_state
from merit.core.state import State
from merit.storage.memory_snapshots import MemorySnapshots

HASH = bytes(32)


def saved(snapshots, *sequences):
    snapshotting = Snapshotting(snapshots, 10**9)
    for sequence in sequences:
        snapshotting.save(sequence, HASH, encode_state(State(sequence)), 1)
    return snapshotting


def test_two_that_were_read_back_are_relied_on():
    snapshotting = saved(MemorySnapshots(), 10, 20, 30)
    assert snapshotting.stored == [10, 20, 30]
    assert snapshotting.are_verified_from(20)
    assert not snapshotting.are_verified_from(21)
    assert not snapshotting.bad


def test_one_that_is_damaged_is_not_relied_on():
    snapshots = MemorySnapshots()
    snapshotting = saved(snapshots, 10, 20, 30)
    snapshots.damage(30)
    assert not snapshotting.are_verified_from(20)
    assert "30" in snapshotting.bad
    assert snapshotting.are_verified_from(10), "two others are good"
    snapshotting.save(40, HASH, encode_state(State(40)), 1)
    assert snapshotting.are_verified_from(20)


@pytest.mark.parametrize("data", [b"no state", encode_state(State(29))])
def test_one_that_is_not_the_state_of_which_it_was_made_is_not_relied_on(data):
    snapshots = MemorySnapshots()
    snapshotting = saved(snapshots, 20, 30)
    snapshots.save(30, FOLD_VERSION, HASH, data)
    assert not snapshotting.are_verified_from(20)
    assert "30" in snapshotting.bad


def test_one_that_an_earlier_process_made_is_read_as_well():
    snapshots = MemorySnapshots()
    saved(snapshots, 20, 30)
    assert Snapshotting(snapshots, 10**9).are_verified_from(20)
    snapshots.save(30, FOLD_VERSION - 1, HASH, encode_state(State(30)))
    assert not Snapshotting(snapshots, 10**9).are_verified_from(20), "it is of an older version"


def test_those_at_which_the_journal_may_begin_stay_however_many_there_are():
    snapshots = MemorySnapshots()
    saved(snapshots, 10, 20, 30, 40)
    snapshotting = Snapshotting(snapshots, 1)
    snapshotting.thin(1)
    assert snapshotting.stored == [10, 20, 30, 40], "it is not known yet where the one before has it compacted"
    snapshotting.hold({20})
    snapshotting.thin(1)
    assert snapshotting.stored == [10, 20, 30, 40]
    snapshotting.save(50, HASH, encode_state(State(50)), 1)
    assert snapshotting.stored == [10, 20, 40, 50]
    snapshotting.hold({40})
    snapshotting.save(60, HASH, encode_state(State(60)), 1)
    assert snapshotting.stored == [10, 40, 50, 60]
    snapshotting.thin(41)
    assert snapshotting.stored == [40, 50, 60]


def test_those_that_are_not_needed_go():
    snapshotting = Snapshotting(snapshots := MemorySnapshots(), 10**9)
    for sequence in (10, 20, 30, 40):
        snapshotting.save(sequence, HASH, encode_state(State(sequence)), 21)
    assert snapshotting.stored == list(snapshots.sequences()) == [20, 30, 40]
    snapshotting.thin(41)
    assert snapshotting.stored == [30, 40]
