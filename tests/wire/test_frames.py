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
    Update,
    Welcome,
    WorkerFrame,
)
from merit.model.limits import (
    FRAME_ITEMS_RECEIVED_MAX,
    INPUTS_MAX,
    LABELS_MAX,
    LOG_LINES_MAX,
    PREFERS_MAX,
    RESOURCES_MAX,
    TAGS_MAX,
    WORKER_TENANTS_MAX,
)
from merit.model.rules import Rule, RuleKind, TenantTerms
from merit.model.schedules import Missed, Overlap, Schedule
from merit.model.tasks import (
    Demand,
    Failure,
    Input,
    Priority,
    Progress,
    Refusal,
    RetryPolicy,
    TaskSpec,
    TaskState,
    Terms,
)
from merit.model.workers import PREFERENCE_PERMILLE_DEFAULT, Amount, Offer
from merit.wire import frames
from merit.wire import settings as settings_on_the_wire
from merit.wire.v1 import queues_pb2, schedules_pb2, tasks_pb2, worker_pb2

text = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
some = text.filter(bool)
data = st.binary(max_size=12)
int32, int64 = st.integers(-(2**31), 2**31 - 1), st.integers(-(2**63), 2**63 - 1)
uint32, uint64 = st.integers(0, 2**32 - 1), st.integers(0, 2**64 - 1)
refs = st.lists(st.builds(AttemptRef, text, uint32), max_size=3)
words = st.lists(text, max_size=3).map(tuple)
failures = st.builds(Failure, some, some, text, st.booleans())
amounts = st.lists(st.builds(Amount, text, int64), max_size=3).map(tuple)
offers = st.builds(
    Offer,
    text,
    text,
    text,
    data,
    data,
    words,
    st.booleans(),
    int64,
    resources=amounts,
    concurrency_max=uint32,
    cost_micros=int64,
    preference_permille=uint32,
    stateful=st.booleans(),
    requires=words,
)
hellos = st.builds(
    Hello,
    text,
    text,
    uint64,
    st.lists(offers, max_size=2).map(tuple),
    uint32,
    refs.map(tuple),
    words,
    amounts,
    words,
)


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


pairs = st.lists(st.tuples(text, text), max_size=3).map(tuple)
policies = st.builds(RetryPolicy, int32, int32, int32, int32, int32, int64, int64)
demands = st.builds(Demand, text, text, words, words, amounts, text, words)
terms = st.builds(
    Terms,
    int64,
    int64,
    int64,
    int64,
    int64,
    st.none() | st.just(RetryPolicy()) | policies,
    st.booleans(),
    text,
    text,
    pairs,
    st.booleans(),
    pairs,
    text,
    text,
    st.none() | st.just(Demand()) | demands,
) | st.just(Terms())
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
    int64.filter(bool),
    st.none() | terms,
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
notes = st.builds(Progress, text, uint32, st.floats(allow_nan=False), text, words)
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
inputs = st.lists(st.builds(Input, text, data, text), max_size=2).map(tuple)
assignments = st.builds(Assignment, text, uint32, text, data, text, uint64, inputs, uint64)
cell_frames = st.builds(
    CellFrame,
    uint64,
    uint64,
    st.none() | st.builds(Welcome, text, uint64, uint64),
    st.lists(assignments, max_size=3),
    refs,
    st.booleans(),
    st.lists(text, max_size=3),
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
    st.lists(text, max_size=3),
    st.lists(text, max_size=3),
)
updates = st.builds(Update, text, st.sampled_from(TaskState), uint32, text, st.floats(allow_nan=False), text, words)
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
    st.lists(updates, max_size=3),
    st.lists(st.tuples(text, text), max_size=3),
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
        tasks_pb2.ClientFrame(follow=["x"] * (FRAME_ITEMS_RECEIVED_MAX + 1)),
        tasks_pb2.ClientFrame(again=["x"] * (FRAME_ITEMS_RECEIVED_MAX + 1)),
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


def test_of_long_lists_only_as_much_is_taken_in_as_shows_that_they_are_too_long():
    many = 100_000
    spec = tasks_pb2.TaskSpec(
        terms=tasks_pb2.Terms(inputs=[tasks_pb2.TaskInput()] * many, labels=[tasks_pb2.Label()] * many)
    )
    (decoded,) = frames.decode_client_frame(tasks_pb2.ClientFrame(tasks=[spec])).tasks
    assert decoded.terms is not None
    assert (len(decoded.terms.inputs), len(decoded.terms.labels)) == (INPUTS_MAX + 1, LABELS_MAX + 1)
    note = worker_pb2.Progress(log=["x"] * many)
    (progress,) = frames.decode_worker_frame(worker_pb2.WorkerFrame(progress=[note])).progress
    assert len(progress.log) == LOG_LINES_MAX + 1


def test_of_a_demand_and_a_hello_no_more_is_taken_in_either():
    many, amount = ["x"] * 100_000, [worker_pb2.Amount()] * 100_000
    demand = tasks_pb2.Demand(tags=many, without_tags=many, resources=amount, prefers=many)
    spec = tasks_pb2.TaskSpec(terms=tasks_pb2.Terms(demand=demand))
    (decoded,) = frames.decode_client_frame(tasks_pb2.ClientFrame(tasks=[spec])).tasks
    assert decoded.terms is not None
    assert decoded.terms.demand is not None
    taken = decoded.terms.demand
    assert len(taken.tags) == len(taken.without_tags) == TAGS_MAX + 1
    assert (len(taken.resources), len(taken.prefers)) == (RESOURCES_MAX + 1, PREFERS_MAX + 1)
    capability = worker_pb2.Capability(tags=many, requires=many, resources=amount)
    message = worker_pb2.Hello(capabilities=[capability], capacity=amount, tenants=many)
    hello = frames.decode_worker_frame(worker_pb2.WorkerFrame(hello=message)).hello
    assert hello is not None
    assert (len(hello.capacity), len(hello.tenants)) == (RESOURCES_MAX + 1, WORKER_TENANTS_MAX + 1)
    (offer,) = hello.offers
    assert (len(offer.tags), len(offer.requires), len(offer.resources)) == (
        TAGS_MAX + 1,
        TAGS_MAX + 1,
        RESOURCES_MAX + 1,
    )


def test_a_worker_that_says_nothing_of_what_it_likes_is_indifferent():
    hello = worker_pb2.Hello(capabilities=[worker_pb2.Capability(name="c"), worker_pb2.Capability(name="d")])
    hello.capabilities[1].preference_permille = 0
    decoded = frames.decode_worker_frame(worker_pb2.WorkerFrame(hello=hello)).hello
    assert decoded is not None
    assert [offer.preference_permille for offer in decoded.offers] == [PREFERENCE_PERMILLE_DEFAULT, 0]


def test_a_task_without_terms_costs_no_bytes_for_them():
    plain = frames.encode_client_frame(ClientFrame(tasks=[TaskSpec("i", "c")])).tasks[0]
    assert not plain.HasField("terms")
    assert not plain.timeout_ns


@given(st.builds(Rule, st.sampled_from(RuleKind), text, uint32, uint64, st.integers(1, 2**32 - 1)))
def test_rules(rule):
    message = settings_on_the_wire.encode_rule(rule).SerializeToString()
    assert settings_on_the_wire.decode_rule(queues_pb2.Rule.FromString(message)) == rule


@given(st.builds(TenantTerms, text, st.integers(1, 2**32 - 1), uint64))
def test_tenants(tenant):
    message = settings_on_the_wire.encode_tenant(tenant, 7)
    assert message.live == 7
    assert settings_on_the_wire.decode_tenant(message) == tenant


@given(
    st.builds(Schedule, text, text, text, some, specs, st.sampled_from(Missed), st.sampled_from(Overlap), st.booleans())
)
def test_schedules(schedule):
    message = settings_on_the_wire.encode_schedule(schedule).SerializeToString()
    assert settings_on_the_wire.decode_schedule(schedules_pb2.Schedule.FromString(message)) == schedule


def test_what_is_left_out_of_a_setting_is_as_usual_and_what_is_unknown_is_named():
    schedule = settings_on_the_wire.decode_schedule(schedules_pb2.Schedule(name="n", cron="* * * * *"))
    assert (schedule.zone, schedule.missed, schedule.overlap) == ("UTC", Missed.ONE, Overlap.SKIP)
    assert settings_on_the_wire.decode_rule(queues_pb2.Rule(kind=queues_pb2.RULE_KIND_KEY)).burst == 1
    assert settings_on_the_wire.decode_tenant(queues_pb2.Tenant()).weight == 1
    unknown = schedules_pb2.Schedule.FromString(schedules_pb2.Schedule().SerializeToString() + b"\x30\x63")
    with pytest.raises(ValueError, match=r"schedule\.missed: 99"):
        settings_on_the_wire.decode_schedule(unknown)
    with pytest.raises(ValueError, match=r"rule\.kind: 0"):
        settings_on_the_wire.decode_rule(queues_pb2.Rule())
