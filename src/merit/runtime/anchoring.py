"""Anchors the journal as it is read: whoever reads all records feeds them in, and gets signed anchors out."""

from __future__ import annotations

from merit.model.record import JournalCorrupt, Record, record_hash
from merit.model.trail import ANCHOR_RECORDS_MAX, SignedAnchor, decode_anchor, encode_anchor, make_anchor, signed_part
from merit.ports.signer import Signer


class Anchoring:
    """Takes verified records in order; a record is part of one anchor exactly.

    Args:
        last: the last anchor that was stored (`Archive.last_anchor`); records that it covers are passed over. None: the
            first record that comes is the first that is anchored.
        signer: signs.
        records_max: an anchor is due with so many records, if nobody flushes before.
    """

    def __init__(self, last: SignedAnchor | None, signer: Signer, records_max: int = ANCHOR_RECORDS_MAX) -> None:
        self._signer = signer
        self._last = last
        self._records_max = records_max
        self._hashes: list[bytes] = []
        self._cell = ""
        self._first = self._reached = self._time_ns = 0
        self._hash = b""
        if last is not None:
            anchor = decode_anchor(last.data)
            self._cell, self._reached, self._hash = anchor.cell, anchor.last, anchor.last_hash
        self._anchored = self._reached

    @property
    def anchored(self) -> int:
        """Sequence of the last event that an anchor covers; what comes next is to be fed from the event after it on."""
        return self._anchored

    def take(self, record: Record) -> SignedAnchor | None:
        """One more record, and the anchor if one is due: to be stored before anything relies on it.

        Raises:
            JournalCorrupt: the record does not follow what was anchored: the journal was altered since.
            ValueError: records were left out.
            SignerUnavailable: it cannot be signed.
        """
        if self._reached:
            if record.last <= self._reached:
                return None
            if record.first != self._reached + 1:
                raise ValueError(
                    f"record {record.first} was given, but {self._reached + 1} is to be anchored next: is the archive "
                    "older than the journal? Restore the one that was there, or move it away for a new one"
                )
            if record.previous != self._hash or record.cell != self._cell:
                reason = "the journal was altered: it does not follow the record that was anchored before it"
                raise JournalCorrupt(record.cell, record.first, reason)
        if not self._hashes:
            self._cell, self._first, self._time_ns = record.cell, record.first, 0
        self._hash = record_hash(record)
        self._hashes.append(self._hash)
        self._reached, self._time_ns = record.last, max(self._time_ns, record.time_ns)
        return self.flush() if len(self._hashes) >= self._records_max else None

    def flush(self) -> SignedAnchor | None:
        """The anchor over the records that have come since the last one; None when there are none.

        Raises `SignerUnavailable`; nothing is lost then.
        """
        if not self._hashes:
            return None
        anchor = make_anchor(self._cell, self._first, self._reached, self._time_ns, self._hashes, self._last)
        data = encode_anchor(anchor)
        self._last = SignedAnchor(data, self._signer.sign(signed_part(data)), self._signer.public_key)
        self._hashes, self._anchored = [], self._reached
        return self._last
