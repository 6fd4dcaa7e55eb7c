"""Tasks that come again and again: what is due, what was missed, and what no crash makes twice."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from merit.core.codec import decode_state, encode_state, state_digest
from merit.core.invariants import check
from merit.model.commands import PlanSchedule, RemoveSchedule, RunSchedule, SetSchedule
from merit.model.effects import WorkOutTimes
from merit.model.events import ScheduleFired, TaskSubmitted
from merit.model.frames import Report, ReportStatus
from merit.model.limits import SECOND_NS, Limits
from merit.model.schedules import Missed, Overlap, Schedule
from merit.model.tasks import Priority, TaskState, Terms
from merit.testing.builders import (
    START_NS,
    a_machine,
    a_spec,
    allocate,
    an_id,
    attach,
    say,
    submit,
    tell,
    tick,
)

MINUTE_NS = 60 * SECOND_NS
SLOT_NS = 1 << 24
LIMITS = Limits(stale_ns=10**9 * SECOND_NS)


def a_schedule(name="hourly", **fields):
    template = fields.pop("template", replace(a_spec(), id="", timeout_ns=10**17))
    fields = {"tenant": "default", "cron": "0 * * * *", "zone": "UTC"} | fields
    return Schedule(name, template=template, **fields)


def times_after(after_ns, now_ns, missed_max=1):
    """What the shell works out: each ten minutes; the last of those that were missed, and four to come."""
    period_ns = 10 * MINUTE_NS
    first = (after_ns - START_NS) // period_ns + 1
    now = (now_ns - START_NS) // period_ns
    missed = range(max(first, now - missed_max + 1), now + 1)
    return tuple(START_NS + period_ns * n for n in (*missed, *range(max(first, now + 1), max(first, now + 1) + 4)))


class Shell:
    """A machine, and somebody who answers what it wants to know."""

    def __init__(self, *schedules, machine=None):
        self.machine = machine or a_machine(limits=LIMITS)
        self.fired, self.submitted, self.wanted = [], [], []
        self.take(self.machine)
        for schedule in schedules:
            self.set(schedule)

    def take(self, decision):
        self.fired += [event for event in decision.events if isinstance(event, ScheduleFired)]
        self.submitted += [event for event in decision.events if isinstance(event, TaskSubmitted)]
        self.wanted += [effect for effect in decision.effects if isinstance(effect, WorkOutTimes)]
        check(self.machine, self.machine.state)
        return decision

    def set(self, schedule):
        self.take(tell(self.machine, SetSchedule, schedule))
        self.answer()

    def answer(self):
        while self.wanted:
            asked = self.wanted.pop(0)
            missed_max = 100 if asked.schedule.missed is Missed.ALL else 1
            times = times_after(asked.after_ns, self.machine.now_ns, missed_max)
            self.plan(asked, times)

    def plan(self, asked, times):
        schedule = asked.schedule
        return self.take(
            tell(self.machine, PlanSchedule, schedule.name, schedule.cron, schedule.zone, asked.after_ns, times)
        )

    def until(self, minute, *, there=True):
        """With somebody there all the time, or only at the end."""
        end_ns = START_NS + int(minute * MINUTE_NS) + SLOT_NS
        while there and (due_ns := self.machine.next_due_ns()) is not None and due_ns <= end_ns:
            self.take(tick(self.machine, max(due_ns, self.machine.now_ns)))
            self.answer()
        self.machine.now_ns = end_ns
        for _ in range(5):
            self.take(tick(self.machine, end_ns))
            self.answer()

    def restart(self):
        machine = a_machine(decode_state(encode_state(self.machine.state)), LIMITS, now_ns=self.machine.now_ns, epoch=2)
        self.machine, self.wanted = machine, []
        self.take(machine)
        self.answer()

    def done(self):
        """What the schedule made is done."""
        machine = self.machine
        worker = f"w{machine.state.sequence}"
        attach(machine, worker, granted=100)
        sent = allocate(machine)
        done = [Report(s.assignment.task, s.assignment.number, ReportStatus.COMPLETED, b"1") for s in sent]
        say(machine, worker, reports=done)

    @property
    def planned(self):
        return self.machine.state.schedules["hourly"]

    def minutes(self):
        return [(event.at_ns - START_NS) // MINUTE_NS for event in self.fired if event.task]


def test_each_time_makes_a_task_that_names_its_schedule():
    template = replace(a_spec(), id="", priority=Priority.HIGH, terms=Terms(key="k", idempotency_key="once"))
    shell = Shell(a_schedule(template=template, overlap=Overlap.ALLOW))
    shell.until(65)
    assert shell.minutes() == [10, 20, 30, 40, 50, 60]
    assert [event.task for event in shell.fired] == [event.task for event in shell.submitted]
    assert len({event.task for event in shell.fired}) == 6
    assert shell.machine.state.keys == {}
    for event in shell.submitted:
        assert (event.terms, event.priority, event.principal) == (
            Terms(key="k", schedule="hourly"),
            Priority.HIGH,
            "schedule hourly",
        )
    assert (shell.planned.made, shell.planned.passed_over, shell.planned.last) == (6, 0, shell.fired[-1].task)


@pytest.mark.parametrize("overlap", list(Overlap))
def test_a_time_that_comes_while_the_one_before_is_not_done(overlap):
    shell = Shell(a_schedule(overlap=overlap))
    shell.until(35)
    states = [shell.machine.state.tasks[event.task].state for event in shell.submitted]
    if overlap is Overlap.SKIP:
        assert shell.minutes() == [10]
        assert shell.fired[1].why == f"the task before it, {shell.fired[0].task}, is not final"
        assert shell.planned.passed_over == 2
        shell.done()
        shell.until(45)
        assert shell.minutes() == [10, 40]
    elif overlap is Overlap.ALLOW:
        assert states == [TaskState.PENDING] * 3
    else:
        assert states == [TaskState.CANCELED, TaskState.CANCELED, TaskState.PENDING]


EXPECTED = {
    (Missed.SKIP, Overlap.ALLOW): [10, 70],
    (Missed.ONE, Overlap.ALLOW): [10, 60, 70],
    (Missed.ALL, Overlap.ALLOW): [10, 20, 30, 40, 50, 60, 70],
    (Missed.SKIP, Overlap.CANCEL): [10, 70],
    (Missed.ONE, Overlap.CANCEL): [10, 60, 70],
    (Missed.ALL, Overlap.CANCEL): [10, 20, 30, 40, 50, 60, 70],
    (Missed.SKIP, Overlap.SKIP): [10, 70],
    (Missed.ONE, Overlap.SKIP): [10, 60],
    (Missed.ALL, Overlap.SKIP): [10, 20],
}


@pytest.mark.parametrize(("missed", "overlap"), EXPECTED)
@pytest.mark.parametrize("restart", [False, True])
def test_times_that_nobody_was_there_for(missed, overlap, restart):
    """The plan goes to minute 40 and everybody is away from 15 to 65, with a new leader at the end or without."""
    shell = Shell(a_schedule(missed=missed, overlap=overlap))
    shell.until(15)
    shell.done()
    shell.until(65, there=False)
    if restart:
        shell.restart()
        shell.until(65)
    shell.until(75)
    assert shell.minutes() == EXPECTED[missed, overlap]
    for event in shell.fired:
        assert bool(event.task) != bool(event.why)
    assert len({event.at_ns for event in shell.fired}) == len(shell.fired), "no time is dealt with twice"


def test_a_time_that_is_a_little_late_was_not_missed():
    shell = Shell(a_schedule(missed=Missed.SKIP))
    shell.until(10.9, there=False)
    assert shell.minutes() == [10]


@given(
    st.lists(st.sampled_from(["wait", "away", "restart", "done", "again", "run"]), max_size=25),
    st.sampled_from(list(Missed)),
)
@settings(max_examples=40)
def test_no_time_fires_twice_and_the_ids_are_those_of_the_times(steps, missed):
    shell, minute, ran = Shell(a_schedule(missed=missed, overlap=Overlap.ALLOW)), 0, 5_000
    for step in steps:
        if step in ("wait", "away"):
            minute += 7 if step == "wait" else 64
            shell.until(minute, there=step == "wait")
        elif step == "restart":
            shell.restart()
        elif step == "done":
            shell.done()
        elif step == "again":
            shell.set(shell.planned.schedule)
        else:
            ran += 1
            shell.take(tell(shell.machine, RunSchedule, "hourly", an_id(ran)))
    by_time = [event for event in shell.fired if event.at_ns]
    times = [event.at_ns for event in by_time]
    assert times == sorted(set(times))
    assert all(event.task for event in by_time if missed is Missed.ALL)
    made = [event.task for event in by_time if event.task]
    assert len(set(made)) == len(made)
    other = Shell(a_schedule(missed=Missed.ALL, overlap=Overlap.ALLOW))
    other.until(minute + 1)
    ids = {event.at_ns: event.task for event in other.fired}
    assert all(ids[event.at_ns] == event.task for event in by_time if event.task)
    assert state_digest(decode_state(encode_state(shell.machine.state))) == state_digest(shell.machine.state)


def test_answers_to_questions_that_are_over_change_nothing():
    shell = Shell()
    shell.take(tell(shell.machine, SetSchedule, a_schedule()))
    (asked,) = shell.wanted
    shell.machine.now_ns += SECOND_NS
    shell.take(tell(shell.machine, SetSchedule, a_schedule(cron="5 * * * *")))
    late = (START_NS + MINUTE_NS,)
    assert shell.plan(asked, late).events == []
    current = shell.wanted[-1]
    assert shell.plan(replace(current, schedule=asked.schedule), late).events == [], "another expression"
    assert shell.plan(current, ()).events == []
    assert len(shell.plan(current, late).events) == 1
    assert shell.plan(current, (START_NS + 2 * MINUTE_NS,)).events == [], "said twice"
    tell(shell.machine, RemoveSchedule, "hourly")
    assert shell.plan(current, late).events == []
    assert shell.machine.next_due_ns() is None


def test_an_expression_that_never_comes_again_waits_for_ever():
    shell = Shell()
    shell.take(tell(shell.machine, SetSchedule, a_schedule()))
    shell.plan(shell.wanted.pop(), (START_NS + MINUTE_NS,))
    shell.machine.now_ns = START_NS + MINUTE_NS + SLOT_NS
    shell.take(tick(shell.machine, shell.machine.now_ns))
    assert shell.minutes() == [1]
    (asked,) = shell.wanted
    assert asked.after_ns == START_NS + MINUTE_NS
    assert shell.machine.next_due_ns() == shell.machine.timers.due_ns(shell.fired[0].task)


@pytest.mark.parametrize("how", ["paused", "removed"])
def test_paused_or_removed_it_makes_nothing(how):
    shell = Shell(a_schedule())
    shell.until(15)
    if how == "paused":
        shell.set(a_schedule(paused=True))
    else:
        shell.take(tell(shell.machine, RemoveSchedule, "hourly"))
        assert shell.machine.state.schedules == {}
    shell.done()
    shell.until(55)
    shell.restart()
    shell.until(65)
    assert shell.minutes() == [10]
    shell.set(a_schedule())
    shell.until(85)
    assert shell.minutes() == [10, 70], "what was while it was paused was not missed; the second still waits"
    assert shell.planned.made == (2 if how == "paused" else 1)


def test_run_now_is_beside_its_times_and_the_overlap_policy_holds():
    shell = Shell(a_schedule())
    assert shell.take(tell(shell.machine, RunSchedule, "hourly", an_id(1))).refusals == []
    terms = shell.machine.state.tasks[an_id(1)].terms
    assert terms is not None
    assert terms.schedule == "hourly"
    (refusal,) = shell.take(tell(shell.machine, RunSchedule, "hourly", an_id(2))).refusals
    assert (refusal.code, refusal.field) == ("conflict", "schedule")
    assert refusal.reason == f"the task before it, {an_id(1)}, is not final"
    shell.done()
    shell.until(15)
    assert shell.minutes()[-1] == 10
    shell.done()
    (refusal,) = shell.take(tell(shell.machine, RunSchedule, "hourly", an_id(1))).refusals
    assert refusal.code == "conflict"


def test_what_cannot_be_taken_is_passed_over_with_the_reason():
    shell = Shell(a_schedule(overlap=Overlap.ALLOW), machine=a_machine(limits=Limits(live_tasks_max=1)))
    submit(shell.machine, a_spec(1, "other", timeout_ns=10**17))
    shell.until(15)
    assert shell.minutes() == []
    assert shell.fired[0].why.startswith("tasks: the cell holds 1 tasks")
    assert shell.planned.passed_over == 1


def test_those_of_another_tenant_are_not_there():
    shell = Shell(a_schedule())
    for command in ((RemoveSchedule, "hourly"), (RunSchedule, "hourly", an_id(1))):
        (refusal,) = tell(shell.machine, *command, tenant="other").refusals
        assert (refusal.code, refusal.field, refusal.reason) == ("not_found", "name", "there is no schedule hourly")
    (refusal,) = tell(shell.machine, SetSchedule, a_schedule(tenant="other"), tenant="other").refusals
    assert (refusal.code, refusal.field) == ("conflict", "name")
    assert list(shell.machine.state.schedules) == ["hourly"]
