"""Stateful capabilities: the tasks of one key go to one worker, as long as it is here."""

import pytest

from merit.core.codec import decode_state, encode_state
from merit.core.invariants import check, check_allocated
from merit.model.commands import DrainWorker, PauseWorker, RemoveWorker, ResumeWorker
from merit.model.limits import SECOND_NS, Limits
from merit.testing.builders import (
    START_NS,
    a_machine,
    an_offer,
    asking,
    attach,
    bind,
    completed,
    detach,
    ref,
    say,
    submit,
    tell,
    tick,
    with_terms,
)

STATEFUL = (an_offer(stateful=True),)


def fleet(*workers, granted=100, **limits):
    machine = a_machine(limits=Limits(**limits))
    for worker in workers:
        attach(machine, worker, offers=STATEFUL, granted=granted)
    return machine


def keyed(number, key="k", **fields):
    return with_terms(number, key=key, **fields)


def checked(machine):
    found = bind(machine)
    check(machine, machine.state)
    check_allocated(machine)
    return found


def test_tasks_of_one_key_stay_on_one_worker_and_those_of_others_do_not():
    machine = fleet("w1", "w2", "w3")
    submit(machine, *(keyed(number, f"k{number % 5}") for number in range(50)))
    found = checked(machine)
    assert len(found) == 50
    for key in range(5):
        assert len({worker for number, worker in found.items() if number % 5 == key}) == 1
    assert len(set(found.values())) == 3
    submit(machine, *(with_terms(number) for number in range(100, 160)))
    assert len(set(checked(machine).values())) == 3, "without a key they go to anybody"


def test_a_capability_that_is_not_stateful_keeps_no_homes():
    machine = a_machine()
    attach(machine, granted=10)
    submit(machine, keyed(1))
    assert checked(machine) == {1: "w1"}
    assert machine.state.homes == {}


def test_they_wait_for_their_worker_and_hold_up_nobody():
    machine = fleet("w1", "w2", granted=1)
    submit(machine, keyed(1))
    (home,) = checked(machine).values()
    other = {"w1": "w2", "w2": "w1"}[home]
    submit(machine, keyed(2), keyed(3), keyed(4, "other"))
    assert checked(machine) == {4: other}
    say(machine, home, reports=[completed(1)], granted=2)
    assert checked(machine) == {2: home}


def test_a_paused_worker_is_waited_for():
    machine = fleet("w1", "w2")
    submit(machine, keyed(1))
    (home,) = checked(machine).values()
    tell(machine, PauseWorker, home, "")
    submit(machine, keyed(2))
    assert checked(machine) == {}
    tell(machine, ResumeWorker, home)
    assert checked(machine) == {2: home}


@pytest.mark.parametrize("how", ["bye", "lost", "removed", "draining"])
def test_a_key_finds_another_worker_when_its_own_is_gone(how):
    machine = fleet("w1", "w2", grace_ns=0, reconnect_ns=SECOND_NS)
    submit(machine, keyed(1))
    (home,) = checked(machine).values()
    other = {"w1": "w2", "w2": "w1"}[home]
    say(machine, home, reports=[completed(1)])
    submit(machine, keyed(2))
    if how == "bye":
        detach(machine, home, bye=True)
    elif how == "lost":
        detach(machine, home)
        assert checked(machine) == {}, "it may come back"
        tick(machine, START_NS + 2 * SECOND_NS)
    elif how == "removed":
        tell(machine, RemoveWorker, home, "")
    else:
        tell(machine, DrainWorker, home)
    assert checked(machine) == {2: other}
    if how != "removed":
        attach(machine, home, offers=STATEFUL, granted=100, boot="boot-2")
    submit(machine, keyed(3))
    assert checked(machine) == {3: other}, "and stays there when the first one comes back"


def test_each_tenant_has_its_own_keys():
    machine = fleet("w1")
    attach(machine, "walled", offers=STATEFUL, granted=100, tenants=["zoe"])
    detach(machine, "w1", bye=True)
    submit(machine, keyed(1), tenant="zoe")
    assert checked(machine) == {1: "walled"}
    attach(machine, "w1", offers=STATEFUL, granted=100, session=2)
    submit(machine, keyed(2))
    assert checked(machine) == {2: "w1"}, "another's key of this name is where this task may not go"
    assert machine.state.homes == {("zoe", "echo", "k"): "walled", ("default", "echo", "k"): "w1"}


def test_a_home_that_can_never_do_a_task_is_none_for_it():
    machine = fleet("w1")
    submit(machine, keyed(1))
    assert checked(machine) == {1: "w1"}
    attach(machine, "w2", offers=STATEFUL, granted=100, tags=["gpu"])
    submit(machine, asking(2, key="k", tags=("gpu",)), asking(3, key="k2", worker="w1"), keyed(4, "k2"))
    assert checked(machine) == {2: "w2", 3: "w1", 4: "w1"}


def test_a_worker_that_comes_back_without_the_capability_is_no_home():
    machine = fleet("w1", "w2")
    submit(machine, keyed(1))
    (home,) = checked(machine).values()
    other = {"w1": "w2", "w2": "w1"}[home]
    attach(machine, home, capabilities=["something-else"], granted=100, session=2)
    submit(machine, keyed(2))
    assert checked(machine) == {2: other}


def test_homes_are_bounded_and_the_oldest_goes():
    machine = fleet("w1", "w2", homes_max=3)
    for number in range(10):
        submit(machine, keyed(number, f"k{number}"))
        assert len(checked(machine)) == 1
    assert [key for _, _, key in machine.state.homes] == ["k7", "k8", "k9"]


def test_homes_outlive_a_snapshot_and_a_change_of_leader():
    machine = fleet("w1", "w2", "w3")
    submit(machine, *(keyed(number, f"k{number}") for number in range(6)))
    homes = checked(machine)
    state = decode_state(encode_state(machine.state))
    assert (state.homes, state.homes_of) == (machine.state.homes, machine.state.homes_of)
    again = a_machine(state, epoch=2)
    submit(again, *(keyed(10 + number, f"k{number}") for number in range(6)))
    assert checked(again) == {}
    for worker in ("w3", "w2", "w1"):
        held = [ref(number) for number, name in homes.items() if name == worker]
        attach(again, worker, offers=STATEFUL, granted=100, session=2, held=held)
    assert {number - 10: worker for number, worker in checked(again).items()} == homes
