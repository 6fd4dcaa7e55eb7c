"""What it costs an append in PostgreSQL that it asks, and locks, who leads, and looks whether the record before is there:
against the same row put there unasked.

In pairs (``merit.lab.bench.paired``), over one connection and into one table, each kind for a cell of its own.
"""

from __future__ import annotations

import os
import time
from typing import Final

from msgspec import Struct

from merit.lab.bench.figures import Figure, percentile
from merit.lab.bench.fleet import FleetFailed
from merit.lab.bench.paired import cost_pct, measure_pairs
from merit.lab.bench.plan import Plan
from merit.model.record import Record, Tail, after, seal
from merit.storage.postgres_database import Bounds, Database
from merit.storage.postgres_journal import APPEND, PostgresJournal
from merit.storage.postgres_migrations import migrate
from merit.storage.record_row import encode_row

COST_PCT_MAX: Final = 10.0
_SLICES: Final = 4
_FENCED: Final = "fenced"
_UNFENCED: Final = "unfenced"
_HOLDER: Final = "bench"
_EVENTS: Final = 64
_EVENT_BYTES: Final = 120
_LEASE_S: Final = 60.0
"""Longer than this takes: nobody renews it."""
_UNASKED: Final = """
INSERT INTO merit.records (cell, first, last, epoch, time_ns, hash, payloads_crc, header, events, payloads, stored)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, 0)
"""


class _End(Struct, frozen=True):
    """Where a cell's records end; ``first``: of the last one."""

    tail: Tail
    first: int = 0


async def run(plan: Plan, url: str) -> list[Figure]:
    """``url``: of an empty database."""
    database = Database(url)
    migrate(database)
    journal = PostgresJournal(database, _FENCED, _LEASE_S)
    connection = await database.connect("bench", Bounds())
    asked, unasked = await connection.prepare(APPEND), await connection.prepare(_UNASKED)
    took_s: list[float] = []
    ends = {True: _End(journal.lead(_HOLDER, time.time_ns())), False: _End(Tail(epoch=1))}
    fenced = False

    async def switch(on: bool) -> None:
        nonlocal fenced
        fenced = on

    async def measure() -> float:
        began_s = time.perf_counter()
        for _ in range(max(1, plan.fence_appends // _SLICES)):
            end = ends[fenced]
            record = _record(_FENCED if fenced else _UNFENCED, end.tail)
            before_s = time.perf_counter()
            if fenced:
                await asked.fetch(_FENCED, *encode_row(record), 0, _HOLDER, end.first, end.tail.last_hash)
                took_s.append(time.perf_counter() - before_s)
            else:
                await unasked.fetch(_UNFENCED, *encode_row(record))
            ends[fenced] = _End(after(record), record.first)
        return time.perf_counter() - began_s

    try:
        for on in (True, False):
            await switch(on)
            await measure()
        pairs = await measure_pairs(plan.fence_pairs, _SLICES, switch, measure)
        stored = list(journal.read())
    finally:
        await connection.close()
        journal.close()
        database.close()
    if stored[-1].last + 1 != ends[True].tail.next:
        raise FleetFailed("not all appends were stored")
    return [
        Figure("fence_cost_pct", cost_pct(pairs), "%", ceiling=COST_PCT_MAX),
        Figure("postgres_append_p50_ms", percentile(took_s, 0.5) * 1e3, "ms"),
    ]


def _record(cell: str, tail: Tail) -> Record:
    events = [os.urandom(_EVENT_BYTES) for _ in range(_EVENTS)]
    return seal(cell, tail.next, tail.epoch, "bench", time.time_ns(), tail.last_hash, events)
