"""One control plane in this process."""

import asyncio

import pytest

from merit import AsyncClient, Refused
from merit.app.control_plane import ControlPlane, Settings
from merit.app.housekeeping import Housekeeping
from merit.app.state_directory import StateDirectory
from merit.app.stores import LocalStores
from merit.ports.blobs import BlobCorrupt, BlobUnavailable
from merit.runtime.cell import CellLoop


async def test_when_housekeeping_fails_the_streams_are_ended_all_the_same(tmp_path, monkeypatch):
    closed = []
    close = CellLoop.close

    async def watched(self):
        closed.append(self)
        await close(self)

    async def fails(*_):
        raise OSError("no more of it")

    monkeypatch.setattr(CellLoop, "close", watched)
    plane = ControlPlane(Settings(state=tmp_path / "state", grpc="127.0.0.1:0"))
    monkeypatch.setattr(Housekeeping, "run", fails)
    with pytest.raises(OSError, match="no more of it"):
        await asyncio.wait_for(plane.run(), 10)
    assert closed


class Troubled(LocalStores):
    """Blobs that cannot be touched for some time."""

    def __init__(self, directory, *troubles):
        super().__init__(directory)
        self.troubles = list(troubles)

    def blobs(self):
        blobs = super().blobs()
        touch = blobs.touch

        def troubled(tenant, digest):
            if self.troubles:
                raise self.troubles.pop(0)
            touch(tenant, digest)

        blobs.touch = troubled  # type: ignore[method-assign]  # as the adapter of a database would
        return blobs


async def submitted(tmp_path, *troubles):
    """Of a task with large parameters."""
    stores = Troubled(StateDirectory(tmp_path / "state"), *troubles)
    plane = ControlPlane(Settings(state=tmp_path / "state", grpc="127.0.0.1:0"), stores)
    address = asyncio.get_running_loop().create_future()
    running = asyncio.create_task(plane.run(lambda where, epoch: address.set_result(where)))
    try:
        async with AsyncClient(await asyncio.wait_for(address, 10)) as merit:
            return await asyncio.wait_for(merit.submit("echo", {"text": "x" * 200_000}), 10), stores
    finally:
        plane.stop()
        await asyncio.wait_for(running, 20)


async def test_while_contents_cannot_be_had_tasks_are_not_refused_but_sent_again(tmp_path, caplog):
    handle, stores = await submitted(tmp_path, *[BlobUnavailable("planned")] * 2)
    assert handle.id
    assert not stores.troubles
    assert "Unexpected" not in caplog.text, "nor is it taken for a defect"


async def test_contents_that_are_damaged_are_to_be_put_again(tmp_path):
    with pytest.raises(Refused, match="put it there first"):
        await submitted(tmp_path, BlobCorrupt("planned"))
