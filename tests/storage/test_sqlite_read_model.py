"""What only the read model in SQLite has to do: files that are not as they should be, and pages of its own."""

import asyncio
import logging
import os
import sys
import threading

import apsw
import pytest

from merit.model.search import TaskQuery
from merit.model.tasks import TaskState
from merit.ports.read_model import Portion, Reached, ReadModelUnavailable
from merit.storage import search_terms
from merit.storage import sqlite_read_model as module
from merit.storage.sqlite_read_model import SqliteReadModel
from merit.storage.sqlite_read_model_format import APPLICATION_ID, FILE_FORMAT
from merit.storage.sqlite_read_model_reader import open_read_model
from merit.testing.read_model_contract import ALL, a_row, a_worker, pages, write


@pytest.fixture
def path(tmp_path):
    return tmp_path / "read-model.sqlite3"


@pytest.fixture
def written(path):
    model = SqliteReadModel(path, "cell")
    write(model, [a_row(order) for order in range(1, 200)], [a_worker("w")])
    model.close()
    return path


def garbage(path):
    path.write_bytes(os.urandom(8_192))


def first_page(path):
    content = bytearray(path.read_bytes())
    content[100:4_096] = os.urandom(3_996)
    path.write_bytes(content)


def cut(path):
    path.write_bytes(b"")


def foreign(path):
    path.unlink()
    connection = apsw.Connection(str(path))
    connection.execute("CREATE TABLE notes (text)")
    connection.close()


def older(path):
    connection = apsw.Connection(str(path))
    connection.pragma("user_version", FILE_FORMAT - 1)
    connection.close()


def without_a_table(path):
    connection = apsw.Connection(str(path))
    connection.execute("DROP TABLE spans")
    connection.close()


def of_another_cell(path):
    connection = apsw.Connection(str(path))
    connection.execute("UPDATE meta SET cell = 'other'")
    connection.close()


@pytest.mark.parametrize("harm", [garbage, first_page, cut, foreign, older, without_a_table, of_another_cell])
def test_what_cannot_be_gone_on_with_is_begun_anew_and_the_log_says_so(written, harm, caplog):
    harm(written)
    with pytest.raises(ReadModelUnavailable, match=r"read-model\.sqlite3: "):
        open_read_model(written, "cell").reached()
    with caplog.at_level(logging.WARNING, "merit"):
        model = SqliteReadModel(written, "cell")
    assert "the read model is begun anew: " in caplog.text
    assert model.reached() == Reached()
    write(model, [a_row(1)])
    assert len(pages(open_read_model(written, "cell"), TaskQuery())) == 1
    model.close()


def test_a_new_one_and_one_that_is_whole_are_no_news(path, caplog):
    for _ in range(2):
        SqliteReadModel(path, "cell").close()
    assert caplog.text == ""
    connection = apsw.Connection(str(path))
    assert connection.pragma("application_id") == APPLICATION_ID
    connection.close()
    assert path.stat().st_mode & 0o077 == 0


def test_damage_that_shows_later_is_said_and_begun_anew_with_the_next_opening(written):
    model = SqliteReadModel(written, "cell")
    reader = open_read_model(written, "cell")
    reader.reached()
    with written.open("r+b") as file:
        file.seek(8_192)
        file.write(os.urandom(written.stat().st_size - 8_192))
    with pytest.raises(ReadModelUnavailable, match=r"was damaged .* open it again"):
        for _ in range(50):
            write(model, [a_row(order) for order in range(1, 300)])
    with pytest.raises(ReadModelUnavailable, match="closed"):
        model.reached()
    with pytest.raises(ReadModelUnavailable, match="begun anew: open it again"):
        reader.reached()
    again = SqliteReadModel(written, "cell")
    assert again.reached() == Reached()
    write(again, [a_row(1)])
    again.close()


def test_a_reader_waits_for_there_to_be_one(path):
    with pytest.raises(ReadModelUnavailable, match="there is no read model yet"):
        open_read_model(path, "cell")


def test_a_reader_notices_when_it_is_begun_anew(written):
    model, reader = SqliteReadModel(written, "cell"), open_read_model(written, "cell")
    assert len(pages(reader, TaskQuery())) == 199
    model.clear()
    with pytest.raises(ReadModelUnavailable, match="begun anew: open it again"):
        reader.find(TaskQuery(), ALL, 1)
    assert pages(open_read_model(written, "cell"), TaskQuery()) == []
    model.close()


def test_a_directory_that_cannot_be_is_named(tmp_path):
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(ReadModelUnavailable, match="file"):
        SqliteReadModel(tmp_path / "file" / "read-model.sqlite3", "cell")


def test_large_portions_go_in_by_parts_and_large_pages_come_out_by_parts(path, monkeypatch):
    monkeypatch.setattr(module, "_ENCODED_BYTES_MAX", 20_000)
    monkeypatch.setattr(search_terms, "PAGE_BYTES_MAX", 20_000)
    model = SqliteReadModel(path, "cell")
    rows = [a_row(order, state=TaskState.DEAD, error="e" * 4_000) for order in range(1, 30)]
    write(model, rows)
    page = model.find(TaskQuery(), ALL, 100)
    assert [row.order for row in page.rows] == [29, 28]
    assert (page.more, page.before) == (True, 28)
    assert [row.order for row in pages(model, TaskQuery(capability="echo"))] == list(range(29, 0, -1))
    monkeypatch.setattr(search_terms, "PAGE_BYTES_MAX", 1)
    assert len(pages(model, TaskQuery())) == 29
    model.close()


def test_the_log_is_copied_back_while_it_is_written(path, monkeypatch):
    monkeypatch.setattr(module, "WAL_BYTES_DUE", 200_000)
    model = SqliteReadModel(path, "cell")
    for start in range(1, 10_000, 500):
        write(model, [a_row(order) for order in range(start, start + 500)])
        assert path.with_name(f"{path.name}-wal").stat().st_size < 2_000_000
    assert model.size_bytes() > 2_000_000
    model.close()


def test_what_was_forgotten_makes_room(path, monkeypatch):
    monkeypatch.setattr(module, "WAL_BYTES_DUE", 100_000)
    model = SqliteReadModel(path, "cell")
    size = 0
    for turn in range(12):
        write(model, [a_row(order, description="some words") for order in range(500 * turn, 500 * turn + 500)])
        while model.forget(a_row(500 * turn - 500).ended_ns, 200) == 200:
            pass
        if turn == 4:
            size = path.stat().st_size
    assert path.stat().st_size < 1.5 * size
    assert len(pages(model, TaskQuery(words=("some",)))) == 1_000
    model.close()


def test_it_is_written_in_a_thread_while_it_is_read_in_another(path):
    model = SqliteReadModel(path, "cell")
    write(model, [a_row(0)])
    counts, over = [], threading.Event()

    def look():
        with open_read_model(path, "cell") as reader:
            while not over.is_set():
                counts.append((reader.reached().sequence, len(pages(reader, TaskQuery(capability="echo"), 1_000))))

    looking = threading.Thread(target=look)
    looking.start()
    try:
        for turn in range(1, 31):
            write(model, [a_row(order) for order in range(10 * turn, 10 * turn + 10)])
    finally:
        over.set()
        looking.join()
    assert counts
    for reached, count in counts:
        assert count >= 10 * (reached - 1) + 1
        assert count % 10 == 1, "half a portion"
    model.close()


KILLED = """
import sys
from pathlib import Path
from merit.storage.sqlite_read_model import SqliteReadModel
from merit.testing.read_model_contract import a_row, write
model = SqliteReadModel(Path(sys.argv[1]), "cell")
while True:
    first = 20 * model.reached().sequence
    write(model, [a_row(order, description="all or nothing") for order in range(first, first + 20)])
    print(flush=True)
"""


async def test_a_writer_that_is_killed_leaves_whole_portions(path):
    for turn in range(3):
        writer = await asyncio.create_subprocess_exec(
            sys.executable,
            "-c",
            KILLED,
            str(path),
            stdout=asyncio.subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        )
        assert writer.stdout is not None
        for _ in range(5 + turn):
            assert await writer.stdout.readline()
        writer.kill()
        await writer.wait()
        model = SqliteReadModel(path, "cell")
        reached = model.reached().sequence
        assert reached >= 5
        found = [row.order for row in pages(model, TaskQuery(words=("nothing",)))]
        assert found == list(range(20 * reached - 1, -1, -1))
        model.write(Portion(reached, Reached(reached)))
        model.close()
