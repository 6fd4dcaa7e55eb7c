"""Which snapshots can be relied on."""

import pytest

from merit.app.snapshotting import Snapshotting
from merit.core.codec import encode_state
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
    snapshots.save(30, 3, HASH, data)
    assert not snapshotting.are_verified_from(20)
    assert "30" in snapshotting.bad


def test_one_that_an_earlier_process_made_is_read_as_well():
    snapshots = MemorySnapshots()
    saved(snapshots, 20, 30)
    assert Snapshotting(snapshots, 10**9).are_verified_from(20)
    snapshots.save(30, 2, HASH, encode_state(State(30)))
    assert not Snapshotting(snapshots, 10**9).are_verified_from(20), "it is of an older version"


def test_those_that_are_not_needed_go():
    snapshotting = Snapshotting(snapshots := MemorySnapshots(), 10**9)
    for sequence in (10, 20, 30, 40):
        snapshotting.save(sequence, HASH, encode_state(State(sequence)), 21)
    assert snapshotting.stored == list(snapshots.sequences()) == [20, 30, 40]
    snapshotting.thin(41)
    assert snapshotting.stored == [30, 40]
