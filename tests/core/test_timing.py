"""When things are due: time-outs, deadlines, delays, and what stands still while nobody could be heard."""

from typing import Any

import pytest

from merit.core.codec import decode_state, encode_state
from merit.core.invariants import check
from merit.model.commands import Awake
from merit.model.effects import SendCancel
from merit.model.limits import SECOND_NS, Limits
from merit.model.tasks import AttemptState, Progress, TaskState
from merit.testing.builders import (
    START_NS,
    a_machine,
    a_spec,
    allocate,
    an_id,
    an_offer,
    attach,
    completed,
    detach,
    failed,
    ref,
    say,
    submit,
    tell,
    tick,
    with_terms,
)

LIMITS = Limits(stale_ns=10**6 * SECOND_NS, reconnect_ns=10**6 * SECOND_NS, grace_ns=10 * SECOND_NS)
SLOT_NS = 1 << 24


def task_of(machine, number=1):
    return machine.state.tasks[an_id(number)]


def at(second):
    """A moment, a timer's slack later."""
    return START_NS + int(second * SECOND_NS) + SLOT_NS


def until(machine, second):
    """Everything that is due by then happens when it is due."""
    while (due_ns := machine.next_due_ns()) is not None and due_ns <= at(second):
        tick(machine, max(due_ns, machine.now_ns))
        allocate(machine)
        check(machine, machine.state)
    tick(machine, at(second))


def test_nobody_takes_it_within_its_queue_time_out():
    machine = a_machine(limits=LIMITS)
    submit(machine, with_terms(1, queue_timeout_ns=5 * SECOND_NS))
    until(machine, 4.9)
    assert task_of(machine).state is TaskState.PENDING
    until(machine, 5)
    task = task_of(machine)
    assert (task.state, task.failure.kind, task.failure.permanent) == (TaskState.DEAD, "queue_timeout", True)
    assert task.failure.message == "no worker took it within its queue time-out of 5 s"
    assert machine.backlog.size == 0


def test_a_queue_time_out_stands_still_while_a_new_leaders_workers_come_back():
    machine = a_machine()
    attach(machine, granted=0)
    submit(machine, with_terms(1, queue_timeout_ns=5 * SECOND_NS))
    machine = a_machine(machine.state, epoch=2, now_ns=START_NS + 6 * SECOND_NS)
    grace_until_ns = machine.state.grace_until_ns
    tick(machine, grace_until_ns - 1)
    assert machine.state.tasks[an_id(1)].state is TaskState.PENDING
    check(machine, machine.state)
    tick(machine, grace_until_ns + SECOND_NS)
    assert machine.state.tasks[an_id(1)].state is TaskState.DEAD


def test_the_queue_time_out_counts_each_time_anew_and_not_while_it_runs():
    machine = a_machine(limits=LIMITS)
    attach(machine, granted=1)
    submit(machine, with_terms(1, queue_timeout_ns=5 * SECOND_NS))
    allocate(machine)
    until(machine, 20)
    say(machine, reports=[failed(1)])
    until(machine, 21)
    assert task_of(machine).state is TaskState.PENDING
    until(machine, 24.9)
    assert task_of(machine).state is TaskState.PENDING
    say(machine, granted=2)
    allocate(machine)
    say(machine, returned=[ref(1, 2)])
    until(machine, 29)
    assert task_of(machine).state is TaskState.PENDING
    until(machine, 30)
    assert task_of(machine).state is TaskState.DEAD


@pytest.mark.parametrize("where", ["blocked", "delayed", "pending", "assigned", "running", "backing off"])
def test_a_task_that_is_not_done_by_its_deadline_dies_wherever_it_is(where):
    machine = a_machine(limits=LIMITS)
    submit(machine, a_spec(9, "other"))
    fields: dict[str, Any] = {"timeout_ns": 10 * SECOND_NS, "run_timeout_ns": 60 * SECOND_NS}
    if where == "delayed":
        spec, due = with_terms(1, not_before_ns=START_NS + 20 * SECOND_NS, deadline_ns=START_NS + 15 * SECOND_NS), 15
    else:
        spec, due = a_spec(1, after=[9] if where == "blocked" else [], **fields), 10
    submit(machine, spec)
    if where in ("assigned", "running", "backing off"):
        attach(machine, granted=1)
        allocate(machine)
        if where != "assigned":
            say(machine, started=[ref(1)])
    until(machine, due - 0.1)
    if where == "backing off":
        say(machine, reports=[failed(1)])
    assert not task_of(machine).state.final
    decision = tick(machine, at(due))
    task = task_of(machine)
    check(machine, machine.state)
    assert (task.state, task.failure.kind) == (TaskState.DEAD, "deadline")
    assert task.failure.message.startswith("was not done by its deadline, ")
    if where in ("assigned", "running"):
        assert SendCancel("w1", ref(1)) in decision.effects
        assert task.attempts[0].state is AttemptState.TIMED_OUT
    assert machine.backlog.pending("echo") == 0


def test_a_deadline_of_its_own_or_its_time_out_whichever_is_first():
    machine = a_machine(limits=LIMITS)
    late = START_NS + 100 * SECOND_NS
    submit(
        machine,
        with_terms(1, deadline_ns=late, timeout_ns=5 * SECOND_NS),
        with_terms(2, deadline_ns=late, timeout_ns=500 * SECOND_NS),
        with_terms(3, not_before_ns=START_NS + 50 * SECOND_NS, timeout_ns=5 * SECOND_NS),
        a_spec(4),
    )
    deadlines = [(task_of(machine, number).deadline_ns - START_NS) // SECOND_NS for number in (1, 2, 3, 4)]
    assert deadlines == [5, 100, 55, 3600]


@pytest.mark.parametrize("first", ["time", "task"])
@pytest.mark.parametrize("restart", [False, True])
def test_blocked_and_delayed_it_waits_for_both(first, restart):
    machine = a_machine(limits=LIMITS)
    attach(machine, granted=10)
    submit(machine, a_spec(1), with_terms(2, after=[1], not_before_ns=START_NS + 5 * SECOND_NS))
    allocate(machine)
    if first == "time":
        until(machine, 6)
    say(machine, reports=[completed(1)])
    if restart:
        state = decode_state(encode_state(machine.state))
        machine = a_machine(state, LIMITS, now_ns=machine.now_ns, epoch=2)
        attach(machine, granted=10, session=2)
    allocate(machine)
    check(machine, machine.state)
    if first == "task":
        assert task_of(machine, 2).state is TaskState.WAITING
        until(machine, 4.9)
        assert task_of(machine, 2).state is TaskState.WAITING
        until(machine, 5)
    assert task_of(machine, 2).state is TaskState.ASSIGNED


def test_a_time_that_has_passed_delays_nothing():
    machine = a_machine(limits=LIMITS)
    submit(machine, with_terms(1, not_before_ns=START_NS), with_terms(2, not_before_ns=START_NS - 1))
    assert {task.state for task in machine.state.tasks.values()} == {TaskState.PENDING}


def beating(second=1, **fields):
    """Task 1 runs under a heartbeat time-out of its own or, without terms, of its capability."""
    machine = a_machine(limits=LIMITS)
    beat_ns = second * SECOND_NS
    attach(machine, offers=(an_offer(heartbeat_timeout_ns=beat_ns),), granted=10)
    submit(machine, a_spec(1, attempts_max=1, **fields))
    (sent,) = allocate(machine)
    assert sent.assignment.heartbeat_timeout_ns == beat_ns
    say(machine, started=[ref(1)])
    return machine


def beat(machine, second, fraction=-1.0):
    until(machine, second)
    say(machine, progress=[Progress(an_id(1), 1, fraction)], now_ns=START_NS + int(second * SECOND_NS) + SLOT_NS)


def test_an_attempt_without_a_sign_of_progress_is_lost_although_its_worker_lives():
    machine = beating()
    for tenth in range(5, 50, 5):
        beat(machine, tenth / 10)
        check(machine, machine.state)
    until(machine, 5.4)
    assert task_of(machine).state is TaskState.RUNNING
    until(machine, 5.6)
    task = task_of(machine)
    assert (task.state, task.attempts[0].state) == (TaskState.DEAD, AttemptState.TIMED_OUT)
    assert task.attempts[0].failure.kind == "heartbeat"
    assert task.attempts[0].failure.message == "showed no progress for 1 s on w1, which is alive"
    assert "w1" in machine.state.workers


def test_the_terms_of_a_task_go_before_those_of_its_capability():
    machine = a_machine(limits=LIMITS)
    attach(machine, offers=(an_offer(heartbeat_timeout_ns=SECOND_NS),), granted=10)
    submit(machine, with_terms(1, heartbeat_timeout_ns=7 * SECOND_NS), a_spec(2))
    beats = [sent.assignment.heartbeat_timeout_ns // SECOND_NS for sent in allocate(machine)]
    assert beats == [7, 1]
    say(machine, started=[ref(1), ref(2)])
    until(machine, 6.9)
    assert task_of(machine, 1).state is TaskState.RUNNING
    assert task_of(machine, 2).attempts[0].state is AttemptState.TIMED_OUT


def test_what_is_not_started_does_not_beat():
    machine = a_machine(limits=LIMITS)
    attach(machine, offers=(an_offer(heartbeat_timeout_ns=SECOND_NS),), granted=10)
    submit(machine, a_spec(1))
    allocate(machine)
    until(machine, 50)
    assert task_of(machine).state is TaskState.ASSIGNED


def test_what_others_offer_later_is_not_asked_of_an_attempt():
    machine = a_machine(limits=LIMITS)
    attach(machine, granted=10)
    submit(machine, a_spec(1))
    assert allocate(machine)[0].assignment.heartbeat_timeout_ns == 0
    say(machine, started=[ref(1)])
    attach(machine, "w2", offers=(an_offer(heartbeat_timeout_ns=SECOND_NS),), granted=0)
    until(machine, 30)
    machine = a_machine(decode_state(encode_state(machine.state)), LIMITS, now_ns=machine.now_ns, epoch=2)
    attach(machine, held=[ref(1)], session=2)
    until(machine, 55)
    assert task_of(machine).state is TaskState.RUNNING


def test_silence_of_a_worker_that_is_disconnected_says_nothing():
    machine = beating()
    until(machine, 0.5)
    detach(machine)
    until(machine, 20)
    assert task_of(machine).state is TaskState.RUNNING
    attach(machine, offers=(an_offer(heartbeat_timeout_ns=SECOND_NS),), session=2, held=[ref(1)])
    until(machine, 20.9)
    assert task_of(machine).state is TaskState.RUNNING
    beat(machine, 20.95)
    until(machine, 21.9)
    assert task_of(machine).state is TaskState.RUNNING
    until(machine, 24)
    assert task_of(machine).state is TaskState.DEAD


def test_beats_begin_anew_with_a_new_leader_and_after_its_grace():
    machine = beating()
    until(machine, 0.5)
    machine = a_machine(decode_state(encode_state(machine.state)), LIMITS, now_ns=machine.now_ns, epoch=2)
    attach(machine, offers=(an_offer(heartbeat_timeout_ns=SECOND_NS),), session=2, held=[ref(1)])
    # A sign that comes during the grace does not make the time-out strike sooner than silence would have.
    beat(machine, 2)
    check(machine, machine.state)
    until(machine, 11.3)
    assert task_of(machine).state is TaskState.RUNNING
    until(machine, 12.6)
    assert task_of(machine).state is TaskState.DEAD


def test_nothing_is_held_against_anybody_for_what_was_not_heard_in_sleep():
    machine = beating(run_timeout_ns=100 * SECOND_NS)
    beat(machine, 0.5)
    machine.handle(Awake("default", "cell"), at(50))
    tick(machine, at(50))
    until(machine, 51.9)
    assert task_of(machine).state is TaskState.RUNNING
    beat(machine, 52.5)
    until(machine, 53.4)
    assert task_of(machine).state is TaskState.RUNNING
    until(machine, 60)
    assert task_of(machine).state is TaskState.DEAD


def test_a_sign_of_life_does_not_undo_what_is_known_of_the_progress():
    machine = beating(100)
    beat(machine, 1, 0.4)
    beat(machine, 2)
    assert machine.progress[an_id(1)].fraction == 0.4
    say(machine, reports=[failed(1)])
    assert machine.progress == machine.beats_ns == {}
    assert tell(machine, Awake).events == []


def test_what_an_attempt_logs_is_not_kept_beside_it():
    machine = a_machine(limits=LIMITS)
    attach(machine)
    submit(machine, a_spec(1))
    allocate(machine)
    say(machine, progress=[Progress(an_id(1), 1, 0.5, "half", log=("x" * 10_000,) * 100)])
    assert machine.progress[an_id(1)] == Progress(an_id(1), 1, 0.5, "half")
