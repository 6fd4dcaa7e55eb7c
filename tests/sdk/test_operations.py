"""What operators ask and order, as it goes over the wire, and what comes back."""

import asyncio
from datetime import UTC, datetime
from typing import Any

import grpc
import pytest
import pytest_asyncio

from merit import AsyncClient, Client, Refused, TaskRequest
from merit.sdk.operations import Where
from merit.sdk.results import MeritError, Unreachable
from merit.sdk.views import schedule_view, task_view
from merit.wire.v1 import dead_letters_pb2, queues_pb2, schedules_pb2, tasks_pb2
from tests.sdk.scripted_plane import ScriptedPlane, a_scripted_plane

pytestmark = pytest.mark.timeout(30)
NEW_YEAR = datetime(2030, 1, 1, tzinfo=UTC)
NEW_YEAR_NS = int(NEW_YEAR.timestamp()) * 10**9


@pytest_asyncio.fixture
async def scripted():
    async with a_scripted_plane() as (plane, address):
        yield plane, address


def asked(plane: ScriptedPlane, call: str) -> Any:
    """The last question of this name."""
    return [request for name, request, _ in plane.asked if name == call][-1]


async def test_tasks_are_found_by_all_that_a_filter_knows(scripted):
    plane, address = scripted
    task = tasks_pb2.Task(
        id="i", state=tasks_pb2.TASK_STATE_RUNNING, priority=2, dead_letter=True, deadline_ns=NEW_YEAR_NS
    )
    task.attempts.add(number=1, progress=-1)
    task.terms.labels.add(name="a", value="b")
    task.terms.retry.lost = 0
    task.terms.not_safe_to_repeat = True
    plane.answers["ListTasks"] = lambda _: tasks_pb2.ListTasksResponse(
        tasks=[task], next_cursor="n", sequence=7, lacking="the last moments"
    )
    where = Where(
        states=["running", "DEAD"],
        capability="c",
        tenant="t",
        labels={"a": "b"},
        text="x",
        submitted_from=NEW_YEAR,
        submitted_to=NEW_YEAR,
        schedule="s",
        worker="w",
    )
    async with AsyncClient(address) as merit:
        page = await merit.tasks(where=where, limit=5, at_least=6)
        assert (page.sequence, page.lacking) == (7, "the last moments")
        assert asked(plane, "ListTasks").at_least == 6
        with pytest.raises(ValueError, match="at_least"):
            await merit.tasks(at_least=-1)
        message = asked(plane, "ListTasks").filter
        assert list(message.states) == [4, 6]
        assert [(label.name, label.value) for label in message.labels] == [("a", "b")]
        assert message.submitted_from_ns == message.submitted_to_ns == NEW_YEAR_NS
        assert (message.capability, message.tenant, message.text) == ("c", "t", "x")
        assert (message.schedule, message.worker_id) == ("s", "w")
        (view,) = page.tasks
        assert view["terms"] == {"labels": {"a": "b"}, "retry": {"lost": 0}, "safe_to_repeat": False}
        assert view["deadline"] == "2030-01-01T00:00:00.000Z"
        assert view["attempts"][0]["progress"] is None
        assert page.next_cursor == "n"
        await merit.tasks(state="WAITING", capability="d", where=where)
        message = asked(plane, "ListTasks").filter
        assert (list(message.states), message.capability, message.text) == ([1], "d", "x")
        for field, bad in (
            ("state", Where(states=["busy"])),
            ("text", Where(text="\ud800")),
            ("submitted_from", Where(submitted_from=datetime(2030, 1, 1))),  # noqa: DTZ001
        ):
            with pytest.raises(ValueError, match=f"^{field}: "):
                await merit.tasks(where=bad)
    assert task_view(tasks_pb2.Task(priority=2))["terms"] == {}


async def test_an_order_by_filter_goes_on_until_all_are_dealt_with(scripted):
    plane, address = scripted
    left = [["a", "b"], ["c"]]

    def canceled(_request):
        return tasks_pb2.CancelTasksResponse(canceled=left.pop(0), more=bool(left))

    plane.answers["CancelTasks"] = canceled
    rounds = [("a", "n"), ("b", "m")]

    def retried(_request):
        dead, new = rounds.pop(0)
        answer = dead_letters_pb2.RetryDeadResponse(more=bool(rounds))
        answer.retried.add(dead_id=dead, task_id=new)
        answer.refusals.add(task_id=dead, code="not_found", field="id", reason="gone")
        return answer

    plane.answers["RetryDead"] = retried
    plane.answers["PurgeDead"] = lambda _: dead_letters_pb2.PurgeDeadResponse(purged=["a"], more=False)
    async with AsyncClient(address, tenant="them") as merit:
        assert await merit.operations.cancel(Where(states=["PENDING"]), "enough") == 3
        assert asked(plane, "CancelTasks").reason == "enough"
        outcome = await merit.operations.retry_dead(where=Where(text="x"))
        assert outcome.pairs == [("a", "n"), ("b", "m")]
        assert [refusal.reason for refusal in outcome.refusals] == ["gone", "gone"]
        assert (await merit.operations.purge_dead(["a"])).tasks == ["a"]
        assert list(asked(plane, "PurgeDead").ids) == ["a"]
        assert not asked(plane, "PurgeDead").HasField("filter")
        for order in (merit.operations.purge_dead(), merit.operations.purge_dead(["a"], Where())):
            with pytest.raises(ValueError, match=r"^ids: "):
                await order
    assert {said for _, _, said in plane.asked} == {"them"}


async def test_queues_limits_and_tenants_are_seen_and_set(scripted):
    plane, address = scripted
    queue = queues_pb2.Queue(capability="c", pending=3, running=1, workers=2, oldest_age_ns=1_500_000_000)
    queue.rules.add(kind=queues_pb2.RULE_KIND_CAPABILITY, name="c", rate_millihz=500)
    queue.tenants.add(tenant="t", pending=3)
    plane.answers |= {
        "ListQueues": lambda request: queues_pb2.ListQueuesResponse(
            queues=[queue], next_cursor="" if request.cursor else "n"
        ),
        "GetQueue": lambda _: queue,
        "PauseQueue": lambda _: queues_pb2.PauseQueueResponse(),
        "ResumeQueue": lambda _: queues_pb2.ResumeQueueResponse(),
        "SetRule": lambda _: queues_pb2.SetRuleResponse(),
        "ListRules": lambda _: queues_pb2.ListRulesResponse(rules=queue.rules),
        "SetTenant": lambda _: queues_pb2.SetTenantResponse(),
        "ListTenants": lambda _: queues_pb2.ListTenantsResponse(tenants=[queues_pb2.Tenant(name="t", weight=3)]),
    }
    rule = {"kind": "CAPABILITY", "name": "c", "concurrency": None, "rate_hz": 0.5, "burst": 1}
    async with AsyncClient(address) as merit:
        operations = merit.operations
        assert [one["capability"] for one in await operations.queues()] == ["c", "c"], "both pages"
        assert await operations.queue("c") == {
            "capability": "c",
            "pending": 3,
            "running": 1,
            "auditing": 0,
            "workers": 2,
            "paused": False,
            "pause_reason": "",
            "oldest_age_s": 1.5,
            "rules": [rule],
            "tenants": [{"tenant": "t", "pending": 3, "running": 0}],
        }
        await operations.pause_queue("c", "why")
        assert asked(plane, "PauseQueue").reason == "why"
        await operations.resume_queue("c")
        await operations.set_rule("key", "c", concurrency=2, rate_hz=0.25, burst=3)
        sent = asked(plane, "SetRule").rule
        assert (sent.kind, sent.name, sent.concurrency, sent.rate_millihz, sent.burst) == (3, "c", 2, 250, 3)
        assert await operations.rules() == [rule]
        await operations.set_tenant("t", weight=3, live_max=5)
        assert (asked(plane, "SetTenant").tenant.weight, asked(plane, "SetTenant").tenant.live_max) == (3, 5)
        assert await operations.tenants() == [{"tenant": "t", "weight": 3, "live_max": None, "live": 0}]
        for field, order in (
            ("kind", operations.set_rule("worker", "c")),
            ("concurrency", operations.set_rule("key", "c", concurrency=-1)),
            ("rate_hz", operations.set_rule("key", "c", rate_hz=0.0001)),
            ("rate_hz", operations.set_rule("key", "c", rate_hz=-1)),
            ("rate_hz", operations.set_rule("key", "c", rate_hz=float("inf"))),
            ("weight", operations.set_tenant("t", weight=2**40)),
        ):
            with pytest.raises(ValueError, match=f"^{field}: "):
                await order


async def test_schedules_are_set_seen_run_and_removed(scripted):
    plane, address = scripted
    plane.answers |= {
        "SetSchedule": lambda _: schedules_pb2.SetScheduleResponse(next_ns=[NEW_YEAR_NS]),
        "RemoveSchedule": lambda _: schedules_pb2.RemoveScheduleResponse(),
        "RunSchedule": lambda _: schedules_pb2.RunScheduleResponse(task_id="i"),
        "ListSchedules": lambda _: schedules_pb2.ListSchedulesResponse(
            schedules=[
                schedules_pb2.PlannedSchedule(schedule=asked(plane, "SetSchedule").schedule, next_ns=[NEW_YEAR_NS])
            ]
        ),
    }
    request = TaskRequest(capability="c", parameters={"n": 1}, key="k", timeout_s=5)
    async with AsyncClient(address, tenant="them") as merit:
        operations = merit.operations
        due = await operations.set_schedule("s", "0 9 * * 1", request, zone="Europe/Berlin", missed="skip", paused=True)
        assert due == ["2030-01-01T00:00:00.000Z"]
        sent = asked(plane, "SetSchedule").schedule
        assert (sent.missed, sent.overlap, sent.tenant, sent.template.id) == (1, 1, "them", "")
        assert (sent.template.terms.key, sent.template.timeout_ns) == ("k", 5_000_000_000)
        (view,) = await operations.schedules()
        assert (view["name"], view["parameters"], view["missed"], view["next"]) == ("s", {"n": 1}, "SKIP", due)
        await operations.remove_schedule("s")
        assert await operations.run_schedule("s") == "i"
        with pytest.raises(ValueError, match=r"^request.delay_s: "):
            await operations.set_schedule("s", "* * * * *", TaskRequest(capability="c", delay_s=1))
        with pytest.raises(ValueError, match=r"^overlap: "):
            await operations.set_schedule("s", "* * * * *", request, overlap="both")
    assert schedule_view(schedules_pb2.PlannedSchedule())["zone"] == "UTC"


async def test_what_an_order_comes_to_is_told(scripted):
    plane, address = scripted
    refuse: tuple[grpc.StatusCode, str] = (grpc.StatusCode.NOT_FOUND, "name: there is no schedule s")
    plane.answers["RunSchedule"] = lambda _: refuse
    async with AsyncClient(address, connect_timeout_s=1) as merit:
        with pytest.raises(Refused, match="name: there is no schedule s") as raised:
            await merit.operations.run_schedule("s")
        assert raised.value.refusal.field == "name"
        refuse = (grpc.StatusCode.UNAVAILABLE, "it stops")
        plane.asked.clear()
        with pytest.raises(Unreachable, match="it stops"):
            await merit.operations.run_schedule("s")
        assert len(plane.asked) == 1, "whether it was carried out is not known, so it is not given again"
        refuse = (grpc.StatusCode.UNIMPLEMENTED, "no such method")
        with pytest.raises(MeritError, match="older than this client"):
            await merit.operations.run_schedule("s")


async def test_programs_without_a_loop_have_all_of_it(scripted):
    plane, address = scripted
    plane.answers |= {
        "ListQueues": lambda _: queues_pb2.ListQueuesResponse(),
        "ListRules": lambda _: queues_pb2.ListRulesResponse(),
        "ListTenants": lambda _: queues_pb2.ListTenantsResponse(),
        "GetQueue": lambda _: queues_pb2.Queue(capability="c"),
        "PauseQueue": lambda _: queues_pb2.PauseQueueResponse(),
        "ResumeQueue": lambda _: queues_pb2.ResumeQueueResponse(),
        "SetRule": lambda _: queues_pb2.SetRuleResponse(),
        "SetTenant": lambda _: queues_pb2.SetTenantResponse(),
        "ListTasks": lambda _: tasks_pb2.ListTasksResponse(),
        "CancelTasks": lambda _: tasks_pb2.CancelTasksResponse(canceled=["a"]),
        "ListDead": lambda _: tasks_pb2.ListTasksResponse(),
        "RetryDead": lambda _: dead_letters_pb2.RetryDeadResponse(),
        "PurgeDead": lambda _: dead_letters_pb2.PurgeDeadResponse(),
        "SetSchedule": lambda _: schedules_pb2.SetScheduleResponse(),
        "ListSchedules": lambda _: schedules_pb2.ListSchedulesResponse(),
        "RemoveSchedule": lambda _: schedules_pb2.RemoveScheduleResponse(),
        "RunSchedule": lambda _: schedules_pb2.RunScheduleResponse(task_id="i"),
    }

    def work() -> None:
        with Client(address) as merit:
            operations = merit.operations
            assert operations.queues() == operations.rules() == operations.tenants() == operations.schedules() == []
            assert operations.queue("c")["capability"] == "c"
            operations.pause_queue("c", "why")
            operations.resume_queue("c")
            operations.set_rule("tenant", "t", concurrency=1)
            operations.set_tenant("t", weight=2)
            assert merit.tasks(state="DEAD").tasks == operations.tasks(Where()).tasks == operations.dead().tasks == []
            assert operations.cancel(Where(capability="c")) == 1
            assert operations.retry_dead(["a"]).pairs == []
            assert operations.purge_dead(["a"]).tasks == []
            assert operations.set_schedule("s", "* * * * *", TaskRequest(capability="c")) == []
            operations.remove_schedule("s")
            assert operations.run_schedule("s") == "i"

    await asyncio.to_thread(work)
    assert {name for name, _, _ in plane.asked} == set(plane.answers)
