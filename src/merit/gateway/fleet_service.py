"""The fleet: workers, capabilities, who chooses, who is admitted, which version gets how much, and why a task went where."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing
from heapq import nsmallest
from typing import Final

import grpc

from merit.core.explaining import Explanation, explain_now
from merit.core.recollect import NotRemembered
from merit.gateway.answers import Context, obey, refuse
from merit.gateway.capability_view import (
    count_staff,
    fill_contract,
    is_known,
    known_names,
    view_capability,
    view_rollout,
)
from merit.gateway.door import Door
from merit.gateway.explaining import CannotExplain, Explainer, FoldedSoFar
from merit.gateway.fields import BadField, check_id, check_name, check_range, check_text
from merit.gateway.fleet_check import check_rollout, read_admission, read_allocation
from merit.gateway.identity import tenant_of
from merit.gateway.memory import Memory
from merit.gateway.task_search import page_size
from merit.gateway.tasks_service import FindTask
from merit.gateway.worker_pages import WorkerPages
from merit.gateway.worker_view import WorkerSearch, fill_details
from merit.gateway.worker_watch import WATCHES_MAX, WorkerWatches
from merit.model.commands import (
    Command,
    DrainWorker,
    EndRollout,
    PauseWorker,
    RemoveWorker,
    ResumeWorker,
    SetAdmission,
    SetAllocation,
    StartRollout,
    TellWorker,
)
from merit.model.limits import DESCRIPTION_LENGTH_MAX, NAME_LENGTH_MAX
from merit.model.record import JournalError
from merit.model.tasks import Task, TaskState
from merit.model.tenancy import LOCAL_PRINCIPAL
from merit.ports.cell import Cell
from merit.ports.read_model import ReadModelUnavailable
from merit.wire.v1 import fleet_pb2, fleet_pb2_grpc

_RULINGS_DEFAULT: Final = 100
_RULINGS_MAX: Final = 10_000
_PART_OF_TIME: Final = 10
"""Questions why a task waits take this part of the loop's time at most, since each looks at all workers at once."""
_NO_REASON: Final = "an operator wants it so"
WORDS: Final = ("RESET", "RETRAIN", "UPDATE_CONFIG", "STOP")
"""What a worker can be told; PAUSE and RESUME are the control plane's own matter."""


class FleetService(fleet_pb2_grpc.FleetServicer):
    """See the module.

    Args:
        cell: whose workers they are.
        door: checks probes.
        find: reads an older task from the journal.
        explainer: explains past decisions.
        memory: answers for workers that are gone; None: there is no follower.
    """

    def __init__(
        self, cell: Cell, door: Door, find: FindTask, explainer: Explainer, memory: Memory | None = None
    ) -> None:
        self._cell = cell
        self._door = door
        self._find = find
        self._explainer = explainer
        self._pages = WorkerPages(cell, memory)
        self._watches = WorkerWatches(cell)
        self._one_at_a_time = asyncio.Lock()

    # Workers

    async def ListWorkers(  # noqa: N802  (the contract's name)
        self, request: fleet_pb2.ListFleetRequest, context: Context
    ) -> fleet_pb2.ListFleetResponse:
        """The workers that are meant, by id; a page at a time: those that are gone also as the read model remembers them."""
        try:
            search = WorkerSearch(request.filter)
            check_text("cursor", request.cursor, 0, NAME_LENGTH_MAX)
        except BadField as refused:
            await refuse(context, refused)
        return await self._pages.page(search, request.limit, request.cursor)

    async def GetWorker(  # noqa: N802  (the contract's name)
        self, request: fleet_pb2.GetWorkerRequest, context: Context
    ) -> fleet_pb2.FleetWorker:
        """One worker, with the tasks that it has; one that is gone as it is remembered."""
        try:
            check_name("id", request.id)
        except BadField as refused:
            await refuse(context, refused)
        try:
            message = await self._pages.one(request.id)
        except ReadModelUnavailable as error:
            await context.abort(grpc.StatusCode.UNAVAILABLE, f"workers that are gone cannot be found: {error}")
        if message is None:
            await context.abort(
                grpc.StatusCode.NOT_FOUND, f"id: there is no worker {request.id}; list them with: merit worker list"
            )
        fill_details(message, self._cell.desk)
        return message

    async def WatchWorkers(  # noqa: N802  (the contract's name)
        self, request: fleet_pb2.WatchWorkersRequest, context: Context
    ) -> AsyncIterator[fleet_pb2.FleetChanges]:
        """First all that match, then each in which something has changed, as it is by then."""
        try:
            search = WorkerSearch(request.filter)
            if search.has_left:
                raise BadField(
                    "filter.left_from_ns, left_to_ns", "are for lists; a watch tells of what changes from now on"
                )
        except BadField as refused:
            await refuse(context, refused)
        if self._watches.count >= WATCHES_MAX:
            await context.abort(
                grpc.StatusCode.RESOURCE_EXHAUSTED, f"{WATCHES_MAX} watch already; end one, or list the workers instead"
            )
        async with aclosing(self._watches.changes(search)) as changes:
            async for message in changes:
                yield message

    async def PauseWorker(  # noqa: N802  (the contract's name)
        self, request: fleet_pb2.PauseWorkerRequest, context: Context
    ) -> fleet_pb2.PauseWorkerResponse:
        """Give it nothing more until it is resumed."""
        await self._order(context, PauseWorker, request.id, reason=request.reason or _NO_REASON)
        return fleet_pb2.PauseWorkerResponse()

    async def ResumeWorker(  # noqa: N802  (the contract's name)
        self, request: fleet_pb2.ResumeWorkerRequest, context: Context
    ) -> fleet_pb2.ResumeWorkerResponse:
        """End a pause, or let one that was removed join again."""
        await self._order(context, ResumeWorker, request.id)
        return fleet_pb2.ResumeWorkerResponse()

    async def DrainWorker(  # noqa: N802  (the contract's name)
        self, request: fleet_pb2.DrainWorkerRequest, context: Context
    ) -> fleet_pb2.DrainWorkerResponse:
        """Let it finish what it holds, and leave."""
        await self._order(context, DrainWorker, request.id)
        return fleet_pb2.DrainWorkerResponse()

    async def RemoveWorker(  # noqa: N802  (the contract's name)
        self, request: fleet_pb2.RemoveWorkerRequest, context: Context
    ) -> fleet_pb2.RemoveWorkerResponse:
        """Take it out: what it holds goes elsewhere."""
        await self._order(context, RemoveWorker, request.id, reason=request.reason or _NO_REASON)
        return fleet_pb2.RemoveWorkerResponse()

    async def TellWorker(  # noqa: N802  (the contract's name)
        self, request: fleet_pb2.TellWorkerRequest, context: Context
    ) -> fleet_pb2.TellWorkerResponse:
        """Have it told a command."""
        if request.word not in WORDS:
            await refuse(context, BadField("word", f"{request.word[:NAME_LENGTH_MAX]!r} is none of {', '.join(WORDS)}"))
        await self._order(context, TellWorker, request.id, word=request.word)
        return fleet_pb2.TellWorkerResponse()

    async def _order(self, context: Context, kind: Callable[..., Command], worker_id: str, **texts: str) -> None:
        tenant = await tenant_of(context)
        try:
            check_name("id", worker_id)
            for field, text in texts.items():
                check_text(field, text, 0, DESCRIPTION_LENGTH_MAX)
        except BadField as refused:
            await refuse(context, refused)
        await obey(self._cell, context, kind(tenant, LOCAL_PRINCIPAL, worker_id, *texts.values()))

    # Capabilities

    async def ListCapabilities(  # noqa: N802  (the contract's name)
        self, request: fleet_pb2.ListCapabilitiesRequest, context: Context
    ) -> fleet_pb2.ListCapabilitiesResponse:
        """What was ever offered, or for which something is set, by name; a page at a time."""
        await self._check_cursor(context, request.cursor)
        count_max = page_size(request.limit)
        names = known_names(self._cell, request.cursor, count_max + 1)
        page = names[:count_max]
        staffing = await count_staff(self._cell, frozenset(page))
        return fleet_pb2.ListCapabilitiesResponse(
            capabilities=[view_capability(self._cell, name, staffing) for name in page],
            next_cursor=page[-1] if len(names) > count_max else "",
        )

    async def GetCapability(  # noqa: N802  (the contract's name)
        self, request: fleet_pb2.GetCapabilityRequest, context: Context
    ) -> fleet_pb2.FleetCapability:
        """One capability, with what it takes and gives, and its probes."""
        await self._check_names(context, name=request.name)
        if not is_known(self._cell, request.name):
            await context.abort(
                grpc.StatusCode.NOT_FOUND,
                f"name: no worker has ever offered {request.name}, and nothing waits for it; "
                "list what there is with: merit capability list",
            )
        staffing = await count_staff(self._cell, {request.name})
        message = view_capability(self._cell, request.name, staffing)
        fill_contract(message, self._cell)
        return message

    async def SetAllocation(  # noqa: N802  (the contract's name)
        self, request: fleet_pb2.SetAllocationRequest, context: Context
    ) -> fleet_pb2.SetAllocationResponse:
        """From now on workers are chosen like this."""
        tenant = await tenant_of(context)
        try:
            allocation = read_allocation(request.allocation)
        except BadField as refused:
            await refuse(context, refused)
        await obey(self._cell, context, SetAllocation(tenant, LOCAL_PRINCIPAL, allocation))
        return fleet_pb2.SetAllocationResponse()

    async def SetAdmission(  # noqa: N802  (the contract's name)
        self, request: fleet_pb2.SetAdmissionRequest, context: Context
    ) -> fleet_pb2.SetAdmissionResponse:
        """From now on a worker that comes has to pass these probes."""
        tenant = await tenant_of(context)
        try:
            admission = await read_admission(request, self._door)
        except BadField as refused:
            await refuse(context, refused)
        await obey(self._cell, context, SetAdmission(tenant, LOCAL_PRINCIPAL, admission))
        return fleet_pb2.SetAdmissionResponse()

    # Rollouts

    async def StartRollout(  # noqa: N802  (the contract's name)
        self, request: fleet_pb2.StartRolloutRequest, context: Context
    ) -> fleet_pb2.StartRolloutResponse:
        """Give a version a share of the tasks, or another share than before."""
        tenant = await tenant_of(context)
        try:
            check_rollout(request)
        except BadField as refused:
            await refuse(context, refused)
        what = (request.capability, request.version, request.share_permille, request.only_running)
        await obey(self._cell, context, StartRollout(tenant, LOCAL_PRINCIPAL, *what))
        return fleet_pb2.StartRolloutResponse()

    async def EndRollout(  # noqa: N802  (the contract's name)
        self, request: fleet_pb2.EndRolloutRequest, context: Context
    ) -> fleet_pb2.EndRolloutResponse:
        """Give the version everything, or nothing."""
        tenant = await tenant_of(context)
        await self._check_names(context, capability=request.capability)
        await obey(self._cell, context, EndRollout(tenant, LOCAL_PRINCIPAL, request.capability, request.promote))
        return fleet_pb2.EndRolloutResponse()

    async def ListRollouts(  # noqa: N802  (the contract's name)
        self, request: fleet_pb2.ListRolloutsRequest, context: Context
    ) -> fleet_pb2.ListRolloutsResponse:
        """All of them, those that have ended too, by capability; a page at a time."""
        await self._check_cursor(context, request.cursor)
        rollouts, count_max = self._cell.state.rollouts, page_size(request.limit)
        names = nsmallest(count_max + 1, (name for name in rollouts if name > request.cursor))
        page = [rollouts[name] for name in names[:count_max]]
        staffing = await count_staff(self._cell, {rollout.capability for rollout in page})
        return fleet_pb2.ListRolloutsResponse(
            rollouts=[view_rollout(rollout, staffing) for rollout in page],
            next_cursor=page[-1].capability if len(names) > count_max else "",
        )

    async def GetRollout(  # noqa: N802  (the contract's name)
        self, request: fleet_pb2.GetRolloutRequest, context: Context
    ) -> fleet_pb2.Rollout:
        """How a version does beside the others."""
        await self._check_names(context, capability=request.capability)
        rollout = self._cell.state.rollouts.get(request.capability)
        if rollout is None:
            await context.abort(
                grpc.StatusCode.NOT_FOUND,
                f"capability: there is no rollout of {request.capability}; begin one with: "
                f"merit rollout start {request.capability} VERSION --share 10%",
            )
        return view_rollout(rollout, await count_staff(self._cell, {request.capability}))

    async def _check_cursor(self, context: Context, cursor: str) -> None:
        try:
            check_text("cursor", cursor, 0, NAME_LENGTH_MAX)
        except BadField as refused:
            await refuse(context, refused)

    async def _check_names(self, context: Context, **names: str) -> None:
        try:
            for field, name in names.items():
                check_name(field, name)
        except BadField as refused:
            await refuse(context, refused)

    # Why

    async def ExplainTask(  # noqa: N802  (the contract's name)
        self, request: fleet_pb2.ExplainTaskRequest, context: Context
    ) -> AsyncIterator[fleet_pb2.ExplainStep]:
        """Which workers are or were looked at for a task, why each was ruled out, and the figures of the rest."""
        try:
            check_id("task_id", request.task_id)
            check_range("rulings_max", request.rulings_max, 0, _RULINGS_MAX)
        except BadField as refused:
            await refuse(context, refused)
        rulings_max = request.rulings_max or _RULINGS_DEFAULT
        task = await self._task(request.task_id, context)
        if not request.attempt and task.state in (TaskState.WAITING, TaskState.PENDING):
            yield fleet_pb2.ExplainStep(explanation=_encode(await self._explain_now(task, rulings_max)))
            return
        attempt = task.attempt(request.attempt or len(task.attempts))
        if attempt is None:
            had = (
                f"it has {len(task.attempts)}"
                if task.attempts
                else f"it was never given to anybody ({task.state.name})"
            )
            await context.abort(grpc.StatusCode.FAILED_PRECONDITION, f"attempt: task {task.id} has no such: {had}")
        asked = self._explainer.explain(task.id, attempt.number, attempt.assigned_ns, rulings_max)
        try:
            async with aclosing(asked) as steps:
                async for step in steps:
                    if isinstance(step, FoldedSoFar):
                        reached = fleet_pb2.ExplainProgress(sequence=step.sequence, last=step.last)
                        yield fleet_pb2.ExplainStep(progress=reached)
                    else:
                        yield fleet_pb2.ExplainStep(explanation=_encode(step))
        except CannotExplain as error:
            code = grpc.StatusCode.RESOURCE_EXHAUSTED if error.busy else grpc.StatusCode.FAILED_PRECONDITION
            await context.abort(code, f"task_id: {error}")

    async def _explain_now(self, task: Task, rulings_max: int) -> Explanation:
        async with self._one_at_a_time:
            began_s = time.perf_counter()
            found = explain_now(self._cell.desk, task, rulings_max)
            await asyncio.sleep((time.perf_counter() - began_s) * _PART_OF_TIME)
            return found

    async def _task(self, task_id: str, context: Context) -> Task:
        task = self._cell.state.tasks.get(task_id)
        if task is not None:
            return task
        try:
            return await self._find(task_id)
        except JournalError as error:
            await context.abort(grpc.StatusCode.UNAVAILABLE, f"the journal could not be searched: {error}")
        except NotRemembered as error:
            await context.abort(grpc.StatusCode.NOT_FOUND, f"task_id: {error}")


def _encode(explanation: Explanation) -> fleet_pb2.Explanation:
    return fleet_pb2.Explanation(
        task_id=explanation.task,
        number=explanation.number,
        capability=explanation.capability,
        demand=explanation.demand,
        strategy=explanation.strategy,
        at_ns=explanation.at_ns,
        chosen=explanation.chosen,
        agrees=explanation.agrees,
        left_out=explanation.left_out,
        why=explanation.why,
        rulings=[
            fleet_pb2.Ruling(
                worker_id=ruling.worker,
                fits=ruling.fits,
                reasons=ruling.reasons,
                figures=[fleet_pb2.Figure(name=name, value=value) for name, value in ruling.figures],
                rank=ruling.rank,
            )
            for ruling in explanation.rulings
        ],
    )
