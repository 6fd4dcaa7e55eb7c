"""The central queue, and the machine beside it."""

from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from merit.allocation.catalogue import BUILT_IN, DEFAULT
from merit.lab.bench.central_queue import central_mean_ns, fastest_first
from merit.lab.bench.default_vs_central import Case
from merit.lab.bench.traces import Trace, synthetic
from merit.lab.bench.virtual_fleet import VirtualFleet

workloads = st.lists(st.tuples(st.integers(0, 5), st.integers(1, 20)), min_size=1, max_size=40)


def told(work: list[tuple[int, int]]) -> tuple[list[int], list[int]]:
    """Of gaps and work, both small so that much falls together: arrivals and work."""
    arrivals_ns, now_ns = [], 0
    for gap_ns, _ in work:
        now_ns += gap_ns
        arrivals_ns.append(now_ns)
    return arrivals_ns, [work_ns for _, work_ns in work]


def by_hand(arrivals_ns: list[int], work_ns: list[int], workers: int) -> Fraction:
    """Equal workers, first come, first served: the mean time (Kiefer and Wolfowitz)."""
    free_ns = [0] * workers
    total_ns = 0
    for arrival_ns, work in zip(arrivals_ns, work_ns, strict=True):
        free_ns.sort()
        free_ns[0] = max(free_ns[0], arrival_ns) + work
        total_ns += free_ns[0] - arrival_ns
    return Fraction(total_ns, len(work_ns))


@given(workloads, st.integers(1, 5))
def test_the_central_queue_is_what_the_textbook_says(work: list[tuple[int, int]], workers: int):
    arrivals_ns, work_ns = told(work)
    assert central_mean_ns(arrivals_ns, work_ns, [1.0] * workers) == float(by_hand(arrivals_ns, work_ns, workers))


def test_whoever_has_been_idle_longest_is_next_or_who_is_fastest():
    arrivals_ns, work_ns, speeds = [0, 0, 50], [10, 30, 10], [1.0, 2.0]
    # 10 for the first, 15 for the second; the third to the first worker, which was free before the other one.
    assert central_mean_ns(arrivals_ns, work_ns, speeds) == pytest.approx((10 + 15 + 10) / 3)
    assert central_mean_ns(arrivals_ns, work_ns, speeds, fastest_first) == pytest.approx((5 + 30 + 5) / 3)


@settings(max_examples=30)
@given(workloads, st.integers(1, 5), st.sampled_from(sorted(BUILT_IN)))
def test_equal_workers_are_one_queue_whatever_the_strategy(work: list[tuple[int, int]], workers: int, strategy: str):
    arrivals_ns, work_ns = told(work)
    speeds = [1.0] * workers
    assert VirtualFleet(speeds, strategy).mean_ns(arrivals_ns, work_ns) == central_mean_ns(arrivals_ns, work_ns, speeds)


def test_a_run_comes_out_the_same_again():
    arrivals_ns, work_ns = synthetic(200).scaled(0.9, 7.0)
    speeds = [0.5, 1.0, 2.0, 0.5, 1.0, 2.0]
    for strategy in BUILT_IN:
        first = VirtualFleet(speeds, strategy).mean_ns(arrivals_ns, work_ns)
        assert VirtualFleet(speeds, strategy).mean_ns(arrivals_ns, work_ns) == first


def test_one_worker_alone_is_the_central_queue_at_any_speed():
    case = Case(Trace("x", (1.0, 5.0, 2.0), (0.0, 1.0, 2.0)), 1, True, 0.9)
    assert case.fleets(4) == [[0.5]] * 4
    assert case.ratio(lambda *run: VirtualFleet(run[2], DEFAULT).mean_ns(run[0], run[1])) == 1.0


def test_shuffled_fleets_have_the_same_workers():
    fleets = Case(synthetic(10), 20, True, 0.9).fleets(3)
    assert len({tuple(speeds) for speeds in fleets}) == 3
    assert {tuple(sorted(speeds)) for speeds in fleets} == {(0.5,) * 7 + (1.0,) * 7 + (2.0,) * 6}
    assert Case(synthetic(10), 20, False, 0.9).fleets(3) == [[1.0] * 20]
