"""A new version of a capability: its share, what becomes of it, and that nothing waits for a version that nobody has."""

from collections import Counter

import pytest

from merit.core.codec import decode_state, encode_state
from merit.core.invariants import check, check_allocated
from merit.model.commands import EndRollout, PauseWorker, StartRollout
from merit.model.fleet import RolloutState
from merit.model.limits import SECOND_NS
from merit.testing.builders import (
    START_NS,
    a_machine,
    a_spec,
    an_offer,
    asking,
    attach,
    bind,
    completed,
    detach,
    failed,
    say,
    submit,
    tell,
)

OLD, NEW = "1.0.0", "2.0.0"
MANY = 2_000


def come(machine, worker, version, granted=MANY, **fields):
    attach(machine, worker, offers=[an_offer(version=version)], granted=granted, concurrency=100, **fields)


def start(machine, share_permille, version=NEW):
    return tell(machine, StartRollout, "echo", version, share_permille)


def share_again(machine, share_permille, version=NEW):
    return tell(machine, StartRollout, "echo", version, share_permille, True)


def end(machine, promote):
    return tell(machine, EndRollout, "echo", promote)


def checked(machine):
    found = bind(machine)
    check(machine, machine.state)
    check_allocated(machine)
    return found


@pytest.fixture
def machine():
    made = a_machine()
    come(made, "old", OLD)
    come(made, "new", NEW)
    return made


@pytest.mark.parametrize("share_permille", [0, 50, 300, 1_000])
def test_the_version_gets_its_share(machine, share_permille):
    start(machine, share_permille)
    submit(machine, *(a_spec(number) for number in range(MANY)))
    found = Counter(checked(machine).values())
    expected = MANY * share_permille / 1_000
    deviation = (MANY * share_permille / 1_000 * (1 - share_permille / 1_000)) ** 0.5
    assert abs(found["new"] - expected) <= 5 * deviation
    assert sum(found.values()) == MANY


def test_who_says_which_version_it_wants_gets_that(machine):
    start(machine, 1_000)
    submit(machine, asking(1, versions="<2"), asking(2, versions=">=1"), asking(3, worker="old"), a_spec(4))
    found = checked(machine)
    assert (found[1], found[3], found[4]) == ("old", "old", "new")
    assert 2 in found


@pytest.mark.parametrize("promote", [True, False])
def test_another_share_never_begins_what_has_ended_again(machine, promote):
    (refusal,) = share_again(machine, 100).refusals
    assert (refusal.code, refusal.field) == ("conflict", "version")
    start(machine, 300)
    assert not share_again(machine, 500).refusals
    assert machine.state.rollouts["echo"].share_permille == 500
    (refusal,) = share_again(machine, 600, "3.0.0").refusals
    assert (refusal.code, refusal.field) == ("conflict", "version")
    end(machine, promote)
    before = machine.state.rollouts["echo"]
    (refusal,) = share_again(machine, 700).refusals
    assert (refusal.code, refusal.field) == ("conflict", "version")
    assert before.state.name in refusal.reason
    assert machine.state.rollouts["echo"] == before


def test_what_waits_is_dealt_anew_when_it_starts_and_when_the_share_changes():
    machine = a_machine()
    come(machine, "old", OLD, granted=0)
    come(machine, "new", NEW, granted=0)
    submit(machine, *(a_spec(number) for number in range(400)))
    assert checked(machine) == {}
    start(machine, 1_000)
    assert checked(machine) == {}
    start(machine, 250)
    say(machine, "old", granted=MANY)
    assert 250 <= len(checked(machine)) <= 350, (
        "the new one has no room, and what is not its share does not wait for it"
    )
    say(machine, "new", granted=MANY)
    assert set(checked(machine).values()) == {"new"}
    assert machine.backlog.size == 0


@pytest.mark.parametrize("share_permille", [0, 400, 1_000])
@pytest.mark.parametrize("worker", ["old", "new"])
def test_nothing_waits_for_a_version_that_nobody_has(share_permille, worker):
    machine = a_machine()
    come(machine, worker, {"old": OLD, "new": NEW}[worker])
    start(machine, share_permille)
    submit(machine, *(a_spec(number) for number in range(100)))
    assert len(checked(machine)) == 100


@pytest.mark.parametrize("gone", ["old", "new"])
def test_what_waits_goes_to_the_others_when_one_side_has_left_or_is_paused(machine, gone):
    start(machine, 500)
    other = {"old": "new", "new": "old"}[gone]
    detach(machine, other, bye=True)
    detach(machine, gone, bye=True)
    submit(machine, *(a_spec(number) for number in range(60)))
    assert checked(machine) == {}
    come(machine, other, {"old": OLD, "new": NEW}[other], granted=30)
    assert len(checked(machine)) == 30
    come(machine, gone, {"old": OLD, "new": NEW}[gone])
    tell(machine, PauseWorker, other, "")
    assert set(checked(machine).values()) == {gone}
    assert machine.backlog.size == 0


def test_promoted_and_taken_back(machine):
    start(machine, 100)
    end(machine, promote=True)
    submit(machine, *(a_spec(number) for number in range(50)))
    assert set(checked(machine).values()) == {"new"}
    end(machine, promote=False)
    submit(machine, *(a_spec(number) for number in range(50, 100)))
    assert set(checked(machine).values()) == {"old"}
    end(machine, promote=True)
    come(machine, "newer", "2.1.0")
    submit(machine, *(a_spec(number) for number in range(100, 250)))
    assert set(checked(machine).values()) == {"new", "newer"}, "later ones too"


def test_what_waits_when_it_is_promoted_waits_for_the_version(machine):
    for worker in ("old", "new"):
        detach(machine, worker, bye=True)
    come(machine, "old", OLD, granted=0)
    start(machine, 0)
    submit(machine, a_spec(1), asking(2, tags=()))
    assert checked(machine) == {}
    end(machine, promote=True)
    say(machine, "old", granted=MANY)
    assert checked(machine) == {}
    come(machine, "new", NEW, session=2)
    assert checked(machine) == {1: "new", 2: "new"}


def test_what_came_of_both_sides_is_counted(machine):
    start(machine, 500)
    submit(machine, *(a_spec(number, attempts_max=1) for number in range(40)))
    found = checked(machine)
    machine.now_ns += 10 * SECOND_NS
    for worker in ("old", "new"):
        numbers = [number for number, name in found.items() if name == worker]
        done = [completed(number, wall_ns=SECOND_NS) for number in numbers[2:]]
        say(machine, worker, reports=[failed(numbers[0]), failed(numbers[1]), *done])
    rollout = machine.state.rollouts["echo"]
    count = sum(worker == "new" for worker in found.values())
    for tally, there in ((rollout.canary, count), (rollout.stable, 40 - count)):
        assert (tally.completed, tally.failed, tally.took_ns) == (there - 2, 2, (there - 2) * SECOND_NS)
    assert rollout.since_ns == START_NS
    start(machine, 600)
    assert machine.state.rollouts["echo"].canary.failed == 2, "another share is not another beginning"
    end(machine, promote=False)
    start(machine, 600)
    assert machine.state.rollouts["echo"].canary.failed == 0


def test_what_cannot_be_asked_is_refused(machine):
    (refusal,) = end(machine, promote=True).refusals
    assert (refusal.code, refusal.field) == ("not_found", "capability")
    assert start(machine, 100).refusals == []
    assert start(machine, 100).events == [], "the same again"
    (refusal,) = start(machine, 100, "3.0.0").refusals
    assert refusal.reason == "version 2.0.0 is being introduced; promote or abort that first"
    end(machine, promote=True)
    (refusal,) = end(machine, promote=True).refusals
    assert refusal.code == "conflict"
    assert start(machine, 100, "3.0.0").refusals == []
    assert machine.state.rollouts["echo"].state is RolloutState.RUNNING


def test_another_leader_goes_on_with_it(machine):
    start(machine, 1_000)
    submit(machine, a_spec(1))
    again = a_machine(decode_state(encode_state(machine.state)), epoch=2)
    come(again, "old", OLD, session=2)
    come(again, "new", NEW, session=2)
    assert checked(again) == {1: "new"}


def given_to(machine, first, count=40):
    """Who gets so many tasks that do not care."""
    submit(machine, *(a_spec(number) for number in range(first, first + count)))
    return set(checked(machine).values())


def test_what_was_promoted_or_aborted_stays_so_when_the_next_version_comes(machine):
    come(machine, "newer", "3.0.0")
    come(machine, "newest", "4.0.0")
    start(machine, 500)
    end(machine, True)
    assert given_to(machine, 0) == {"new", "newer", "newest"}
    start(machine, 500, "3.0.0")
    assert given_to(machine, 100) == {"new", "newer", "newest"}, "the old one does not come back"
    end(machine, False)
    start(machine, 500, "4.0.0")
    assert given_to(machine, 200) == {"new", "newest"}, "nor does the bad one"
    assert decode_state(encode_state(machine.state)).rollouts == machine.state.rollouts
    end(machine, True)
    assert given_to(machine, 300) == {"newest"}
    start(machine, 500, "3.0.0")
    assert given_to(machine, 400) == {"newer", "newest"}, "it may be tried again"


@pytest.mark.parametrize("promote", [True, False])
def test_a_release_candidate_is_another_version_than_the_release(promote):
    machine = a_machine()
    come(machine, "rc", "2.0.0-rc.1")
    come(machine, "new", NEW)
    start(machine, 300)
    assert given_to(machine, 0, 100) == {"rc", "new"}
    end(machine, promote)
    assert given_to(machine, 100) == ({"new"} if promote else {"rc"})


def test_many_aborted_builds_bar_nobody_else():
    machine = a_machine()
    come(machine, "old", OLD)
    for build in range(12):
        start(machine, 500, f"2.0.0-2025010112{build:04}.abcdef1{build}")
        end(machine, False)
    assert given_to(machine, 0) == {"old"}


def test_a_version_with_a_build_can_be_promoted():
    machine = a_machine()
    come(machine, "built", "2.0.0+sha.abc")
    come(machine, "old", OLD)
    start(machine, 500, "2.0.0+sha.abc")
    end(machine, True)
    assert given_to(machine, 0) == {"built"}
    come(machine, "later", "3.0.0")
    start(machine, 500, "3.0.0")
    assert given_to(machine, 100) == {"built", "later"}


def test_one_that_was_promoted_may_be_given_less_again(machine):
    start(machine, 500)
    end(machine, True)
    start(machine, 300)
    assert given_to(machine, 0, 100) == {"old", "new"}
    end(machine, False)
    assert given_to(machine, 200) == {"old"}


def test_nor_after_another_one_in_between(machine):
    come(machine, "newer", "3.0.0")
    for version, promote in (NEW, True), ("3.0.0", False):
        start(machine, 500, version)
        end(machine, promote)
    start(machine, 300)
    assert given_to(machine, 0, 100) == {"old", "new"}
    end(machine, False)
    assert given_to(machine, 200) == {"old"}
