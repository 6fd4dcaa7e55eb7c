"""A task that needs much of a worker gets it in the end, however many small ones there are."""

import pytest

from merit.core.codec import decode_state, encode_state
from merit.core.invariants import check, check_allocated
from merit.model.commands import AttachWorker, DrainWorker, PauseQueue, PauseWorker, StartRollout
from merit.model.frames import Hello
from merit.model.limits import SECOND_NS, Limits
from merit.model.tasks import Demand, Terms
from merit.model.workers import Amount, Offer
from merit.testing.builders import (
    TENANT,
    a_machine,
    a_spec,
    allocate,
    an_id,
    attach,
    cancel,
    completed,
    detach,
    say,
    submit,
    tell,
)

PATIENCE_NS = Limits().patience_ns
BIG = 900
CPU = 1_000


def come(machine, worker="w1"):
    offers = (Offer("echo", resources=(Amount("cpu", CPU),)),)
    hello = Hello(worker, "boot-1", 1, offers, 8, capacity=(Amount("cpu", 4 * CPU),))
    machine.handle(AttachWorker(TENANT, worker, hello, 1_000), machine.now_ns)


def big(number=BIG):
    return a_spec(
        number, terms=Terms(demand=Demand(resources=(Amount("cpu", 4 * CPU),))), timeout_ns=10_000 * SECOND_NS
    )


class Flow:
    """Small tasks without end: whenever one ends the next is there."""

    def __init__(self, machine):
        self.machine, self.number, self.running = machine, 0, []
        self.more(6)

    def more(self, count):
        first = self.number + 1
        self.number += count
        submit(
            self.machine, *(a_spec(number, timeout_ns=10_000 * SECOND_NS) for number in range(first, self.number + 1))
        )
        return self.allocate()

    def allocate(self):
        assigned = [effect.assignment.task for effect in allocate(self.machine)]
        check(self.machine, self.machine.state)
        check_allocated(self.machine)
        self.running += [task for task in assigned if task != an_id(BIG)]
        return an_id(BIG) in assigned

    def turn(self):
        """Some time passes, and the small one that began first ends; whether the big one has begun."""
        machine = self.machine
        machine.now_ns += SECOND_NS
        task = self.running.pop(0)
        worker = machine.state.tasks[task].attempts[0].worker
        say(machine, worker, reports=[completed(_number(task))])
        return self.allocate() | self.more(1)


def _number(task):
    return next(number for number in range(1, 2_000) if an_id(number) == task)


@pytest.fixture
def machine():
    machine = a_machine()
    come(machine)
    return machine


def test_it_waits_for_its_turn_first_and_then_a_worker_is_kept_free_for_it(machine):
    flow = Flow(machine)
    submit(machine, big())
    turns = next(count for count in range(1, 60) if flow.turn())
    patience = PATIENCE_NS // SECOND_NS
    assert patience <= turns <= patience + 8
    assert machine.state.tasks[an_id(BIG)].attempts[0].worker == "w1"
    assert not machine.state.reserved
    assert len(machine.state.workers["w1"].attempts) == 1, "all of it is needed"
    say(machine, reports=[completed(BIG)])
    assert not flow.allocate()
    assert len(machine.state.workers["w1"].attempts) == 4, "and then the small ones go on"


def reserved(machine):
    flow = Flow(machine)
    submit(machine, big())
    while not machine.state.reserved:
        flow.turn()
    assert machine.state.reserved == {an_id(BIG): "w1"}
    return flow


def test_nobody_else_is_given_anything_of_it_meanwhile_and_it_survives_a_snapshot(machine):
    reserved(machine)
    attempts = dict(machine.state.workers["w1"].attempts)
    submit(machine, a_spec(1_000))
    assert allocate(machine) == []
    assert machine.state.workers["w1"].attempts == attempts
    assert decode_state(encode_state(machine.state)).reserved == machine.state.reserved


def test_another_worker_that_has_room_takes_it_and_the_first_goes_on(machine):
    flow = reserved(machine)
    come(machine, "w2")
    assert flow.allocate() or flow.allocate()
    assert machine.state.tasks[an_id(BIG)].attempts[0].worker == "w2"
    assert not machine.state.reserved
    flow.allocate()
    assert len(machine.state.workers["w1"].attempts) == 4


@pytest.mark.parametrize("how", ["cancel", "detach", "pause", "drain", "bye", "queue"])
def test_it_is_let_go_when_there_is_no_use_in_it(machine, how):
    flow = reserved(machine)
    if how == "cancel":
        cancel(machine, BIG)
        flow.allocate()
        assert len(machine.state.workers["w1"].attempts) == 4
    elif how in {"detach", "bye"}:
        detach(machine, bye=how == "bye")
    elif how == "pause":
        tell(machine, PauseWorker, "w1", "because")
    elif how == "queue":
        tell(machine, PauseQueue, "echo", "because")
    else:
        tell(machine, DrainWorker, "w1")
    assert not machine.state.reserved
    check(machine, machine.state)
    allocate(machine)
    check(machine, machine.state)


def test_workers_whose_attempts_need_nothing_are_never_kept_free():
    machine = a_machine()
    attach(machine, granted=1)
    submit(machine, a_spec(1), a_spec(2, timeout_ns=10_000 * SECOND_NS))
    allocate(machine)
    submit(machine, a_spec(3), now_ns=machine.now_ns + 2 * PATIENCE_NS)
    allocate(machine)
    assert not machine.state.reserved


def test_a_worker_is_let_go_when_the_task_has_to_go_elsewhere():
    """A version that is introduced takes the task, and the worker that was kept free for it does not have that."""
    machine = a_machine()
    come(machine)
    reserved(machine)
    for name in "new", "newer":
        offers = (Offer("echo", "2.0.0", resources=(Amount("cpu", CPU),)),)
        hello = Hello(name, "boot-1", 1, offers, 8, capacity=(Amount("cpu", 4 * CPU),))
        machine.handle(AttachWorker(TENANT, name, hello, 0), machine.now_ns)
    tell(machine, StartRollout, "echo", "2.0.0", 1_000)
    allocate(machine)
    assert not machine.state.reserved
    check(machine, machine.state)
    check_allocated(machine)
