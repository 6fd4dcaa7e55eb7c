"""Control planes and workers for single stories of trouble."""

from functools import partial
from pathlib import Path

import pytest
import pytest_asyncio

from merit.sdk import client as sdk_client
from merit.sdk.channel import Backoff
from merit.testing.plane import PlaneFaults
from merit.testing.processes import PlaneProgram, Program, WorkerProgram
from tests.crash.campaign import FLEET, LIMITS


class Site:
    """What a test starts; all of it is killed in the end."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.state = home / "state"
        self.executions = home / "executions"
        self.programs: list[Program] = []

    async def plane(self, faults: PlaneFaults | None = None, entry: list[str] | None = None) -> PlaneProgram:
        program = PlaneProgram(self.state, faults or PlaneFaults(limits=LIMITS), entry or [])
        self.programs.append(program)
        await program.start()
        return program

    async def worker(self, server: str, name: str) -> WorkerProgram:
        program = WorkerProgram(FLEET, server, name, str(self.executions))
        self.programs.append(program)
        await program.start()
        return program


@pytest_asyncio.fixture
async def site(tmp_path):
    site = Site(tmp_path)
    yield site
    for program in site.programs:
        if program.running:
            await program.kill()


@pytest.fixture(autouse=True)
def impatient_client(monkeypatch):
    """Tests restart what they killed at once; waiting seconds before looking again only costs time."""
    monkeypatch.setattr(sdk_client, "Backoff", partial(Backoff, 0.02, 0.2))
