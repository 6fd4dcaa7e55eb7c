"""Commands of an operator on a worker's stream, and what a worker says of itself."""

from hypothesis import given, settings
from hypothesis import strategies as st

from merit.model.frames import CellFrame, WorkerFrame
from merit.model.limits import UNACKED_FRAMES_MAX
from merit.model.workers import Amount
from merit.session.cell_end import CellEnd
from merit.session.worker_end import WorkerEnd
from merit.testing.builders import an_offer


def attached():
    worker, cell = WorkerEnd("w", "b", (an_offer(),), 2), CellEnd()
    worker.connect()
    cell.take(frame_of(worker))
    return worker, cell


def frame_of(end):
    frame = end.frame()
    assert frame is not None
    return frame


def test_words_come_once_in_order_in_a_frame_with_content():
    worker, cell = attached()
    cell.tell(["RESET", "RETRAIN"])
    cell.tell(["RESET"])
    frame = frame_of(cell)
    assert frame.sequence
    assert frame.words == ["RESET", "RETRAIN", "RESET"]
    assert cell.frame() is None
    worker.take(frame)
    worker.take(frame)
    assert worker.words() == ["RESET", "RETRAIN", "RESET"]
    assert worker.words() == []


def test_words_count_as_heard_once_they_are_acknowledged():
    worker, cell = attached()
    cell.tell(["RESET", "RETRAIN"])
    worker.take(frame_of(cell))
    assert cell.heard() == 0
    cell.take(worker.frame(beat=True))
    assert cell.heard() == 2
    assert cell.heard() == 0


def test_words_wait_for_the_window():
    _, cell = attached()
    for number in range(UNACKED_FRAMES_MAX):
        cell.drain() if number else cell.tell(["RESET"])
        assert frame_of(cell)
    cell.tell(["RETRAIN"])
    assert cell.frame() is None
    cell.take(WorkerFrame(ack=1))
    assert cell.heard() == 1
    assert frame_of(cell).words == ["RETRAIN"]


def test_a_drain_makes_the_worker_say_that_it_drains_and_leave():
    worker, cell = attached()
    cell.durable(1)
    cell.drain()
    worker.take(frame_of(cell))
    assert worker.draining
    goodbye = None
    while goodbye is None:
        frame = frame_of(worker)
        assert frame.draining
        cell.take(frame)
        cell.durable(frame.sequence)
        worker.take(frame_of(cell))
        goodbye = frame if frame.bye else None
    assert worker.left


@given(st.randoms(use_true_random=True))
@settings(max_examples=100)
def test_no_word_is_lost_however_often_the_stream_breaks(rng):
    """Whoever says again on a new stream what was not heard on the old one reaches the worker with every word, in order."""
    said = [f"word {number}" for number in range(rng.randint(1, 20))]
    waiting = list(said)
    worker, heard = WorkerEnd("w", "b", (an_offer(),), 2), []
    told = 0
    while waiting:
        worker.connect()
        cell = CellEnd()
        cell.take(frame_of(worker))
        told = 0
        for _ in range(rng.randint(1, 30)):
            if told < len(waiting) and rng.random() < 0.5:
                cell.tell(waiting[told : told + 1])
                told += 1
            if rng.random() < 0.5 and (frame := cell.frame()) is not None:
                worker.take(frame)
                heard += worker.words()
            if rng.random() < 0.5 and (back := worker.frame(beat=True)) is not None:
                cell.take(back)
                cell.durable(back.sequence)
                gone = cell.heard()
                del waiting[:gone]
                told -= gone
        worker.disconnected()
    # Repeated are at most those at the end of what came before.
    newest = -1
    for word in heard:
        number = said.index(word)
        assert number <= newest + 1
        newest = max(newest, number)
    assert newest == len(said) - 1


def test_a_worker_says_what_it_has_and_whom_it_works_for_on_every_stream():
    capacity = (Amount("cpu", 4_000), Amount("gpu", 1_000))
    worker = WorkerEnd("w", "b", (an_offer(),), 2, ("zone-a",), capacity, ("acme",))
    for session in (1, 2):
        worker.connect()
        hello = frame_of(worker).hello
        assert hello is not None
        assert (hello.session, hello.tags, hello.capacity, hello.tenants) == (
            session,
            ("zone-a",),
            capacity,
            ("acme",),
        )


def test_no_words_cost_nothing():
    _, cell = attached()
    cell.drain()
    assert frame_of(cell) == CellFrame(1, 0, drain=True)
