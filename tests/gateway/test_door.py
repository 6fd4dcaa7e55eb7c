"""The door with frames of anybody's making: it refuses, or ends the stream; nothing else ever comes out of it."""

import contextlib

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from merit.gateway.door import Door
from merit.gateway.json_check import BadJson, check_json
from merit.gateway.schemas import REASON_LENGTH_MAX, BadSchema, Schemas
from merit.model.frames import ClientFrame, ClientHello, Hello, Report, ReportStatus, WorkerFrame
from merit.model.ids import is_task_id, make_id
from merit.model.limits import JSON_DEPTH_MAX, NAME_LENGTH_MAX
from merit.model.tasks import Failure, Priority, Progress, TaskSpec
from merit.model.workers import Offer
from merit.session.link import ProtocolViolation

SCHEMA = (
    b'{"type": "object", "properties": {"n": {"type": "integer"}, "s": {"pattern": "^(a+)+$"}}, "required": ["n"],'
    b' "additionalProperties": false}'
)
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=8,
)
jsons = values.map(msgspec.json.encode) | st.binary(max_size=30)
ids = st.builds(make_id, st.integers(0, 2**60), st.binary(min_size=10, max_size=10)) | st.text(max_size=250)
specs = st.builds(
    TaskSpec,
    id=ids,
    capability=st.sampled_from(["known", "other"]) | st.text(max_size=250),
    parameters=jsons | st.just(b'{"n": 1}'),
    parameters_blob=st.just("") | st.just("0" * 64) | st.text(max_size=70),
    priority=st.sampled_from(Priority),
    run_timeout_ns=st.integers(-(2**63), 2**63 - 1) | st.just(10**9),
    attempts_max=st.integers(0, 2**32 - 1) | st.just(4),
    after=st.lists(ids, max_size=3).map(tuple),
    description=st.text(max_size=10),
)


def missing(_digest):
    raise LookupError("there is none")


def door():
    return Door({"known": Offer("known", input_schema=SCHEMA)}, missing)


@given(st.lists(specs, max_size=4), st.lists(st.lists(specs, max_size=3), max_size=2), st.lists(ids, max_size=3))
def test_what_passes_is_in_order_and_what_does_not_is_refused_by_field(tasks, groups, others):
    frame = ClientFrame(1, 0, ClientHello("c"), list(tasks), [list(group) for group in groups], others, list(others))
    refusals = door().client_frame(frame)
    passed = [*frame.tasks, *(spec for group in frame.groups for spec in group)]
    assert len(passed) + len(refusals) == len(tasks) + sum(map(len, groups)) + sum(
        2 for other in others if not is_task_id(other)
    )
    for spec in passed:
        assert is_task_id(spec.id)
        assert isinstance(msgspec.json.decode(spec.parameters), dict)
        assert spec.run_timeout_ns > 0
        assert 1 <= spec.attempts_max <= 100
    for group in frame.groups:
        assert group in groups
    for refusal in refusals:
        assert refusal.field
        assert refusal.reason
        assert len(refusal.task) <= max(NAME_LENGTH_MAX, 250)
        assert len(refusal.reason) <= 2_000


hellos = st.builds(
    Hello,
    st.text(max_size=210),
    st.text(max_size=5),
    st.integers(0, 3),
    st.lists(
        st.builds(Offer, st.text(max_size=3), st.text(max_size=3), st.text(max_size=3), jsons, jsons), max_size=3
    ).map(tuple),
    st.integers(0, 2**32 - 1),
)
reports = st.builds(
    Report,
    st.text(max_size=5),
    st.integers(0, 5),
    st.sampled_from(ReportStatus),
    jsons,
    st.text(max_size=70),
    st.none() | st.builds(Failure, st.text(max_size=5), st.text(max_size=5)),
    trail=jsons,
)
notes = st.builds(Progress, st.text(max_size=3), st.integers(0, 3), st.floats(), st.text(max_size=5))


@given(st.none() | hellos, st.lists(reports, max_size=2), st.lists(notes, max_size=2))
def test_a_worker_frame_passes_or_breaks_the_rules(hello, some_reports, progress):
    with contextlib.suppress(ProtocolViolation):
        door().worker_frame(WorkerFrame(1, 0, hello, some_reports, [], [], progress))
        for report in some_reports:
            assert not (report.result and report.result_blob)
            if report.result:
                msgspec.json.decode(report.result)


@given(st.binary(max_size=40) | values.map(msgspec.json.encode))
def test_json_is_taken_or_refused_with_a_reason(data):
    with contextlib.suppress(BadJson):
        value = check_json(data)
        assert msgspec.json.decode(msgspec.json.encode(value)) == value


@pytest.mark.parametrize(
    ("data", "taken"),
    [
        (b"[" * JSON_DEPTH_MAX + b"]" * JSON_DEPTH_MAX, True),
        (b"[" * (JSON_DEPTH_MAX + 1) + b"]" * (JSON_DEPTH_MAX + 1), False),
        (b"[" * 100_000, False),
        (b'{"a":' * 100_000, False),
        (b'["' + b"[" * 100_000 + b'"]', True),
        (b'["\\"' + b"[" * 100_000 + b'"]', True),
        (b"NaN", False),
        (b"-Infinity", False),
        (b'"\\ud800"', False),
        (b'"\\ud83d\\ude00"', True),
        (b'"\xed\xa0\x80"', False),
        (b'"\xff"', False),
        (b"", False),
        (b"1 2", False),
        (b"9" * 60_000, False),
    ],
)
def test_what_is_json(data, taken):
    try:
        check_json(data)
    except BadJson:
        assert not taken
    else:
        assert taken


@given(st.recursive(values, lambda inner: st.fixed_dictionaries({}, optional={
    "type": st.sampled_from(["object", "string", "integr", 5]),
    "$ref": st.sampled_from(["#", "#/properties/a", "#nowhere", "other.json", "http://127.0.0.1:1/"]),
    "$schema": st.sampled_from(["https://json-schema.org/draft/2020-12/schema", "http://127.0.0.1:1/", 7]),
    "$id": st.sampled_from(["http://127.0.0.1:1/", "urn:a", ""]),
    "properties": st.dictionaries(st.sampled_from("abn"), inner, max_size=2),
    "pattern": st.sampled_from(["(", "a+", "(?=a)", "(a+)+"]),
    "items": inner,
    "not": inner,
    "enum": st.lists(values, max_size=2),
}), max_leaves=6), values)  # fmt: skip
def test_a_schema_is_taken_or_refused_and_then_judges(schema, value):
    schemas = Schemas()
    with contextlib.suppress(BadSchema):
        problem = schemas.problem(msgspec.json.encode(schema), value)
        assert problem is None or (problem[1] and len(problem[1]) <= REASON_LENGTH_MAX + 3)
