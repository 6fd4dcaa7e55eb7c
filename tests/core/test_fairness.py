"""Shares of tenants: by weight, over what their attempts are expected to cost."""

from collections import Counter
from itertools import combinations
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from merit.core.codec import decode_state, encode_state
from merit.core.invariants import check
from merit.model.limits import SECOND_NS, Limits
from merit.model.tasks import Priority
from merit.testing.builders import (
    a_machine,
    a_spec,
    a_tenant,
    allocate,
    attach,
    completed,
    number_of,
    say,
    submit,
    with_terms,
)

LIMITS = Limits(stale_ns=10**6 * SECOND_NS)


def served(machine, count, granted, worker="w1"):
    """One worker with room for one does `count` tasks; whose they were, in order."""
    found = []
    for turn in range(count):
        say(machine, worker, granted=granted + turn + 1)
        for sent in allocate(machine):
            found.append(machine.state.tasks[sent.assignment.task].tenant)
            report = completed(number_of(sent.assignment.task), sent.assignment.number, wall_ns=SECOND_NS)
            say(machine, worker, reports=[report], now_ns=machine.now_ns + SECOND_NS)
    return found


def all_have_something(machine, capabilities, count):
    queues = [machine.backlog.queues.get(name) for name in capabilities]
    return all(queue and sum(flow.size > 0 for flow in queue.flows.values()) == count for queue in queues)


@given(st.integers(0, 10**9))
@settings(max_examples=25)
def test_what_tenants_were_charged_differs_by_no_more_than_a_task_of_each(seed):
    rng = Random(seed)
    machine = a_machine(limits=LIMITS)
    tenants = {f"t{number}": rng.randint(1, 10) for number in range(rng.randint(2, 5))}
    capabilities = ["add", "mul", "sub"][: rng.randint(1, 3)]
    for tenant, weight in tenants.items():
        a_tenant(machine, tenant, weight=weight)
    cost_ns_max = dict.fromkeys(tenants, 0)
    number = 0
    for tenant in tenants:
        specs = []
        for _ in range(30):
            number += 1
            cost_ns = rng.randint(1, 100) * SECOND_NS
            cost_ns_max[tenant] = max(cost_ns_max[tenant], cost_ns)
            specs.append(
                with_terms(number, rng.choice(capabilities), estimate_ns=cost_ns, priority=Priority(rng.randint(1, 4)))
            )
        submit(machine, *specs, tenant=tenant)
    workers = [f"w{number}" for number in range(rng.randint(1, 3))]
    for worker in workers:
        attach(machine, worker, capabilities, granted=0)
    pool = machine.backlog.shares.pool(capabilities[0])
    granted: Counter[str] = Counter()
    # While everybody has something of everything: then each worker can do what anybody waits for.
    while all_have_something(machine, capabilities, len(tenants)):
        worker = rng.choice(workers)
        granted[worker] += rng.randint(1, 4)
        say(machine, worker, granted=granted[worker])
        for sent in allocate(machine):
            task = machine.state.tasks[sent.assignment.task]
            report = completed(number_of(task.id), wall_ns=0)
            say(machine, sent.worker, reports=[report])
        if not all_have_something(machine, capabilities, len(tenants)):
            break  # who ran dry in the middle of it left the rest of it to the others
        charged = {tenant: pool.account(tenant).charged for tenant in tenants}
        step = {tenant: cost_ns_max[tenant] / weight for tenant, weight in tenants.items()}
        for one, other in combinations(tenants, 2):
            assert abs(charged[one] - charged[other]) <= step[one] + step[other] + 1
    check(machine, machine.state)
    assert sum(granted.values()) > 0


def test_ten_tasks_beside_ten_thousand_get_their_share_at_once():
    machine = a_machine(limits=LIMITS)
    attach(machine, granted=0)
    submit(machine, *(a_spec(number) for number in range(10_000)), tenant="hot")
    assert set(served(machine, 100, 0)) == {"hot"}
    submit(machine, *(a_spec(number) for number in range(20_000, 20_010)), tenant="small")
    assert Counter(served(machine, 20, 100)) == {"hot": 10, "small": 10}


def test_who_comes_after_a_burst_starts_where_the_others_are():
    """Given out in one go, a burst is charged as if one by one."""
    machine = a_machine(limits=LIMITS)
    attach(machine, granted=1_000)
    submit(machine, *(a_spec(number) for number in range(2_000)), tenant="hot")
    assert len(allocate(machine)) == 1_000
    submit(machine, *(a_spec(number) for number in range(5_000, 5_500)), tenant="late")
    found = Counter(served(machine, 100, 1_000))
    assert abs(found["hot"] - found["late"]) <= 2


def test_who_was_away_has_neither_saved_up_nor_to_make_good():
    machine = a_machine(limits=LIMITS)
    attach(machine, granted=0)
    numbers = iter(range(10**6))

    def some(tenant, count):
        submit(machine, *(a_spec(next(numbers)) for _ in range(count)), tenant=tenant)

    some("a", 1_000)
    some("b", 100)
    assert abs(Counter(served(machine, 200, 0))["b"] - 100) <= 1
    served(machine, 100, 200)  # b is away
    some("b", 1_000)
    assert abs(Counter(served(machine, 100, 300))["b"] - 50) <= 1
    # A tenant that has everything to itself for a while owes nothing for that when another one comes.
    some("c", 500)
    found = Counter(served(machine, 90, 400))
    assert max(found.values()) - min(found.values()) <= 2


def test_shares_follow_the_weights_also_when_these_change():
    machine = a_machine(limits=LIMITS)
    attach(machine, granted=0)
    a_tenant(machine, "a", weight=3)
    for number, tenant in enumerate("ab"):
        submit(machine, *(a_spec(1_000 * number + other) for other in range(1_000)), tenant=tenant)
    assert abs(Counter(served(machine, 100, 0))["a"] - 75) <= 2
    a_tenant(machine, "b", weight=9)
    assert abs(Counter(served(machine, 100, 100))["a"] - 25) <= 4
    restored = a_machine(decode_state(encode_state(machine.state)), LIMITS, epoch=2)
    attach(restored, granted=0, session=2)
    assert abs(Counter(served(restored, 100, 0))["a"] - 25) <= 2


def test_who_estimates_too_little_is_charged_the_rest():
    machine = a_machine(limits=LIMITS)
    attach(machine, granted=0)
    for tenant, first in (("honest", 0), ("sly", 1_000)):
        estimate_ns = 10 * SECOND_NS if tenant == "honest" else SECOND_NS
        submit(machine, *(with_terms(first + n, estimate_ns=estimate_ns) for n in range(200)), tenant=tenant)
    found: Counter[str] = Counter()
    for turn in range(100):
        say(machine, granted=turn + 1)
        (sent,) = allocate(machine)
        found[machine.state.tasks[sent.assignment.task].tenant] += 1
        report = completed(number_of(sent.assignment.task), wall_ns=10 * SECOND_NS)
        say(machine, reports=[report], now_ns=machine.now_ns + 10 * SECOND_NS)
    assert abs(found["sly"] - 50) <= 2


def test_a_tenant_with_many_capabilities_gets_no_more_than_one_with_one():
    machine = a_machine(limits=LIMITS)
    capabilities = [f"c{number}" for number in range(20)]
    attach(machine, capabilities=capabilities, granted=0)
    submit(machine, *(a_spec(n, capabilities[n % 20]) for n in range(400)), tenant="broad")
    submit(machine, *(a_spec(1_000 + n, "c19") for n in range(400)), tenant="narrow")
    say(machine, granted=100)
    found = Counter(machine.state.tasks[sent.assignment.task].tenant for sent in allocate(machine))
    assert abs(found["broad"] - found["narrow"]) <= 2


def test_what_a_tenant_had_of_another_capability_delays_nobody_of_this_one():
    """Workers of one capability cannot do the other: nobody who waits here is helped by what others had there."""
    machine = a_machine(limits=LIMITS)
    attach(machine, "many", ("cheap",), granted=0)
    attach(machine, "one", ("scarce",), granted=0)
    submit(machine, *(a_spec(number, "scarce") for number in range(2_000)), tenant="b")
    submit(machine, *(a_spec(5_000 + number, "cheap") for number in range(1_000)), tenant="a")
    served(machine, 10, 0, "one")
    served(machine, 500, 0, "many")
    submit(machine, *(a_spec(20_000 + number, "scarce") for number in range(10)), tenant="c")
    assert abs(Counter(served(machine, 20, 10, "one"))["c"] - 10) <= 1


@pytest.mark.parametrize("bad", [1, 3])
def test_priorities_count_within_a_tenant_only(bad):
    machine = a_machine(limits=LIMITS)
    attach(machine, granted=0)
    submit(machine, *(a_spec(number, priority=Priority.CRITICAL) for number in range(100)), tenant="loud")
    submit(machine, *(a_spec(1_000 + number, priority=Priority(bad)) for number in range(100)), tenant="quiet")
    assert Counter(served(machine, 50, 0)) == {"loud": 25, "quiet": 25}
