"""Lives of a small fleet with their journals, for whoever looks at the past."""

import random

from merit.app.explain import Asked, explain
from merit.core.codec import FOLD_VERSION, decode_event, decode_state, encode_event, encode_state
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

    def __init__(self, limits=LIMITS, now_ns=START_NS):
        self.limits = limits
        self.disk = MemoryDisk("cell-1")
        self.snapshots = MemorySnapshots()
        self.events = []
        self.tail = (1, NO_HASH)
        self.epoch = 0
        self.lead(State(), now_ns)

    def lead(self, state, now_ns):
        """A leader, the first or another one."""
        self.epoch += 1
        self.machine = a_machine(state, self.limits, now_ns=now_ns, epoch=self.epoch)
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

    def decoded(self):
        """All events."""
        return (decode_event(data) for record in self.disk.records for data in record.events)

    def assigned(self):
        """All decisions, with the time of their records."""
        for record in self.disk.records:
            for data in record.events:
                event = decode_event(data)
                if isinstance(event, AttemptAssigned):
                    yield event, record.time_ns

    def explained(self, event, time_ns, rulings_max=100, said=lambda reached, last: None):
        asked = Asked(event.task, event.number, time_ns, rulings_max, self.limits)
        return explain(MemoryJournal(self.disk), self.snapshots, asked, said)


def a_busy_life(seed, strategy, limits=LIMITS):
    """Half a hundred things that happen to a small fleet, by chance."""
    chance, recorded = random.Random(seed), Recorded(limits)
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
