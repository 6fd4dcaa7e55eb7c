"""The fleet's part of ``AnyOrder``: what workers may be, what tasks may ask of them and operators do to them, and a second
opinion, worked out from the state alone, on who may have been given what."""

from collections import Counter
from copy import deepcopy
from hashlib import sha256
from random import Random
from typing import Any
from zlib import crc32

from msgspec.structs import replace

from merit.allocation.catalogue import BUILT_IN
from merit.core.apply import apply
from merit.core.codec import decode_event
from merit.core.explaining import explain_assigned, explain_now
from merit.core.machine import Machine
from merit.core.state import State
from merit.model.auditing import AuditPolicy, GoldTask, OnBroken
from merit.model.commands import (
    DrainWorker,
    EndRollout,
    JudgeWorker,
    PauseWorker,
    RemoveWorker,
    ResumeWorker,
    SetAdmission,
    SetAllocation,
    SetAudit,
    SetSupervision,
    StartRollout,
    TellWorker,
)
from merit.model.effects import SendWords
from merit.model.events import AttemptAssigned
from merit.model.fleet import Admission, Allocation, Probe, RolloutState
from merit.model.limits import SECOND_NS
from merit.model.record import Record
from merit.model.supervision import FACTOR_ONE, Conduct, Policy, Verdict
from merit.model.tasks import Demand, TaskState
from merit.model.tenancy import GOLD_TENANT, PROBE_TENANT
from merit.model.workers import Amount, WorkerState
from merit.testing.builders import TENANT, amounts, an_offer

WORKERS = ["w1", "w2", "w3", "w4"]
CAPABILITIES = ["add", "mul"]
RANGES = {"": {"1.0.0", "2.0.0"}, ">=2": {"2.0.0"}, "==1.0.0": {"1.0.0"}, "<3": {"1.0.0", "2.0.0"}}
"""Versions that a demand may ask for, and which of those that workers have are among them."""
UNLIMITED = {"cpu", "memory", "network"}
HARSH = Policy(
    every_ns=SECOND_NS,
    reward_at=90_000,
    punish_at=85_000,
    attempts_min=1,
    cool_down_ns=0,
    pause_after=2,
    pause_below=1_000,
    pause_ns=2 * SECOND_NS,
    pauses_max=3,
    canaries=2,
    circuit_failures=2,
    circuit_window=4,
    circuit_open_ns=2 * SECOND_NS,
    circuit_probes=2,
)
VERDICTS = [Verdict.PARDON, Verdict.PARDON, Verdict.PIN, Verdict.UNPIN]


class FleetAtRandom:
    """To be mixed into ``AnyOrder``, which has the machine, the journal and the chance."""

    machine: Machine
    rng: Random
    records: list[Record]
    tell: Any

    # What there may be

    def some_demand(self):
        rng = self.rng
        if rng.random() < 0.6:
            return None
        return Demand(
            rng.choice(["", "", *RANGES]),
            rng.choice(WORKERS) if rng.random() < 0.15 else "",
            ("gpu",) if rng.random() < 0.2 else (),
            ("old",) if rng.random() < 0.2 else (),
            rng.choice([(), (), amounts(cpu=2), amounts(cpu=3, gpu=1), (Amount("memory", 500),), amounts(gpu=0)]),
            rng.choice(["", "", *BUILT_IN]),
            ("gpu", "near") if rng.random() < 0.2 else (),
        )

    def some_offers(self, names, **fields):
        rng = self.rng
        chance = lambda value: value if rng.random() < 0.3 else type(value)()  # noqa: E731  (short is clear here)
        stateful = rng.random() < 0.3
        return tuple(
            an_offer(
                name,
                version=rng.choice(["1.0.0", "1.0.0", "2.0.0"]),
                tags=chance(("near",)),
                resources=chance(rng.choice([amounts(cpu=1), amounts(cpu=2, gpu=1), (Amount("memory", 300),)])),
                concurrency_max=chance(rng.choice([1, 2])),
                cost_micros=rng.choice([0, 5_000]),
                stateful=stateful,
                **fields,
            )
            for name in names
        )

    def some_body(self):
        """Tags, capacity and tenants of a worker."""
        rng = self.rng
        tags = rng.choice([(), (), ("gpu",), ("old", "near")])
        capacity = rng.choice([(), (), amounts(cpu=4), amounts(cpu=4, gpu=2), (Amount("memory", 1_000),)])
        return tags, capacity, rng.choice([(), (), (), ("other",), (TENANT, "third")])

    # What operators may do

    def operate(self):
        rng, state = self.rng, self.machine.state
        worker, capability = rng.choice(WORKERS), rng.choice(CAPABILITIES)
        commands = [
            lambda: PauseWorker(TENANT, "tester", worker, "for a look"),
            lambda: ResumeWorker(TENANT, "tester", worker),
            lambda: ResumeWorker(TENANT, "tester", worker),
            lambda: DrainWorker(TENANT, "tester", worker),
            lambda: RemoveWorker(TENANT, "tester", worker, "it is broken"),
            lambda: TellWorker(TENANT, "tester", worker, rng.choice(["RESET", "UPDATE_CONFIG"])),
            lambda: SetAllocation(TENANT, "tester", Allocation(rng.choice(["", *CAPABILITIES]), self.some_strategy())),
            lambda: SetAllocation(TENANT, "tester", Allocation(rng.choice(["", *CAPABILITIES]), self.some_strategy())),
            lambda: SetAdmission(TENANT, "tester", Admission(capability, self.some_probes())),
            lambda: StartRollout(TENANT, "tester", capability, "2.0.0", rng.choice([0, 300, 1_000])),
            lambda: EndRollout(TENANT, "tester", capability, rng.random() < 0.5),
            *[lambda: SetAudit(TENANT, "tester", self.some_audit(capability))] * 4,
            lambda: SetSupervision(TENANT, "tester", rng.choice([Policy(), HARSH])),
            lambda: JudgeWorker(TENANT, "tester", worker, rng.choice(VERDICTS), "as it is", rng.choice([0, 500])),
        ]
        decision = self.tell(rng.choice(commands)())
        for effect in decision.effects:
            if isinstance(effect, SendWords):
                assert state.profiles[effect.worker].words[-1:] == effect.words

    def some_strategy(self):
        return self.rng.choice(["", *BUILT_IN])

    def some_audit(self, capability):
        rng = self.rng
        return AuditPolicy(
            capability,
            copies=rng.choice([1, 2, 3]),
            judge=rng.choice(["", "", *CAPABILITIES]),
            gold=rng.choice([(), (GoldTask(b"{}", b"1"),)]),
            gold_permille=1_000,
            timeout_ns=rng.choice([SECOND_NS, 60 * SECOND_NS]),
            on_broken=rng.choice(list(OnBroken)),
        )

    def some_probes(self):
        rng = self.rng
        right = [Probe(b"{}", rng.choice([b"1", b"1", b"2", b""])) for _ in range(rng.randint(1, 2))]
        return tuple(right) if rng.random() < 0.6 else ()

    # The second opinion

    def every_choice_was_right(self):
        """From the journal alone: whoever got a task could do it, and the same rules choose the same again."""
        state = State()
        for record in self.records:
            payloads = {sha256(payload).digest(): payload for payload in record.payloads}
            for data in record.events:
                event = decode_event(data)
                if isinstance(event, AttemptAssigned):
                    self.was_right(state, event, record.time_ns)
                apply(state, event, payloads, record.time_ns)

    def was_right(self, state, event, now_ns):
        task, worker = state.tasks[event.task], state.workers[event.worker]
        assert worker.room
        reasons = objections(state, task, worker)
        assert not reasons, f"{worker.id} was given a task of {task.capability} and {reasons}"
        before = deepcopy(state)
        told = explain_assigned(state, event, now_ns, BUILT_IN, self.machine.limits, 10)
        assert state == before, "to explain changes nothing"
        assert told.agrees, told
        assert (told.chosen, told.number) == (event.worker, event.number)
        ruling, others = told.rulings[0], told.rulings[1:]
        assert ruling.worker == event.worker
        assert ruling.fits
        assert all(other.reasons for other in others if not other.fits)

    def stand_in_one_line(self, capability, tasks):
        """Whether nothing sets these tasks of the capability, or any others, apart."""
        workers = self.machine.state.workers.values()
        offers = [(worker, offer) for worker in workers if (offer := worker.offer(capability)) is not None]
        apart = any(worker.tenants or offer.stateful for worker, offer in offers)
        asks = any(task.terms is not None and task.terms.demand is not None for task in tasks)
        asks = asks or any(task.terms is not None and task.terms.review is not None for task in tasks)
        return not (apart or asks or capability in self.machine.state.rollouts)

    def nobody_waits_for_nothing(self):
        """After everything was allocated, where no limit and no pause stands in the way."""
        machine, state = self.machine, self.machine.state
        seats = machine.seats
        attached = [worker for worker in state.workers.values() if seats[worker.id].attached]
        for task in state.tasks.values():
            waits = task.capability in state.paused or state.rules or state.reserved or task.attempts
            if task.capability in state.rollouts and home_of(state, task) is not None:
                continue  # it may stand, since before its key had a home, behind others that wait for another version
            if task.state is not TaskState.PENDING or waits:
                continue
            for worker in attached:
                if seats[worker.id].granted > seats[worker.id].used and as_others(state, worker):
                    reasons = objections(state, task, worker)
                    assert reasons, f"{worker.id} could have been given task {task.id}: {explain_now(machine, task, 9)}"


def as_others(state, worker):
    """Whether nothing that was decided about the worker keeps it from getting as much as it takes."""
    conduct = state.profiles[worker.id].conduct if worker.id in state.profiles else Conduct()
    return conduct.at_liberty and conduct.factor >= FACTOR_ONE


def objections(state, task, worker):
    """What speaks against a worker getting a task."""
    offer = worker.offer(task.capability)
    if offer is None:
        return ["does not offer it"]
    found = lasting(state, task, worker)
    if worker.id in involved(state, task):
        found.append("has had to do with the result that it is about")
    probing = task.tenant == PROBE_TENANT
    if worker.state is not WorkerState.ACTIVE and not (probing and worker.state is WorkerState.PROBATION):
        found.append(f"is {worker.state.name}")
    if worker.reserved and not alike(task, state.tasks[worker.reserved]):
        found.append("is kept free for another task")
    used: Counter[str] = Counter()
    slots = 0
    for name in worker.attempts:
        other = state.tasks[name]
        own = worker.offer(other.capability)
        used.update(wanted(other, own))
        slots += other.capability == task.capability
    if offer.concurrency_max and slots >= offer.concurrency_max:
        found.append("has no slot")
    has = {amount.name: amount.thousandths for amount in worker.capacity}
    found += [
        f"has too little {name}"
        for name, need in wanted(task, offer).items()
        if used[name] + need > has.get(name, 1e30)
    ]
    demand = (task.terms and task.terms.demand) or Demand()
    if not probing and not demand.worker:
        found += settings_against(state, task, worker)
    return found


def involved(state, task):
    """Who made the result that a task is about, has said something of it, or is asked about it as well."""
    review = task.terms.review if task.terms is not None else None
    case = state.cases.get(review.of) if review is not None else None
    if case is None:
        return set()
    others = [state.tasks[name] for name in case.reviews if name != task.id]
    asked = {attempt.worker for other in others for attempt in other.attempts}
    return asked | {case.worker} | {answer.worker for answer in case.answers}


def alike(task, other):
    """Whether both may stand in the same line, as far as they themselves go."""
    demands = [replace((one.terms and one.terms.demand) or Demand(), prefers=()) for one in (task, other)]
    return task.capability == other.capability and demands[0] == demands[1]


def wanted(task, offer):
    """What an attempt takes, in thousandths."""
    demand = (task.terms and task.terms.demand) or Demand()
    needs = {need.name: need.thousandths for need in offer.resources}
    return needs | {need.name: need.thousandths for need in demand.resources}


def lasting(state, task, worker):
    """What speaks against it as long as both are as they are."""
    offer, found = worker.offer(task.capability), []
    demand = (task.terms and task.terms.demand) or Demand()
    if offer is None:
        return ["does not offer it"]
    if demand.worker not in ("", worker.id):
        found.append("is not the one that was named")
    if offer.version not in RANGES[demand.versions]:
        found.append("has another version")
    if worker.tenants and task.tenant not in (*worker.tenants, PROBE_TENANT, GOLD_TENANT):
        found.append("is for other tenants")
    tags = {*worker.tags, *offer.tags}
    if not tags >= {*demand.tags} or tags & {*demand.without_tags}:
        found.append("has not the right tags")
    has = {amount.name: amount.thousandths for amount in worker.capacity}
    for name, need in wanted(task, offer).items():
        if need > has.get(name, 1e30 if name in UNLIMITED else 0):
            found.append(f"never has enough {name}")
    return found


def home_of(state, task):
    """The worker that has the task's key."""
    key = task.terms.key if task.terms is not None else ""
    return state.workers.get(state.homes.get((task.tenant, task.capability, key), ""))


def settings_against(state, task, worker):
    """What follows from homes and rollouts."""
    demand = (task.terms and task.terms.demand) or Demand()
    offering = [other for other in state.workers.values() if other.offer(task.capability) is not None]
    key, home = task.terms.key if task.terms is not None else "", home_of(state, task)
    stateful = any(other.offer(task.capability).stateful for other in offering)
    if key and stateful and home and home.state is not WorkerState.DRAINING and not lasting(state, task, home):
        return [] if home is worker else [f"has not its key, which {home.id} has"]
    rollout = state.rollouts.get(task.capability)
    if rollout is None or demand.versions:
        return []

    def on_side(other, canary):
        version = other.offer(task.capability).version
        if rollout.state is RolloutState.PROMOTED:
            return version >= rollout.version
        return (version == rollout.version) is (canary and rollout.state is RolloutState.RUNNING)

    canary = crc32(task.id.encode()) % 1_000 < rollout.share_permille
    if on_side(worker, canary):
        return []
    if rollout.state is not RolloutState.RUNNING:
        return ["has a version that gets nothing"]
    able = [other for other in offering if other.state is WorkerState.ACTIVE]
    mine = [other.id for other in able if on_side(other, canary) and not lasting(state, task, other)]
    return [f"is on the other side than {mine}"] if mine else []
