"""What operators see and set of the fleet: workers, capabilities, rollouts; and why tasks go where they go."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import aclosing
from typing import Any, Final, TypeVar

from msgspec import UNSET, Struct, UnsetType

from merit.sdk.asking import Asker
from merit.sdk.channel import Backoff
from merit.sdk.fleet_views import capability_view, explanation_view, fleet_worker_view, rollout_view
from merit.sdk.options import check_text
from merit.sdk.results import MeritError, Unreachable
from merit.sdk.specs import encode_parameters
from merit.wire.v1 import fleet_pb2, fleet_pb2_grpc

_PAGE: Final = 1_000
_PERMILLE: Final = 1_000
_NUMBER_END: Final = 2**32

Paged = TypeVar(
    "Paged", fleet_pb2.ListFleetResponse, fleet_pb2.ListCapabilitiesResponse, fleet_pb2.ListRolloutsResponse
)


class WorkerWhere(Struct, frozen=True, kw_only=True):
    """Which workers are meant: those for which all of it holds. What is left out holds for all."""

    capability: str = ""
    versions: str = ""
    """Of that capability: a range such as ``>=1.2,<2``."""
    tags: Sequence[str] = ()
    """The worker, or what it offers, has each of these."""
    states: Sequence[str] = ()
    """It is in one of these: JOINING, PROBATION, IDLE, BUSY, DRAINING, GONE, SUSPECT, PAUSED, DEACTIVATED. None: in any but
    GONE."""
    tenant: str = ""
    """It takes this one's tasks."""

    def message(self) -> fleet_pb2.WorkerFilter:
        """For the wire.

        Raises:
            ValueError: a field cannot be sent.
        """
        texts = [("capability", self.capability), ("versions", self.versions), ("tenant", self.tenant)]
        for field, text in (*texts, *(("tags", tag) for tag in self.tags)):
            check_text(field, text)
        return fleet_pb2.WorkerFilter(
            capability=self.capability,
            versions=self.versions,
            tags=self.tags,
            standings=[_standing(name) for name in self.states],
            tenant=self.tenant,
        )


class WorkerChanges(Struct, frozen=True):
    """What one has to hear of the workers that are meant."""

    workers: list[dict[str, Any]]
    """As they are now."""
    left: list[str]
    """Ids of workers that were told of, and are not meant any more."""
    begins: bool
    """All is told anew, since the connection is a new one: what was told before is void."""
    complete: bool
    """All that are meant have been told of by now."""


class AdmissionProbe(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A small known task that a worker has to do right before it is given others."""

    parameters: dict[str, Any]
    expected: Any | UnsetType = UNSET
    """The right result; not given: any that the output schema allows."""
    run_timeout_s: float = 30.0

    def message(self) -> fleet_pb2.Probe:
        """For the wire.

        Raises:
            ValueError: it is no JSON, or takes no time.
        """
        expected = b"" if self.expected is UNSET else encode_parameters({"": self.expected})[len('{"":') : -1]
        if not 0 < self.run_timeout_s < 2**33:
            raise ValueError(f"run_timeout_s: {self.run_timeout_s!r} is not above 0, or too long")
        return fleet_pb2.Probe(
            parameters=encode_parameters(self.parameters),
            expected=expected,
            run_timeout_ns=max(1, round(self.run_timeout_s * 1e9)),
        )


class FleetOperations:
    """Questions and orders about the fleet. Orders are durable on return. All raise as those of ``Operations`` do."""

    def __init__(self, asker: Asker) -> None:
        self._asker = asker

    # Workers

    async def workers(self, where: WorkerWhere | None = None) -> list[dict[str, Any]]:
        """The workers that are meant, by id."""
        wanted = (where or WorkerWhere()).message()

        async def page(cursor: str) -> fleet_pb2.ListFleetResponse:
            request = fleet_pb2.ListFleetRequest(filter=wanted, limit=_PAGE, cursor=cursor)
            return await self._asker.ask(lambda channel: fleet_pb2_grpc.FleetStub(channel).ListWorkers(request))

        return [fleet_worker_view(message) async for answer in _pages(page) for message in answer.workers]

    async def worker(self, worker_id: str) -> dict[str, Any]:
        """Everything about one worker, with the tasks that it has."""
        request = fleet_pb2.GetWorkerRequest(id=_text("id", worker_id))
        return fleet_worker_view(
            await self._asker.ask(lambda channel: fleet_pb2_grpc.FleetStub(channel).GetWorker(request))
        )

    async def watch_workers(self, where: WorkerWhere | None = None) -> AsyncGenerator[WorkerChanges, None]:
        """All workers that are meant, and then for ever each in which something has changed, once that is durable.

        Who reads slowly is told of each worker once, as it is by then. When the connection breaks, all is told anew on the
        next one (``WorkerChanges.begins``).
        """
        request = fleet_pb2.WatchWorkersRequest(filter=(where or WorkerWhere()).message())
        backoff = Backoff()
        while True:
            begins = True
            try:
                stream = self._asker.stream(lambda channel: fleet_pb2_grpc.FleetStub(channel).WatchWorkers(request))
                async with aclosing(stream) as answers:
                    async for message in answers:
                        workers = [fleet_worker_view(worker) for worker in message.workers]
                        yield WorkerChanges(workers, list(message.left), begins, message.complete)
                        begins = False
                        backoff.reset()
            except Unreachable:
                if begins:
                    raise
            await asyncio.sleep(backoff.next_s())

    async def pause_worker(self, worker_id: str, reason: str = "") -> None:
        """Give it nothing more until it is resumed, however often it comes back; it finishes what it holds."""
        request = fleet_pb2.PauseWorkerRequest(id=_text("id", worker_id), reason=_text("reason", reason))
        await self._asker.ask(lambda channel: fleet_pb2_grpc.FleetStub(channel).PauseWorker(request))

    async def resume_worker(self, worker_id: str) -> None:
        """End a pause, or let one that was removed join again."""
        request = fleet_pb2.ResumeWorkerRequest(id=_text("id", worker_id))
        await self._asker.order(lambda channel: fleet_pb2_grpc.FleetStub(channel).ResumeWorker(request))

    async def drain_worker(self, worker_id: str) -> None:
        """Let it finish what it holds, and leave."""
        request = fleet_pb2.DrainWorkerRequest(id=_text("id", worker_id))
        await self._asker.order(lambda channel: fleet_pb2_grpc.FleetStub(channel).DrainWorker(request))

    async def remove_worker(self, worker_id: str, reason: str = "") -> None:
        """Take it out: what it holds goes elsewhere, and it may not join until it is resumed."""
        request = fleet_pb2.RemoveWorkerRequest(id=_text("id", worker_id), reason=_text("reason", reason))
        await self._asker.order(lambda channel: fleet_pb2_grpc.FleetStub(channel).RemoveWorker(request))

    async def tell_worker(self, worker_id: str, word: str) -> None:
        """Have it told a command: RESET, RETRAIN, UPDATE_CONFIG or STOP."""
        request = fleet_pb2.TellWorkerRequest(id=_text("id", worker_id), word=_text("word", word))
        await self._asker.order(lambda channel: fleet_pb2_grpc.FleetStub(channel).TellWorker(request))

    # Capabilities

    async def capabilities(self) -> list[dict[str, Any]]:
        """What was ever offered, or for which something is set, by name."""

        async def page(cursor: str) -> fleet_pb2.ListCapabilitiesResponse:
            request = fleet_pb2.ListCapabilitiesRequest(limit=_PAGE, cursor=cursor)
            return await self._asker.ask(lambda channel: fleet_pb2_grpc.FleetStub(channel).ListCapabilities(request))

        return [capability_view(message) async for answer in _pages(page) for message in answer.capabilities]

    async def capability(self, name: str) -> dict[str, Any]:
        """Everything about one capability."""
        request = fleet_pb2.GetCapabilityRequest(name=_text("name", name))
        return capability_view(
            await self._asker.ask(lambda channel: fleet_pb2_grpc.FleetStub(channel).GetCapability(request))
        )

    async def set_allocation(
        self, strategy: str, *, capability: str = "", weights: Mapping[str, float] | None = None
    ) -> None:
        """Say how workers are chosen from now on.

        Args:
            strategy: its name; empty: as for all others, and where ``capability`` is empty, the default.
            capability: for its tasks; empty: for those of all that have nothing of their own.
            weights: of the strategy's figures, for one that weighs several; those not named have its defaults.
        """
        allocation = fleet_pb2.Allocation(
            capability=_text("capability", capability),
            strategy=_text("strategy", strategy),
            weights=[
                fleet_pb2.FigureWeight(name=_text("weights", name), permille=_permille(f"weights.{name}", weight))
                for name, weight in (weights or {}).items()
            ],
        )
        request = fleet_pb2.SetAllocationRequest(allocation=allocation)
        await self._asker.ask(lambda channel: fleet_pb2_grpc.FleetStub(channel).SetAllocation(request))

    async def set_admission(self, capability: str, probes: Sequence[AdmissionProbe]) -> None:
        """Say what a worker that comes has to do right before it is given tasks of a capability; no probes: nothing."""
        request = fleet_pb2.SetAdmissionRequest(
            capability=_text("capability", capability), probes=[probe.message() for probe in probes]
        )
        await self._asker.ask(lambda channel: fleet_pb2_grpc.FleetStub(channel).SetAdmission(request))

    # Rollouts

    async def start_rollout(self, capability: str, version: str, share: float, *, only_running: bool = False) -> None:
        """Give a version of a capability a share (0..1) of the tasks; of one that is being introduced, another share.
        `only_running`: only the latter; refused when its rollout has ended."""
        request = fleet_pb2.StartRolloutRequest(
            capability=_text("capability", capability),
            version=_text("version", version),
            share_permille=_permille("share", share),
            only_running=only_running,
        )
        await self._asker.order(lambda channel: fleet_pb2_grpc.FleetStub(channel).StartRollout(request))

    async def end_rollout(self, capability: str, *, promote: bool) -> None:
        """Give the version everything, or nothing."""
        request = fleet_pb2.EndRolloutRequest(capability=_text("capability", capability), promote=promote)
        await self._asker.order(lambda channel: fleet_pb2_grpc.FleetStub(channel).EndRollout(request))

    async def rollouts(self) -> list[dict[str, Any]]:
        """All of them, those that have ended too, by capability."""

        async def page(cursor: str) -> fleet_pb2.ListRolloutsResponse:
            request = fleet_pb2.ListRolloutsRequest(limit=_PAGE, cursor=cursor)
            return await self._asker.ask(lambda channel: fleet_pb2_grpc.FleetStub(channel).ListRollouts(request))

        return [rollout_view(message) async for answer in _pages(page) for message in answer.rollouts]

    async def rollout(self, capability: str) -> dict[str, Any]:
        """How a version does beside the others."""
        request = fleet_pb2.GetRolloutRequest(capability=_text("capability", capability))
        return rollout_view(
            await self._asker.ask(lambda channel: fleet_pb2_grpc.FleetStub(channel).GetRollout(request))
        )

    # Why

    async def explain(
        self,
        task_id: str,
        *,
        attempt: int = 0,
        workers_max: int = 100,
        progress: Callable[[int, int], None] = lambda reached, last: None,
    ) -> dict[str, Any]:
        """Which workers are or were looked at for a task, why each was ruled out, and the figures of the rest.

        Args:
            task_id: of the task, past or waiting.
            attempt: its number; 0: the last one, and of a task that waits, what it waits for.
            workers_max: that are told of at most.
            progress: called now and then, with the sequence that the replay of the journal has reached and that which it
                has to reach.
        """
        request = fleet_pb2.ExplainTaskRequest(
            task_id=_text("task_id", task_id),
            attempt=_number("attempt", attempt),
            rulings_max=_number("workers_max", workers_max),
        )
        stream = self._asker.stream(lambda channel: fleet_pb2_grpc.FleetStub(channel).ExplainTask(request))
        async with aclosing(stream) as steps:
            async for step in steps:
                if step.HasField("explanation"):
                    return explanation_view(step.explanation)
                progress(step.progress.sequence, step.progress.last)
        raise MeritError("the control plane gave no explanation; look into its log")


async def _pages(page: Callable[[str], Awaitable[Paged]]) -> AsyncIterator[Paged]:
    cursor = ""
    while True:
        answer = await page(cursor)
        yield answer
        cursor = answer.next_cursor
        if not cursor:
            return


def _text(field: str, text: str) -> str:
    check_text(field, text)
    return text


def _number(field: str, number: int) -> int:
    if not isinstance(number, int) or not 0 <= number < _NUMBER_END:
        raise ValueError(f"{field}: {number!r} is no whole number from 0 on, or too large")
    return number


def _permille(field: str, share: float) -> int:
    if not 0 <= share < _NUMBER_END / _PERMILLE:
        raise ValueError(f"{field}: {share!r} is not 0 or above, or too large")
    return round(share * _PERMILLE)


def _standing(name: str) -> fleet_pb2.Standing.ValueType:
    try:
        return fleet_pb2.Standing.Value(f"STANDING_{name.upper()}")
    except ValueError:
        names = ", ".join(item.removeprefix("STANDING_") for item in fleet_pb2.Standing.keys()[1:])
        raise ValueError(f"state: {name!r} is none of {names}") from None
