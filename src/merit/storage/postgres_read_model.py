"""The read model in PostgreSQL: written by the follower, searched by any process (``postgres_read_model_reader``)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import asyncpg
import msgspec

from merit.model.search import TaskRow, WorkerRow
from merit.ports.read_model import Portion, Superseded
from merit.storage import search_terms as terms
from merit.storage.postgres_database import Bounds, Database
from merit.storage.postgres_read_model_reader import (
    BUCKET_BITS,
    CLEARING,
    FORMAT,
    TERM_LENGTH_MAX,
    PostgresReadModelReader,
    plain_json,
    prefix_of,
)

_ROWS_AT_A_TIME: Final = 2_000
# It can be made again from what the journal still has, so a commit need not wait for the disk: what a crash of the server takes with it,
# the follower writes again.
_BOUNDS: Final = Bounds(statement_s=60.0, lock_s=10.0, idle_s=30.0, durable=False)

_MAKE: Final = """
INSERT INTO merit.reached (cell, format, sequence, time_ns) VALUES ($1, $2, 0, 0) ON CONFLICT (cell) DO NOTHING
"""
_ADVANCE: Final = """
UPDATE merit.reached SET sequence = $3, time_ns = $4 WHERE cell = $1 AND sequence = $2 AND format = $5 RETURNING sequence
"""
_RESET: Final = "UPDATE merit.reached SET format = $2, sequence = 0, time_ns = 0 WHERE cell = $1"
_IS_CLEARING: Final = "SELECT true FROM merit.reached WHERE cell = $1 AND format = $2 FOR UPDATE"

# `x`: the fields of `TaskRow` but for the task, by their places; parsed once, as `jsonb`. The task goes as it is.
_INSERT_TASKS: Final = f"""
INSERT INTO merit.tasks AS known (cell, id_order, sequence, submitted_ns, ended_ns, id, key, content, task, terms)
SELECT $1, (x->>0)::bigint, (x->>1)::bigint, (x->>6)::bigint, (x->>7)::bigint, (x->>2)::uuid,
    CASE WHEN x->>11 <> '' THEN (x->3)::text || (x->11)::text END, x->>12, task,
    array_to_tsvector(
        ARRAY[begin || '{terms.CAPABILITY}' || left((x->4)::text, $4), begin || '{terms.TENANT}' || left((x->3)::text, $4),
            begin || '{terms.STATE}' || (x->>5)]
        || CASE WHEN x->>10 <> '' THEN ARRAY[begin || '{terms.SCHEDULE}' || left((x->10)::text, $4)] END
        || CASE WHEN x->>13 <> '' THEN string_to_array(
            begin || '{terms.WORD}' || replace(x->>13, ' ', ' ' || begin || '{terms.WORD}'), ' ') END
        || CASE WHEN x->8 <> '[]' THEN (
            SELECT array_agg(begin || '{terms.WORKER}' || left(one::text, $4)) FROM jsonb_array_elements(x->8) AS one) END
        || CASE WHEN x->9 <> '[]' THEN (
            SELECT array_agg(begin || '{terms.LABEL}' || left(one::text, $4)) FROM jsonb_array_elements(x->9) AS one) END)
FROM ROWS FROM (jsonb_array_elements($2::jsonb), unnest($3::text[])) AS given (x, task)
    CROSS JOIN LATERAL (SELECT $5 || to_hex((x->>0)::bigint >> {BUCKET_BITS}) AS begin) AS bucket
ON CONFLICT (cell, id_order) DO UPDATE SET
    sequence = excluded.sequence, submitted_ns = excluded.submitted_ns, ended_ns = excluded.ended_ns, id = excluded.id,
    key = excluded.key, content = excluded.content, task = excluded.task, terms = excluded.terms
"""  # noqa: S608  (what is put in are constants of this program)
_INSERT_SPANS: Final = """
INSERT INTO merit.spans AS known SELECT $1, * FROM unnest($2::bigint[], $3::bigint[], $4::bigint[], $5::bigint[])
ON CONFLICT (cell, span) DO UPDATE SET
    submitted_first_ns = least(known.submitted_first_ns, excluded.submitted_first_ns),
    submitted_last_ns = greatest(known.submitted_last_ns, excluded.submitted_last_ns),
    ended_first_ns = least(known.ended_first_ns, excluded.ended_first_ns)
"""
_INSERT_WORKERS: Final = """
INSERT INTO merit.workers AS known (cell, name, first_ns, left_ns, capabilities, tags, worker)
SELECT $1, x->>0, (x->>5)::bigint, (x->>7)::bigint, ARRAY(SELECT jsonb_array_elements_text(x->3)),
    ARRAY(SELECT jsonb_array_elements_text(x->4)), worker
FROM ROWS FROM (jsonb_array_elements($2::jsonb), unnest($3::text[])) AS given (x, worker)
ON CONFLICT (cell, name) DO UPDATE SET
    first_ns = least(known.first_ns, excluded.first_ns), left_ns = excluded.left_ns,
    capabilities = excluded.capabilities, tags = excluded.tags, worker = excluded.worker
"""
# New terms wait in a list that every search would have to go through, until they are put in their places, all at once.
_SORT_IN: Final = "SELECT gin_clean_pending_list('merit.task_terms')"

_OLDEST: Final = "SELECT span FROM merit.spans WHERE cell = $1 AND ended_first_ns < $2 ORDER BY span LIMIT 1"
_FORGET: Final = """
DELETE FROM merit.tasks WHERE cell = $1 AND id_order IN (
    SELECT id_order FROM merit.tasks
    WHERE cell = $1 AND id_order >= $2::bigint << 10 AND id_order < ($2::bigint + 1) << 10 AND ended_ns < $3
    ORDER BY id_order LIMIT $4)
"""
_NARROW: Final = """
WITH gone AS (DELETE FROM merit.spans WHERE cell = $1 AND span = $2)
SELECT min(submitted_ns) AS submitted_first, max(submitted_ns) AS submitted_last, min(ended_ns) AS ended_first
FROM merit.tasks WHERE cell = $1 AND id_order >= $2::bigint << 10 AND id_order < ($2::bigint + 1) << 10
"""
_FORGET_WORKERS: Final = """
DELETE FROM merit.workers WHERE cell = $1 AND name IN (
    SELECT name FROM merit.workers WHERE cell = $1 AND left_ns > 0 AND left_ns < $2 ORDER BY left_ns LIMIT $3)
"""
_DROP_SOME: Final = tuple(
    f"DELETE FROM merit.{table} WHERE cell = $1 AND {key} IN ("  # noqa: S608  (what is put in are constants of this program)
    f"SELECT {key} FROM merit.{table} WHERE cell = $1 ORDER BY {key} LIMIT $2)"
    for table, key in (("tasks", "id_order"), ("spans", "span"), ("workers", "name"))
)
_DROPPED_AT_A_TIME: Final = 10_000
"""Rows: millions at once would take longer than a statement may."""

_encode = msgspec.json.Encoder().encode
_TASK: Final = TaskRow.__struct_fields__.index("task")


class PostgresReadModel(PostgresReadModelReader):
    """A `ReadModel` of `cell` in `database`; one of another version is begun anew. Raises `ReadModelUnavailable`."""

    def __init__(self, database: Database, cell: str) -> None:
        super().__init__(database, cell, bounds=_BOUNDS)
        found = self._session.run(self._made)
        if found != FORMAT:
            self.clear()

    async def _made(self, connection: asyncpg.Connection[Any]) -> int:
        await connection.execute(_MAKE, self.cell, FORMAT)
        found: int = await connection.fetchval("SELECT format FROM merit.reached WHERE cell = $1", self.cell)
        return found

    def write(self, portion: Portion) -> None:
        """See `ReadModel.write`."""
        # Of several with one key the last stays; one statement cannot change a row twice.
        tasks = list({row.order: row for row in portion.tasks}.values())
        workers = list({row.worker: row for row in portion.workers}.values())

        async def write(connection: asyncpg.Connection[Any]) -> None:
            async with connection.transaction():
                until = portion.until
                values = (self.cell, portion.after, until.sequence, until.time_ns, FORMAT)
                if await connection.fetchval(_ADVANCE, *values) is None:
                    raise Superseded(
                        f"{self._place}: it is not at {portion.after:,} any more: another follower is at work; end one of them"
                    )
                for start in range(0, len(tasks), _ROWS_AT_A_TIME):
                    await self._store_tasks(connection, tasks[start : start + _ROWS_AT_A_TIME])
                if workers:
                    await self._store_workers(connection, workers)
            if tasks:
                await connection.execute(_SORT_IN)

        self._session.run(write)

    async def _store_tasks(self, connection: asyncpg.Connection[Any], rows: Sequence[TaskRow]) -> None:
        found = plain_json(_encode([msgspec.structs.astuple(row)[:_TASK] for row in rows]).decode())
        bodies = [_encode(row.task).decode() for row in rows]
        begin = prefix_of(self.cell)
        await connection.execute(_INSERT_TASKS, self.cell, found, bodies, TERM_LENGTH_MAX, begin)
        await connection.execute(_INSERT_SPANS, self.cell, *zip(*terms.spans_of(rows), strict=True))

    async def _store_workers(self, connection: asyncpg.Connection[Any], rows: Sequence[WorkerRow]) -> None:
        found = plain_json(_encode(rows).decode())
        await connection.execute(_INSERT_WORKERS, self.cell, found, [_encode(row).decode() for row in rows])

    def forget(self, ended_before_ns: int, count_max: int) -> int:
        """See `ReadModel.forget`; by spans of 1,024 orders, the lowest first."""

        async def forget(connection: asyncpg.Connection[Any]) -> int:
            dropped = 0
            async with connection.transaction():
                while dropped < count_max:
                    span = await connection.fetchval(_OLDEST, self.cell, ended_before_ns)
                    if span is None:
                        break
                    dropped += await self._forget_in(connection, span, ended_before_ns, count_max - dropped)
                done = await connection.execute(_FORGET_WORKERS, self.cell, ended_before_ns, count_max - dropped)
            return dropped + _count(done)

        return self._session.run(forget)

    async def _forget_in(
        self, connection: asyncpg.Connection[Any], span: int, ended_before_ns: int, count_max: int
    ) -> int:
        """Drops tasks of one span, and notes what is left of it; how many."""
        done = await connection.execute(_FORGET, self.cell, span, ended_before_ns, count_max)
        left = await connection.fetchrow(_NARROW, self.cell, span)
        if left is not None and left["ended_first"] is not None:
            await connection.execute(_INSERT_SPANS, self.cell, [span], *([number] for number in left))
        return _count(done)

    def clear(self) -> None:
        """See `ReadModel.clear`; in portions, until the last of which nobody can read it."""
        self._session.run(lambda connection: connection.execute(_RESET, self.cell, CLEARING))
        for statement in _DROP_SOME:
            while self._while_clearing(statement, _DROPPED_AT_A_TIME) == _DROPPED_AT_A_TIME:
                pass
        self._while_clearing(_RESET, FORMAT)

    def _while_clearing(self, statement: str, number: int) -> int:
        """Does it unless somebody else, who was clearing as well, has come to the end of it: what is there then is new."""

        async def do(connection: asyncpg.Connection[Any]) -> int:
            async with connection.transaction():
                if not await connection.fetchval(_IS_CLEARING, self.cell, CLEARING):
                    return 0
                return _count(await connection.execute(statement, self.cell, number))

        return self._session.run(do)


def _count(done: str) -> int:
    """Rows that a statement has dropped, of what the server says of it."""
    return int(done.rpartition(" ")[2])
