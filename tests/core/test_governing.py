"""What operators do with workers, and what these hear of it."""

import pytest

from merit.core.codec import decode_state, encode_state
from merit.core.invariants import check, check_allocated
from merit.model.commands import (
    DrainWorker,
    HearWords,
    PauseWorker,
    RegisterWorker,
    RemoveWorker,
    ResumeWorker,
    SetAllocation,
    TellWorker,
)
from merit.model.effects import CloseWorker, SendDrain, SendWords
from merit.model.fleet import Allocation, Weight
from merit.model.limits import WORDS_MAX
from merit.model.tasks import AttemptState, TaskState
from merit.model.workers import Registration, WorkerState
from merit.testing.builders import (
    a_machine,
    a_spec,
    an_id,
    an_offer,
    attach,
    bind,
    completed,
    detach,
    ref,
    say,
    submit,
    tell,
)


def effects(decision, kind):
    return [effect for effect in decision.effects if isinstance(effect, kind)]


def checked(machine):
    found = bind(machine)
    check(machine, machine.state)
    check_allocated(machine)
    return found


def of(machine, worker="w1"):
    return machine.state.workers[worker].state


@pytest.fixture
def machine():
    """With two workers, of which the first has task 1."""
    made = a_machine()
    attach(made)
    submit(made, a_spec(1))
    assert checked(made) == {1: "w1"}
    attach(made, "w2")
    return made


def test_a_paused_worker_finishes_what_it_has_and_gets_nothing(machine):
    tell(machine, PauseWorker, "w1", "for a look")
    submit(machine, *(a_spec(number) for number in range(2, 6)))
    assert set(checked(machine).values()) == {"w2"}
    say(machine, reports=[completed(1)], granted=100)
    assert machine.state.tasks[an_id(1)].state is TaskState.COMPLETED
    assert checked(machine) == {}
    tell(machine, ResumeWorker, "w1")
    submit(machine, *(a_spec(number) for number in range(10, 14)))
    assert set(checked(machine).values()) == {"w1"}, "it has least"


def test_a_pause_outlives_the_worker_and_the_leader(machine):
    tell(machine, PauseWorker, "w2", "for a look")
    detach(machine, "w2", bye=True)
    again = a_machine(decode_state(encode_state(machine.state)), epoch=2)
    attach(again, "w2", boot="boot-2")
    assert again.state.workers["w2"].state is WorkerState.PAUSED
    submit(again, a_spec(2))
    assert checked(again) == {}
    tell(again, ResumeWorker, "w2")
    assert checked(again) == {2: "w2"}


def test_one_that_is_away_can_be_paused_and_resumed(machine):
    detach(machine, "w2", bye=True)
    tell(machine, PauseWorker, "w2", "")
    tell(machine, ResumeWorker, "w2")
    tell(machine, PauseWorker, "w2", "")
    attach(machine, "w2", boot="boot-2")
    assert machine.state.workers["w2"].state is WorkerState.PAUSED


def test_a_drained_worker_is_told_until_it_leaves(machine):
    assert effects(tell(machine, DrainWorker, "w1"), SendDrain) == [SendDrain("w1")]
    submit(machine, a_spec(2))
    assert checked(machine) == {2: "w2"}
    detach(machine)
    assert effects(attach(machine, session=2, held=[ref(1)]), SendDrain) == [SendDrain("w1")], (
        "it may not have heard it"
    )
    attach(machine, session=3, offers=[an_offer(version="1.1.0")], held=[ref(1)])
    assert of(machine) is WorkerState.DRAINING, "whatever it offers by now"
    detach(machine, bye=True)
    attach(machine, boot="boot-2")
    assert of(machine) is WorkerState.ACTIVE, "it has left, and comes anew"


def test_a_removed_worker_is_out_at_once_and_may_not_come_back(machine):
    decision = tell(machine, RemoveWorker, "w1", "it cheats")
    (closed,) = effects(decision, CloseWorker)
    assert (closed.worker, closed.permanent, closed.reason) == ("w1", True, "was removed: it cheats")
    assert machine.state.tasks[an_id(1)].attempts[0].state is AttemptState.LOST
    assert "w1" not in machine.state.workers
    for boot in ("boot-1", "boot-2"):
        decision = attach(machine, boot=boot, session=7)
        (closed,) = effects(decision, CloseWorker)
        assert closed.permanent
        assert closed.reason == "worker w1 was removed: it cheats; let it join again with: merit worker resume"
        assert decision.events == []
    again = a_machine(decode_state(encode_state(machine.state)), epoch=2)
    assert effects(attach(again, boot="boot-3"), CloseWorker)
    tell(again, ResumeWorker, "w1")
    attach(again, boot="boot-3")
    assert again.state.workers["w1"].state is WorkerState.ACTIVE
    check(again, again.state)


def test_a_removed_worker_may_not_register_either():
    machine = a_machine()
    registration = Registration("calc", "agent:50051", "1.0.0", (an_offer(),), 4)
    tell(machine, RegisterWorker, "u1", registration)
    assert machine.state.profiles["u1"].registration == registration
    assert tell(machine, RegisterWorker, "u1", registration).events == [], "the same again changes nothing"
    tell(machine, RemoveWorker, "u1", "it cheats")
    (refusal,) = tell(machine, RegisterWorker, "u1", registration).refusals
    assert (refusal.code, refusal.field) == ("conflict", "worker_id")
    tell(machine, ResumeWorker, "u1")
    assert tell(machine, RegisterWorker, "u1", registration).refusals == []


@pytest.mark.parametrize(
    ("before", "command", "reason"),
    [
        ([], (PauseWorker, "w9", ""), "no worker w9 was ever here"),
        ([(PauseWorker, "w1", "x")], (PauseWorker, "w1", ""), "w1 is paused already: x"),
        ([(RemoveWorker, "w1", "x")], (PauseWorker, "w1", ""), "w1 is removed already: x"),
        ([(DrainWorker, "w1")], (PauseWorker, "w1", ""), "w1 is draining"),
        ([], (ResumeWorker, "w1"), "w1 is neither paused nor removed"),
        (
            [(PauseWorker, "w1", ""), (DrainWorker, "w1")],
            (ResumeWorker, "w1"),
            "w1 is DRAINING; wait until it has left",
        ),
        ([(DrainWorker, "w1")], (DrainWorker, "w1"), "w1 is draining already"),
        ([(RemoveWorker, "w1", "x")], (DrainWorker, "w1"), "w1 is not here"),
        ([(RemoveWorker, "w1", "x")], (RemoveWorker, "w1", "y"), "w1 is removed already: x"),
    ],
    ids=str,
)
def test_what_makes_no_sense_is_refused_and_changes_nothing(machine, before, command, reason):
    for kind, *fields in before:
        assert tell(machine, kind, *fields).refusals == []
    sequence = machine.state.sequence
    (refusal,) = tell(machine, *command).refusals
    assert refusal.reason.startswith(reason)
    assert machine.state.sequence == sequence


def test_words_are_told_again_until_they_are_heard(machine):
    assert effects(tell(machine, TellWorker, "w2", "RESET"), SendWords) == [SendWords("w2", ("RESET",))]
    assert effects(tell(machine, TellWorker, "w2", "RETRAIN"), SendWords) == [SendWords("w2", ("RETRAIN",))]
    detach(machine, "w2")
    tell(machine, TellWorker, "w2", "STOP")
    again = a_machine(decode_state(encode_state(machine.state)), epoch=2)
    (said,) = effects(attach(again, "w2", session=2), SendWords)
    assert said == SendWords("w2", ("RESET", "RETRAIN", "STOP"))
    say(again, "w2", heard=2)
    detach(again, "w2", bye=True)
    assert effects(attach(again, "w2", boot="boot-2"), SendWords) == [SendWords("w2", ("STOP",))]
    say(again, "w2", heard=5)
    assert again.state.profiles["w2"].words == ()
    assert effects(attach(again, "w2", boot="boot-3"), SendWords) == []


def test_words_that_are_heard_in_another_way_are_the_first_ones_or_none(machine):
    for word in ("RESET", "RETRAIN", "RESET"):
        tell(machine, TellWorker, "w2", word)
    detach(machine, "w2", bye=True)
    for never in ((), ("RETRAIN",), ("RESET", "RESET"), ("RESET", "RETRAIN", "RESET", "RESET")):
        assert tell(machine, HearWords, "w2", never).events == []
    assert tell(machine, HearWords, "nobody", ("RESET",)).events == []
    assert tell(machine, HearWords, "w2", ("RESET", "RETRAIN")).refusals == []
    assert machine.state.profiles["w2"].words == ("RESET",)


def test_words_are_bounded(machine):
    for _ in range(WORDS_MAX):
        assert tell(machine, TellWorker, "w1", "RESET").refusals == []
    (refusal,) = tell(machine, TellWorker, "w1", "RESET").refusals
    assert (refusal.code, refusal.field) == ("exhausted", "word")
    say(machine, heard=1)
    assert tell(machine, TellWorker, "w1", "RESET").refusals == []


@pytest.mark.parametrize(
    ("allocation", "field"),
    [
        (Allocation("echo", "nonsense"), "strategy"),
        (Allocation("echo", "weighted", (Weight("nonsense", 1),)), "weights"),
        (Allocation("echo", "round-robin", (Weight("load", 1),)), "weights"),
    ],
)
def test_an_allocation_that_cannot_be_is_refused(machine, allocation, field):
    (refusal,) = tell(machine, SetAllocation, allocation).refusals
    assert (refusal.code, refusal.field) == ("invalid", field)
    assert machine.state.allocations == {}


def test_weights_count(machine):
    attach(machine, "cheap", offers=[an_offer(cost_micros=1)], granted=8)
    attach(machine, "dear", offers=[an_offer(cost_micros=10**6)], granted=8)
    for worker in ("w1", "w2"):
        tell(machine, PauseWorker, worker, "")
    weights = tuple(Weight(name, 1_000 if name == "cost" else 0) for name in ("load", "preference", "cost"))
    tell(machine, SetAllocation, Allocation("echo", "weighted", weights))
    submit(machine, *(a_spec(number) for number in range(10, 18)))
    assert set(checked(machine).values()) == {"cheap"}


def test_weights_that_a_later_version_does_not_know_stop_nobody(machine):
    tell(machine, SetAllocation, Allocation("", "weighted", (Weight("load", 700),)))
    machine.state.allocations[""] = Allocation("", "weighted", (Weight("gone", 700),))
    again = a_machine(decode_state(encode_state(machine.state)), epoch=2)
    attach(again, "w2", session=2)
    submit(again, a_spec(2))
    assert checked(again) == {2: "w2"}
    again.state.allocations[""] = Allocation("", "of-a-plug-in-that-is-gone")
    later = a_machine(decode_state(encode_state(again.state)), epoch=3)
    attach(later, "w2", session=3, held=[ref(2)])
    submit(later, a_spec(3))
    assert checked(later) == {3: "w2"}
    assert later.lines.by_name["echo"].strategy_name == "least-loaded"
