"""Large contents go in and out here, in chunks."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Final

import grpc

from merit.model.limits import PAYLOAD_BYTES_MAX
from merit.model.tenancy import DEFAULT_TENANT
from merit.ports.blobs import BlobCorrupt, BlobMissing, Blobs, BlobTooLarge, BlobUnavailable
from merit.wire.v1 import tasks_pb2, tasks_pb2_grpc

CHUNK_BYTES: Final = 1024 * 1024
UPLOADS_BYTES_MAX: Final = 512 * 1024 * 1024
"""What all uploads that are under way hold in memory together; one more has to come again later."""


class BlobsService(tasks_pb2_grpc.BlobsServicer):
    """Puts are durable when they answer.

    The contents of all tenants are in one place as long as there are no identities: a worker serves all of them, and
    does not know whose task it does. Who knows the digest of a content has had it, or was told it by who had it.
    """

    def __init__(self, blobs: Blobs) -> None:
        self._blobs = blobs
        self._uploads_bytes = 0

    async def Put(  # noqa: N802  (the contract names it so; as below)
        self,
        request_iterator: AsyncIterator[tasks_pb2.BlobChunk],
        context: grpc.aio.ServicerContext[tasks_pb2.BlobChunk, tasks_pb2.BlobRef],
    ) -> tasks_pb2.BlobRef:
        """Store the chunks as one content; the digest under which it is found."""
        data = bytearray()
        try:
            async for chunk in request_iterator:
                data += chunk.data
                self._uploads_bytes += len(chunk.data)
                if len(data) > PAYLOAD_BYTES_MAX:
                    await context.abort(
                        grpc.StatusCode.RESOURCE_EXHAUSTED, f"data: above {PAYLOAD_BYTES_MAX:,} bytes; split it"
                    )
                if self._uploads_bytes > UPLOADS_BYTES_MAX:
                    await context.abort(
                        grpc.StatusCode.RESOURCE_EXHAUSTED,
                        f"data: other uploads already hold {UPLOADS_BYTES_MAX:,} bytes; try again a little later",
                    )
            digest = await asyncio.to_thread(self._blobs.put, DEFAULT_TENANT, bytes(data))
        except BlobTooLarge as error:
            await context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, str(error))
        except BlobUnavailable as error:
            await context.abort(grpc.StatusCode.UNAVAILABLE, str(error))
        finally:
            self._uploads_bytes -= len(data)
        return tasks_pb2.BlobRef(digest=digest)

    async def Get(  # noqa: N802  (the contract's name)
        self,
        request: tasks_pb2.BlobRef,
        context: grpc.aio.ServicerContext[tasks_pb2.BlobRef, tasks_pb2.BlobChunk],
    ) -> AsyncIterator[tasks_pb2.BlobChunk]:
        """The content of a digest."""
        data = b""
        try:
            data = await asyncio.to_thread(self._blobs.get, DEFAULT_TENANT, request.digest)
        except BlobMissing as error:
            await context.abort(grpc.StatusCode.NOT_FOUND, str(error))
        except ValueError as error:
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, str(error))
        except BlobCorrupt as error:
            await context.abort(grpc.StatusCode.DATA_LOSS, str(error))
        except BlobUnavailable as error:
            await context.abort(grpc.StatusCode.UNAVAILABLE, str(error))
        for start in range(0, len(data), CHUNK_BYTES):
            yield tasks_pb2.BlobChunk(data=data[start : start + CHUNK_BYTES])
