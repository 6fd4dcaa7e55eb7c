"""Supervision: what people set and decide, and what was gone by when something was decided."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping
from contextlib import closing
from heapq import nsmallest
from typing import Final

import grpc
from msgspec import Struct

from merit.core.codec import UnreadableEvent, decode_event
from merit.gateway.answers import Context, obey, refuse
from merit.gateway.fields import BadField, check_range, check_text
from merit.gateway.identity import tenant_of
from merit.gateway.supervision_check import SEQUENCE_MAX, check_objective, check_policy, read_judgement
from merit.gateway.task_search import page_size
from merit.model.commands import SetObjective, SetSupervision
from merit.model.events import (
    CircuitChanged,
    Event,
    WorkerJudged,
    WorkerPaused,
    WorkerRated,
    WorkerRemoved,
    WorkerResumed,
    WorkerTold,
)
from merit.model.limits import NAME_LENGTH_MAX
from merit.model.record import JournalError
from merit.model.supervision import Judgement, Policy
from merit.model.tenancy import LOCAL_PRINCIPAL
from merit.ports.cell import Cell
from merit.ports.journal import JournalReader
from merit.wire.supervision import (
    decode_objective,
    decode_policy,
    encode_circuit,
    encode_judgement,
    encode_objective,
    encode_policy,
    encode_rating,
)
from merit.wire.v1 import supervision_pb2, supervision_pb2_grpc

_NO_REASON: Final = "an operator wants it so"
_CONSEQUENCES: Final[Mapping[type[Event], str]] = {
    WorkerPaused: "it was paused",
    WorkerResumed: "it was taken back",
    WorkerRemoved: "it was removed",
    WorkerTold: "it was told a command",
}


class _Decided(Struct, frozen=True):
    """A decision as it stands in the journal."""

    event: WorkerJudged | CircuitChanged
    at_ns: int
    rated: WorkerRated | None
    """How the worker was rated for it, if it was."""
    followed: list[str]


class SupervisionService(supervision_pb2_grpc.SupervisionServicer):
    """See the module.

    Args:
        cell: whose workers they are.
        open_reader: opens a reader of the journal; called in the thread that reads.
    """

    def __init__(self, cell: Cell, open_reader: Callable[[], JournalReader]) -> None:
        self._cell = cell
        self._open_reader = open_reader

    async def GetSupervision(  # noqa: N802  (the contract's name)
        self, request: supervision_pb2.GetSupervisionRequest, context: Context
    ) -> supervision_pb2.SupervisionReport:
        """How the fleet is supervised, and by whom it could be."""
        del request, context
        policy, panel = self._cell.state.policy, self._cell.desk.panel
        scoring = panel.scorings.get(policy.scoring)
        weights = {**(scoring.weights if scoring is not None else {}), **dict(policy.weights)}
        return supervision_pb2.SupervisionReport(
            policy=encode_policy(policy, weights.items()),
            engines=sorted(panel.engines),
            scorings=sorted(panel.scorings),
            reputations=sorted(panel.models),
            troubles=[f"{name}: {trouble}" for name, trouble in sorted(panel.troubles.items())],
        )

    async def SetSupervision(  # noqa: N802  (the contract's name)
        self, request: supervision_pb2.SetSupervisionRequest, context: Context
    ) -> supervision_pb2.SetSupervisionResponse:
        """From now on the fleet is supervised like this."""
        tenant = await tenant_of(context)
        policy = decode_policy(request.policy, Policy() if request.anew else self._cell.state.policy)
        try:
            check_policy(policy, self._cell.desk.panel.scorings)
        except BadField as refused:
            await refuse(context, refused)
        await obey(self._cell, context, SetSupervision(tenant, LOCAL_PRINCIPAL, policy))
        return supervision_pb2.SetSupervisionResponse()

    async def JudgeWorker(  # noqa: N802  (the contract's name)
        self, request: supervision_pb2.JudgeWorkerRequest, context: Context
    ) -> supervision_pb2.JudgeWorkerResponse:
        """A person decides about a worker."""
        tenant = await tenant_of(context)
        try:
            judgement = read_judgement(request, tenant, LOCAL_PRINCIPAL, _NO_REASON)
        except BadField as refused:
            await refuse(context, refused)
        await obey(self._cell, context, judgement)
        return supervision_pb2.JudgeWorkerResponse()

    async def SetObjective(  # noqa: N802  (the contract's name)
        self, request: supervision_pb2.SetObjectiveRequest, context: Context
    ) -> supervision_pb2.SetObjectiveResponse:
        """From now on tasks of a capability are to reach this."""
        tenant = await tenant_of(context)
        objective = decode_objective(request.objective)
        try:
            check_objective(objective)
        except BadField as refused:
            await refuse(context, refused)
        await obey(self._cell, context, SetObjective(tenant, LOCAL_PRINCIPAL, objective))
        return supervision_pb2.SetObjectiveResponse()

    async def ListObjectives(  # noqa: N802  (the contract's name)
        self, request: supervision_pb2.ListObjectivesRequest, context: Context
    ) -> supervision_pb2.ListObjectivesResponse:
        """All of them, by capability; a page at a time."""
        try:
            check_text("cursor", request.cursor, 0, NAME_LENGTH_MAX)
        except BadField as refused:
            await refuse(context, refused)
        known, count_max = self._cell.state.objectives, page_size(request.limit)
        names = nsmallest(count_max + 1, (name for name in known if name > request.cursor))
        page = names[:count_max]
        return supervision_pb2.ListObjectivesResponse(
            objectives=[encode_objective(known[name]) for name in page],
            next_cursor=page[-1] if len(names) > count_max else "",
        )

    # Why

    async def GetDecision(  # noqa: N802  (the contract's name)
        self, request: supervision_pb2.GetDecisionRequest, context: Context
    ) -> supervision_pb2.SupervisionDecision:
        """A decision as the journal has it, with what it went by and what followed."""
        try:
            check_range("sequence", request.sequence, 1, SEQUENCE_MAX)
        except BadField as refused:
            await refuse(context, refused)
        try:
            found = await asyncio.to_thread(self._read, request.sequence)
        except LookupError as error:
            await context.abort(grpc.StatusCode.NOT_FOUND, f"sequence: {error.args[0]}")
        except (JournalError, UnreadableEvent) as error:
            await context.abort(grpc.StatusCode.UNAVAILABLE, f"the journal could not be read: {error}")
        event, rated = found.event, found.rated
        message = supervision_pb2.SupervisionDecision(worker_id=event.worker, followed=found.followed)
        if rated is not None:
            message.reputation.CopyFrom(encode_rating(rated.rating))
        if isinstance(event, CircuitChanged):
            message.circuit.CopyFrom(encode_circuit(event.circuit))
            about = supervision_pb2.Judgement(sequence=request.sequence, at_ns=found.at_ns, reason=event.reason)
        else:
            message.undoes = event.undoes
            about = encode_judgement(self._judgement(request.sequence, event, found))
        message.judgement.CopyFrom(about)
        return message

    def _judgement(self, sequence: int, event: WorkerJudged, found: _Decided) -> Judgement:
        """As the profile of the worker has it, as long as it is among the last; it knows whether it was undone."""
        profile = self._cell.state.profiles.get(event.worker)
        for judgement in profile.conduct.judgements if profile is not None else ():
            if judgement.sequence == sequence:
                return judgement
        score = found.rated.score if found.rated is not None else 0
        what = (event.verdict, event.factor, score, event.principal, event.reason, event.figures)
        return Judgement(sequence, found.at_ns, *what)

    def _read(self, sequence: int) -> _Decided:
        """The decision of this sequence. Called in a thread; raises ``LookupError`` where there is none."""
        with closing(self._open_reader()) as reader:
            first, end = reader.base().next, reader.tail().next
            if not first <= sequence < end:
                kept = f"the journal has the events {first:,} to {end - 1:,}" if first < end else "the journal is empty"
                raise LookupError(f"there is no event {sequence:,}: {kept}")
            record = next(iter(reader.read(sequence, sequence)))
        place = sequence - record.first
        event = decode_event(record.events[place])
        if not isinstance(event, WorkerJudged | CircuitChanged):
            raise LookupError(
                f"event {sequence:,} is no decision about a worker ({type(event).__name__}); "
                "list them with: merit worker show WORKER"
            )
        name = event.worker.encode()
        # Looked at before they are decoded: nearly all are about others.
        before = (decode_event(data) for data in reversed(record.events[:place]) if name in data)
        after = (decode_event(data) for data in record.events[place + 1 :] if name in data)
        rated = next((one for one in before if isinstance(one, WorkerRated) and one.worker == event.worker), None)
        return _Decided(event, record.time_ns, rated, _followed(event.worker, after))


def _followed(worker: str, after: Iterable[Event]) -> list[str]:
    """What else was done to the worker in the same batch, until it was decided about again."""
    names = []
    for event in after:
        if isinstance(event, WorkerJudged) and event.worker == worker:
            break
        if getattr(event, "worker", "") == worker and type(event) in _CONSEQUENCES:
            names.append(_CONSEQUENCES[type(event)])
    return names
