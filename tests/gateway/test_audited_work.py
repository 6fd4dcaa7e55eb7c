"""From end to end: workers that do not do right, a policy, and a requester who gets right results all the same."""

import asyncio
import json
from contextlib import asynccontextmanager

import pytest

from merit import AsyncClient, Audit, LogAudit, Refused, ResultRule, TaskFailedError, WorkerProcess, capability, current
from merit.model.tasks import TaskState
from tests.gateway.foreign import COMPLETED, RUNNING, Foreign, info, planed, serving, status

pytestmark = pytest.mark.timeout(60)

RIGHT = ResultRule(name="right", expression="result == parameters.a + parameters.b", message="the sum is wrong")


def adding(wrong: bool):
    @capability(name="add")
    def add(a: int, b: int) -> int:
        current().log("info", "lies" if wrong else "adds")
        return a + b + wrong

    return add


@capability
def text(size: int) -> str:
    return "x" * size


@asynccontextmanager
async def working(plane, name, *capabilities):
    process = WorkerProcess(capabilities, plane.address, name=name)
    running = asyncio.create_task(process.run())
    try:
        yield
    finally:
        process.drain()
        await asyncio.wait_for(running, 15)


async def attempts(merit, task_id):
    return [(one["worker"], one["state"]) for one in (await merit.task(task_id))["attempts"]]


async def test_a_worker_that_is_wrong_gives_nobody_wrong_results(tmp_path):
    async with planed(tmp_path / "state") as plane, AsyncClient(plane.address) as merit:
        await merit.operations.fleet.set_audit("add", Audit(rules=[RIGHT]))
        async with working(plane, "liar", adding(True)), working(plane, "honest", adding(False)):
            handles = [await merit.submit("add", {"a": n, "b": 1}, attempts_max=20) for n in range(40)]
            results = await asyncio.gather(*(handle.result(30) for handle in handles))
            assert results == [n + 1 for n in range(40)]
            ends = {end for handle in handles for end in await attempts(merit, handle.id)}
            assert ends == {("honest", "COMPLETED"), ("liar", "REJECTED")}
            await merit.operations.fleet.set_audit("add", None)
            with pytest.raises(Refused):
                await merit.operations.fleet.audit("add")


async def test_the_reason_is_told_and_logs_count(tmp_path):
    async with planed(tmp_path / "state") as plane, AsyncClient(plane.address) as merit:
        audit = Audit(rules=[RIGHT], log=LogAudit(required=True, errors=["^lies$"]))
        await merit.operations.fleet.set_audit("add", audit)
        assert (await merit.operations.fleet.audit("add")).rules == (RIGHT,)
        async with working(plane, "liar", adding(True)):
            handle = await merit.submit("add", {"a": 1, "b": 1}, attempts_max=1)
            with pytest.raises(TaskFailedError, match=r"log: \^lies\$ is in a line of it: lies"):
                await handle.result(30)
            with pytest.raises(Refused, match=r"rules\[0\].expression: line 1, column 9"):
                await merit.operations.fleet.set_audit(
                    "add", Audit(rules=[ResultRule(name="bad", expression="result >")])
                )
            held = await merit.operations.fleet.audit("add")
            assert held.policy("add") == audit.policy("add"), "what was set before still holds"


async def test_large_results_are_read_for_it(tmp_path):
    async with planed(tmp_path / "state") as plane, AsyncClient(plane.address) as merit:
        rule = ResultRule(name="size", expression="size(result) == parameters.size && size(result) != 200000")
        await merit.operations.fleet.set_audit("text", Audit(rules=[rule]))
        async with working(plane, "w1", text):
            good = await merit.submit("text", {"size": 100_000})
            bad = await merit.submit("text", {"size": 200_000}, attempts_max=1)
            huge = await merit.submit("text", {"size": 5_000_000}, attempts_max=1)
            assert len(await good.result(30)) == 100_000
            with pytest.raises(TaskFailedError, match="size: it is not so"):
                await bad.result(30)
            with pytest.raises(TaskFailedError, match="too large to be checked here"):
                await huge.result(30)
            assert await attempts(merit, huge.id) == [("w1", "CANCELED")], "not the worker's fault"


class Liar(Foreign):
    """Right for those who say so."""

    async def run(self, task):
        yield status(task.task_id, RUNNING)
        said = {one.key: json.loads(one.value_json) for one in task.parameters}
        yield status(task.task_id, COMPLETED, output_json=json.dumps({"sum": said["a"]}))


async def test_workers_of_the_unary_contract_are_looked_at_as_well(tmp_path):
    async with planed(tmp_path / "state") as plane, AsyncClient(plane.address) as merit:
        rule = ResultRule(name="right", expression="result.sum > 0", message="must be above 0")
        await merit.operations.fleet.set_audit("work", Audit(rules=[rule]))
        async with serving(Liar()) as address:
            await plane.register(info(address))
            handles = [await merit.submit("work", {"a": n % 2}, attempts_max=1) for n in range(20)]
            ends = await asyncio.gather(*(handle.wait() for handle in handles))
            assert [end.state for end in ends] == [TaskState.DEAD, TaskState.COMPLETED] * 10
            with pytest.raises(TaskFailedError, match="right: must be above 0"):
                await handles[0].result(1)
