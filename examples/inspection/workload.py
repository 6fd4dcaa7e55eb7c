"""Who did how much, and how fast: the part of the report about the fleet's workers, each by capability."""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from .findings import Inspection

FOREIGN = "foreign"
UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class FleetMember:
    """What the control plane knows of a worker at the end of a run.

    `speed` is what the pool says of it (its tag `speed=…`), or that it is `FOREIGN`; `learned_s` is how long its attempts
    take by capability, as strategies go by it.
    """

    name: str
    speed: str
    learned_s: Mapping[str, float] = field(default_factory=dict)


def member_of(view: Mapping[str, Any]) -> FleetMember:
    """A worker from the control plane's view of it."""
    tags = dict(tag.partition("=")[::2] for tag in view["tags"])
    speed = FOREIGN if view["contract"] == "UNARY" else tags.get("speed", UNKNOWN)
    took_s = {offer["name"]: offer["took_s"] for offer in view["capabilities"] if offer["took_s"] is not None}
    return FleetMember(view["id"], speed, took_s)


def by_worker(outcomes: Sequence[Inspection], members: Sequence[FleetMember]) -> list[dict[str, Any]]:
    """One row for each worker that did something, by name; `share` is that of all tasks, `times` has a row for each
    capability."""
    known = {member.name: member for member in members}
    groups: defaultdict[str, list[Inspection]] = defaultdict(list)
    for one in outcomes:
        groups[one.worker or UNKNOWN].append(one)
    rows = []
    for name, done in sorted(groups.items()):
        member = known.get(name, FleetMember(name, UNKNOWN))
        row = figures(done)
        share = round(len(done) / len(outcomes), 4)
        rows.append({"worker": name, "speed": member.speed, "share": share, **row, "times": _times(done, member)})
    return rows


def _times(done: Sequence[Inspection], member: FleetMember) -> list[dict[str, Any]]:
    groups: defaultdict[str, list[float]] = defaultdict(list)
    for one in done:
        groups[one.capability].append(1_000 * one.duration_s)
    return [
        {
            "capability": capability,
            "tasks": len(durations_ms),
            "mean_ms": round(statistics.fmean(durations_ms), 2),
            "learned_ms": _milliseconds(member.learned_s.get(capability)),
        }
        for capability, durations_ms in sorted(groups.items())
    ]


def _milliseconds(seconds: float | None) -> float | None:
    return None if seconds is None else round(1_000 * seconds, 2)


def figures(done: Sequence[Inspection]) -> dict[str, Any]:
    """Tasks, failures and times of some outcomes, of which there is at least one."""
    durations_ms = [1_000 * one.duration_s for one in done]
    cpu_s = [one.cpu_s for one in done if one.cpu_s is not None]
    return {
        "tasks": len(done),
        "failed": sum(one.result is None for one in done),
        "tried_again": sum(one.attempts > 1 for one in done),
        "mean_ms": round(statistics.fmean(durations_ms), 2),
        "p95_ms": round(sorted(durations_ms)[int(0.95 * (len(done) - 1))], 2),
        "cpu_s": round(sum(cpu_s), 2) if any(cpu_s) else None,
    }
