"""What every adapter of the read model's port must do."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from merit.model.limits import SECOND_NS
from merit.model.search import REVIEW_OF, TaskQuery, TaskRow, WorkerQuery, WorkerRow, row_of, texts_of, words, words_of
from merit.model.tasks import Attempt, AttemptState, Failure, Priority, Review, ReviewKind, Task, TaskState, Terms
from merit.ports.read_model import (
    PAGE_MAX,
    Portion,
    Reached,
    ReadModel,
    ReadModelReader,
    ReadModelUnavailable,
    Superseded,
    TaskPage,
)
from merit.testing.builders import START_NS, an_id

ALL = 2**62
"""Above every order."""

OpenReadModel = Callable[[], ReadModel]
"""Opens the read model of one test, which is empty at first; what was written is there again."""
OpenReadModelReader = Callable[[float], ReadModelReader]
"""Opens a reader of the same one, whose searches give up after so many seconds, or soon after."""


def a_row(
    order: int,
    *,
    number: int | None = None,
    state: TaskState = TaskState.COMPLETED,
    workers: Sequence[str] = ("w1",),
    error: str = "",
    searchable: Sequence[str] = (),
    content: str = "",
    submitted_ns: int = 0,
    ended_ns: int = 0,
    **fields: Any,
) -> TaskRow:
    """The row of the task with this order, which has the id ``number``; ``fields`` as ``Terms`` or ``Task`` has them.

    Submitted a second after the one before, and ended half a second later, unless it is said otherwise.
    """
    terms = {name: fields.pop(name) for name in Terms.__struct_fields__ if name in fields}
    submitted_ns = submitted_ns or START_NS + order * SECOND_NS
    ended_ns = ended_ns or submitted_ns + SECOND_NS // 2
    failure = Failure("error", error) if error else None
    attempts = tuple(
        Attempt(place, worker, submitted_ns, ended_ns + 1, AttemptState.COMPLETED, 0, ended_ns, failure=failure)
        for place, worker in enumerate(workers, 1)
    )
    task = Task(
        **{
            "id": an_id(order if number is None else number),
            "tenant": "default",
            "principal": "tester",
            "capability": "echo",
            "parameters": b"",
            "parameters_blob": "",
            "priority": Priority.MEDIUM,
            "run_timeout_ns": SECOND_NS,
            "attempts_max": 4,
            "after": (),
            "description": "",
            "submitted_ns": submitted_ns,
            "order": order,
            "state": state,
            "attempts": attempts,
            "ended_ns": ended_ns,
            "failure": failure if state is TaskState.DEAD else None,
            "terms": Terms(**terms) if terms else None,
            **fields,
        }
    )
    return row_of(task, order, content, " ".join(words_of([*texts_of(task), *searchable])))


def a_worker(name: str, **fields: Any) -> WorkerRow:
    """The row of a worker that is here; ``fields`` as ``WorkerRow`` has them."""
    given = {
        "sequence": 1,
        "tenant": "default",
        "capabilities": ("echo",),
        "tags": (),
        "first_ns": START_NS,
        "joined_ns": START_NS,
        "left_ns": 0,
        "lost": False,
        "reason": "",
        **fields,
    }
    return WorkerRow(name, **given)


def write(model: ReadModel, rows: Sequence[TaskRow] = (), workers: Sequence[WorkerRow] = ()) -> None:
    """The next portion."""
    after = model.reached().sequence
    model.write(Portion(after, Reached(after + 1, START_NS + after), rows, workers))


def pages(reader: ReadModelReader, query: TaskQuery, limit: int = 100) -> list[TaskRow]:
    """All that match, through as many pages as it takes."""
    found: list[TaskRow] = []
    before = ALL
    while True:
        page = reader.find(query, before, limit)
        found += page.rows
        _check_page(page, before, limit)
        if not page.more:
            return [_without_words(row) for row in found]
        before = page.before


def _check_page(page: TaskPage, before: int, limit: int) -> None:
    assert len(page.rows) <= limit
    assert all(row.order < before for row in page.rows)
    if page.more:
        assert page.before < before, "a search that is gone on with gets on"
        assert all(row.order >= page.before for row in page.rows)


def _without_words(row: TaskRow) -> TaskRow:
    return replace(row, words="")


_few = st.sampled_from
_NAMES = ("echo", "render", "a b", "")
_TEXTS = ("", "No such file: Zürich.txt", "zurich ZÜRICH fi", "file 42", "naïve Ω‑test ½", "x", "日本語 東京")
_LABELS = (("user", "ada"), ("user", "bob"), ("job", "1 2"), ("a", ""), ("a l", "b\x01\"'"), ("user l", "ada"))

rows_at_random = st.lists(
    st.builds(
        a_row,
        st.integers(0, 40) | st.integers(65_530, 65_545) | _few([2**20, 2**41]),
        number=st.integers(1, 20),
        state=_few([TaskState.COMPLETED, TaskState.DEAD, TaskState.CANCELED]),
        workers=st.lists(_few(["w1", "w2", "w 3", "w%4"]), max_size=4),
        error=_few(_TEXTS),
        searchable=st.lists(_few(_TEXTS), max_size=2),
        submitted_ns=st.integers(0, 5).map(lambda step: START_NS + step * 1_000 * SECOND_NS),
        tenant=_few(["default", "them"]),
        capability=_few(_NAMES),
        description=_few(_TEXTS),
        labels=st.lists(_few(_LABELS), max_size=4, unique=True).map(tuple),
        schedule=_few(["", "nightly"]),
        review=_few([None, Review(ReviewKind.COPY, "t1"), Review(ReviewKind.GOLD)]),
        idempotency_key=_few(["", "k1", "k'2"]),
        content=_few(["00" * 16, "ff" * 16]),
    ),
    max_size=30,
)
queries_at_random = st.builds(
    TaskQuery,
    states=st.frozensets(
        _few([TaskState.COMPLETED, TaskState.DEAD, TaskState.CANCELED, TaskState.RUNNING]), max_size=2
    ),
    capability=_few(["", "", *_NAMES]),
    tenant=_few(["", "", "default", "nobody"]),
    labels=st.lists(_few([*_LABELS, (REVIEW_OF, "t1")]), max_size=2, unique=True).map(tuple),
    words=_few(["", "", "", "ZUR", "fi", "file zurich", "nai test 1", "4", "東", "nowhere"]).map(words),
    submitted_from_ns=st.integers(0, 6).map(lambda step: START_NS + step * 1_000 * SECOND_NS) | st.just(0),
    submitted_to_ns=st.integers(0, 6).map(lambda step: START_NS + step * 1_000 * SECOND_NS) | st.just(2**63 - 1),
    schedule=_few(["", "", "nightly"]),
    worker=_few(["", "", "w1", "w 3", "w%4"]),
)


class ReadModelContract:
    """Subclass it and override the fixtures."""

    @pytest.fixture
    def open_model(self) -> OpenReadModel:
        """Opens the read model that is tested, to write."""
        raise NotImplementedError

    @pytest.fixture
    def open_reader(self) -> OpenReadModelReader:
        """Opens it to read, beside its writer."""
        raise NotImplementedError

    @pytest.fixture
    def model(self, open_model: OpenReadModel) -> ReadModel:
        """Open, and empty."""
        return open_model()

    def test_an_empty_one_has_reached_nothing(self, model: ReadModel) -> None:
        """And finds nothing."""
        assert model.reached() == Reached()
        assert model.find(TaskQuery(), ALL, 10) == TaskPage((), more=False, before=0)
        assert model.tasks([an_id(1)]) == []
        assert model.tasks([]) == []
        assert model.keys([("default", "key")]) == {}
        assert model.keys([]) == {}
        assert model.workers(WorkerQuery(), "", 10) == []
        assert model.forget(2**62, 10) == 0
        assert model.size_bytes() >= 0
        assert model.oldest_ns() == 0

    @given(data=st.data(), rows=rows_at_random)
    @settings(
        max_examples=30,
        deadline=None,
        # One store for all examples, cleared before each, and one test for all adapters.
        suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.differing_executors],
    )
    def test_it_finds_what_matches_in_order(self, model: ReadModel, data: st.DataObject, rows: list[TaskRow]) -> None:
        """The same as ``TaskQuery.matches`` says, whatever the rows and the question; on pages of any size."""
        model.clear()
        middle = data.draw(st.integers(0, len(rows)))
        write(model, rows[:middle])
        write(model, rows[middle:])
        there = {row.order: row for row in rows}
        for query in data.draw(st.lists(queries_at_random, min_size=1, max_size=8)):
            expected = [
                _without_words(there[order])
                for order in sorted(there, reverse=True)
                if query.matches(there[order].task, [there[order].words])
            ]
            assert pages(model, query, data.draw(st.sampled_from([1, 3, 100]))) == expected
        ids = {row.id: _without_words(there[order]) for order, row in sorted(there.items())}
        found = model.tasks([*ids, an_id(999)])
        assert {row.id: _without_words(row) for row in found} == ids
        keys = {(row.tenant, row.key): (row.id, row.content) for _, row in sorted(there.items()) if row.key}
        asked = model.keys([*keys, ("default", "no such"), ("nobody", "k1")])
        assert {at: (entry.task, entry.content.hex()) for at, entry in asked.items()} == keys

    def test_portions_follow_each_other(self, model: ReadModel) -> None:
        """One that does not is refused, and nothing of it is stored."""
        model.write(Portion(0, Reached(10, 7), [a_row(1)]))
        for after in (0, 9, 11):
            with pytest.raises(Superseded):
                model.write(Portion(after, Reached(20, 8), [a_row(2)], [a_worker("w")]))
        assert model.reached() == Reached(10, 7)
        assert [row.order for row in pages(model, TaskQuery())] == [1]
        assert model.workers(WorkerQuery(), "", 10) == []
        model.write(Portion(10, Reached(20, 8)))
        assert model.reached() == Reached(20, 8)

    def test_two_writers_do_not_mix(self, model: ReadModel, open_model: OpenReadModel) -> None:
        """Who comes second is told so."""
        other = open_model()
        write(model, [a_row(1)])
        with pytest.raises(Superseded):
            other.write(Portion(0, Reached(5), [a_row(2)]))
        write(other, [a_row(3)])
        assert [row.order for row in pages(model, TaskQuery())] == [3, 1]

    def test_what_was_written_is_there_again(self, model: ReadModel, open_model: OpenReadModel) -> None:
        """After closing and opening."""
        row = a_row(1, error="no such file", labels=(("user", "ada"),), idempotency_key="k", content="0a" * 16)
        write(model, [row], [a_worker("w")])
        reached = model.reached()
        model.close()
        model.close()
        again = open_model()
        assert again.reached() == reached
        assert pages(again, TaskQuery(words=("file",))) == [_without_words(row)]
        assert [worker.worker for worker in again.workers(WorkerQuery(), "", 10)] == ["w"]

    def test_a_closed_one_says_so(self, model: ReadModel) -> None:
        """To every question."""
        model.close()
        for question in (
            model.reached,
            model.clear,
            lambda: model.find(TaskQuery(), ALL, 1),
            lambda: model.tasks([an_id(1)]),
            lambda: model.keys([("a", "b")]),
            lambda: model.workers(WorkerQuery(), "", 1),
            lambda: model.forget(1, 1),
            lambda: model.write(Portion(0, Reached(1))),
        ):
            with pytest.raises(ReadModelUnavailable):
                question()

    def test_a_reader_sees_what_is_written_meanwhile(self, model: ReadModel, open_reader: OpenReadModelReader) -> None:
        """Portion by portion, all or nothing of each."""
        write(model, [a_row(1)])
        reader = open_reader(1.0)
        for number in range(2, 12):
            write(model, [a_row(2 * number), a_row(2 * number + 1)])
            assert len(pages(reader, TaskQuery(capability="echo"))) == 2 * number - 1
            assert reader.reached() == model.reached()
        reader.close()
        reader.close()
        with pytest.raises(ReadModelUnavailable):
            reader.reached()

    def test_a_row_of_the_same_order_replaces_the_one_before(self, model: ReadModel) -> None:
        """A dead letter that was retried; also in one portion."""
        write(model, [a_row(1, state=TaskState.DEAD, description="before")])
        write(model, [a_row(1, state=TaskState.DEAD, description="after", successor=an_id(2))])
        assert [row.task.successor for row in pages(model, TaskQuery(words=("after",)))] == [an_id(2)]
        assert pages(model, TaskQuery(words=("before",))) == []
        write(model, [a_row(3, description="before"), a_row(2), a_row(3, description="after")])
        assert [row.order for row in pages(model, TaskQuery(words=("after",)))] == [3, 1]
        assert pages(model, TaskQuery(words=("before",))) == []

    def test_of_tasks_with_one_id_the_latest_counts(self, model: ReadModel) -> None:
        """An id may come again after it was forgotten; a search finds both."""
        write(model, [a_row(9, number=5, idempotency_key="k", content="09" * 16)])
        write(model, [a_row(4, number=5, idempotency_key="k", content="04" * 16)])
        assert [row.order for row in model.tasks([an_id(5)])] == [9]
        assert [row.order for row in model.tasks([an_id(5)], 9)] == [4]
        assert model.tasks([an_id(5)], 4) == []
        assert [row.order for row in pages(model, TaskQuery())] == [9, 4]
        assert model.keys([("default", "k")])["default", "k"].content == bytes.fromhex("09" * 16)

    def test_a_page_is_bounded(self, model: ReadModel) -> None:
        """Whatever was asked for."""
        write(model, [a_row(order) for order in range(1, PAGE_MAX + 2)])
        page = model.find(TaskQuery(), ALL, 10 * PAGE_MAX)
        assert len(page.rows) == PAGE_MAX
        assert page.more
        assert page.before == 2
        assert len(pages(model, TaskQuery(capability="echo"), PAGE_MAX)) == PAGE_MAX + 1

    def test_a_search_that_is_cut_short_is_gone_on_with(
        self, model: ReadModel, open_reader: OpenReadModelReader
    ) -> None:
        """It ends with all that there is, however often it gives up on the way."""
        orders = [1, 2, 70_000, 300_000, 5_000_000, 10_000_000]
        write(model, [a_row(order, capability="rare") for order in orders])
        write(model, [a_row(order, capability="other") for order in range(1_000, 10_000_000, 100_000)])
        hurried = open_reader(0.0)
        for query in (TaskQuery(capability="rare"), TaskQuery(capability="rare", worker="w1")):
            assert [row.order for row in pages(hurried, query)] == orders[::-1]
        assert pages(hurried, TaskQuery(capability="none")) == []
        assert len(pages(hurried, TaskQuery())) == len(orders) + 100
        hurried.close()

    def test_it_forgets_what_is_old(self, model: ReadModel) -> None:
        """In portions, and it is not found any more by anything; what ended later stays, however early it was submitted."""
        late = a_row(3, ended_ns=START_NS + 10_000 * SECOND_NS, description="late")
        old = [a_row(order, idempotency_key=f"k{order}", description="old") for order in range(1, 2_500) if order != 3]
        write(
            model,
            [*old, late],
            [a_worker("here"), a_worker("gone", left_ns=START_NS), a_worker("b", left_ns=START_NS + 1)],
        )
        horizon_ns = START_NS + 2_000 * SECOND_NS
        counts = []
        while count := model.forget(horizon_ns, 700):
            assert count <= 700
            counts.append(count)
        assert sum(counts) == 1_998 + 2
        left = [row.order for row in pages(model, TaskQuery())]
        assert left == [*range(2_499, 1_999, -1), 3]
        assert [row.order for row in pages(model, TaskQuery(words=("old",), capability="echo"))] == left[:-1]
        assert model.tasks([an_id(1)]) == []
        assert model.keys([("default", "k1")]) == {}
        assert [worker.worker for worker in model.workers(WorkerQuery(), "", 10)] == ["here"]
        write(model, [a_row(1, description="old")])
        assert pages(model, TaskQuery(words=("old",)))[-1].order == 1

    def test_what_is_forgotten_does_not_count(self, model: ReadModel) -> None:
        """Neither as old, nor for the size, whatever the store does with the room."""
        empty = model.size_bytes()
        rows = [a_row(order, description=f"{order} " * 100) for order in range(1, 8_001)]
        gone = a_worker("gone", left_ns=rows[0].ended_ns - 5)
        write(model, rows, [a_worker("here", joined_ns=1, first_ns=1), gone])
        assert model.oldest_ns() == gone.left_ns
        full = model.size_bytes() - empty
        half_ns = rows[4_000].ended_ns
        while model.forget(half_ns, 2_000) == 2_000:
            pass
        assert model.oldest_ns() == half_ns
        assert 0.4 * full < model.size_bytes() - empty < 0.6 * full
        while model.forget(2**62, 2_000) == 2_000:
            pass
        assert model.oldest_ns() == 0
        assert model.size_bytes() - empty < 0.1 * full

    def test_clear_leaves_nothing(self, model: ReadModel) -> None:
        """It can be written from the beginning."""
        write(model, [a_row(1)], [a_worker("w")])
        model.clear()
        assert model.reached() == Reached()
        assert pages(model, TaskQuery()) == []
        assert model.workers(WorkerQuery(), "", 10) == []
        write(model, [a_row(1)])
        assert len(pages(model, TaskQuery())) == 1

    def test_all_of_a_task_comes_back(self, model: ReadModel) -> None:
        """What is kept is what was given, to the last character."""
        awkward = "quote \" ' \\ % @ * ( ) \t\n \x1f ü 日本 \U0001f600 </script>"
        row = a_row(
            2**30,
            state=TaskState.DEAD,
            workers=("w1", "w2", "w1", "w3", "w4"),
            error=awkward,
            description=awkward,
            capability="Ünï cödé:*\"'@",
            tenant="-1 OR 1=1; --",
            labels=(("a'b", awkward), ("c", ""), ("d", "x" * 200)),
            schedule=awkward,
            idempotency_key=awkward,
            content="0123456789abcdef" * 2,
            after=(an_id(7), an_id(8)),
            parameters_blob="ab" * 32,
            result_blob="cd" * 32,
            deadline_ns=2**62,
        )
        write(model, [row])
        assert pages(model, TaskQuery()) == [_without_words(row)]
        query = TaskQuery(
            states=frozenset({TaskState.DEAD, TaskState.CANCELED}),
            capability=row.capability,
            tenant=row.tenant,
            labels=row.labels,
            words=words("QUÔTE script"),
            schedule=row.schedule,
            worker="w4",
        )
        assert pages(model, query) == [_without_words(row)]
        assert pages(model, replace(query, labels=(("a'b", awkward[:-1]),))) == []
        assert model.keys([(row.tenant, awkward)])[row.tenant, awkward].task == row.id

    def test_thousands_of_ids_and_keys_at_once(self, model: ReadModel) -> None:
        """A client that comes back asks for all of its own."""
        write(model, [a_row(order, idempotency_key=f"k{order}", content="00") for order in range(1, 3_001)])
        assert len(model.tasks([an_id(order) for order in range(1_000, 4_000)])) == 2_001
        assert len(model.keys([("default", f"k{order}") for order in range(1_000, 4_000)])) == 2_001

    def test_workers(self, model: ReadModel) -> None:
        """By what they can do, their tags, how their name begins, and whether they are here; by name, page by page."""
        write(
            model,
            workers=[
                a_worker("alpha-2", capabilities=("echo", "render"), tags=("gpu",)),
                a_worker("alpha-1", left_ns=5, lost=True, reason="silent"),
                a_worker("Ähre", tags=("gpu", "eu")),
                a_worker("a%_", capabilities=()),
            ],
        )

        def names(**fields: Any) -> list[str]:
            return [worker.worker for worker in model.workers(WorkerQuery(**fields), "", 10)]

        assert names() == ["a%_", "alpha-1", "alpha-2", "Ähre"]
        assert names(capability="render") == ["alpha-2"]
        assert names(tag="gpu") == ["alpha-2", "Ähre"]
        assert names(name="alpha") == ["alpha-1", "alpha-2"]
        assert names(name="a%") == ["a%_"]
        assert names(here=True, capability="echo") == ["alpha-2", "Ähre"]
        assert names(here=False) == ["alpha-1"]
        assert names(left_from_ns=5, left_to_ns=6) == ["alpha-1"]
        assert names(left_from_ns=6) == names(left_from_ns=1, left_to_ns=5) == []
        assert [worker.worker for worker in model.workers(WorkerQuery(), "alpha-1", 1)] == ["alpha-2"]

    def test_a_worker_that_comes_again(self, model: ReadModel) -> None:
        """Is known from when it came first; all else is as it is now."""
        write(model, workers=[a_worker("w", first_ns=5, joined_ns=5, left_ns=9, reason="done")])
        write(model, workers=[a_worker("w", sequence=8, first_ns=7, joined_ns=7, tags=("new",))])
        assert model.workers(WorkerQuery(), "", 10) == [
            a_worker("w", sequence=8, first_ns=5, joined_ns=7, tags=("new",))
        ]
