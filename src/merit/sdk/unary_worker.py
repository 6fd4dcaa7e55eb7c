"""A worker that is dialled: it serves the unary contract, for orchestrators of others and for Merit alike."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
from collections.abc import AsyncIterator, Callable, Iterable
from typing import Any, Final

import grpc
from google.protobuf.empty_pb2 import Empty
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from merit.model.addresses import is_loopback, split_address
from merit.model.limits import MESSAGE_BYTES_MAX
from merit.sdk.amounts import Amounts, amounts_of
from merit.sdk.capability import VERSION, Capability, declared, only_declaring
from merit.sdk.channel import Servers
from merit.sdk.operator_words import Obedience
from merit.sdk.options import words_of
from merit.sdk.runner import Runner
from merit.sdk.unary_tasks import RESULT_BYTES_MAX, UnaryRefused, UnaryTasks
from merit.sdk.worker import DRAIN_S, brief, until_signal
from merit.wire.unary import (
    CAPACITY_TAG,
    CONCURRENCY_TAG,
    DRAINING_TAG,
    PAUSE,
    REOPEN_TAG,
    RESUME,
    STOP,
    TENANTS_TAG,
    VERSION_TAG,
    describe,
)
from merit.wire.worker_abstraction import worker_abstraction_pb2 as unary
from merit.wire.worker_abstraction import worker_abstraction_pb2_grpc

log = logging.getLogger("merit.worker")

HEARTBEAT_S: Final = 5.0
REGISTRY_S: Final = 10.0
"""Before a registry that is lost, or that will not have this worker, is tried again."""

_CALL_S: Final = 5.0
_LOOK_S: Final = 0.05
_LAST_WORDS_S: Final = 2.0
"""How long a worker that has nothing left waits until the registry knows that it leaves, and until its streams have been read
to their ends."""
_OPTIONS: Final = (
    ("grpc.max_receive_message_length", MESSAGE_BYTES_MAX),
    ("grpc.max_send_message_length", MESSAGE_BYTES_MAX),
    ("grpc.so_reuseport", 0),  # two servers on one port would share its connections by chance
)


class UnaryWorker(worker_abstraction_pb2_grpc.WorkerServiceServicer):
    """Offers capabilities on an address of its own until it is drained.

    Args:
        capabilities: what it can do.
        listen: ``HOST:PORT`` on this machine; port 0: any that is free.
        registry: ``HOST:PORT`` of the registry to announce itself to, Merit's (of all its nodes, with commas between them)
            or somebody else's; it is tried again for ever. None: to nobody.
        name: of this worker, unique at the registry; by default from the host and the process.
        version: semantic, of the worker as a whole.
        concurrency: attempts that run at the same time; by default the number of CPUs, at least 4.
        processes: child processes for ``cpu=True`` functions; by default one per CPU.
        tags: words by which workers are told apart.
        capacity: as for ``WorkerProcess``.
        tenants: as for ``WorkerProcess``.
        heartbeat_s: how often the registry hears of it.
        registry_s: before a registry that is lost is tried again.

    Raises:
        ValueError: one of them cannot be.
    """

    def __init__(
        self,
        capabilities: Iterable[Capability[..., Any]],
        listen: str,
        registry: str | None = None,
        *,
        name: str | None = None,
        version: str = "1.0.0",
        concurrency: int | None = None,
        processes: int | None = None,
        tags: Iterable[str] = (),
        capacity: Amounts | None = None,
        tenants: Iterable[str] = (),
        heartbeat_s: float = HEARTBEAT_S,
        registry_s: float = REGISTRY_S,
    ) -> None:
        self._capabilities = list(capabilities)
        if not self._capabilities:
            raise ValueError("capabilities: a worker needs at least one; decorate a function with @capability")
        if not is_loopback(split_address(listen)[0]):
            raise ValueError(
                f"listen: {listen} is not a loopback address. The contract has no identities, so anybody who can connect "
                "could have work done: use 127.0.0.1:PORT, and a tunnel (such as ssh -L) from elsewhere"
            )
        for address in registry.split(",") if registry is not None else ():
            split_address(address.strip())
        if not VERSION.fullmatch(version):
            raise ValueError(f"version: {version!r} is not semantic (like 1.0.0)")
        self.address = listen
        """With the port that was given, once it listens."""
        self.registry = registry
        self.name = name or f"{socket.gethostname()}-{os.getpid()}"
        self._version = version
        self._concurrency = concurrency or max(4, os.cpu_count() or 1)
        self._processes = processes
        self._tags = [
            *words_of("tags", tags),
            f"{CONCURRENCY_TAG}={self._concurrency}",
            f"{REOPEN_TAG}=true",
            *(
                f"{CAPACITY_TAG}{amount.name}={amount.thousandths / 1000:.3f}"
                for amount in amounts_of("capacity", capacity or {})
            ),
            *(f"{VERSION_TAG}{item.name}={item.version}" for item in self._capabilities if item.version != version),
        ]
        served = words_of("tenants", tenants)
        if served:
            self._tags.append(f"{TENANTS_TAG}={','.join(served)}")
        self._heartbeat_s = heartbeat_s
        self._registry_s = registry_s
        self._drained = asyncio.Event()
        self._known = False
        """The registry has it, as far as is known."""
        self._told = asyncio.Event()
        """… and knows that it is draining."""
        self._paused = False
        self._obedience = Obedience()
        self._tasks: UnaryTasks
        self._runner: Runner

    def drain(self) -> None:
        """Take nothing more, finish what runs, and leave. ``run`` returns then."""
        self._drained.set()

    async def run(self, *, drain_s: float = DRAIN_S, ready: Callable[[str], object] = lambda address: None) -> None:
        """Work until ``drain`` is called.

        Args:
            drain_s: how long attempts that run then may go on.
            ready: called with the address when it can be reached.

        Raises:
            OSError: the address cannot be had.
        """
        loop = asyncio.get_running_loop()
        self._runner = Runner(
            self._capabilities,
            self._concurrency,
            lambda: loop.call_soon_threadsafe(self._tasks.collect),
            processes=self._processes,
            result_bytes_max=RESULT_BYTES_MAX,
        )
        self._tasks = UnaryTasks(self._runner, {item.name for item in self._capabilities})
        server, state = self._server()
        works: list[asyncio.Task[None]] = []
        try:
            await server.start()
            for service in ("", _SERVICE):
                await state.set(service, health_pb2.HealthCheckResponse.SERVING)
            works += [asyncio.create_task(self._look()), asyncio.create_task(self._obedience.run())]
            if self.registry is not None:
                works.append(asyncio.create_task(self._announce(self.registry)))
            log.info("%s serves the unary contract on %s", self.name, self.address)
            ready(self.address)
            await self._drained.wait()
            log.info("draining: %d attempts are held", self._tasks.held)
            await state.enter_graceful_shutdown()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._tasks.empty(), drain_s)
            if self._known:
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._told.wait(), _LAST_WORDS_S)
            await self._runner.close(0)  # what still runs is canceled, and its streams say so
            self._tasks.collect()
            self._tasks.abandon()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._tasks.read_out(), _LAST_WORDS_S)
        finally:
            for work in works:
                work.cancel()
            await server.stop(0)
            await self._runner.close(0)
            await asyncio.gather(*works, return_exceptions=True)

    def _server(self) -> tuple[grpc.aio.Server, health.aio.HealthServicer]:
        server = grpc.aio.server(options=_OPTIONS)
        worker_abstraction_pb2_grpc.add_WorkerServiceServicer_to_server(self, server)
        state = health.aio.HealthServicer()
        health_pb2_grpc.add_HealthServicer_to_server(state, server)
        reflection.enable_server_reflection((_SERVICE, health.SERVICE_NAME, reflection.SERVICE_NAME), server)
        try:
            port = server.add_insecure_port(self.address)
        except RuntimeError as error:
            raise OSError(f"cannot listen on {self.address}: is another server there?") from error
        self.address = f"{self.address.rpartition(':')[0]}:{port}"
        return server, state

    async def _look(self) -> None:
        while True:
            await asyncio.sleep(_LOOK_S)
            self._tasks.look()

    # What orchestrators ask

    async def ExecuteTask(  # noqa: N802  (the contract's name)
        self, request: unary.ExecuteTaskRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> unary.ExecuteTaskResponse:
        """Begin, or say why not. The same task said again is the same task."""
        del context
        task_id = request.task.task_id
        try:
            if self._drained.is_set():
                raise UnaryRefused(f"{self.name} is about to end, and takes nothing more")
            if self._paused:
                raise UnaryRefused(f"{self.name} is paused")
            self._tasks.begin(request.task)
        except UnaryRefused as refused:
            return unary.ExecuteTaskResponse(task_id=task_id, message=str(refused))
        return unary.ExecuteTaskResponse(task_id=task_id, accepted=True)

    async def StreamTaskStatus(  # noqa: N802  (the contract's name)
        self, request: unary.GetTaskStatusRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> AsyncIterator[unary.StreamTaskStatusResponse]:
        """Where a task is, each time that this changes, to its end."""
        try:
            async for result in self._tasks.follow(request.task_id):
                yield unary.StreamTaskStatusResponse(result=result)
        except LookupError as error:
            await context.abort(grpc.StatusCode.NOT_FOUND, str(error))

    async def GetWorkerInfo(  # noqa: N802  (the contract's name)
        self, request: Empty, context: grpc.aio.ServicerContext[Any, Any]
    ) -> unary.WorkerInfo:
        """What it says of itself at a registry too."""
        del request, context
        return self._info()

    async def CancelTask(  # noqa: N802  (the contract's name)
        self, request: unary.GetTaskStatusRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> Empty:
        """Merit's addition: call a task off. One that has ended stays as it is."""
        try:
            self._tasks.cancel(request.task_id)
        except LookupError as error:
            await context.abort(grpc.StatusCode.NOT_FOUND, str(error))
        return Empty()

    # The registry

    def _info(self, *more: str) -> unary.WorkerInfo:
        info = unary.WorkerInfo(
            worker_id=self.name,
            name=self.name,
            version=self._version,
            address=self.address,
            tags=[*self._tags, *more],
            capabilities=[describe(item.offer) for item in self._capabilities],
        )
        info.last_heartbeat.GetCurrentTime()
        return info

    async def _announce(self, registry: str) -> None:
        """Be known there, from now on."""
        servers = Servers(registry)
        while True:
            try:
                async with servers.open() as channel:
                    await self._keep_known(worker_abstraction_pb2_grpc.RegistryServiceStub(channel))
            except (grpc.aio.AioRpcError, ConnectionError) as error:
                log.warning("no registry at %s: %s; trying again", servers.present, brief(error))
            self._known = False
            if servers.next():
                await asyncio.sleep(self._registry_s)

    async def _keep_known(self, registry: Any) -> None:
        """Register, and say regularly that this worker lives; ends when the registry will not have it."""
        while True:
            new = not self._known
            if new:
                answer = await self._register(registry)
                if not answer.success:
                    log.error("the registry does not take %s: %s", self.name, answer.message)
                    return
                log.info("registered with %s: %s", self.registry, answer.message or self.name)
                self._known = True
            if self._drained.is_set() and (new or not self._told.is_set()):
                # So that nobody gives it anything any more, after a registration anew neither; to a registry that does not know the tag it is a tag.
                await self._register(registry, f"{DRAINING_TAG}=true")
                self._told.set()
            load = unary.HeartbeatRequest(worker_id=self.name, current_load=self._tasks.held)
            beat = await registry.WorkerHeartbeat(load, timeout=_CALL_S)
            for command in beat.commands:
                self._obey(command)
            self._known = beat.success
            if beat.success or new:  # one that forgets at once must not be asked without end
                await self._beat_due()

    async def _register(self, registry: Any, *more_tags: str) -> unary.RegisterWorkerResponse:
        request = unary.RegisterWorkerRequest(worker_info=self._info(*more_tags))
        answer: unary.RegisterWorkerResponse = await registry.RegisterWorker(request, timeout=_CALL_S)
        return answer

    async def _beat_due(self) -> None:
        with contextlib.suppress(TimeoutError):
            if self._told.is_set():
                await asyncio.sleep(self._heartbeat_s)
            else:
                await asyncio.wait_for(self._drained.wait(), self._heartbeat_s)

    def _obey(self, command: str) -> None:
        if command == STOP:
            self.drain()
        elif command in (PAUSE, RESUME):
            paused = command == PAUSE
            if paused is not self._paused:
                log.info("told %s by the registry", command)
            self._paused = paused
        else:
            self._obedience.hear(command)


_SERVICE: Final = unary.DESCRIPTOR.services_by_name["WorkerService"].full_name


def serve_unary(
    *capabilities: Capability[..., Any],
    listen: str,
    registry: str | None = None,
    name: str | None = None,
    version: str = "1.0.0",
    concurrency: int | None = None,
    processes: int | None = None,
    tags: Iterable[str] = (),
    capacity: Amounts | None = None,
    tenants: Iterable[str] = (),
    drain_s: float = DRAIN_S,
    ready: Callable[[str], object] = lambda address: None,
) -> None:
    """Serve the unary contract with these capabilities (by default all that have been declared) until SIGTERM or SIGINT.

    The first signal drains, a second one ends it at once. The arguments are those of ``UnaryWorker`` and its ``run``. In a module that is
    loaded for what it declares (``merit worker MODULE``) this does nothing: whoever loads it serves.

    Raises:
        ValueError: one of them cannot be.
        OSError: the address cannot be had.
    """
    if only_declaring():
        return

    async def run() -> None:
        worker = UnaryWorker(
            capabilities or declared(),
            listen,
            registry,
            name=name,
            version=version,
            concurrency=concurrency,
            processes=processes,
            tags=tags,
            capacity=capacity,
            tenants=tenants,
        )
        await until_signal(worker.drain, worker.run(drain_s=drain_s, ready=ready))

    asyncio.run(run())
