"""The order of pending tasks, and the published bound on how long a low priority can be kept waiting."""

from hypothesis import given
from hypothesis import strategies as st

from merit.core.ranking import overtaken_ns_max, rank
from merit.model.limits import SECOND_NS, Limits
from merit.model.tasks import Priority
from merit.testing.builders import (
    START_NS,
    a_machine,
    a_spec,
    allocate,
    an_id,
    attach,
    completed,
    number_of,
    say,
    submit,
    tick,
    with_terms,
)
from tests.core.test_timers_and_queue import a_task

AGEING_NS = 300 * SECOND_NS
moments = st.integers(0, 20 * AGEING_NS)
priorities = st.sampled_from(list(Priority))
tasks = st.builds(
    a_task,
    st.integers(0, 10_000),
    priorities,
    submitted_ns=moments,
    deadline_ns=st.just(0) | moments,
    tried=st.booleans(),
    not_before_ns=st.none() | moments,
)


@given(tasks, tasks)
def test_no_task_is_overtaken_by_one_whose_right_came_too_much_later(early, late):
    if late.since_ns - early.since_ns > overtaken_ns_max(early.priority, AGEING_NS):
        assert rank(early, AGEING_NS) < rank(late, AGEING_NS)


def test_the_bound_is_that_of_the_documentation_and_it_is_reached():
    assert overtaken_ns_max(Priority.LOW, AGEING_NS) == 7 * AGEING_NS == 35 * 60 * SECOND_NS
    assert overtaken_ns_max(Priority.CRITICAL, AGEING_NS) == AGEING_NS
    low = a_task(1, Priority.LOW, submitted_ns=0)
    critical = a_task(2, Priority.CRITICAL, submitted_ns=7 * AGEING_NS - 1, tried=True)
    assert rank(critical, AGEING_NS) < rank(low, AGEING_NS)


@given(tasks, tasks)
def test_a_step_of_priority_goes_first_for_at_least_one_ageing(one, other):
    if one.priority > other.priority and one.since_ns - other.since_ns <= AGEING_NS:
        assert rank(one, AGEING_NS) < rank(other, AGEING_NS)


@given(tasks, tasks)
def test_within_a_band_tried_ones_go_first_then_the_earliest_deadline_then_first_come(one, other):
    if one.priority != other.priority or one.since_ns // AGEING_NS != other.since_ns // AGEING_NS:
        return

    def key(task):
        return (not task.attempts, task.deadline_ns or 2**63, task.order)

    assert (rank(one, AGEING_NS) < rank(other, AGEING_NS)) == (key(one) < key(other))


def test_a_low_one_is_done_in_time_while_critical_ones_come_for_ever():
    limits = Limits(ageing_ns=10 * SECOND_NS, stale_ns=10**6 * SECOND_NS)
    machine = a_machine(limits=limits)
    attach(machine, concurrency=1, granted=1)
    submit(machine, a_spec(1, priority=Priority.LOW))
    bound_ns = overtaken_ns_max(Priority.LOW, limits.ageing_ns)
    granted = 1
    for second in range(1_000):
        now_ns = START_NS + second * SECOND_NS
        submit(machine, *(a_spec(2 + 2 * second + extra, priority=4) for extra in (0, 1)), now_ns=now_ns)
        (sent,) = allocate(machine)
        number = number_of(sent.assignment.task)
        if number == 1:
            break
        assert machine.state.tasks[an_id(number)].submitted_ns <= START_NS + bound_ns
        granted += 1
        say(machine, reports=[completed(number)], granted=granted)
    # They come twice as fast as they can be done, and all that may overtake it do.
    assert bound_ns - limits.ageing_ns <= second // 2 * SECOND_NS <= bound_ns


def test_what_is_delayed_has_its_right_from_its_time_on():
    machine = a_machine()
    late_ns, hours_ns = START_NS + 40 * 60 * SECOND_NS, 10_000 * SECOND_NS
    submit(machine, with_terms(1, not_before_ns=late_ns, priority=Priority.HIGH, timeout_ns=hours_ns))
    submit(machine, a_spec(2, timeout_ns=hours_ns))
    tick(machine, late_ns + SECOND_NS)
    attach(machine)
    assert [number_of(effect.assignment.task) for effect in allocate(machine)] == [2, 1]
