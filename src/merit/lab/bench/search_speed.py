"""How long a question takes the read model that knows a million final tasks: many kinds of questions, a page each."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

from merit.lab.bench.figures import Figure, percentile
from merit.lab.bench.plan import Plan
from merit.lab.bench.search_rows import search_queries, search_rows
from merit.model.search import TaskRow
from merit.ports.read_model import Portion, Reached
from merit.storage.sqlite_read_model import SqliteReadModel
from merit.storage.sqlite_read_model_reader import open_read_model

SEARCH_MS_MAX: Final = 50.0
_CELL: Final = "bench"
_PAGE: Final = 100
_PAGES: Final = 3
"""That are turned over of each answer."""
_PORTION: Final = 10_000
_BEFORE: Final = 2**62


async def run(plan: Plan) -> list[Figure]:
    """The rows are written as a follower does, then asked for through a reader."""
    with TemporaryDirectory(prefix="merit-bench-", dir=plan.state) as directory:
        path = Path(directory) / "read-model.sqlite3"
        began_s = time.perf_counter()
        _write(path, plan.search_rows)
        write_s = time.perf_counter() - began_s
        took_ms: list[float] = []
        with contextlib.closing(open_read_model(path, _CELL)) as reader:
            size_bytes = reader.size_bytes()
            for _, query in search_queries(plan.search_rows):
                before = _BEFORE
                for _ in range(_PAGES):
                    began_s = time.perf_counter()
                    page = reader.find(query, before, _PAGE)
                    took_ms.append((time.perf_counter() - began_s) * 1e3)
                    before = page.before
                    if not page.more:
                        break
    return [
        Figure("search_p95_ms", percentile(took_ms, 0.95), "ms", ceiling=SEARCH_MS_MAX),
        Figure("search_p50_ms", percentile(took_ms, 0.5), "ms"),
        Figure("search_max_ms", max(took_ms), "ms"),
        Figure("read_model_bytes", size_bytes / plan.search_rows, "B/task"),
        Figure("read_model_write_us", write_s / plan.search_rows * 1e6, "µs/task"),
    ]


def _write(path: Path, count: int) -> None:
    rows: Iterator[TaskRow] = search_rows(count)
    reached = Reached()
    with contextlib.closing(SqliteReadModel(path, _CELL)) as model:
        while portion := list(islice(rows, _PORTION)):
            until = Reached(reached.sequence + 3 * len(portion), portion[-1].ended_ns)
            model.write(Portion(reached.sequence, until, portion))
            reached = until
