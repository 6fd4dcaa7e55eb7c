"""Past decisions, explained from the journal: whatever happened before, the rules asked again decide the same."""

import random

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from merit.allocation.catalogue import BUILT_IN
from merit.allocation.least_loaded import LeastLoaded
from merit.allocation.strategy import PLAIN
from merit.app import explain as module
from merit.app.explain import Asked, explain
from merit.core.codec import FOLD_VERSION, decode_event, decode_state, encode_event, encode_state, fold
from merit.core.state import State
from merit.model.commands import EndRollout, PauseWorker, ResumeWorker, SetAllocation, SetTenant, StartRollout
from merit.model.events import AttemptAssigned
from merit.model.fleet import Allocation
from merit.model.frames import AttemptRef
from merit.model.limits import SECOND_NS, Limits
from merit.model.record import NO_HASH, record_hash, seal
from merit.model.rules import RuleKind, TenantTerms
from merit.model.tasks import Demand
from merit.model.workers import Amount
from merit.storage.memory_journal import MemoryDisk, MemoryJournal
from merit.storage.memory_snapshots import MemorySnapshots
from merit.testing.builders import (
    START_NS,
    a_machine,
    allocate,
    an_id,
    an_offer,
    attach,
    cancel,
    completed,
    detach,
    failed,
    limit,
    say,
    submit,
    tell,
    with_terms,
)

LIMITS = Limits(backoff_ns=1, backoff_ns_max=1, grace_ns=0)


class Recorded:
    """A machine whose events go into a journal, several decisions in a record."""

    def __init__(self):
        self.disk = MemoryDisk("cell-1")
        self.snapshots = MemorySnapshots()
        self.events = []
        self.tail = (1, NO_HASH)
        self.epoch = 0
        self.lead(State(), START_NS)

    def lead(self, state, now_ns):
        """A leader, the first or another one."""
        self.epoch += 1
        self.machine = a_machine(state, LIMITS, now_ns=now_ns, epoch=self.epoch)
        self.keep(self.machine.events)
        self._handle = self.machine.handle
        vars(self.machine)["handle"] = self.handle

    def restart(self):
        """Another process leads, and all workers come back with what they have."""
        self.close()
        self.lead(decode_state(encode_state(self.machine.state)), self.machine.now_ns)
        for worker in self.machine.state.workers.values():
            self.back(worker, 1, 0)

    def back(self, worker, session, granted):
        held = [AttemptRef(*item) for item in worker.attempts.items()]
        offers, concurrency = worker.offers, worker.concurrency
        attach(
            self.machine, worker.id, offers=offers, concurrency=concurrency, session=session, held=held, granted=granted
        )

    def keep(self, events):
        self.events += [encode_event(event) for event in events]

    def handle(self, command, now_ns):
        decision = self._handle(command, now_ns)
        self.keep(decision.events)
        return decision

    def close(self, *, snapshot=False):
        """The record is full; time passes."""
        if self.events:
            first, previous = self.tail
            payloads = list(self.machine.take_payloads().values())
            now_ns = self.machine.now_ns
            record = seal("cell-1", first, self.epoch, "leader-1", now_ns, previous, self.events, payloads)
            self.disk.store(record)
            self.tail = (record.last + 1, record_hash(record))
            self.events = []
            if snapshot:
                data = encode_state(self.machine.state)
                self.snapshots.save(record.last, FOLD_VERSION, record_hash(record), data)
        self.machine.now_ns += SECOND_NS

    def assigned(self):
        """All decisions, with the time of their records."""
        for record in self.disk.records:
            for data in record.events:
                event = decode_event(data)
                if isinstance(event, AttemptAssigned):
                    yield event, record.time_ns

    def explained(self, event, time_ns, rulings_max=100, said=lambda reached, last: None):
        asked = Asked(event.task, event.number, time_ns, rulings_max, LIMITS)
        return explain(MemoryJournal(self.disk), self.snapshots, asked, said)


def a_busy_life(seed, strategy):
    """Half a hundred things that happen to a small fleet, by chance."""
    chance, recorded = random.Random(seed), Recorded()
    machine = recorded.machine
    tell(machine, SetAllocation, Allocation("", strategy))
    granted = {}
    for place, version in enumerate(("1.0.0", "1.1.0", "2.0.0", "1.0.0")):
        cpu = (Amount("cpu", 1_000),)
        offers = (
            an_offer("echo", version=version, resources=cpu, cost_micros=place, preference_permille=100 * place),
            an_offer("sum", concurrency_max=1, stateful=True, tags=("eu",) if place % 2 else ()),
        )
        granted[f"w{place}"] = 1 + place
        attach(machine, f"w{place}", offers=offers, concurrency=1 + place, granted=1 + place)
    number = 0
    for _ in range(60):
        machine, state = recorded.machine, recorded.machine.state
        match chance.randrange(13):
            case 0 | 1 | 2:
                for _ in range(chance.randrange(1, 6)):
                    number += 1
                    demand = chance.choice(
                        [None, None, Demand(versions=">=1.1"), Demand(tags=("eu",), prefers=("eu",))]
                    )
                    name, key = chance.choice(["echo", "sum"]), chance.choice(["", "k1", "k2"])
                    tenant = chance.choice(["red", "blue"])
                    submit(machine, with_terms(number, name, demand=demand, key=key), tenant=tenant)
            case 3 | 4 | 5:
                workers = [worker for worker in state.workers.values() if worker.attempts]
                if workers:
                    worker = chance.choice(workers)
                    task_id, attempt = chance.choice(list(worker.attempts.items()))
                    done, wall_ns = int(task_id[-12:], 16), chance.randrange(SECOND_NS)
                    failing = chance.random() < 0.3
                    report = failed(done, attempt) if failing else completed(done, attempt, wall_ns=wall_ns)
                    granted[worker.id] += chance.randrange(3)
                    say(machine, worker.id, reports=[report], granted=granted[worker.id])
            case 6:
                name = chance.choice(list(granted))
                granted[name] += 1
                if name in state.workers and machine.seats[name].attached:
                    say(machine, name, granted=granted[name])
            case 7:
                name = chance.choice(list(granted))
                paused = state.profiles[name].paused
                tell(machine, ResumeWorker, name) if paused else tell(machine, PauseWorker, name, "by chance")
            case 8:
                tell(machine, StartRollout, "echo", "2.0.0", chance.randrange(1_001))
            case 9:
                tell(machine, EndRollout, "echo", chance.random() < 0.5)
            case 10:
                cancel(machine, chance.randrange(1, number + 2))
                tell(machine, SetTenant, TenantTerms("red", weight=chance.randrange(1, 5)))
                limit(machine, RuleKind.CAPABILITY, "sum", concurrency=chance.randrange(1, 5))
            case 11:
                worker = state.workers[chance.choice(list(granted))]
                seat = machine.seats[worker.id]
                if seat.attached and chance.random() < 0.5:
                    detach(machine, worker.id)
                else:
                    granted[worker.id] = chance.randrange(4)
                    recorded.back(worker, seat.session + 1, granted[worker.id])
            case 12:
                recorded.restart()
                granted = dict.fromkeys(granted, 0)
        if chance.random() < 0.7:
            allocate(machine)
        if chance.random() < 0.5:
            recorded.close(snapshot=chance.random() < 0.1)
    allocate(recorded.machine)
    recorded.close()
    return recorded


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
