"""Tasks that ask something of their worker: who gets them, who waits, and who waits for nobody."""

import pytest

from merit.core.invariants import check, check_allocated
from merit.model.commands import EndRollout, PauseWorker, ResumeWorker, SetAllocation, StartRollout
from merit.model.fleet import Allocation
from merit.model.limits import SECOND_NS, Limits
from merit.model.tasks import Demand, Terms
from merit.testing.builders import (
    a_machine,
    a_spec,
    amounts,
    an_offer,
    asking,
    attach,
    bind,
    cancel,
    completed,
    detach,
    say,
    submit,
    tell,
    tick,
    with_terms,
)


def checked(machine):
    """`bind`, and everything that has to hold afterwards."""
    found = bind(machine)
    check(machine, machine.state)
    check_allocated(machine)
    return found


@pytest.mark.parametrize(
    "asked",
    [
        {"versions": ">=9"},
        {"worker": "w9"},
        {"tags": ("gpu",)},
        {"without_tags": ("old",)},
        {"resources": amounts(gpu=1)},
        {"resources": amounts(cpu=99)},
    ],
    ids=lambda asked: next(iter(asked)),
)
def test_a_task_that_nobody_can_do_holds_up_nobody_else(asked):
    machine = a_machine()
    attach(machine, tags=["old"], capacity=amounts(cpu=8))
    submit(machine, asking(1, **asked), *(a_spec(number) for number in range(2, 5)), asking(5, worker="w1"))
    assert checked(machine) == {2: "w1", 3: "w1", 4: "w1", 5: "w1"}
    assert machine.backlog.pending("echo") == 1


def test_it_is_done_when_somebody_comes_who_can():
    machine = a_machine()
    attach(machine)
    submit(machine, asking(1, versions=">=2"), asking(2, worker="w2"), asking(3, tags=("gpu",)))
    assert checked(machine) == {}
    attach(machine, "w2", offers=[an_offer(version="2.1.0")])
    assert checked(machine) == {1: "w2", 2: "w2"}
    attach(machine, "w3", tags=["gpu"])
    assert checked(machine) == {3: "w3"}


def test_it_is_done_when_the_one_that_can_is_resumed_or_connected_again():
    machine = a_machine()
    attach(machine)
    attach(machine, "w2", tags=["gpu"])
    tell(machine, PauseWorker, "w2", "")
    submit(machine, asking(1, tags=("gpu",)))
    assert checked(machine) == {}
    tell(machine, ResumeWorker, "w2")
    assert checked(machine) == {1: "w2"}
    detach(machine, "w2")
    submit(machine, asking(2, tags=("gpu",)))
    assert checked(machine) == {}
    attach(machine, "w2", tags=["gpu"], session=2)
    assert checked(machine) == {2: "w2"}


@pytest.mark.parametrize(
    ("asked", "able"),
    [
        ({"tags": ("gpu",)}, ["w2", "w3"]),
        ({"tags": ("gpu", "near")}, ["w3"]),
        ({"without_tags": ("gpu",)}, ["w1", "w4"]),
        ({"tags": ("gpu",), "without_tags": ("near",)}, ["w2"]),
        ({"tags": ("of-offer",)}, ["w4"]),
        ({"versions": ">=2"}, ["w3", "w4"]),
        ({"versions": "^1.0"}, ["w1", "w2"]),
        ({"worker": "w2"}, ["w2"]),
        ({"worker": "w2", "tags": ("near",)}, []),
        ({"resources": amounts(memory=3)}, ["w1", "w2", "w4"]),
        ({"resources": amounts(license=1)}, ["w4"]),
        ({"resources": amounts(license=0)}, ["w1", "w2", "w3", "w4"]),
    ],
    ids=str,
)
def test_only_who_can_do_it_gets_it(asked, able):
    machine = a_machine()
    attach(machine, "w1", granted=50)
    attach(machine, "w2", granted=50, tags=["gpu"])
    attach(
        machine, "w3", granted=50, tags=["gpu", "near"], offers=[an_offer(version="2.0.0")], capacity=amounts(memory=2)
    )
    of_offer = an_offer(version="2.5.0", tags=("of-offer",))
    attach(machine, "w4", granted=50, offers=[of_offer], capacity=amounts(license=100))
    submit(machine, *(asking(number, **asked) for number in range(20)))
    found = checked(machine)
    assert sorted(set(found.values())) == able
    assert len(found) == (20 if able else 0)


def test_what_it_prefers_holds_nothing_up():
    machine = a_machine()
    attach(machine)
    submit(machine, asking(1, prefers=("near",)), asking(2, prefers=("far",)))
    assert checked(machine) == {1: "w1", 2: "w1"}
    assert list(machine.lines.by_name) == ["echo"]


def test_a_demand_that_asks_nothing_waits_where_plain_tasks_wait():
    machine = a_machine()
    submit(machine, with_terms(1, demand=Demand()), a_spec(2))
    attach(machine)
    assert checked(machine) == {1: "w1", 2: "w1"}
    assert list(machine.lines.by_name) == ["echo"]


# Tenants that have workers to themselves


def test_a_worker_for_some_tenants_gets_only_theirs_and_others_may_do_those_too():
    machine = a_machine()
    attach(machine, "open", granted=4)
    attach(machine, "walled", granted=4, tenants=["dear"])
    submit(machine, *(a_spec(number) for number in range(6)))
    submit(machine, *(a_spec(number) for number in range(10, 16)), tenant="dear")
    found = checked(machine)
    assert {found[number] for number in found if number < 10} <= {"open"}
    assert sum(worker == "walled" for worker in found.values()) == 4
    assert len(found) == 8
    assert {"open", "walled"} == {found[number] for number in found if number >= 10} or len(found) == 8


def test_a_tenant_with_workers_of_its_own_goes_to_open_ones_when_these_are_busy():
    machine = a_machine()
    attach(machine, "walled", granted=1, tenants=["dear"])
    attach(machine, "open", granted=2)
    submit(machine, *(a_spec(number) for number in range(3)), tenant="dear")
    assert sorted(checked(machine).values()) == ["open", "open", "walled"]


def test_who_waited_before_its_worker_came_is_not_held_up_by_others():
    machine = a_machine()
    submit(machine, a_spec(1), a_spec(2))
    submit(machine, a_spec(3), a_spec(4), tenant="zoe")
    attach(machine, "walled", tenants=["zoe"])
    assert checked(machine) == {3: "walled", 4: "walled"}
    attach(machine, "open")
    assert checked(machine) == {1: "open", 2: "open"}


def test_when_its_own_worker_has_left_it_is_like_everybody():
    machine = a_machine(limits=Limits(grace_ns=0))
    attach(machine, "walled", tenants=["zoe"], granted=0)
    submit(machine, a_spec(1), tenant="zoe")
    assert checked(machine) == {}
    detach(machine, "walled", bye=True)
    attach(machine, "open")
    assert checked(machine) == {1: "open"}


# Bounds


def test_different_demands_are_bounded_and_given_back():
    machine = a_machine(limits=Limits(lines_max=5, broad_lines_max=3))
    refusals = submit(machine, *(asking(number, tags=(f"t{number}",)) for number in range(4))).refusals
    assert [(refusal.task[-1], refusal.code, refusal.field) for refusal in refusals] == [
        ("3", "exhausted", "terms.demand")
    ]
    assert "too many different things of workers (5, or 3 of one capability)" in refusals[0].reason
    assert refusals[0].retry_after_ns
    # One that is asked already, one that names its worker, nothing, and another capability.
    others = [asking(10, tags=("t0",)), asking(11, worker="w1"), asking(12, prefers=("x",)), a_spec(13)]
    assert not submit(machine, *others, asking(14, "other", tags=("t0",))).refusals
    assert submit(machine, asking(15, worker="w2")).refusals, "five lines there are"
    cancel(machine, 1)
    assert not submit(machine, asking(16, worker="w2")).refusals
    assert len(machine.lines.by_name) <= 6
    check(machine, machine.state)


def test_many_different_demands_over_a_long_time_leave_nothing_behind():
    machine = a_machine()
    attach(machine, granted=10**6, tags=[f"t{number}" for number in range(60)])
    for number in range(2_000):
        submit(machine, asking(number, tags=(f"t{number % 60}", f"t{number // 60}")))
        assert bind(machine) == {number: "w1"}
        say(machine, reports=[completed(number)])
    assert len(machine.lines.by_name) <= 257
    assert len(machine.lines.stands("w1")) <= 257
    check(machine, machine.state)


def test_an_atomic_submit_with_one_demand_too_many_is_not_taken():
    machine = a_machine(limits=Limits(broad_lines_max=2))
    specs = [asking(number, tags=(f"t{number}",)) for number in range(3)]
    assert {refusal.code for refusal in submit(machine, *specs, atomic=True).refusals} == {"exhausted"}
    assert machine.state.live == 0
    assert not submit(machine, *specs[:2], atomic=True).refusals


# Strategies


def test_a_strategy_that_is_unknown_is_refused_with_those_that_there_are():
    machine = a_machine()
    for decision in (
        submit(machine, asking(1, strategy="best")),
        tell(machine, SetAllocation, Allocation("echo", "best")),
    ):
        (refusal,) = decision.refusals
        assert refusal.code == "invalid"
        assert refusal.reason.startswith(
            "best is none of best-score, capability-load, direct, greedy-fit, least-expected"
        )
    assert machine.state.allocations == {}


def test_a_strategy_can_be_changed_while_everything_runs():
    machine = a_machine()
    attach(machine, "w1", granted=100, concurrency=1)
    attach(machine, "w2", granted=100, concurrency=4)
    submit(machine, *(a_spec(number) for number in range(10)))
    assert sorted(checked(machine).values()).count("w2") == 8, "by their concurrency"
    tell(machine, SetAllocation, Allocation("", "direct"))
    submit(machine, *(a_spec(number) for number in range(10, 20)))
    assert set(checked(machine).values()) == {"w1"}, "the first by id"
    tell(machine, SetAllocation, Allocation("echo", "round-robin"))
    submit(machine, *(a_spec(number) for number in range(20, 30)))
    assert sorted(checked(machine).values()).count("w2") == 5
    submit(machine, *(asking(number, strategy="direct") for number in range(30, 35)))
    assert set(checked(machine).values()) == {"w1"}, "the task's own word counts most"
    tell(machine, SetAllocation, Allocation("echo", ""))
    submit(machine, *(a_spec(number) for number in range(40, 45)))
    assert set(checked(machine).values()) == {"w1"}, "as for all others again"
    tell(machine, SetAllocation, Allocation("", ""))
    assert machine.state.allocations == {}


def test_what_waits_is_given_out_by_the_new_strategy():
    machine = a_machine()
    attach(machine, "w1", granted=0, concurrency=1)
    attach(machine, "w2", granted=0, concurrency=8)
    submit(machine, *(a_spec(number) for number in range(4)))
    assert checked(machine) == {}
    tell(machine, SetAllocation, Allocation("echo", "round-robin"))
    for worker in ("w1", "w2"):
        say(machine, worker, granted=4)
    assert sorted(checked(machine).values()) == ["w1", "w1", "w2", "w2"]


# Settings that change what tasks ask


def test_a_task_of_a_line_goes_on_with_its_retries_and_its_limits():
    machine = a_machine(limits=Limits(backoff_ns=SECOND_NS, backoff_ns_max=SECOND_NS))
    attach(machine, tags=["gpu"])
    attach(machine, "w2")
    submit(machine, asking(1, tags=("gpu",), run_timeout_ns=SECOND_NS))
    assert checked(machine) == {1: "w1"}
    tick(machine, machine.now_ns + 2 * SECOND_NS)
    tick(machine, machine.now_ns + 2 * SECOND_NS)
    assert checked(machine) == {1: "w1"}, "who failed it is the only one that may do it"


def test_demands_go_together_with_homes_rollouts_and_walls():
    machine = a_machine()
    old, new = an_offer(version="1.0.0", stateful=True), an_offer(version="2.0.0", stateful=True)
    attach(machine, "a", offers=[old], tags=["near"], tenants=["zoe"], granted=50)
    attach(machine, "b", offers=[new], tags=["near"], granted=50)
    attach(machine, "c", offers=[new], granted=50)
    tell(machine, StartRollout, "echo", "2.0.0", 1_000)
    submit(machine, *(asking(number, tags=("near",), key="k") for number in range(4)))
    assert set(checked(machine).values()) == {"b"}
    tell(machine, EndRollout, "echo", False)
    submit(machine, asking(10, tags=("near",), key="k"), asking(11, tags=("near",)), with_terms(12))
    submit(machine, asking(20, tags=("near",)), tenant="zoe")
    found = checked(machine)
    assert found == {10: "b", 20: "a"}, "the key stays; version 1 is only here for one tenant"
    check(machine, machine.state)


def test_terms_with_a_demand_weigh_what_they_hold():
    small, large = Terms(), Terms(demand=Demand(tags=("x" * 100,), resources=amounts(cpu=1)))
    assert large.request_bytes > small.request_bytes + 100
