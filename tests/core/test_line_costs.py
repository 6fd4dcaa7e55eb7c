"""What binding costs, in lines of Python run: a measure that no other load disturbs."""

from typing import Any

import pytest

from merit.allocation.catalogue import BUILT_IN
from merit.core.lines import Bespoken
from merit.model.commands import PauseWorker, ResumeWorker, SetAllocation, StartRollout
from merit.model.fleet import Allocation
from merit.model.limits import SECOND_NS, Limits
from merit.model.tasks import Demand
from merit.testing.builders import (
    a_machine,
    a_spec,
    allocate,
    amounts,
    an_offer,
    asking,
    attach,
    bind,
    completed,
    number_of,
    say,
    submit,
    tell,
    with_terms,
)
from merit.testing.costs import lines_run

LIMITS = Limits(stale_ns=10**6 * SECOND_NS)
FEW, MANY = 50, 5_000
TOLERANCE = 1.3


def a_fleet(workers, *, granted=4, **offer):
    machine = a_machine(limits=LIMITS)
    fields: dict[str, Any] = {"resources": amounts(cpu=1), "concurrency_max": 4, **offer}
    for number in range(workers):
        attach(machine, f"w{number}", offers=[an_offer(**fields)], granted=granted, capacity=amounts(cpu=8), tags=["t"])
    return machine


def some_turns(machine, make, first=10_000, turns=40):
    """Tasks come, one by one, are bound and done."""
    for number in range(first, first + turns):
        submit(machine, make(number))
        found = bind(machine)
        assert len(found) == 1
        ((done, worker),) = found.items()
        say(machine, worker, reports=[completed(done)], granted=machine.seats[worker].granted + 1)


MAKERS = {
    "plain": a_spec,
    "tags": lambda number: asking(number, tags=("t",)),
    "resources": lambda number: asking(number, resources=amounts(cpu=2)),
    "worker": lambda number: asking(number, worker=f"w{number % FEW}"),
    "key": lambda number: with_terms(number, key=f"k{number % 7}"),
    "all": lambda number: asking(
        number, tags=("t",), versions=">=1", resources=amounts(cpu=1), prefers=("x",), key="k"
    ),
}


@pytest.mark.parametrize("asks", MAKERS)
def test_a_task_costs_the_same_in_a_large_fleet(asks):
    def cost(workers):
        machine = a_fleet(workers, stateful=asks in ("key", "all"))
        some_turns(machine, MAKERS[asks], 1_000)
        return lines_run(lambda: some_turns(machine, MAKERS[asks]))

    assert cost(MANY) <= TOLERANCE * cost(FEW)


@pytest.mark.parametrize("name", sorted(BUILT_IN))
def test_a_task_costs_the_same_in_a_large_fleet_with_every_strategy(name):
    def make(number):
        return asking(number, tags=("t",), prefers=("t",))

    def cost(workers):
        machine = a_fleet(workers)
        tell(machine, SetAllocation, Allocation("", name))
        some_turns(machine, make, 1_000)
        return lines_run(lambda: some_turns(machine, make))

    few, many = cost(FEW), cost(MANY)
    assert many <= TOLERANCE * few


@pytest.mark.parametrize("share_permille", [0, 300])
def test_a_task_costs_the_same_in_a_large_fleet_while_a_version_is_introduced(share_permille):
    def cost(workers):
        machine = a_fleet(workers)
        attach(machine, "new", offers=[an_offer(version="2.0.0")], granted=1_000, concurrency=1_000)
        tell(machine, StartRollout, "echo", "2.0.0", share_permille)
        some_turns(machine, a_spec, 1_000)
        return lines_run(lambda: some_turns(machine, a_spec))

    assert cost(MANY) <= TOLERANCE * cost(FEW)


@pytest.mark.parametrize("asks", MAKERS)
def test_a_task_costs_the_same_however_many_wait(asks):
    def cost(waiting):
        machine = a_fleet(10, granted=0, stateful=asks in ("key", "all"))
        submit(machine, *(a_spec(number, "other") for number in range(waiting)))
        submit(machine, *(MAKERS["tags"](number) for number in range(waiting, 2 * waiting)))
        submit(machine, *(asking(number, tags=("nobody",)) for number in range(2 * waiting, 3 * waiting)))
        submit(machine, *(asking(number, worker="w9") for number in range(3 * waiting, 4 * waiting)))
        make = {"worker": lambda number: asking(number, worker="w0")}.get(asks, MAKERS[asks])
        submit(machine, *(make(number) for number in range(4 * waiting, 5 * waiting)))
        bind(machine)

        def turns():
            for turn in range(1, 31):
                say(machine, "w0", granted=turn)
                (sent,) = allocate(machine)
                say(machine, "w0", reports=[completed(number_of(sent.assignment.task))])

        return lines_run(turns)

    few, many = cost(40), cost(2_000)
    assert many <= TOLERANCE * few


def test_who_comes_is_not_held_against_all_lines_that_name_others():
    def cost(named):
        machine = a_fleet(3)
        submit(machine, *(asking(number, worker=f"away{number}") for number in range(named)))

        def come_and_go():
            for _ in range(20):
                tell(machine, PauseWorker, "w0", "")
                tell(machine, ResumeWorker, "w0")

        return lines_run(come_and_go)

    assert cost(2_000) <= TOLERANCE * cost(20)


def test_many_lines_that_are_swept_at_once_cost_what_they_are():
    def cost(workers):
        machine = a_fleet(workers)
        for number in range(100):
            submit(machine, asking(number, tags=("t",), without_tags=(f"x{number}",)))
            bind(machine)
        return lines_run(lambda: machine.lines.takes("echo", Demand(tags=("y",)), Bespoken(), 5, 5))

    assert cost(400) <= TOLERANCE * 10 * cost(40), "in proportion to who stands there"


def test_a_submit_of_demands_that_are_all_refused_sweeps_once():
    machine = a_machine(limits=Limits(broad_lines_max=200, lines_max=200))
    submit(machine, *(asking(number, tags=(f"t{number}",)) for number in range(200)))

    def refused(count):
        specs = [asking(1_000 + number, tags=(f"u{number}",)) for number in range(count)]
        return lines_run(lambda: submit(machine, *specs))

    assert refused(500) / 500 < refused(5)
