"""What becomes of attempts and of their tasks: reports, failures, retries, time-outs, hand-backs."""

from copy import deepcopy

import pytest

from merit.core.codec import encode_state
from merit.core.invariants import check
from merit.core.retrying import backoff_ns
from merit.model.effects import SendCancel, TellSettled
from merit.model.frames import ReportStatus
from merit.model.limits import RETURNS_MAX, SECOND_NS, Limits
from merit.model.tasks import AttemptState, Priority, TaskState
from merit.testing.builders import (
    START_NS,
    a_machine,
    a_spec,
    allocate,
    an_id,
    attach,
    cancel,
    completed,
    detach,
    failed,
    ref,
    say,
    submit,
    tick,
)


def task_of(machine, number=1):
    return machine.state.tasks[an_id(number)]


def running(machine, number=1, attempt=1, **spec):
    """Task `number` is running on a worker that has just attached."""
    attach(machine, granted=100)
    submit(machine, a_spec(number, **spec))
    allocate(machine)
    say(machine, started=[ref(number, attempt)])
    assert task_of(machine, number).state is TaskState.RUNNING


def give_it_time(machine):
    due_ns = machine.next_due_ns()
    assert due_ns is not None
    tick(machine, due_ns)
    return allocate(machine)


def test_four_attempts_then_dead_with_all_their_reasons():
    machine = a_machine()
    attach(machine, granted=100)
    submit(machine, a_spec())
    allocate(machine)
    for attempt in range(1, 5):
        say(machine, reports=[failed(1, attempt)])
        check(machine, machine.state)
        if attempt < 4:
            assert task_of(machine).state is TaskState.WAITING
            give_it_time(machine)
    task = task_of(machine)
    assert task.state is TaskState.DEAD
    assert [attempt.failure.message for attempt in task.attempts] == [f"attempt {n} went wrong" for n in range(1, 5)]
    assert "all 4 attempts" in task.failure.message
    assert task.failure.permanent


def test_a_permanent_failure_is_not_tried_again():
    machine = a_machine()
    running(machine)
    decision = say(machine, reports=[failed(1, permanent=True)])
    assert task_of(machine).state is TaskState.DEAD
    assert TellSettled(an_id(1)) in decision.effects


@pytest.mark.parametrize("status", [status for status in ReportStatus if status is not ReportStatus.COMPLETED])
def test_a_running_attempt_may_end_in_every_way(status):
    machine = a_machine()
    running(machine)
    say(machine, reports=[failed(1, status=status)])
    check(machine, machine.state)
    assert task_of(machine).state is TaskState.WAITING


@pytest.mark.parametrize("tried", range(1, 12))
def test_back_off_doubles_up_to_its_bound_with_jitter_from_the_task_alone(tried):
    machine = a_machine()
    attach(machine)
    submit(machine, *(a_spec(number) for number in range(50)))
    full = min(machine.limits.backoff_ns * 2 ** (tried - 1), machine.limits.backoff_ns_max)
    waits = [backoff_ns(machine, task_of(machine, number), tried) for number in range(50)]
    assert all(full // 2 <= wait <= full for wait in waits)
    assert len(set(waits)) > 40
    again = a_machine(now_ns=START_NS + 12_345)
    submit(again, *(a_spec(number) for number in range(50)))
    assert waits == [backoff_ns(again, task_of(again, number), tried) for number in range(50)]


def test_a_task_that_is_tried_again_goes_before_new_ones_of_its_class_only():
    machine = a_machine()
    attach(machine, granted=1)
    submit(machine, a_spec(1))
    allocate(machine)
    submit(machine, a_spec(2), a_spec(3, priority=Priority.HIGH))
    say(machine, reports=[failed(1)])
    assert give_it_time(machine) == []
    say(machine, granted=10)
    assert [effect.assignment.task for effect in allocate(machine)] == [an_id(3), an_id(1), an_id(2)]


def test_what_is_handed_back_goes_first_in_its_old_order_and_counts_for_nothing():
    machine = a_machine()
    attach(machine, granted=3)
    submit(machine, *(a_spec(number) for number in range(1, 6)))
    allocate(machine)
    say(machine, returned=[ref(1), ref(2), ref(3)])
    check(machine, machine.state)
    assert task_of(machine).counted == 0
    say(machine, granted=10)
    assert [effect.assignment.task for effect in allocate(machine)] == [an_id(number) for number in range(1, 6)]


def test_a_worker_that_hands_everything_back_does_not_go_on_for_ever():
    machine = a_machine()
    attach(machine, granted=10_000)
    submit(machine, a_spec())
    for attempt in range(1, RETURNS_MAX + 1):
        allocate(machine)
        say(machine, returned=[ref(1, attempt)])
    assert task_of(machine).state is TaskState.PENDING
    allocate(machine)
    say(machine, returned=[ref(1, RETURNS_MAX + 1)])
    check(machine, machine.state)
    task = task_of(machine)
    assert task.state is TaskState.WAITING
    assert task.attempts[-1].state is AttemptState.REFUSED
    assert "handed back" in task.attempts[-1].failure.message


def test_a_report_of_an_attempt_that_is_not_current_changes_nothing():
    machine = a_machine()
    running(machine)
    attach(machine, "w2")
    say(machine, reports=[failed(1)])
    give_it_time(machine)
    before = encode_state(machine.state)
    for worker in ("w1", "w2"):
        for report in (completed(1), failed(1), completed(1, 3), completed(7), completed(1, 0), completed(1, -1)):
            assert say(machine, worker, reports=[report]).events == []
    assert say(machine, started=[ref(1), ref(9)], returned=[ref(1), ref(1, 9)]).events == []
    holder = task_of(machine).attempts[1].worker
    other = "w2" if holder == "w1" else "w1"
    assert say(machine, other, reports=[completed(1, 2)]).events == []
    assert encode_state(machine.state) == before


def test_a_final_state_never_changes():
    machine = a_machine()
    running(machine)
    say(machine, reports=[completed(1)])
    before = encode_state(machine.state)
    assert [refusal.code for refusal in cancel(machine, 1).refusals] == ["conflict"]
    say(machine, reports=[failed(1), completed(1, result=b"2")], started=[ref(1)], returned=[ref(1)])
    assert submit(machine, a_spec()).effects == [TellSettled(an_id(1))]
    assert [refusal.code for refusal in submit(machine, a_spec(parameters=b'{"a":1}')).refusals] == ["conflict"]
    assert encode_state(machine.state) == before
    task = deepcopy(task_of(machine))
    tick(machine, START_NS + 10 * SECOND_NS)  # its worker is rated
    assert task_of(machine) == task


def test_the_run_time_out_counts_from_the_start():
    machine = a_machine(limits=Limits(stale_ns=1000 * SECOND_NS))
    attach(machine)
    submit(machine, a_spec(run_timeout_ns=60 * SECOND_NS))
    allocate(machine)
    say(machine, started=[ref(1)], now_ns=START_NS + 59 * SECOND_NS)
    tick(machine, START_NS + 118 * SECOND_NS)
    assert task_of(machine).state is TaskState.RUNNING
    decision = tick(machine, START_NS + 120 * SECOND_NS)
    assert task_of(machine).attempts[0].state is AttemptState.TIMED_OUT
    assert decision.effects == [SendCancel("w1", ref(1))]
    check(machine, machine.state)


def test_canceling_reaches_the_worker():
    machine = a_machine()
    running(machine)
    decision = cancel(machine, 1)
    assert SendCancel("w1", ref(1)) in decision.effects
    assert TellSettled(an_id(1)) in decision.effects
    assert say(machine, reports=[completed(1)]).events == []
    check(machine, machine.state)


def test_no_attempt_times_out_and_no_worker_is_lost_during_grace():
    machine = a_machine()
    running(machine, run_timeout_ns=SECOND_NS)
    limits = Limits(grace_ns=100 * SECOND_NS)
    led = a_machine(machine.state, limits, epoch=2)
    attach(led, held=[ref(1)], session=2)
    tick(led, START_NS + 99 * SECOND_NS)
    assert task_of(led).state is TaskState.RUNNING, "grace is longer than the silence that is allowed"
    assert "w1" in led.state.workers
    check(led, led.state)
    tick(led, START_NS + 101 * SECOND_NS)
    assert task_of(led).attempts[0].state in (AttemptState.TIMED_OUT, AttemptState.LOST)
    check(led, led.state)


def test_trails_and_failures_of_final_tasks_count_against_their_bound():
    machine = a_machine(limits=Limits(finals_bytes_max=100_000))
    for number in range(1, 6):
        running(machine, number)
        say(machine, reports=[completed(number, trail=b"x" * 40_000)])
        detach(machine, bye=True)
        check(machine, machine.state)
    assert len(machine.state.finals) == 2
