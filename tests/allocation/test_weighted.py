import pytest
from hypothesis import given
from hypothesis import strategies as st

from merit.allocation.strategy import PLAIN, Candidate, Wish
from merit.allocation.weighted import WEIGHTS, Weighted
from merit.testing.strategy_contract import StrategyContract

SECOND_NS = 10**9
NONE = dict.fromkeys(WEIGHTS, 0)


class TestWeighted(StrategyContract):
    # It looks at so many of each tag and of all, for the most tags that the contract's tasks prefer.
    told_apart = 2

    @pytest.fixture
    def make(self):
        return Weighted


class TestWeightedByOtherWeights(StrategyContract):
    """With little weight on load and much on what stays as it is, equals share alike all the same."""

    told_apart = 2

    @pytest.fixture
    def make(self):
        return lambda weights: Weighted({"load": 300, "cost": 0, "slack": 3_000, **weights})


def chosen(weights, *candidates, wish=PLAIN):
    strategy = Weighted({**NONE, **weights})
    for candidate in candidates:
        strategy.place(candidate)
    return strategy.choose(wish)


def test_each_weight_decides_when_it_is_the_only_one():
    assert chosen({"load": 1}, Candidate("w1", 1_000, 900), Candidate("w2", 1_000, 0, turn=1)) == "w1"
    assert chosen({"load": 10}, Candidate("w1", 1_000, 900), Candidate("w2", 1_000, 0, turn=1)) == "w2"
    keen = Candidate("w2", turn=1, preference_permille=900)
    assert chosen({"preference": 1_000}, Candidate("w1"), keen) == "w2"
    dear, cheap = Candidate("w1", cost_micros=10), Candidate("w2", turn=1, cost_micros=5)
    assert chosen({"cost": 1_000}, dear, cheap) == "w2"
    near = Candidate("w2", turn=1, tags=frozenset({"north", "ssd"}))
    assert chosen({"locality": 1_000}, Candidate("w1"), near, wish=Wish(prefers=("north",))) == "w2"
    assert chosen({"locality": 1_000}, Candidate("w1"), near) == "w1"
    slow, fast = Candidate("w1", took_ns=2 * SECOND_NS), Candidate("w2", turn=1, took_ns=SECOND_NS)
    assert chosen({"slack": 1_000}, slow, fast, wish=Wish(slack_ns=0)) == "w2"
    assert chosen({"slack": 1_000}, slow, fast) == "w1"


def test_the_shorter_a_task_is_of_time_the_more_a_fast_worker_counts():
    def slack_part(slack_ns, took_ns=4 * SECOND_NS):
        wish = Wish(slack_ns=slack_ns, estimate_ns=SECOND_NS)
        strategy = Weighted({"slack": 1_000})
        parts = [strategy.figures(Candidate("w", took_ns=took), wish)["slack_permille"] for took in (took_ns, 1)]
        return parts[0] - parts[1]

    part = slack_part(0)
    shares = [0, SECOND_NS, SECOND_NS + 1, 2 * SECOND_NS, 4 * SECOND_NS, 4 * SECOND_NS + 1, -1]
    assert [slack_part(slack_ns) * 1_000 // part for slack_ns in shares] == [1_000, 1_000, 500, 500, 250, 0, 0]


def test_a_task_that_does_not_say_how_long_it_runs_is_taken_to_run_as_usual():
    slow, fast = Candidate("w1", took_ns=8 * SECOND_NS), Candidate("w2", turn=1, took_ns=SECOND_NS)
    for seconds, expected in (8, "w2"), (31, "w2"), (33, "w1"):
        assert chosen({"slack": 1_000}, slow, fast, wish=Wish(slack_ns=seconds * SECOND_NS)) == expected


def test_whom_nobody_has_measured_gets_no_task_that_is_short_of_time():
    unknown, known = Candidate("w1"), Candidate("w2", turn=1, took_ns=10 * SECOND_NS)
    assert chosen({"slack": 1_000}, unknown, known, wish=Wish(slack_ns=SECOND_NS)) == "w2"


def test_the_figures_add_up():
    figures = Weighted().figures(
        Candidate("w", 4, 2, 1, 7, SECOND_NS, 250, 1_000_000, tags=frozenset({"a"}), score=80_000, reputation=400),
        Wish(slack_ns=SECOND_NS, estimate_ns=SECOND_NS, prefers=("a", "b")),
    )
    total, turn, *parts = figures.values()
    assert turn == 7
    assert total == sum(parts)
    assert [name.removesuffix("_permille") for name in figures][2:] == list(WEIGHTS)
    # Half of its concurrency, three quarters of reluctance, 20 doublings, one tag of two, 30 doublings; a fifth below the
    # best score, and six tenths short of full trust.
    assert parts == pytest.approx([500, 150, 800, 250, 3_000, 100, 300], rel=0.02)


candidates = st.lists(
    st.builds(
        Candidate,
        worker=st.text("abc", min_size=3, max_size=3),
        concurrency=st.integers(1, 4),
        live=st.integers(0, 8),
        turn=st.integers(0, 5),
        took_ns=st.integers(0, 10**10),
        preference_permille=st.integers(0, 1_000),
        cost_micros=st.integers(0, 10**6),
        tags=st.frozensets(st.sampled_from(["x", "y"])),
    ),
    min_size=1,
    max_size=30,
    unique_by=lambda candidate: candidate.worker,
)


def smallest(strategy, fleet, wish):
    def place(candidate):
        figures = strategy.figures(candidate, wish)
        return figures["sum_permille"], figures["turn"], candidate.worker

    return min(map(place, fleet))[-1]


@given(
    candidates,
    st.builds(Wish, slack_ns=st.integers(-1, 10**10), estimate_ns=st.integers(0, 10**10))
    | st.builds(Wish, prefers=st.sampled_from([("x",), ("x", "nobody has it")])),
)
def test_without_preferred_tags_or_with_one_and_time_nobody_has_a_smaller_sum(fleet, wish):
    strategy = Weighted()
    for candidate in fleet:
        strategy.place(candidate)
    assert strategy.choose(wish) == smallest(strategy, fleet, wish)


@pytest.mark.parametrize(("weight", "reason"), [(-1, "-1 thousandths"), (1_000_001, "give 0 to 1000000")])
def test_weights_are_bounded(weight, reason):
    with pytest.raises(ValueError, match=f"load is .*{reason}|{reason}"):
        Weighted({"load": weight})
