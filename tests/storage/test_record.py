import os
import subprocess
import sys
from hashlib import sha256

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from merit.model.record import (
    NO_HASH,
    RECORD_EVENTS_MAX,
    JournalCorrupt,
    JournalForeign,
    Record,
    Tail,
    after,
    decode_record,
    encode_record,
    merkle_proof,
    merkle_root,
    payload_digests,
    record_hash,
    seal,
    verify,
    verify_proof,
)

blocks = st.lists(st.binary(max_size=40), max_size=20)
records = st.builds(
    seal,
    cell=st.text(max_size=20),
    first=st.integers(1, 2**62),
    epoch=st.integers(0, 2**62),
    holder=st.text(max_size=20),
    time_ns=st.integers(-(2**63), 2**63 - 1),
    previous=st.binary(min_size=32, max_size=32),
    events=st.lists(st.binary(max_size=40), min_size=1, max_size=20),
    payloads=blocks,
)


def slow_root(leaves: list[bytes]) -> bytes:
    """Section 2.1 of RFC 6962, word for word."""
    if not leaves:
        return sha256(b"").digest()
    if len(leaves) == 1:
        return sha256(b"\x00" + leaves[0]).digest()
    split = 1
    while split * 2 < len(leaves):
        split *= 2
    return sha256(b"\x01" + slow_root(leaves[:split]) + slow_root(leaves[split:])).digest()


def tail_before(record: Record) -> Tail:
    return Tail(record.first, record.previous, record.epoch)


def test_merkle_roots_of_the_certificate_transparency_test_vectors():
    leaves = [
        bytes.fromhex(text)
        for text in ("", "00", "10", "2021", "3031", "40414243", "5051525354555657", "606162636465666768696a6b6c6d6e6f")
    ]
    assert merkle_root([]).hex() == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
    assert merkle_root(leaves[:1]).hex() == "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d"
    assert merkle_root(leaves[:2]).hex() == "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125"
    assert merkle_root(leaves[:3]).hex() == "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77"
    assert merkle_root(leaves).hex() == "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328"


@given(blocks)
def test_the_root_is_that_of_the_rfc(leaves):
    assert merkle_root(leaves) == slow_root(leaves)


@given(st.lists(st.binary(max_size=8), min_size=1, max_size=40), st.data())
def test_a_proof_shows_its_leaf_and_no_other(leaves, data):
    index = data.draw(st.integers(0, len(leaves) - 1))
    root, proof = merkle_root(leaves), merkle_proof(leaves, index)
    assert verify_proof(leaves[index], index, len(leaves), proof, root)
    assert not verify_proof(leaves[index] + b"x", index, len(leaves), proof, root)
    assert not verify_proof(leaves[index], index, len(leaves), (*proof, NO_HASH), root)
    assert not verify_proof(leaves[index], index, len(leaves), proof[:-1], root) or not proof
    assert not verify_proof(leaves[index], len(leaves), len(leaves), proof, root)
    assert not verify_proof(leaves[index], -1, len(leaves), proof, root)
    other = data.draw(st.integers(0, len(leaves) - 1))
    if leaves[other] != leaves[index]:
        assert not verify_proof(leaves[other], index, len(leaves), proof, root)


def test_a_proof_of_what_is_not_there_is_refused():
    with pytest.raises(IndexError, match="3 leaves"):
        merkle_proof([b"a", b"b", b"c"], 3)


@given(records)
def test_records_survive_encoding(record):
    assert decode_record(*encode_record(record)) == record
    assert verify(record, tail_before(record)) == after(record)
    assert payload_digests(record) == [sha256(payload).digest() for payload in record.payloads]


@given(records, st.data())
def test_no_byte_of_a_header_or_of_events_can_be_altered(record, data):
    header, events, payloads = encode_record(record)
    part = bytearray(data.draw(st.sampled_from([header, events])))
    is_header = bytes(part) == header
    at = data.draw(st.integers(0, len(part) - 1))
    part[at] ^= data.draw(st.integers(1, 255))
    altered = (bytes(part), events, payloads) if is_header else (header, bytes(part), payloads)
    try:
        other = decode_record(*altered)
    except (ValueError, JournalForeign):
        return
    if is_header:
        assert record_hash(other) != record_hash(record)
    else:
        with pytest.raises(JournalCorrupt):
            verify(other, tail_before(record))


@given(st.binary(max_size=200))
def test_garbage_is_refused_as_a_header(garbage):
    with pytest.raises((ValueError, JournalForeign)):
        decode_record(garbage, b"\x90", b"\x90")


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"first": 8}, "a gap"),
        ({"first": 6}, "an overlap"),
        ({"previous": bytes(31) + b"x"}, "the chain is broken"),
        ({"epoch": 2}, "epoch 2 after epoch 3"),
        ({"count": 3}, "the header counts 3 events, and there are 2"),
        ({"events": (b"a", b"c")}, "events were altered"),
        ({"events": (b"b", b"a")}, "events were altered"),
        ({"root": NO_HASH}, "events were altered"),
    ],
)
def test_damage_is_named(change, reason):
    record = seal("cell-1", 7, 3, "me", 5, NO_HASH, [b"a", b"b"])
    damaged = msgspec.structs.replace(record, **change)
    with pytest.raises(JournalCorrupt, match=reason) as caught:
        verify(damaged, Tail(7, NO_HASH, 3))
    assert caught.value.cell == "cell-1"
    assert caught.value.sequence == damaged.first
    assert "'cell-1'" in str(caught.value)


def test_another_format_is_named():
    header = msgspec.msgpack.encode([2, "whatever", "comes"])
    with pytest.raises(JournalForeign, match="format 2"):
        decode_record(header, b"\x90", b"\x90")


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"events": []}, "events: a record holds 1 to"),
        ({"events": [b""] * (RECORD_EVENTS_MAX + 1)}, "events: a record holds 1 to"),
        ({"first": 0}, "first 0"),
        ({"epoch": -1}, "epoch -1"),
        ({"previous": b"short"}, "previous of 5 bytes"),
    ],
)
def test_what_is_out_of_bounds_is_not_sealed(change, reason):
    fields = {"cell": "c", "first": 1, "epoch": 1, "holder": "h", "time_ns": 0, "previous": NO_HASH, "events": [b"e"]}
    with pytest.raises(ValueError, match=reason):
        seal(**{**fields, **change})


def test_a_record_is_bounded_in_bytes(monkeypatch):
    monkeypatch.setattr("merit.model.record.RECORD_BYTES_MAX", 10)
    assert seal("c", 1, 1, "h", 0, NO_HASH, [b"12345"], [b"12345"]).count == 1
    with pytest.raises(ValueError, match="at most 10 bytes, not 11"):
        seal("c", 1, 1, "h", 0, NO_HASH, [b"12345"], [b"123456"])


def test_the_hash_of_a_record_never_changes():
    """Written once; whoever must change it makes a new record format."""
    record = seal(
        "cell", 42, 7, "node-1", 1_700_000_000_000_000_000, bytes(range(32)), [b"one", b"two", b"three"], [b"p"]
    )
    assert record_hash(record).hex() == PINNED


def test_the_hash_does_not_depend_on_the_hash_seed():
    code = (
        "from merit.model.record import *;"
        "print(record_hash(seal('cell', 42, 7, 'n', 1, NO_HASH, [b'one', b'two'], [b'p'])).hex())"
    )
    printed = {
        subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": os.pathsep.join(sys.path)},
            capture_output=True,
            check=True,
            text=True,
        ).stdout
        for seed in ("1", "2")
    }
    assert len(printed) == 1


PINNED = "03ef9aad8aca555ec7f5d496a4b55217f4e5a2859f09e2fd91ae4f7d02e17839"
