"""One control plane in this process."""

import asyncio

import pytest

from merit.app.control_plane import ControlPlane, Settings
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
    monkeypatch.setattr(plane, "_keep", fails)
    with pytest.raises(OSError, match="no more of it"):
        await asyncio.wait_for(plane.run(), 10)
    assert closed
