"""Frames to bytes and back; and bytes of anybody's making."""

import contextlib
from typing import Any

import pytest
from google.protobuf.message import DecodeError
from hypothesis import given, settings
from hypothesis import strategies as st

from merit.model.frames import (
    Assignment,
    AttemptRef,
    CellFrame,
    ClientFrame,
    ClientHello,
    ClientWelcome,
    Hello,
    Report,
    ReportStatus,
    ServerFrame,
    Settled,
    Welcome,
    WorkerFrame,
)
from merit.model.limits import FRAME_ITEMS_RECEIVED_MAX
from merit.model.tasks import Failure, Priority, Progress, Refusal, TaskSpec, TaskState
from merit.model.workers import Offer
from merit.wire import frames
from merit.wire.v1 import tasks_pb2, worker_pb2

text = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
some = text.filter(bool)
data = st.binary(max_size=12)
uint32, uint64 = st.integers(0, 2**32 - 1), st.integers(0, 2**64 - 1)
refs = st.lists(st.builds(AttemptRef, text, uint32), max_size=3)
words = st.lists(text, max_size=3).map(tuple)
failures = st.builds(Failure, some, some, text, st.booleans())
offers = st.builds(Offer, text, text, text, data, data, words)
hellos = st.builds(Hello, text, text, uint64, st.lists(offers, max_size=2).map(tuple), uint32, refs.map(tuple), words)


def reports(status):
    failed = status is not ReportStatus.COMPLETED
    return st.builds(
        Report,
        text,
        uint32,
        st.just(status),
        data,
        text,
        failures if failed else st.none(),
        uint64,
        uint64,
        uint64,
        data,
    )


specs = st.builds(
    TaskSpec,
    text,
    text,
    data,
    text,
    st.sampled_from(Priority),
    st.integers(-(2**63), 2**63 - 1).filter(bool),
    st.integers(1, 2**32 - 1),
    words,
    text,
)
settled = st.sampled_from(TaskState).flatmap(
    lambda state: st.builds(
        Settled,
        text,
        st.just(state),
        data,
        text,
        failures if state is TaskState.DEAD else st.none(),
        uint32,
        text,
    )
)
several = st.sampled_from(ReportStatus).flatmap(reports)
notes = st.builds(Progress, text, uint32, st.floats(allow_nan=False), text)
worker_frames = st.builds(
    WorkerFrame,
    uint64,
    uint64,
    st.none() | hellos,
    st.lists(several, max_size=3),
    refs,
    refs,
    st.lists(notes, max_size=2),
    uint64,
    st.booleans(),
    st.booleans(),
)
assignments = st.builds(Assignment, text, uint32, text, data, text, uint64)
cell_frames = st.builds(
    CellFrame,
    uint64,
    uint64,
    st.none() | st.builds(Welcome, text, uint64, uint64),
    st.lists(assignments, max_size=3),
    refs,
    st.booleans(),
    text,
    st.booleans(),
)
client_frames = st.builds(
    ClientFrame,
    uint64,
    uint64,
    st.none() | st.builds(ClientHello, text),
    st.lists(specs, max_size=3),
    st.lists(st.lists(specs, max_size=2), max_size=2),
    st.lists(text, max_size=3),
    st.lists(text, max_size=3),
)
refusals = st.builds(Refusal, text, text, text, text, uint64)
server_frames = st.builds(
    ServerFrame,
    uint64,
    uint64,
    st.none() | st.builds(ClientWelcome, text, uint64),
    st.lists(refusals, max_size=3),
    st.lists(settled, max_size=3),
    text,
    st.booleans(),
)

WAYS: dict[str, tuple[Any, Any, Any, Any]] = {
    "worker": (frames.encode_worker_frame, frames.decode_worker_frame, worker_pb2.WorkerFrame, worker_frames),
    "cell": (frames.encode_cell_frame, frames.decode_cell_frame, worker_pb2.CellFrame, cell_frames),
    "client": (frames.encode_client_frame, frames.decode_client_frame, tasks_pb2.ClientFrame, client_frames),
    "server": (frames.encode_server_frame, frames.decode_server_frame, tasks_pb2.ServerFrame, server_frames),
}


@pytest.mark.parametrize("kind", WAYS)
@settings(max_examples=50)
@given(st.data())
def test_what_is_sent_is_what_comes(kind, given_data):
    encode, decode, message, strategy = WAYS[kind]
    frame = given_data.draw(strategy)
    assert decode(message.FromString(encode(frame).SerializeToString())) == frame


def _mutated(raw, given_data):
    """Bytes as they are, cut off, doubled, or with some of them changed."""
    for _ in range(given_data.draw(st.integers(0, 4))):
        place = given_data.draw(st.integers(0, max(0, len(raw) - 1)))
        kind = given_data.draw(st.sampled_from(["set", "cut", "insert", "double"]))
        if kind == "set" and raw:
            raw = raw[:place] + given_data.draw(st.binary(min_size=1, max_size=1)) + raw[place + 1 :]
        elif kind == "cut":
            raw = raw[:place]
        elif kind == "insert":
            raw = raw[:place] + given_data.draw(st.binary(max_size=8)) + raw[place:]
        elif kind == "double":
            raw += raw[:place]
    return raw


@pytest.mark.parametrize("kind", WAYS)
@settings(max_examples=50)
@given(st.data())
def test_any_bytes_are_a_frame_or_a_value_error(kind, given_data):
    encode, decode, message, strategy = WAYS[kind]
    raw = given_data.draw(st.binary(max_size=60) | strategy.map(lambda frame: encode(frame).SerializeToString()))
    with contextlib.suppress(DecodeError):
        decoded = message.FromString(_mutated(raw, given_data))
        with contextlib.suppress(ValueError):
            frame = decode(decoded)
            # Whatever was let in can be said again.
            assert message.FromString(encode(frame).SerializeToString())


@pytest.mark.parametrize(
    "message",
    [
        tasks_pb2.ClientFrame(watch=["x"] * (FRAME_ITEMS_RECEIVED_MAX + 1)),
        tasks_pb2.ClientFrame(tasks=[tasks_pb2.TaskSpec()] * (FRAME_ITEMS_RECEIVED_MAX + 1)),
        tasks_pb2.ClientFrame(groups=[tasks_pb2.TaskGroup(tasks=[tasks_pb2.TaskSpec()] * 40_000)] * 2),
    ],
)
def test_a_client_frame_of_too_many_items_is_refused(message):
    with pytest.raises(ValueError, match="items"):
        frames.decode_client_frame(message)


def test_a_worker_frame_of_too_many_items_is_refused():
    ref = worker_pb2.AttemptRef(task_id="x", number=1)
    half = [ref] * (FRAME_ITEMS_RECEIVED_MAX // 2 + 1)
    with pytest.raises(ValueError, match="items"):
        frames.decode_worker_frame(worker_pb2.WorkerFrame(started=half, returned=half))
    with pytest.raises(ValueError, match="items"):
        frames.decode_worker_frame(worker_pb2.WorkerFrame(hello=worker_pb2.Hello(held=half + half)))
