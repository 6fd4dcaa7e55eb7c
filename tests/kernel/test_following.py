"""Who follows a task hears of its steps, and of nothing that is not durable."""

from merit.model.frames import ClientFrame, ClientHello, ServerFrame, Update
from merit.model.limits import Limits
from merit.model.tasks import Progress, TaskState
from merit.session.server_end import ServerEnd
from merit.testing.builders import a_spec, an_id, completed, ref
from tests.kernel.test_kernel import Cell, ClientPeer, WorkerPeer


def updates(peer):
    return [update for frame in peer.frames for update in frame.updates]


def following(cell, *numbers):
    peer = ClientPeer(cell)
    for number in numbers:
        peer.own.follow(an_id(number))
    peer.pump()
    return peer


def note(worker, number, fraction, *log, attempt=1):
    # Past what keeps a worker that is in order from saying such things of attempts that it does not have.
    worker.own._progress.put((an_id(number), attempt), Progress(an_id(number), attempt, fraction, "", log))
    worker.pump()


def test_every_step_progress_and_log_lines_until_the_end():
    cell = Cell()
    client = ClientPeer(cell)
    client.submit(a_spec(1), a_spec(2))
    cell.settle()
    peer = following(cell, 1)
    cell.settle()
    worker = WorkerPeer(cell)
    cell.settle()
    worker.own.started(an_id(1), 1)
    worker.pump()
    cell.settle()
    note(worker, 1, 0.5, "half")
    cell.settle()
    worker.finish()
    cell.settle()
    assert updates(peer) == [
        Update(an_id(1), TaskState.PENDING),
        Update(an_id(1), TaskState.ASSIGNED, 1, "w1"),
        Update(an_id(1), TaskState.RUNNING, 1, "w1"),
        Update(an_id(1), TaskState.RUNNING, 1, "w1", 0.5, "", ("half",)),
        Update(an_id(1), TaskState.COMPLETED, 1, "w1"),
    ]
    assert peer.outcomes == [], "that is what watching is for"
    assert not cell.kernel._release.followers


def test_nothing_is_told_before_it_is_durable():
    cell = Cell()
    client, worker = ClientPeer(cell), WorkerPeer(cell)
    client.submit(a_spec(1))
    cell.settle()
    peer = following(cell, 1)
    cell.settle()
    peer.frames.clear()
    # In one frame: a note on the progress, and the end.
    worker.own.ended(completed(1))
    note(worker, 1, 0.9)
    cell.step()
    cell.flush()
    assert updates(peer) == []
    cell.commit()
    cell.flush()
    assert updates(peer)[-1].state is TaskState.COMPLETED


def test_what_is_told_is_as_old_as_the_record_it_waited_for():
    """Records on their way: the second is not durable when the first lets its step out."""
    cell = Cell()
    client = ClientPeer(cell)
    client.submit(a_spec(1))
    cell.settle()
    peer = following(cell, 1)
    cell.settle()
    peer.frames.clear()
    WorkerPeer(cell)
    cell.step()
    client.own.cancel(an_id(1))
    client.pump()
    cell.step()
    assert len(cell.pending) == 2
    cell.commit(1)
    cell.flush()
    assert [update.state for update in updates(peer)] == [TaskState.ASSIGNED]
    cell.commit()
    cell.flush()
    cell.settle()
    assert [update.state for update in updates(peer)] == [TaskState.ASSIGNED, TaskState.CANCELED]


def test_one_that_begins_to_follow_while_a_record_is_on_its_way_misses_nothing():
    cell = Cell()
    client = ClientPeer(cell)
    client.submit(a_spec(1))
    cell.settle()
    client.own.cancel(an_id(1))
    client.pump()
    peer = following(cell, 1)
    cell.step()
    cell.flush()
    assert updates(peer) == []
    cell.commit()
    cell.flush()
    assert [update.state for update in updates(peer)] == [TaskState.CANCELED]
    assert not cell.kernel._release.followers


def test_notes_of_attempts_that_a_worker_does_not_have_are_nobodys_news():
    cell = Cell()
    client, worker = ClientPeer(cell), WorkerPeer(cell)
    client.submit(a_spec(1))
    cell.settle()
    peer = following(cell, 1)
    cell.settle()
    peer.frames.clear()
    stranger = WorkerPeer(cell, "w2")
    note(stranger, 1, 0.7, "I am not even on it")
    note(worker, 1, 0.7, "not yet", attempt=2)
    cell.settle()
    assert updates(peer) == []
    assert ref(1).task not in cell.kernel.machine.progress


def test_tasks_of_other_tenants_and_unknown_ones_are_not_followed():
    cell = Cell()
    client = ClientPeer(cell)
    client.submit(a_spec(1))
    cell.settle()
    end = ServerEnd(tenant="other")
    frame = ClientFrame(1, 0, ClientHello("c"), follow=[an_id(1), an_id(9)], watch=[an_id(1)])
    cell.kernel.client_frame(end, frame, [])
    cell.step()
    cell.commit()
    found = [frame for stream, frame in cell.kernel.outgoing() if stream is end and isinstance(frame, ServerFrame)]
    assert [update for frame in found for update in frame.updates] == []
    refusals = [refusal for frame in found for refusal in frame.refusals]
    assert [(refusal.task, refusal.code, refusal.field) for refusal in refusals] == [(an_id(1), "not_found", "watch")]
    assert cell.kernel.lookups() == []
    assert not cell.kernel._release.followers


def test_streams_that_have_ended_are_forgotten():
    cell = Cell(Limits(finals_max=0))
    client = ClientPeer(cell)
    client.submit(a_spec(1))
    cell.settle()
    for _ in range(3):
        following(cell, 1).disconnect()
    last = following(cell, 1)
    cell.settle()
    assert len(cell.kernel._release.followers._by_task[an_id(1)]) <= 4
    worker = WorkerPeer(cell)
    cell.settle()
    assert len(cell.kernel._release.followers._by_task[an_id(1)]) == 1
    last.disconnect()
    worker.finish()
    cell.settle()
    assert not cell.kernel._release.followers
