"""Results that others look at: copies, judges, and tasks with known results."""

import json

import pytest
from msgspec.structs import replace

from merit.core.codec import decode_state, encode_state
from merit.core.explaining import explain_now
from merit.core.invariants import check, check_allocated
from merit.model.auditing import AuditPolicy, Comparison, GoldTask, OnBroken
from merit.model.commands import SetAudit
from merit.model.effects import TellSettled
from merit.model.events import ResultJudged
from merit.model.limits import SECOND_NS, Limits
from merit.model.tasks import AttemptState, ReviewKind, TaskState
from merit.model.tenancy import GOLD_TENANT
from merit.testing.builders import (
    START_NS,
    TENANT,
    a_machine,
    a_spec,
    allocate,
    an_id,
    an_offer,
    attach,
    bind,
    cancel,
    completed,
    detach,
    failed,
    say,
    submit,
    tell,
    tick,
)

LIMITS = Limits(stale_ns=10**6 * SECOND_NS)
COPIES = AuditPolicy("echo", copies=2)


class Court:
    """Workers that give the answers that they are told to give; whatever is not said is right."""

    def __init__(self, *workers, policy=COPIES, concurrency=4):
        self.machine = a_machine(limits=LIMITS)
        self.events = []
        for worker in workers:
            attach(self.machine, worker, granted=1_000, concurrency=concurrency)
        tell(self.machine, SetAudit, policy)

    @property
    def state(self):
        return self.machine.state

    def task(self, number=1):
        return self.state.tasks[an_id(number)]

    def submit(self, *numbers, **fields):
        submit(self.machine, *(a_spec(number, **fields) for number in numbers))

    def work(self, turns=8, **answers):
        """Everybody does what he has, one turn after the other; ``answers`` by worker."""
        for _ in range(turns):
            bind(self.machine)
            check_allocated(self.machine)
            for worker in list(self.state.workers.values()):
                answer = answers.get(worker.id, b'"right"')
                for task, number in list(worker.attempts.items()):
                    report = failed(1, number) if answer is None else completed(1, number, answer)
                    report = replace(report, task=task)
                    self.events += say(self.machine, worker.id, reports=[report]).events
            check(self.machine, self.state)

    def judged(self):
        return {
            event.worker: event.right
            for event in self.events
            if isinstance(event, ResultJudged) and event.how != "gold"
        }


def test_a_result_counts_when_another_worker_has_come_to_the_same():
    court = Court("w1", "w2")
    court.submit(1)
    bind(court.machine)
    (first,) = (worker for worker in court.state.workers.values() if worker.attempts)
    decision = say(court.machine, first.id, reports=[completed(1, result=b'{"a": 1, "b": 2}')])
    assert TellSettled(an_id(1)) not in decision.effects
    assert court.task().state is TaskState.AUDITING
    assert court.task().attempts[0].state is AttemptState.REPORTED
    assert not first.attempts, "its worker is done with it"
    (sent,) = allocate(court.machine)
    assert sent.worker != first.id
    assert sent.assignment.parameters == court.task().parameters
    copy = court.state.tasks[sent.assignment.task]
    assert (copy.tenant, copy.terms.review.kind) == (court.task().tenant, ReviewKind.COPY)
    report = completed(1, result=b'{"b":2,"a":1}')
    decision = say(court.machine, sent.worker, reports=[replace(report, task=copy.id)])
    assert TellSettled(an_id(1)) in decision.effects
    assert court.task().state is TaskState.COMPLETED
    assert court.task().result == b'{"a": 1, "b": 2}'
    assert court.task().attempts[0].state is AttemptState.COMPLETED
    assert {event.worker for event in decision.events if isinstance(event, ResultJudged) and event.right} == {
        "w1",
        "w2",
    }
    assert not court.state.cases
    check(court.machine, court.state)


def test_of_three_the_two_that_agree_are_believed_and_their_answer_is_the_result():
    court = Court("liar", "w2", "w3", concurrency=1)
    for number in range(1, 30):
        court.submit(number)
        court.work(liar=b'"wrong"')
        assert court.task(number).state is TaskState.COMPLETED
        assert court.task(number).result == b'"right"'
    assert court.judged() == {"liar": False, "w2": True, "w3": True}
    liar = court.state.profiles["liar"].records["echo"]
    honest = court.state.profiles["w2"].records["echo"]
    assert liar.wrong
    assert not liar.passed
    assert honest.passed
    assert not honest.wrong
    assert any(
        attempt.state is AttemptState.REJECTED for task in court.state.tasks.values() for attempt in task.attempts
    )


def test_nobody_looks_at_his_own_result():
    court = Court("w1", "w2", "w3", policy=AuditPolicy("echo", copies=3))
    court.submit(1)
    court.work(turns=1)
    case = court.state.cases[an_id(1)]
    assert case.asked == 2
    court.work(turns=3)
    assert court.task().state is TaskState.COMPLETED
    workers = [task.attempts[-1].worker for task in court.state.tasks.values()]
    assert sorted(workers) == ["w1", "w2", "w3"]


def test_where_nobody_else_is_left_it_is_not_looked_at():
    court = Court("w1")
    court.submit(1)
    court.work(turns=1)
    assert court.task().state is TaskState.COMPLETED
    assert len(court.state.tasks) == 1


@pytest.mark.parametrize("fields", [{"safe_to_repeat": False}, {"stateful": True}])
def test_what_nobody_else_may_do_once_more_is_not_copied(fields):
    machine = a_machine(limits=LIMITS)
    for worker in ("w1", "w2"):
        attach(machine, worker, offers=[an_offer(**fields)], granted=10)
    tell(machine, SetAudit, COPIES)
    submit(machine, a_spec(1))
    bind(machine)
    (worker,) = (worker.id for worker in machine.state.workers.values() if worker.attempts)
    say(machine, worker, reports=[completed(1)])
    assert machine.state.tasks[an_id(1)].state is TaskState.COMPLETED


@pytest.mark.parametrize(("on_broken", "after"), [(OnBroken.ACCEPT, "COMPLETED"), (OnBroken.REJECT, "WAITING")])
def test_what_cannot_be_found_out_is_nobodys_fault(on_broken, after):
    court = Court("w1", "w2", policy=AuditPolicy("echo", copies=2, on_broken=on_broken, timeout_ns=5 * SECOND_NS))
    court.submit(1)
    court.work(turns=1)
    first = court.task().attempts[0].worker
    other = next(name for name in ("w1", "w2") if name != first)
    tick(court.machine, START_NS + 6 * SECOND_NS)
    assert court.task().state.name == after
    assert not court.state.cases
    copy = next(task for task in court.state.tasks.values() if task.terms is not None)
    assert copy.state is TaskState.CANCELED or copy.state is TaskState.DEAD
    for worker in (first, other):
        record = court.state.profiles[worker].records.get("echo")
        assert record is None or (record.wrong, record.rejected) == (0, 0)
    check(court.machine, court.state)


def test_two_that_differ_ask_a_third_and_if_there_is_none_nobody_is_blamed():
    court = Court("w1", "w2", policy=AuditPolicy("echo", copies=2, on_broken=OnBroken.ACCEPT))
    court.submit(1)
    court.work(w2=b'"other"')
    assert court.task().state is TaskState.COMPLETED
    assert court.judged() == {}


def test_a_copy_that_fails_is_tried_by_somebody_else():
    court = Court("w1", "w2", "w3", policy=AuditPolicy("echo", copies=2, timeout_ns=600 * SECOND_NS))
    court.submit(1)
    bind(court.machine)
    (first,) = (worker for worker in court.state.workers.values() if worker.attempts)
    say(court.machine, first.id, reports=[completed(1, result=b"1")])
    (sent,) = allocate(court.machine)
    report = failed(1)
    say(court.machine, sent.worker, reports=[replace(report, task=sent.assignment.task)])
    tick(court.machine, court.machine.now_ns + 2 * SECOND_NS)
    (again,) = allocate(court.machine)
    assert again.worker not in (first.id, sent.worker)


def test_numbers_may_differ_by_the_tolerance():
    policy = AuditPolicy("echo", copies=2, comparison=Comparison(absolute_millionths=100_000))
    court = Court("w1", "w2", policy=policy)
    court.submit(1)
    court.work(w1=b"1.00", w2=b"1.05")
    assert court.task().state is TaskState.COMPLETED
    assert court.judged() == {"w1": True, "w2": True}


def test_whoever_is_known_to_be_right_is_looked_at_less_often_but_never_never():
    court = Court("w1", "w2", "w3")
    for number in range(1, 400):
        court.submit(number)
        court.work(turns=2)
        tick(court.machine, court.machine.now_ns + 4 * SECOND_NS)
    court.work(turns=4)
    copies = [task for task in court.state.tasks.values() if task.terms is not None]
    late = [task for task in copies if task.order > court.task(300).order]
    assert 3 <= len(late) <= 50
    assert all(task.state is TaskState.COMPLETED for task in court.state.tasks.values())


JUDGE = AuditPolicy("echo", judge="review")


def with_judge(verdict, policy=JUDGE):
    machine = a_machine(limits=LIMITS)
    attach(machine, "w1", granted=10)
    attach(machine, "j1", capabilities=("review",), granted=10)
    tell(machine, SetAudit, policy)
    submit(machine, a_spec(1, parameters=b'{"x": 1}', attempts_max=1))
    bind(machine)
    say(machine, "w1", reports=[completed(1, result=b'{"y": 2}')])
    (sent,) = allocate(machine)
    asked = json.loads(sent.assignment.parameters)
    assert asked == {"task": an_id(1), "capability": "echo", "parameters": {"x": 1}, "result": {"y": 2}}
    report = completed(1, result=verdict)
    say(machine, "j1", reports=[replace(report, task=sent.assignment.task)])
    check(machine, machine.state)
    return machine


def test_a_judge_says_whether_it_is_right():
    machine = with_judge(b'{"ok": true}')
    assert machine.state.tasks[an_id(1)].state is TaskState.COMPLETED
    assert machine.state.profiles["w1"].records["echo"].passed == 1
    machine = with_judge(b'{"ok": false, "reason": "y should be 3"}')
    task = machine.state.tasks[an_id(1)]
    assert task.state is TaskState.DEAD
    assert task.attempts[0].state is AttemptState.REJECTED
    assert "y should be 3" in task.failure.message
    assert machine.state.profiles["w1"].records["echo"].wrong == 1


@pytest.mark.parametrize("verdict", [b'"fine"', b"{}", b'{"ok": "yes"}', b"null"])
def test_a_judge_that_says_nothing_of_use_blames_nobody(verdict):
    machine = with_judge(verdict)
    record = machine.state.profiles["w1"].records.get("echo")
    assert record is None or (record.passed, record.wrong, record.rejected) == (0, 0, 0)


GOLD = AuditPolicy("echo", gold=(GoldTask(b'{"q":1}', b'"right"'),), gold_permille=500)


def test_gold_tasks_look_like_others_and_tell_who_is_wrong():
    court = Court("good", "bad", policy=GOLD)
    for number in range(1, 60):
        court.submit(number)
        court.work(turns=2, bad=b'"wrong"')
    golds = [task for task in court.state.tasks.values() if task.tenant == GOLD_TENANT]
    assert 5 <= len(golds) <= 55
    good, bad = (court.state.profiles[name].records["echo"] for name in ("good", "bad"))
    assert good.passed
    assert not good.wrong
    assert bad.wrong
    assert not bad.passed
    assert all(task.terms.demand.worker in ("good", "bad") for task in golds)
    assert not court.machine.tested or court.state.workers


def test_a_task_that_is_canceled_takes_those_with_it_that_look_at_its_result():
    court = Court("w1", "w2")
    court.submit(1)
    court.work(turns=1)
    assert court.task().state is TaskState.AUDITING
    cancel(court.machine, 1)
    assert court.task().state is TaskState.CANCELED
    assert court.task().attempts[0].state is AttemptState.CANCELED
    assert all(task.state is TaskState.CANCELED for task in court.state.tasks.values())
    assert not court.state.cases
    check(court.machine, court.state)


def test_it_dies_at_its_deadline_also_while_its_result_is_looked_at():
    court = Court("w1", "w2", policy=AuditPolicy("echo", copies=2, timeout_ns=600 * SECOND_NS))
    court.submit(1, timeout_ns=20 * SECOND_NS)
    court.work(turns=1)
    tick(court.machine, START_NS + 21 * SECOND_NS)
    assert court.task().state is TaskState.DEAD
    assert not court.state.cases
    check(court.machine, court.state)


def test_it_goes_on_under_another_leader_and_when_the_worker_has_gone():
    court = Court("w1", "w2")
    court.submit(1)
    court.work(turns=1)
    first = court.task().attempts[0].worker
    detach(court.machine, first, bye=True)
    again = a_machine(decode_state(encode_state(court.state)), LIMITS, now_ns=court.machine.now_ns, epoch=2)
    check(again, again.state)
    other = next(name for name in ("w1", "w2") if name != first)
    attach(again, other, boot="again", granted=10)
    (sent,) = allocate(again)
    report = completed(1, result=b'"right"')
    say(again, other, reports=[replace(report, task=sent.assignment.task)])
    task = again.state.tasks[an_id(1)]
    assert task.state is TaskState.COMPLETED
    assert again.state.profiles[first].records["echo"].completed == 1
    check(again, again.state)


def test_those_that_need_the_task_wait_until_its_result_counts():
    court = Court("w1", "w2")
    submit(court.machine, a_spec(1), a_spec(2, "other", after=[1]))
    court.work(turns=1)
    bind(court.machine)
    assert court.task(2).state is TaskState.WAITING
    court.work(turns=2)
    bind(court.machine)
    assert court.task(2).state is TaskState.PENDING


def test_it_is_looked_at_as_it_was_set_when_the_result_came():
    policy = AuditPolicy("echo", copies=2, comparison=Comparison(ignore=("/by",)), on_broken=OnBroken.REJECT)
    court = Court("w1", "w2", policy=policy)
    court.submit(1)
    court.work(turns=1, w1=b'{"by":1}', w2=b'{"by":2}')
    tell(court.machine, SetAudit, AuditPolicy("echo"))
    court.work(w1=b'{"by":1}', w2=b'{"by":2}')
    assert court.task().state is TaskState.COMPLETED
    assert court.judged() == {"w1": True, "w2": True}


def test_what_a_judge_was_asked_about_is_not_copied_when_that_is_set_meanwhile():
    machine = a_machine(limits=LIMITS)
    attach(machine, "w1", granted=10, offers=[an_offer(safe_to_repeat=False)])
    attach(machine, "w2", granted=10, offers=[an_offer(safe_to_repeat=False)])
    attach(machine, "j1", capabilities=("review",), granted=10)
    tell(machine, SetAudit, JUDGE)
    submit(machine, a_spec(1, parameters=b'{"x": 1}'))
    (sent,) = allocate(machine)
    say(machine, sent.worker, reports=[completed(1, result=b'{"y": 2}')])
    (asked,) = allocate(machine)
    tell(machine, SetAudit, COPIES)
    decision = say(machine, "j1", reports=[replace(completed(1, result=b'{"ok": true}'), task=asked.assignment.task)])
    assert machine.state.tasks[an_id(1)].state is TaskState.COMPLETED
    assert [event.how for event in decision.events if isinstance(event, ResultJudged)] == ["judge"]
    assert len(machine.state.tasks) == 2, "nobody else is asked"


def test_a_result_that_counts_at_last_is_another_figure_of_its_worker():
    court = Court("w1", "w2")
    court.submit(1)
    bind(court.machine)
    (first,) = (worker.id for worker in court.state.workers.values() if worker.attempts)
    say(court.machine, first, reports=[completed(1, result=b"1")])
    (sent,) = allocate(court.machine)
    assert first not in court.machine.touched
    say(court.machine, sent.worker, reports=[replace(completed(1, result=b"1"), task=sent.assignment.task)])
    assert first in court.machine.touched, "strategies that go by what it has done look at it anew"


def test_whoever_made_a_result_is_not_said_to_fit_for_looking_at_it():
    machine = a_machine(limits=LIMITS)
    attach(machine, "w1", granted=10)
    attach(machine, "w2", granted=1, capabilities=("echo", "other"))
    tell(machine, SetAudit, COPIES)
    submit(machine, a_spec(2, "other"))
    bind(machine)
    submit(machine, a_spec(1))
    bind(machine)
    say(machine, "w1", reports=[completed(1)])
    assert allocate(machine) == []
    check_allocated(machine)
    (copy,) = machine.state.cases[an_id(1)].reviews
    said = explain_now(machine, machine.state.tasks[copy], 5)
    assert said.chosen == ""
    reasons = {ruling.worker: ruling.reasons for ruling in said.rulings}
    assert any("has had to do with the result" in reason for reason in reasons["w1"])


def test_a_task_that_dies_while_its_result_is_looked_at_says_so_of_the_attempt():
    court = Court("w1", "w2", policy=AuditPolicy("echo", copies=2, timeout_ns=600 * SECOND_NS))
    court.submit(1, timeout_ns=20 * SECOND_NS)
    court.work(turns=1)
    tick(court.machine, START_NS + 21 * SECOND_NS)
    (attempt,) = court.task().attempts
    assert attempt.state is AttemptState.CANCELED
    assert attempt.failure == court.task().failure


def test_nobody_escapes_gold_tasks_by_taking_those_of_one_tenant_only():
    machine = a_machine(limits=LIMITS)
    attach(machine, "w1", granted=10, tenants=(TENANT,))
    tell(machine, SetAudit, replace(GOLD, gold_permille=1_000))
    submit(machine, a_spec(1))
    bind(machine)
    say(machine, "w1", reports=[completed(1)])
    (sent,) = allocate(machine)
    assert machine.state.tasks[sent.assignment.task].tenant == GOLD_TENANT
