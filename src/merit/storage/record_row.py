"""A record as a row of a database, and back: with columns beside it that its header has to agree with."""

from __future__ import annotations

from typing import Final
from zlib import crc32

from merit.model.record import JournalCorrupt, JournalForeign, Record, decode_record, encode_record, header_hash

RecordRow = tuple[int, int, int, int, bytes, int, bytes, bytes, bytes]
"""first, last, epoch, time_ns, hash, payloads_crc, header, events, payloads."""
HASH_COLUMN: Final = 4


def encode_row(record: Record) -> RecordRow:
    """The row of a record."""
    header, events, payloads = encode_record(record)
    return (
        record.first,
        record.last,
        record.epoch,
        record.time_ns,
        header_hash(header),
        crc32(payloads),
        header,
        events,
        payloads,
    )


def decode_row(cell: str, row: RecordRow) -> Record | JournalCorrupt:
    """The record of a row of `cell`, compared with everything that the row says about it."""
    first, last, epoch, time_ns, digest, payloads_crc, header, events, payloads = row
    try:
        record = decode_record(header, events, payloads)
    except (ValueError, JournalForeign) as error:
        return JournalCorrupt(cell, first, str(error))
    if header_hash(header) != digest:
        return JournalCorrupt(cell, first, "the header was altered: it does not have the hash that is stored with it")
    if (record.cell, record.first, record.last, record.epoch, record.time_ns) != (cell, first, last, epoch, time_ns):
        return JournalCorrupt(
            cell,
            first,
            f"the columns of the row were altered, or it belongs elsewhere: its header is of record "
            f"{record.first} of cell {record.cell!r}",
        )
    if crc32(payloads) != payloads_crc:
        return JournalCorrupt(
            cell, first, "payloads were altered: they do not have the checksum that is stored with them"
        )
    return record
