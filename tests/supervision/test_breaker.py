from collections.abc import Iterator

from hypothesis import given
from hypothesis import strategies as st

from merit.model.limits import SECOND_NS
from merit.model.supervision import CLOSED, Circuit, CircuitState, Policy
from merit.model.track_record import EndedAttempt, Ending
from merit.supervision.breaker import after, open_ns, ready, room

POLICY = Policy()


class Line:
    """A worker whose attempts end one a second."""

    def __init__(self):
        self.circuit, self.endings, self.now_ns = CLOSED, [], 1_700_000_000 * SECOND_NS

    def ends(self, *oks):
        for ok in oks:
            self.now_ns += SECOND_NS
            self.circuit = ready(self.circuit, self.now_ns)
            self.endings.append(EndedAttempt(self.now_ns, SECOND_NS, 500, Ending.COMPLETED if ok else Ending.FAILED))
            self.circuit = after(self.circuit, iter(self.endings[-50:]), ok, POLICY, self.now_ns)
        return self.circuit

    def waits(self):
        self.now_ns = max(self.now_ns, self.circuit.until_ns)
        self.circuit = ready(self.circuit, self.now_ns)
        return self.circuit


def test_it_opens_with_enough_failures_if_they_are_enough_of_all():
    line = Line()
    assert line.ends(False, False, False, False) == CLOSED
    assert line.ends(False).state is CircuitState.OPEN
    line = Line()
    # Three good ones to each bad one: there are five failures among the last twenty, but they are a quarter.
    assert line.ends(*[True, True, True, False] * 20) == CLOSED
    # Then none but bad ones: open when half of the last twenty are.
    opened_after = next(count for count in range(1, 20) if line.ends(False).state is CircuitState.OPEN)
    assert opened_after == 6


def test_a_good_ending_never_opens_it_nor_looks_back():
    looks: Iterator[EndedAttempt] = (EndedAttempt(1 // nothing, 0, 0, Ending.FAILED) for nothing in [0])
    assert after(CLOSED, looks, True, POLICY, 1) is CLOSED
    line = Line()
    line.ends(*[False] * 4, True)
    assert line.circuit == CLOSED


def test_it_is_tried_with_a_few_and_closed_when_they_come_out_well():
    line = Line()
    opened = line.ends(*[False] * 5)
    assert opened.until_ns == line.now_ns + 30 * SECOND_NS
    assert room(opened, 8, 0, POLICY) == 0
    assert ready(opened, opened.until_ns - 1) is opened
    half = line.waits()
    assert half.state is CircuitState.HALF_OPEN
    assert [room(half, 8, live, POLICY) for live in (0, 1, 3, 4)] == [3, 2, 0, 0]
    assert room(half, 1, 0, POLICY) == 1
    half = line.ends(True)
    assert [room(half, 8, live, POLICY) for live in (0, 1, 2)] == [2, 1, 0]
    assert line.ends(True, True).state is CircuitState.CLOSED
    assert room(line.circuit, 8, 5, POLICY) == 8


def test_one_failure_opens_it_again_for_twice_as_long():
    line = Line()
    line.ends(*[False] * 5)
    for seconds in (60, 120, 240, 480, 960, 1_920, 3_600, 3_600):
        line.waits()
        opened = line.ends(True, False)
        assert opened.state is CircuitState.OPEN
        assert opened.until_ns - line.now_ns == seconds * SECOND_NS


def test_what_was_before_it_closed_is_not_held_against_it():
    line = Line()
    line.ends(*[False] * 5)
    line.waits()
    line.ends(True, True, True)
    assert line.ends(*[False] * 4).state is CircuitState.CLOSED
    opened = line.ends(False)
    assert opened.state is CircuitState.OPEN
    assert opened.until_ns - line.now_ns == 60 * SECOND_NS


def test_it_forgets_when_it_has_held():
    line = Line()
    line.ends(*[False] * 5)
    line.waits()
    line.ends(*[True] * 3)
    assert line.ends(*[True] * 19).openings == 1
    assert line.ends(True) == CLOSED


def test_what_ends_while_it_is_open_had_begun_before():
    line = Line()
    opened = line.ends(*[False] * 5)
    assert line.ends(True, False) == opened


@given(st.lists(st.booleans(), max_size=200), st.integers(1, 10**9))
def test_it_is_never_stuck(oks, openings):
    """Whatever happens, there is a time at which it lets something through again."""
    line = Line()
    for ok in oks:
        line.ends(ok)
        assert room(ready(line.circuit, line.now_ns + POLICY.circuit_open_ns_max), 1, 0, POLICY) == 1
    assert 0 < open_ns(openings, POLICY) <= POLICY.circuit_open_ns_max


def test_a_circuit_opened_very_often_waits_no_longer_than_the_most():
    opened = after(Circuit(CircuitState.HALF_OPEN, 0, 10**6), (), False, POLICY, 0)
    assert opened.until_ns == POLICY.circuit_open_ns_max
