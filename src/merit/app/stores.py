"""Where one cell keeps its things, and how any of its processes opens them: the control plane, its follower, a command."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Final, Protocol

from merit.app.state_directory import CELL, DEFAULT, StateDirectory
from merit.kernel.quarantine import Quarantine, Stopped
from merit.ports.archive import Archive
from merit.ports.blobs import Blobs
from merit.ports.journal import LEASE_S, Journal, JournalReader
from merit.ports.read_model import ReadModel, ReadModelReader
from merit.ports.snapshots import SnapshotStore
from merit.storage.file_blobs import FileBlobs
from merit.storage.file_snapshots import FileSnapshots
from merit.storage.sqlite_archive import SqliteArchive
from merit.storage.sqlite_journal import SqliteJournal
from merit.storage.sqlite_read_model import SqliteReadModel
from merit.storage.sqlite_read_model_reader import SqliteReadModelReader, open_read_model
from merit.storage.sqlite_reader import SqliteReader, open_reader

if TYPE_CHECKING:
    from merit.app.postgres_stores import PostgresStores

STATE_VARIABLE: Final = "MERIT_STATE"
STORE_VARIABLE: Final = "MERIT_STORE"
"""How a process tells those that it starts which store is meant: what is in the arguments of a process, everybody sees."""


class Stores(Protocol):
    """All that is kept of one cell. What is opened and can be closed is to be closed by whoever opened it."""

    directory: StateDirectory
    """What is always a directory of this machine: the key."""

    def journal(self) -> Journal:
        """To lead and write it."""
        ...

    def reader(self) -> JournalReader:
        """To read the journal, beside its leader. Raises as ``JournalReader.read``."""
        ...

    def snapshots(self) -> SnapshotStore:
        """The cell's snapshots."""
        ...

    def blobs(self) -> Blobs:
        """The cell's large contents."""
        ...

    def archive(self) -> Archive:
        """What stays of the journal."""
        ...

    def read_model(self) -> ReadModel:
        """To write it. Raises ``ReadModelUnavailable``."""
        ...

    def read_model_reader(self) -> ReadModelReader:
        """To search it, beside its follower. Raises ``ReadModelUnavailable``, also while there is none yet."""
        ...

    def quarantine(self) -> Quarantine:
        """What stopped the cell before. Raises ``ValueError`` for a damaged file of it, ``JournalUnavailable``."""
        ...

    def set_aside(self, stopped: Stopped) -> None:
        """Durably note what stopped the cell, so that it cannot stop whoever leads next. Raises as ``quarantine``."""
        ...

    def environment(self) -> dict[str, str]:
        """That of a process which is to open the same stores with ``stores_of_environment``."""
        ...

    def close(self) -> None:
        """Frees what they have in common; what was opened is of no use any more. May be called twice."""
        ...


class LocalStores:
    """In the state directory of one machine; see ``Stores``."""

    def __init__(self, directory: StateDirectory) -> None:
        self.directory = directory

    def journal(self) -> SqliteJournal:
        """See ``Stores``."""
        return SqliteJournal(self.directory.journal, CELL)

    def reader(self) -> SqliteReader:
        """See ``Stores``."""
        return open_reader(self.directory.journal, CELL)

    def snapshots(self) -> FileSnapshots:
        """See ``Stores``."""
        return FileSnapshots(self.directory.snapshots)

    def blobs(self) -> FileBlobs:
        """See ``Stores``."""
        return FileBlobs(self.directory.blobs)

    def archive(self) -> SqliteArchive:
        """See ``Stores``."""
        return SqliteArchive(self.directory.archive, CELL)

    def read_model(self) -> SqliteReadModel:
        """See ``Stores``."""
        return SqliteReadModel(self.directory.read_model, CELL)

    def read_model_reader(self) -> SqliteReadModelReader:
        """See ``Stores``."""
        return open_read_model(self.directory.read_model, CELL)

    def quarantine(self) -> Quarantine:
        """See ``Stores``."""
        return self.directory.quarantine()

    def set_aside(self, stopped: Stopped) -> None:
        """See ``Stores``."""
        self.directory.set_aside(stopped)

    def environment(self) -> dict[str, str]:
        """See ``Stores``."""
        return {**os.environ, STATE_VARIABLE: str(self.directory.path), STORE_VARIABLE: ""}

    def close(self) -> None:
        """See ``Stores``; there is nothing to free."""


def open_stores(state: Path, url: str = "") -> Stores:
    """Those in the state directory, or in the PostgreSQL database at ``url``.

    Raises:
        ValueError: the URL is of something else, or of something for which an extra is missing; the message says which.
    """
    return shared_stores(state, url) if url else LocalStores(StateDirectory(state))


def shared_stores(state: Path, url: str, lease_s: float = LEASE_S) -> PostgresStores:
    """Those in the PostgreSQL database at ``url``; who leads there and is not heard of for ``lease_s`` leads no more.

    Raises:
        ValueError: as ``open_stores``.
    """
    try:
        from merit.app.postgres_stores import PostgresStores
    except ModuleNotFoundError as error:
        if error.name != "asyncpg":
            raise
        raise ValueError("--store: PostgreSQL needs an extra: pip install 'merit-fleet[postgres]'") from None
    try:
        return PostgresStores(StateDirectory(state), url, lease_s)
    except ValueError as error:
        raise ValueError(f"--store: {error}") from None


def stores_of_environment() -> Stores:
    """The stores that ``Stores.environment`` names: how a process of its own opens what its parent has."""
    return open_stores(Path(os.environ.get(STATE_VARIABLE) or DEFAULT), os.environ.get(STORE_VARIABLE, ""))
