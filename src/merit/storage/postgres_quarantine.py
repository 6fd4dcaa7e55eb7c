"""The quarantine in PostgreSQL: what stopped one node is not to stop the next one that leads."""

from __future__ import annotations

from typing import Final

from merit.kernel.quarantine import Quarantine, Stopped
from merit.ports.journal import JournalUnavailable
from merit.storage.postgres_database import Database

_REASON_CHARS_MAX: Final = 4_096

_KEPT: Final = "SELECT digest, task FROM merit.quarantine WHERE cell = $1"
# The very same again: it is there, with the reason that was given first.
_SET_ASIDE: Final = """
INSERT INTO merit.quarantine (cell, digest, task, reason) VALUES ($1, $2, $3, $4) ON CONFLICT DO NOTHING
"""


class PostgresQuarantine:
    """That of `cell` in `database`. Asked once in a term, so it keeps no connection."""

    def __init__(self, database: Database, cell: str) -> None:
        self._database = database
        self._cell = cell

    def kept(self) -> Quarantine:
        """What stopped the cell before, on whichever node. Raises `JournalUnavailable`."""
        with self._database.session(f"quarantine {self._cell}", JournalUnavailable) as session:
            rows = session.run(lambda connection: connection.fetch(_KEPT, self._cell))
        digests = frozenset(row["digest"] for row in rows if row["digest"])
        return Quarantine(digests, tuple(_name(row["task"]) for row in rows if row["task"]))

    def set_aside(self, stopped: Stopped) -> None:
        """Notes durably what stopped the cell. Raises `JournalUnavailable`: it is not noted."""
        reason = _bytes(str(stopped)).decode().replace("\0", "\\x00")[:_REASON_CHARS_MAX]
        row = self._cell, stopped.digest, _bytes(stopped.task), reason
        with self._database.session(f"quarantine {self._cell}", JournalUnavailable) as session:
            session.run(lambda connection: connection.execute(_SET_ASIDE, *row))


def _bytes(text: str) -> bytes:
    """Of whatever a message may hold."""
    return text.encode("utf-8", "backslashreplace")


def _name(data: bytes) -> str:
    return data.decode("utf-8", "replace")
