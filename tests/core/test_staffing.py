"""Workers that come, come back, and go."""

from merit.core.codec import state_digest
from merit.core.invariants import check
from merit.model.commands import DetachWorker, TakeFrame
from merit.model.effects import CloseWorker, SendAssignment, SendCancel
from merit.model.limits import SECOND_NS, Limits
from merit.model.tasks import AttemptState, TaskState
from merit.model.workers import WorkerState
from merit.testing.builders import (
    START_NS,
    TENANT,
    a_machine,
    a_spec,
    allocate,
    an_id,
    attach,
    completed,
    detach,
    ref,
    say,
    submit,
    tick,
)


def busy(count=3, **limits):
    """A machine with a worker that holds tasks 1 to `count`."""
    machine = a_machine(limits=Limits(**limits))
    attach(machine, granted=count)
    submit(machine, *(a_spec(number) for number in range(1, count + 1)))
    allocate(machine)
    return machine


def test_resuming_repeats_what_is_not_held_and_cancels_what_is_not_current():
    machine = busy()
    detach(machine)
    decision = attach(machine, session=2, held=[ref(1), ref(2, 7), ref(9)])
    sent = [effect.assignment.task for effect in decision.effects if isinstance(effect, SendAssignment)]
    assert sent == [an_id(2), an_id(3)]
    canceled = [effect.attempt for effect in decision.effects if isinstance(effect, SendCancel)]
    assert canceled == [ref(2, 7), ref(9)]
    assert decision.events == []
    assert machine.seats["w1"].used == 2
    check(machine, machine.state)


def test_a_draining_worker_that_comes_back_keeps_what_it_has():
    machine = busy()
    say(machine, draining=True)
    detach(machine)
    decision = attach(machine, session=2, held=[ref(1), ref(2), ref(3)])
    assert decision.events == []
    assert machine.state.workers["w1"].state is WorkerState.DRAINING
    submit(machine, a_spec(4))
    assert allocate(machine) == []
    say(machine, reports=[completed(1)])
    assert machine.state.tasks[an_id(1)].state is TaskState.COMPLETED
    check(machine, machine.state)


def test_a_worker_that_was_started_anew_has_lost_what_it_had():
    machine = busy()
    decision = attach(machine, boot="boot-2")
    assert [type(event).__name__ for event in decision.events][-1] == "WorkerJoined"
    attempts = [task.attempts[0].state for task in machine.state.tasks.values()]
    assert attempts == [AttemptState.LOST] * 3
    check(machine, machine.state)


def test_other_capabilities_under_the_same_boot_lose_what_it_had():
    machine = busy()
    attach(machine, session=2, capabilities=("other",), held=[ref(1)])
    assert machine.state.tasks[an_id(1)].attempts[0].state is AttemptState.LOST
    check(machine, machine.state)


def test_an_older_session_never_takes_over():
    machine = busy()
    attach(machine, session=5, held=[ref(1), ref(2), ref(3)])
    for _ in range(2):
        digest = state_digest(machine.state)
        for session in (4, 5):
            decision = attach(machine, session=session)
            assert [type(effect) for effect in decision.effects] == [CloseWorker]
        assert machine.seats["w1"].session == 5
        assert state_digest(machine.state) == digest
        detach(machine)


def test_frames_of_an_old_session_or_boot_change_nothing():
    machine = busy()
    attach(machine, session=2, held=[ref(1), ref(2), ref(3)])
    digest = state_digest(machine.state)
    for boot, session in (("boot-1", 1), ("boot-1", 3), ("boot-0", 2)):
        frame = TakeFrame(TENANT, "w1", "w1", boot, session, [completed(1)], [], [], [], 99, True)
        assert machine.handle(frame, START_NS).events == []
        assert machine.handle(DetachWorker(TENANT, "w1", "w1", boot, session, True), START_NS).events == []
    assert state_digest(machine.state) == digest
    assert machine.seats["w1"].granted == 8


def test_a_broken_connection_is_not_the_end_but_a_long_one_is():
    machine = busy(reconnect_ns=3 * SECOND_NS, grace_ns=0)
    detach(machine)
    tick(machine, START_NS + 2 * SECOND_NS)
    assert "w1" in machine.state.workers
    tick(machine, START_NS + 4 * SECOND_NS)
    assert machine.state.workers == {}
    assert {task.attempts[0].state for task in machine.state.tasks.values()} == {AttemptState.LOST}
    check(machine, machine.state)


def test_silence_loses_a_worker_and_a_word_keeps_it():
    machine = busy(stale_ns=30 * SECOND_NS, grace_ns=0)
    say(machine, now_ns=START_NS + 20 * SECOND_NS)
    tick(machine, START_NS + 31 * SECOND_NS)
    assert "w1" in machine.state.workers
    check(machine, machine.state)
    decision = tick(machine, START_NS + 51 * SECOND_NS)
    assert machine.state.workers == {}
    assert [type(effect) for effect in decision.effects] == [CloseWorker]


def test_a_goodbye_loses_what_is_held_at_once():
    machine = busy()
    detach(machine, bye=True)
    assert machine.state.workers == {}
    assert machine.seats == {}
    check(machine, machine.state)


def test_more_workers_than_the_bound_are_turned_away():
    machine = a_machine(limits=Limits(workers_max=2))
    for name in ("w1", "w2"):
        assert attach(machine, name).effects == []
    decision = attach(machine, "w3")
    assert [type(effect) for effect in decision.effects] == [CloseWorker]
    assert "w3" not in machine.seats
    assert attach(machine, "w1", session=2).effects == []


def test_lost_workers_by_the_thousand_are_dealt_with_in_portions():
    machine = a_machine(limits=Limits(grace_ns=0))
    count, held = 100, 100
    for number in range(count):
        attach(machine, f"w{number}", granted=held)
    submit(machine, *(a_spec(number) for number in range(count * held)))
    allocate(machine)
    now_ns, seen = START_NS + 31 * SECOND_NS, []
    while machine.state.workers:
        due_ns = machine.next_due_ns()
        assert due_ns is not None
        assert due_ns <= now_ns, "what is left stays due"
        seen.append(len(tick(machine, now_ns).events))
    assert len(seen) > 2
    assert max(seen) <= 8_192 + 2 * held + 1
    check(machine, machine.state)
