"""What may be asked for, as the model has it."""

import inspect
import time
from datetime import UTC, datetime, timedelta, timezone
from typing import Any, get_type_hints

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from merit.model.limits import SECOND_NS
from merit.model.tasks import Demand, Priority, RetryPolicy, TaskSpec, Terms
from merit.model.workers import Amount
from merit.sdk.client import AsyncClient
from merit.sdk.options import USUAL, MapArguments, OptionArguments, Options, Prepared, Retry, TaskRequest, time_ns_of
from merit.sdk.sync_client import Client

MIDNIGHT = datetime(2030, 1, 1, tzinfo=UTC)


class Handle:
    id = "b"


def test_an_option_can_be_given_by_name_wherever_there_are_options():
    fields = get_type_hints(Options)
    assert get_type_hints(OptionArguments) == fields
    assert get_type_hints(MapArguments) == {name: kind for name, kind in fields.items() if name != "inputs"}
    assert set(fields) < set(TaskRequest.__struct_fields__)
    for client in (AsyncClient, Client):
        for method in (client.submit, client.map):
            assert "options" in inspect.signature(method).parameters


def test_who_asks_for_nothing_special_gets_no_terms():
    assert USUAL.spec("i", "c", b"{}") == TaskSpec("i", "c")
    assert Prepared.of(TaskRequest(capability="c")) == USUAL


def test_everything_arrives_in_the_units_of_the_model():
    options = Options(
        priority="high",
        run_timeout_s=1.5,
        attempts_max=2,
        after=["a"],
        description="d",
        timeout_s=7,
        not_before=MIDNIGHT,
        deadline=MIDNIGHT.astimezone(timezone(timedelta(hours=2))) + timedelta(microseconds=1),
        queue_timeout_s=2,
        heartbeat_timeout_s=3,
        estimate_s=0.001,
        retry=Retry(refused=0, lost=9, backoff_s=1, backoff_s_max=2.5),
        safe_to_repeat=False,
        key="k",
        idempotency_key="i",
        inputs={"x": "a", "y": Handle(), "z": "b"},
        despite_dead=True,
        labels={"l": "v"},
        versions=">=1.2,<2",
        worker="w",
        tags=["gpu", "a", "gpu"],
        without_tags={"spot"},
        resources={"memory": "512Mi", "cpu": 0.5, "gpu": 0},
        strategy="round-robin",
        prefers=["z", "y"],
    )
    midnight_ns = int(MIDNIGHT.timestamp()) * SECOND_NS
    assert Prepared.of(options).spec("i", "c", b"", "blob") == TaskSpec(
        "i",
        "c",
        b"",
        "blob",
        Priority.HIGH,
        1_500_000_000,
        2,
        ("a", "b"),
        "d",
        7 * SECOND_NS,
        Terms(
            midnight_ns,
            midnight_ns + 1_000,
            2 * SECOND_NS,
            3 * SECOND_NS,
            1_000_000,
            RetryPolicy(refused=0, lost=9, backoff_ns=SECOND_NS, backoff_ns_max=2_500_000_000),
            safe_to_repeat=False,
            key="k",
            idempotency_key="i",
            inputs=(("x", "a"), ("y", "b"), ("z", "b")),
            despite_dead=True,
            labels=(("l", "v"),),
            demand=Demand(
                ">=1.2,<2",
                "w",
                ("a", "gpu"),
                ("spot",),
                (Amount("cpu", 500), Amount("gpu", 0), Amount("memory", 512 * 2**20 * 1_000)),
                "round-robin",
                ("z", "y"),
            ),
        ),
    )


def test_who_asks_the_same_in_another_order_asks_the_same():
    one = Prepared.of(Options(tags=["a", "b"], resources={"cpu": 1, "gpu": 2.0}))
    assert one == Prepared.of(Options(tags=("b", "a", "b"), resources={"gpu": 2, "cpu": 1.0}))
    assert Prepared.of(Options(tags=[], resources={})) == USUAL


def test_a_delay_counts_from_when_each_task_is_made():
    prepared = Prepared.of(Options(delay_s=60, key="k"))
    before_ns = time.time_ns()
    terms = prepared.spec("i", "c", b"").terms
    assert terms is not None
    assert terms.key == "k"
    assert before_ns + 60 * SECOND_NS <= terms.not_before_ns <= time.time_ns() + 60 * SECOND_NS


@pytest.mark.parametrize(
    ("field", "given"),
    [
        ("timeout_s", {"timeout_s": float("nan")}),
        ("timeout_s", {"timeout_s": "1"}),
        ("delay_s", {"delay_s": -1}),
        ("not_before", {"delay_s": 1, "not_before": MIDNIGHT}),
        ("not_before", {"not_before": MIDNIGHT.replace(tzinfo=None)}),
        ("deadline", {"deadline": 5}),
        ("deadline", {"deadline": datetime(1969, 1, 1, tzinfo=UTC)}),
        ("deadline", {"deadline": datetime.max.replace(tzinfo=UTC)}),
        ("queue_timeout_s", {"queue_timeout_s": 0}),
        ("heartbeat_timeout_s", {"heartbeat_timeout_s": float("inf")}),
        ("estimate_s", {"estimate_s": 1e300}),
        ("retry.lost", {"retry": Retry(lost=-1)}),
        ("retry.failed", {"retry": Retry(failed=1.5)}),  # type: ignore[arg-type]  # what is tested
        ("retry.backoff_s", {"retry": Retry(backoff_s=0)}),
        ("key", {"key": "\ud800"}),
        ("idempotency_key", {"idempotency_key": 5}),
        ("inputs.x", {"inputs": {"x": 5}}),
        ("inputs", {"inputs": {"\ud800": "a"}}),
        ("labels", {"labels": {"a": 1}}),
        ("labels", {"labels": {"\ud800": "a"}}),
        ("versions", {"versions": 1}),
        ("worker", {"worker": "\ud800"}),
        ("strategy", {"strategy": None}),
        ("tags", {"tags": "gpu"}),
        ("tags", {"tags": [1]}),
        ("without_tags", {"without_tags": ["\ud800"]}),
        ("prefers", {"prefers": "zone-a"}),
        ("resources", {"resources": ["cpu"]}),
        ("resources", {"resources": {"": 1}}),
        ("resources", {"resources": {"cpu": -1}}),
        ("resources", {"resources": {"cpu": float("nan")}}),
        ("resources", {"resources": {"cpu": True}}),
        ("resources", {"resources": {"cpu": "one"}}),
        ("resources", {"resources": {"cpu": 0.0001}}),
        ("resources", {"resources": {"cpu": 10**16}}),
        ("resources", {"resources": {str(number): 1 for number in range(17)}}),
    ],
)
def test_what_cannot_be_sent_is_refused_by_name(field: str, given: dict[str, Any]):
    with pytest.raises(ValueError, match=rf"^{field}: "):
        Prepared.of(Options(**given))


@given(st.datetimes(datetime(1970, 1, 2), datetime(2200, 1, 1), timezones=st.timezones()))  # noqa: DTZ001
def test_a_date_is_the_same_moment_in_nanoseconds(moment):
    assert time_ns_of("x", moment) % 1_000 == 0
    since = timedelta(microseconds=time_ns_of("x", moment) // 1_000)
    assert datetime(1970, 1, 1, tzinfo=UTC) + since == moment.astimezone(UTC)


def test_a_request_is_a_value():
    request = TaskRequest(capability="c", parameters={"a": 1}, key="k")
    assert msgspec.structs.replace(request, key="l").parameters == {"a": 1}
