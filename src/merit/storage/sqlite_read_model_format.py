"""What the SQLite file of a read model looks like, and how rows get into it.

All that tasks are searched by is in one full-text index, whose entries are 6 to 12 bytes for a task (measured; an index of
its own for each of capability, tenant, worker and state took 60): words, and for each filter a token that names its value. So
any mix of filters is one question: the intersection of sorted lists. Each token begins with the number of a *bucket*, a run of
65,536 orders, so that a search goes through the tasks bucket by bucket, the latest first, and what one step can cost is
bounded.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

import apsw

from merit.ports.read_model import ReadModelUnavailable
from merit.storage import sqlite_file
from merit.storage.search_terms import CAPABILITY, LABEL, SCHEDULE, STATE, TENANT, WORD, WORKER, Value

APPLICATION_ID: Final = 0x4D525231  # "MRR1": tells a read model from any other SQLite file
FILE_FORMAT: Final = 1
"""Version of the tables, of the tokens, and of what is a word (``merit.model.search.words``)."""
PAGE_BYTES: Final = 8192
BUSY_WAIT_MS: Final = 5_000

BUCKET_BITS: Final = 16

TABLES: Final = """
CREATE TABLE meta (
    only INTEGER PRIMARY KEY CHECK (only = 1),
    cell TEXT NOT NULL,
    sequence INTEGER NOT NULL,
    time_ns INTEGER NOT NULL
) STRICT;
CREATE TABLE tasks (
    place INTEGER PRIMARY KEY,
    sequence INTEGER NOT NULL,
    submitted_ns INTEGER NOT NULL,
    ended_ns INTEGER NOT NULL,
    id BLOB NOT NULL,
    key TEXT,
    content TEXT NOT NULL,
    task BLOB NOT NULL
) STRICT;
CREATE INDEX task_ids ON tasks (id);
CREATE INDEX task_keys ON tasks (key) WHERE key IS NOT NULL;
CREATE VIRTUAL TABLE tokens
    USING fts5(token, content='', contentless_delete=1, detail=none, tokenize='ascii');
CREATE TABLE spans (
    span INTEGER PRIMARY KEY,
    submitted_first_ns INTEGER NOT NULL,
    submitted_last_ns INTEGER NOT NULL,
    ended_first_ns INTEGER NOT NULL
) STRICT;
CREATE TABLE workers (
    name TEXT PRIMARY KEY,
    first_ns INTEGER NOT NULL,
    left_ns INTEGER NOT NULL,
    worker BLOB NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX workers_left ON workers (left_ns) WHERE left_ns > 0;
"""


def exact(kind: str, value: Value) -> str:
    """The token for a value, without its bucket. As `INSERT_TOKENS` makes it: hexadecimal, so that no value is cut in two."""
    parts = value if isinstance(value, tuple) else (str(value),)
    return "".join(f"{kind}{part.encode().hex()}" for part in parts)


# The rows come as one array in JSON (`encoded`), which SQLite goes through by itself: a statement for each row would have
# to wait for the interpreter's lock each time, since another thread folds meanwhile. `->>` by numbers: fields of `TaskRow`.
INSERT_TASKS: Final = """
INSERT OR REPLACE INTO tasks
SELECT value->>0, value->>1, value->>6, value->>7, unhex(value->>2, '-'), nullif(value->>11, ''), value->>12,
    jsonb_extract(value, '$[14]')
FROM jsonb_each(?)
"""

# The first worker, and the first two labels, are taken by their places; a query of its own for each row would be slower than
# all the rest, so only rows with more have one. In the order of the index, which would begin a new part of itself for each row
# otherwise; of several with one order the last stays.
INSERT_TOKENS: Final = f"""
INSERT OR REPLACE INTO tokens (rowid, token)
SELECT value->>0 AS place, concat_ws(' ' || bucket, '',
    '{CAPABILITY}' || hex(value->>4),
    '{TENANT}' || hex(value->>3),
    '{STATE}' || hex(value->>5),
    CASE json_array_length(value, '$[8]') WHEN 0 THEN NULL WHEN 1 THEN '{WORKER}' || hex(value->>'$[8][0]') ELSE (
        SELECT group_concat('{WORKER}' || hex(one.value), ' ' || bucket) FROM jsonb_each(given.value, '$[8]') AS one) END,
    CASE json_array_length(value, '$[9]') WHEN 0 THEN NULL ELSE concat_ws(' ' || bucket,
        '{LABEL}' || nullif(hex(value->>'$[9][0][0]'), '') || '{LABEL}' || hex(value->>'$[9][0][1]'),
        '{LABEL}' || nullif(hex(value->>'$[9][1][0]'), '') || '{LABEL}' || hex(value->>'$[9][1][1]'),
        CASE WHEN json_array_length(value, '$[9]') > 2 THEN (
            SELECT group_concat('{LABEL}' || hex(one.value->>0) || '{LABEL}' || hex(one.value->>1), ' ' || bucket)
            FROM jsonb_each(given.value, '$[9]') AS one WHERE one.key > 1) END) END,
    '{SCHEDULE}' || nullif(hex(value->>10), ''),
    '{WORD}' || replace(nullif(value->>13, ''), ' ', ' ' || bucket || '{WORD}'))
FROM (SELECT key, value, format('%06x', (value->>0) >> {BUCKET_BITS}) AS bucket FROM jsonb_each(?)) AS given
ORDER BY place, key
"""  # noqa: S608  (what is put in are constants of this program)

INSERT_SPANS: Final = """
INSERT INTO spans SELECT value->>0, value->>1, value->>2, value->>3 FROM json_each(?) WHERE true
ON CONFLICT DO UPDATE SET
    submitted_first_ns = min(submitted_first_ns, excluded.submitted_first_ns),
    submitted_last_ns = max(submitted_last_ns, excluded.submitted_last_ns),
    ended_first_ns = min(ended_first_ns, excluded.ended_first_ns)
"""

INSERT_WORKERS: Final = """
INSERT INTO workers SELECT value->>0, value->>5, value->>7, value FROM jsonb_each(jsonb(?)) WHERE true
ON CONFLICT DO UPDATE SET
    first_ns = min(first_ns, excluded.first_ns), left_ns = excluded.left_ns, worker = excluded.worker
"""


def check(connection: apsw.Connection, cell: str) -> str:
    """Why this is no read model of `cell` that can be used, or nothing. Raises `apsw.Error`."""
    if connection.pragma("application_id") != APPLICATION_ID:
        return "it is no read model of Merit"
    version = connection.pragma("user_version")
    if version != FILE_FORMAT:
        return f"it has format {version}, and this version of Merit has format {FILE_FORMAT}"
    tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_schema")}
    if not {"meta", "tasks", "tokens", "spans", "workers"} <= tables:
        return "it does not have all of its tables"
    found = connection.execute("SELECT cell FROM meta").get
    return "" if found == cell else f"it is of cell {found!r}, not of {cell!r}"


def is_damage(error: apsw.Error) -> bool:
    """Whether the file itself is what is wrong."""
    return isinstance(error, apsw.NotADBError | apsw.CorruptError)


def unavailable(error: apsw.Error, path: Path) -> ReadModelUnavailable:
    """What an error of SQLite means for somebody who uses the read model at `path`."""
    if is_damage(error):
        return ReadModelUnavailable(
            f"{path}: the read model is damaged ({error}): stop the control plane, remove the file, and start again; "
            "it is made anew from what the journal still has"
        )
    return ReadModelUnavailable(f"{path}: {sqlite_file.advice(error)}")
