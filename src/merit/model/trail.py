"""Trails: what proves, alone and offline, that events of one task stand in a control plane's journal.

The events of a record are the leaves of the record's Merkle root; the hash of a record covers its header, which names that
root; and the hashes of a run of records are the leaves of an *anchor*'s root, which the control plane has signed. So a
trail holds, for each event: the event, its path to the root in the header, the header, the path of the header's hash to the
anchor's root, and the anchor with its signature (Ed25519, RFC 8032). Nothing of what others did is in it but hashes.
"""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import sha256
from typing import Final

import msgspec

from merit.model.record import HASH_BYTES, NO_HASH, merkle_root

ANCHOR_FORMAT: Final = 1
ANCHOR_RECORDS_MAX: Final = 4_096
"""Records that one anchor covers at most: a path of 12 hashes."""


class Anchor(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True, gc=False):
    """What is signed: these records, and no others, are those of the cell from ``first`` to ``last``."""

    version: int
    cell: str
    first: int
    """Sequence of the first event of the first record."""
    last: int
    """Sequence of the last event of the last record."""
    count: int
    """Of the records."""
    root: bytes
    """Merkle root over the hashes of the records."""
    last_hash: bytes
    """Hash of the last record."""
    time_ns: int
    """The latest of the records."""
    previous: bytes
    """SHA-256 of the encoded anchor before; `NO_HASH` for the first."""


class SignedAnchor(msgspec.Struct, frozen=True, forbid_unknown_fields=True, gc=False):
    """``data`` is the encoded anchor, ``signature`` that of the key ``key``: the 32 bytes of an Ed25519 public key."""

    data: bytes
    signature: bytes
    key: bytes


TRAIL_FORMAT: Final = "merit-trail/1"


class TrailEvent(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One event, which is number ``index`` in its record; ``path`` leads to the root in the record's header."""

    index: int
    data: bytes
    path: tuple[bytes, ...]


class TrailRecord(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The encoded header of a record, which is number ``index`` under the anchor with the number ``anchor`` in the trail;
    ``path`` leads from the header's hash to the root of that anchor."""

    header: bytes
    anchor: int
    index: int
    path: tuple[bytes, ...]
    events: tuple[TrailEvent, ...]


class Trail(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """All that the journal says of one task, and what proves it: one JSON document, in which bytes are base64."""

    format: str
    cell: str
    task: str
    story: tuple[str, ...]
    """For people who look into the file. It proves nothing: whoever checks a trail makes it anew from the events."""
    anchors: tuple[SignedAnchor, ...]
    records: tuple[TrailRecord, ...]
    payloads: dict[str, bytes]
    """Parameters, results and logs that are still there, by the hexadecimal SHA-256 digest that the events name."""


encode_trail = msgspec.json.Encoder().encode
_decode_trail = msgspec.json.Decoder(Trail).decode


def decode_trail(document: bytes) -> Trail:
    """The inverse of `encode_trail`. Raises `ValueError` when it is none, or of another format."""
    try:
        trail = _decode_trail(document)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise ValueError(f"it is no trail: {error}") from error
    if trail.format != TRAIL_FORMAT:
        raise ValueError(f"it is a trail of format {trail.format!r}, and this version of Merit reads {TRAIL_FORMAT}")
    return trail


_DOMAIN: Final = b"merit anchor\n"
_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Anchor).decode


def encode_anchor(anchor: Anchor) -> bytes:
    """The anchor as bytes; what is signed of it says ``signed_part``."""
    return _encode(anchor)


def signed_part(data: bytes) -> bytes:
    """What is signed of an encoded anchor: with its kind before it, so that no signature passes for one of something else."""
    return _DOMAIN + data


def decode_anchor(data: bytes) -> Anchor:
    """The inverse of `encode_anchor`. Raises `ValueError` when it is none, or of another format."""
    try:
        anchor = _decode(data)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise ValueError(f"not an anchor: {error}") from error
    if anchor.version != ANCHOR_FORMAT or _encode(anchor) != data:
        raise ValueError(
            f"an anchor of format {anchor.version}, or not in its one encoding: use the version that wrote it"
        )
    if any(len(digest) != HASH_BYTES for digest in (anchor.root, anchor.last_hash, anchor.previous)):
        raise ValueError(f"the hashes of an anchor must have {HASH_BYTES} bytes")
    return anchor


def make_anchor(
    cell: str, first: int, last: int, time_ns: int, hashes: Sequence[bytes], before: SignedAnchor | None
) -> Anchor:
    """The anchor over the records with these hashes, which hold the events from `first` to `last`, the latest record of
    `time_ns`; `before` is the anchor that it follows, if there is one."""
    previous = NO_HASH if before is None else anchor_hash(before)
    return Anchor(ANCHOR_FORMAT, cell, first, last, len(hashes), merkle_root(hashes), hashes[-1], time_ns, previous)


def anchor_hash(anchor: SignedAnchor) -> bytes:
    """What the next anchor names as `previous`."""
    return sha256(anchor.data).digest()


def check_follows(anchor: Anchor, before: SignedAnchor | None) -> None:
    """Refuses, with `ValueError`, an anchor that is not what comes after `before` (None: that is the first)."""
    last, digest = (decode_anchor(before.data).last, anchor_hash(before)) if before is not None else (0, NO_HASH)
    if (before is not None and anchor.first != last + 1) or anchor.previous != digest:
        raise ValueError(
            f"the anchor over {anchor.first} to {anchor.last} does not follow the last one, which ends with {last}"
        )
    if not 1 <= anchor.first <= anchor.last or not 1 <= anchor.count <= ANCHOR_RECORDS_MAX:
        raise ValueError(f"an anchor over {anchor.count} records from {anchor.first} to {anchor.last} is none")


def is_signed(anchor: SignedAnchor) -> bool:
    """Whether the signature is that of the key which the anchor names; whose key that is, is another question."""
    from cryptography.exceptions import InvalidSignature  # here, since whoever submits tasks need not wait for it
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    try:
        Ed25519PublicKey.from_public_bytes(anchor.key).verify(anchor.signature, signed_part(anchor.data))
    except (InvalidSignature, ValueError):
        return False
    return True
