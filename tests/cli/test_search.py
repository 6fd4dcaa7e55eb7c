"""Lists whose pages are short, what may be missing from them, and alarms: as the command line tells of them."""

import asyncio
import json
import sys

import pytest

from merit.testing.builders import an_id
from merit.wire.v1 import tasks_pb2
from tests.merit_command import ROOT, environment
from tests.sdk.scripted_plane import a_scripted_plane

pytestmark = pytest.mark.timeout(60)


async def merit(address, *words):
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "merit",
        *words,
        "--server",
        address,
        cwd=ROOT,
        env=environment(),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await process.communicate()
    assert process.returncode == 0, err
    return out.decode(), err.decode()


def pages(*counts, lacking=""):
    """Pages with so many tasks each."""

    def page(request):
        place = int(request.cursor or 0)
        tasks = [
            tasks_pb2.Task(
                id=an_id(10 * place + number), capability="echo", state=tasks_pb2.TASK_STATE_DEAD, priority=2
            )
            for number in range(min(counts[place], request.limit))
        ]
        more = str(place + 1) if place + 1 < len(counts) else ""
        return tasks_pb2.ListTasksResponse(tasks=tasks, next_cursor=more, sequence=9, lacking=lacking)

    return page


async def test_short_pages_are_followed_until_there_is_enough():
    async with a_scripted_plane() as (plane, address):
        plane.answers["ListTasks"] = pages(0, 2, 0, 3, 5)
        out, err = await merit(
            address, "task", "list", "--limit", "4", "--text", "no such", "--at-least", "7", "--json"
        )
        document = json.loads(out)
        assert [task["id"] for task in document["tasks"]] == [an_id(number) for number in (10, 11, 30, 31)]
        assert (document["next_cursor"], document["sequence"], document["lacking"]) == ("4", 9, "")
        assert [request.limit for _, request, _ in plane.asked] == [4, 4, 2, 2]
        assert {(request.filter.text, request.at_least) for _, request, _ in plane.asked} == {("no such", 7)}
        assert err == ""
        out, err = await merit(address, "task", "list", "--all")
        assert out.count("echo") == 10
        plane.answers["ListTasks"] = pages(0, 0)
        assert json.loads((await merit(address, "task", "list", "--json"))[0])["tasks"] == []
        out, err = await merit(address, "task", "list", "--text", "x")
        assert (out, err) == ("", "merit: no tasks with --text x\n")


async def test_it_says_what_may_be_missing():
    async with a_scripted_plane() as (plane, address):
        plane.answers["ListTasks"] = pages(1, lacking="the last moments may be missing")
        out, err = await merit(address, "task", "list")
        assert out.count("echo") == 1
        assert err == "merit: the last moments may be missing\n"


async def test_what_is_lacking_on_any_page_is_lacking_in_the_list():
    async with a_scripted_plane() as (plane, address):
        answers = pages(2, 2, 1)

        def lag(request):
            answer = answers(request)
            place = int(request.cursor or 0)
            answer.sequence += place
            answer.lacking = ("", "the last moments may be missing", "")[place]
            return answer

        plane.answers["ListTasks"] = lag
        out, err = await merit(address, "task", "list", "--all", "--json")
        document = json.loads(out)
        assert [task["id"] for task in document["tasks"]] == [an_id(number) for number in (0, 1, 10, 11, 20)]
        assert (document["sequence"], document["next_cursor"]) == (9, "")
        assert document["lacking"] == "the last moments may be missing"
        assert err == "merit: the last moments may be missing\n"


async def test_alarms_stand_out():
    async with a_scripted_plane() as (plane, address):
        plane.answers["ListWorkers"] = lambda _: tasks_pb2.ListWorkersResponse()
        plane.answers["GetStatus"] = lambda _: tasks_pb2.Status(
            cell="cell-1",
            follower_sequence=5,
            follower_lag_ns=61_000_000_000,
            journal_first=3,
            alarms=["disk full", "b"],
        )
        out, _ = await merit(address, "status")
        assert "ALARM: disk full\nALARM: b" in out
        assert "follower lag s       61.0" in out
        view = json.loads((await merit(address, "status", "--json"))[0])
        assert (view["alarms"], view["journal_first"], view["follower"]) == (["disk full", "b"], 3, 5)
