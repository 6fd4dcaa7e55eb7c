"""The journal's record: what one append makes durable, and how anybody can prove that it was not altered.

A record holds the events of one batch of a cell. Its header names the cell, the sequence number of its first event, who
wrote it in which epoch and when, the hash of the record before it, and the Merkle root of its events. The hash of a
record is the hash of its header, so that

* the chain of hashes makes it impossible to alter, drop or reorder records unseen;
* the Merkle tree makes it possible to hand out single events, each with a short proof that it is part of the chain;
* payloads, which events refer to by SHA-256 digest, can be erased later without breaking either.

Events and payloads are opaque bytes here. Hashes are SHA-256 with one prefix byte per kind (0 leaf, 1 node, as in RFC
6962 section 2.1; 2 record header), so that none of them can pass for another.
"""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import sha256
from typing import Final, NoReturn

import msgspec

RECORD_FORMAT: Final = 1
"""Version of the header's layout; the first field of every encoded header."""

HASH_BYTES: Final = 32
NO_HASH: Final = bytes(HASH_BYTES)
"""Stands for 'the record before' in the first record of a journal."""

RECORD_EVENTS_MAX: Final = 65_536
RECORD_BYTES_MAX: Final = 256 * 1024 * 1024
"""Bounds of one record: events, and bytes of events and payloads together."""

_LEAF: Final = b"\x00"
_NODE: Final = b"\x01"
_HEADER: Final = b"\x02"


class JournalError(Exception):
    """Base of everything that a journal refuses or reports."""


class JournalForeign(JournalError):
    """What was found is not a journal that this version and this cell can read; nothing of it was changed."""


class JournalCorrupt(JournalError):
    """A record was altered, torn, lost or reordered.

    Names the `cell`, the `sequence` (of the first event of the record) and the `reason`.
    """

    def __init__(self, cell: str, sequence: int, reason: str) -> None:
        super().__init__(cell, sequence, reason)
        self.cell = cell
        self.sequence = sequence
        self.reason = reason

    def __str__(self) -> str:
        return f"journal of cell {self.cell!r} is damaged at sequence {self.sequence}: {self.reason}"


class Record(msgspec.Struct, frozen=True, gc=False):
    """One durable batch of events.

    `first` is the sequence number of its first event (the journal's first event has 1), `time_ns` is nanoseconds since
    the Unix epoch by the clock of `holder`, `previous` the hash of the record before (`NO_HASH` for the first), `root`
    the Merkle root of `events`. Built by `seal`, so that the fields agree.
    """

    cell: str
    first: int
    epoch: int
    holder: str
    time_ns: int
    previous: bytes
    root: bytes
    count: int
    events: tuple[bytes, ...]
    payloads: tuple[bytes, ...]

    @property
    def last(self) -> int:
        """Sequence number of the last event."""
        return self.first + self.count - 1


class Tail(msgspec.Struct, frozen=True, gc=False):
    """Where a journal ends: the sequence of the `next` event, the hash of the last record, the highest epoch so far."""

    next: int = 1
    last_hash: bytes = NO_HASH
    epoch: int = 0


class _Header(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True, gc=False):
    """The hashed part of a record; the order of the fields is the format."""

    version: int
    cell: str
    first: int
    epoch: int
    holder: str
    time_ns: int
    previous: bytes
    root: bytes
    count: int


_encoder = msgspec.msgpack.Encoder()
_header_decoder = msgspec.msgpack.Decoder(_Header)
_blocks_decoder = msgspec.msgpack.Decoder(tuple[bytes, ...])


def seal(
    cell: str,
    first: int,
    epoch: int,
    holder: str,
    time_ns: int,
    previous: bytes,
    events: Sequence[bytes],
    payloads: Sequence[bytes] = (),
) -> Record:
    """Makes the record of `events`, which follows the record with hash `previous`.

    Raises `ValueError` when there are no events, when the record would exceed its bounds, or when a field is out of its
    range.
    """
    count = len(events)
    if not 1 <= count <= RECORD_EVENTS_MAX:
        raise ValueError(
            f"events: a record holds 1 to {RECORD_EVENTS_MAX:,} events, not {count:,}: seal several records"
        )
    size = sum(map(len, events)) + sum(map(len, payloads))
    if size > RECORD_BYTES_MAX:
        raise ValueError(
            f"events and payloads: a record holds at most {RECORD_BYTES_MAX:,} bytes, not {size:,}: seal several"
        )
    if first < 1 or epoch < 0 or len(previous) != HASH_BYTES:
        raise ValueError(
            f"first {first}, epoch {epoch}, previous of {len(previous)} bytes: must be >= 1, >= 0, {HASH_BYTES} bytes"
        )
    return Record(
        cell, first, epoch, holder, time_ns, previous, merkle_root(events), count, tuple(events), tuple(payloads)
    )


def record_hash(record: Record) -> bytes:
    """Hash of the record's header, which the next record carries as `previous`."""
    return header_hash(_encode_header(record))


def header_hash(header: bytes) -> bytes:
    """The hash of the record with this encoded header; see `encode_record`."""
    return sha256(_HEADER + header).digest()


def after(record: Record) -> Tail:
    """The tail of a journal that ends with `record`."""
    return Tail(record.first + record.count, record_hash(record), record.epoch)


def verify(record: Record, tail: Tail) -> Tail:
    """Checks that `record` is whole and is what follows `tail`; returns the tail after it.

    Raises `JournalCorrupt` which says what is wrong: sequence, chain, epoch, count or Merkle root. Payloads are not
    covered, since they may be erased; see `payload_digests`.
    """
    verify_chain(record, tail)
    verify_events(record)
    return after(record)


def verify_chain(record: Record, tail: Tail) -> None:
    """Checks that the header of `record` follows `tail`, without looking at its events. Raises `JournalCorrupt`."""
    if record.first != tail.next:
        what = "a gap" if record.first > tail.next else "an overlap"
        _corrupt(record, f"{what}: the record starts at {record.first}, but {tail.next} was expected")
    if record.previous != tail.last_hash:
        _corrupt(
            record,
            f"the chain is broken: the record names {record.previous.hex()[:16]} as the hash of the one before, "
            f"which has {tail.last_hash.hex()[:16]}",
        )
    if record.epoch < tail.epoch:
        _corrupt(record, f"epoch {record.epoch} after epoch {tail.epoch}: epochs never go back")


def verify_events(record: Record) -> None:
    """Checks the events of `record` against its header: their number and their Merkle root. Raises `JournalCorrupt`."""
    if record.count != len(record.events) or record.count < 1:
        _corrupt(record, f"the header counts {record.count} events, and there are {len(record.events)}")
    root = merkle_root(record.events)
    if root != record.root:
        _corrupt(
            record,
            f"events were altered: their Merkle root is {root.hex()[:16]}, the header says {record.root.hex()[:16]}",
        )


def payload_digests(record: Record) -> list[bytes]:
    """SHA-256 digests of the payloads, in their order, to be compared with the digests that the events name."""
    return [sha256(payload).digest() for payload in record.payloads]


def encode_record(record: Record) -> tuple[bytes, bytes, bytes]:
    """The record as bytes: header, events, payloads; apart, so that payloads can be erased and headers read alone."""
    return _encode_header(record), _encoder.encode(record.events), _encoder.encode(record.payloads)


def decode_record(header: bytes, events: bytes, payloads: bytes) -> Record:
    """The inverse of `encode_record`. Does not verify; see `verify`.

    Raises `ValueError` when a part cannot be decoded or the header is not in the one form that `encode_record` gives
    it, and `JournalForeign` when the header has another format version.
    """
    head = _decode_header(header)
    return Record(
        head.cell,
        head.first,
        head.epoch,
        head.holder,
        head.time_ns,
        head.previous,
        head.root,
        head.count,
        _decode_blocks(events, "events"),
        _decode_blocks(payloads, "payloads"),
    )


def merkle_root(leaves: Sequence[bytes]) -> bytes:
    """Merkle tree hash of `leaves` (RFC 6962 section 2.1); for no leaves, the hash of the empty string."""
    if not leaves:
        return sha256().digest()
    # The RFC splits at the largest power of two below n. Going up level by level and passing an odd last node on is the
    # same tree, without recursion.
    level = [sha256(_LEAF + leaf).digest() for leaf in leaves]
    while len(level) > 1:
        odd = level.pop() if len(level) & 1 else None
        pairs = iter(level)
        level = [sha256(_NODE + left + right).digest() for left, right in zip(pairs, pairs, strict=True)]
        if odd is not None:
            level.append(odd)
    return level[0]


def merkle_proof(leaves: Sequence[bytes], index: int) -> tuple[bytes, ...]:
    """Audit path (RFC 6962 section 2.1.1) of leaf `index`: the hashes which, with the leaf, give the root.

    Raises `IndexError`.
    """
    if not 0 <= index < len(leaves):
        raise IndexError(f"index {index}: there are {len(leaves)} leaves")
    level = [sha256(_LEAF + leaf).digest() for leaf in leaves]
    path = []
    while len(level) > 1:
        sibling = index ^ 1
        if sibling < len(level):
            path.append(level[sibling])
        level = [b"".join(level[i : i + 2]) for i in range(0, len(level), 2)]
        level = [sha256(_NODE + pair).digest() if len(pair) > HASH_BYTES else pair for pair in level]
        index >>= 1
    return tuple(path)


def verify_proof(leaf: bytes, index: int, count: int, proof: Sequence[bytes], root: bytes) -> bool:
    """Whether `proof` shows `leaf` to be number `index` of `count` leaves under `root` (RFC 9162 section 2.1.3.2)."""
    if not 0 <= index < count:
        return False
    node, last = sha256(_LEAF + leaf).digest(), count - 1
    for sibling in proof:
        if last == 0 or len(sibling) != HASH_BYTES:
            return False
        if index & 1 or index == last:
            node = sha256(_NODE + sibling + node).digest()
            while index and not index & 1:
                index, last = index >> 1, last >> 1
        else:
            node = sha256(_NODE + node + sibling).digest()
        index, last = index >> 1, last >> 1
    return last == 0 and node == root


def _corrupt(record: Record, reason: str) -> NoReturn:
    raise JournalCorrupt(record.cell, record.first, reason)


def _encode_header(record: Record) -> bytes:
    return _encoder.encode(
        _Header(
            RECORD_FORMAT,
            record.cell,
            record.first,
            record.epoch,
            record.holder,
            record.time_ns,
            record.previous,
            record.root,
            record.count,
        )
    )


def _decode_header(data: bytes) -> _Header:
    try:
        head = _header_decoder.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        _refuse_other_format(data)
        raise ValueError(f"the header cannot be decoded: {error}") from None
    if head.version != RECORD_FORMAT:
        _refuse_other_format(data)
    # One header has one encoding, or its hash would depend on who encoded it.
    if _encoder.encode(head) != data:
        raise ValueError("the header is not in its canonical encoding")
    if len(head.previous) != HASH_BYTES or len(head.root) != HASH_BYTES:
        raise ValueError(f"the header's hashes must have {HASH_BYTES} bytes")
    return head


def _refuse_other_format(data: bytes) -> None:
    try:
        fields = msgspec.msgpack.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return
    if isinstance(fields, list) and fields and type(fields[0]) is int and fields[0] != RECORD_FORMAT:
        raise JournalForeign(
            f"a record has format {fields[0]}, and this version of Merit reads format {RECORD_FORMAT}: "
            "use the version that wrote it"
        )


def _decode_blocks(data: bytes, name: str) -> tuple[bytes, ...]:
    try:
        return _blocks_decoder.decode(data)
    except msgspec.DecodeError as error:
        raise ValueError(f"the {name} cannot be decoded: {error}") from None
