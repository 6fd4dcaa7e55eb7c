"""Why a task got its worker, or has none: what is said, and that the same rules decide the same again.

That this holds for every decision of any history: ``test_machine_properties``.
"""

from typing import Any

import pytest

from merit.allocation.catalogue import BUILT_IN
from merit.core.apply import apply
from merit.core.codec import decode_state, encode_state
from merit.core.explaining import demand_text, explain_assigned, explain_now
from merit.model.commands import Allocate, PauseWorker, SetAllocation, StartRollout
from merit.model.events import AttemptAssigned
from merit.model.fleet import Allocation, Weight
from merit.model.limits import SECOND_NS, Limits
from merit.model.supervision import Circuit, CircuitState, Stage
from merit.model.tasks import Demand
from merit.testing.builders import (
    PRINCIPAL,
    START_NS,
    TENANT,
    a_machine,
    a_spec,
    amounts,
    an_id,
    an_offer,
    asking,
    attach,
    bind,
    detach,
    failed,
    say,
    submit,
    tell,
    tick,
)

LIMITS = Limits(stale_ns=10**6 * SECOND_NS, backoff_ns=SECOND_NS, backoff_ns_max=SECOND_NS)


def explained(machine, rulings_max=10):
    """Lets the machine bind what waits: by task, how each decision is explained from the state before it."""
    state = decode_state(encode_state(machine.state))
    found = {}
    for event in machine.handle(Allocate(TENANT, PRINCIPAL, 10_000), machine.now_ns).events:
        if isinstance(event, AttemptAssigned):
            found[event.task] = explain_assigned(state, event, machine.now_ns, BUILT_IN, LIMITS, rulings_max)
        apply(state, event, {}, machine.now_ns)
    return found


def now(machine, number=1, rulings_max=10):
    return explain_now(machine, machine.state.tasks[an_id(number)], rulings_max)


def reasons(told):
    return {ruling.worker: ruling.reasons for ruling in told.rulings}


def test_a_decision_with_its_figures():
    machine = a_machine(limits=LIMITS)
    attach(machine, "w1", concurrency=4)
    attach(machine, "w2", concurrency=1)
    attach(machine, "w3", granted=0)
    attach(machine, "other", capabilities=["other"])
    submit(machine, a_spec(1), a_spec(2))
    bind(machine)
    submit(machine, a_spec(3))
    (told,) = explained(machine).values()
    assert (told.task, told.number, told.capability, told.strategy) == (an_id(3), 1, "echo", "least-loaded")
    assert (told.chosen, told.agrees, told.at_ns, told.why) == ("w1", True, START_NS, "it was given to w1")
    assert [(ruling.worker, ruling.fits, ruling.rank) for ruling in told.rulings] == [
        ("w1", True, 1),
        ("w2", True, 2),
        ("w3", False, 0),
    ]
    assert [dict(ruling.figures)["load_eighths"] for ruling in told.rulings[:2]] == [2, 8]
    assert reasons(told)["w3"] == ("had no room, or was away: 0 attempts",)


@pytest.mark.parametrize("name", sorted(BUILT_IN))
def test_every_strategy_is_explained_and_its_figures_rank(name):
    machine = a_machine(limits=LIMITS)
    tell(machine, SetAllocation, Allocation("", name))
    for number in range(6):
        offer = an_offer(cost_micros=number * 100, preference_permille=100 * number, resources=amounts(cpu=1))
        tags = ["near"] if number % 2 else []
        attach(
            machine, f"w{number}", offers=[offer], concurrency=number + 1, tags=tags, capacity=amounts(cpu=9 - number)
        )
    asked = [asking(number, prefers=("near",), attempts_max=9) for number in range(0, 20, 2)]
    submit(machine, *asked, *(a_spec(number) for number in range(1, 20, 2)))
    told = explained(machine)
    assert len(told) == 20
    for one in told.values():
        assert one.agrees
        assert one.strategy == name
        fitting = [ruling for ruling in one.rulings if ruling.fits]
        assert fitting[0].worker == one.chosen
        assert sorted(ruling.rank for ruling in fitting) == list(range(1, len(fitting) + 1))
        if name != "weighted":  # whose rankings are exact as far as it looks
            assert fitting[0].rank == 1


def test_weights_that_were_set_count_in_the_explanation_too():
    machine = a_machine(limits=LIMITS)
    weights = (Weight("load", 0), Weight("cost", 900))
    tell(machine, SetAllocation, Allocation("echo", "weighted", weights))
    attach(machine, "dear", offers=[an_offer(cost_micros=10**6)])
    attach(machine, "cheap", offers=[an_offer(cost_micros=1)])
    submit(machine, *(a_spec(number) for number in range(4)))
    told = explained(machine)
    assert {(one.chosen, one.agrees) for one in told.values()} == {("cheap", True)}


def test_a_retry_goes_to_somebody_else_and_that_is_said():
    machine = a_machine(limits=LIMITS)
    attach(machine, "w1", concurrency=9)
    attach(machine, "w2", concurrency=1)
    submit(machine, a_spec(1))
    assert bind(machine) == {1: "w1"}
    say(machine, reports=[failed(1)])
    tick(machine, START_NS + 5 * SECOND_NS)
    (told,) = explained(machine).values()
    assert (told.number, told.chosen, told.agrees) == (2, "w2", True)
    assert reasons(told)["w1"] == ("has failed it before: w1",)


def test_it_is_said_when_the_rules_of_today_decide_otherwise():
    machine = a_machine(limits=LIMITS)
    attach(machine, "w1")
    attach(machine, "w2")
    submit(machine, a_spec(1))
    before = decode_state(encode_state(machine.state))
    (seen, event) = machine.handle(Allocate(TENANT, PRINCIPAL, 9), machine.now_ns).events
    apply(before, seen, {}, machine.now_ns)
    assert isinstance(event, AttemptAssigned)
    before.allocations[""] = Allocation("", "shortest-queue")
    before.workers["w1"].turn = 9
    told = explain_assigned(before, event, machine.now_ns, BUILT_IN, LIMITS, 10)
    assert not told.agrees
    assert told.chosen == "w1"
    assert told.why == "it was given to w1, and the rules of this version say w2"


def test_the_rollout_and_the_walls_at_that_time_are_gone_by():
    machine = a_machine(limits=LIMITS)
    attach(machine, "old")
    attach(machine, "new", offers=[an_offer(version="2.0.0")], tenants=["zoe"], granted=100)
    tell(machine, StartRollout, "echo", "2.0.0", 500)
    submit(machine, *(a_spec(number) for number in range(4)))
    submit(machine, *(a_spec(number) for number in range(10, 30)), tenant="zoe")
    told = explained(machine)
    assert len(told) > 10
    assert all(one.agrees for one in told.values())
    assert {one.demand for one in told.values()} == {
        "version another than 2.0.0",
        "tenant zoe, version ==2.0.0",
        "tenant zoe, version another than 2.0.0",
    } & {one.demand for one in told.values()}


def test_what_speaks_against_each_worker_now():
    machine = a_machine(limits=LIMITS)
    fields: dict[str, Any] = {"tags": ["gpu"], "capacity": amounts(cpu=2)}
    busy = (an_offer(resources=amounts(cpu=1), concurrency_max=1),)
    attach(machine, "busy", offers=busy, granted=100, **fields)
    submit(machine, a_spec(99))
    assert bind(machine) == {99: "busy"}
    attach(machine, "away", **fields)
    detach(machine, "away")
    attach(machine, "full", granted=0, **fields)
    attach(machine, "paused", **fields)
    tell(machine, PauseWorker, "paused", "")
    attach(machine, "leaving", **fields)
    say(machine, "leaving", draining=True)
    attach(machine, "small", tags=["gpu"], capacity=amounts(cpu=1))
    attach(machine, "old", offers=[an_offer(version="0.9.0")], **fields)
    attach(machine, "plain", capacity=amounts(cpu=2))
    attach(machine, "walled", tenants=["zoe"], **fields)
    attach(machine, "other", capabilities=["other"])
    submit(machine, asking(1, tags=("gpu",), versions=">=1", resources=amounts(cpu=2)))
    assert bind(machine) == {}
    told = now(machine)
    assert reasons(told) == {
        "busy": (
            "makes 1 attempts at echo at a time, and has them",
            "has 1 cpu free, 2 are needed",
        ),
        "away": ("is disconnected at the moment",),
        "full": ("has no room: 0 attempts",),
        "paused": ("is paused",),
        "leaving": ("is draining",),
        "small": ("has 1 cpu in all, 2 are needed",),
        "old": ("has version 0.9.0, not >=1",),
        "plain": ("lacks the tag gpu",),
        "walled": ("takes tasks of zoe only",),
    }
    assert told.chosen == ""
    assert told.demand == "version >=1, tag gpu, 2 cpu"
    assert not any(ruling.fits for ruling in told.rulings)
    short = now(machine, rulings_max=2)
    assert (len(short.rulings), short.left_out) == (2, 7)


def test_what_would_be_chosen_now():
    machine = a_machine(limits=LIMITS)
    attach(machine, "w1", granted=1)
    submit(machine, a_spec(1))
    assert bind(machine) == {1: "w1"}
    told = now(machine)
    assert (told.number, told.chosen, told.why) == (2, "", "attempt 1 is with the worker on w1")
    submit(machine, a_spec(2))
    bind(machine)
    assert now(machine, 2).why == "w1 is busy; it is next"
    sequence = machine.state.sequence
    say(machine, granted=5)
    assert now(machine, 2).agrees
    assert machine.state.sequence == sequence
    assert bind(machine) == {2: "w1"}


def test_who_is_named_and_not_here_is_in_the_reason():
    machine = a_machine(limits=LIMITS)
    attach(machine, "w1")
    attach(machine, "w2", offers=[an_offer(version="2.0.0")])
    submit(machine, asking(1, worker="w9"), asking(2, versions=">=3"))
    bind(machine)
    assert now(machine).why == "no connected worker may do it: w1 is not w9; w2 is not w9"
    both = "w1 has version 1.0.0, not >=3; w2 has version 2.0.0, not >=3"
    assert now(machine, 2).why == f"no connected worker may do it: {both}"


def test_a_demand_for_people():
    demand = Demand(">=2", "w1", ("a", "b"), ("c",), amounts(cpu=2), "direct", ("near",))
    assert demand_text(demand, "zoe") == (
        "tenant zoe, worker w1, version >=2, tag a, tag b, not tag c, 2 cpu, strategy direct"
    )
    assert demand_text(Demand()) == ""
    assert demand_text(Demand(), "zoe") == "tenant zoe"


def test_a_past_decision_says_who_was_held_back_and_by_what():
    machine = a_machine(limits=LIMITS)
    for worker in ("open", "tried", "small", "free"):
        attach(machine, worker, granted=4)
    profiles = machine.state.profiles
    profiles["open"].conduct.circuit = Circuit(CircuitState.OPEN, START_NS + SECOND_NS, 1)
    profiles["tried"].conduct.stage = Stage.PROBATION
    profiles["small"].conduct.factor = 500
    submit(machine, *(a_spec(number) for number in range(1, 8)))
    bind(machine)
    submit(machine, a_spec(8))
    detach(machine, "free")
    attach(machine, "free", granted=1, boot="boot-2")
    told = reasons(explained(machine)[an_id(8)])
    assert told["open"] == ("failed too often: its breaker is open until 2023-11-14T22:13:21+00:00",)
    assert told["tried"] == ("is on probation: it is given one task at a time, and has it",)
    assert told["small"] == ("has a factor of 0.5: it is given 2 of the 4 it would take",)
