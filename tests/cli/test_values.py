"""What durations, moments, rates and pairs may look like."""

import contextlib
from datetime import UTC, datetime, timedelta

import click
import pytest
from hypothesis import given
from hypothesis import strategies as st

from merit.cli.values import Duration, Moment, Pair, Quantity, Rate, Size, distinct, span


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("500ms", 0.5),
        ("30s", 30),
        ("5m", 300),
        ("2h", 7_200),
        ("1d", 86_400),
        ("1h30m", 5_400),
        ("1.5h", 5_400),
        ("7", 7),
    ],
)
def test_durations(text: str, seconds: float):
    assert Duration().convert(text, None, None) == pytest.approx(seconds)


@pytest.mark.parametrize("text", ["", "0", "0s", "-1", "inf", "nan", "1w", "5 m", "m", "1h-30m", "٣s", "9" * 400 + "s"])
def test_no_durations(text: str):
    with pytest.raises(click.BadParameter, match=r"duration|above 0"):
        Duration().convert(text, None, None)


@given(st.text())
def test_whatever_is_given_is_understood_or_refused(text: str):
    for kind in (Duration(), Moment(1), Moment(-1), Rate(), Pair("A", "B"), Quantity(), Size()):
        with contextlib.suppress(click.BadParameter):
            kind.convert(text, None, None)


@pytest.mark.parametrize(
    ("text", "size"),
    [("1", 1), ("512Mi", 512 * 1024**2), ("20GiB", 20 * 1024**3), ("1.5G", 1_500_000_000), ("7kB", 7_000)],
)
def test_sizes(text: str, size: int):
    assert Size().convert(text, None, None) == size


@pytest.mark.parametrize("text", ["", "B", "0", "0.5", "-1", "nan", "1 Gi", "1X", "500m", "9" * 40])
def test_no_sizes(text: str):
    with pytest.raises(click.BadParameter, match=r"size|less than a byte"):
        Size().convert(text, None, None)


def test_a_moment_is_a_date_or_counted_from_now():
    before = datetime.now(UTC)
    assert Moment(1).convert("2h", None, None) - before >= timedelta(hours=2)
    assert before - Moment(-1).convert("2h", None, None) <= timedelta(hours=2)
    assert Moment(1).convert("2026-05-01T09:00Z", None, None) == datetime(2026, 5, 1, 9, tzinfo=UTC)
    assert Moment(1).convert("2026-05-01", None, None).tzinfo is not None
    with pytest.raises(click.BadParameter, match="no time"):
        Moment(1).convert("9999999999d", None, None)


@pytest.mark.parametrize(("text", "rate_hz"), [("5/s", 5), ("90/m", 1.5), ("3600/h", 1), ("0.5/s", 0.5)])
def test_rates(text: str, rate_hz: float):
    assert Rate().convert(text, None, None) == pytest.approx(rate_hz)


@pytest.mark.parametrize("text", ["5", "5/d", "/s", "nan/s", "inf/s", "0/s", "1/h"])
def test_no_rates(text: str):
    with pytest.raises(click.BadParameter, match=r"/s"):
        Rate().convert(text, None, None)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.35, "350ms"), (1, "1s"), (2.5, "2.5s"), (200, "3m20s"), (3_600, "1h"), (7_500, "2h5m"), (345_600, "4d")],
)
def test_spans(seconds: float, text: str):
    assert span(seconds) == text


@given(st.floats(0.001, 1e9))
def test_a_span_that_is_shown_can_be_given(seconds: float):
    assert Duration().convert(span(seconds), None, None) == pytest.approx(seconds, rel=0.05, abs=0.0006)


def test_resources_by_name():
    assert Quantity().convert("memory=1.5Ki", None, None) == ("memory", 1_536)
    assert Quantity().convert("cpu=500m", None, None) == ("cpu", 0.5)


@pytest.mark.parametrize("text", ["", "memory", "=1", "memory=", "memory=-1", "cpu=0.1m", "memory=999999999Ti"])
def test_no_resources(text: str):
    with pytest.raises(click.BadParameter, match=r"512Mi|thousandth|1,000,000,000,000,000"):
        Quantity().convert(text, None, None)


def test_what_is_given_twice_is_named():
    assert distinct("--resource", [("cpu", 1), ("gpu", 2)]) == {"cpu": 1, "gpu": 2}
    with pytest.raises(click.UsageError, match="--resource cpu is given twice"):
        distinct("--resource", [("cpu", 1), ("cpu", 2)])
