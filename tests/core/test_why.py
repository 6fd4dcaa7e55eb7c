"""Why a task is where it is: the exact sentences."""

import pytest

from merit.core.why import why
from merit.model.commands import PauseQueue, RetryDead
from merit.model.limits import SECOND_NS, Limits
from merit.model.rules import RuleKind
from merit.testing.builders import (
    START_NS,
    a_machine,
    a_spec,
    a_tenant,
    allocate,
    an_id,
    attach,
    cancel,
    completed,
    detach,
    failed,
    limit,
    ref,
    say,
    submit,
    tell,
    tick,
    with_terms,
)


def of(machine, number=1):
    return why(machine, machine.state.tasks[an_id(number)])


def taken(**fields):
    machine = a_machine(
        limits=Limits(stale_ns=10**9 * SECOND_NS, backoff_ns=2 * SECOND_NS, backoff_ns_max=2 * SECOND_NS)
    )
    attach(machine, granted=1)
    submit(machine, a_spec(1, **fields))
    allocate(machine)
    return machine


def test_nobody_offers_it():
    machine = a_machine()
    submit(machine, a_spec(1))
    start = "start one: merit worker MODULE with a capability named echo"
    assert of(machine) == f"no connected worker offers echo; {start}"
    attach(machine, granted=0)
    detach(machine)
    assert of(machine) == f"no connected worker offers echo now, though one did before; {start}"


def test_the_queue_is_paused():
    machine = a_machine()
    submit(machine, a_spec(1))
    tell(machine, PauseQueue, "echo", "the disk is full")
    assert of(machine) == "the queue of echo is paused: the disk is full; resume it with: merit queue resume echo"
    tell(machine, PauseQueue, "echo", "")
    assert of(machine) == "the queue of echo is paused; resume it with: merit queue resume echo"


def test_everybody_is_busy():
    machine = a_machine()
    attach(machine, granted=0)
    submit(machine, a_spec(1), a_spec(2), a_spec(3))
    assert of(machine, 1) == "w1 is busy; it is next"
    assert of(machine, 3) == "w1 is busy; about 2 go before it"
    attach(machine, "w2", granted=0)
    assert of(machine, 2) == "all 2 workers that offer echo are busy; about 1 go before it"
    submit(machine, *(a_spec(number) for number in range(100, 1_500)), tenant="hot")
    assert of(machine, 2) == "all 2 workers that offer echo are busy; about 3 go before it"
    assert of(machine, 1_499) == "all 2 workers that offer echo are busy; about 1,402 go before it"


def test_everybody_drains():
    machine = a_machine()
    attach(machine, granted=0)
    submit(machine, a_spec(1))
    say(machine, draining=True)
    assert of(machine) == "every worker that offers echo is draining"


@pytest.mark.parametrize(
    ("kind", "name", "what"),
    [
        (RuleKind.CAPABILITY, "echo", "capability echo"),
        (RuleKind.TENANT, "default", "tenant default"),
        (RuleKind.KEY, "echo", "each key of capability echo"),
    ],
)
def test_a_limit(kind, name, what):
    machine = a_machine()
    attach(machine, granted=10)
    submit(machine, with_terms(1, key="k"), with_terms(2, key="k"))
    limit(machine, kind, name, concurrency=1)
    assert len(allocate(machine)) == 1
    assert of(machine, 2) == f"the limit of 1 at a time for {what} is reached"
    say(machine, reports=[completed(1)])
    limit(machine, kind, name, rate_millihz=500)
    allocate(machine)
    submit(machine, with_terms(3, key="k"))
    allocate(machine)
    assert of(machine, 3) == f"the limit of 0.5 a second for {what} is reached"


def test_those_who_failed_it_have_room_and_another_one_has_not():
    machine = taken()
    attach(machine, "w2", granted=0)
    say(machine, reports=[failed(1)], granted=2)
    tick(machine, START_NS + 3 * SECOND_NS)
    assert allocate(machine) == []
    assert of(machine) == "it waits for a worker that has not failed it; w1 did"
    submit(machine, a_spec(2))
    allocate(machine)
    assert of(machine) == "all 2 workers that offer echo are busy; it is next"


def test_it_waits_for_others():
    machine = a_machine()
    submit(machine, *(a_spec(number) for number in range(2, 7)), a_spec(1, after=range(2, 7)))
    some = ", ".join(map(an_id, (2, 3, 4)))
    assert of(machine) == f"it needs {some} and 2 more to be completed first"
    submit(machine, with_terms(8, after=[2], not_before_ns=START_NS + 90 * SECOND_NS))
    submit(machine, with_terms(9, after=[2, 3, 5], despite_dead=True))
    cancel(machine, 3)
    assert of(machine, 9) == f"it needs {an_id(2)}, {an_id(5)} to be over first"
    until = "until 2023-11-14T22:14:50+00:00, in 90 s"
    assert of(machine, 8) == f"it needs {an_id(2)} to be completed first, and is delayed {until}"


def test_it_is_not_time_yet():
    machine = a_machine()
    submit(machine, with_terms(1, not_before_ns=START_NS + 90 * SECOND_NS))
    assert of(machine) == "it is delayed until 2023-11-14T22:14:50+00:00, in 90 s"


def test_it_is_tried_again_later():
    machine = taken()
    say(machine, reports=[failed(1)])
    sentence = of(machine)
    assert sentence.startswith("attempt 1 FAILED: attempt 1 went wrong; it is tried again 1.")
    assert sentence.endswith(" s after that")


def test_somebody_has_it():
    machine = taken()
    assert of(machine) == "attempt 1 is with the worker on w1"
    say(machine, started=[ref(1)])
    assert of(machine) == "attempt 1 runs on w1"
    detach(machine)
    assert of(machine) == "attempt 1 runs on w1, which is disconnected at the moment"


def test_it_is_over():
    machine = taken()
    say(machine, reports=[failed(1, permanent=True)])
    assert of(machine) == "attempt 1 went wrong"
    tell(machine, RetryDead, [(an_id(1), an_id(2))])
    assert of(machine) == f"attempt 1 went wrong; tried again as {an_id(2)}"
    cancel(machine, 2)
    assert of(machine, 2) == "it is CANCELED"


def test_asking_changes_nothing():
    machine = a_machine()
    a_tenant(machine, "other", weight=2)
    attach(machine, granted=0)
    limit(machine, RuleKind.KEY, "echo", concurrency=1)
    submit(machine, *(with_terms(number, key=f"k{number}") for number in range(3_000)))
    before = machine.state.sequence
    for number in range(3_000):
        assert "w1 is busy" in of(machine, number)
    assert machine.state.sequence == before
    assert sum(1 for _ in machine.gates) <= 2_048
