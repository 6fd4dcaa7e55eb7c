"""Hard constraints: what is said against a worker, in whole sentences' parts, and what is reckoned."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from merit.allocation.feasibility import (
    NOTHING,
    SLOTS,
    amount_text,
    lacking,
    misfit_permille,
    needs_of,
    reasons_against,
    shortcomings,
)
from merit.model.tasks import Demand
from merit.model.workers import UNCOUNTED, Amount, Worker, WorkerState
from merit.testing.builders import amounts, an_offer


def a_worker(*, state=WorkerState.ACTIVE, tags=(), capacity=(), tenants=(), **offer):
    return Worker("w1", "b", "t", (an_offer(**offer),), 4, tags, 0, state, {}, capacity, tenants)


def said(who, capability="echo", tenant="", probing=False, **demand):
    return list(reasons_against(who, capability, Demand(**demand), tenant, probing=probing))


@pytest.mark.parametrize(
    ("worker", "asked", "reasons"),
    [
        (a_worker(), {}, []),
        (a_worker(), {"capability": "other", "worker": "w2"}, ["does not offer other"]),
        (a_worker(state=WorkerState.DRAINING), {}, ["is draining"]),
        (a_worker(state=WorkerState.PAUSED), {"worker": "w2"}, ["is paused", "is not w2"]),
        (a_worker(state=WorkerState.PROBATION), {}, ["is on probation"]),
        (a_worker(state=WorkerState.PROBATION), {"probing": True}, []),
        (a_worker(version="1.4.0"), {"versions": ">=2"}, ["has version 1.4.0, not >=2"]),
        (a_worker(version="1.4.0"), {"versions": ">=1,<2"}, []),
        (a_worker(tenants=("a", "b")), {"tenant": "c"}, ["takes tasks of a, b only"]),
        (a_worker(tenants=("a", "b")), {"tenant": "b"}, []),
        (a_worker(tenants=("a",)), {"tenant": "c", "probing": True}, []),
        (a_worker(tenants=("a",)), {}, ["takes tasks of a only"]),
        (a_worker(tags=("x",)), {"tags": ("x", "y", "z")}, ["lacks the tag y, z"]),
        (a_worker(), {"without_tags": ("x",)}, []),
        (a_worker(tags=("x",)), {"without_tags": ("x", "y")}, ["has the tag x"]),
        (a_worker(), {"resources": amounts(gpu=1)}, ["has no gpu"]),
        (a_worker(), {"resources": amounts(gpu=0, cpu=99, memory=10**15, network=1)}, []),
        (a_worker(capacity=amounts(cpu=2)), {"resources": amounts(cpu=2)}, []),
        (a_worker(capacity=amounts(cpu=2)), {"resources": amounts(cpu=3)}, ["has 2 cpu in all, 3 are needed"]),
        (a_worker(resources=amounts(gpu=1)), {}, ["has no gpu"]),
        (a_worker(resources=amounts(gpu=1)), {"resources": amounts(gpu=0)}, []),
    ],
)
def test_what_is_said_against_a_worker(worker, asked, reasons):
    assert said(worker, **asked) == reasons


def test_tags_of_the_offer_count_like_those_of_the_worker():
    worker = Worker("w", "b", "t", (an_offer(tags=("x",)),), 1, ("y",), 0, WorkerState.ACTIVE, {})
    assert said(worker, tags=("x", "y")) == []
    assert said(worker, without_tags=("x",)) == ["has the tag x"]


def test_shortcomings_are_what_its_state_does_not_change():
    worker = a_worker(state=WorkerState.PAUSED)
    assert list(shortcomings(worker, worker.offers[0], NOTHING, "", probing=False)) == []
    assert list(shortcomings(worker, worker.offers[0], Demand(worker="w2"), "", probing=False)) == ["is not w2"]


def test_a_task_says_of_each_resource_what_it_needs_and_the_offer_of_the_rest():
    offer = an_offer(resources=amounts(cpu=2, gpu=1))
    assert needs_of(offer, NOTHING) is offer.resources
    needs = needs_of(offer, Demand(resources=(Amount("cpu", 500), Amount("memory", 7_000))))
    assert needs == (Amount("cpu", 500), Amount("memory", 7_000), Amount("gpu", 1_000))


def test_what_is_lacking_now():
    offer = an_offer(concurrency_max=2)
    needs, capacity = amounts(cpu=2, gpu=1), {"cpu": 4_000}
    assert list(lacking(offer, needs, capacity, {})) == []
    assert list(lacking(offer, needs, capacity, {"cpu": 2_000, SLOTS + "echo": 1})) == []
    assert list(lacking(offer, needs, capacity, {"cpu": 2_500, SLOTS + "echo": 2})) == [
        "makes 2 attempts at echo at a time, and has them",
        "has 1.5 cpu free, 2 are needed",
    ]


def test_how_far_what_is_free_is_from_what_is_needed():
    capacity = {"cpu": 4_000, "memory": 8_000, "gpu": 2_000}
    assert misfit_permille(amounts(cpu=4, memory=8), capacity, {}) == 0
    assert misfit_permille(amounts(cpu=1), capacity, {"memory": 8_000}) == 750
    assert misfit_permille((), capacity, {"cpu": 1_000}) == 750 + 1_000
    assert misfit_permille(amounts(network=5), {}, {}) == 0


def test_amounts_are_written_for_people():
    assert [amount_text(number) for number in (0, 500, 1_000, 1_500, 2_000_000)] == ["0", "0.5", "1", "1.5", "2,000"]


names = st.sampled_from(["cpu", "gpu", "memory", "x"])
some = st.dictionaries(names, st.integers(0, 9_000), max_size=4)


@given(some, some, some)
def test_what_fits_in_all_fits_when_nothing_is_in_use_and_more_use_never_helps(needed, has, used):
    needs = tuple(Amount(name, count) for name, count in needed.items())
    worker = a_worker(capacity=tuple(Amount(name, count) for name, count in has.items()))
    reasons = said(worker, resources=needs)
    expected = [name for name, count in needed.items() if count > has.get(name, 10**18 if name in UNCOUNTED else 0)]
    assert len(reasons) == len(expected)
    idle = list(lacking(worker.offers[0], needs, has, {}))
    busy = list(lacking(worker.offers[0], needs, has, used))
    assert not idle or reasons
    assert len(busy) >= len(idle)
