"""Serves a cell as it was, so that whoever can ask a control plane can ask it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import asynccontextmanager, closing
from typing import Final

import grpc

from merit.app.explain import Asked, explain
from merit.app.journal_until import JournalUntil
from merit.app.past_cell import PastCell
from merit.app.past_rows import RowsUntil
from merit.app.stores import Stores
from merit.auditing.catalogue import COMPARERS
from merit.core.explaining import Explanation
from merit.gateway.audit_items import PolicyProblem
from merit.gateway.audits_service import AuditsService
from merit.gateway.dead_letters_service import DeadLettersService
from merit.gateway.door import Door
from merit.gateway.explaining import CannotExplain, FoldedSoFar
from merit.gateway.fleet_service import FleetService
from merit.gateway.memory import Memory
from merit.gateway.queues_service import QueuesService
from merit.gateway.schedules_service import SchedulesService
from merit.gateway.supervision_service import SupervisionService
from merit.gateway.tasks_service import TasksService
from merit.model.auditing import AuditPolicy
from merit.model.limits import MESSAGE_BYTES_MAX, Limits
from merit.ports.following import FollowerStanding
from merit.ports.journal import JournalError, JournalReader
from merit.ports.read_model import Reached, ReadModelUnavailable
from merit.ports.snapshots import SnapshotStore, SnapshotUnavailable
from merit.runtime.task_finder import TaskFinder
from merit.wire.v1 import (
    audits_pb2_grpc,
    dead_letters_pb2_grpc,
    fleet_pb2_grpc,
    queues_pb2_grpc,
    schedules_pb2_grpc,
    supervision_pb2_grpc,
    tasks_pb2_grpc,
)

_GRACE_S: Final = 1.0
"""For calls to end whose client has just left: usually milliseconds."""
_OPTIONS: Final = (
    ("grpc.max_receive_message_length", MESSAGE_BYTES_MAX),
    ("grpc.max_send_message_length", MESSAGE_BYTES_MAX),
)


@asynccontextmanager
async def served(cell: PastCell, stores: Stores) -> AsyncIterator[str]:
    """Answer for the cell, on this machine alone, at the address that the block is given.

    There are the services by which clients ask; what they order is refused. There are none for workers, and none that takes
    contents.

    Args:
        cell: as it was.
        stores: where the present one keeps its things: the journal has tasks that the cell had forgotten by then.
    """
    server = grpc.aio.server(options=_OPTIONS)
    until = cell.state.sequence

    def reader() -> JournalUntil:
        return JournalUntil(stores.reader(), until)

    def rows() -> RowsUntil:
        return RowsUntil(stores.read_model_reader(), until, cell.state.order)

    reached = _reached(rows)
    finder = TaskFinder(reader, rows if reached.sequence else None)
    memory = Memory(rows, _PastFollowing(reached, until))
    door = Door(cell.state.offers, _no_blob)
    explainer = _PastExplainer(reader, stores.snapshots(), cell.desk.limits)
    tasks_pb2_grpc.add_TasksServicer_to_server(TasksService(cell, door, finder.task, lambda: 0, memory), server)
    queues_pb2_grpc.add_QueuesServicer_to_server(QueuesService(cell), server)
    dead_letters_pb2_grpc.add_DeadLettersServicer_to_server(DeadLettersService(cell), server)
    schedules_pb2_grpc.add_SchedulesServicer_to_server(SchedulesService(cell, door), server)
    audits_pb2_grpc.add_AuditsServicer_to_server(AuditsService(cell, door.schemas, COMPARERS, _no_problem), server)
    fleet_pb2_grpc.add_FleetServicer_to_server(FleetService(cell, door, finder.task, explainer, memory), server)
    supervision_pb2_grpc.add_SupervisionServicer_to_server(SupervisionService(cell, reader), server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        await server.stop(_GRACE_S)
        await memory.close()


class _PastFollowing:
    """A ``Following`` in which nothing goes on: the read model knows of then what it knows by now."""

    def __init__(self, reached: Reached, until: int) -> None:
        self._reached = reached
        self._until = until

    def standing(self) -> FollowerStanding:
        """See ``Following``."""
        sequence, time_ns = self._reached.sequence, self._reached.time_ns
        return FollowerStanding(sequence, time_ns, lag_events=self._until - sequence)

    async def reached(self, sequence: int, timeout_s: float) -> bool:
        """See ``Following``; there is nothing to wait for."""
        return sequence <= self._reached.sequence


class _PastExplainer:
    """An ``Explainer`` in this process, in which there is no cell that could suffer from it."""

    def __init__(self, open_reader: Callable[[], JournalReader], snapshots: SnapshotStore, limits: Limits) -> None:
        self._open_reader = open_reader
        self._snapshots = snapshots
        self._limits = limits

    async def explain(
        self, task_id: str, number: int, assigned_ns: int, rulings_max: int
    ) -> AsyncGenerator[FoldedSoFar | Explanation, None]:
        """See ``Explainer.explain``."""
        asked = Asked(task_id, number, assigned_ns, rulings_max, self._limits)
        try:
            yield await asyncio.to_thread(self._explain, asked)
        except (LookupError, JournalError, SnapshotUnavailable, ValueError) as error:
            raise CannotExplain(str(error)) from error

    def _explain(self, asked: Asked) -> Explanation:
        with closing(self._open_reader()) as reader:
            return explain(reader, self._snapshots, asked, lambda reached, last: None)


def _reached(open_rows: Callable[[], RowsUntil]) -> Reached:
    """How far the read model is; where there is none, it is at the beginning."""
    try:
        with closing(open_rows()) as rows:
            return rows.reached()
    except ReadModelUnavailable:
        return Reached()


def _no_blob(digest: str) -> bytes:
    """For a door that lets nothing in."""
    raise LookupError(digest)


async def _no_problem(_policy: AuditPolicy) -> PolicyProblem:
    """Nothing can be set in the past anyway."""
    return PolicyProblem()
