import pytest

from merit.storage.memory_read_model import MemoryReadModel
from merit.storage.sqlite_read_model import SqliteReadModel
from merit.storage.sqlite_read_model_reader import open_read_model
from merit.testing.read_model_contract import ReadModelContract


class TestMemoryReadModel(ReadModelContract):
    @pytest.fixture
    def kept(self):
        return MemoryReadModel()

    @pytest.fixture
    def open_model(self, kept):
        return kept.opened

    @pytest.fixture
    def open_reader(self, kept):
        return lambda effort_s: kept.opened(looked_at_max=10_000 if effort_s else 1)


class TestSqliteReadModel(ReadModelContract):
    @pytest.fixture
    def path(self, tmp_path):
        return tmp_path / "made" / "when missing" / "read-model.sqlite3"

    @pytest.fixture
    def open_model(self, path):
        opened = []

        def open_again():
            opened.append(SqliteReadModel(path, "cell"))
            return opened[-1]

        yield open_again
        for model in opened:
            model.close()

    @pytest.fixture
    def open_reader(self, path):
        return lambda effort_s: open_read_model(path, "cell", effort_s=effort_s)
