"""Who watches the fleet hears of each worker to which something has happened, and of nothing that is not durable."""

from merit.model.commands import PauseWorker
from merit.testing.builders import PRINCIPAL, TENANT, a_spec
from tests.kernel.test_kernel import Cell, ClientPeer, WorkerPeer


def test_nothing_is_kept_while_nobody_watches():
    cell = Cell()
    WorkerPeer(cell)
    cell.settle()
    assert cell.kernel.moved() == set()


def test_every_kind_of_thing_that_happens_to_a_worker():
    cell = Cell()
    cell.kernel.watched = True
    client, worker = ClientPeer(cell), WorkerPeer(cell)
    cell.settle()
    assert cell.kernel.moved() == {"w1"}
    client.submit(a_spec(1))
    cell.settle()
    assert cell.kernel.moved() == {"w1"}, "it was given a task"
    assert cell.kernel.moved() == set(), "that has been told"
    worker.finish()
    cell.settle()
    assert cell.kernel.moved() == {"w1"}, "it has reported"
    cell.kernel.offer(PauseWorker(TENANT, PRINCIPAL, "w1", ""))
    cell.turn()
    assert cell.kernel.moved() == {"w1"}, "an operator has paused it"
    worker.disconnect()
    cell.turn()
    assert cell.kernel.moved() == {"w1"}, "its stream has ended"
    client.submit(a_spec(2, "nobody_offers"))
    cell.settle()
    assert cell.kernel.moved() == set()


def test_a_cancel_and_a_time_out_are_about_the_worker_that_had_the_attempt():
    cell = Cell()
    cell.kernel.watched = True
    client = ClientPeer(cell)
    WorkerPeer(cell)
    client.submit(a_spec(1))
    cell.settle()
    cell.kernel.moved()
    cell.now_ns += 10**12
    cell.turn()
    assert "w1" in cell.kernel.moved()


def test_nothing_is_told_before_it_is_durable():
    cell = Cell()
    cell.kernel.watched = True
    client = ClientPeer(cell)
    WorkerPeer(cell)
    cell.settle()
    cell.kernel.moved()
    client.submit(a_spec(1))
    while not cell.pending:
        client.pump()
        cell.step()
    assert cell.kernel.moved() == set()
    cell.commit()
    assert cell.kernel.moved() == {"w1"}
