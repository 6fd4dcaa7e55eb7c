"""``Operations`` for programs without an event loop."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Coroutine, Iterator, Sequence
from typing import Any, TypeVar

from merit.model.rules import RuleKind
from merit.model.schedules import Missed, Overlap
from merit.sdk.operations import Operations, Purged, Retried, Where
from merit.sdk.options import TaskRequest
from merit.sdk.sync_fleet_operations import BlockingFleetOperations
from merit.sdk.views import Page

T = TypeVar("T")


class BlockingOperations:
    """Questions and orders: see ``Operations`` for what the methods do and raise."""

    def __init__(
        self,
        operations: Operations,
        do: Callable[[Coroutine[Any, Any, Any]], Any],
        take: Callable[[AsyncGenerator[Any, None]], Iterator[Any]],
    ) -> None:
        self._operations = operations
        self._run = do
        self.fleet = BlockingFleetOperations(operations.fleet, do, take)
        """Workers, capabilities, rollouts, and why tasks go where they go."""

    def tasks(self, where: Where | None = None, *, limit: int = 100, cursor: str = "", at_least: int = 0) -> Page:
        """Tasks, newest first, a page at a time."""
        return self._do(self._operations.tasks(where, limit=limit, cursor=cursor, at_least=at_least))

    def cancel(self, where: Where, reason: str = "") -> int:
        """Call off all tasks that fit, however many; how many there were."""
        return self._do(self._operations.cancel(where, reason))

    def queues(self) -> list[dict[str, Any]]:
        """The queues, one for each capability, by name."""
        return self._do(self._operations.queues())

    def queue(self, capability: str) -> dict[str, Any]:
        """One queue, with what each tenant has in it."""
        return self._do(self._operations.queue(capability))

    def pause_queue(self, capability: str, reason: str = "") -> None:
        """Give nothing of a capability out; what runs goes on."""
        self._do(self._operations.pause_queue(capability, reason))

    def resume_queue(self, capability: str) -> None:
        """Give it out again."""
        self._do(self._operations.resume_queue(capability))

    def set_rule(
        self, kind: RuleKind | str, name: str, *, concurrency: int = 0, rate_hz: float = 0.0, burst: int = 1
    ) -> None:
        """Limit the attempts at a capability, for a tenant, or with a key."""
        self._do(self._operations.set_rule(kind, name, concurrency=concurrency, rate_hz=rate_hz, burst=burst))

    def rules(self) -> list[dict[str, Any]]:
        """The limits that hold."""
        return self._do(self._operations.rules())

    def set_tenant(self, name: str, *, weight: int = 1, live_max: int = 0) -> None:
        """Set what a tenant gets."""
        self._do(self._operations.set_tenant(name, weight=weight, live_max=live_max))

    def tenants(self) -> list[dict[str, Any]]:
        """The tenants that have tasks or settings of their own."""
        return self._do(self._operations.tenants())

    def dead(self, where: Where | None = None, *, limit: int = 100, cursor: str = "") -> Page:
        """Dead letters, a page at a time."""
        return self._do(self._operations.dead(where, limit=limit, cursor=cursor))

    def retry_dead(self, ids: Sequence[str] = (), where: Where | None = None) -> Retried:
        """Try dead letters again: these, or all that fit."""
        return self._do(self._operations.retry_dead(ids, where))

    def purge_dead(self, ids: Sequence[str] = (), where: Where | None = None) -> Purged:
        """Let dead letters go: these, or all that fit."""
        return self._do(self._operations.purge_dead(ids, where))

    def set_schedule(
        self,
        name: str,
        cron: str,
        request: TaskRequest,
        *,
        zone: str = "UTC",
        missed: Missed | str = Missed.ONE,
        overlap: Overlap | str = Overlap.SKIP,
        paused: bool = False,
    ) -> list[str]:
        """Make a task again and again; when it is due next."""
        return self._do(
            self._operations.set_schedule(name, cron, request, zone=zone, missed=missed, overlap=overlap, paused=paused)
        )

    def schedules(self) -> list[dict[str, Any]]:
        """The schedules, by name."""
        return self._do(self._operations.schedules())

    def pause_schedule(self, name: str) -> None:
        """No tasks of this schedule for now."""
        self._do(self._operations.pause_schedule(name))

    def resume_schedule(self, name: str) -> list[str]:
        """Tasks again from now on; when it is due next."""
        return self._do(self._operations.resume_schedule(name))

    def remove_schedule(self, name: str) -> None:
        """No more tasks of this schedule; those that it has made go on."""
        self._do(self._operations.remove_schedule(name))

    def run_schedule(self, name: str) -> str:
        """Make a schedule's task now, beside its times; its id."""
        return self._do(self._operations.run_schedule(name))

    def _do(self, work: Coroutine[Any, Any, T]) -> T:
        done: T = self._run(work)
        return done
