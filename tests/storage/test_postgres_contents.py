import pytest

from merit.model.limits import SECOND_NS
from merit.model.search import TaskQuery, WorkerQuery
from merit.ports.blobs import BlobCorrupt
from merit.ports.read_model import Portion, Reached, ReadModelUnavailable, Superseded
from merit.storage import postgres_read_model as model_module
from merit.storage import postgres_read_model_reader as reader_module
from merit.storage.postgres_archive import PostgresArchive
from merit.storage.postgres_blobs import PostgresBlobs
from merit.storage.postgres_read_model import PostgresReadModel
from merit.storage.postgres_read_model_reader import PostgresReadModelReader
from merit.storage.postgres_snapshots import PostgresSnapshots
from merit.testing.archive_contract import ARCHIVED_CELL, ArchiveContract
from merit.testing.blob_contract import BlobContract, SetClock
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
        return lambda bytes_max, clock: PostgresBlobs(open_database(), "cell", bytes_max, clock)


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


def test_a_blob_that_is_used_all_the_time_is_written_to_once_an_hour(open_database, postgres, postgres_url):
    clock = SetClock()
    blobs = PostgresBlobs(open_database(), "cell", clock=clock)
    digest = blobs.put("tenant", b"x")
    places = []
    for minutes in (0, 20, 20, 21):
        clock.now_ns += minutes * 60 * SECOND_NS
        for _ in range(3):
            blobs.put("tenant", b"x")
            blobs.touch("tenant", digest)
        places.append(postgres.sql("SELECT ctid FROM merit.blobs", postgres_url))
    assert len({str(place) for place in places}) == 2
    assert places[0] == places[2] != places[3]


def test_cells_in_one_database_do_not_see_each_other(open_database):
    database = open_database()
    one, other = PostgresSnapshots(database, "one"), PostgresSnapshots(database, "other")
    one.save(1, 1, bytes(32), b"one's")
    assert other.latest() is None
    digest = PostgresBlobs(database, "one").put("tenant", b"one's")
    other_blobs = PostgresBlobs(database, "other")
    assert not other_blobs.has("tenant", digest)
    assert other_blobs.sweep(2**62, lambda *_: False, 10) == 0
    assert PostgresBlobs(database, "one").has("tenant", digest)


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


def test_the_size_is_that_of_one_cell_about_as_it_takes_room(open_database, postgres, postgres_url):
    database = open_database()
    one, other = PostgresReadModel(database, "one"), PostgresReadModel(database, "other")
    write(one, [a_row(order, description=f"some words {order}") for order in range(1, 5_001)], [a_worker("w")])
    assert other.size_bytes() == 0
    postgres.sql("VACUUM FULL merit.tasks", postgres_url)  # what other tests have left behind is not meant
    taken = int(postgres.sql("SELECT pg_total_relation_size('merit.tasks')", postgres_url))
    assert 0.5 * taken < one.size_bytes() < 1.5 * taken


def test_a_large_one_is_measured_in_parts(open_database, monkeypatch):
    model = PostgresReadModel(open_database(), "cell")
    write(model, [a_row(order) for order in range(0, 300 * 1_024, 64)])
    whole = model.size_bytes()
    monkeypatch.setattr(reader_module, "_SPANS_MEASURED", 1_000)
    assert 0.95 * model.size_bytes() < whole < 1.05 * model.size_bytes()


def test_one_of_another_format_answers_nothing_and_says_which_it_has(open_database, postgres, postgres_url):
    database = open_database()
    write(PostgresReadModel(database, "cell"), [a_row(1)], [a_worker("w")])
    reader = PostgresReadModelReader(database, "cell")
    questions = (
        lambda: reader.find(TaskQuery(), ALL, 10),
        lambda: reader.tasks([a_row(1).id]),
        lambda: reader.keys([("default", "k")]),
        lambda: reader.workers(WorkerQuery(), "", 10),
        reader.reached,
    )
    postgres.sql("UPDATE merit.reached SET format = 99", postgres_url)
    for question in questions:
        with pytest.raises(ReadModelUnavailable, match="it has format 99, and this version of Merit has format 1"):
            question()
    postgres.sql("UPDATE merit.reached SET format = 1", postgres_url)
    assert len(reader.workers(WorkerQuery(), "", 10)) == 1


def test_it_is_cleared_in_portions_and_who_opens_it_next_goes_on(open_database, monkeypatch):
    monkeypatch.setattr(model_module, "_DROPPED_AT_A_TIME", 100)
    database = open_database()
    model, reader = PostgresReadModel(database, "cell"), PostgresReadModelReader(database, "cell")
    write(model, [a_row(order) for order in range(1, 251)])
    dropped = PostgresReadModel._while_clearing
    calls = []

    def killed(model, statement, number):
        calls.append(number)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return dropped(model, statement, number)

    monkeypatch.setattr(PostgresReadModel, "_while_clearing", killed)
    with pytest.raises(KeyboardInterrupt):
        model.clear()
    with pytest.raises(ReadModelUnavailable, match="no read model yet"):
        reader.reached()
    with pytest.raises(Superseded):
        model.write(Portion(0, Reached(1), [a_row(999)]))
    again = PostgresReadModel(database, "cell")
    assert reader.reached().sequence == 0
    assert again.find(TaskQuery(), ALL, 1_000).rows == ()
    # Somebody who was clearing as well, and slower, leaves alone what is new.
    write(again, [a_row(1)])
    assert model._while_clearing("DELETE FROM merit.tasks WHERE cell = $1 AND $2 > 0", 100) == 0
    assert len(again.find(TaskQuery(), ALL, 1_000).rows) == 1


def test_a_read_model_of_another_version_is_begun_anew(open_database, postgres, postgres_url):
    database = open_database()
    write(PostgresReadModel(database, "cell"), [a_row(1)])
    reader = PostgresReadModelReader(database, "cell")
    assert reader.reached().sequence == 1
    postgres.sql("UPDATE merit.reached SET format = 99", postgres_url)
    with pytest.raises(ReadModelUnavailable, match="it has format 99"):
        reader.reached()
    model = PostgresReadModel(database, "cell")
    assert model.reached().sequence == 0
    assert model.find(TaskQuery(), ALL, 10).rows == ()
