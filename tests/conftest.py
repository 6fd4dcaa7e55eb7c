"""What all tests share: how hypothesis looks for examples, and a private PostgreSQL."""

import os

import pytest
from hypothesis import HealthCheck, settings

from merit.storage.postgres_database import Database
from merit.storage.postgres_migrations import migrate
from merit.testing.postgres import PrivatePostgres

# No deadline and no complaint about slow data: both measure the machine, which tests share with others.
settings.register_profile("dev", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("ci", settings.get_profile("dev"), derandomize=True, database=None, print_blob=True)
settings.load_profile("ci" if os.environ.get("CI") else "dev")


# Quicker than a database for each test, which is 8 MB of files.
EMPTY_POSTGRES = """
DO $$ DECLARE name text; BEGIN
    FOR name IN SELECT tablename FROM pg_tables WHERE schemaname = 'merit' AND tablename <> 'migrations' LOOP
        EXECUTE format('DELETE FROM merit.%I', name);
    END LOOP;
END $$
"""


@pytest.fixture(scope="session")
def postgres():
    """A PostgreSQL server of this process's own, started by the first test that needs it. A test never goes without."""
    with PrivatePostgres() as server:
        yield server


@pytest.fixture(scope="session")
def migrated_postgres_url(postgres):
    url = postgres.new_database()
    database = Database(url)
    try:
        migrate(database)
    finally:
        database.close()
    return url


@pytest.fixture
def postgres_url(postgres, migrated_postgres_url):
    """The URL of a database with Merit's tables and nothing in them, for one test."""
    postgres.sql(EMPTY_POSTGRES, migrated_postgres_url)
    return migrated_postgres_url
