"""What watchers are told of a task that has ended."""

from merit.model.frames import settled
from merit.testing.builders import a_machine, a_spec, allocate, an_id, attach, completed, ref, say, submit


def test_what_was_handed_back_unstarted_is_no_attempt():
    machine = a_machine()
    attach(machine)
    submit(machine, a_spec())
    allocate(machine)
    say(machine, returned=[ref(1, 1)])
    allocate(machine)
    say(machine, reports=[completed(1, 2)])
    told = settled(machine.state.tasks[an_id(1)])
    assert (told.attempts, told.worker) == (1, "w1")
