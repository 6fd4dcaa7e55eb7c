"""Amounts as people write them, as programs give them, and as the model has them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from merit.model.limits import AMOUNT_THOUSANDTHS_MAX, RESOURCES_MAX
from merit.model.workers import Amount
from merit.sdk.amounts import amounts_of, numbers_of, quantity, quantity_of


@pytest.mark.parametrize(
    ("text", "amount"),
    [
        ("4", 4),
        ("0.5", 0.5),
        ("500m", 0.5),
        ("0", 0),
        ("512Mi", 512 * 2**20),
        ("2Gi", 2 * 2**30),
        ("1.5Ki", 1_536),
        ("1Ti", 2**40),
        ("1.5G", 1_500_000_000),
        ("10k", 10_000),
        ("0.33333", 0.333),
        ("1000T", 10**15),
    ],
)
def test_what_a_text_says(text: str, amount: float):
    assert quantity_of(text) == amount
    assert amounts_of("resources", {"memory": text}) == (Amount("memory", round(amount * 1_000)),)


@pytest.mark.parametrize("text", ["", "-1", "+1", "1 Gi", "1GiB", "x", "1e3", "1,5", "٣", "1\n", "9" * 10_000, "Mi"])
def test_what_says_no_amount_is_told_with_what_to_write(text: str):
    with pytest.raises(
        ValueError, match=r"^resources: memory: .* is no amount, such as 0.5, 500m, 512Mi or 2Gi$"
    ) as raised:
        amounts_of("resources", {"memory": text})
    assert len(str(raised.value)) < 500


@pytest.mark.parametrize(("text", "reason"), [("0.1m", "less than a thousandth"), ("9" * 18 + ".9Ti", "more than 1,0")])
def test_what_cannot_be_reckoned_with(text: str, reason: str):
    with pytest.raises(ValueError, match=rf"^resources: memory: .* is {reason}"):
        amounts_of("resources", {"memory": text})


@given(st.integers(0, 10**18).map(lambda thousandths: thousandths / 1_000) | st.integers(0, 10**15))
def test_an_amount_that_is_shown_can_be_given(amount: float):
    assert quantity_of(quantity(amount)) == pytest.approx(amount, abs=0.0005)


@given(st.text(max_size=30) | st.from_regex(r"[0-9]{1,18}(\.[0-9]{1,9})?(m|[kMGT]i?)?", fullmatch=True))
def test_any_text_says_an_amount_that_can_be_reckoned_with_or_is_refused(text: str):
    try:
        (amount,) = amounts_of("resources", {"a": text})
    except ValueError:
        return
    assert 0 <= amount.thousandths <= AMOUNT_THOUSANDTHS_MAX


def test_amounts_are_in_the_order_of_their_names_and_can_be_read_back():
    amounts = amounts_of("resources", {"memory": "1Ki", "cpu": 0.5, "gpu": 0})
    assert amounts == (Amount("cpu", 500), Amount("gpu", 0), Amount("memory", 1_024_000))
    assert numbers_of(amounts) == {"cpu": 0.5, "gpu": 0, "memory": 1_024}


def test_they_are_bounded_in_number():
    with pytest.raises(ValueError, match=f"^resources: {RESOURCES_MAX + 1} resources; {RESOURCES_MAX} at most"):
        amounts_of("resources", {str(number): 1 for number in range(RESOURCES_MAX + 1)})
