"""The gRPC server of a control plane."""

from __future__ import annotations

import socket
from collections.abc import Sequence
from typing import Final

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from merit.gateway.audits_service import AuditsService
from merit.gateway.blobs_service import BlobsService
from merit.gateway.dead_letters_service import DeadLettersService
from merit.gateway.fleet_service import FleetService
from merit.gateway.gateway_worker_service import GatewayWorkerService
from merit.gateway.queues_service import QueuesService
from merit.gateway.registry_service import RegistryService
from merit.gateway.schedules_service import SchedulesService
from merit.gateway.streams import WorkersService
from merit.gateway.supervision_service import SupervisionService
from merit.gateway.tasks_service import TasksService
from merit.model.addresses import is_loopback, split_address
from merit.model.limits import MESSAGE_BYTES_MAX
from merit.wire.v1 import (
    audits_pb2,
    audits_pb2_grpc,
    dead_letters_pb2,
    dead_letters_pb2_grpc,
    fleet_pb2,
    fleet_pb2_grpc,
    queues_pb2,
    queues_pb2_grpc,
    schedules_pb2,
    schedules_pb2_grpc,
    supervision_pb2,
    supervision_pb2_grpc,
    tasks_pb2,
    tasks_pb2_grpc,
    worker_pb2,
    worker_pb2_grpc,
)
from merit.wire.worker_abstraction import worker_abstraction_pb2, worker_abstraction_pb2_grpc

_OPTIONS: Final = (
    ("grpc.max_receive_message_length", MESSAGE_BYTES_MAX),
    ("grpc.max_send_message_length", MESSAGE_BYTES_MAX),
    ("grpc.so_reuseport", 0),  # two servers on one port would share its connections by chance
    (
        "grpc.keepalive_time_ms",
        10_000,
    ),  # a peer whose machine is gone is noticed in about a minute: gRPC waits so long for a ping
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.min_ping_interval_without_data_ms", 1_000),  # who knows of several nodes asks every 2 s
)


class CannotListen(Exception):
    """The address cannot be had, or must not be listened on; the message says what to do."""


def check_address(address: str) -> None:
    """Refuse what is not on this machine alone: there are no identities yet, so anybody who can connect may do all.

    Raises:
        CannotListen: with what to do instead.
    """
    try:
        host, _ = split_address(address)
    except ValueError as error:
        raise CannotListen(str(error)) from None
    if not is_loopback(host):
        raise CannotListen(
            f"{address} is not a loopback address. This version has no TLS and no identities yet, so it serves this "
            "machine only: use 127.0.0.1:PORT, and a tunnel (such as ssh -L) from elsewhere"
        )


def check_free(address: str) -> None:
    """See whether the address could be listened on now; it is not from then on.

    Raises:
        CannotListen: the port is taken, or the like.
    """
    host, port = split_address(address)
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except OSError as error:
        raise _cannot_listen(address) from error
    for number, (family, kind, protocol, _, place) in enumerate(found, 1):
        with socket.socket(family, kind, protocol) as tried:
            # As gRPC does: connections of a server that has just ended are no reason.
            tried.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                tried.bind(place)
            except OSError as error:
                if number == len(found):
                    raise _cannot_listen(address) from error
            else:
                return


def _cannot_listen(address: str) -> CannotListen:
    return CannotListen(f"cannot listen on {address}: is another server there? Stop it or choose another port")


class GrpcServer:
    """Serves the given services on an address."""

    def __init__(
        self,
        address: str,
        workers: WorkersService,
        tasks: TasksService,
        blobs: BlobsService,
        queues: QueuesService,
        dead_letters: DeadLettersService,
        schedules: SchedulesService,
        fleet: FleetService,
        audits: AuditsService,
        supervision: SupervisionService,
        registry: RegistryService,
        gateway_worker: GatewayWorkerService,
        interceptors: Sequence[grpc.aio.ServerInterceptor] = (),
    ) -> None:
        check_address(address)
        self._address = address
        self._server = grpc.aio.server(interceptors=interceptors, options=_OPTIONS)
        worker_pb2_grpc.add_WorkersServicer_to_server(workers, self._server)
        tasks_pb2_grpc.add_TasksServicer_to_server(tasks, self._server)
        tasks_pb2_grpc.add_BlobsServicer_to_server(blobs, self._server)
        queues_pb2_grpc.add_QueuesServicer_to_server(queues, self._server)
        dead_letters_pb2_grpc.add_DeadLettersServicer_to_server(dead_letters, self._server)
        schedules_pb2_grpc.add_SchedulesServicer_to_server(schedules, self._server)
        fleet_pb2_grpc.add_FleetServicer_to_server(fleet, self._server)
        audits_pb2_grpc.add_AuditsServicer_to_server(audits, self._server)
        supervision_pb2_grpc.add_SupervisionServicer_to_server(supervision, self._server)
        worker_abstraction_pb2_grpc.add_RegistryServiceServicer_to_server(registry, self._server)
        worker_abstraction_pb2_grpc.add_WorkerServiceServicer_to_server(gateway_worker, self._server)
        self._health = health.aio.HealthServicer()
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        ours = (worker_pb2, tasks_pb2, queues_pb2, dead_letters_pb2, schedules_pb2, fleet_pb2, audits_pb2)
        files = (*ours, supervision_pb2, worker_abstraction_pb2)
        names = [service.full_name for file in files for service in file.DESCRIPTOR.services_by_name.values()]
        self._names = names
        reflection.enable_server_reflection((*names, health.SERVICE_NAME, reflection.SERVICE_NAME), self._server)

    async def start(self) -> str:
        """Listen; the address, with the port that was given if 0 was asked for.

        Raises:
            CannotListen: the port is taken, or the like.
        """
        try:
            port = self._server.add_insecure_port(self._address)
        except RuntimeError as error:
            raise _cannot_listen(self._address) from error
        await self._server.start()
        for name in ("", *self._names):
            await self._health.set(name, health_pb2.HealthCheckResponse.SERVING)
        return f"{self._address.rpartition(':')[0]}:{port}"

    async def stop(self, grace_s: float) -> None:
        """Take nothing new, and end the streams after ``grace_s``."""
        await self._health.enter_graceful_shutdown()
        await self._server.stop(grace_s)
