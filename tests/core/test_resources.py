"""What attempts take of their workers: never more than there is, in whatever order they come and end."""

from collections import Counter

from hypothesis import given, settings
from hypothesis import strategies as st

from merit.core.invariants import check, check_allocated
from merit.model.commands import CancelTasks
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
    completed,
    detach,
    failed,
    number_of,
    ref,
    say,
    submit,
)

OFFERS = [
    an_offer("small", resources=amounts(cpu=1)),
    an_offer("large", resources=amounts(cpu=3, gpu=1), concurrency_max=2),
    an_offer("free", concurrency_max=3),
]


def test_no_more_at_a_time_than_there_is():
    machine = a_machine()
    attach(machine, granted=100, offers=OFFERS, capacity=amounts(cpu=4, gpu=1))
    submit(machine, *(a_spec(number, "large") for number in range(3)))
    assert bind(machine) == {0: "w1"}
    submit(machine, *(a_spec(number, "small") for number in range(10, 13)))
    assert bind(machine) == {10: "w1"}
    say(machine, reports=[completed(0)])
    assert len(bind(machine)) == 1
    check(machine, machine.state)
    check_allocated(machine)


def test_a_demand_says_otherwise_than_the_offer():
    machine = a_machine()
    attach(machine, granted=100, offers=OFFERS, capacity=amounts(cpu=4, gpu=1))
    less = [asking(number, "large", resources=amounts(cpu=1, gpu=0)) for number in range(5)]
    submit(machine, *less)
    assert len(bind(machine)) == 2, "two at a time at this capability all the same"
    submit(machine, asking(20, "small", resources=amounts(cpu=3)), asking(21, "small", resources=amounts(cpu=2)))
    assert bind(machine) == {21: "w1"}


def test_a_resource_that_nobody_counts_is_there_only_if_everybody_has_it():
    machine = a_machine()
    attach(machine, granted=100)
    submit(machine, asking(1, resources=amounts(cpu=99)), asking(2, resources=amounts(license=1)))
    assert bind(machine) == {1: "w1"}


def test_concurrency_is_counted_by_capability_and_worker():
    machine = a_machine()
    for worker in ("w1", "w2"):
        attach(machine, worker, granted=100, offers=OFFERS)
    submit(machine, *(a_spec(number, "free") for number in range(20)))
    assert Counter(bind(machine).values()) == {"w1": 3, "w2": 3}
    say(machine, "w2", returned=[ref(number) for number in map(number_of, machine.state.workers["w2"].attempts)][:1])
    submit(machine, a_spec(30, "small"))
    assert Counter(bind(machine).values()) == {"w2": 1, "w1": 1}


def test_what_a_lost_or_canceled_attempt_took_is_free_again():
    machine = a_machine()
    attach(machine, granted=100, offers=OFFERS, capacity=amounts(cpu=3, gpu=1))
    submit(machine, *(a_spec(number, "large") for number in range(3)))
    assert bind(machine) == {0: "w1"}
    machine.handle(CancelTasks(TENANT, PRINCIPAL, [an_id(0)]), machine.now_ns)
    assert bind(machine) == {1: "w1"}
    attach(machine, granted=100, offers=OFFERS, capacity=amounts(cpu=3, gpu=1), boot="boot-2")
    assert bind(machine) == {2: "w1"}
    check(machine, machine.state)


@given(st.data())
@settings(max_examples=60)
def test_never_more_than_there_is_whatever_happens(data):
    machine, now_ns, number = a_machine(), START_NS, 0
    capacities = {"w1": amounts(cpu=4, gpu=2), "w2": amounts(cpu=3), "w3": ()}
    for worker, capacity in capacities.items():
        attach(machine, worker, granted=1_000, offers=OFFERS, capacity=capacity)
    session = 1
    for step in data.draw(st.lists(st.sampled_from(["submit", "submit", "end", "end", "break"]), max_size=40)):
        now_ns += 10**9
        if step == "submit":
            demands = [None, Demand(resources=amounts(cpu=2)), Demand(resources=amounts(cpu=4, memory=5))]
            for _ in range(data.draw(st.integers(1, 5))):
                number += 1
                demand = data.draw(st.sampled_from(demands))
                capability = data.draw(st.sampled_from(["small", "large", "free"]))
                spec = asking(number, capability, resources=demand.resources) if demand else a_spec(number, capability)
                submit(machine, spec, now_ns=now_ns)
        elif step == "end":
            worker = data.draw(st.sampled_from(sorted(capacities)))
            held = list(machine.state.workers[worker].attempts.items())
            some = data.draw(st.sets(st.sampled_from(held), max_size=3)) if held else set()
            report = data.draw(st.sampled_from([completed, failed]))
            reports = [report(number_of(task), attempt) for task, attempt in sorted(some)]
            say(machine, worker, reports=reports, now_ns=now_ns)
        else:
            worker, session = data.draw(st.sampled_from(sorted(capacities))), session + 1
            refs = [ref(number_of(task), n) for task, n in machine.state.workers[worker].attempts.items()]
            detach(machine, worker, now_ns=now_ns)
            offers, capacity = OFFERS, capacities[worker]
            attach(machine, worker, granted=1_000, offers=offers, capacity=capacity, session=session, held=refs)
        bind(machine, now_ns=now_ns)
        check(machine, machine.state)
        check_allocated(machine)
        for worker, capacity in capacities.items():
            used, slots = taken(machine, worker)
            assert all(used[amount.name] <= amount.thousandths for amount in capacity)
            assert slots["large"] <= 2
            assert slots["free"] <= 3
            assert worker == "w1" or not used["gpu"]


def taken(machine, worker):
    """What the attempts of a worker take, and how many there are by capability; counted from the state."""
    used: Counter[str] = Counter()
    slots: Counter[str] = Counter()
    for name in machine.state.workers[worker].attempts:
        task = machine.state.tasks[name]
        slots[task.capability] += 1
        offer = next(offer for offer in OFFERS if offer.name == task.capability)
        needs = {need.name: need.thousandths for need in offer.resources}
        if task.terms and task.terms.demand:
            needs |= {need.name: need.thousandths for need in task.terms.demand.resources}
        used.update(needs)
    return used, slots
