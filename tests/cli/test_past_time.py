"""What a moment of the past is on the command line."""

from datetime import UTC, datetime, time, timedelta, timezone
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from merit.cli.past_time import past_time
from merit.cli.present import Visited, now, visiting
from merit.cli.values import Moment

BERLIN = ZoneInfo("Europe/Berlin")
moments = st.integers(10**9, 4 * 10**9).map(lambda seconds: datetime.fromtimestamp(seconds, UTC))
zones = st.sampled_from(["Europe/Berlin", "America/New_York", "Asia/Kathmandu", "Pacific/Apia", "UTC"]).map(ZoneInfo)


def berlin(text: str, fold: int = 0) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=BERLIN, fold=fold).astimezone(UTC)


@given(st.integers(0, 10**18 - 1))
def test_an_event(sequence: int):
    assert past_time(f"#{sequence}", datetime.now(UTC)) == sequence


@given(moments, st.integers(1, 10**5), st.sampled_from([("s", 1), ("m", 60), ("h", 3_600), ("d", 86_400)]))
def test_a_duration_ago(present: datetime, count: int, unit: tuple[str, int]):
    assert past_time(f"-{count}{unit[0]}", present) == present - timedelta(seconds=count * unit[1])


@given(moments, st.times().map(lambda one: one.replace(microsecond=0)), zones)
def test_a_time_of_day_is_the_last_one_that_has_come(present: datetime, of_day: time, zone: ZoneInfo):
    found = past_time(of_day.isoformat(), present, zone)
    assert isinstance(found, datetime)
    assert found <= present
    # Nearly always a day at most; where clocks are set, an hour or so more; one island has left out a whole day.
    assert present - found < timedelta(hours=26 if zone.key != "Pacific/Apia" else 50)
    local = found.astimezone(zone)
    does_exist = local.replace(tzinfo=None) == datetime.combine(local.date(), of_day)
    shifted = abs(datetime.combine(local.date(), of_day) - local.replace(tzinfo=None))
    assert does_exist or shifted <= timedelta(hours=24)
    # Of all times of this name that have come it is the last one.
    for day in range(3):
        for fold in (0, 1):
            other = datetime.combine(present.astimezone(zone).date() - timedelta(days=day), of_day, zone).replace(
                fold=fold
            )
            assert other.astimezone(UTC) <= found or other.astimezone(UTC) > present


@given(moments, st.timedeltas(timedelta(0), timedelta(days=1_000)), st.integers(-12, 14))
def test_a_date_and_time_with_a_zone(present: datetime, before: timedelta, offset_h: int):
    meant = present - before
    text = meant.astimezone(timezone(timedelta(hours=offset_h))).isoformat()
    assert past_time(text, present) == meant


@pytest.mark.parametrize(
    ("text", "present", "meant"),
    [
        # Around midnight
        ("00:00", "2026-11-20T00:00:00", "2026-11-20T00:00:00"),
        ("00:00:01", "2026-11-20T00:00:00", "2026-11-19T00:00:01"),
        ("23:59", "2026-11-20T00:00:30", "2026-11-19T23:59:00"),
        ("23:59", "2026-11-20T23:59:30", "2026-11-20T23:59:00"),
        ("9:05", "2026-11-20T09:05:00", "2026-11-20T09:05:00"),
        ("14:03:05.5", "2026-11-20T14:03:05", "2026-11-19T14:03:05.500"),
        # Without a zone: of this machine
        ("2026-11-20T14:03", "2026-11-21T00:00", "2026-11-20T14:03"),
        ("2026-07-01", "2026-11-21T00:00", "2026-07-01T00:00"),
        # Yesterday had another offset
        ("12:00", "2026-10-25T08:00", "2026-10-24T12:00"),
        ("12:00", "2026-03-29T08:00", "2026-03-28T12:00"),
    ],
)
def test_in_the_zone_of_this_machine(text: str, present: str, meant: str):
    assert past_time(text, berlin(present), BERLIN) == berlin(meant)


def test_a_time_that_comes_twice_is_the_later_one_once_that_has_come():
    assert past_time("02:30", berlin("2026-10-25T02:45", fold=0), BERLIN) == berlin("2026-10-25T02:30", fold=0)
    assert past_time("02:30", berlin("2026-10-25T02:45", fold=1), BERLIN) == berlin("2026-10-25T02:30", fold=1)
    assert past_time("02:30", berlin("2026-10-25T12:00"), BERLIN) == berlin("2026-10-25T02:30", fold=1)


@pytest.mark.parametrize("text", ["2026-11-20T12:00:01+01:00", "2027-01-01", "9999-12-31"])
def test_what_is_still_to_come_is_refused(text: str):
    with pytest.raises(ValueError, match="still to come"):
        past_time(text, berlin("2026-11-20T12:00"), BERLIN)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "-",
        "--",
        "-x",
        "-1y",
        "-nan",
        "-inf",
        "-1e999",
        "#",
        "#-1",
        "#1x",
        "24:00",
        "1:2",
        "14:60",
        "tomorrow",
        "-²",
    ],
)
def test_what_means_nothing_is_refused_with_examples(text: str):
    with pytest.raises(ValueError, match="such as 14:03"):
        past_time(text, datetime(2026, 11, 20, tzinfo=UTC), UTC)


def test_at_a_moment_of_the_past_durations_count_from_it():
    then = datetime(2026, 11, 20, 12, tzinfo=UTC)

    def nobody():
        raise AssertionError

    with visiting(Visited(then, (), nobody)):
        assert now() == then
        assert Moment(-1).convert("2h", None, None) == then - timedelta(hours=2)
    assert now() > then
