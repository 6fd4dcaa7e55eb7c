"""What is kept of a worker while it comes and goes."""

from merit.core.codec import decode_state, encode_state
from merit.core.invariants import check
from merit.model.commands import PauseWorker, RegisterWorker, RemoveWorker
from merit.model.limits import RECORDS_KEPT, SECOND_NS, Limits
from merit.model.workers import Registration
from merit.testing.builders import (
    START_NS,
    a_machine,
    a_spec,
    an_offer,
    attach,
    bind,
    completed,
    detach,
    failed,
    say,
    submit,
    tell,
)


def test_it_survives_the_worker_a_snapshot_and_the_leader():
    machine = a_machine()
    attach(machine, granted=100)
    submit(machine, *(a_spec(number, attempts_max=1) for number in range(3)))
    bind(machine)
    machine.now_ns += 9 * SECOND_NS
    say(machine, reports=[completed(0, wall_ns=2 * SECOND_NS), completed(1, wall_ns=4 * SECOND_NS), failed(2)])
    detach(machine, bye=True)
    again = a_machine(decode_state(encode_state(machine.state)), epoch=2)
    profile = again.state.profiles["w1"]
    assert (profile.first_ns, profile.completed, profile.failed) == (START_NS, 2, 1)
    record = profile.records["echo"]
    assert (record.attempts, record.took_ns, record.completed, record.failed) == (2, 3 * SECOND_NS, 2, 1)
    attach(again, boot="boot-2", granted=100)
    assert again.state.profiles["w1"] is profile
    check(again, again.state)


def test_its_speed_is_that_of_lately_and_never_more_than_the_time_that_passed():
    machine = a_machine()
    attach(machine, granted=1_000)
    for number in range(100):
        submit(machine, a_spec(number))
        bind(machine)
        machine.now_ns += SECOND_NS if number < 50 else 2 * SECOND_NS
        say(machine, reports=[completed(number, wall_ns=10**15)])
    (speed,) = machine.state.profiles["w1"].records.values()
    assert speed.attempts == 8
    assert 1.9 * SECOND_NS < speed.took_ns <= 2 * SECOND_NS


def test_beyond_their_bound_the_oldest_that_are_away_are_forgotten():
    machine = a_machine(limits=Limits(profiles_max=4))
    attach(machine, "stays")
    attach(machine, "paused")
    detach(machine, "paused", bye=True)
    tell(machine, PauseWorker, "paused", "")
    tell(machine, RegisterWorker, "registered", Registration("r", "r:1", "1.0.0", (an_offer(),), 1))
    for number in range(5):
        attach(machine, f"w{number}")
        detach(machine, f"w{number}", bye=True)
    assert list(machine.state.profiles) == ["stays", "paused", "registered", "w4"]
    for number in range(4):
        attach(machine, f"x{number}")
        tell(machine, RemoveWorker, f"x{number}", "")
    assert len(machine.state.profiles) == 4
    assert "x3" in machine.state.profiles
    assert "stays" in machine.state.profiles, "it is here"
    check(machine, machine.state)


def test_one_that_registers_while_all_others_are_kept_is_kept_too():
    machine = a_machine(limits=Limits(profiles_max=2))
    for name in ("r1", "r2", "r3"):
        registration = Registration(name, "host:1", "1.0.0", (an_offer(),), 1)
        tell(machine, RegisterWorker, name, registration)
        assert machine.state.profiles[name].registration == registration
    assert list(machine.state.profiles) == ["r2", "r3"]


def test_many_that_stay_do_not_keep_those_that_come_and_go_from_being_forgotten():
    machine = a_machine(limits=Limits(profiles_max=100))
    for number in range(70):
        attach(machine, f"stays{number}")
    for number in range(400):
        attach(machine, f"pod{number}")
        detach(machine, f"pod{number}", bye=True)
    assert len(machine.state.profiles) <= 104
    assert all(f"stays{number}" in machine.state.profiles for number in range(70))


def test_a_smaller_bound_counts_when_the_next_leader_begins():
    machine = a_machine()
    for number in range(20):
        attach(machine, f"w{number}")
        detach(machine, f"w{number}", bye=True)
    again = a_machine(machine.state, Limits(profiles_max=5), epoch=2)
    assert list(again.state.profiles) == [f"w{number}" for number in range(15, 20)]


def test_who_is_here_when_profiles_begin_to_be_kept_has_one():
    """As after an upgrade: the journal of before kept none, and the worker goes on under the same boot."""
    machine = a_machine(limits=Limits(profiles_max=0))
    attach(machine)
    assert not machine.state.profiles
    later = a_machine(machine.state, now_ns=START_NS + SECOND_NS, epoch=2)
    check(later, later.state)
    assert tell(later, PauseWorker, "w1", "because").refusals == []
    assert later.state.profiles["w1"].first_ns == START_NS


def test_a_record_outlives_what_is_offered():
    """Nobody sheds a bad record by not offering for a while what he did badly."""
    machine = a_machine()
    attach(machine, capabilities=("echo", "add"))
    submit(machine, a_spec(1), a_spec(2, "add"))
    bind(machine)
    say(machine, reports=[completed(1, wall_ns=5), completed(2, wall_ns=7)])
    attach(machine, capabilities=("add", "mul"), boot="boot-2")
    assert machine.state.profiles["w1"].records.keys() == {"echo", "add"}


def test_beyond_their_bound_the_oldest_records_of_what_is_not_offered_go():
    machine = a_machine()
    for number in range(RECORDS_KEPT + 3):
        attach(machine, capabilities=(f"c{number}", "always"), boot=f"boot-{number}", granted=2)
        submit(machine, a_spec(number, f"c{number}"), a_spec(1_000 + number, "always"))
        bind(machine)
        say(machine, reports=[completed(number), completed(1_000 + number)])
    attach(machine, capabilities=("always",), boot="the last")
    kept = machine.state.profiles["w1"].records.keys()
    assert kept == {"always", *(f"c{number}" for number in range(3, RECORDS_KEPT + 3))}
