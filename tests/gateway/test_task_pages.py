"""Lists of tasks, of which the cell has some, the read model some, and both some."""

import asyncio
import threading
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from merit.core.state import State
from merit.gateway.fields import BadField
from merit.gateway.memory import Memory
from merit.gateway.task_pages import Beyond, NotYet, TaskPages, read_place
from merit.gateway.task_search import TaskSearch
from merit.model.limits import SECOND_NS
from merit.model.search import REVIEW_OF
from merit.model.tasks import Review, ReviewKind, TaskState
from merit.ports.following import FollowerStanding
from merit.ports.read_model import Portion, Reached, ReadModelUnavailable
from merit.storage.memory_read_model import MemoryReadModel
from merit.testing.builders import START_NS, an_id
from merit.testing.read_model_contract import a_row
from merit.wire.v1 import tasks_pb2

Filter = tasks_pb2.TaskFilter


class ScriptedFollower:
    """Comes as far as a test lets it, when somebody waits for it."""

    def __init__(self):
        self.waited = []
        self.catch_up = lambda: False

    def standing(self):
        return FollowerStanding(alarms=("the follower has died; look at the log",))

    async def reached(self, sequence, timeout_s):
        self.waited.append((sequence, timeout_s))
        return self.catch_up()


class Past:
    """A cell with so many tasks, of which it keeps some, and a read model with some."""

    def __init__(self, kept=(), remembered=(), *, sequence=100, reached=100, effort=10_000):
        self.follower = ScriptedFollower()
        self.model = MemoryReadModel()
        self.opened = 0
        self.effort = effort
        self.broken = False
        self.memory = Memory(self.open, self.follower)
        state = State(sequence=sequence, forgotten=1)
        for row in sorted(kept, key=lambda row: row.order):
            state.tasks[row.id] = row.task
            if row.state.final:
                state.finals.append(row.task)
        self.cell = SimpleNamespace(state=state, progress={})
        self.model.write(Portion(0, Reached(reached, START_NS + reached * SECOND_NS), list(remembered)))

    def open(self):
        if self.broken:
            raise ReadModelUnavailable("read-model: no space left; make some")
        self.opened += 1
        return self.model.opened(self.effort)

    async def page(self, wanted=None, limit=0, below=None, at_least=0, *, memory=True, waits=True):
        pages = TaskPages(self.cell, self.memory if memory else None)
        return await pages.page(TaskSearch(wanted or Filter()), limit, below, at_least, waits=waits)


def live(order):
    return a_row(order, state=TaskState.PENDING, workers=(), ended_ns=2**62)


def orders(response):
    return [int(task.id[-12:], 16) for task in response.tasks]


@given(
    where=st.lists(st.sampled_from(["live", "kept", "both", "remembered"]), max_size=40),
    limit=st.integers(1, 7),
    effort=st.integers(1, 9),
    capability=st.sampled_from(["", "echo", "other"]),
)
async def test_all_are_listed_once_and_in_order_wherever_they_are(where, limit, effort, capability):
    def row(order, place):
        name = "echo" if order % 3 else "other"
        return live(order) if place == "live" else a_row(order, capability=name)

    rows = [(row(order, place), place) for order, place in enumerate(where, 1)]
    past = Past(
        [row for row, place in rows if place != "remembered"],
        [row for row, place in rows if place in ("both", "remembered")],
        effort=effort,
    )
    expected = [row.order for row, _ in reversed(rows) if not capability or row.capability == capability]
    found, below = [], None
    for _ in range(200):
        page = await past.page(Filter(capability=capability), limit, below)
        assert len(page.tasks) <= limit
        assert (page.sequence, page.lacking) == (100, "")
        found += orders(page)
        if not page.next_cursor:
            break
        below = int(page.next_cursor)
    assert found == expected


async def test_a_task_in_both_is_as_the_cell_has_it():
    dead = a_row(1, state=TaskState.DEAD)
    retried = a_row(1, state=TaskState.DEAD, successor=an_id(2))
    page = await Past([retried], [dead]).page()
    assert [task.successor_id for task in page.tasks] == [an_id(2)]


async def test_the_read_model_is_only_asked_when_it_has_to_be():
    past = Past([live(1)], [a_row(2)])
    assert orders(await past.page(Filter(states=[tasks_pb2.TASK_STATE_PENDING]))) == [1]
    past.cell.state.forgotten = 0
    assert orders(await past.page()) == [1]
    assert past.opened == 0


async def test_what_the_cell_has_forgotten_and_the_read_model_does_not_know_yet_is_waited_for():
    past = Past([a_row(50)], reached=20)
    page = await past.page()
    assert past.follower.waited == [(100, 2.0)]
    assert page.sequence == 20
    assert "80 events behind; the follower has died; look at the log" in page.lacking

    def catch_up():
        past.model.write(Portion(20, Reached(60, START_NS + 60 * SECOND_NS), [a_row(49)]))
        return True

    past.follower.catch_up = catch_up
    page = await past.page()
    # The oldest that the cell keeps ended before what the read model has reached: nothing is between them.
    assert (page.sequence, page.lacking, orders(page)) == (100, "", [50, 49])


async def test_a_moment_that_it_knows_in_part_is_not_known():
    # Several records may be of one time: while a clock is set back, say, all are.
    kept, lost = (a_row(order, ended_ns=START_NS + 50 * SECOND_NS) for order in (2, 1))
    past = Past([kept], reached=50)
    page = await past.page()
    assert orders(page) == [2]
    assert "may be missing" in page.lacking
    past.model.write(Portion(50, Reached(51, START_NS + 51 * SECOND_NS), [lost]))
    page = await past.page()
    assert (orders(page), page.lacking) == ([2, 1], "")


async def test_it_does_not_trust_the_age_of_dead_letters():
    """One that was closed late is at the end of what is kept, with an early time."""
    past = Past([a_row(1, state=TaskState.DEAD), a_row(50)], reached=20)
    assert (await past.page()).lacking
    past = Past([a_row(1, state=TaskState.DEAD)], reached=20)
    assert (await past.page()).lacking
    past = Past([a_row(1, state=TaskState.DEAD)], reached=100)
    assert not (await past.page()).lacking


async def test_somebody_who_names_an_event_waits_for_it_or_is_told():
    past = Past([a_row(50)], reached=20)
    with pytest.raises(NotYet, match=r"known up to 20 only: .* behind"):
        await past.page(at_least=30)
    assert past.follower.waited == [(30, 10.0)]
    with pytest.raises(Beyond, match=r"^at_least: 101 was asked for, .* nothing has happened after 100 yet"):
        await past.page(at_least=101)
    assert len(past.follower.waited) == 1, "nothing to wait for"
    assert (await past.page(at_least=20)).sequence == 20
    past.cell.state.forgotten = 0
    assert (await past.page(at_least=100)).sequence == 100


async def test_a_list_waits_for_the_follower_once():
    past = Past([a_row(order) for order in range(50, 60)], reached=20)
    page, waits = await past.page(limit=4), True
    found = orders(page)
    while page.next_cursor:
        below, waits = read_place(page.next_cursor)
        page = await past.page(limit=4, below=below, waits=waits)
        assert page.lacking, "it is said of each page"
        found += orders(page)
    assert (found, waits) == ([*range(59, 49, -1)], False)
    assert past.follower.waited == [(100, 2.0)]
    # It has caught up meanwhile, and fallen behind again.
    past.model.write(Portion(20, Reached(100, START_NS + 100 * SECOND_NS)))
    page = await past.page(limit=4, below=57, waits=False)
    assert not page.lacking
    assert read_place(page.next_cursor) == (53, False)
    with pytest.raises(NotYet):
        await Past([a_row(50)], reached=20).page(at_least=30, waits=False)
    for bad in ("", "-", "7--", "x", "-7"):
        with pytest.raises(BadField):
            read_place(bad)


async def test_without_a_read_model_it_says_what_is_lacking():
    past = Past([live(7)])
    page = await past.page(memory=False)
    assert "keeps no read model" in page.lacking
    past.broken = True
    page = await past.page()
    assert orders(page) == [7]
    assert "no space left; make some" in page.lacking
    past.broken = False
    assert not (await past.page()).lacking


async def test_a_reader_that_fails_is_opened_anew():
    past = Past([], [a_row(1)])
    assert orders(await past.page()) == [1]
    past.model.close()
    await past.memory.ask(lambda reader: reader.close())
    past.model = past.model.opened()
    assert orders(await past.page()) == [1]
    assert past.opened == 2
    await past.memory.close()
    assert past.memory._reader is None


async def test_a_question_that_nobody_waits_for_any_more_is_ended_before_the_next_one_is_asked():
    past = Past([], [a_row(1)])
    under_way, go, order = threading.Event(), threading.Event(), []

    def slow(_reader):
        under_way.set()
        assert go.wait(10)
        order.append("first")

    given_up = asyncio.create_task(past.memory.ask(slow))
    await asyncio.to_thread(under_way.wait, 10)
    given_up.cancel()
    following = asyncio.create_task(past.memory.ask(lambda _reader: order.append("second")))
    await asyncio.wait((given_up,))
    asked, _ = await asyncio.wait((following,), timeout=0.1)
    assert not asked, "two threads use one reader"
    go.set()
    await following
    assert order == ["first", "second"]
    await past.memory.close()


async def test_text_is_searched_in_what_is_marked_also_in_the_cell():
    past = Past([a_row(1, description="nightly report")], [a_row(2, error="Nightly mess"), a_row(3)])
    assert orders(await past.page(Filter(text="NIGHT"))) == [2, 1]
    assert orders(await past.page(Filter(text="nightly rep"))) == [1]


async def test_tasks_that_look_at_results_are_listed_only_if_that_is_said():
    """Wherever they are; and by the task whose result they look at."""
    review = Review(ReviewKind.COPY, an_id(1))
    rows = [a_row(order, review=review if order % 2 else None) for order in range(1, 7)]
    past = Past([rows[4], rows[5]], rows[:4])
    assert orders(await past.page()) == [6, 4, 2]
    assert orders(await past.page(Filter(reviews=True))) == [6, 5, 4, 3, 2, 1]
    label = tasks_pb2.Label(name=REVIEW_OF, value=an_id(1))
    assert orders(await past.page(Filter(reviews=True, labels=[label]))) == [5, 3, 1]
    assert orders(await past.page(Filter(labels=[label]))) == []
    found, below = [], None
    while True:
        page = await past.page(limit=1, below=below)
        found += orders(page)
        if not page.next_cursor:
            break
        below = int(page.next_cursor)
    assert found == [6, 4, 2]
