"""Hard constraints: which workers may be given a task at all.

What does not change while a worker is here (``reasons_against``) decides who stands in a line; what changes with each
attempt (``lacking``) decides who of them can take one more now.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from merit.allocation.versions import matches, range_text
from merit.model.tasks import Demand
from merit.model.tenancy import GOLD_TENANT
from merit.model.workers import UNCOUNTED, Amount, Offer, Worker, WorkerState

_THOUSANDTHS = 1_000
SLOTS = "attempts at "
"""Before the name of a capability: the name under which its concurrency is counted like a resource."""

NOTHING = Demand()


def reasons_against(worker: Worker, capability: str, demand: Demand, tenant: str, *, probing: bool) -> Iterator[str]:
    """Why the worker can never be given the task as things stand, one by one.

    Args:
        worker: who is looked at.
        capability: of the task.
        demand: what the task asks beyond it.
        tenant: whose it is; empty: of somebody who is named by no worker.
        probing: whether it is a task of the worker's own admission.
    """
    offer = worker.offer(capability)
    if offer is None:
        yield f"does not offer {capability}"
        return
    if worker.state is WorkerState.DRAINING:
        yield "is draining"
    elif worker.state is WorkerState.PAUSED:
        yield "is paused"
    elif worker.state is WorkerState.PROBATION and not probing:
        yield "is on probation"
    yield from shortcomings(worker, offer, demand, tenant, probing=probing)


def shortcomings(worker: Worker, offer: Offer, demand: Demand, tenant: str, *, probing: bool) -> Iterator[str]:
    """As ``reasons_against``, but for the state that the worker is in."""
    if demand.worker and demand.worker != worker.id:
        yield f"is not {demand.worker}"
    if demand.versions and not matches(demand.versions, offer.version):
        yield f"has version {offer.version}, not {range_text(demand.versions)}"
    if worker.tenants and tenant not in worker.tenants and not probing and tenant != GOLD_TENANT:
        yield f"takes tasks of {', '.join(worker.tenants)} only"
    if demand.tags or demand.without_tags:
        has = {*worker.tags, *offer.tags, *worker.privileges}
        missing = [tag for tag in demand.tags if tag not in has]
        if missing:
            yield f"lacks the tag {', '.join(missing)}"
        unwanted = [tag for tag in demand.without_tags if tag in has]
        if unwanted:
            yield f"has the tag {', '.join(unwanted)}"
    capacity = capacity_of(worker)
    for need in needs_of(offer, demand):
        has_in_all = capacity.get(need.name)
        if has_in_all is None and need.thousandths and need.name not in UNCOUNTED:
            yield f"has no {need.name}"
        elif has_in_all is not None and has_in_all < need.thousandths:
            yield f"has {amount_text(has_in_all)} {need.name} in all, {amount_text(need.thousandths)} are needed"


def needs_of(offer: Offer, demand: Demand) -> tuple[Amount, ...]:
    """What an attempt takes of each resource: what the task says, for all else what the offer does."""
    if not demand.resources:
        return offer.resources
    said = {need.name for need in demand.resources}
    return (*demand.resources, *(need for need in offer.resources if need.name not in said))


def capacity_of(worker: Worker) -> dict[str, int]:
    """What the worker has of each resource that it counts, in thousandths."""
    return {amount.name: amount.thousandths for amount in worker.capacity}


def lacking(
    offer: Offer, needs: tuple[Amount, ...], capacity: Mapping[str, int], in_use: Mapping[str, int]
) -> Iterator[str]:
    """What the worker has too little of for one more attempt now, one by one.

    Args:
        offer: of the worker, for the capability of the attempt.
        needs: of the attempt.
        capacity: of the worker, in thousandths.
        in_use: by its live attempts, in thousandths; attempts at a capability are counted under ``SLOTS`` and its name.
    """
    if offer.concurrency_max and in_use.get(SLOTS + offer.name, 0) >= offer.concurrency_max:
        yield f"makes {offer.concurrency_max} attempts at {offer.name} at a time, and has them"
    for need in needs:
        has_in_all = capacity.get(need.name)
        if has_in_all is None:
            continue
        free = has_in_all - in_use.get(need.name, 0)
        if free < need.thousandths:
            yield f"has {amount_text(free)} {need.name} free, {amount_text(need.thousandths)} are needed"


_FITTED = ("cpu", "memory", "network")


def misfit_permille(needs: tuple[Amount, ...], capacity: Mapping[str, int], in_use: Mapping[str, int]) -> int:
    """How far what is free of cpu, memory and network is from what is needed: the sum of the differences, each as a
    share of what the worker has, in thousandths; resources that it does not count are left out."""
    wanted = {need.name: need.thousandths for need in needs}
    total = 0
    for name in _FITTED:
        has_in_all = capacity.get(name)
        if has_in_all:
            total += abs(has_in_all - in_use.get(name, 0) - wanted.get(name, 0)) * _THOUSANDTHS // has_in_all
    return total


def amount_text(thousandths: int) -> str:
    """An amount for people."""
    return f"{thousandths / _THOUSANDTHS:,g}"
