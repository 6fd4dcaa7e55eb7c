"""Capabilities as people and programs see them: what is offered, by whom, what waits, and what operators have set."""

from __future__ import annotations

from collections import Counter
from collections.abc import Set as AbstractSet
from heapq import nsmallest

from msgspec import Struct, field

from merit.allocation.catalogue import DEFAULT
from merit.gateway.portions import portions
from merit.gateway.worker_view import TURN_WORKERS
from merit.model.fleet import Allocation, Rollout, Tally
from merit.model.workers import Worker, WorkerState
from merit.ports.cell import Cell
from merit.wire.v1 import fleet_pb2


class Staffing(Struct):
    """Who offers some capabilities, each as it was when it was looked at, and what they do."""

    versions: dict[str, Counter[str]]
    """By capability and version: workers that are here."""
    workers: Counter[str] = field(default_factory=Counter)
    """By capability: workers that are connected and may be given tasks of it."""
    with_room: Counter[str] = field(default_factory=Counter)
    running: Counter[str] = field(default_factory=Counter)
    """Attempts that are alive."""

    def sides(self, rollout: Rollout) -> tuple[int, int]:
        """Workers that offer the version that is being introduced, and those that offer another one."""
        counts = self.versions.get(rollout.capability, Counter())
        return counts[rollout.version], counts.total() - counts[rollout.version]


async def count_staff(cell: Cell, names: AbstractSet[str]) -> Staffing:
    """Count for these capabilities."""
    found = Staffing({name: Counter() for name in names})
    desk = cell.desk
    async for portion in portions(desk.state.workers.values() if names else (), TURN_WORKERS):
        for worker in portion:
            seat = desk.seats.get(worker.id)
            gives = worker.state is WorkerState.ACTIVE and seat is not None and seat.attached
            room = gives and seat is not None and seat.granted > seat.used
            for offer in worker.offers:
                if offer.name in names:
                    found.versions[offer.name][offer.version] += 1
                    found.workers[offer.name] += gives
                    found.with_room[offer.name] += room
            _count_running(cell, worker, names, found.running)
    return found


def _count_running(cell: Cell, worker: Worker, names: AbstractSet[str], running: Counter[str]) -> None:
    for task_id in worker.attempts:
        task = cell.state.tasks.get(task_id)
        if task is not None and task.capability in names:
            running[task.capability] += 1


def is_known(cell: Cell, name: str) -> bool:
    """Whether a worker has ever offered it, something waits for it, or an operator has set something for it."""
    state = cell.state
    return (
        name in state.offers
        or name in state.admissions
        or name in state.rollouts
        or name in state.audits
        or (bool(name) and name in state.allocations)
        or cell.desk.backlog.pending(name) > 0
    )


def known_names(cell: Cell, above: str, count_max: int) -> list[str]:
    """The first names of capabilities after this one: those that were offered, or for which something is set."""
    state = cell.state
    names = {*state.offers, *state.admissions, *state.rollouts, *state.audits, *state.allocations}
    return nsmallest(count_max, (name for name in names if name and name > above))


def view_capability(cell: Cell, name: str, staffing: Staffing) -> fleet_pb2.FleetCapability:
    """A capability without schemas and probes."""
    state = cell.state
    allocation, source = allocation_of(cell, name)
    admission, rollout = state.admissions.get(name), state.rollouts.get(name)
    message = fleet_pb2.FleetCapability(
        name=name,
        versions=[
            fleet_pb2.VersionCount(version=version, workers=count)
            for version, count in sorted(staffing.versions.get(name, Counter()).items())
        ],
        pending=cell.desk.backlog.pending(name),
        running=staffing.running[name],
        workers=staffing.workers[name],
        with_room=staffing.with_room[name],
        usual_ns=cell.desk.usual_ns.get(name, 0),
        allocation=encode_allocation(allocation),
        source=source,
        probe_count=len(admission.probes) if admission is not None else 0,
        paused=name in state.paused,
    )
    if rollout is not None:
        message.rollout.CopyFrom(view_rollout(rollout, staffing))
    return message


def fill_contract(message: fleet_pb2.FleetCapability, cell: Cell) -> None:
    """What is told only of a capability that was asked for: what it takes and gives, and its probes."""
    offer = cell.state.offers.get(message.name)
    if offer is not None:
        message.description = offer.description
        message.input_schema = offer.input_schema
        message.output_schema = offer.output_schema
        message.requires.extend(offer.requires)
    admission = cell.state.admissions.get(message.name)
    for probe in admission.probes if admission is not None else ():
        message.probes.add(parameters=probe.parameters, expected=probe.expected, run_timeout_ns=probe.run_timeout_ns)


def allocation_of(cell: Cell, name: str) -> tuple[Allocation, fleet_pb2.AllocationSource.ValueType]:
    """How workers are chosen for tasks of the capability that do not say it themselves, and who said so."""
    allocations = cell.state.allocations
    if name in allocations:
        return allocations[name], fleet_pb2.ALLOCATION_SOURCE_CAPABILITY
    if "" in allocations:
        return allocations[""], fleet_pb2.ALLOCATION_SOURCE_SYSTEM
    return Allocation("", DEFAULT), fleet_pb2.ALLOCATION_SOURCE_DEFAULT


def encode_allocation(allocation: Allocation) -> fleet_pb2.Allocation:
    """How workers are chosen."""
    return fleet_pb2.Allocation(
        capability=allocation.capability,
        strategy=allocation.strategy,
        weights=[fleet_pb2.FigureWeight(name=one.name, permille=one.permille) for one in allocation.weights],
    )


def view_rollout(rollout: Rollout, staffing: Staffing) -> fleet_pb2.Rollout:
    """A rollout, with who is on which side."""
    canary_workers, stable_workers = staffing.sides(rollout)
    return fleet_pb2.Rollout(
        capability=rollout.capability,
        version=rollout.version,
        share_permille=rollout.share_permille,
        state=fleet_pb2.RolloutState.ValueType(rollout.state),
        since_ns=rollout.since_ns,
        canary=_encode_tally(rollout.canary),
        stable=_encode_tally(rollout.stable),
        canary_workers=canary_workers,
        stable_workers=stable_workers,
    )


def _encode_tally(tally: Tally) -> fleet_pb2.Tally:
    return fleet_pb2.Tally(completed=tally.completed, failed=tally.failed, took_ns=tally.took_ns)
