"""The history of a task in words, where others were asked about its result."""

from msgspec.structs import replace

from merit.core.invariants import check
from merit.core.story import story_of_task
from merit.model.auditing import AuditPolicy
from merit.model.commands import SetAudit
from merit.model.tasks import TaskState
from merit.testing.builders import (
    a_machine,
    a_spec,
    allocate,
    an_id,
    attach,
    bind,
    completed,
    failed,
    say,
    submit,
    tell,
)


def judged(*answers, copies=2):
    """A task whose result is looked at; who looks at it says so, or fails."""
    machine = a_machine()
    for worker in ("w1", "w2", "w3"):
        attach(machine, worker, granted=10, concurrency=1)
    tell(machine, SetAudit, AuditPolicy("echo", copies=copies))
    submit(machine, a_spec(1))
    bind(machine)
    (first,) = (worker for worker in machine.state.workers.values() if worker.attempts)
    events = say(machine, first.id, reports=[completed(1, result=b"1")]).events
    for sent, answer in zip(allocate(machine), answers, strict=True):
        events += say(machine, sent.worker, reports=[replace(answer, task=sent.assignment.task)]).events
    return machine, [(machine.now_ns, event) for event in events if getattr(event, "task", "") == an_id(1)]


def test_it_says_who_was_asked_and_who_was_right():
    machine, events = judged(completed(1, result=b"2"), completed(1, result=b"2"), copies=3)
    task = machine.state.tasks[an_id(1)]
    w1, w2, w3 = (one.attempts[0].worker for one in machine.state.tasks.values())
    copies = [one.id for one in machine.state.tasks.values()][1:]
    assert [line.partition(" s ")[2] for line in story_of_task(task, events)] == [
        "submitted by tester for echo, MEDIUM",
        f"attempt 1 on {w1} assigned",
        f"attempt 1 on {w1} REJECTED: {w2}, {w3} said otherwise",
        "others are asked about the result of attempt 1",
        f"{w2} has answered (task {copies[0]})",
        f"{w3} has answered (task {copies[1]})",
        f"{w1} is wrong, by copies: {w2}, {w3} said otherwise",
        f"{w2} is right, by copies: {w3} said the same",
        f"{w3} is right, by copies: {w2} said the same",
        "COMPLETED with the answer of another worker",
    ]
    assert len(story_of_task(task)) == 4, "the task itself does not know"
    submitted = story_of_task(machine.state.tasks[copies[0]])[0]
    assert submitted.endswith(f"for echo, MEDIUM, as a copy of task {an_id(1)}")


def test_a_review_that_dies_is_nobodys_dead_letter():
    machine, events = judged(failed(1, permanent=True))
    copy = next(task for task in machine.state.tasks.values() if task.id != an_id(1))
    assert copy.state is TaskState.DEAD
    assert copy.id not in machine.state.dead_letters
    assert any(
        line.endswith(f"has answered (task {copy.id})") for line in story_of_task(machine.state.tasks[an_id(1)], events)
    )
    check(machine, machine.state)
