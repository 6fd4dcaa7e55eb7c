"""Where a worker is in its life, as people see it."""

import pytest

from merit.core.desk import Seat
from merit.core.standing import BEATS_MISSED, Standing, standing
from merit.model.commands import PauseWorker, RemoveWorker, ResumeWorker
from merit.model.workers import Profile, Registration, Worker, WorkerState
from merit.testing.builders import START_NS, a_machine, a_spec, allocate, attach, detach, say, submit, tell
from merit.wire.v1 import fleet_pb2

BEAT_NS = 10
STALE_NS = 30
NOW_NS = 1_000


def a_worker(state=WorkerState.ACTIVE, attempts=()):
    return Worker("w", "b", "t", (), 1, (), 0, state, dict.fromkeys(attempts, 1))


def a_seat(**fields):
    return Seat(**{"attached": True, "granted": 1, "seen_ns": NOW_NS, **fields})


def of(worker, seat=None, profile=None, heard_ns=0):
    return standing(worker, profile, seat, NOW_NS, heard_ns, BEAT_NS, STALE_NS)


@pytest.mark.parametrize(
    ("state", "expected"),
    [
        (WorkerState.ACTIVE, Standing.IDLE),
        (WorkerState.DRAINING, Standing.DRAINING),
        (WorkerState.PROBATION, Standing.PROBATION),
        (WorkerState.PAUSED, Standing.PAUSED),
        (WorkerState.GONE, Standing.GONE),
    ],
)
def test_what_the_journal_says_holds_while_it_is_connected(state, expected):
    assert of(a_worker(state), a_seat()) is expected
    assert of(a_worker(state), a_seat(attached=False)) is Standing.SUSPECT
    assert of(a_worker(state), a_seat(seen_ns=0)) is Standing.SUSPECT
    assert of(a_worker(state)) is Standing.SUSPECT, "a new leader has not heard of it yet"


def test_with_attempts_it_is_busy_also_when_it_takes_no_more():
    assert of(a_worker(attempts=["t1"]), a_seat(granted=0)) is Standing.BUSY
    assert of(a_worker(attempts=["t1"]), a_seat()) is Standing.BUSY
    assert of(a_worker(WorkerState.PAUSED, ["t1"]), a_seat()) is Standing.PAUSED


def test_it_joins_until_it_has_said_that_it_takes_anything():
    assert of(a_worker(), a_seat(granted=0)) is Standing.JOINING


def test_silence_is_counted_in_beats_and_from_when_it_could_be_heard():
    suspicious_ns = BEATS_MISSED * BEAT_NS
    assert of(a_worker(), a_seat(seen_ns=NOW_NS - suspicious_ns)) is Standing.IDLE
    assert of(a_worker(), a_seat(seen_ns=NOW_NS - suspicious_ns - 1)) is Standing.SUSPECT
    assert of(a_worker(), a_seat(seen_ns=0), heard_ns=NOW_NS - suspicious_ns) is Standing.IDLE


def test_one_that_is_away_is_known_by_its_profile():
    registration = Registration("agent", "127.0.0.1:1", "1.0.0", (), 4)
    assert of(None) is Standing.GONE
    assert of(None, profile=Profile("w", 1)) is Standing.GONE
    assert of(None, profile=Profile("w", NOW_NS - STALE_NS, registration=registration)) is Standing.JOINING
    assert of(None, profile=Profile("w", NOW_NS - STALE_NS - 1, registration=registration)) is Standing.GONE
    dead, heard_ns = Profile("w", 1, registration=registration), NOW_NS - STALE_NS
    assert of(None, profile=dead, heard_ns=heard_ns) is Standing.JOINING, "it may come to a new leader"
    assert of(None, profile=Profile("w", 1, completed=1, registration=registration)) is Standing.GONE
    assert of(None, profile=Profile("w", 1, paused=True)) is Standing.GONE


def test_a_removed_one_is_deactivated_whatever_else_is_known_of_it():
    assert of(None, profile=Profile("w", 1, removed=True)) is Standing.DEACTIVATED
    assert of(a_worker(), a_seat(), Profile("w", 1, removed=True)) is Standing.DEACTIVATED


def test_a_whole_life():
    machine = a_machine()

    def now():
        state = machine.state
        worker, profile, seat = state.workers.get("w1"), state.profiles.get("w1"), machine.seats.get("w1")
        limits = machine.limits
        return standing(worker, profile, seat, machine.now_ns, START_NS, limits.beat_ns, limits.stale_ns).name

    lived = []
    attach(machine, granted=0)
    lived.append(now())
    say(machine, granted=2)
    lived.append(now())
    submit(machine, a_spec(1))
    allocate(machine)
    lived.append(now())
    detach(machine)
    lived.append(now())
    attach(machine, session=2)
    tell(machine, PauseWorker, "w1", "why not")
    lived.append(now())
    tell(machine, ResumeWorker, "w1")
    say(machine, draining=True)
    lived.append(now())
    detach(machine, bye=True)
    lived.append(now())
    tell(machine, RemoveWorker, "w1", "enough")
    lived.append(now())
    assert lived == ["JOINING", "IDLE", "BUSY", "SUSPECT", "PAUSED", "DRAINING", "GONE", "DEACTIVATED"]


def test_the_numbers_are_those_of_the_wire():
    wire = {name.removeprefix("STANDING_"): number for name, number in fleet_pb2.Standing.items() if number}
    assert wire == {item.name: int(item) for item in Standing}
