"""Events and state as bytes: what is written can be read, of old versions too, and anything else is named."""

from types import UnionType
from typing import get_args, get_origin, get_type_hints

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from merit.core.codec import (
    UPGRADES,
    UnreadableEvent,
    decode_event,
    decode_state,
    encode_event,
    encode_state,
    fold,
)
from merit.core.lifecycles import IllegalTransition
from merit.core.state import State
from merit.core.story import story, story_of_task
from merit.model.events import Event, TaskReleased, WorkerLeft
from merit.model.record import NO_HASH, seal
from merit.testing.builders import (
    a_machine,
    a_spec,
    allocate,
    an_id,
    attach,
    cancel,
    completed,
    failed,
    say,
    submit,
    tick,
)

pack = msgspec.msgpack.encode


def built(kind):
    """Any value of a type; Hypothesis would make any integer, and what a message can hold is 64 bits."""
    if kind is int:
        return st.integers(0, 2**63)
    if isinstance(kind, type) and issubclass(kind, msgspec.Struct):
        return st.builds(kind, **{name: built(hint) for name, hint in get_type_hints(kind).items()})
    if get_origin(kind) is tuple and get_args(kind)[-1] is ...:
        return st.lists(built(get_args(kind)[0]), max_size=3).map(tuple)
    if get_origin(kind) is tuple:
        return st.tuples(*map(built, get_args(kind)))
    if isinstance(kind, UnionType):
        return st.one_of(*map(built, get_args(kind)))
    return st.from_type(kind)


@pytest.mark.parametrize("kind", Event.__subclasses__())
def test_every_event_can_be_written_and_read(kind):
    @given(built(kind))
    @settings(max_examples=30)
    def check(event):
        assert decode_event(encode_event(event)) == event

    check()


def test_an_event_of_an_older_version_is_upgraded_step_by_step():
    upgrades = {
        "WorkerWent": lambda raw: ["WorkerLeft/0", raw[1], "bye"],
        "WorkerLeft/0": lambda raw: ["WorkerLeft", raw[1], False, raw[2]],
    }
    assert decode_event(pack(["WorkerWent", "w1"]), upgrades) == WorkerLeft("w1", False, "bye")
    assert decode_event(pack(["WorkerLeft/0", "w1", "x"]), upgrades) == WorkerLeft("w1", False, "x")


def test_a_record_with_older_events_folds(monkeypatch):
    monkeypatch.setitem(UPGRADES, "TaskReleasedLongAgo", lambda raw: ["TaskReleased", raw[1]])
    record = seal("cell", 1, 1, "leader", 1, NO_HASH, [pack(["TaskReleasedLongAgo", "t1"])])
    with pytest.raises(IllegalTransition, match="TaskReleased cannot happen to task t1"):
        fold(State(), record)


def test_a_newer_event_is_named():
    with pytest.raises(UnreadableEvent, match=r"event 'TaskTeleported/3'.*newer version"):
        decode_event(pack(["TaskTeleported/3", 1, 2]))


@given(st.one_of(st.binary(max_size=200), st.recursive(st.none() | st.text() | st.integers(0, 9), st.lists).map(pack)))
def test_garbage_is_no_event_and_no_state(data):
    with pytest.raises(UnreadableEvent):
        decode_event(data)
    with pytest.raises(ValueError, match="not a snapshot"):
        decode_state(data)


@pytest.mark.parametrize(
    "data",
    [b"\x91" * 100_000, pack(["TaskReleased", "x"])[:-1] + b"\xff", pack({"a": 1}), pack(["TaskReleased"]), b""],
    ids=["deep", "no text", "a map", "fields missing", "nothing"],
)
def test_damaged_events_are_named_too(data):
    with pytest.raises(UnreadableEvent):
        decode_event(data)


def test_a_snapshot_that_contradicts_itself_is_refused():
    machine = a_machine()
    submit(machine, a_spec(1))
    cancel(machine, 1)
    raw = msgspec.msgpack.decode(encode_state(machine.state))
    raw[11] = []
    with pytest.raises(ValueError, match="not a snapshot"):
        decode_state(pack(raw))


def test_fields_that_were_added_later_have_their_defaults():
    event = encode_event(TaskReleased("t"))
    assert decode_event(event) == decode_event(pack([*msgspec.msgpack.decode(event), "of the future"]))


def test_a_record_that_does_not_follow_is_refused():
    with pytest.raises(ValueError, match="record 5 does not follow a state at 0"):
        fold(State(), seal("cell", 5, 1, "leader", 1, NO_HASH, [b""]))


def test_the_story_of_a_task_names_every_step():
    machine = a_machine()
    events = [*attach(machine).events, *submit(machine, a_spec(1)).events]
    allocate(machine)
    events += [*machine.events, *say(machine, reports=[failed(1)]).events]
    due_ns = machine.next_due_ns()
    assert due_ns is not None
    events += tick(machine, due_ns).events
    allocate(machine)
    events += [*machine.events, *say(machine, reports=[completed(1, 2)]).events]
    told = [
        (sequence, name) for sequence, _, name, _ in story(((n, 0, event) for n, event in enumerate(events)), an_id(1))
    ]
    assert [name for _, name in told] == [
        "TaskSubmitted",
        "AttemptAssigned",
        "AttemptFailed",
        "TaskDelayed",
        "TaskReleased",
        "AttemptAssigned",
        "TaskCompleted",
    ]
    lines = story_of_task(machine.state.tasks[an_id(1)])
    assert [line.split(" s ")[1] for line in lines] == [
        "submitted by tester for echo, MEDIUM",
        "attempt 1 on w1 assigned",
        "attempt 1 on w1 FAILED: attempt 1 went wrong",
        "attempt 2 on w1 assigned",
        "attempt 2 on w1 COMPLETED",
        "COMPLETED",
    ]
