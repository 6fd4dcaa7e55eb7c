"""All benchmarks by name, and how some of them are run and written down."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Final

from msgspec import Struct

from merit.lab.bench import fleet_promises, latency, memory, merit, openloop, queue, recovery, scale, throughput
from merit.lab.bench.calibration import calibrate
from merit.lab.bench.figures import Figure
from merit.lab.bench.fleet import FleetFailed
from merit.lab.bench.plan import Plan

BENCHMARKS: Final[Mapping[str, Callable[[Plan], Awaitable[list[Figure]]]]] = {
    "throughput": throughput.run,
    "openloop": openloop.run,
    "latency": latency.run,
    "recovery": recovery.run,
    "scale": scale.run,
    "queue": queue.run,
    "fleet": fleet_promises.run,
    "memory": memory.run,
    "merit": merit.run,
}

_LIMIT_S: Final = 1_200.0
"""A benchmark that takes this long at whatever size is stuck."""


class Measurement(Struct, frozen=True):
    """What benchmarks came to on this machine."""

    figures: list[Figure]
    machine: dict[str, Any]

    @property
    def ok(self) -> bool:
        """Whether no bar is missed."""
        return all(figure.ok is not False for figure in self.figures)

    def view(self) -> dict[str, Any]:
        """As JSON has it."""
        return {"figures": [figure.view() for figure in self.figures], "machine": self.machine}


async def measure(names: Sequence[str], plan: Plan, progress: Callable[[str], None] = lambda _: None) -> Measurement:
    """Run these benchmarks one after the other; of several, each figure bears the name of its benchmark before its own.

    On SIGTERM it cleans up and raises ``CancelledError``.

    Args:
        names: of ``BENCHMARKS``.
        plan: their sizes.
        progress: told what begins.

    Raises:
        FleetFailed: a process did not come up, or ended.
        BadTrace: there are no traces where they should be, or one cannot be read.
        OSError: the state directory cannot be used.
    """
    this = asyncio.current_task()
    assert this is not None
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, this.cancel)
    if plan.state is not None:
        plan.state.mkdir(parents=True, exist_ok=True)
    progress("calibration")
    machine = await calibrate(plan.state)
    figures: list[Figure] = []
    for name in names:
        progress(name)
        try:
            async with asyncio.timeout(_LIMIT_S + plan.soak_s):
                found = await BENCHMARKS[name](plan)
        except TimeoutError:
            raise FleetFailed(f"{name} did not come to an end within {_LIMIT_S + plan.soak_s:g} s") from None
        figures += [figure.of(name) for figure in found] if len(names) > 1 else found
    return Measurement(figures, machine)
