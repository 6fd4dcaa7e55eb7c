"""The registry of the unary contract: workers announce themselves here, and orchestrators find workers of all kinds."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Final

import grpc
from google.protobuf.empty_pb2 import Empty

from merit.gateway.answers import Context, carry_out
from merit.gateway.door import Door
from merit.gateway.fields import BadField, check_text
from merit.gateway.portions import portions
from merit.gateway.unary.registration import hello_of, read_info, read_tags
from merit.gateway.unary.roster import UnaryWorkers
from merit.model.addresses import split_address
from merit.model.commands import DrainWorker, HearWords, RegisterWorker
from merit.model.frames import WorkerFrame
from merit.model.limits import NAME_LENGTH_MAX, PAYLOAD_INLINE_BYTES_MAX
from merit.model.tenancy import DEFAULT_TENANT, LOCAL_PRINCIPAL
from merit.model.workers import Profile, Registration, Worker, WorkerState
from merit.ports.cell import Cell
from merit.session.link import ProtocolViolation
from merit.wire.unary import describe
from merit.wire.worker_abstraction import worker_abstraction_pb2 as unary
from merit.wire.worker_abstraction import worker_abstraction_pb2_grpc

_AVAILABLE: Final = frozenset({WorkerState.ACTIVE})
"""States in which a worker may be given tasks by anybody."""


class RegistryService(worker_abstraction_pb2_grpc.RegistryServiceServicer):
    """See the module.

    Args:
        cell: keeps the registrations.
        door: checks what workers say of themselves.
        workers: drives those who register.
        address: at which this gateway is reached; workers that have no address of their own are reached through it.
    """

    def __init__(self, cell: Cell, door: Door, workers: UnaryWorkers, address: Callable[[], str]) -> None:
        self._cell = cell
        self._door = door
        self._workers = workers
        self._address = address

    async def RegisterWorker(  # noqa: N802  (the contract's name)
        self, request: unary.RegisterWorkerRequest, context: Context
    ) -> unary.RegisterWorkerResponse:
        """Take a worker in, or what it says anew of itself. Durable when it answers; ``message`` is its id then, and
        otherwise what is wrong."""
        try:
            if request.ByteSize() > PAYLOAD_INLINE_BYTES_MAX:
                worker, registration = await asyncio.to_thread(self._read, request.worker_info)
            else:
                worker, registration = self._read(request.worker_info)
            self._check_contract(worker)
        except BadField as refused:
            return unary.RegisterWorkerResponse(message=str(refused))
        await self._hear(worker, context)
        if read_tags(registration.tags).draining:
            return await self._drain(worker, context)
        command = RegisterWorker(DEFAULT_TENANT, LOCAL_PRINCIPAL, worker, registration)
        try:
            with self._workers.coming(worker, registration):
                for refusal in await carry_out(self._cell, context, command):
                    return unary.RegisterWorkerResponse(message=f"{refusal.field}: {refusal.reason}")
                self._workers.registered(worker)
        except BadField as refused:
            return unary.RegisterWorkerResponse(message=str(refused))
        return unary.RegisterWorkerResponse(success=True, message=worker)

    async def _drain(self, worker: str, context: Context) -> unary.RegisterWorkerResponse:
        """The worker is about to end. What else it says of itself does not matter any more."""
        profile = self._cell.state.profiles.get(worker)
        if profile is None or profile.registration is None:
            return unary.RegisterWorkerResponse(
                message=f"worker_info.tags: {worker} is draining before it has registered"
            )
        if await carry_out(self._cell, context, DrainWorker(DEFAULT_TENANT, LOCAL_PRINCIPAL, worker)):
            # It drains already, or is not here: then it must not come after this.
            self._workers.drain(worker)
        return unary.RegisterWorkerResponse(success=True, message=worker)

    def _read(self, info: unary.WorkerInfo) -> tuple[str, Registration]:
        """The worker's id and its registration, checked by themselves. Also called in a thread: what is large takes its time.
        Raises ``BadField``."""
        worker, registration = read_info(info)
        if split_address(registration.address)[1] == split_address(self._address())[1]:
            # Whoever copies a registry into another one would have it dial itself, and make tasks of tasks.
            reason = f"{registration.address} is this control plane itself; announce the worker's own"
            raise BadField("worker_info.address", reason)
        try:
            self._door.worker_frame(WorkerFrame(hello=hello_of(worker, registration)))
        except ProtocolViolation as violation:
            field, _, reason = str(violation).partition(": ")
            raise BadField(field.replace("hello.", "worker_info.", 1), reason) from None
        return worker, registration

    def _check_contract(self, worker: str) -> None:
        profile = self._cell.state.profiles.get(worker)
        if worker in self._cell.state.workers and (profile is None or profile.registration is None):
            reason = f"{worker} is here already, by the session contract; choose another id"
            raise BadField("worker_info.worker_id", reason)

    async def _hear(self, worker: str, context: Context) -> None:
        """A worker says something: what it was told before need not be kept for it any more."""
        words = self._workers.heard(worker)
        if words:
            await carry_out(self._cell, context, HearWords(DEFAULT_TENANT, LOCAL_PRINCIPAL, worker, words))

    async def WorkerHeartbeat(  # noqa: N802  (the contract's name)
        self, request: unary.HeartbeatRequest, context: Context
    ) -> unary.HeartbeatResponse:
        """A worker lives. Only of an id that has never registered this is no success, so that it does."""
        await self._hear(request.worker_id, context)
        return self._workers.heartbeat(request.worker_id)

    async def GetAvailableWorkers(  # noqa: N802  (the contract's name)
        self, request: Empty, context: Context
    ) -> AsyncIterator[unary.WorkerInfo]:
        """Each worker that lives and may be given tasks, whichever contract it keeps to."""
        del request, context
        state, attached = self._cell.state, self._cell.attached
        async for profiles in portions(state.profiles.values()):
            for profile in profiles:
                worker = state.workers.get(profile.worker)
                if profile.paused or profile.removed or (worker is not None and worker.state not in _AVAILABLE):
                    continue
                if profile.registration is not None:
                    if self._workers.live(profile.worker):
                        yield self._registered(profile, profile.registration)
                elif worker is not None and worker.id in attached:
                    yield self._connected(worker)

    async def GetWorkerById(  # noqa: N802  (the contract's name)
        self, request: unary.GetWorkerByIdRequest, context: Context
    ) -> unary.WorkerInfo:
        """One worker, also one that has not been heard of for a while."""
        try:
            check_text("worker_id", request.worker_id, 1, NAME_LENGTH_MAX)
        except BadField as refused:
            await context.abort(grpc.StatusCode.NOT_FOUND, str(refused))
        profile = self._cell.state.profiles.get(request.worker_id)
        if profile is not None and profile.registration is not None:
            return self._registered(profile, profile.registration)
        worker = self._cell.state.workers.get(request.worker_id)
        if worker is None:
            await context.abort(grpc.StatusCode.NOT_FOUND, f"worker_id: there is no worker {request.worker_id}")
        return self._connected(worker)

    def _registered(self, profile: Profile, said: Registration) -> unary.WorkerInfo:
        info = unary.WorkerInfo(
            worker_id=profile.worker,
            name=said.name,
            version=said.version,
            address=said.address,
            tags=said.tags,
            capabilities=[describe(offer) for offer in said.offers],
        )
        heard_ns = self._workers.heard_ns(profile.worker)
        if heard_ns:
            info.last_heartbeat.FromNanoseconds(heard_ns)
        return info

    def _connected(self, worker: Worker) -> unary.WorkerInfo:
        """A worker with a stream of its own: who calls it calls the gateway, and names it in ``Task.worker_id``. Its version
        is that of its capabilities, if they have the same one."""
        versions = {offer.version for offer in worker.offers}
        info = unary.WorkerInfo(
            worker_id=worker.id,
            name=worker.id,
            version=versions.pop() if len(versions) == 1 else "",
            address=self._address(),
            tags=worker.tags,
            capabilities=[describe(offer) for offer in worker.offers],
        )
        seat = self._cell.desk.seats.get(worker.id)
        if seat is not None and seat.seen_ns:
            info.last_heartbeat.FromNanoseconds(seat.seen_ns)
        return info
