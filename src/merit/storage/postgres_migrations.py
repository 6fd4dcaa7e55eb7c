"""The tables in PostgreSQL, and how they came about: numbered files, each applied once, in order, in a transaction.

A file that has been released is never changed; what is to be different comes in a new one. Any number of processes may
start at once: they take turns. What is there of a newer version of Merit, or was not made by these files, is left alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import sha256
from importlib import resources
from typing import Any, Final

import asyncpg
import msgspec

from merit.storage.postgres_database import Bounds, Database, DatabaseUnavailable

_LOCK: Final = 0x4D455249542D5347  # "MERIT-SG": any number that nobody else takes
LOCK_S: Final = 5.0
"""How long one waits for whoever is at it, or uses a table, before it is given up: to be tried again by who can be stopped."""
_STATEMENT_S: Final = 3600.0

_BEGUN: Final = "SELECT to_regclass('merit.migrations') IS NOT NULL"
_BEGIN: Final = """
CREATE SCHEMA IF NOT EXISTS merit;
CREATE TABLE IF NOT EXISTS merit.migrations (
    number integer PRIMARY KEY,
    name text NOT NULL,
    digest bytea NOT NULL,
    applied_at timestamptz NOT NULL DEFAULT now()
);
"""


class MigrationWaits(Exception):
    """Somebody else brings the tables up to date just now, or uses them: to be tried again. Nothing is half done."""


class Migration(msgspec.Struct, frozen=True):
    """One step: its number, the name of its file, and its statements."""

    number: int
    name: str
    statements: str

    @property
    def digest(self) -> bytes:
        """Of the statements, SHA-256."""
        return sha256(self.statements.encode()).digest()


def migrations() -> tuple[Migration, ...]:
    """All that this version has, in their order."""
    folder = resources.files("merit.storage") / "migrations"
    found = sorted((entry for entry in folder.iterdir() if entry.name.endswith(".sql")), key=lambda entry: entry.name)
    return tuple(Migration(int(entry.name[:4]), entry.name, entry.read_text("utf-8")) for entry in found)


def migrate(database: Database, wanted: Sequence[Migration] | None = None) -> int:
    """Brings the tables to where this version wants them; returns how many steps that took.

    Raises `MigrationWaits`, and `DatabaseUnavailable`, also for what a newer version has made.
    """
    steps = migrations() if wanted is None else wanted
    with database.session("migrations", bounds=Bounds(_STATEMENT_S, LOCK_S, idle_s=60.0)) as session:
        return session.run(lambda connection: _migrate(connection, database.place, steps))


def check_tables(database: Database) -> None:
    """For those who only read: raises `DatabaseUnavailable` if the tables are not as this version wants them."""

    async def applied(connection: asyncpg.Connection[Any]) -> dict[int, bytes]:
        return await _applied(connection) if await connection.fetchval(_BEGUN) else {}

    with database.session("check") as session:
        if _due(session.run(applied), database.place, migrations()):
            raise DatabaseUnavailable(
                f"{database.place}: Merit's tables are not there, or of an older version: check the name of the database, or "
                "start this version: merit up --store …"
            )


async def _migrate(connection: asyncpg.Connection[Any], place: str, wanted: Sequence[Migration]) -> int:
    try:
        return await _take_steps(connection, place, wanted)
    except asyncpg.LockNotAvailableError:
        raise MigrationWaits(
            f"{place}: the tables are to be brought up to date, but somebody else is at it, or uses them, for more than "
            f"{LOCK_S:g} s: wait, or look at pg_stat_activity"
        ) from None


async def _take_steps(connection: asyncpg.Connection[Any], place: str, wanted: Sequence[Migration]) -> int:
    steps = 0
    while True:
        if await connection.fetchval(_BEGUN):
            due = _due(await _applied(connection), place, wanted)
            if not due:
                return steps
        async with connection.transaction():
            await connection.execute("SELECT pg_advisory_xact_lock($1)", _LOCK)
            await connection.execute(_BEGIN)
            # Looked at again: somebody else may have had the turn before.
            due = _due(await _applied(connection), place, wanted)
            if due:
                step = due[0]
                await connection.execute(step.statements)
                await connection.execute(
                    "INSERT INTO merit.migrations (number, name, digest) VALUES ($1, $2, $3)",
                    step.number,
                    step.name,
                    step.digest,
                )
                steps += 1


async def _applied(connection: asyncpg.Connection[Any]) -> dict[int, bytes]:
    rows = await connection.fetch("SELECT number, digest FROM merit.migrations")
    return {row["number"]: row["digest"] for row in rows}


def _due(applied: dict[int, bytes], place: str, wanted: Sequence[Migration]) -> list[Migration]:
    known = {step.number: step for step in wanted}
    newer = sorted(set(applied) - set(known))
    if newer:
        raise DatabaseUnavailable(
            f"{place}: its tables are of a newer version of Merit (step {newer[-1]}; this version knows {max(known, default=0)}): "
            "use that version, or another database"
        )
    for number, digest in applied.items():
        if known[number].digest != digest:
            raise DatabaseUnavailable(
                f"{place}: its tables were made by another {known[number].name} than this version has: use the version of "
                "Merit that made them, or another database"
            )
    return [step for step in wanted if step.number not in applied]
