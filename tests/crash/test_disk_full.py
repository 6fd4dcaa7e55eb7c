"""No space is left: nothing that was acknowledged is lost, the control plane says so and ends, and goes on when there is
space again."""

import asyncio
import contextlib
import os
import random
import subprocess
import sys

import pytest

from merit import AsyncClient, MeritError
from merit.testing.plane import EXIT_JOURNAL
from tests.crash.evidence import check

MODULE = [sys.executable, "-m", "merit.testing.plane"]
NARROW = ["sh", "-c", 'ulimit -f 4096; exec "$@"', "narrow", *MODULE]
"""No file may become larger than 2 MB (some shells count in units of 1,024 bytes: 4 MB)."""


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 3 MB at the place of the state, and how to make it larger."""
    place = tmp_path / "state"
    place.mkdir()

    def mount(options):
        return subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", place], capture_output=True, check=False)

    if os.geteuid() != 0 or mount("size=3m,mode=700").returncode != 0:
        pytest.skip("only who may mount file systems can make a small one")
    yield lambda: mount("remount,size=200m")
    subprocess.run(["umount", "-l", place], check=True)


async def fill(merit, acknowledged):
    """Submit until nobody acknowledges any more."""
    chance = random.Random(1)
    while True:
        text = chance.randbytes(20_000).hex()
        acknowledged[(await merit.submit("measure", {"text": text})).id] = len(text)


async def story(site, plane, widen):
    acknowledged: dict[str, int] = {}
    async with AsyncClient(plane.address) as merit:
        filling = asyncio.create_task(fill(merit, acknowledged))
        assert await plane.ended(60) == EXIT_JOURNAL, plane.failure("should have ended for lack of space")
        said = [line for line in plane.lines if line.startswith("journal: ")]
        assert len(said) == 1
        assert any(words in said[0] for words in ("full", "space", "disk I/O error")), said
        # gRPC reports a call that its own stop cancels too early; what matters is that Merit's code raises nothing.
        raised = [line for line in plane.lines if "merit/" in line and line.lstrip().startswith("File ")]
        assert not raised, plane.failure("an exception that nobody expected")
        assert acknowledged
        count = len(acknowledged)
        await asyncio.sleep(0.2)
        assert len(acknowledged) == count, "acknowledged by nobody"
        widen()
        await plane.start()
        await site.worker(plane.address, "w1")
        while len(acknowledged) < count + 5:
            await asyncio.sleep(0.02)
        filling.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await filling
        results = {task: await merit.watch(task).wait(60) for task in acknowledged}

        async def at_rest():
            status = await merit.status()
            return status["pending"] + status["assigned"] + status["waiting"] == 0

        async with asyncio.timeout(30):
            while not await at_rest():
                await asyncio.sleep(0.05)
    assert all(result.value == acknowledged[task] for task, result in results.items())
    assert await plane.stop() == 0
    check(site.state, site.executions, set(acknowledged), results)


async def test_a_file_system_that_is_full(site, small_disk):
    plane = await site.plane()
    await story(site, plane, small_disk)


async def test_files_that_may_not_grow(site):
    plane = await site.plane(entry=NARROW)

    def widen():
        plane.entry = MODULE

    await story(site, plane, widen)


async def test_a_large_content_that_finds_no_space_is_refused_by_itself(site, small_disk):
    plane = await site.plane()
    await site.worker(plane.address, "w1")
    async with AsyncClient(plane.address) as merit:
        merit._asker._patience_s = 0.5  # there might be space again soon; not here
        with pytest.raises(MeritError, match=r"(?i)no space"):
            await merit.submit("measure", {"text": "x" * 10_000_000})
        assert await (await merit.submit("double", {"n": 2})).result(30) == 4
    assert await plane.stop() == 0
