"""Bounds and times of one simulated cell: small and short, so that all of them are met."""

from __future__ import annotations

from merit.lab.habits import KEYS
from merit.lab.world import World
from merit.model.limits import MILLISECOND_NS, SECOND_NS, Limits

PROFILES_FEW = 3
"""So few profiles are kept in some worlds that those of workers which are away are forgotten."""


def limits_of(world: World) -> Limits:
    """Drawn once for the whole of a world."""
    return Limits(
        live_tasks_max=1_000 if world.rng.random() < 0.9 else 12,
        tenant_live_max=1_000 if world.rng.random() < 0.9 else 6,
        capability_pending_max=1_000 if world.rng.random() < 0.9 else 5,
        finals_max=100_000 if world.rng.random() < 0.7 else 5,
        dead_letters_max=100_000 if world.rng.random() < 0.8 else 3,
        keys_max=100_000 if world.rng.random() < 0.7 else KEYS,  # a frame may not have more of them
        keys_ns=24 * 3_600 * SECOND_NS if world.rng.random() < 0.7 else 300 * MILLISECOND_NS,
        ageing_ns=300 * SECOND_NS if world.rng.random() < 0.7 else 150 * MILLISECOND_NS,
        patience_ns=60 * SECOND_NS if world.rng.random() < 0.5 else 100 * MILLISECOND_NS,
        profiles_max=100_000 if world.rng.random() < 0.9 else PROFILES_FEW,
        lines_max=20_000 if world.rng.random() < 0.9 else 4,
        broad_lines_max=256 if world.rng.random() < 0.9 else 2,
        homes_max=1_000_000 if world.rng.random() < 0.8 else 1,
        grace_ns=800 * MILLISECOND_NS,
        reconnect_ns=400 * MILLISECOND_NS,
        stale_ns=3 * SECOND_NS,
        awake_ns=300 * MILLISECOND_NS,
        beat_ns=500 * MILLISECOND_NS,
        backoff_ns=30 * MILLISECOND_NS,
        backoff_ns_max=500 * MILLISECOND_NS,
        batch_items_max=8_192 if world.rng.random() < 0.6 else world.rng.choice((1, 4)),
        batch_events_max=8_192 if world.rng.random() < 0.7 else 8,
        batch_follow_ups_max=4_096 if world.rng.random() < 0.6 else 1,
    )
