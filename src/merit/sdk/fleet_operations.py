"""What operators see and set of the fleet: workers, capabilities, rollouts; and why tasks go where they go."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import aclosing
from datetime import datetime
from typing import Any, Final, TypeVar, Unpack

from msgspec import UNSET, Struct, UnsetType

from merit.model.auditing import AuditPolicy
from merit.sdk.asking import Asker
from merit.sdk.audits import Audit
from merit.sdk.channel import Backoff
from merit.sdk.fleet_views import capability_view, explanation_view, fleet_worker_view, rollout_view
from merit.sdk.options import check_text, time_ns_of
from merit.sdk.results import MeritError, Unreachable
from merit.sdk.specs import encode_parameters
from merit.sdk.supervision import (
    SupervisionArguments,
    decision_view,
    objective_view,
    policy_message,
    supervision_view,
)
from merit.wire.audits import decode_audit, encode_audit
from merit.wire.v1 import (
    audits_pb2,
    audits_pb2_grpc,
    fleet_pb2,
    fleet_pb2_grpc,
    supervision_pb2,
    supervision_pb2_grpc,
)

_PAGE: Final = 1_000
_PERMILLE: Final = 1_000
_NUMBER_END: Final = 2**32

Paged = TypeVar(
    "Paged",
    fleet_pb2.ListCapabilitiesResponse,
    fleet_pb2.ListRolloutsResponse,
    supervision_pb2.ListObjectivesResponse,
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
    GONE; with ``left_from`` or ``left_to``: GONE."""
    tenant: str = ""
    """It takes this one's tasks."""
    name: str = ""
    """How its id begins."""
    left_from: datetime | None = None
    """It is gone, and left not before; not for watches."""
    left_to: datetime | None = None
    """It is gone, and left before."""

    def message(self) -> fleet_pb2.WorkerFilter:
        """For the wire.

        Raises:
            ValueError: a field cannot be sent.
        """
        texts = [("capability", self.capability), ("versions", self.versions), ("tenant", self.tenant)]
        texts += [("name", self.name)]
        for field, text in (*texts, *(("tags", tag) for tag in self.tags)):
            check_text(field, text)
        return fleet_pb2.WorkerFilter(
            capability=self.capability,
            versions=self.versions,
            tags=self.tags,
            standings=[_standing(name) for name in self.states],
            tenant=self.tenant,
            name=self.name,
            left_from_ns=time_ns_of("left_from", self.left_from) if self.left_from else 0,
            left_to_ns=time_ns_of("left_to", self.left_to) if self.left_to else 0,
        )


class WorkerPage(Struct, frozen=True):
    """Some workers, by id, and where the next page begins."""

    workers: list[dict[str, Any]]
    """May be few, or none, though there is a next page."""
    next_cursor: str
    """Empty: that was all."""
    lacking: str = ""
    """Why workers that are gone may be missing, and what to do; empty: none are. The first page says it for all."""


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
        """The workers that are meant, by id: all of them, however many."""
        page = await self.worker_page(where, limit=_PAGE)
        found = page.workers
        while page.next_cursor:
            page = await self.worker_page(where, limit=_PAGE, cursor=page.next_cursor)
            found += page.workers
        return found

    async def worker_page(self, where: WorkerWhere | None = None, *, limit: int = 100, cursor: str = "") -> WorkerPage:
        """The workers that are meant, by id, a page at a time.

        Args:
            where: which are meant. Those that are GONE are remembered for as long as trails are kept.
            limit: so many on the page at most; 1,000 are possible.
            cursor: where the page before has ended.
        """
        request = fleet_pb2.ListFleetRequest(
            filter=(where or WorkerWhere()).message(), limit=_number("limit", limit), cursor=_text("cursor", cursor)
        )
        answer = await self._asker.ask(lambda channel: fleet_pb2_grpc.FleetStub(channel).ListWorkers(request))
        return WorkerPage([fleet_worker_view(one) for one in answer.workers], answer.next_cursor, answer.lacking)

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

    # Supervision

    async def pardon_worker(self, worker_id: str, reason: str = "") -> None:
        """Take it back among the others, whatever supervision has decided: its pause or its breaker ends."""
        await self._judge(worker_id, supervision_pb2.VERDICT_PARDON, reason)

    async def undo(self, worker_id: str, decision: int, reason: str = "") -> None:
        """As ``pardon_worker``, and its factor becomes what it would be without this decision, one of its last."""
        await self._judge(worker_id, supervision_pb2.VERDICT_PARDON, reason, undoes=_sequence(decision))

    async def pin_worker(self, worker_id: str, factor: float | None = None, reason: str = "") -> None:
        """Fix its factor (0.1 to 2, by default as it is): nothing more is decided about it until ``unpin_worker``."""
        permille = 0 if factor is None else _permille("factor", factor)
        if factor is not None and not permille:
            raise ValueError(f"factor: {factor!r} is less than 0.1")
        await self._judge(worker_id, supervision_pb2.VERDICT_PIN, reason, factor_permille=permille)

    async def unpin_worker(self, worker_id: str, reason: str = "") -> None:
        """Let its factor change again."""
        await self._judge(worker_id, supervision_pb2.VERDICT_UNPIN, reason)

    async def _judge(
        self, worker_id: str, verdict: supervision_pb2.Verdict.ValueType, reason: str, **more: int
    ) -> None:
        request = supervision_pb2.JudgeWorkerRequest(
            worker_id=_text("worker_id", worker_id), verdict=verdict, reason=_text("reason", reason), **more
        )
        await self._asker.order(lambda channel: supervision_pb2_grpc.SupervisionStub(channel).JudgeWorker(request))

    async def decision(self, decision: int) -> dict[str, Any]:
        """What was decided about a worker by the event of this number, by what, and what followed; from the journal."""
        request = supervision_pb2.GetDecisionRequest(sequence=_sequence(decision))
        return decision_view(
            await self._asker.ask(lambda channel: supervision_pb2_grpc.SupervisionStub(channel).GetDecision(request))
        )

    async def supervision(self) -> dict[str, Any]:
        """How workers are supervised, under the names of ``SupervisionArguments``; and what there is to choose from."""
        request = supervision_pb2.GetSupervisionRequest()
        return supervision_view(
            await self._asker.ask(lambda channel: supervision_pb2_grpc.SupervisionStub(channel).GetSupervision(request))
        )

    async def set_supervision(self, *, anew: bool = False, **fields: Unpack[SupervisionArguments]) -> None:
        """Say how workers are supervised from now on. What is not given stays; with ``anew`` it is as usual."""
        request = supervision_pb2.SetSupervisionRequest(policy=policy_message(fields), anew=anew)
        await self._asker.ask(lambda channel: supervision_pb2_grpc.SupervisionStub(channel).SetSupervision(request))

    async def set_objective(
        self, capability: str, share: float, *, within_s: float = 0.0, window_s: float = 3_600.0
    ) -> None:
        """Say what the tasks of a capability are to reach: decision engines may go by it.

        Args:
            capability: whose tasks.
            share: of them that is to be done well, 0 to 1; 0 ends the objective.
            within_s: … and so soon after their submit; 0: whenever.
            window_s: over which the share is counted.
        """
        for field, time_s in (("within_s", within_s), ("window_s", window_s)):
            if not 0 <= time_s < 2**33:
                raise ValueError(f"{field}: {time_s!r} is not 0 or above, or too long")
        objective = supervision_pb2.Objective(
            capability=_text("capability", capability),
            share_permille=_permille("share", share),
            within_ns=round(within_s * 1e9),
            window_ns=round(window_s * 1e9),
        )
        request = supervision_pb2.SetObjectiveRequest(objective=objective)
        await self._asker.ask(lambda channel: supervision_pb2_grpc.SupervisionStub(channel).SetObjective(request))

    async def objectives(self) -> list[dict[str, Any]]:
        """What tasks are to reach, by capability."""

        async def page(cursor: str) -> supervision_pb2.ListObjectivesResponse:
            request = supervision_pb2.ListObjectivesRequest(limit=_PAGE, cursor=cursor)
            return await self._asker.ask(
                lambda channel: supervision_pb2_grpc.SupervisionStub(channel).ListObjectives(request)
            )

        return [objective_view(message) async for answer in _pages(page) for message in answer.objectives]

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

    async def set_audit(self, capability: str, audit: Audit | None) -> None:
        """Say how the results of a capability are looked at from now on; None: not at all."""
        policy = audit.policy(capability) if audit is not None else AuditPolicy(_text("capability", capability))
        request = audits_pb2.SetAuditRequest(policy=encode_audit(policy))
        await self._asker.ask(lambda channel: audits_pb2_grpc.AuditsStub(channel).SetAudit(request))

    async def audit(self, capability: str) -> Audit:
        """What is set; refused where nothing is."""
        request = audits_pb2.GetAuditRequest(capability=_text("capability", capability))
        found = await self._asker.ask(lambda channel: audits_pb2_grpc.AuditsStub(channel).GetAudit(request))
        return Audit.of(decode_audit(found))

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


def _sequence(decision: int) -> int:
    if not isinstance(decision, int) or not 1 <= decision < 2**63:
        raise ValueError(f"decision: {decision!r} is no number of an event, from 1 on")
    return decision


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
