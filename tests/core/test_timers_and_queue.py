"""The two structures that everything hot goes through, against models that are too simple to be wrong."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from merit.core.state import Queue
from merit.core.timers import Timers
from merit.model.tasks import Priority, Task, TaskState
from merit.testing.builders import an_id

SLOT_NS = 1 << 24
keys = st.sampled_from("abcdefgh")
times = st.integers(0, 40 * SLOT_NS)


@given(st.lists(st.one_of(st.tuples(keys, times), st.tuples(keys, st.none()), times), max_size=80))
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


def a_task(number, priority=Priority.MEDIUM):
    task_id = an_id(number)
    return Task(task_id, "t", "p", "echo", b"", "", priority, 1, 1, (), "", 0, number)


@given(st.data())
def test_a_queue_is_lanes_of_first_come_first_served(data):
    queue, number = Queue(), 0
    model: dict[Priority, list[Task]] = {priority: [] for priority in Priority}
    for step in data.draw(st.lists(st.sampled_from(["push", "push", "push", "front", "take", "drop"]), max_size=200)):
        waiting = [task for lane in model.values() for task in lane]
        if step in ("push", "front"):
            number += 1
            task = a_task(number, data.draw(st.sampled_from([Priority.LOW, Priority.HIGH])))
            queue.push(task, front=step == "front")
            model[task.priority].insert(0 if step == "front" else len(model[task.priority]), task)
        elif step == "take" and waiting:
            head = queue.head() if data.draw(st.booleans()) else None
            lane = next(lane for lane in reversed(model.values()) if lane)
            assert head in (None, lane[0])
            queue.take(lane.pop(0))
        elif step == "drop" and waiting:
            task = data.draw(st.sampled_from(waiting))
            queue.drop(task)
            task.state = TaskState.CANCELED
            model[task.priority].remove(task)
        assert queue.size == sum(map(len, model.values()))
        assert list(queue.lanes()) == [[task.id for task in lane] for lane in model.values()]


@pytest.mark.parametrize("order", [1, -1])
def test_stale_entries_are_bounded_and_counted_right(order):
    queue, tasks = Queue(), [a_task(number) for number in range(1_000)]
    for task in tasks:
        queue.push(task, front=False)
    for task in tasks[10 * order :: order]:
        queue.drop(task)
        task.state = TaskState.CANCELED
        entries = [entry for lane in queue._lanes for entry in lane or ()]
        stale = sum(entry.state is not TaskState.PENDING for entry in entries)
        assert queue._stale == stale <= max(64, queue.size) + 1
        assert len(entries) == queue.size + stale


def test_only_the_head_can_be_taken():
    queue = Queue()
    first, second = a_task(1), a_task(2)
    queue.push(first, front=False)
    queue.push(second, front=False)
    with pytest.raises(LookupError, match=second.id):
        queue.take(second)
    assert queue.size == 2
