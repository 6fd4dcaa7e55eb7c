"""When schedules are due: over changes of clocks, after a pause, for any expression at all."""

import contextlib
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from merit.model.limits import SCHEDULE_TIMES_MAX, SECOND_NS
from merit.model.schedules import Missed, Schedule
from merit.model.tasks import TaskSpec
from merit.runtime.cron_planner import AHEAD, next_times, plan

MINUTE_NS, DAY_NS = 60 * SECOND_NS, 24 * 3600 * SECOND_NS
# Far from each other, clocks changed on different days and by different amounts, or never.
ZONES = ["UTC", "Europe/Berlin", "America/New_York", "Asia/Kolkata", "Australia/Lord_Howe", "America/St_Johns"]


def at(text, zone="UTC"):
    return int(datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(zone)).timestamp()) * SECOND_NS


def shown(times_ns, zone="UTC"):
    return [datetime.fromtimestamp(time_ns // SECOND_NS, ZoneInfo(zone)).isoformat() for time_ns in times_ns]


def a_schedule(cron, zone="UTC", missed=Missed.ONE):
    return Schedule("nightly", "default", cron, zone, TaskSpec("", "echo"), missed)


def test_the_next_times_are_those_on_the_wall_of_the_zone():
    times = next_times("30 6 * * mon-fri", "Europe/Berlin", at("2026-01-02T12:00:00"))  # a Friday
    assert shown(times) == [f"2026-01-0{day}T05:30:00+00:00" for day in (5, 6, 7, 8)]


def test_six_fields_begin_with_seconds():
    times = next_times("15,45 * * * * *", "UTC", at("2026-01-01T00:00:15"))
    assert [time_ns - at("2026-01-01T00:00:00") for time_ns in times] == [s * SECOND_NS for s in (45, 75, 105, 135)]


def test_a_time_that_the_clocks_skip_comes_after_the_gap_and_once():
    times = next_times("30 2 * * *", "Europe/Berlin", at("2026-03-28T12:00:00"))
    assert shown(times, "Europe/Berlin")[:2] == ["2026-03-29T03:00:00+02:00", "2026-03-30T02:30:00+02:00"]


def test_a_time_that_comes_twice_is_taken_the_first_time():
    times = next_times("30 2 * * *", "Europe/Berlin", at("2026-10-24T12:00:00"))
    assert shown(times, "Europe/Berlin")[:2] == ["2026-10-25T02:30:00+02:00", "2026-10-26T02:30:00+01:00"]


def test_who_asks_in_the_second_of_two_hours_hears_of_neither_the_first_nor_a_time_that_has_passed():
    second = at("2026-10-25T01:10:00")  # 02:10 in Berlin, for the second time
    assert shown(next_times("30 2 * * *", "Europe/Berlin", second))[0] == "2026-10-26T01:30:00+00:00"
    missed = plan(a_schedule("30 2 * * *", "Europe/Berlin"), second - DAY_NS, second)
    assert shown(missed)[0] == "2026-10-25T00:30:00+00:00"  # the first 02:30 has passed, though it is 02:10 again


def test_what_comes_every_so_often_goes_on_so_through_both_changes():
    for day in ("2026-03-29", "2026-10-25"):
        now_ns = at(f"{day}T00:00:00")
        times = next_times("*/30 * * * *", "Europe/Berlin", now_ns)
        assert [time_ns - now_ns for time_ns in times] == [n * 30 * MINUTE_NS for n in (1, 2, 3, 4)]


def test_missed_times_count_by_the_policy():
    after, now = at("2026-01-01T00:00:00"), at("2026-01-11T00:00:00")
    for policy in (Missed.SKIP, Missed.ONE):
        times = plan(a_schedule("0 12 * * *", missed=policy), after, now)
        assert shown(times) == [f"2026-01-{day}T12:00:00+00:00" for day in (10, 11, 12, 13, 14)]
    times = plan(a_schedule("0 12 * * *", missed=Missed.ALL), after, now)
    assert shown(times) == [f"2026-01-{day:02}T12:00:00+00:00" for day in range(1, 15)]


def test_of_all_that_were_missed_the_last_ones_are_made_up_for():
    now = at("2026-01-01T00:00:00")
    times = plan(a_schedule("* * * * * *", missed=Missed.ALL), 0, now)
    first = SCHEDULE_TIMES_MAX - 1
    assert times == tuple(now + (n - first) * SECOND_NS for n in range(SCHEDULE_TIMES_MAX + AHEAD))


def test_a_time_is_due_at_its_very_nanosecond_and_not_before():
    noon = at("2026-01-01T12:00:00")
    schedule = a_schedule("0 12 * * *")
    assert plan(schedule, noon - DAY_NS, noon - 1)[0] == noon
    assert plan(schedule, noon - 1, noon)[0] == noon
    assert plan(schedule, noon, noon)[0] == noon + DAY_NS
    # The clock of who asks may be behind that of who asked before.
    assert plan(schedule, noon, noon - 5 * SECOND_NS)[0] == noon + DAY_NS


@pytest.mark.parametrize(
    ("cron", "zone", "message"),
    [
        ("", "UTC", "cron: wrong number of fields"),
        ("@daily", "UTC", "cron: wrong number of fields"),
        ("* * * *", "UTC", "cron: wrong number of fields"),
        ("61 * * * *", "UTC", "cron: bad minute"),
        ("*/0 * * * *", "UTC", "cron: bad minute"),
        ("* * 0 * *", "UTC", "cron: bad day-of-month"),
        ("0 0 30 2 *", "UTC", "cron: bad day-of-month"),
        ("* * * * 8", "UTC", "cron: bad day-of-week"),
        ("* * */20 * 1L", "Europe/Berlin", "cron: .* does not come within 50 years"),
        ("0-59," * 100 + "0 * * * *", "UTC", "cron: has 509 characters; 200 at most"),
        ("* * * * *", "Mars/Olympus", "zone: 'Mars/Olympus' is no time zone"),
        ("* * * * *", "../../etc/passwd", "zone: "),
        ("* * * * *", "Europe", "zone: "),
        ("* * * * *", "", "zone: "),
        ("* * * * *", "x" * 100_000, "zone: "),
    ],
)
def test_what_cannot_be_is_refused_by_field(cron, zone, message):
    with pytest.raises(ValueError, match=f"^{message}") as raised:
        next_times(cron, zone, at("2026-01-01T00:00:00"))
    assert len(str(raised.value)) < 500


numbers = st.integers(0, 70).map(str) | st.sampled_from(["*", "L", "LW", "mon", "feb", "1#2", "5L", ""])
items = st.one_of(numbers, st.builds("{}-{}".format, numbers, numbers), st.builds("{}/{}".format, numbers, numbers))
fields = st.lists(items, min_size=1, max_size=3).map(",".join)
moments = st.integers(at("2020-01-01T00:00:00"), at("2040-01-01T00:00:00"))


@settings(max_examples=300)
@given(
    st.lists(fields, min_size=5, max_size=6).map(" ".join) | st.text(max_size=20),
    st.sampled_from(ZONES),
    moments,
    st.integers(0, 400 * DAY_NS),
    st.sampled_from(Missed),
)
def test_any_expression_is_refused_or_gives_few_times_in_order_and_after_the_last_one(cron, zone, now, back, missed):
    with contextlib.suppress(ValueError):
        times = plan(a_schedule(cron, zone, missed), now - back, now)
        assert list(times) == sorted(set(times))
        assert all(time_ns > now - back for time_ns in times)
        passed = [time_ns for time_ns in times if time_ns <= now]
        assert len(passed) <= (SCHEDULE_TIMES_MAX if missed is Missed.ALL else 1)
        assert len(times) - len(passed) <= AHEAD


@settings(max_examples=100)
@given(
    st.sampled_from(["*", "*/7", "5,35"]),
    st.sampled_from(["*", "*/5"]),
    st.sampled_from(ZONES[:4]),
    moments,
    st.integers(1, 72 * 3600 * SECOND_NS),
)
def test_what_comes_every_so_often_comes_whenever_the_wall_shows_it(minute, hour, zone, now, back):
    """Against each minute of the time, looked at one by one."""

    def fits(field, number):
        if field.startswith("*/"):
            return number % int(field[2:]) == 0
        return field == "*" or str(number) in field.split(",")

    expected = []
    first = -(-(now - back + 1) // MINUTE_NS) * MINUTE_NS
    for time_ns in range(first, now + 1, MINUTE_NS):
        wall = datetime.fromtimestamp(time_ns // SECOND_NS, UTC).astimezone(ZoneInfo(zone))
        if fits(minute, wall.minute) and fits(hour, wall.hour):
            expected.append(time_ns)
    schedule = a_schedule(f"{minute} {hour} * * *", zone, Missed.ALL)
    passed = [time_ns for time_ns in plan(schedule, now - back, now) if time_ns <= now]
    assert passed == expected[-SCHEDULE_TIMES_MAX:]


@settings(max_examples=100)
@given(st.integers(0, 23), st.integers(0, 59), st.sampled_from(ZONES), moments)
def test_what_comes_daily_comes_once_on_each_day(hour, minute, zone, now):
    times = plan(a_schedule(f"{minute} {hour} * * *", zone, Missed.ALL), now - 90 * DAY_NS, now)
    days = [datetime.fromtimestamp(time_ns // SECOND_NS, ZoneInfo(zone)).date() for time_ns in times]
    assert all(later - earlier == timedelta(days=1) for earlier, later in pairwise(days))


@settings(max_examples=100)
@given(
    st.sampled_from(["30 2 * * *", "*/20 * * * *", "15 0-4 * * *", "0 1 * * sun", "59 23 L * *"]),
    st.sampled_from(ZONES),
    moments,
    st.integers(0, 30 * 3600 * SECOND_NS),  # within which all that has passed is made up for
)
def test_what_is_planned_does_not_depend_on_when_it_is_asked_for(cron, zone, now, step):
    """What was to come is what has passed later on: nothing is lost, and nothing comes twice."""
    schedule = a_schedule(cron, zone, Missed.ALL)
    ahead = plan(schedule, now, now)
    later = plan(schedule, now, now + step)
    assert later[: len(ahead)] == ahead[: len(later)]
