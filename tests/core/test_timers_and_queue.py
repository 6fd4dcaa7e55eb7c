"""The two structures that everything hot goes through, against models that are too simple to be wrong."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from merit.core.lane import Lane
from merit.core.ranking import rank
from merit.core.timers import Timers
from merit.model.limits import SECOND_NS
from merit.model.tasks import Attempt, AttemptState, Priority, Task, TaskState, Terms
from merit.testing.builders import an_id

SLOT_NS = 1 << 24
AGEING_NS = 10 * SECOND_NS
keys = st.sampled_from("abcdefgh")
times = st.integers(0, 40 * SLOT_NS)


@given(st.lists(st.one_of(st.tuples(keys, times), st.tuples(keys, st.none()), times, st.sets(keys)), max_size=80))
def test_timers_never_fire_early_nor_more_than_a_slot_late(steps):
    timers, now_ns = Timers(), 0
    model: dict[str, int] = {}
    for step in steps:
        if isinstance(step, int):
            now_ns = max(now_ns, step)
            fired = []
            while (key := timers.pop_due(now_ns)) is not None:
                fired.append(key)
            for key in fired:
                assert model.pop(key) <= now_ns
            assert all(due_ns + SLOT_NS > now_ns for due_ns in model.values())
        elif isinstance(step, set):
            fresh = step - model.keys()
            timers.arm_new(fresh, now_ns + SLOT_NS)
            model |= dict.fromkeys(fresh, now_ns + SLOT_NS)
        elif step[1] is None:
            timers.disarm(step[0])
            model.pop(step[0], None)
        else:
            timers.arm(*step)
            model[step[0]] = step[1]
        assert len(timers) == len(model)
        for key in "abcdefgh":
            at = timers.due_ns(key)
            assert (at is None) == (key not in model)
            assert at is None or model[key] <= at <= model[key] + SLOT_NS
        next_ns = timers.next_due_ns()
        assert (next_ns is None) == (not model)
        assert next_ns is None or min(model.values()) <= next_ns <= min(model.values()) + SLOT_NS


def test_timers_that_are_moved_for_ever_leave_nothing_behind():
    timers = Timers()
    for turn in range(20_000):
        timers.arm(f"key {turn % 50}", turn * SLOT_NS)
        timers.arm("here and there", (turn % 2) * SLOT_NS)
    assert len(timers) == 51
    assert len(timers._heap) <= 64 + 4 * 51
    assert len(timers._buckets) <= 51


def a_task(number, priority=Priority.MEDIUM, *, submitted_ns=0, deadline_ns=0, tried=False, not_before_ns=None) -> Task:
    """A pending task; with `not_before_ns` it has terms."""
    attempts = (Attempt(1, "w", 0, 0, AttemptState.FAILED),) if tried else ()
    terms = None if not_before_ns is None else Terms(not_before_ns=not_before_ns)
    return Task(
        an_id(number), "t", "p", "echo", b"", "", priority, 1, 1, (), "", submitted_ns, number,
        attempts=attempts, deadline_ns=deadline_ns, terms=terms,
    )  # fmt: skip


@given(st.data())
def test_a_lane_is_in_the_order_of_the_ranks(data):
    lane, now_ns = Lane(AGEING_NS), 0
    waiting: list[Task] = []
    taken: list[Task] = []
    steps = st.lists(st.sampled_from(["push", "push", "push", "again", "take", "drop", "time"]), max_size=150)
    for number, step in enumerate(data.draw(steps)):
        if step == "push":
            task = a_task(
                number,
                data.draw(st.sampled_from(list(Priority))),
                submitted_ns=now_ns,
                deadline_ns=data.draw(st.sampled_from([0, 0, now_ns + 3_600 * SECOND_NS, 50 * SECOND_NS])),
                not_before_ns=data.draw(st.sampled_from([None, None, 0, 5 * SECOND_NS, 40 * SECOND_NS])),
            )
            lane.push(task)
            waiting.append(task)
        elif step == "again" and taken:
            # An attempt at it failed: it comes back with its old place, and before the new ones of its band.
            task = taken.pop(data.draw(st.integers(0, len(taken) - 1)))
            task.attempts = (Attempt(1, "w", 0, 0, AttemptState.FAILED),)
            lane.push(task)
            waiting.append(task)
        elif step == "take" and waiting:
            head = min(waiting, key=lambda task: rank(task, AGEING_NS))
            assert lane.head() is head
            lane.take(head)
            waiting.remove(head)
            taken.append(head)
        elif step == "drop" and waiting:
            task = data.draw(st.sampled_from(waiting))
            task.state = TaskState.CANCELED
            lane.drop()
            waiting.remove(task)
        elif step == "time":
            now_ns += data.draw(st.sampled_from([1, SECOND_NS, AGEING_NS, 7 * AGEING_NS]))
        assert lane.size == len(waiting)
        assert {task.id for task in lane.tasks()} == {task.id for task in waiting}
        assert lane.entries <= 2 * lane.size + 66
    for task in sorted(waiting, key=lambda task: rank(task, AGEING_NS)):
        assert lane.head() is task
        lane.take(task)
    assert lane.head() is None
    assert lane.entries == 0


@pytest.mark.parametrize("order", [1, -1])
@pytest.mark.parametrize("odd", [False, True])
def test_stale_entries_are_bounded_and_counted_right(order, odd):
    lane, tasks = Lane(AGEING_NS), [a_task(number) for number in range(1_000)]
    for task in reversed(tasks) if odd else tasks:
        lane.push(task)
    for task in tasks[10 * order :: order]:
        task.state = TaskState.CANCELED
        lane.drop()
        assert lane._stale <= max(64, lane.size) + 1
        assert lane.entries == lane.size + lane._stale


def test_a_row_in_which_everything_is_stale_is_as_good_as_empty():
    lane, first, second = Lane(AGEING_NS), a_task(1), a_task(2)
    lane.push(second)
    second.state = TaskState.CANCELED
    lane.drop()
    lane.push(first)
    assert lane.head() is first
    lane.take(first)
    assert (lane.head(), lane.size) == (None, 0)
