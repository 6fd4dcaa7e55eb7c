"""What a benchmark is told, and what it hands back."""

from __future__ import annotations

from pathlib import Path

from msgspec import Struct


class Plan(Struct, frozen=True, kw_only=True):
    """Sizes of all benchmarks; the defaults are those that the bars are for, and keep each below 50 s, queue and
    fleet below three minutes, memory below ten."""

    state: Path | None = None
    """Directory on whose disk the state lies while it is measured; the system's temporary one by default."""
    workers: int = 2
    concurrency: int | None = None
    """Of each worker; its own default if None."""
    tasks: tuple[int, ...] = (10_000, 100_000)
    """throughput: tasks of each run."""
    rates_per_s: tuple[int, ...] = (10_000, 15_000)
    """openloop: submits offered."""
    offer_s: float = 15.0
    """openloop: for how long each rate is offered."""
    stall_s: float = 5.0
    """openloop: for how long the control plane stands still."""
    stall_rate_per_s: int = 5_000
    rounds: int = 1_500
    """latency: tasks, one at a time."""
    naps: int = 200
    """recovery: tasks of ``nap_s``."""
    nap_s: float = 0.05
    restart_events: int = 1_000_000
    """recovery: events after the snapshot that a start has to fold."""
    waiting: int = 1_000_000
    """scale, queue: tasks that wait."""
    waiting_few: int = 1_000
    """scale, queue, fleet: as many, besides what workers take in advance, where only few wait."""
    scale_tasks: int = 20_000
    """scale: tasks whose cost is measured, each time."""
    busy_workers: int = 10
    """scale, fleet: workers that work …"""
    idle_workers: int = 5_000
    """… and, of a large fleet, those that have nothing to do."""
    soak_s: float = 0.0
    """scale: how long to look at memory under load instead of all else."""
    hot_nap_s: float = 0.12
    """queue: how long the tasks of the tenants take."""
    hot_repeats: int = 5
    limit_pairs: int = 20
    """queue: comparisons with and without each limit."""
    limit_tasks: int = 4_000
    """queue: tasks whose cost is measured, each time."""
    delayed: int = 100_000
    """queue: tasks that wait for their time."""
    delay_spread_s: float = 20.0
    """queue: over how long their times are spread."""
    flow_rate_per_s: int = 5_000
    """queue: submits offered meanwhile."""
    strategy_pairs: int = 7
    """fleet: comparisons of each strategy with the default."""
    strategy_tasks: int = 10_000
    """fleet: tasks whose time is measured, each time."""
    scale_pairs: int = 20
    """fleet: comparisons of each strategy in a large fleet and in a small one."""
    scale_pair_tasks: int = 500
    """fleet: tasks whose cost in the machine is measured, each time."""
    traces: Path | None = None
    """fleet: directory with public traces; None: a synthetic one."""
    trace_tasks: int = 8_000
    """fleet: tasks of each trace at most."""
    virtual_workers: tuple[int, ...] = (20, 1_000)
    """fleet: sizes of the fleets to which the traces come, in virtual time."""
    unary_workers: int = 20
    unary_tasks: int = 1_000
    unary_nap_s: float = 0.2
    """fleet: how long a task takes a worker of the unary contract."""
    follower_pairs: int = 20
    """memory: comparisons with and without the follower."""
    follower_tasks: int = 10_000
    """memory: tasks whose time is measured, each time."""
    catch_up_events: int = 1_000_000
    search_rows: int = 1_000_000
    """memory: final tasks that are searched."""
    store_pairs: int = 5
    """memory: comparisons of PostgreSQL with SQLite."""
    store_tasks: int = 50_000
    """memory: tasks that go through, each time."""
    fence_pairs: int = 10
    """memory: comparisons of appends that ask who leads with such that do not."""
    fence_appends: int = 400
    """memory: appends whose time is measured, each time."""
    takeovers: int = 50
    """memory: leaders that are killed or stopped."""
    seeds: int = 8
    """merit: simulations of each kind, each from a seed of its own."""
    full: bool = False
    """merit: 200 of them, and at full size whatever else has a smaller one by default."""
    data: Path | None = None
    """merit: directory with sets of labels by crowds; None: synthetic ones."""
