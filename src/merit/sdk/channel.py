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
    """The control plane that is meant: what was said, else what the environment says, else the usual one. May be several
    addresses, with commas between them."""
    return server or os.environ.get(SERVER_VARIABLE) or DEFAULT_SERVER


_CHUNK_BYTES: Final = 1024 * 1024
_OPTIONS: Final = (
    ("grpc.max_receive_message_length", MESSAGE_BYTES_MAX),
    ("grpc.max_send_message_length", MESSAGE_BYTES_MAX),
    ("grpc.use_local_subchannel_pool", 1),  # each channel has a connection of its own
)
_PATIENT: Final = (("grpc.keepalive_time_ms", 10_000), ("grpc.keepalive_timeout_ms", 10_000))
_IMPATIENT: Final = (
    ("grpc.keepalive_time_ms", 2_000),
    ("grpc.keepalive_timeout_ms", 2_000),
    ("grpc.http2.ping_timeout_ms", 2_000),  # it bounds the one above from below, and is a minute by itself
    ("grpc.http2.max_pings_without_data", 0),  # as many as that takes
)
"""For one of several: a process that stands still keeps its connections, and another one leads long before it goes on."""
_WELCOME_S: Final = 2.0
_WELCOME_S_MAX: Final = 10.0


def open_channel(server: str, *, impatient: bool = False) -> grpc.aio.Channel:
    """A new connection to ``HOST:PORT``; ``impatient``: it breaks when nothing is heard of the other side for 4 s."""
    return grpc.aio.insecure_channel(server, options=_OPTIONS + (_IMPATIENT if impatient else _PATIENT))


class Servers:
    """Where a control plane may answer, tried in turn: a standby does not listen, and the one that led may stand still.

    Args:
        text: ``HOST:PORT``, or several with commas between them.

    Raises:
        ValueError: there is none in it.
    """

    def __init__(self, text: str) -> None:
        self._addresses = [address for part in text.split(",") if (address := part.strip())]
        if not self._addresses:
            raise ValueError(f"server: {text!r} has no HOST:PORT, such as {DEFAULT_SERVER}")
        self._several = len(self._addresses) > 1
        self._place = 0
        self._tried = 0
        self._welcome_s = _WELCOME_S
        self._worked = False

    @property
    def present(self) -> str:
        """The one whose turn it is."""
        return self._addresses[self._place]

    @property
    def welcome_s(self) -> float | None:
        """How long to wait for its welcome; None: as long as it takes, since there is no other. Longer when none has
        answered in time: they may be slow, all of them."""
        return self._welcome_s if self._several else None

    def open(self) -> grpc.aio.Channel:
        """A new connection to it."""
        return open_channel(self.present, impatient=self._several)

    def soon(self, wait_s: float) -> float:
        """How long to wait before all are tried again, when one alone were tried after ``wait_s``: of several, one leads
        within seconds."""
        return min(wait_s, random.uniform(0.5, 1.0)) if self._several else wait_s

    def worked(self) -> None:
        """It has answered."""
        self._worked = True
        self._welcome_s = _WELCOME_S

    def next(self) -> bool:
        """The connection is over: on to the next. Whether to wait first: after one that worked, and when all have been
        tried in vain."""
        self._place = (self._place + 1) % len(self._addresses)
        self._tried += 1
        worked, self._worked = self._worked, False
        if not worked and self._tried < len(self._addresses):
            return False
        self._tried = 0
        if not worked:
            self._welcome_s = min(_WELCOME_S_MAX, self._welcome_s * 2)
        return True


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
