"""Submits one task for each file and capability, and for each portion of a directory, and collects what comes back."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

import msgspec

from merit import AsyncClient, Options, Result, WorkerWhere

from . import capabilities
from .findings import CPU_BOUND, TEXT_FORM, Inspection, places
from .fleet import InspectionFleet
from .tree import SourceTree, portions_of
from .workload import FleetMember, member_of

WINDOW = 4_000
START_S = 60.0
STRATEGY = "least-expected"
"""For what needs a processor: of several workers that have room, the one that should be done first by what it took so far."""
DRILL_ATTEMPTS_MAX = 10
_PAGE = 1_000


class ProgressDisplay(Protocol):
    """Somebody who shows how far an inspection is."""

    def advance(self, done: int, failed: int, in_flight: int) -> None:
        """So many tasks are done, failed among them, and in flight."""
        ...

    def incident(self, what: str) -> None:
        """Something happened that a person would want to know."""
        ...


class InspectionJob:
    """One inspection of a tree, from the start of the fleet to its end.

    Args:
        tree: what is inspected.
        state: directory of the control plane; the logs of all processes are below it.
        workers: how many worker processes.
        display: is told how far it is.
        kill_drill: kill -9 a worker and the control plane when a third is done, and when two thirds are; and the foreign
            worker when it has done a third of its tasks, and two thirds.
    """

    def __init__(
        self, tree: SourceTree, state: Path, workers: int, display: ProgressDisplay, *, kill_drill: bool = False
    ) -> None:
        self.incidents: list[tuple[float, str]] = []
        self.members: list[FleetMember] = []
        """The workers of the fleet, once it has done its work."""
        self._tree = tree
        self._places = places(tree)
        self._portions = {portion.label: portion for portion in portions_of(tree)}
        self._state = state
        self._workers = workers
        self._display = display
        self._submitted = 0
        self._kill_drill = kill_drill
        self._drills = _thirds(len(self._places)) if kill_drill else []
        self._foreign_drills = _thirds(len(self._portions)) if kill_drill else []
        self._began_s = time.monotonic()

    async def run(self) -> list[Inspection]:
        """Inspect; one outcome for each of `places`.

        Raises:
            PoolGaveUp: a process cannot work at all; its log says why.
            Unreachable: the control plane does not answer.
        """
        self._began_s = time.monotonic()
        async with InspectionFleet(self._state, self._workers, self._note) as fleet:
            watching = asyncio.create_task(fleet.failed())
            inspecting = asyncio.create_task(self._inspect(fleet))
            try:
                await asyncio.wait((watching, inspecting), return_when=asyncio.FIRST_COMPLETED)
                if not inspecting.done():
                    watching.result()
                return inspecting.result()
            finally:
                watching.cancel()
                inspecting.cancel()
                await asyncio.wait((watching, inspecting))

    async def _inspect(self, fleet: InspectionFleet) -> list[Inspection]:
        done: dict[str, Inspection] = {}
        failed = foreign = 0
        # A task can be hit by each of the kills.
        options = Options(attempts_max=DRILL_ATTEMPTS_MAX) if self._kill_drill else None
        async with AsyncClient(fleet.server, connect_timeout_s=START_S) as client:
            for name in CPU_BOUND:
                await client.operations.fleet.set_allocation(STRATEGY, capability=name)
            async for batch in client.batches(self._calls(), window=WINDOW, options=options):
                finished_s = time.monotonic() - self._began_s
                for handle in batch:
                    path, capability = self._places[handle.tag]
                    result = await handle.wait()
                    failed += not result.ok
                    foreign += capability == TEXT_FORM
                    done[handle.id] = _inspection(path, capability, result, finished_s)
                self._display.advance(len(done), failed, self._submitted - len(done))
                self._drill(len(done), foreign, fleet)
            await _add_times(client, done)
            self.members = await _members(client)
        return list(done.values())

    def _calls(self) -> Iterator[tuple[str, dict[str, Any]]]:
        for path, name in self._places:
            self._submitted += 1
            if name == TEXT_FORM:
                portion = self._portions[path]
                yield name, {"root": self._tree.root, "directory": portion.directory, "names": portion.names}
            else:
                yield name, capabilities.parameters_of(name, self._tree.root, path)

    def _drill(self, done: int, foreign: int, fleet: InspectionFleet) -> None:
        if self._drills and done >= self._drills[0]:
            del self._drills[0]
            fleet.kill_worker()
            fleet.kill_control_plane()
        if self._foreign_drills and foreign >= self._foreign_drills[0]:
            del self._foreign_drills[0]
            fleet.kill_foreign_agent()

    def _note(self, what: str) -> None:
        self.incidents.append((time.monotonic() - self._began_s, what))
        self._display.incident(what)


def _thirds(count: int) -> list[int]:
    """A third and two thirds of so many, at least one."""
    return [max(1, count // 3), max(1, 2 * count // 3)]


def _inspection(path: str, capability: str, result: Result, finished_s: float) -> Inspection:
    failure = result.failure
    return Inspection(
        path,
        capability,
        msgspec.json.decode(result.json) if result.ok else None,
        None if result.ok else f"{failure.kind}: {failure.message}" if failure else result.state.name.lower(),
        result.worker,
        result.attempts,
        finished_s,
    )


async def _members(client: AsyncClient) -> list[FleetMember]:
    """All workers, also those that are just being started again."""
    standings = ("JOINING", "PROBATION", "IDLE", "BUSY", "DRAINING", "GONE", "SUSPECT", "PAUSED", "DEACTIVATED")
    return [member_of(view) for view in await client.operations.fleet.workers(WorkerWhere(states=standings))]


async def _add_times(client: AsyncClient, done: dict[str, Inspection]) -> None:
    """What each task took, as the control plane has it; of a very large tree it remembers the last ones only."""
    cursor, missing = "", len(done)
    while missing:
        page = await client.tasks(limit=_PAGE, cursor=cursor)
        for view in page.tasks:
            one = done.get(view["id"])
            if one is not None and view["attempts"]:
                last = view["attempts"][-1]
                done[view["id"]] = replace(one, duration_s=last["wall_s"], cpu_s=last["cpu_s"])
                missing -= 1
        cursor = page.next_cursor
        if not cursor:
            return
