"""What is joined while nobody takes it: the newest counts, log lines add up, and all of it is bounded."""

from hypothesis import given
from hypothesis import strategies as st

from merit.model.frames import ServerFrame, Settled, Update
from merit.model.limits import FRAME_ITEMS_MAX, LOG_LINES_MAX, MESSAGE_BYTES_MAX
from merit.model.tasks import Progress, TaskState
from merit.session.newest import (
    LEFT_OUT,
    LOG_BYTES_MAX,
    NEWEST_BYTES_MAX,
    NEWEST_FRAME_BYTES_MAX,
    Newest,
    log_tail,
    newer_progress,
    newer_update,
)
from merit.session.server_end import ServerEnd
from merit.session.worker_end import WorkerEnd
from merit.testing.builders import an_id, an_offer, completed
from merit.wire.frames import encode_server_frame, encode_worker_frame

RUNNING = TaskState.RUNNING


@given(st.lists(st.text(max_size=20), max_size=3 * LOG_LINES_MAX))
def test_the_last_lines_are_kept_and_a_mark_says_that_there_were_others(lines):
    tail = log_tail(lines)
    assert len(tail) <= LOG_LINES_MAX
    if len(lines) <= LOG_LINES_MAX:
        assert tail == tuple(lines)
    else:
        assert tail == (LEFT_OUT, *lines[1 - LOG_LINES_MAX :])


def test_long_lines_are_bounded_by_what_they_take():
    tail = log_tail(["x" * (LOG_BYTES_MAX // 4)] * 10)
    assert tail[0] == LEFT_OUT
    assert 2 <= len(tail) <= 5
    assert log_tail(["x" * (2 * LOG_BYTES_MAX)]) == ("x" * (2 * LOG_BYTES_MAX),), "one is always let through"


@given(
    st.lists(
        st.tuples(st.sampled_from("abc"), st.sampled_from([-1.0, 0.2, 0.7]), st.lists(st.just("line"), max_size=2)),
        max_size=30,
    )
)
def test_of_each_key_the_newest_word_is_kept_and_every_line(said):
    waiting: Newest[str, Progress] = Newest(newer_progress)
    fraction: dict[str, float] = {}
    lines: dict[str, int] = {}
    for key, how_far, log in said:
        waiting.put(key, Progress(key, 1, how_far, "", tuple(log)))
        fraction[key] = how_far if how_far >= 0 else fraction.get(key, -1.0)
        lines[key] = lines.get(key, 0) + len(log)
    taken = waiting.take()
    assert [note.task for note in taken] == list(fraction), "in the order in which they came"
    assert {note.task: note.fraction for note in taken} == fraction
    assert {note.task: len(note.log) for note in taken} == lines
    assert waiting.size_bytes == len(waiting) == 0


def test_how_far_an_attempt_was_does_not_hold_for_the_next_one():
    half = Update("t", RUNNING, 1, "w", 0.5, "half")
    beat = Update("t", RUNNING, 1, "w", log=("x",))
    again = Update("t", TaskState.ASSIGNED, 2, "w")
    assert newer_update(half, beat) == Update("t", RUNNING, 1, "w", 0.5, "half", ("x",))
    assert newer_update(half, again) == again


@given(st.randoms(use_true_random=True))
def test_what_waits_is_bounded_and_goes_out_in_bounded_portions(rng):
    waiting: Newest[str, Update] = Newest(newer_update)
    lines = ("x" * (LOG_BYTES_MAX // 8),) * 6
    for _ in range(rng.randint(1, 400)):
        key = str(rng.randint(0, 300))
        waiting.put(key, Update(key, RUNNING, log=lines[: rng.randint(0, 6)]))
        assert waiting.size_bytes <= NEWEST_BYTES_MAX
    for key in rng.sample(range(300), 50):
        waiting.drop(str(key))
    while waiting:
        size, count = waiting.size_bytes, len(waiting)
        taken = waiting.take()
        assert len(taken) == 1 or size - waiting.size_bytes <= NEWEST_FRAME_BYTES_MAX
        assert len(taken) + len(waiting) == count
    assert waiting.size_bytes == 0
    assert waiting.take() == []


def test_when_there_is_too_much_log_lines_are_left_out_before_anything_else():
    waiting: Newest[str, Update] = Newest(newer_update)
    line = "x" * (LOG_BYTES_MAX - 100)
    many = 2 * NEWEST_BYTES_MAX // LOG_BYTES_MAX
    for number in range(many):
        waiting.put(str(number), Update(str(number), RUNNING, log=(line,)))
    taken = []
    while waiting:
        taken += waiting.take()
    assert len(taken) == many
    assert taken[0].log == (LEFT_OUT,)


def test_a_client_that_does_not_read_costs_no_more_than_the_bound_and_gets_what_it_can():
    end = ServerEnd(tenant="t")
    assert (end.tenant, ServerEnd().tenant) == ("t", "default")
    line = "x" * 1_000
    for number in range(1_000):
        for step in range(10):
            end.update(Update(an_id(number), RUNNING, 1, "w", step / 10, "", (line,)))
    end.outcome(Settled(an_id(0), TaskState.COMPLETED))
    frame = end.frame()
    assert frame is not None
    assert frame.updates
    assert frame.outcomes, "which are not kept back by it"
    assert encode_server_frame(frame).ByteSize() < MESSAGE_BYTES_MAX
    assert {update.fraction for update in frame.updates} == {0.9}
    assert end._updates.size_bytes <= NEWEST_BYTES_MAX


def test_nothing_is_gathered_for_a_stream_that_ends():
    end = ServerEnd()
    end.refuse("go away")
    end.update(Update("t", RUNNING))
    assert len(end._updates) == 0


def test_an_acknowledgement_never_overtakes_the_word_that_a_submit_is_known():
    end = ServerEnd()
    for number in range(2):
        end.outcome(Settled(an_id(number), TaskState.DEAD))
        end.frame()
    end._link.admit(1, 0)
    end.known(an_id(5), an_id(4))
    end.durable(1)
    assert end.frame() is None, "the window is closed, and the word has to come first"
    end._link.admit(0, 1)
    assert end.frame() == ServerFrame(3, 1, known=[(an_id(5), an_id(4))])


def test_notes_of_a_worker_with_much_to_say_go_out_in_frames_that_are_received():
    worker = WorkerEnd("w", "b", (an_offer(),), 1_000)
    worker.connect()
    line = "x" * 4_000
    for number in range(1_000):
        worker._held[an_id(number), 1] = True
        for part in range(3):
            worker.progressed(Progress(an_id(number), 1, part / 3, "", (line,) * 5))
    worker.progressed(Progress(an_id(5_000), 1, 0.5, "", (line,)))  # not held: nobody wants to know
    seen: list[Progress] = []
    for ack in range(1, 100):
        frame = worker.frame()
        if frame is None:
            break
        assert encode_worker_frame(frame).ByteSize() < MESSAGE_BYTES_MAX
        assert len(frame.progress) <= FRAME_ITEMS_MAX
        seen += frame.progress
        worker._link.admit(0, ack)
    assert len({note.task for note in seen}) == 1_000
    assert {note.fraction for note in seen} == {2 / 3}


def test_what_was_said_of_an_attempt_that_has_ended_is_not_told():
    worker = WorkerEnd("w", "b", (an_offer(),), 2)
    worker.connect()
    worker._held[an_id(1), 1] = True
    worker.progressed(Progress(an_id(1), 1, 0.5))
    worker.ended(completed(1))
    frame = worker.frame()
    assert frame is not None
    assert not frame.progress
