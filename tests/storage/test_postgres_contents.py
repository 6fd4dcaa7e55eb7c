import pytest

from merit.model.search import TaskQuery, WorkerQuery
from merit.ports.blobs import BlobCorrupt
from merit.ports.read_model import ReadModelUnavailable
from merit.storage.postgres_archive import PostgresArchive
from merit.storage.postgres_blobs import PostgresBlobs
from merit.storage.postgres_read_model import PostgresReadModel
from merit.storage.postgres_read_model_reader import PostgresReadModelReader
from merit.storage.postgres_snapshots import PostgresSnapshots
from merit.testing.archive_contract import ARCHIVED_CELL, ArchiveContract
from merit.testing.blob_contract import BlobContract
from merit.testing.read_model_contract import ALL, ReadModelContract, a_row, a_worker, write
from merit.testing.snapshot_contract import SnapshotContract


class TestPostgresSnapshots(SnapshotContract):
    @pytest.fixture
    def store(self, open_database):
        return PostgresSnapshots(open_database(), "cell")

    @pytest.fixture
    def damage(self, postgres, postgres_url):
        def overwrite(_store, sequence):
            postgres.sql(
                "UPDATE merit.snapshot_parts SET data = set_byte(data, length(data) - 1, get_byte(data, length(data) - 1) # 1) "
                f"WHERE sequence = {sequence} AND part = 0",
                postgres_url,
            )

        return overwrite


class TestPostgresBlobs(BlobContract):
    @pytest.fixture
    def open_blobs(self, open_database):
        return lambda bytes_max: PostgresBlobs(open_database(), "cell", bytes_max)


class TestPostgresArchive(ArchiveContract):
    @pytest.fixture
    def open_archive(self, open_database):
        return lambda: PostgresArchive(open_database(), ARCHIVED_CELL)


class TestPostgresReadModel(ReadModelContract):
    @pytest.fixture
    def open_model(self, open_database):
        return lambda: PostgresReadModel(open_database(), "cell")

    @pytest.fixture
    def open_reader(self, open_database):
        return lambda effort_s: PostgresReadModelReader(open_database(), "cell", effort_s)


@pytest.mark.parametrize("damage", ["", "other", "much longer than it was"])
def test_a_damaged_blob_is_found_and_putting_it_again_heals(open_database, postgres, postgres_url, damage):
    blobs = PostgresBlobs(open_database(), "cell")
    digest = blobs.put("tenant", b"right")
    postgres.sql(f"UPDATE merit.blobs SET data = '{damage}'", postgres_url)
    with pytest.raises(BlobCorrupt, match=digest):
        blobs.get("tenant", digest)
    blobs.put("tenant", b"right")
    assert blobs.get("tenant", digest) == b"right"


def test_cells_in_one_database_do_not_see_each_other(open_database):
    database = open_database()
    one, other = PostgresSnapshots(database, "one"), PostgresSnapshots(database, "other")
    one.save(1, 1, bytes(32), b"one's")
    assert other.latest() is None
    digest = PostgresBlobs(database, "one").put("tenant", b"one's")
    assert not PostgresBlobs(database, "other").has("tenant", digest)


def test_what_no_text_of_postgresql_can_hold_is_found_and_comes_back(open_database):
    """The character with the number 0."""
    database = open_database()
    model = PostgresReadModel(database, "cell")
    row = a_row(1, description="a\0b", labels=(("k\0", "v"),), capability="c\0d", idempotency_key="\0", content="00")
    other = a_row(2, description="a\0b", labels=(("k", "v"),), capability="cd", idempotency_key="x", content="00")
    write(model, [row, other], [a_worker("w\0", reason="\0", tags=("t\0",))])
    query = TaskQuery(labels=row.labels, capability=row.capability)
    assert [found.task for found in model.find(query, ALL, 10).rows] == [row.task]
    assert model.keys([("default", "\0")])["default", "\0"].task == row.id
    assert model.workers(WorkerQuery(tag="t\0", name="w\0"), "", 10) == [a_worker("w\0", reason="\0", tags=("t\0",))]


def test_cells_in_one_database_have_read_models_of_their_own(open_database):
    database = open_database()
    one, other = PostgresReadModel(database, "one"), PostgresReadModel(database, "other")
    write(one, [a_row(1, description="same")], [a_worker("w1")])
    write(other, [a_row(1, description="same"), a_row(2)], [a_worker("w2")])
    assert [row.order for row in one.find(TaskQuery(words=("same",)), ALL, 10).rows] == [1]
    other.clear()
    assert one.reached().sequence == 1
    assert [worker.worker for worker in one.workers(WorkerQuery(), "", 10)] == ["w1"]
    assert len(one.find(TaskQuery(), ALL, 10).rows) == 1


def test_a_read_model_of_another_version_is_begun_anew(open_database, postgres, postgres_url):
    database = open_database()
    write(PostgresReadModel(database, "cell"), [a_row(1)])
    reader = PostgresReadModelReader(database, "cell")
    assert reader.reached().sequence == 1
    postgres.sql("UPDATE merit.reached SET format = 0", postgres_url)
    with pytest.raises(ReadModelUnavailable, match="another version"):
        reader.reached()
    model = PostgresReadModel(database, "cell")
    assert model.reached().sequence == 0
    assert model.find(TaskQuery(), ALL, 10).rows == ()
