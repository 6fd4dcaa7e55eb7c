"""What operators ask and order: filters and pages, queues, limits, tenants, dead letters, schedules."""

import grpc
import pytest
import pytest_asyncio

from merit.gateway import portions as portions_module
from merit.gateway import task_search
from merit.gateway.identity import TENANT_KEY
from merit.model.commands import PlanSchedule
from merit.model.limits import SECOND_NS
from merit.model.record import JournalError
from merit.model.rules import RuleKind
from merit.model.tasks import Demand, TaskState, Terms
from merit.testing.builders import a_spec, an_id, attach, say
from merit.wire.v1 import dead_letters_pb2, queues_pb2, schedules_pb2, tasks_pb2
from tests.gateway.hostile import CLIENT, new_id
from tests.gateway.operated import operated

Filter, Label = tasks_pb2.TaskFilter, tasks_pb2.Label
RED = ((TENANT_KEY, "red"),)


@pytest_asyncio.fixture
async def plane():
    async with operated() as guest:
        yield guest


@pytest.fixture
def in_small_portions(monkeypatch):
    monkeypatch.setattr(portions_module, "PORTION", 3)
    monkeypatch.setattr(task_search, "SELECTED_MAX", 5)
    monkeypatch.setattr(task_search, "SUBMIT_TASKS_MAX", 2)


async def refused(call, code, *words):
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await call
    details = raised.value.details() or ""
    assert raised.value.code() is code, details
    assert all(word in details for word in words), details


async def invalid(call, field, *words):
    await refused(call, grpc.StatusCode.INVALID_ARGUMENT, f"{field}: ", *words)


async def listed(plane, wanted=None, limit=1_000):
    """The numbers of all tasks that are listed, page after page."""
    cursor, numbers = "", []
    while True:
        request = tasks_pb2.ListTasksRequest(filter=wanted, limit=limit, cursor=cursor)
        page = await plane.tasks.ListTasks(request)
        assert len(page.tasks) <= limit
        numbers += [int(task.id[-12:], 16) for task in page.tasks]
        if not page.next_cursor:
            return numbers
        cursor = page.next_cursor


# Tasks


async def test_a_filter_finds_the_tasks_for_which_all_of_it_holds(plane, in_small_portions):
    cell = plane.cell
    attach(cell.machine, "w1", ("echo",), granted=1)
    cell.submit(
        a_spec(1, description="Counting SHEEP"),
        a_spec(2, "sum", terms=Terms(labels=(("team", "red"), ("size", "s")))),
        a_spec(3, "sum", terms=Terms(labels=(("team", "red"),), key="k")),
    )
    cell.machine.now_ns += SECOND_NS
    cell.submit(a_spec(4, "sum"), tenant="red")
    cell.kill(1, worker="w1")
    submitted_ns = cell.state.tasks[an_id(4)].submitted_ns
    for wanted, found in (
        (Filter(), [4, 3, 2, 1]),
        (Filter(states=[tasks_pb2.TASK_STATE_DEAD, tasks_pb2.TASK_STATE_RUNNING]), [1]),
        (Filter(states=[tasks_pb2.TASK_STATE_PENDING]), [4, 3, 2]),
        (Filter(capability="sum"), [4, 3, 2]),
        (Filter(tenant="red"), [4]),
        (Filter(labels=[Label(name="team", value="red")]), [3, 2]),
        (Filter(labels=[Label(name="team", value="red"), Label(name="size", value="s")]), [2]),
        (Filter(labels=[Label(name="team", value="blue")]), []),
        (Filter(text="sheep"), [1]),
        (Filter(text="WENT wrong"), [1]),
        (Filter(worker_id="w1"), [1]),
        (Filter(submitted_from_ns=submitted_ns), [4]),
        (Filter(submitted_to_ns=submitted_ns), [3, 2, 1]),
        (Filter(schedule="s"), []),
        (Filter(capability="sum", tenant="default"), [3, 2]),
    ):
        assert await listed(plane, wanted) == found, wanted
        assert await listed(plane, wanted, limit=1) == found, wanted


@pytest.mark.parametrize(
    ("wanted", "field"),
    [
        (Filter(capability="x" * 201), "filter.capability"),
        (Filter(text="x" * 2_001), "filter.text"),
        (Filter(text="-- !"), "filter.text"),
        (Filter(text="x " * 17), "filter.text: has 17 words, more than the 16 that one search may have"),
        (Filter(labels=[Label()]), "filter.labels.name"),
        (Filter(labels=[Label(name="n")] * 33), "filter.labels"),
        (Filter(submitted_from_ns=-1), "filter.submitted_from_ns"),
        (Filter(states=[tasks_pb2.TASK_STATE_UNSPECIFIED]), "filter.states"),
    ],
)
async def test_a_filter_that_cannot_be_is_refused(plane, wanted, field):
    await invalid(plane.tasks.ListTasks(tasks_pb2.ListTasksRequest(filter=wanted)), field)
    await invalid(plane.tasks.CancelTasks(tasks_pb2.CancelTasksRequest(filter=wanted)), field)
    await invalid(plane.dead.ListDead(dead_letters_pb2.ListDeadRequest(filter=wanted)), field)


async def test_a_task_is_shown_with_what_was_asked_for(plane):
    plane.cell.submit(
        a_spec(1),
        a_spec(2, after=[1], timeout_ns=7 * SECOND_NS, terms=Terms(inputs=(("n", an_id(1)),), labels=(("a", "b"),))),
    )
    task = await plane.tasks.GetTask(tasks_pb2.GetTaskRequest(id=an_id(2)))
    assert task.deadline_ns == task.submitted_ns + 7 * SECOND_NS
    assert [(entry.name, entry.task_id) for entry in task.terms.inputs] == [("n", an_id(1))]
    assert [(label.name, label.value) for label in task.terms.labels] == [("a", "b")]
    assert an_id(1) in task.why
    assert not (await plane.tasks.GetTask(tasks_pb2.GetTaskRequest(id=an_id(1)))).HasField("terms")


async def test_a_journal_that_cannot_be_read_is_said_to_be_so(plane):
    plane.old = JournalError("record 7 is damaged")
    call = plane.tasks.GetTask(tasks_pb2.GetTaskRequest(id=new_id()))
    await refused(call, grpc.StatusCode.UNAVAILABLE, "record 7 is damaged")


async def test_a_task_that_nobody_remembers_and_an_event_that_is_still_to_come_are_said_to_be_so(plane):
    await refused(
        plane.tasks.GetTask(tasks_pb2.GetTaskRequest(id=an_id(7))),
        grpc.StatusCode.NOT_FOUND,
        f"id: there is no task {an_id(7)} in this cell",
    )
    happened = plane.cell.state.sequence
    assert (await plane.tasks.ListTasks(tasks_pb2.ListTasksRequest(at_least=happened))).sequence == happened
    await refused(
        plane.tasks.ListTasks(tasks_pb2.ListTasksRequest(at_least=happened + 1)),
        grpc.StatusCode.FAILED_PRECONDITION,
        f"at_least: {happened + 1:,} was asked for, and in this cell nothing has happened after {happened:,} yet",
    )


async def test_cancel_by_filter_goes_through_all_in_several_calls(plane, in_small_portions):
    plane.cell.submit(*(a_spec(number) for number in range(1, 8)), a_spec(8, "sum"))
    plane.cell.submit(a_spec(9), tenant="red")
    request = tasks_pb2.CancelTasksRequest(filter=Filter(capability="echo"))
    first = await plane.tasks.CancelTasks(request)
    assert (list(first.canceled), first.more) == ([an_id(number) for number in range(1, 6)], True)
    second = await plane.tasks.CancelTasks(request)
    assert (list(second.canceled), second.more) == ([an_id(6), an_id(7)], False)
    assert not first.refusals
    assert not second.refusals
    assert await listed(plane, Filter(states=[tasks_pb2.TASK_STATE_PENDING])) == [
        9,
        8,
    ]  # another's, and another capability's
    both = tasks_pb2.CancelTasksRequest(filter=Filter(tenant="red", states=[tasks_pb2.TASK_STATE_PENDING]))
    assert list((await plane.tasks.CancelTasks(both)).canceled) == [an_id(9)]


async def test_an_order_names_tasks_or_has_a_filter_that_says_something(plane):
    plane.cell.submit(a_spec(1))
    cancel, retry, purge = plane.tasks.CancelTasks, plane.dead.RetryDead, plane.dead.PurgeDead
    for call, request in (
        (cancel, tasks_pb2.CancelTasksRequest),
        (retry, dead_letters_pb2.RetryDeadRequest),
        (purge, dead_letters_pb2.PurgeDeadRequest),
    ):
        await invalid(call(request()), "ids")
        await invalid(call(request(filter=Filter())), "filter", "to mean all, name the states")
        await invalid(call(request(ids=[an_id(1)], filter=Filter(text="x"))), "ids")
    assert not plane.cell.commands


async def test_a_cell_that_has_stopped_is_unavailable(plane):
    plane.cell.stopped = "the disk is full"
    call = plane.queues.PauseQueue(queues_pb2.PauseQueueRequest(capability="echo"))
    await refused(call, grpc.StatusCode.UNAVAILABLE, "the disk is full")


# Tenants


async def test_orders_are_for_the_tenant_that_the_metadata_names(plane):
    plane.cell.submit(a_spec(1), tenant="red")
    mine = await plane.tasks.CancelTasks(tasks_pb2.CancelTasksRequest(ids=[an_id(1)]))
    assert [refusal.code for refusal in mine.refusals] == ["not_found"]
    theirs = await plane.tasks.CancelTasks(tasks_pb2.CancelTasksRequest(ids=[an_id(1)]), metadata=RED)
    assert list(theirs.canceled) == [an_id(1)]


@pytest.mark.parametrize("metadata", [((TENANT_KEY, ""),), ((TENANT_KEY, "x" * 201),), (*RED, *RED)])
async def test_a_name_that_no_tenant_can_have_ends_the_call_or_the_stream(plane, metadata):
    await invalid(plane.tasks.CancelTasks(tasks_pb2.CancelTasksRequest(ids=[an_id(1)]), metadata=metadata), TENANT_KEY)
    # Nothing is written: the stream may be over before that.
    call = plane.peer.channel.stream_stream(CLIENT)(metadata=metadata)
    frame = tasks_pb2.ServerFrame.FromString(await call.read())
    assert frame.refused.startswith(f"{TENANT_KEY}: ")
    assert frame.permanent


async def test_tenants_are_set_and_listed_with_what_they_have(plane):
    plane.cell.submit(a_spec(1), a_spec(2))
    await plane.queues.SetTenant(
        queues_pb2.SetTenantRequest(tenant=queues_pb2.Tenant(name="red", weight=3, live_max=10))
    )
    tenants = (await plane.queues.ListTenants(queues_pb2.ListTenantsRequest())).tenants
    assert [(tenant.name, tenant.weight, tenant.live_max, tenant.live) for tenant in tenants] == [
        ("default", 1, 0, 2),
        ("red", 3, 10, 0),
    ]
    for tenant, field in (
        (queues_pb2.Tenant(), "tenant.name"),
        (queues_pb2.Tenant(name=" red"), "tenant.name"),
        (queues_pb2.Tenant(name="röd"), "tenant.name"),
        (queues_pb2.Tenant(name="red", weight=1_001), "tenant.weight"),
        (queues_pb2.Tenant(name="red", live_max=2**60), "tenant.live_max"),
    ):
        await invalid(plane.queues.SetTenant(queues_pb2.SetTenantRequest(tenant=tenant)), field)


# Queues and limits


async def test_a_queue_is_shown_with_all_that_bears_on_it(plane, in_small_portions):
    cell = plane.cell
    attach(cell.machine, "w1", ("echo", "sum"), granted=2)
    attach(cell.machine, "w2", ("echo",), granted=0)
    attach(cell.machine, "w3", ("echo",), granted=0)
    say(cell.machine, "w3", draining=True)
    cell.submit(*(a_spec(number) for number in range(1, 6)))
    cell.submit(a_spec(6), a_spec(7, "unoffered"), tenant="red")
    cell.kill(worker="w1")
    rule = queues_pb2.Rule(kind=queues_pb2.RULE_KIND_CAPABILITY, name="echo", concurrency=9)
    await plane.queues.SetRule(queues_pb2.SetRuleRequest(rule=rule))
    await plane.queues.PauseQueue(queues_pb2.PauseQueueRequest(capability="echo", reason="the upstream is down"))
    queue = await plane.queues.GetQueue(queues_pb2.GetQueueRequest(capability="echo"))
    assert (queue.pending, queue.running, queue.workers) == (4, 2, 2)
    assert (queue.paused, queue.pause_reason) == (True, "the upstream is down")
    assert queue.oldest_age_ns > 0
    assert [(entry.kind, entry.concurrency) for entry in queue.rules] == [(RuleKind.CAPABILITY, 9)]
    assert sum(entry.running for entry in queue.tenants) == 2
    assert sum(entry.pending for entry in queue.tenants) == 4
    assert [entry.tenant for entry in queue.tenants] == ["default", "red"]

    page = await plane.queues.ListQueues(queues_pb2.ListQueuesRequest(limit=2))
    assert [(entry.capability, entry.pending, entry.running) for entry in page.queues] == [
        ("echo", 4, 2),
        ("sum", 0, 0),
    ]
    rest = await plane.queues.ListQueues(queues_pb2.ListQueuesRequest(limit=2, cursor=page.next_cursor))
    assert [(entry.capability, entry.pending, entry.workers) for entry in rest.queues] == [("unoffered", 1, 0)]
    assert not rest.next_cursor


async def test_a_queue_that_nobody_knows(plane):
    call = plane.queues.GetQueue(queues_pb2.GetQueueRequest(capability="nothing"))
    await refused(call, grpc.StatusCode.NOT_FOUND, "capability: ")
    await invalid(plane.queues.GetQueue(queues_pb2.GetQueueRequest()), "capability")
    await invalid(plane.queues.PauseQueue(queues_pb2.PauseQueueRequest()), "capability")
    await invalid(plane.queues.PauseQueue(queues_pb2.PauseQueueRequest(capability="c", reason="x" * 2_001)), "reason")
    call = plane.queues.ResumeQueue(queues_pb2.ResumeQueueRequest(capability="nothing"))
    await refused(call, grpc.StatusCode.FAILED_PRECONDITION, "not paused")


async def test_a_queue_is_paused_and_resumed(plane):
    await plane.queues.PauseQueue(queues_pb2.PauseQueueRequest(capability="later", reason="r"))
    assert plane.cell.state.paused == {"later": "r"}
    await plane.queues.ResumeQueue(queues_pb2.ResumeQueueRequest(capability="later"))
    assert plane.cell.state.paused == {}


async def test_limits_are_set_listed_and_ended(plane):
    some = [
        queues_pb2.Rule(kind=queues_pb2.RULE_KIND_TENANT, name="red", rate_millihz=500, burst=2),
        queues_pb2.Rule(kind=queues_pb2.RULE_KIND_CAPABILITY, name="echo", concurrency=3, burst=1),
        queues_pb2.Rule(kind=queues_pb2.RULE_KIND_KEY, name="echo", concurrency=1, burst=1),
    ]
    for rule in some:
        await plane.queues.SetRule(queues_pb2.SetRuleRequest(rule=rule))
    assert list((await plane.queues.ListRules(queues_pb2.ListRulesRequest())).rules) == [some[1], some[0], some[2]]
    await plane.queues.SetRule(
        queues_pb2.SetRuleRequest(rule=queues_pb2.Rule(kind=queues_pb2.RULE_KIND_CAPABILITY, name="echo"))
    )
    assert list((await plane.queues.ListRules(queues_pb2.ListRulesRequest())).rules) == [some[0], some[2]]
    for rule, field in (
        (queues_pb2.Rule(name="echo"), "rule.kind"),
        (queues_pb2.Rule(kind=queues_pb2.RULE_KIND_KEY), "rule.name"),
        (queues_pb2.Rule(kind=queues_pb2.RULE_KIND_TENANT, name="röd"), "rule.name"),
        (queues_pb2.Rule(kind=queues_pb2.RULE_KIND_KEY, name="echo", concurrency=2**32 - 1), "rule.concurrency"),
        (queues_pb2.Rule(kind=queues_pb2.RULE_KIND_KEY, name="echo", rate_millihz=2**63), "rule.rate_millihz"),
        (queues_pb2.Rule(kind=queues_pb2.RULE_KIND_KEY, name="echo", burst=2**32 - 1), "rule.burst"),
    ):
        await invalid(plane.queues.SetRule(queues_pb2.SetRuleRequest(rule=rule)), field)


# Dead letters


async def dead_numbers(plane, limit=1_000, wanted=None):
    cursor, numbers = "", []
    while True:
        request = dead_letters_pb2.ListDeadRequest(filter=wanted, limit=limit, cursor=cursor)
        page = await plane.dead.ListDead(request)
        numbers += [int(task.id[-12:], 16) for task in page.tasks]
        assert all(task.dead_letter and task.attempts[0].failure.message for task in page.tasks)
        if not page.next_cursor:
            return numbers
        cursor = page.next_cursor


async def test_dead_letters_are_listed_by_when_they_died(plane, in_small_portions):
    plane.cell.submit(*(a_spec(number) for number in range(1, 9)))
    plane.cell.kill(7, 2)
    plane.cell.kill(5, 1, 8)
    plane.cell.kill(4)
    expected = [4, 8, 5, 1, 7, 2]
    assert await dead_numbers(plane) == expected
    assert await dead_numbers(plane, limit=1) == expected
    assert await dead_numbers(plane, limit=2) == expected
    assert await dead_numbers(plane, wanted=Filter(text="went wrong", worker_id="reaper")) == expected
    assert await dead_numbers(plane, wanted=Filter(text="something else")) == []
    for cursor in ("x", "1", "1-", "-1-1", "9" * 30 + "-1"):
        await invalid(plane.dead.ListDead(dead_letters_pb2.ListDeadRequest(cursor=cursor)), "cursor")


async def test_dead_letters_are_retried_by_new_tasks_that_name_them(plane):
    plane.cell.submit(a_spec(1), a_spec(2))
    plane.cell.kill(1)
    done = await plane.dead.RetryDead(dead_letters_pb2.RetryDeadRequest(ids=[an_id(1), an_id(2), "x", an_id(1)]))
    assert [(refusal.task_id, refusal.code) for refusal in done.refusals] == [("x", "invalid"), (an_id(2), "not_found")]
    (retried,) = done.retried
    assert retried.dead_id == an_id(1)
    new = await plane.tasks.GetTask(tasks_pb2.GetTaskRequest(id=retried.task_id))
    assert new.terms.origin == an_id(1)
    old = await plane.tasks.GetTask(tasks_pb2.GetTaskRequest(id=an_id(1)))
    assert (old.state, old.dead_letter, old.successor_id) == (TaskState.DEAD, False, new.id)
    assert await dead_numbers(plane) == []


async def test_dead_letters_are_retried_and_purged_by_filter(plane, in_small_portions):
    plane.cell.submit(*(a_spec(number, description="odd" if number % 2 else "even") for number in range(1, 15)))
    plane.cell.submit(a_spec(15, description="odd"), tenant="red")
    plane.cell.kill(*range(1, 16))
    retry = dead_letters_pb2.RetryDeadRequest(filter=Filter(text="odd"))
    first, second = await plane.dead.RetryDead(retry), await plane.dead.RetryDead(retry)
    assert (len(first.retried), first.more, len(second.retried), second.more) == (5, True, 2, False)
    purge = dead_letters_pb2.PurgeDeadRequest(filter=Filter(states=[tasks_pb2.TASK_STATE_DEAD]))
    gone, rest = await plane.dead.PurgeDead(purge), await plane.dead.PurgeDead(purge)
    assert (len(gone.purged), gone.more, len(rest.purged), rest.more) == (5, True, 2, False)
    assert await dead_numbers(plane) == [15]  # of another tenant
    assert list(gone.purged) == [an_id(number) for number in (2, 4, 6, 8, 10)]
    again = await plane.dead.PurgeDead(dead_letters_pb2.PurgeDeadRequest(ids=[an_id(2)]))
    assert [refusal.code for refusal in again.refusals] == ["not_found"]


async def test_when_there_is_no_room_for_more_the_rest_stays_dead(plane, in_small_portions):
    plane.cell.submit(*(a_spec(number) for number in range(1, 6)))
    plane.cell.kill(*range(1, 6))
    await plane.queues.SetTenant(queues_pb2.SetTenantRequest(tenant=queues_pb2.Tenant(name="default", live_max=3)))
    done = await plane.dead.RetryDead(
        dead_letters_pb2.RetryDeadRequest(filter=Filter(states=[tasks_pb2.TASK_STATE_DEAD]))
    )
    assert len(done.retried) == 3
    assert {refusal.code for refusal in done.refusals} == {"exhausted"}
    assert len(await dead_numbers(plane)) == 2


# Schedules


def a_schedule(**fields):
    template = tasks_pb2.TaskSpec(capability="echo", parameters=b"{}")
    return schedules_pb2.Schedule(**{"name": "nightly", "cron": "0 3 * * *", "template": template, **fields})


async def set_schedule(plane, schedule, **call):
    return await plane.schedules.SetSchedule(schedules_pb2.SetScheduleRequest(schedule=schedule), **call)


async def test_what_a_schedule_asks_of_workers_is_kept_in_one_spelling(plane):
    schedule = a_schedule()
    schedule.template.terms.demand.versions = "< 2, >=1.0"
    await set_schedule(plane, schedule)
    terms = plane.cell.state.schedules["nightly"].schedule.template.terms
    assert terms.demand == Demand(versions=">=1.0,<2")


async def test_a_schedule_is_set_listed_run_and_removed(plane):
    answer = await set_schedule(plane, a_schedule(zone="Europe/Berlin"))
    assert len(answer.next_ns) == 4
    assert list(answer.next_ns) == sorted(answer.next_ns)
    planned = plane.cell.state.schedules["nightly"]
    command = PlanSchedule(
        "default", "planner", "nightly", "0 3 * * *", "Europe/Berlin", planned.since_ns, tuple(answer.next_ns)
    )
    await plane.cell.command(command)
    run = await plane.schedules.RunSchedule(schedules_pb2.RunScheduleRequest(name="nightly"))
    made = await plane.tasks.GetTask(tasks_pb2.GetTaskRequest(id=run.task_id))
    assert made.terms.schedule == "nightly"
    assert await listed(plane, Filter(schedule="nightly"))
    call = plane.schedules.RunSchedule(schedules_pb2.RunScheduleRequest(name="nightly"))
    await refused(call, grpc.StatusCode.FAILED_PRECONDITION, "is not final")  # it overlaps
    await set_schedule(plane, a_schedule(name="hourly", cron="0 * * * *", paused=True), metadata=RED)
    page = await plane.schedules.ListSchedules(schedules_pb2.ListSchedulesRequest(limit=1))
    assert [(entry.schedule.name, entry.schedule.tenant, entry.schedule.paused) for entry in page.schedules] == [
        ("hourly", "red", True)
    ]
    rest = await plane.schedules.ListSchedules(schedules_pb2.ListSchedulesRequest(limit=1, cursor=page.next_cursor))
    (entry,) = rest.schedules
    assert not rest.next_cursor
    assert (entry.schedule.name, entry.schedule.zone, entry.schedule.missed) == (
        "nightly",
        "Europe/Berlin",
        schedules_pb2.MISSED_ONE,
    )
    assert (entry.last_task_id, entry.made, list(entry.next_ns)) == (run.task_id, 1, list(answer.next_ns))
    await plane.schedules.RemoveSchedule(schedules_pb2.RemoveScheduleRequest(name="nightly"))
    call = plane.schedules.RunSchedule(schedules_pb2.RunScheduleRequest(name="nightly"))
    await refused(call, grpc.StatusCode.NOT_FOUND, "name: ")


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"name": ""}, "schedule.name"),
        ({"name": "x" * 201}, "schedule.name"),
        ({"cron": "61 * * * *"}, "schedule.cron"),
        ({"cron": "0 0 30 2 *"}, "schedule.cron"),
        ({"zone": "Nowhere"}, "schedule.zone"),
        ({"tenant": "red"}, "schedule.tenant"),
        ({"template": tasks_pb2.TaskSpec(parameters=b"{}")}, "schedule.template.capability"),
        ({"template": tasks_pb2.TaskSpec(capability="c", parameters=b"[]")}, "schedule.template.parameters"),
        (
            {"template": tasks_pb2.TaskSpec(capability="c", parameters=b"{}", after=[an_id(1)])},
            "schedule.template.after",
        ),
        ({"template": tasks_pb2.TaskSpec(capability="c", priority=9)}, "tasks.priority"),
    ],
)
async def test_a_schedule_that_cannot_be_is_refused_by_field(plane, fields, field):
    await invalid(set_schedule(plane, a_schedule(**fields)), field)
    assert not plane.cell.state.schedules
