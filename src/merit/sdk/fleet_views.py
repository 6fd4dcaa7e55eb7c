"""What the control plane says of the fleet as plain dictionaries, ready to be shown or written as JSON."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import msgspec

from merit.sdk.supervision import conduct_view, rating_view
from merit.sdk.views import when
from merit.wire.v1 import fleet_pb2, worker_pb2

_PERMILLE = 1_000
_THOUSANDTHS = 1_000
_MICROS = 1_000_000


def standing_name(number: int) -> str:
    """Where a worker is in its life, by the name that people know."""
    return fleet_pb2.Standing.Name(number).removeprefix("STANDING_")  # type: ignore[arg-type]  # from the wire


def fleet_worker_view(message: fleet_pb2.FleetWorker) -> dict[str, Any]:
    """A worker; times are ISO 8601 in UTC. None: there is none, or of a worker that is long gone, it is not known any more."""
    return {
        "id": message.id,
        "state": standing_name(message.standing),
        "reason": message.reason,
        "contract": fleet_pb2.Contract.Name(message.contract).removeprefix("CONTRACT_") if message.contract else None,
        "address": message.address or None,
        "boot": message.boot_id or None,
        "capabilities": [_offer_view(offer) for offer in message.offers],
        "tags": list(message.tags),
        "tenants": list(message.tenants),
        "capacity": _amounts(message.capacity),
        "in_use": _amounts(message.in_use),
        "concurrency": message.concurrency,
        "attempts": message.attempts,
        "room": message.room,
        "first": when(message.first_ns),
        "joined": when(message.joined_ns),
        "seen": when(message.seen_ns),
        "left": when(message.left_ns),
        "lost": message.lost,
        "completed": message.completed if message.HasField("completed") else None,
        "failed": message.failed if message.HasField("failed") else None,
        "words": list(message.words),
        "tasks": list(message.tasks),
        **conduct_view(message.conduct if message.HasField("conduct") else None),
    }


def _offer_view(message: fleet_pb2.OfferView) -> dict[str, Any]:
    return {
        "name": message.name,
        "version": message.version,
        "tags": list(message.tags),
        "resources": _amounts(message.resources),
        "concurrency_max": message.concurrency_max or None,
        "cost": message.cost_micros / _MICROS,
        "preference": message.preference_permille / _PERMILLE,
        "stateful": message.stateful,
        "took_s": message.took_ns / 1e9 if message.measured else None,
        "measured": message.measured,
        "admitted": message.admitted,
        "reputation": rating_view(message.reputation) if message.HasField("reputation") else None,
    }


def _amounts(messages: Iterable[worker_pb2.Amount]) -> dict[str, int | float]:
    return {
        amount.name: amount.thousandths // _THOUSANDTHS
        if amount.thousandths % _THOUSANDTHS == 0
        else amount.thousandths / _THOUSANDTHS
        for amount in messages
    }


def capability_view(message: fleet_pb2.FleetCapability) -> dict[str, Any]:
    """A capability; schemas, description and probes only where one capability was asked for."""
    source = fleet_pb2.AllocationSource.Name(message.source).removeprefix("ALLOCATION_SOURCE_")
    return {
        "name": message.name,
        "description": message.description,
        "versions": {one.version: one.workers for one in message.versions},
        "pending": message.pending,
        "running": message.running,
        "workers": message.workers,
        "with_room": message.with_room,
        "usual_s": message.usual_ns / 1e9 if message.usual_ns else None,
        "paused": message.paused,
        "allocation": {
            "strategy": message.allocation.strategy,
            "weights": {one.name: one.permille / _PERMILLE for one in message.allocation.weights},
            "set_for": source,
        },
        "probe_count": message.probe_count,
        "probes": [_probe_view(probe) for probe in message.probes],
        "rollout": rollout_view(message.rollout) if message.HasField("rollout") else None,
        "requires": list(message.requires),
        "input_schema": _json(message.input_schema),
        "output_schema": _json(message.output_schema),
    }


def _probe_view(message: fleet_pb2.Probe) -> dict[str, Any]:
    view = {"parameters": _json(message.parameters), "run_timeout_s": message.run_timeout_ns / 1e9}
    return view | {"expected": _json(message.expected)} if message.expected else view


def rollout_view(message: fleet_pb2.Rollout) -> dict[str, Any]:
    """A rollout: how the version and the others do, and how far they are apart (None: too little is known)."""
    canary, stable = _tally_view(message.canary), _tally_view(message.stable)
    rates = (canary["error_rate"], stable["error_rate"])
    means = (canary["mean_s"], stable["mean_s"])
    return {
        "capability": message.capability,
        "version": message.version,
        "share": message.share_permille / _PERMILLE,
        "state": fleet_pb2.RolloutState.Name(message.state).removeprefix("ROLLOUT_STATE_"),
        "since": when(message.since_ns),
        "canary": {"workers": message.canary_workers, **canary},
        "stable": {"workers": message.stable_workers, **stable},
        "error_rate_more": None if None in rates else rates[0] - rates[1],
        "mean_times": means[0] / means[1] if means[0] is not None and means[1] else None,
    }


def _tally_view(message: fleet_pb2.Tally) -> dict[str, Any]:
    ended = message.completed + message.failed
    return {
        "completed": message.completed,
        "failed": message.failed,
        "error_rate": message.failed / ended if ended else None,
        "mean_s": message.took_ns / message.completed / 1e9 if message.completed else None,
    }


def explanation_view(message: fleet_pb2.Explanation) -> dict[str, Any]:
    """Why a task went where it went, or what it waits for: who is best comes first, who is ruled out last."""
    return {
        "task": message.task_id,
        "attempt": message.number or None,
        "capability": message.capability,
        "demand": message.demand,
        "strategy": message.strategy,
        "at": when(message.at_ns),
        "chosen": message.chosen or None,
        "agrees": message.agrees,
        "why": message.why,
        "workers": [
            {
                "worker": ruling.worker_id,
                "fits": ruling.fits,
                "rank": ruling.rank or None,
                "figures": {figure.name: figure.value for figure in ruling.figures},
                "reasons": list(ruling.reasons),
            }
            for ruling in message.rulings
        ],
        "left_out": message.left_out,
    }


def _json(data: bytes) -> Any:
    return msgspec.json.decode(data) if data else None
