"""Past decisions, explained from the journal: whatever happened before, the rules asked again decide the same."""

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from merit.allocation.catalogue import BUILT_IN
from merit.allocation.least_loaded import LeastLoaded
from merit.allocation.strategy import PLAIN
from merit.app import explain as module
from merit.core.codec import encode_state, fold
from merit.core.state import State
from merit.model.events import AttemptAssigned
from merit.model.limits import SECOND_NS
from merit.storage.memory_snapshots import MemorySnapshots
from merit.testing.builders import (
    START_NS,
    allocate,
    an_id,
    attach,
    detach,
    submit,
    with_terms,
)
from tests.app.recorded_life import Recorded, a_busy_life


@pytest.mark.parametrize("strategy", sorted(BUILT_IN))
@settings(max_examples=10)
@given(seed=st.integers(0, 2**32))
def test_a_replay_decides_the_same_for_every_strategy_and_at_every_moment(strategy, seed):
    recorded = a_busy_life(seed, strategy)
    for event, time_ns in recorded.assigned():
        found = recorded.explained(event, time_ns)
        assert (found.chosen, found.number) == (event.worker, event.number)
        assert found.agrees, found
        assert found.rulings[0].worker == event.worker
        assert found.rulings[0].fits
        assert all(ruling.fits == (ruling.rank > 0) for ruling in found.rulings)
        assert all(ruling.fits or ruling.reasons for ruling in found.rulings)


@pytest.fixture(scope="module")
def recorded():
    return a_busy_life(7, "least-loaded")


def test_with_a_snapshot_or_without_it_is_the_same(recorded):
    assert recorded.snapshots.latest() is not None
    plain = [recorded.explained(event, time_ns) for event, time_ns in recorded.assigned()]
    kept, recorded.snapshots = recorded.snapshots, MemorySnapshots()
    assert [recorded.explained(event, time_ns) for event, time_ns in recorded.assigned()] == plain
    recorded.snapshots = kept


def test_the_live_state_is_what_the_journal_says(recorded):
    state = State()
    for record in recorded.disk.records:
        fold(state, record)
    assert encode_state(state) == encode_state(recorded.machine.state)


def test_so_many_workers_are_told_of_as_are_asked_for(recorded):
    event, time_ns = next(recorded.assigned())
    whole = recorded.explained(event, time_ns)
    part = recorded.explained(event, time_ns, rulings_max=1)
    assert part.rulings == whole.rulings[:1]
    assert part.left_out == len(whole.rulings) - 1


def test_the_answer_survives_the_way_between_two_processes(recorded):
    event, time_ns = next(recorded.assigned())
    found = recorded.explained(event, time_ns)
    assert msgspec.json.decode(msgspec.json.encode(found), type=type(found)) == found


def test_how_far_it_is_is_said(recorded):
    said = []
    *_, (event, time_ns) = recorded.assigned()
    recorded.explained(event, time_ns, said=lambda reached, last: said.append((reached, last)))
    assert said[-1][0] == said[-1][1] > 0


def test_an_attempt_that_the_journal_does_not_know(recorded):
    event, time_ns = next(recorded.assigned())
    for task, number, at_ns in (
        (an_id(10**6), 1, time_ns),
        (event.task, 90, time_ns),
        (event.task, event.number, START_NS - 1),
        (event.task, event.number, 2**62),
    ):
        with pytest.raises(LookupError, match="does not say to whom"):
            recorded.explained(AttemptAssigned(task, number, "w", 0), at_ns)


def test_a_record_that_was_written_when_the_clock_had_been_set_back_is_found():
    recorded = Recorded()
    attach(recorded.machine)
    recorded.close()
    recorded.machine.now_ns -= 600 * SECOND_NS  # another leader, with another clock
    submit(recorded.machine, with_terms(1))
    allocate(recorded.machine)
    recorded.close()
    ((event, time_ns),) = recorded.assigned()
    assert recorded.explained(event, time_ns).agrees


class Contrary(LeastLoaded):
    """Chooses him whom nobody else would."""

    def choose(self, wish=PLAIN, avoid=()):
        return max((worker for worker in self.placed() if worker not in avoid), default=None)


def test_another_rule_than_then_is_noticed(recorded, monkeypatch):
    monkeypatch.setattr(module, "load_strategies", lambda: dict.fromkeys(BUILT_IN, Contrary))
    found = [recorded.explained(event, time_ns) for event, time_ns in recorded.assigned()]
    assert not all(one.agrees for one in found)
    assert all(one.chosen == event.worker for one, (event, _) in zip(found, recorded.assigned(), strict=True))


def test_one_that_has_left_is_still_explained():
    recorded = Recorded()
    attach(recorded.machine)
    submit(recorded.machine, with_terms(1))
    allocate(recorded.machine)
    recorded.close()
    detach(recorded.machine, bye=True)
    recorded.close()
    ((event, time_ns),) = recorded.assigned()
    assert recorded.explained(event, time_ns).agrees
