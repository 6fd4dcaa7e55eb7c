"""How workers and clients reach a control plane."""

from __future__ import annotations

import os
import random
from functools import partial
from typing import Any, Final, cast

import grpc

from merit.model.limits import MESSAGE_BYTES_MAX
from merit.model.tenancy import DEFAULT_TENANT
from merit.wire.calls import calling
from merit.wire.v1 import tasks_pb2, tasks_pb2_grpc

DEFAULT_SERVER: Final = "127.0.0.1:50051"
TENANT_KEY: Final = "merit-tenant"
"""The metadata of each call that says whose things it is about."""
SERVER_VARIABLE: Final = "MERIT_SERVER"


def server_or_default(server: str | None) -> str:
    """The control plane that is meant: what was said, else what the environment says, else the usual one."""
    return server or os.environ.get(SERVER_VARIABLE) or DEFAULT_SERVER


_CHUNK_BYTES: Final = 1024 * 1024
_OPTIONS: Final = (
    ("grpc.max_receive_message_length", MESSAGE_BYTES_MAX),
    ("grpc.max_send_message_length", MESSAGE_BYTES_MAX),
    ("grpc.keepalive_time_ms", 10_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.use_local_subchannel_pool", 1),  # each channel has a connection of its own
)


def open_channel(server: str) -> grpc.aio.Channel:
    """A new connection to ``HOST:PORT``."""
    return grpc.aio.insecure_channel(server, options=_OPTIONS)


class TenantChannel:
    """A channel whose calls all say for which tenant they are.

    Not an interceptor: one of those would stand in the way of every frame of a stream.
    """

    def __init__(self, channel: grpc.aio.Channel, tenant: str) -> None:
        self._channel = channel
        self._metadata = ((TENANT_KEY, tenant),)

    def unary_unary(self, *args: Any, **kwargs: Any) -> Any:
        """As those below: what a stub makes its calls with."""
        return partial(self._channel.unary_unary(*args, **kwargs), metadata=self._metadata)

    def unary_stream(self, *args: Any, **kwargs: Any) -> Any:
        return partial(self._channel.unary_stream(*args, **kwargs), metadata=self._metadata)

    def stream_unary(self, *args: Any, **kwargs: Any) -> Any:
        return partial(self._channel.stream_unary(*args, **kwargs), metadata=self._metadata)

    def stream_stream(self, *args: Any, **kwargs: Any) -> Any:
        return partial(self._channel.stream_stream(*args, **kwargs), metadata=self._metadata)


def for_tenant(channel: grpc.aio.Channel, tenant: str) -> grpc.aio.Channel:
    """The channel for stubs whose calls are about things of ``tenant``."""
    if tenant == DEFAULT_TENANT:
        return channel
    return cast("grpc.aio.Channel", TenantChannel(channel, tenant))


class Backoff:
    """Waits between tries: exponential from ``first_s`` to ``last_s``, each with full jitter in its upper half."""

    def __init__(self, first_s: float = 0.1, last_s: float = 5.0) -> None:
        self._first_s = first_s
        self._last_s = last_s
        self._next_s = first_s

    def reset(self) -> None:
        """It worked: begin again with the shortest."""
        self._next_s = self._first_s

    def next_s(self) -> float:
        """How long to wait before the next try."""
        wait_s = self._next_s * random.uniform(0.5, 1.0)
        self._next_s = min(self._last_s, self._next_s * 2)
        return wait_s


async def put_blob(channel: grpc.aio.Channel, data: bytes) -> str:
    """Store a large content; its digest. It is durable on return.

    Raises ``grpc.aio.AioRpcError``, and ``ConnectionError`` when the channel is closed meanwhile.
    """
    chunks = (
        tasks_pb2.BlobChunk(data=data[start : start + _CHUNK_BYTES]) for start in range(0, len(data), _CHUNK_BYTES)
    )
    with calling():
        ref = await tasks_pb2_grpc.BlobsStub(channel).Put(chunks)
    return ref.digest


async def get_blob(channel: grpc.aio.Channel, digest: str) -> bytes:
    """The content of a digest. Raises as ``put_blob``."""
    data = bytearray()
    with calling():
        async for chunk in tasks_pb2_grpc.BlobsStub(channel).Get(tasks_pb2.BlobRef(digest=digest)):
            data += chunk.data
    return bytes(data)
