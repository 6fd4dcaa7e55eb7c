"""Searches a read model that is kept in PostgreSQL; beside its follower, from any process or thread.

As in SQLite, all that tasks are searched by is in one index over *terms* (a GIN index over a ``tsvector``): words, and for
each filter a term that names its value, so that any mix of filters is an intersection of sorted lists. Each term begins
with its cell and with the number of a *bucket*, a run of 8,192 orders, so that a search goes through the tasks bucket by
bucket, the latest first, and what one step can cost is bounded.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator, Sequence
from typing import Any, Final, Self, TypeVar
from zlib import crc32

import asyncpg
import msgspec

from merit.core.state import KeyEntry
from merit.model.search import TaskQuery, TaskRow, WorkerQuery, WorkerRow, row_of
from merit.model.tasks import Task
from merit.ports.read_model import ORDER_END, PAGE_MAX, Reached, ReadModelUnavailable, TaskPage
from merit.storage.postgres_database import Bounds, Database, Work
from merit.storage.search_terms import WORD, page_of, question

FORMAT: Final = 1
"""Version of the terms, and of what is a word (``merit.model.search.words``)."""
CLEARING: Final = 0
"""Stands for the format while rows are being dropped: nobody reads or writes then, and who opens it next goes on dropping."""
BUCKET_BITS: Final = 13
TERM_LENGTH_MAX: Final = 500
"""A term of PostgreSQL has at most 2,046 bytes; longer values are cut off, in what is searched and in what is asked."""

EFFORT_S: Final = 0.05
"""A search that has taken so long ends with what it has, after the step that it is in."""
_BUCKETS_FIRST: Final = 16
"""In the first step; each step takes twice as many as the one before …"""
_BUCKETS_MAX: Final = 512
_STEP_S: Final = EFFORT_S / 5
"""… unless that took longer than this."""
_ASKED_AT_A_TIME: Final = 5_000
_BOUNDS: Final = Bounds(statement_s=5.0, lock_s=5.0, idle_s=5.0)
_ID: Final = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")
_BUCKET: Final = "\x01"
"""Stands for the bucket in a question. No term has it: control characters are escaped in JSON."""

_REACHED: Final = "SELECT format, sequence, time_ns FROM merit.reached WHERE cell = $1"
_BUCKETS: Final = """
SELECT DISTINCT span >> 3 AS bucket FROM merit.spans
WHERE cell = $1 AND span <= ($2::bigint - 1) >> 10 AND submitted_last_ns >= $3 AND submitted_first_ns < $4
ORDER BY bucket DESC
"""
# Each bucket by itself, in the order of the array, until there are enough. All but the terms is written so that no index fits:
# the planner, who cannot know how few tasks have the terms, would rather go through all tasks of the cell for each bucket.
_BY_TERMS: Final = """
SELECT hit.id_order, hit.bytes FROM unnest($6::bigint[]) AS bucket CROSS JOIN LATERAL (
    SELECT id_order, octet_length(task) AS bytes FROM merit.tasks
    WHERE cell || '' = $1 AND terms @@ replace($7, E'\\x01', to_hex(bucket))::tsquery
        AND id_order + 0 < $2::bigint AND submitted_ns >= $3::bigint AND submitted_ns < $4::bigint
    ORDER BY -id_order LIMIT $5
) AS hit LIMIT $5
"""
_PLAIN: Final = """
SELECT hit.id_order, hit.bytes FROM unnest($6::bigint[]) AS bucket CROSS JOIN LATERAL (
    SELECT id_order, octet_length(task) AS bytes FROM merit.tasks
    WHERE cell = $1 AND id_order >= bucket << 13 AND id_order < least((bucket + 1) << 13, $2::bigint)
        AND submitted_ns >= $3::bigint AND submitted_ns < $4::bigint
    ORDER BY id_order DESC LIMIT $5
) AS hit LIMIT $5
"""
_BY_ORDER: Final = """
SELECT sequence, content, task FROM merit.tasks WHERE cell = $1 AND id_order = ANY($2::bigint[]) ORDER BY id_order DESC
"""
_BY_ID: Final = """
SELECT DISTINCT ON (id) sequence, content, task FROM merit.tasks
WHERE cell = $1 AND id = ANY($2::uuid[]) AND id_order < $3 ORDER BY id, id_order DESC
"""
_BY_KEY: Final = """
SELECT DISTINCT ON (key) key, id::text, content FROM merit.tasks WHERE cell = $1 AND key = ANY($2::text[])
ORDER BY key, id_order DESC
"""
_WORKERS: Final = """
SELECT first_ns, worker FROM merit.workers
WHERE cell = $1 AND name > $2 AND name >= $3 AND starts_with(name, $3)
    AND ($4::boolean IS NULL OR (left_ns = 0) = $4)
    AND ($5 = '' OR $5 = ANY(capabilities)) AND ($6 = '' OR $6 = ANY(tags)) AND left_ns >= $7 AND left_ns < $8
ORDER BY name LIMIT $9
"""
_OLDEST_NS: Final = """
SELECT coalesce(least(
    (SELECT min(ended_first_ns) FROM merit.spans WHERE cell = $1),
    (SELECT min(left_ns) FROM merit.workers WHERE cell = $1 AND left_ns > 0)), 0)
"""
# The tables hold other cells too, and room of what was dropped. So some of the cell's spans are measured, spread over all, and
# stand for the rest. What a row takes beside its task and terms, in the table and in the indexes, is put at 350 bytes.
_SIZE: Final = """
WITH numbered AS (
    SELECT span, row_number() OVER (ORDER BY span) - 1 AS place, count(*) OVER () AS spans FROM merit.spans WHERE cell = $1
), measured AS (
    SELECT spans, sum(task_bytes) AS bytes
    FROM numbered CROSS JOIN LATERAL (
        SELECT sum(pg_column_size(task) + pg_column_size(terms) + 350) AS task_bytes FROM merit.tasks
        WHERE cell = $1 AND id_order >= span << 10 AND id_order < (span + 1) << 10
    ) AS one
    WHERE place % greatest(1, spans / $2) = 0 GROUP BY spans, span
)
SELECT (
    coalesce((SELECT avg(bytes) * max(spans) FROM measured), 0)
    + (SELECT coalesce(sum(pg_column_size(worker) + 200), 0) FROM merit.workers WHERE cell = $1)
)::bigint
"""
_SPANS_MEASURED: Final = 64

Answer = TypeVar("Answer")

_decode_task = msgspec.json.Decoder(Task).decode
_decode_worker = msgspec.json.Decoder(WorkerRow).decode


class PostgresReadModelReader:
    """A `ReadModelReader` of `cell` in `database`."""

    def __init__(self, database: Database, cell: str, effort_s: float = EFFORT_S, bounds: Bounds = _BOUNDS) -> None:
        self.cell = cell
        self._place = f"read model of cell {cell!r} in {database.place}"
        self._effort_s = effort_s
        self._session = database.session(f"read model {cell}", ReadModelUnavailable, bounds)
        self._checked = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def reached(self) -> Reached:
        """See `ReadModelReader.reached`."""
        row = self._session.run(lambda connection: connection.fetchrow(_REACHED, self.cell))
        if row is None or row["format"] == CLEARING:
            raise ReadModelUnavailable(f"{self._place}: there is no read model yet; the follower makes it")
        if row["format"] != FORMAT:
            raise ReadModelUnavailable(
                f"{self._place}: it has format {row['format']}, and this version of Merit has format {FORMAT}; the follower "
                "begins it anew when it starts"
            )
        self._checked = True
        return Reached(row["sequence"], row["time_ns"])

    def find(self, query: TaskQuery, before: int, limit: int) -> TaskPage:
        """See `ReadModelReader.find`."""
        wanted = max(1, min(limit, PAGE_MAX))
        rows, more, below = self._ask(lambda connection: self._find(connection, query, before, wanted))
        return TaskPage(tuple(map(_task_row, rows)), more, below)

    async def _find(
        self, connection: asyncpg.Connection[Any], query: TaskQuery, before: int, wanted: int
    ) -> tuple[list[asyncpg.Record], bool, int]:
        """Rows, whether there may be more, and the order down to which all was looked at."""
        ends_s = time.monotonic() + self._effort_s
        asked = _question(query, self.cell)
        common = (self.cell, before, query.submitted_from_ns, query.submitted_to_ns)
        left: list[int] = [row["bucket"] for row in await connection.fetch(_BUCKETS, *common)]
        hits: list[tuple[int, int]] = []
        buckets, below = _BUCKETS_FIRST, before
        while left and len(hits) < wanted:
            began_s = time.monotonic()
            if began_s > ends_s and below < before:
                break
            step, left = left[:buckets], left[buckets:]
            values = (*common, wanted - len(hits), step)
            found = await (connection.fetch(_BY_TERMS, *values, asked) if asked else connection.fetch(_PLAIN, *values))
            hits += [(row["id_order"], row["bytes"]) for row in found]
            below = min(below, step[-1] << BUCKET_BITS)
            if time.monotonic() - began_s < _STEP_S:
                buckets = min(2 * buckets, _BUCKETS_MAX)
        more = bool(left)
        kept = page_of(hits)
        if len(kept) < len(hits) or len(hits) == wanted:
            more, below = True, kept[-1]
        rows = await connection.fetch(_BY_ORDER, self.cell, kept) if kept else []
        return rows, more, below if more else 0

    def tasks(self, ids: Sequence[str], before: int = ORDER_END) -> list[TaskRow]:
        """See `ReadModelReader.tasks`."""
        known = [task for task in ids if _ID.fullmatch(task)]
        return [_task_row(row) for row in self._asked(_BY_ID, known, before)]

    def keys(self, wanted: Sequence[tuple[str, str]]) -> dict[tuple[str, str], KeyEntry]:
        """See `ReadModelReader.keys`."""
        asked = {key_of(tenant, key): (tenant, key) for tenant, key in wanted}
        return {
            asked[row["key"]]: KeyEntry(row["id"], bytes.fromhex(row["content"]), 0)
            for row in self._asked(_BY_KEY, list(asked))
        }

    def workers(self, query: WorkerQuery, after: str, limit: int) -> list[WorkerRow]:
        """See `ReadModelReader.workers`."""
        capability, tag, name = plain(query.capability), plain(query.tag), plain(query.name)
        left = (query.left_from_ns, query.left_to_ns)
        values = (self.cell, plain(after), name, query.here, capability, tag, *left, max(1, min(limit, PAGE_MAX)))
        rows = self._ask(lambda connection: connection.fetch(_WORKERS, *values))
        return [msgspec.structs.replace(_decode_worker(row["worker"]), first_ns=row["first_ns"]) for row in rows]

    def oldest_ns(self) -> int:
        """See `ReadModelReader.oldest_ns`."""
        found: int = self._session.run(lambda connection: connection.fetchval(_OLDEST_NS, self.cell))
        return found

    def size_bytes(self) -> int:
        """See `ReadModelReader.size_bytes`."""
        size: int = self._session.run(lambda connection: connection.fetchval(_SIZE, self.cell, _SPANS_MEASURED))
        return size

    def close(self) -> None:
        """See `ReadModelReader.close`."""
        self._session.close()

    def _asked(self, statement: str, wanted: Sequence[str], *more: int) -> Iterator[asyncpg.Record]:
        portions = [wanted[start : start + _ASKED_AT_A_TIME] for start in range(0, len(wanted), _ASKED_AT_A_TIME)]
        for portion in portions or [[]]:

            async def fetched(
                connection: asyncpg.Connection[Any], portion: Sequence[str] = portion
            ) -> list[asyncpg.Record]:
                return await connection.fetch(statement, self.cell, portion, *more)

            yield from self._ask(fetched)

    def _ask(self, work: Work[Answer]) -> Answer:
        """The answer, once it is known that what is there was written as this version reads it."""
        if not self._checked:
            self.reached()
        return self._session.run(work)


def plain(text: str) -> str:
    """The text as PostgreSQL takes it: it has no place for the character with the number 0."""
    return text.replace("\0", "\x03")


def said(value: object) -> str:
    """A value in JSON, as PostgreSQL makes it of its `jsonb`."""
    return plain_json(json.dumps(value, ensure_ascii=False))


def plain_json(text: str) -> str:
    """JSON, with what `plain` puts into it."""
    return text.replace("\\u0000", "\\u0003")


def key_of(tenant: str, key: str) -> str:
    """As an idempotency key stands in the table."""
    return said(tenant) + said(key)


def prefix_of(cell: str) -> str:
    """Begins all terms of a cell, so that a search hardly sees those of others in the same database."""
    return f"{crc32(cell.encode()) & 0xFFFF:04x}z"


def _question(query: TaskQuery, cell: str) -> str:
    """The question to the index, with a mark for the bucket; empty: there is nothing to ask it."""
    begin = prefix_of(cell) + _BUCKET
    return question(
        query,
        term=lambda kind, value: _quoted(begin + kind + said(value)[:TERM_LENGTH_MAX]),
        begun=lambda word: f"{_quoted(begin + WORD + word)}:*",
        both=" & ",
        either=" | ",
    )


def _quoted(term: str) -> str:
    """A term in a `tsquery`."""
    return "'" + term.replace("\\", "\\\\").replace("'", "''") + "'"


def _task_row(row: asyncpg.Record) -> TaskRow:
    return row_of(_decode_task(row["task"]), row["sequence"], row["content"])
