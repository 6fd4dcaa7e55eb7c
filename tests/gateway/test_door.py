"""The door with frames of anybody's making: it refuses, or ends the stream; nothing else ever comes out of it."""

import contextlib
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from merit.allocation.versions import matches, problem_of_range
from merit.gateway.door import Door
from merit.gateway.fields import BadField
from merit.gateway.schemas import REASON_LENGTH_MAX, BadSchema, Schemas
from merit.gateway.terms_check import in_normal_form
from merit.model.frames import ClientFrame, ClientHello, Hello, Report, ReportStatus, WorkerFrame
from merit.model.ids import is_task_id, make_id
from merit.model.json_check import BadJson, check_json
from merit.model.limits import (
    AMOUNT_THOUSANDTHS_MAX,
    ATTEMPTS_MAX,
    CONCURRENCY_MAX,
    COST_MICROS_MAX,
    INPUTS_MAX,
    JSON_DEPTH_MAX,
    LABELS_MAX,
    LOG_LINES_MAX,
    NAME_LENGTH_MAX,
    PREFERS_MAX,
    RESOURCES_MAX,
    SECOND_NS,
    TAGS_MAX,
    TIMEOUT_NS_MAX,
    WORKER_TENANTS_MAX,
)
from merit.model.tasks import Demand, Failure, Priority, Progress, RetryPolicy, Review, ReviewKind, TaskSpec, Terms
from merit.model.workers import Amount, Offer
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
NOW_NS = 1_700_000_000 * SECOND_NS
ns = st.integers(-(2**63), 2**63 - 1) | st.integers(0, 10**12)
counts = st.integers(-(2**31), 2**31 - 1) | st.integers(-1, ATTEMPTS_MAX)
pairs = st.lists(st.tuples(st.text(max_size=3), ids | st.text(max_size=3)), max_size=3).map(tuple)
amounts = st.lists(st.builds(Amount, st.sampled_from(["cpu", "gpu", ""]), ns), max_size=3).map(tuple)
tags = st.lists(st.sampled_from(["a", "b", "c", ""]), max_size=3).map(tuple)
demands = st.builds(
    Demand,
    st.sampled_from(["", ">=1.2,<2", "latest"]) | st.text(max_size=210),
    st.text(max_size=210),
    tags,
    tags,
    amounts,
    st.text(max_size=210),
    tags,
)
terms = st.builds(
    Terms,
    not_before_ns=ns,
    deadline_ns=ns,
    queue_timeout_ns=ns,
    heartbeat_timeout_ns=ns,
    estimate_ns=ns,
    retry=st.none() | st.builds(RetryPolicy, counts, counts, counts, counts, counts, ns, ns),
    key=st.text(max_size=210),
    idempotency_key=st.text(max_size=210),
    inputs=pairs,
    labels=pairs,
    origin=st.just("") | st.text(max_size=3),
    schedule=st.just("") | st.text(max_size=3),
    demand=st.none() | demands,
)
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
    timeout_ns=ns | st.just(10**9),
    terms=st.none() | terms,
)


def missing(_digest):
    raise LookupError("there is none")


def door():
    return Door({"known": Offer("known", input_schema=SCHEMA)}, missing, lambda: NOW_NS)


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
        assert 0 < spec.timeout_ns <= TIMEOUT_NS_MAX
        if spec.terms is not None:
            assert {task_id for _, task_id in spec.terms.inputs} <= set(spec.after)
            assert not spec.terms.origin
            assert not spec.terms.schedule
            if spec.terms.demand is not None:
                demand = spec.terms.demand
                assert problem_of_range(demand.versions) is None
                assert not set(demand.tags) & set(demand.without_tags)
                assert all(amount.name and amount.thousandths >= 0 for amount in demand.resources)
        assert in_normal_form(spec) == spec
    for group in frame.groups:
        assert group in [[in_normal_form(spec) for spec in given] for given in groups]
    for refusal in refusals:
        assert refusal.field
        assert refusal.reason
        assert len(refusal.task) <= max(NAME_LENGTH_MAX, 250)
        assert len(refusal.reason) <= 2_000


ONE, OTHER = (make_id(SECOND_NS * number, bytes(10)) for number in (1, 2))
TOO_FAR_NS = NOW_NS + TIMEOUT_NS_MAX + 1


def a_task(**fields):
    return TaskSpec(**{"id": make_id(SECOND_NS * 3, bytes(10)), "capability": "other", **fields})


BAD_TERMS: dict[str, tuple[dict[str, Any], str]] = {
    "a time-out of nothing": ({"timeout_ns": -1}, "timeout_ns"),
    "a time-out of centuries": ({"timeout_ns": TIMEOUT_NS_MAX + 1}, "timeout_ns"),
    "a start before time began": ({"terms": Terms(not_before_ns=-1)}, "terms.not_before_ns"),
    "a start in centuries": ({"terms": Terms(not_before_ns=TOO_FAR_NS)}, "terms.not_before_ns"),
    "a deadline in centuries": ({"terms": Terms(deadline_ns=TOO_FAR_NS)}, "terms.deadline_ns"),
    "a deadline before the start": ({"terms": Terms(not_before_ns=NOW_NS, deadline_ns=NOW_NS)}, "terms.deadline_ns"),
    "a queue time-out below nothing": ({"terms": Terms(queue_timeout_ns=-1)}, "terms.queue_timeout_ns"),
    "a heartbeat below nothing": ({"terms": Terms(heartbeat_timeout_ns=-1)}, "terms.heartbeat_timeout_ns"),
    "an estimate below nothing": ({"terms": Terms(estimate_ns=-1)}, "terms.estimate_ns"),
    "too many retries": ({"terms": Terms(retry=RetryPolicy(silent=101))}, "terms.retry.silent"),
    "retries below all": ({"terms": Terms(retry=RetryPolicy(lost=-2))}, "terms.retry.lost"),
    "a back-off below nothing": ({"terms": Terms(retry=RetryPolicy(backoff_ns=-1))}, "terms.retry.backoff_ns"),
    "a back-off above its own bound": (
        {"terms": Terms(retry=RetryPolicy(backoff_ns=2, backoff_ns_max=1))},
        "terms.retry.backoff_ns_max",
    ),
    "a long key": ({"terms": Terms(key="x" * 201)}, "terms.key"),
    "a key with controls": ({"terms": Terms(key="a\0")}, "terms.key"),
    "a long idempotency key": ({"terms": Terms(idempotency_key="x" * 201)}, "terms.idempotency_key"),
    "too many labels": (
        {"terms": Terms(labels=tuple((str(n), "") for n in range(LABELS_MAX + 1)))},
        "terms.labels",
    ),
    "a label without a name": ({"terms": Terms(labels=(("", "v"),))}, "terms.labels.name"),
    "a long label": ({"terms": Terms(labels=(("n", "x" * 201),))}, "terms.labels.value"),
    "a label twice": ({"terms": Terms(labels=(("n", "1"), ("n", "2")))}, "terms.labels"),
    "too many inputs": (
        {"terms": Terms(inputs=tuple((str(n), ONE) for n in range(INPUTS_MAX + 1))), "after": (ONE,)},
        "terms.inputs",
    ),
    "an input without a name": ({"terms": Terms(inputs=(("", ONE),)), "after": (ONE,)}, "terms.inputs.name"),
    "an input from nowhere": ({"terms": Terms(inputs=(("a", "x"),))}, "terms.inputs.task_id"),
    "an input that is not waited for": (
        {"terms": Terms(inputs=(("a", OTHER),)), "after": (ONE,)},
        "terms.inputs.task_id",
    ),
    "an input twice": (
        {"terms": Terms(inputs=(("a", ONE), ("a", OTHER))), "after": (ONE, OTHER)},
        "terms.inputs",
    ),
    "an input that is a parameter": (
        {"terms": Terms(inputs=(("a", ONE),)), "after": (ONE,), "parameters": b'{"a": 1}'},
        "terms.inputs",
    ),
    "somebody else's origin": ({"terms": Terms(origin=ONE)}, "terms.origin"),
    "somebody else's schedule": ({"terms": Terms(schedule="s")}, "terms.schedule"),
    "somebody else's review": ({"terms": Terms(review=Review(ReviewKind.JUDGE, ONE))}, "terms.review"),
}
BAD_DEMANDS: dict[str, tuple[Demand, str, str]] = {
    "no range of versions": (Demand(versions="newest"), "versions", "write >=1.2,<2"),
    "a range as long as a book": (Demand(versions=">=1," * 1_000), "versions", "200 at most"),
    "a worker with a long name": (Demand(worker="x" * 201), "worker_id", "200"),
    "a worker with controls": (Demand(worker="a\0"), "worker_id", "control"),
    "a strategy with a long name": (Demand(strategy="x" * 201), "strategy", "200"),
    "too many tags": (Demand(tags=tuple(map(str, range(TAGS_MAX + 1)))), "tags", "more than 64"),
    "an empty tag": (Demand(tags=("",)), "tags", "1 to 200"),
    "a tag twice": (Demand(tags=("a", "a")), "tags", "'a' stands twice"),
    "too many tags not to have": (Demand(without_tags=tuple(map(str, range(65)))), "without_tags", "more than 64"),
    "a tag not to have twice": (Demand(without_tags=("a", "a")), "without_tags", "'a' stands twice"),
    "a tag to have and not to have": (Demand(tags=("a",), without_tags=("a",)), "without_tags", "could never run"),
    "too many resources": (
        Demand(resources=tuple(Amount(str(number), 1) for number in range(RESOURCES_MAX + 1))),
        "resources",
        "more than 16",
    ),
    "a resource without a name": (Demand(resources=(Amount("", 1),)), "resources", "1 to 200"),
    "a resource twice": (Demand(resources=(Amount("gpu", 1), Amount("gpu", 2))), "resources", "'gpu' stands twice"),
    "less than nothing": (Demand(resources=(Amount("gpu", -1),)), "resources", "-1 thousandths of gpu"),
    "more than there is": (
        Demand(resources=(Amount("gpu", AMOUNT_THOUSANDTHS_MAX + 1),)),
        "resources",
        "thousandths of gpu are not 0 to",
    ),
    "too many preferences": (Demand(prefers=tuple(map(str, range(PREFERS_MAX + 1)))), "prefers", "more than 16"),
    "a preference twice": (Demand(prefers=("a", "a")), "prefers", "'a' stands twice"),
}


@pytest.mark.parametrize("kind", BAD_DEMANDS)
def test_bad_demands_are_refused_by_field(kind):
    demand, field, reason = BAD_DEMANDS[kind]
    (refusal,) = door().client_frame(ClientFrame(tasks=[a_task(terms=Terms(demand=demand))]))
    assert (refusal.code, refusal.field) == ("invalid", f"terms.demand.{field}")
    assert reason in refusal.reason
    assert len(refusal.reason) < 500


@pytest.mark.parametrize("kind", BAD_TERMS)
def test_bad_terms_are_refused_by_field(kind):
    fields, field = BAD_TERMS[kind]
    (refusal,) = door().client_frame(ClientFrame(tasks=[a_task(**fields)]))
    assert (refusal.code, refusal.field) == ("invalid", field)
    assert 0 < len(refusal.reason) < 500


def test_what_is_asked_for_beyond_the_usual_passes():
    frame = ClientFrame(
        tasks=[
            a_task(
                timeout_ns=TIMEOUT_NS_MAX,
                after=(ONE, OTHER),
                terms=Terms(
                    NOW_NS + 1,
                    NOW_NS + TIMEOUT_NS_MAX,
                    1,
                    1,
                    1,
                    RetryPolicy(0, 1, 2, -1, 100, 1, 2),
                    False,
                    "key",
                    "once",
                    (("a", ONE), ("b", ONE), ("c", OTHER)),
                    True,
                    (("team", "red"), ("empty", "")),
                    demand=Demand(
                        ">=1.2, <2",
                        "worker-1",
                        ("gpu", "zone-a"),
                        ("spot",),
                        (Amount("cpu", 500), Amount("gpu", 0)),
                        "two-choices",
                        ("zone-a",),
                    ),
                ),
            )
        ]
    )
    assert door().client_frame(frame) == []
    assert len(frame.tasks) == 1


SPELLINGS: dict[str, tuple[Demand | None, list[Demand | None]]] = {
    "versions": (Demand(">=1.2,<2"), [Demand("<2,>=1.2"), Demand(" >= 1.2 , < 2"), Demand(">=1.2,*,<2")]),
    "tags": (Demand(tags=("a", "b"), without_tags=("c", "d")), [Demand(tags=("b", "a"), without_tags=("d", "c"))]),
    "resources": (
        Demand(resources=(Amount("cpu", 1), Amount("gpu", 0))),
        [Demand(resources=(Amount("gpu", 0), Amount("cpu", 1)))],
    ),
    "nothing": (None, [None, Demand(), Demand("*"), Demand(" "), Demand("==*, *")]),
}


@pytest.mark.parametrize("kind", SPELLINGS)
def test_what_asks_the_same_of_a_worker_is_the_same_from_here_on(kind):
    asked, spellings = SPELLINGS[kind]
    for spelling in [asked, *spellings]:
        spec = a_task(terms=Terms(key="k", demand=spelling))
        frame = ClientFrame(tasks=[spec], groups=[[spec]])
        assert door().client_frame(frame) == []
        for passed in (*frame.tasks, *frame.groups[0], door().template(replace(spec, id=""))):
            assert passed.terms == Terms(key="k", demand=asked)


def test_where_it_would_rather_be_done_keeps_its_order():
    spec = a_task(terms=Terms(demand=Demand(prefers=("z", "a"))))
    assert in_normal_form(spec) == spec


@given(demands)
def test_the_normal_form_says_the_same(demand):
    spec = a_task(terms=Terms(demand=demand))
    if door().client_frame(ClientFrame(tasks=[spec])):
        return
    made = in_normal_form(spec)
    assert in_normal_form(made) == made
    assert made.terms is not None
    other = made.terms.demand or Demand()
    for version in ("1.0.0", "1.2.0", "2.0.0-rc.1", "2.1.0", "none"):
        assert matches(other.versions, version) == matches(demand.versions, version)
    assert (other.worker, other.strategy, other.prefers) == (demand.worker, demand.strategy, demand.prefers)
    for field in ("tags", "without_tags", "resources"):
        assert sorted(getattr(other, field)) == sorted(getattr(demand, field))


def test_what_passed_once_passes_when_it_is_said_again_later():
    """A client says it again after an interruption: what was taken in must not be refused then."""
    frame = ClientFrame(tasks=[a_task(terms=Terms(NOW_NS, NOW_NS + 1))])
    later = Door({}, missing, lambda: NOW_NS + 10**6 * SECOND_NS)
    assert later.client_frame(frame) == []


def test_parameters_that_results_complete_are_left_to_the_worker():
    spec = a_task(capability="known", parameters=b"{}", after=(ONE,), terms=Terms(inputs=(("n", ONE),)))
    assert door().client_frame(ClientFrame(tasks=[spec])) == []
    (refusal,) = door().client_frame(ClientFrame(tasks=[a_task(capability="known", parameters=b"{}")]))
    assert refusal.field == "parameters"


def test_only_tasks_can_be_followed():
    frame = ClientFrame(follow=["x", ONE])
    (refusal,) = door().client_frame(frame)
    assert (refusal.task, refusal.field) == ("x", "follow")
    assert frame.follow == [ONE]


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"id": ONE}, "id"),
        ({"after": (ONE,)}, "after"),
        ({"terms": Terms(idempotency_key="k")}, "terms.idempotency_key"),
        ({"terms": Terms(not_before_ns=NOW_NS)}, "terms.not_before_ns"),
        ({"terms": Terms(deadline_ns=NOW_NS)}, "terms.deadline_ns"),
        ({"terms": Terms(schedule="other")}, "terms.schedule"),
        ({"capability": ""}, "capability"),
        ({"capability": "known", "parameters": b'{"n": "1"}'}, "parameters.n"),
        ({"run_timeout_ns": -1}, "run_timeout_ns"),
        ({"terms": Terms(demand=Demand(versions="newest"))}, "terms.demand.versions"),
    ],
)
def test_a_template_is_checked_like_a_task_and_has_nothing_that_only_one_task_can_have(fields, field):
    with pytest.raises(BadField) as raised:
        door().template(TaskSpec(**{"id": "", "capability": "other", **fields}))
    assert raised.value.field == f"schedule.template.{field}"


def test_a_template_passes():
    door().template(TaskSpec("", "known", b'{"n": 1}', terms=Terms(labels=(("a", "b"),), key="k", demand=Demand("^1"))))


hellos = st.builds(
    Hello,
    st.text(max_size=210),
    st.text(max_size=5),
    st.integers(0, 3),
    st.lists(
        st.builds(
            Offer,
            st.text(max_size=3),
            st.just("1.0.0") | st.text(max_size=3),
            st.text(max_size=3),
            jsons,
            jsons,
            tags,
            resources=amounts,
            cost_micros=ns,
            preference_permille=st.integers(-1, 1_001),
            requires=tags,
        ),
        max_size=3,
    ).map(tuple),
    st.integers(0, 2**32 - 1),
    tags=tags,
    capacity=amounts,
    tenants=tags,
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
notes = st.builds(
    Progress,
    st.text(max_size=3),
    st.integers(0, 3),
    st.floats() | st.just(-1.0),
    st.text(max_size=5),
    st.lists(st.text(max_size=3), max_size=3).map(tuple),
)


@given(st.none() | hellos, st.lists(reports, max_size=2), st.lists(notes, max_size=2))
def test_a_worker_frame_passes_or_breaks_the_rules(hello, some_reports, progress):
    with contextlib.suppress(ProtocolViolation):
        door().worker_frame(WorkerFrame(1, 0, hello, some_reports, [], [], progress))
        for report in some_reports:
            assert not (report.result and report.result_blob)
            if report.result:
                msgspec.json.decode(report.result)


def test_only_a_result_that_is_there_no_more_has_failed():
    touched = []

    def touch(digest):
        touched.append(digest)
        if digest == "b" * 64:
            raise LookupError("it was too old")

    own = Door({}, missing, lambda: NOW_NS, touch)
    some = [
        Report(name, 1, ReportStatus.COMPLETED, b"" if blob else b"1", blob, wall_ns=7)
        for name, blob in (("here", "a" * 64), ("gone", "b" * 64), ("small", ""))
    ]
    frame = WorkerFrame(reports=list(some))
    own.large_results(frame)
    here, gone, small = frame.reports
    assert [here, small] == [some[0], some[2]]
    assert (gone.task, gone.status, gone.result_blob, gone.wall_ns) == ("gone", ReportStatus.FAILED, "", 7)
    assert gone.failure is not None
    assert gone.failure.kind == "blob"
    assert not gone.failure.permanent, "it can be tried again"
    assert "it was too old" in gone.failure.message
    assert touched == ["a" * 64, "b" * 64]


@pytest.mark.parametrize("fraction", [-1, 0, 0.5, 1])
def test_progress_is_a_fraction_or_a_sign_of_life(fraction):
    door().worker_frame(WorkerFrame(progress=[Progress("t", 1, fraction, "", ("line",) * LOG_LINES_MAX)]))


@pytest.mark.parametrize(
    "note",
    [
        Progress("t", 1, -0.5),
        Progress("t", 1, 1.01),
        Progress("t", 1, float("nan")),
        Progress("t", 1, 0, "x" * 2_001),
        Progress("t", 1, 0, "", ("line",) * (LOG_LINES_MAX + 1)),
        Progress("t", 1, 0, "", ("x" * 16_001,)),
    ],
)
def test_a_note_of_progress_that_cannot_be_ends_the_stream(note):
    with pytest.raises(ProtocolViolation, match="progress"):
        door().worker_frame(WorkerFrame(progress=[note]))


@pytest.mark.parametrize(
    ("fields", "field", "reason"),
    [
        ({"heartbeat_timeout_ns": -1}, "heartbeat_timeout_ns of c", "-1"),
        ({"version": "1.0"}, "version of c", "'1.0' is no semantic version; write three numbers, such as 1.0.0"),
        ({"version": "9" * 1_000_000}, "version of c", "such as 1.0.0"),
        ({"resources": (Amount("gpu", -1),)}, "resources of c", "-1 thousandths of gpu"),
        ({"resources": (Amount("gpu", 1), Amount("gpu", 1))}, "resources of c", "twice"),
        ({"concurrency_max": CONCURRENCY_MAX + 1}, "concurrency_max of c", "10,001"),
        ({"cost_micros": -1}, "cost_micros of c", "-1"),
        ({"cost_micros": COST_MICROS_MAX + 1}, "cost_micros of c", "not between"),
        ({"preference_permille": 1_001}, "preference_permille of c", "1,001 is not between 0 and 1,000"),
        ({"requires": ("",)}, "requires of c", "1 to 200"),
        ({"requires": ("x",) * (TAGS_MAX + 1)}, "requires of c", "more than 64"),
    ],
)
def test_an_offer_that_cannot_be_ends_the_stream_for_good(fields, field, reason):
    hello = Hello("w", "b", 1, (Offer("c", **fields),), 1)
    with pytest.raises(ProtocolViolation) as raised:
        door().worker_frame(WorkerFrame(hello=hello))
    assert raised.value.permanent
    assert str(raised.value).startswith(f"hello.capabilities.{field}: ")
    assert reason in str(raised.value)
    assert len(str(raised.value)) < 500


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"capacity": (Amount("cpu", -1),)}, "hello.capacity"),
        ({"capacity": tuple(Amount(str(number), 1) for number in range(17))}, "hello.capacity"),
        ({"capacity": (Amount("x" * 201, 1),)}, "hello.capacity"),
        ({"tenants": ("",)}, "hello.tenants"),
        ({"tenants": ("grün",)}, "hello.tenants"),
        ({"tenants": ("t",) * (WORKER_TENANTS_MAX + 1)}, "hello.tenants"),
        ({"tags": ("",)}, "hello.tags"),
    ],
)
def test_a_worker_that_cannot_be_is_refused_for_good(fields, field):
    with pytest.raises(ProtocolViolation) as raised:
        door().worker_frame(WorkerFrame(hello=Hello("w", "b", 1, (Offer("c"),), 1, **fields)))
    assert raised.value.permanent
    assert str(raised.value).startswith(f"{field}: ")


def test_a_worker_may_say_all_that_there_is_to_say():
    offer = Offer(
        "c",
        "2.1.0-rc.1+5",
        resources=(Amount("cpu", 500), Amount("licence", AMOUNT_THOUSANDTHS_MAX)),
        concurrency_max=CONCURRENCY_MAX,
        cost_micros=COST_MICROS_MAX,
        preference_permille=1_000,
        stateful=True,
        requires=("ffmpeg 6", "https://example.org/api"),
    )
    hello = Hello("w", "b", 1, (offer,), 1, (), ("zone-a",), (Amount("cpu", 4_000),), ("acme", "other"))
    door().worker_frame(WorkerFrame(hello=hello))


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
