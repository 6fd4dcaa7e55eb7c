"""Where a cell keeps its things when they are in PostgreSQL: all but what belongs to one machine."""

from __future__ import annotations

import os
import threading

from merit.app.state_directory import CELL, StateDirectory
from merit.app.stores import STATE_VARIABLE, STORE_VARIABLE
from merit.kernel.quarantine import Quarantine, Stopped
from merit.ports.journal import JournalUnavailable, LeaderElsewhere
from merit.ports.read_model import ReadModelUnavailable
from merit.storage.postgres_archive import PostgresArchive
from merit.storage.postgres_blobs import PostgresBlobs
from merit.storage.postgres_database import Database, DatabaseUnavailable, check_url
from merit.storage.postgres_journal import PostgresJournal
from merit.storage.postgres_migrations import MigrationWaits, check_tables, migrate
from merit.storage.postgres_quarantine import PostgresQuarantine
from merit.storage.postgres_read_model import PostgresReadModel
from merit.storage.postgres_read_model_reader import PostgresReadModelReader
from merit.storage.postgres_reader import PostgresReader
from merit.storage.postgres_snapshots import PostgresSnapshots


class PostgresStores:
    """In the database at `url`; see ``Stores``. Nothing is connected before something is asked.

    The journal and the read model, opened to be written, make the tables or bring them up to date; all else expects them.
    May be used from any thread. Raises `ValueError` for what is no URL of a PostgreSQL database.
    """

    def __init__(self, directory: StateDirectory, url: str, lease_s: float) -> None:
        check_url(url)
        self.directory = directory
        self._url = url
        self._lease_s = lease_s
        self._database = Database(url)
        # Nobody closes these, and terms come and go: there is one of each.
        self._snapshots = PostgresSnapshots(self._database, CELL)
        self._blobs = PostgresBlobs(self._database, CELL)
        self._turn = threading.Lock()
        self._checked = self._made = False

    def journal(self) -> PostgresJournal:
        """See ``Stores``. Raises `JournalUnavailable`, and `LeaderElsewhere` while somebody else makes the tables."""
        self._prepare(JournalUnavailable, make=True)
        return PostgresJournal(self._database, CELL, self._lease_s)

    def reader(self) -> PostgresReader:
        """See ``Stores``."""
        self._prepare(JournalUnavailable)
        return PostgresReader(self._database, CELL)

    def snapshots(self) -> PostgresSnapshots:
        """See ``Stores``."""
        return self._snapshots

    def blobs(self) -> PostgresBlobs:
        """See ``Stores``."""
        return self._blobs

    def archive(self) -> PostgresArchive:
        """See ``Stores``."""
        return PostgresArchive(self._database, CELL)

    def read_model(self) -> PostgresReadModel:
        """See ``Stores``."""
        self._prepare(ReadModelUnavailable, make=True)
        return PostgresReadModel(self._database, CELL)

    def read_model_reader(self) -> PostgresReadModelReader:
        """See ``Stores``."""
        self._prepare(ReadModelUnavailable)
        reader = PostgresReadModelReader(self._database, CELL)
        try:
            reader.reached()
        except ReadModelUnavailable:
            reader.close()
            raise
        return reader

    def quarantine(self) -> Quarantine:
        """See ``Stores``; with what an earlier version, or a person, has noted in this node's own file."""
        self._prepare(JournalUnavailable)
        shared, own = PostgresQuarantine(self._database, CELL).kept(), self.directory.quarantine()
        return Quarantine(shared.digests | own.digests, tuple(dict.fromkeys((*shared.tasks, *own.tasks))))

    def set_aside(self, stopped: Stopped) -> None:
        """See ``Stores``."""
        try:
            self._prepare(JournalUnavailable)
            PostgresQuarantine(self._database, CELL).set_aside(stopped)
        except JournalUnavailable as error:
            # Whoever leads next meets it again, and sets it aside then.
            raise JournalUnavailable(f"{stopped}. But it could not be set aside: {error}") from error

    def environment(self) -> dict[str, str]:
        """See ``Stores``. With the URL in it, and so its password: never to be shown."""
        return {**os.environ, STATE_VARIABLE: str(self.directory.path), STORE_VARIABLE: self._url}

    def close(self) -> None:
        """See ``Stores``."""
        self._database.close()

    def _prepare(self, failure: type[Exception], *, make: bool = False) -> None:
        """Once: see that the tables are there, or make them."""
        with self._turn:
            try:
                if make and not self._made:
                    migrate(self._database)
                    self._checked = self._made = True
                if not self._checked:
                    check_tables(self._database)
                    self._checked = True
            except MigrationWaits as error:
                waits = LeaderElsewhere if failure is JournalUnavailable else failure
                raise waits(str(error)) from error
            except DatabaseUnavailable as error:
                raise failure(str(error)) from error
