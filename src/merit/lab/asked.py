"""What a task asks of a worker, as the books of the ledger read it from the word that it was taken in."""

from __future__ import annotations

from merit.model.events import TaskSubmitted
from merit.model.tasks import Demand, Review
from merit.model.workers import Offer

NOTHING = Demand()


def demand_of(spec: TaskSubmitted) -> Demand:
    """What it asks beyond its capability."""
    return spec.terms.demand if spec.terms is not None and spec.terms.demand is not None else NOTHING


def key_of(spec: TaskSubmitted) -> str:
    """What limits count it by, or nothing."""
    return spec.terms.key if spec.terms is not None else ""


def review_of(spec: TaskSubmitted) -> Review | None:
    """What it is to find out, if the cell has made it for that."""
    return spec.terms.review if spec.terms is not None else None


def asks(spec: TaskSubmitted) -> tuple[object, ...]:
    """Tasks of a capability and a tenant of which this is the same stand in one line, as far as they themselves go."""
    demand = demand_of(spec)
    return (
        demand.versions,
        demand.worker,
        demand.tags,
        demand.without_tags,
        demand.resources,
        demand.strategy,
        review_of(spec) is not None,
    )


def needs(spec: TaskSubmitted, offer: Offer | None) -> dict[str, int]:
    """What an attempt takes of each resource, in thousandths."""
    usual = {amount.name: amount.thousandths for amount in offer.resources} if offer is not None else {}
    return usual | {amount.name: amount.thousandths for amount in demand_of(spec).resources}


def numbers(version: str) -> tuple[int, ...]:
    """A whole version, to be compared."""
    return tuple(map(int, version.split(".")))


def in_range(version: str, wanted: str) -> bool:
    """For whole versions, and conditions that are a sign and one of those."""
    mine = numbers(version)
    for condition in wanted.split(","):
        theirs = numbers(condition.lstrip("=!<>"))
        sign = condition.rstrip("0123456789.")
        if not {
            "==": mine == theirs,
            "!=": mine != theirs,
            ">=": mine >= theirs,
            "<=": mine <= theirs,
            ">": mine > theirs,
            "<": mine < theirs,
        }[sign]:
            return False
    return True
