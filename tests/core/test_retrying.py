"""Whether a task is tried again, when, and by whom."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from merit.core.invariants import check, check_allocated
from merit.core.retrying import backoff_ns
from merit.model.commands import SetSupervision
from merit.model.frames import ReportStatus
from merit.model.limits import AVOIDED_MAX, MILLISECOND_NS, SECOND_NS, Limits
from merit.model.supervision import Policy
from merit.model.tasks import AttemptState, Progress, RetryPolicy, TaskState
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
    number_of,
    ref,
    say,
    submit,
    tell,
    tick,
    with_terms,
)

LIMITS = Limits(stale_ns=10**9 * SECOND_NS, grace_ns=0, backoff_ns=MILLISECOND_NS)
KINDS = ["refused", "failed", "timed_out", "silent", "lost"]


def task_of(machine, number=1):
    return machine.state.tasks[an_id(number)]


def end(machine, kind, worker="w1"):
    """The live attempt at task 1 ends in this way."""
    number = task_of(machine).attempts[-1].number
    if kind in ("refused", "failed"):
        say(machine, worker, reports=[failed(1, number, status=ReportStatus[kind.upper()])])
    elif kind == "timed_out":
        while task_of(machine).attempts[number - 1].live:
            say(machine, worker, progress=[Progress(an_id(1), number, -1)])
            tick(machine, machine.next_due_ns())
    elif kind == "silent":
        say(machine, worker, started=[ref(1, number)])
        tick(machine, machine.now_ns + 2 * SECOND_NS + (1 << 25))
    else:
        boot = machine.state.workers[worker].boot + "+"
        attach(machine, worker, boot=boot, granted=100)
    check(machine, machine.state)


def again(machine):
    """The back-off ends, and somebody takes it."""
    tick(machine, task_of(machine).due_ns + (1 << 24))
    return allocate(machine)


def started(**terms):
    machine = a_machine(limits=LIMITS)
    attach(machine, granted=100)
    terms = {"heartbeat_timeout_ns": 2 * SECOND_NS, **terms}
    fields: dict[str, Any] = {"run_timeout_ns": 5 * SECOND_NS, "attempts_max": 10, "timeout_ns": 10**15}
    submit(machine, with_terms(1, **fields, **terms))
    allocate(machine)
    return machine


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("retries", [0, 1, 3])
def test_each_kind_of_failure_has_retries_of_its_own(kind, retries):
    machine = started(retry=RetryPolicy(**{kind: retries}))
    other = "failed" if kind != "failed" else "refused"
    for _ in range(2):  # of another kind: they do not count
        end(machine, other)
        assert again(machine)
    for _ in range(retries):
        end(machine, kind)
        assert task_of(machine).state is TaskState.WAITING
        assert again(machine)
    end(machine, kind)
    task = task_of(machine)
    assert task.state is TaskState.DEAD
    allowed = "1 retry" if retries == 1 else f"{retries} retries"
    last = task.attempts[-1].failure.message
    expected = f"{retries + 1} attempts {kind}, and {allowed} after such are allowed; the last one: {last}"
    assert task.failure.message == expected
    assert machine.state.dead_letters == {task.id: task}


@given(st.lists(st.sampled_from(KINDS), min_size=1, max_size=12), st.lists(st.integers(-1, 3), min_size=5, max_size=5))
def test_it_dies_at_the_first_attempt_that_is_one_too_many(ends, allowed):
    machine = started(retry=RetryPolicy(*allowed))
    bounds = dict(zip(KINDS, allowed, strict=True))
    for tried, kind in enumerate(ends, 1):
        end(machine, kind)
        alike = ends[:tried].count(kind)
        dead = tried >= 10 or 0 <= bounds[kind] < alike
        assert (task_of(machine).state is TaskState.DEAD) == dead
        if dead:
            return
        assert again(machine)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("where", ["terms", "offer"])
def test_what_is_not_safe_to_repeat_is_repeated_only_if_it_was_not_begun(kind, where):
    machine = a_machine(limits=LIMITS)
    attach(machine, offers=(an_offer(safe_to_repeat=where != "offer"),), granted=100)
    terms = {"heartbeat_timeout_ns": 2 * SECOND_NS, "safe_to_repeat": where != "terms"}
    submit(machine, with_terms(1, run_timeout_ns=5 * SECOND_NS, **terms))
    allocate(machine)
    end(machine, kind)
    task = task_of(machine)
    if kind == "refused":
        assert task.state is TaskState.WAITING
        return
    assert task.state is TaskState.DEAD
    assert task.failure.permanent
    assert task.failure.message.startswith("it may have been begun and is not safe to repeat: ")


def test_what_was_handed_back_is_known_not_to_have_begun():
    machine = started(safe_to_repeat=False)
    say(machine, returned=[ref(1)])
    assert allocate(machine)
    detach(machine, bye=True)
    assert task_of(machine).state is TaskState.PENDING


def test_the_word_of_the_worker_that_made_the_attempt_counts():
    machine = a_machine(limits=LIMITS)
    attach(machine, offers=(an_offer(safe_to_repeat=False),), granted=100)
    submit(machine, a_spec(1))
    allocate(machine)
    attach(machine, "w2")
    assert machine.state.offers["echo"].safe_to_repeat
    detach(machine)
    tick(machine, START_NS + 10 * SECOND_NS)
    assert task_of(machine).state is TaskState.DEAD


@given(st.integers(1, 60), st.integers(0, 10**12), st.integers(0, 10**13))
def test_back_off_of_its_own(tried, first_ns, most_ns):
    machine = a_machine(limits=Limits())
    submit(machine, with_terms(1, retry=RetryPolicy(backoff_ns=first_ns, backoff_ns_max=most_ns)))
    wait_ns = backoff_ns(machine, task_of(machine), tried)
    base_ns = first_ns or machine.limits.backoff_ns
    full_ns = min(base_ns * 2 ** (tried - 1), most_ns or max(base_ns, machine.limits.backoff_ns_max))
    assert full_ns // 2 <= wait_ns <= full_ns


def test_another_worker_than_those_that_failed_it_if_there_is_one():
    machine = a_machine(limits=LIMITS)
    for worker in ("w1", "w2", "w3"):
        attach(machine, worker, granted=100, concurrency=1)
    submit(machine, a_spec(1, attempts_max=6))
    allocate(machine)
    for _ in range(5):
        worker = task_of(machine).attempts[-1].worker
        say(machine, worker, reports=[failed(1, len(task_of(machine).attempts))])
        again(machine)
    workers = [attempt.worker for attempt in task_of(machine).attempts]
    assert set(workers[:3]) == {"w1", "w2", "w3"}


def avoiding(*numbers, fresh=0):
    """Worker w1 has failed the tasks with these numbers and has room; w2 has none."""
    machine = a_machine(limits=LIMITS)
    tell(machine, SetSupervision, Policy(circuit_failures=1_000))
    attach(machine, granted=1_000, concurrency=100)
    submit(machine, *(a_spec(number) for number in numbers))
    allocate(machine)
    attach(machine, "w2", granted=0)
    say(machine, reports=[failed(number) for number in numbers])
    tick(machine, START_NS + SECOND_NS)
    submit(machine, *(a_spec(1_000 + number) for number in range(fresh)))
    return machine


def test_it_waits_for_the_other_one_while_those_behind_it_go():
    machine = avoiding(1, fresh=3)
    assert [number_of(sent.assignment.task) for sent in allocate(machine)] == [1_000, 1_001, 1_002]
    check_allocated(machine)
    check(machine, machine.state)
    say(machine, "w2", granted=1)
    assert [(sent.worker, number_of(sent.assignment.task)) for sent in allocate(machine)] == [("w2", 1)]


@pytest.mark.parametrize("how", ["leaves", "breaks off", "drains", "starts anew without it"])
def test_when_the_other_one_goes_the_same_one_tries_again(how):
    machine = avoiding(1)
    assert allocate(machine) == []
    if how == "leaves":
        detach(machine, "w2", bye=True)
    elif how == "breaks off":
        detach(machine, "w2")
    elif how == "drains":
        say(machine, "w2", draining=True)
    else:
        attach(machine, "w2", ("other",), boot="boot-2")
    assert [(sent.worker, number_of(sent.assignment.task)) for sent in allocate(machine)] == [("w1", 1)]
    check_allocated(machine)
    check(machine, machine.state)


def test_a_task_that_everybody_has_failed_is_tried_by_anybody():
    machine = avoiding(1)
    say(machine, "w2", granted=1)
    allocate(machine)
    say(machine, "w2", reports=[failed(1, 2)])
    tick(machine, START_NS + 10 * SECOND_NS)
    assert [sent.worker for sent in allocate(machine)] == ["w1"]


def test_a_few_are_passed_over_and_no_worker_stands_idle_for_them():
    numbers = range(1, AVOIDED_MAX + 4)
    machine = avoiding(*numbers, fresh=5)
    sent = [number_of(effect.assignment.task) for effect in allocate(machine)]
    assert sum(number in numbers for number in sent) == 3
    assert sum(number >= 1_000 for number in sent) == 5
    check_allocated(machine)
    check(machine, machine.state)
    assert machine.backlog.size == AVOIDED_MAX


def test_what_was_returned_or_canceled_was_not_failed():
    machine = a_machine(limits=LIMITS)
    attach(machine, granted=100)
    submit(machine, a_spec(1))
    allocate(machine)
    attach(machine, "w2", granted=0)
    say(machine, returned=[ref(1)])
    assert [sent.worker for sent in allocate(machine)] == ["w1"]
    say(machine, reports=[completed(1, 2)])
    assert task_of(machine).attempts[0].state is AttemptState.RETURNED
