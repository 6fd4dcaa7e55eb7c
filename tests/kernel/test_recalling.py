"""Idempotency keys that only the journal remembers: what a client says waits until it has been read."""

import pytest

from merit.core.state import KeyEntry
from merit.core.submitting import asked_for
from merit.model.limits import Limits
from merit.testing.builders import a_spec, an_id, with_terms
from tests.kernel.test_kernel import Cell, ClientPeer

KEYS_MAX = 1


def keyed(number, key="old", **fields):
    return with_terms(number, idempotency_key=key, **fields)


@pytest.fixture
def cell():
    """Task 1 has the key "old", which the cell has forgotten since."""
    cell = Cell(Limits(keys_max=KEYS_MAX))
    client = ClientPeer(cell)
    client.submit(keyed(1), keyed(2, "young"))
    cell.settle()
    assert list(cell.state.keys) == [("default", "young")]
    cell.lookups.clear()
    return cell


def entry_of(spec):
    return KeyEntry(spec.id, asked_for(spec), 0)


def known(peer):
    return [pair for frame in peer.frames for pair in frame.known]


def test_everything_that_the_client_says_waits_for_the_journal(cell):
    peer = ClientPeer(cell)
    peer.submit(keyed(3))
    cell.turn()
    peer.submit(a_spec(4))
    peer.pump()
    cell.settle()
    assert peer.accepted == []
    assert an_id(4) not in cell.state.tasks
    (lookup,) = cell.lookups
    assert (lookup.keys, lookup.tasks, lookup.again) == ([("default", "old")], [], True)
    cell.kernel.found(lookup, [], {("default", "old"): entry_of(keyed(1))})
    cell.settle()
    assert known(peer) == [(an_id(3), an_id(1))]
    assert set(peer.accepted) == {an_id(3), an_id(4)}
    assert an_id(3) not in cell.state.tasks
    assert an_id(1) in peer.own._waiting, "it waits for the one that there is"


def test_a_key_that_was_never_used_is_looked_for_once(cell):
    peer = ClientPeer(cell)
    peer.submit(keyed(3, "new"))
    cell.settle()
    (lookup,) = cell.lookups
    cell.kernel.found(lookup, [], {})
    cell.settle()
    assert cell.lookups == [lookup]
    assert an_id(3) in cell.state.tasks
    assert known(peer) == []


def test_other_content_under_a_forgotten_key_is_an_error_too(cell):
    peer = ClientPeer(cell)
    peer.submit(keyed(3, parameters=b'{"other":1}'), a_spec(4))
    cell.settle()
    cell.kernel.found(cell.lookups[0], [], {("default", "old"): entry_of(keyed(1))})
    cell.settle()
    assert [(refusal.task, refusal.code, refusal.field) for refusal in peer.refusals] == [
        (an_id(3), "conflict", "terms.idempotency_key")
    ]
    assert an_id(4) in cell.state.tasks


def test_a_group_with_such_a_conflict_is_refused_as_a_whole(cell):
    peer = ClientPeer(cell)
    peer.own.submit([a_spec(4), keyed(3, parameters=b'{"other":1}'), a_spec(5)])
    peer.pump()
    cell.settle()
    cell.kernel.found(cell.lookups[0], [], {("default", "old"): entry_of(keyed(1))})
    cell.settle()
    assert {refusal.task: refusal.code for refusal in peer.refusals} == {
        an_id(3): "conflict",
        an_id(4): "batch",
        an_id(5): "batch",
    }
    assert not cell.state.tasks.keys() & {an_id(3), an_id(4), an_id(5)}
    assert peer.accepted == []


def test_others_do_not_wait(cell):
    peer, other = ClientPeer(cell), ClientPeer(cell)
    peer.submit(keyed(3))
    other.submit(a_spec(4), keyed(5, "young"))
    cell.settle()
    assert set(other.accepted) == {an_id(4), an_id(5)}
    assert known(other) == [(an_id(5), an_id(2))]
    assert peer.accepted == []


def test_a_journal_that_cannot_be_read_ends_the_stream_and_nothing_is_taken(cell):
    peer = ClientPeer(cell)
    peer.submit(keyed(3))
    cell.settle()
    cell.kernel.not_found_out(cell.lookups[0], "the journal could not be searched: no")
    cell.settle()
    assert peer.frames[-1].refused == "the journal could not be searched: no"
    assert an_id(3) not in cell.state.tasks
    peer.disconnect()
    peer.connect()
    peer.pump()
    cell.settle()
    assert len(cell.lookups) == 2, "it is asked again on the next stream"


def test_a_client_that_went_while_the_journal_was_read_does_no_harm(cell):
    peer = ClientPeer(cell)
    peer.submit(keyed(3))
    cell.settle()
    peer.disconnect()
    cell.kernel.found(cell.lookups[0], [], {("default", "old"): entry_of(keyed(1))})
    cell.settle()
    assert an_id(3) not in cell.state.tasks


def test_two_of_one_frame_with_a_forgotten_key(cell):
    peer = ClientPeer(cell)
    peer.own.submit([keyed(3)])
    peer.own.submit([keyed(4)])
    peer.pump()
    cell.settle()
    (lookup,) = cell.lookups
    assert lookup.keys == [("default", "old")]
    cell.kernel.found(lookup, [], {("default", "old"): entry_of(keyed(1))})
    cell.settle()
    assert known(peer) == [(an_id(3), an_id(1)), (an_id(4), an_id(1))]
