"""``FleetOperations`` for programs without an event loop."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Coroutine, Iterator, Mapping, Sequence
from typing import Any, TypeVar, Unpack

from merit.sdk.audits import Audit
from merit.sdk.fleet_operations import AdmissionProbe, FleetOperations, WorkerChanges, WorkerPage, WorkerWhere
from merit.sdk.supervision import SupervisionArguments

T = TypeVar("T")


class BlockingFleetOperations:
    """Questions and orders about the fleet: see ``FleetOperations`` for what the methods do and raise."""

    def __init__(
        self,
        fleet: FleetOperations,
        do: Callable[[Coroutine[Any, Any, Any]], Any],
        take: Callable[[AsyncGenerator[Any, None]], Iterator[Any]],
    ) -> None:
        self._fleet = fleet
        self._run = do
        self._take = take

    def workers(self, where: WorkerWhere | None = None) -> list[dict[str, Any]]:
        """The workers that are meant, by id: all of them, however many."""
        return self._do(self._fleet.workers(where))

    def worker_page(self, where: WorkerWhere | None = None, *, limit: int = 100, cursor: str = "") -> WorkerPage:
        """The workers that are meant, by id, a page at a time."""
        return self._do(self._fleet.worker_page(where, limit=limit, cursor=cursor))

    def worker(self, worker_id: str) -> dict[str, Any]:
        """Everything about one worker, with the tasks that it has."""
        return self._do(self._fleet.worker(worker_id))

    def watch_workers(self, where: WorkerWhere | None = None) -> Iterator[WorkerChanges]:
        """All workers that are meant, and then for ever each in which something has changed."""
        return self._take(self._fleet.watch_workers(where))

    def pause_worker(self, worker_id: str, reason: str = "") -> None:
        """Give it nothing more until it is resumed."""
        self._do(self._fleet.pause_worker(worker_id, reason))

    def resume_worker(self, worker_id: str) -> None:
        """End a pause, or let one that was removed join again."""
        self._do(self._fleet.resume_worker(worker_id))

    def drain_worker(self, worker_id: str) -> None:
        """Let it finish what it holds, and leave."""
        self._do(self._fleet.drain_worker(worker_id))

    def remove_worker(self, worker_id: str, reason: str = "") -> None:
        """Take it out: what it holds goes elsewhere, and it may not join until it is resumed."""
        self._do(self._fleet.remove_worker(worker_id, reason))

    def tell_worker(self, worker_id: str, word: str) -> None:
        """Have it told a command: RESET, RETRAIN, UPDATE_CONFIG or STOP."""
        self._do(self._fleet.tell_worker(worker_id, word))

    def pardon_worker(self, worker_id: str, reason: str = "") -> None:
        """Take it back among the others, whatever supervision has decided."""
        self._do(self._fleet.pardon_worker(worker_id, reason))

    def undo(self, worker_id: str, decision: int, reason: str = "") -> None:
        """As ``pardon_worker``, and its factor becomes what it would be without this decision."""
        self._do(self._fleet.undo(worker_id, decision, reason))

    def pin_worker(self, worker_id: str, factor: float | None = None, reason: str = "") -> None:
        """Fix its factor: nothing more is decided about it until ``unpin_worker``."""
        self._do(self._fleet.pin_worker(worker_id, factor, reason))

    def unpin_worker(self, worker_id: str, reason: str = "") -> None:
        """Let its factor change again."""
        self._do(self._fleet.unpin_worker(worker_id, reason))

    def decision(self, decision: int) -> dict[str, Any]:
        """What was decided about a worker by the event of this number, by what, and what followed."""
        return self._do(self._fleet.decision(decision))

    def supervision(self) -> dict[str, Any]:
        """How workers are supervised, and what there is to choose from."""
        return self._do(self._fleet.supervision())

    def set_supervision(self, *, anew: bool = False, **fields: Unpack[SupervisionArguments]) -> None:
        """Say how workers are supervised from now on. What is not given stays; with ``anew`` it is as usual."""
        self._do(self._fleet.set_supervision(anew=anew, **fields))

    def set_objective(self, capability: str, share: float, *, within_s: float = 0.0, window_s: float = 3_600.0) -> None:
        """Say what the tasks of a capability are to reach."""
        self._do(self._fleet.set_objective(capability, share, within_s=within_s, window_s=window_s))

    def objectives(self) -> list[dict[str, Any]]:
        """What tasks are to reach, by capability."""
        return self._do(self._fleet.objectives())

    def capabilities(self) -> list[dict[str, Any]]:
        """What was ever offered, or for which something is set, by name."""
        return self._do(self._fleet.capabilities())

    def capability(self, name: str) -> dict[str, Any]:
        """Everything about one capability."""
        return self._do(self._fleet.capability(name))

    def set_allocation(
        self, strategy: str, *, capability: str = "", weights: Mapping[str, float] | None = None
    ) -> None:
        """Say how workers are chosen from now on, for a capability or for all that have nothing of their own."""
        self._do(self._fleet.set_allocation(strategy, capability=capability, weights=weights))

    def set_admission(self, capability: str, probes: Sequence[AdmissionProbe]) -> None:
        """Say what a worker that comes has to do right before it is given tasks of a capability."""
        self._do(self._fleet.set_admission(capability, probes))

    def set_audit(self, capability: str, audit: Audit | None) -> None:
        """Say how the results of a capability are looked at from now on; None: not at all."""
        self._do(self._fleet.set_audit(capability, audit))

    def audit(self, capability: str) -> Audit:
        """What is set; refused where nothing is."""
        return self._do(self._fleet.audit(capability))

    def start_rollout(self, capability: str, version: str, share: float, *, only_running: bool = False) -> None:
        """Give a version of a capability a share (0..1) of the tasks, or another share than before. `only_running`:
        only the latter; refused when its rollout has ended."""
        self._do(self._fleet.start_rollout(capability, version, share, only_running=only_running))

    def end_rollout(self, capability: str, *, promote: bool) -> None:
        """Give the version everything, or nothing."""
        self._do(self._fleet.end_rollout(capability, promote=promote))

    def rollouts(self) -> list[dict[str, Any]]:
        """All of them, those that have ended too, by capability."""
        return self._do(self._fleet.rollouts())

    def rollout(self, capability: str) -> dict[str, Any]:
        """How a version does beside the others."""
        return self._do(self._fleet.rollout(capability))

    def explain(
        self,
        task_id: str,
        *,
        attempt: int = 0,
        workers_max: int = 100,
        progress: Callable[[int, int], None] = lambda reached, last: None,
    ) -> dict[str, Any]:
        """Which workers are or were looked at for a task, why each was ruled out, and the figures of the rest.
        ``progress`` is called in the client's thread."""
        return self._do(self._fleet.explain(task_id, attempt=attempt, workers_max=workers_max, progress=progress))

    def _do(self, work: Coroutine[Any, Any, T]) -> T:
        done: T = self._run(work)
        return done
