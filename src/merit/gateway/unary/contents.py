"""Parameters and results of tasks of workers that are dialled: in the words of the contract, checked, large ones stored.

The loop is the cell's too, so what is large is dealt with in a thread; and one after the other, whoever's it is, with as
long a pause after it as it took, so that workers that send large results all at once cost the others neither most of the
time nor all memory.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from typing import Any, Final, TypeVar

import msgspec

from merit.model.frames import Assignment
from merit.model.json_check import check_json
from merit.model.limits import PAYLOAD_BYTES_MAX, PAYLOAD_INLINE_BYTES_MAX
from merit.model.tenancy import DEFAULT_TENANT
from merit.ports.blobs import BlobError, Blobs, BlobUnavailable
from merit.wire.worker_abstraction import worker_abstraction_pb2 as unary

Made = TypeVar("Made")

STORE_S: Final = 30.0
"""A store that cannot be had just now is tried again for so long, which spares the task an attempt …"""
STORE_AGAIN_S: Final = (0.2, 5.0)
"""… after this time, twice as long each time, the first time and at most."""
_QUICK_S: Final = 0.02
"""What took no longer than this is no reason for a pause."""

_decode_members = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode


class Contents:
    """One for all workers.

    Args:
        blobs: where large ones are.
    """

    def __init__(self, blobs: Blobs) -> None:
        self._blobs = blobs
        self._one_large = asyncio.Lock()

    async def put(self, data: bytes) -> str:
        """Store a content durably; its digest. Raises ``OSError`` when that cannot be done."""
        try:
            return await _patiently(lambda: self._blobs.put(DEFAULT_TENANT, data))
        except BlobError as error:
            raise OSError(str(error)) from error

    async def check(self, data: bytes) -> Any:
        """The decoded value. Raises ``BadJson``."""
        return await self._make(len(data), lambda: check_json(data))

    async def result(self, message: bytes) -> unary.TaskResult:
        """What a worker has said. Raises ``DecodeError``."""
        return await self._make(len(message), lambda: unary.StreamTaskStatusResponse.FromString(message).result)

    async def parameters(self, item: Assignment) -> list[unary.TaskParameter]:
        """The members of the parameters, and the results of other tasks: each a name and JSON.

        Raises:
            ValueError: it is no object, or too large together.
            BlobError: something of it cannot be had.
        """
        data = await self._get(item.parameters_blob) if item.parameters_blob else item.parameters
        inputs = [(more.name, await self._get(more.blob) if more.blob else more.result) for more in item.inputs]
        size_bytes = len(data) + sum(len(value) for _, value in inputs)
        if size_bytes > PAYLOAD_BYTES_MAX:
            raise ValueError(
                f"parameters: {size_bytes:,} bytes with the results of other tasks; {PAYLOAD_BYTES_MAX:,} at most"
            )
        return await self._make(size_bytes, lambda: _parameters(data, inputs))

    async def _get(self, digest: str) -> bytes:
        return await _patiently(lambda: self._blobs.get(DEFAULT_TENANT, digest))

    async def _make(self, size_bytes: int, make: Callable[[], Made]) -> Made:
        if size_bytes <= PAYLOAD_INLINE_BYTES_MAX:
            return make()
        async with self._one_large:
            began_s = time.monotonic()
            made = await asyncio.to_thread(make)
            took_s = time.monotonic() - began_s
            if took_s > _QUICK_S:
                await asyncio.sleep(took_s)
            return made


async def _patiently(ask: Callable[[], Made]) -> Made:
    """What a store says, in a thread; while it cannot be had it is asked again. Raises ``BlobError``."""
    until_s = time.monotonic() + STORE_S
    wait_s, most_s = STORE_AGAIN_S
    while True:
        try:
            return await asyncio.to_thread(ask)
        except BlobUnavailable as error:
            if time.monotonic() + wait_s > until_s:
                raise BlobUnavailable(f"{error} (tried for {STORE_S:g} s)") from error
        await asyncio.sleep(wait_s)
        wait_s = min(most_s, wait_s * 2)


def _parameters(data: bytes, inputs: Sequence[tuple[str, bytes]]) -> list[unary.TaskParameter]:
    try:
        members = _decode_members(data)
    except msgspec.DecodeError as error:
        raise ValueError(f"parameters: {error}") from None
    named = [(name, bytes(value)) for name, value in members.items()]
    return [unary.TaskParameter(key=name, value_json=(value or b"null").decode()) for name, value in (*named, *inputs)]
