"""What the tests of the PostgreSQL adapters share."""

import pytest

from merit.storage.postgres_database import Database


@pytest.fixture
def open_database(postgres_url):
    """Opens the same database once more, as another process would; closed after the test."""
    opened = []

    def another(url=postgres_url):
        opened.append(Database(url))
        return opened[-1]

    yield another
    for database in opened:
        database.close()
