"""What a worker may and may not do, in sentences; and that a task which waits for somebody who is held back says so."""

import pytest

from merit.core.explaining import explain_now
from merit.core.liberty import held_back, liberties
from merit.core.why import why
from merit.model.commands import JudgeWorker, PauseWorker, RemoveWorker
from merit.model.limits import SECOND_NS, Limits
from merit.model.supervision import Circuit, CircuitState, Conduct, Policy, Stage, Verdict
from merit.testing.builders import START_NS, a_machine, a_spec, allocate, an_id, attach, submit, tell

LIMITS = Limits(stale_ns=10**6 * SECOND_NS)
OPEN = Circuit(CircuitState.OPEN, START_NS + 30 * SECOND_NS, 1)
UNTIL = "2023-11-14T22:13:50+00:00"
TRUST = (
    "it may not do tasks that ask for the tag merit.trusted: that takes a reputation of at least 0.9 and 20 results that were "
    "looked at closely; it has at least 0 and 0"
)
ALL = "it gets as many tasks as it takes: its factor is 1"


def fleet(*workers, **conduct):
    """Workers with room for four more; the first of them stands like this."""
    machine = a_machine(limits=LIMITS)
    for worker in workers or ("w1",):
        attach(machine, worker, granted=4)
    machine.state.profiles["w1"].conduct = Conduct(**conduct)
    machine.touched["w1"] = None
    return machine


def said(machine):
    return list(liberties(machine, machine.state.profiles["w1"]))


# What it may do


@pytest.mark.parametrize(
    ("conduct", "sentences"),
    [
        ({}, [ALL, TRUST]),
        ({"factor": 300}, ["it gets 30 % of the tasks that it would take at a time: its factor is 0.3", TRUST]),
        ({"factor": 1_500}, ["it is chosen as if it had 1.5 times its concurrency: its factor is 1.5", TRUST]),
        ({"trusted": True}, [ALL, "it may do tasks that ask for the tag merit.trusted"]),
        (
            {"pinned": True},
            [ALL, TRUST, "nothing is decided about it: a person has fixed its factor; merit worker unpin w1"],
        ),
        (
            {"circuit": OPEN},
            [f"it gets no tasks until {UNTIL}: it failed too often, and its breaker is open", ALL, TRUST],
        ),
        (
            {"circuit": Circuit(CircuitState.HALF_OPEN, 0, 1, 1)},
            [
                "it gets 2 tasks at a time: its breaker was open, and closes when 3 came out well; 1 did",
                ALL,
                TRUST,
            ],
        ),
        (
            {"stage": Stage.PROBATION, "right": 2},
            [
                "it is on probation: it gets one task at a time, all of them checked, until 3 came out well; 2 did",
                ALL,
                TRUST,
            ],
        ),
    ],
)
def test_by_how_it_stands(conduct, sentences):
    assert said(fleet(**conduct)) == sentences


def test_one_that_is_paused_is_told_until_when_and_who_can_end_it():
    machine = fleet()
    tell(machine, PauseWorker, "w1", "lunch")
    assert said(machine)[0] == "it gets no tasks until it is resumed: lunch; merit worker resume w1"
    conduct = machine.state.profiles["w1"].conduct
    conduct.stage, conduct.since_ns = Stage.PAUSED, START_NS
    sentence = "it gets no tasks until 2023-11-14T22:14:20+00:00, when it may prove itself: lunch; sooner with: "
    assert said(machine)[0] == sentence + "merit worker pardon w1"


def test_one_that_is_out_is_told_how_it_comes_back():
    machine = fleet()
    tell(machine, RemoveWorker, "w1", "sold")
    assert said(machine)[0] == "it may not join: sold; let it back with: merit worker resume w1"
    machine.state.profiles["w1"].conduct.stage = Stage.OUT
    assert said(machine)[0] == "it may not join: sold; let it back with: merit worker pardon w1"


# Why it is given nothing more


@pytest.mark.parametrize(
    ("conduct", "spare", "live", "reason"),
    [
        ({}, 0, 4, ""),
        ({}, 4, 0, ""),
        ({"circuit": OPEN}, 4, 0, f"failed too often: its breaker is open until {UNTIL}"),
        ({"circuit": OPEN}, 0, 4, f"failed too often: its breaker is open until {UNTIL}"),
        ({"stage": Stage.PROBATION}, 4, 0, ""),
        ({"stage": Stage.PROBATION}, 3, 1, "is on probation: it is given one task at a time, and has it"),
        ({"circuit": Circuit(CircuitState.HALF_OPEN, 0, 1)}, 4, 2, ""),
        (
            {"circuit": Circuit(CircuitState.HALF_OPEN, 0, 1)},
            4,
            3,
            "is tried again after its breaker was open, and has as many tasks as that takes",
        ),
        ({"factor": 500}, 3, 1, ""),
        ({"factor": 500}, 2, 2, "has a factor of 0.5: it is given 2 of the 4 it would take"),
        ({"factor": 500}, 0, 4, ""),
    ],
)
def test_what_holds_a_worker_back(conduct, spare, live, reason):
    assert held_back(Conduct(**conduct), Policy(), spare, live) == reason


def test_a_task_that_waits_for_one_with_an_open_breaker_says_so_and_so_does_its_explanation():
    machine = fleet(circuit=OPEN)
    submit(machine, a_spec(1))
    assert not allocate(machine)
    task = machine.state.tasks[an_id(1)]
    reason = f"failed too often: its breaker is open until {UNTIL}"
    assert why(machine, task) == f"those that may do it are held back: w1 {reason}; it is next"
    (ruling,) = explain_now(machine, task, 10).rulings
    assert (ruling.fits, ruling.reasons) == (False, (reason,))


def test_where_others_are_merely_busy_both_are_said():
    machine = fleet("w1", "w2", stage=Stage.PROBATION)
    submit(machine, *(a_spec(number) for number in range(1, 7)))
    assert len(allocate(machine)) == 5
    (waits,) = (task for task in machine.state.tasks.values() if not task.attempts)
    assert why(machine, waits) == (
        "all 2 workers that offer echo are busy, or held back: w1 is on probation: it is given one task at a time, and has "
        "it; it is next"
    )


def test_one_with_a_small_factor_is_named_and_not_called_full():
    machine = fleet(factor=500)
    submit(machine, *(a_spec(number) for number in range(1, 4)))
    assert len(allocate(machine)) == 2
    (waits,) = (task for task in machine.state.tasks.values() if not task.attempts)
    (ruling,) = explain_now(machine, waits, 10).rulings
    assert ruling.reasons == ("has a factor of 0.5: it is given 2 of the 4 it would take",)
    tell(machine, JudgeWorker, "w1", Verdict.PIN, "enough", 1_000)
    assert len(allocate(machine)) == 1


def test_who_is_paused_by_supervision_is_said_to_be_with_the_reason():
    machine = fleet()
    tell(machine, PauseWorker, "w1", "3 punishments in a row")
    machine.state.profiles["w1"].conduct.stage = Stage.PAUSED
    submit(machine, a_spec(1))
    allocate(machine)
    task = machine.state.tasks[an_id(1)]
    paused = "is paused by supervision: 3 punishments in a row"
    assert why(machine, task) == f"no connected worker may do it: w1 {paused}"
    (ruling,) = explain_now(machine, task, 10).rulings
    assert ruling.reasons[0] == paused
