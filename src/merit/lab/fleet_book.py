"""What a ledger knows of the fleet: who is here and may do what, what it has in use, what operators have said of it.

It follows the events alone, with rules of its own: nothing of the product's feasibility, lines or fold is used.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import TYPE_CHECKING
from zlib import crc32

from msgspec import Struct, field

from merit.core.supervising import SUPERVISION
from merit.lab.asked import NOTHING, asks, demand_of, in_range, key_of, needs, numbers
from merit.lab.habits import Kit
from merit.lab.violation import Violation
from merit.model.events import (
    AdmissionSet,
    AttemptAssigned,
    AttemptFailed,
    AttemptReturned,
    AuditStarted,
    CircuitChanged,
    Event,
    LeadershipStarted,
    RolloutEnded,
    RolloutShared,
    RolloutStarted,
    RoomSeen,
    TaskCanceled,
    TaskCompleted,
    TaskDied,
    TaskSubmitted,
    WorkerAdmitted,
    WorkerDraining,
    WorkerHeard,
    WorkerJoined,
    WorkerJudged,
    WorkerLeft,
    WorkerPaused,
    WorkerRemoved,
    WorkerReserved,
    WorkerResumed,
    WorkerTold,
)
from merit.model.fleet import Admission, RolloutState
from merit.model.supervision import CircuitState, Verdict
from merit.model.tasks import TaskState
from merit.model.tenancy import GOLD_TENANT, PROBE_TENANT
from merit.model.workers import Offer, WorkerState

if TYPE_CHECKING:
    from merit.lab.ledger import Ledger

_ENOUGH_UNSAID = ("cpu", "memory", "network")
_PROFILES_MANY = 1_000
"""Where so many profiles are kept, none is forgotten here."""


class Present(Struct):
    """A worker that is here. ``tasks``: those of its live attempts."""

    name: str
    kit: Kit
    state: WorkerState
    tasks: set[str] = field(default_factory=set)
    room: int = 0
    """How much of what it took at the last word on it is left."""

    def offer(self, capability: str) -> Offer | None:
        """What it offers under this name."""
        return next((offer for offer in self.kit.offers if offer.name == capability), None)


class Introduced(Struct):
    """A version that was introduced."""

    version: str
    share_permille: int
    state: RolloutState = RolloutState.RUNNING
    before: Introduced | None = None
    """The one before it: what was promoted or aborted stays so."""

    def lets(self, version: str) -> bool:
        """Whether a task that does not care may get a version: the last word on each counts, and nothing is older than what
        was promoted last."""
        one: Introduced | None = self
        promoted = False
        seen: set[str] = set()
        while one is not None:
            if version == one.version:
                return one.state is not RolloutState.ABORTED
            if one.state is RolloutState.PROMOTED and not promoted and one.version not in seen:
                promoted = True
                if numbers(version) < numbers(one.version):
                    return False
            seen.add(one.version)
            one = one.before
        return True


class FleetBook:
    """Reads every event before it is folded, and after the ledger.

    Args:
        ledger: whose book it is.
    """

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self.workers: dict[str, Present] = {}
        self.met: Counter[str] = Counter()
        self.told: dict[str, list[str]] = {}
        """By worker: commands that it has yet to be told, oldest first."""
        self._heard: set[tuple[str, str]] = set()
        self._paused: set[str] = set()
        self._removed: set[str] = set()
        self._open: set[str] = set()
        """Workers whose breakers are open."""
        self._pinned: set[str] = set()
        self._homes: dict[tuple[str, str, str], str] = {}
        """By tenant, capability and key, oldest first: the worker that has its tasks."""
        self._evicted: set[tuple[str, str, str]] = set()
        """Keys that had to make room for others: what waits for their worker may be passed by what came later."""
        self._homes_max = 0
        self._forgets = False
        """Whether profiles of workers that are away may be forgotten."""
        self._rollouts: dict[str, Introduced] = {}
        self._probed: dict[str, Admission] = {}
        """By capability for which there are probes."""
        self._passed: set[tuple[str, str, str]] = set()
        """Worker, capability and version whose probes were all done right at some time."""

    def take(self, event: Event) -> None:
        """The next event.

        Raises:
            Violation: it must not be.
        """
        match event:
            case AttemptAssigned():
                self._assigned(event)
            case TaskCompleted() | AuditStarted() | AttemptReturned() | AttemptFailed() | TaskCanceled() | TaskDied():
                self._over(event.task)
            case RoomSeen():
                for name, room in event.rooms:
                    self.workers[name].room = room
            case WorkerJoined() | WorkerLeft() | WorkerDraining() | WorkerAdmitted():
                self._moved(event)
            case WorkerPaused() | WorkerResumed() | WorkerRemoved() | WorkerTold() | WorkerHeard():
                self._governed(event)
            case CircuitChanged() | WorkerJudged():
                self._decided(event)
            case AdmissionSet(admission=admission):
                self._probed[admission.capability] = admission
            case RolloutStarted() | RolloutShared() | RolloutEnded():
                self._rolled_out(event)
            case LeadershipStarted():
                self._homes_max = event.homes_max
                for worker in self.workers.values():
                    worker.room = 0
                self._forgets = event.profiles_max < _PROFILES_MANY
            case WorkerReserved():
                self.met["worker kept free for a task"] += 1
            case _:
                pass

    def hears(self, worker: str, word: str) -> None:
        """A process of this name has been told a command."""
        self._heard.add((worker, word))

    # Workers

    def _moved(self, event: WorkerJoined | WorkerLeft | WorkerDraining | WorkerAdmitted) -> None:
        name = event.worker
        if isinstance(event, WorkerJoined):
            self._joined(event)
        elif isinstance(event, WorkerLeft):
            del self.workers[name]
            for at in [at for at, home in self._homes.items() if home == name]:
                del self._homes[at]
        elif isinstance(event, WorkerDraining):
            self.workers[name].state = WorkerState.DRAINING
        else:
            self.met["worker admitted"] += 1
            self.workers[name].state = WorkerState.ACTIVE

    def _joined(self, event: WorkerJoined) -> None:
        name = event.worker
        if name in self._removed and not self._forgets:
            raise Violation("removed", name, "joined, and was removed before")
        if name in self._paused and event.state is not WorkerState.PAUSED and not self._forgets:
            raise Violation("paused", name, f"joined as {event.state.name}, and is paused")
        before = self.workers.get(name)
        kit = kit_of(event)
        stateful = [offer.name for offer in event.offers if offer.stateful]
        for at in [at for at, home in self._homes.items() if home == name and at[1] not in stateful]:
            del self._homes[at]
        if before is not None and before.kit != kit:
            self.met["worker changed in its place"] += 1
        self.workers[name] = Present(name, kit, event.state)
        for offer in event.offers if event.state is WorkerState.ACTIVE else ():
            admission = self._probed.get(offer.name)
            if admission and admission.probes and (name, offer.name, offer.version) not in self._passed:
                raise Violation("admission", name, f"joined without the probes of {offer.name} {offer.version}")

    def _rolled_out(self, event: RolloutStarted | RolloutShared | RolloutEnded) -> None:
        known = self._rollouts
        if isinstance(event, RolloutStarted):
            before = known.get(event.capability)
            known[event.capability] = Introduced(event.version, event.share_permille, before=before)
        elif isinstance(event, RolloutShared):
            known[event.capability].share_permille = event.share_permille
        else:
            known[event.capability].state = RolloutState.PROMOTED if event.promoted else RolloutState.ABORTED

    def _decided(self, event: CircuitChanged | WorkerJudged) -> None:
        name = event.worker
        if isinstance(event, CircuitChanged):
            (self._open.add if event.circuit.state is CircuitState.OPEN else self._open.discard)(name)
        elif name in self._pinned and event.principal == SUPERVISION and not self._forgets:
            raise Violation("pinned", name, f"{event} was decided about it")
        elif event.verdict is Verdict.PARDON:
            self._open.discard(name)
        elif event.verdict is Verdict.PIN:
            self._pinned.add(name)
        elif event.verdict is Verdict.UNPIN:
            self._pinned.discard(name)

    def _governed(self, event: WorkerPaused | WorkerResumed | WorkerRemoved | WorkerTold | WorkerHeard) -> None:
        name, present = event.worker, self.workers.get(event.worker)
        if isinstance(event, WorkerPaused):
            self._paused.add(name)
            if present is not None:
                present.state = WorkerState.PAUSED
            if event.principal == "admission":
                self.met["worker not admitted"] += 1
        elif isinstance(event, WorkerResumed):
            self._paused.discard(name)
            self._removed.discard(name)
            if present is not None:
                present.state = event.state
        elif isinstance(event, WorkerRemoved):
            self._paused.discard(name)
            self._removed.add(name)
            self.told.pop(name, None)
            if present is not None:
                raise Violation("removed", name, "is still here")
        elif isinstance(event, WorkerTold):
            self.told.setdefault(name, []).append(event.word)
        elif not self._forgets:
            heard, self.told[name] = self.told[name][: event.count], self.told[name][event.count :]
            for word in heard:
                self.met["command heard"] += 1
                if (name, word) not in self._heard:
                    raise Violation("words", name, f"is said to have heard {word}, and has not")

    def was_told(self, worker: str, word: str) -> bool:
        """Whether the command has been kept for the worker, or heard by it since."""
        return self._forgets or word in self.told.get(worker, ()) or (worker, word) in self._heard

    def unheard(self) -> list[tuple[str, str]]:
        """Workers that are here, and commands that they were never told."""
        waiting = [(name, word) for name in self.workers for word in self.told.get(name, ())]
        return [] if self._forgets else waiting

    # Attempts

    def _assigned(self, event: AttemptAssigned) -> None:
        spec, worker = self._ledger.submitted.get(event.task), self.workers.get(event.worker)
        if spec is None or worker is None:
            return  # the ledger itself says so
        for check, reason in self.against(spec, worker, now=True):
            raise Violation(check, event.task, f"was given to {event.worker}, which {reason}")
        if spec.tenant != PROBE_TENANT and worker.state is WorkerState.PROBATION:
            raise Violation("probation", event.task, f"was given to {event.worker}, which has yet to prove itself")
        self._check_side(spec, worker)
        worker.tasks.add(event.task)
        worker.room -= 1
        self._note(spec, worker)

    def _note(self, spec: TaskSubmitted, worker: Present) -> None:
        offer, demand, key = worker.offer(spec.capability), demand_of(spec), key_of(spec)
        assert offer is not None
        if demand != NOTHING:
            self.met["given with a demand"] += 1
        if offer.resources or demand.resources:
            self.met["given with resources"] += 1
        if worker.kit.tenants:
            self.met["given behind a wall"] += 1
        if spec.tenant == PROBE_TENANT:
            self.met["probe given"] += 1
        if spec.capability in self._rollouts:
            self.met["given by a rollout"] += 1
        at = (spec.tenant, spec.capability, key)
        if not key or not offer.stateful:
            return
        home = self.workers.get(self._homes.get(at, ""))
        if home is not None and home.state is not WorkerState.DRAINING:
            self.met["given at home" if home is worker else "given away from home"] += 1
            return
        self._homes.pop(at, None)
        self._homes[at] = worker.name
        if len(self._homes) > self._homes_max:
            self._evicted.add(oldest := next(iter(self._homes)))
            del self._homes[oldest]

    def _over(self, task: str) -> None:
        for worker in self.workers.values():
            worker.tasks.discard(task)

    def did_probe(self, worker: str, capability: str, result: bytes) -> None:
        """The worker has done a probe of the capability, and this came of it."""
        admission, offer = self._probed[capability], self.workers[worker].offer(capability)
        right = [probe.expected for probe in admission.probes]
        if offer is not None and (not right or b"" in right or result in right):
            self._passed.add((worker, capability, offer.version))

    # Who may do what

    def against(self, spec: TaskSubmitted, worker: Present, *, now: bool) -> Iterator[tuple[str, str]]:
        """Why the worker may not be given the task: which promise that would break, and what is in the way.

        Args:
            spec: the task.
            worker: somebody who is here.
            now: whether its state and what it has in use count too; otherwise only what lasts.
        """
        offer = worker.offer(spec.capability)
        if offer is None:
            yield "fit", f"does not offer {spec.capability}"
            return
        if now:
            yield from self._against_now(spec, offer, worker)
        yield from self._lasting(spec, offer, worker)
        if worker.name in self._ledger.audit_book.barred(spec.task):
            yield "audit", "has had to do with the result that it is about"
        home = self._home(spec)
        if home not in ("", worker.name):
            yield "home", f"is not {home}, which has {key_of(spec)}"
        if not home and not self._on_side(spec, offer):
            yield "rollout", f"has {offer.version}, and of that it is {self._rollouts[spec.capability]}"

    def _lasting(self, spec: TaskSubmitted, offer: Offer, worker: Present) -> Iterator[tuple[str, str]]:
        """What the task's own demands, walls and capacity say against it for as long as the worker is as it is."""
        demand = demand_of(spec)
        if demand.worker not in ("", worker.name):
            yield "fit", f"is not {demand.worker}"
        if demand.versions and not in_range(offer.version, demand.versions):
            yield "fit", f"has {offer.version} and not {demand.versions}"
        tags = {*worker.kit.tags, *offer.tags}
        if not tags.issuperset(demand.tags) or tags.intersection(demand.without_tags):
            yield "fit", f"has the tags {sorted(tags)}, not as {demand} asks"
        walled = worker.kit.tenants and spec.tenant not in (PROBE_TENANT, GOLD_TENANT)
        if walled and spec.tenant not in worker.kit.tenants:
            yield "walls", f"is there for {worker.kit.tenants} and not for {spec.tenant}"
        capacity = {amount.name: amount.thousandths for amount in worker.kit.capacity}
        for name, needed in needs(spec, offer).items():
            if needed > capacity.get(name, needed if name in _ENOUGH_UNSAID else 0):
                yield "resources", f"has {capacity} and not {needed} of {name}"

    def _against_now(self, spec: TaskSubmitted, offer: Offer, worker: Present) -> Iterator[tuple[str, str]]:
        if worker.state in (WorkerState.PAUSED, WorkerState.DRAINING):
            yield "takes nothing", f"is {worker.state.name}"
        if worker.name in self._open and not self._forgets:
            yield "takes nothing", "has an open breaker"
        if worker.room < 1:
            yield "room", "had said nothing of room for it"
        others = [self._ledger.submitted[task] for task in worker.tasks]
        alike = sum(1 for other in others if other.capability == spec.capability)
        if 0 < offer.concurrency_max <= alike:
            yield "concurrency", f"has {alike} at {offer.name}, and {offer.concurrency_max} are the most"
        capacity = {amount.name: amount.thousandths for amount in worker.kit.capacity}
        for name, needed in needs(spec, offer).items():
            used = sum(needs(other, worker.offer(other.capability)).get(name, 0) for other in others)
            if name in capacity and used + needed > capacity[name]:
                yield "resources", f"has {used} of {capacity[name]} {name} in use, and {needed} are needed"

    def _home(self, spec: TaskSubmitted) -> str:
        """Who has what the task's key stands for, while it is here, offers that still, and could ever do this task."""
        home = self.workers.get(self._homes.get((spec.tenant, spec.capability, key_of(spec)), ""))
        if not key_of(spec) or demand_of(spec).worker or spec.tenant == PROBE_TENANT or home is None:
            return ""
        offer = home.offer(spec.capability)
        if offer is None or not offer.stateful or home.state is WorkerState.DRAINING:
            return ""
        return "" if any(self._lasting(spec, offer, home)) else home.name

    def _on_side(self, spec: TaskSubmitted, offer: Offer) -> bool:
        """Whether a version gets such a task, as far as a rollout has a say in it."""
        rollout, demand = self._rollouts.get(spec.capability), demand_of(spec)
        if rollout is None or demand.versions or demand.worker or spec.tenant == PROBE_TENANT:
            return True
        # While one is being introduced, either side may stand in for the other.
        return rollout.lets(offer.version)

    def _check_side(self, spec: TaskSubmitted, worker: Present) -> None:
        """One version stands in for the other only where nobody who is here has that, connected or not."""
        rollout, demand, offer = self._rollouts.get(spec.capability), demand_of(spec), worker.offer(spec.capability)
        free = not demand.versions and not demand.worker and not self._home(spec) and spec.tenant != PROBE_TENANT
        if rollout is None or rollout.state is not RolloutState.RUNNING or not free or offer is None:
            return
        canary = self.dealt(spec)
        if (offer.version == rollout.version) == canary:
            self.met["given to the side it was dealt to"] += 1
            return
        self.met["given to the other side"] += 1
        for other in self.workers.values():
            has = other.offer(spec.capability)
            there = has is not None and (has.version == rollout.version) == canary
            if there and other.state is WorkerState.ACTIVE and not any(self.against(spec, other, now=False)):
                raise Violation("rollout", spec.task, f"was given to {worker.name}, and {other.name} has its version")

    def dealt(self, spec: TaskSubmitted) -> bool:
        """Whether the task goes to the version that is being introduced, if somebody has it."""
        rollout = self._rollouts[spec.capability]
        return crc32(spec.task.encode()) % 1_000 < rollout.share_permille

    def alike(self, one: TaskSubmitted, other: TaskSubmitted) -> bool:
        """Whether two tasks of a capability and a tenant ask the same of a worker, so that they go in their order."""
        if asks(one) != asks(other) or self._home(one) != self._home(other):
            return False
        if any((spec.tenant, spec.capability, key_of(spec)) in self._evicted for spec in (one, other)):
            return False
        rollout = self._rollouts.get(one.capability)
        if rollout is None:
            return True
        # One whose key found a home after it was dealt stands where it was dealt.
        running = rollout.state is RolloutState.RUNNING
        return not self._home(one) and (not running or self.dealt(one) == self.dealt(other))

    def hopeless(self) -> list[str]:
        """Tasks in a queue that nobody who is here can ever do."""
        return [task for task in self._pending() if not self._able(task)]

    def doable(self) -> list[str]:
        """Tasks that wait for nothing but their turn, and that somebody can do."""
        return [task for task in self._pending() if self._able(task)]

    def _able(self, task: str) -> bool:
        spec = self._ledger.submitted[task]
        home = self.workers.get(self._home(spec))
        offer = home.offer(spec.capability) if home is not None else None
        if offer is not None and not self._on_side(spec, offer):
            return False  # it may stand, since before its key had a home, behind others that wait for another version
        workers = self.workers.keys() - self._ledger.audit_book.shunned(task)
        return any(not any(self.against(spec, self.workers[name], now=False)) for name in workers)

    def _pending(self) -> list[str]:
        tasks = self._ledger.state.tasks
        return [task for task in self._ledger.unsettled() if tasks[task].state is TaskState.PENDING]


def kit_of(event: WorkerJoined) -> Kit:
    """What a worker said of itself."""
    return Kit(event.offers, event.tags, event.capacity, event.tenants)
