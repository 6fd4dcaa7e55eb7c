"""The control plane's side of the process that evaluates rules and runs auditors: it is started when it is needed, and killed
when a check takes too long or too much. So whatever a check does, the cell goes on."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from asyncio.subprocess import Process
from collections.abc import AsyncIterator, Sequence
from typing import Final

import msgspec

from merit.gateway.audit_items import LENGTH, AuditBatch, AuditItem, PolicyProblem, brief
from merit.model.auditing import AuditPolicy, Finding
from merit.pools.tether import tethered

log = logging.getLogger("merit")

CHECK_S: Final = 1.0
"""How long the checks of one result may take."""
START_S: Final = 10.0
"""How long the process may take to answer at first: on a machine that is busy."""

_END_S: Final = 1.0
"""How long one that says nothing more may take to end, so that it is known how it did."""

_Findings = tuple[Finding, ...]


class CannotAudit(Exception):
    """The process cannot be had, or has ended; the message says why."""


def broken(reason: str) -> _Findings:
    """Nothing is known about a result."""
    return (Finding("audit", False, brief(reason), broken=True),)


NO_TIME: Final = broken("there was no time left to check it")


class AuditingProcess:
    """Asks the process, one batch at a time. ``close`` it.

    Args:
        command: what is run; it speaks as ``merit.app.audit_reports`` does.
    """

    def __init__(self, command: Sequence[str]) -> None:
        self._command = command
        self._process: Process | None = None
        self._turn = asyncio.Lock()

    async def problem(self, policy: AuditPolicy) -> PolicyProblem:
        """Why a policy cannot be carried out, if it cannot.

        Raises:
            CannotAudit: that cannot be told.
        """
        async with self._turn, self._whole():
            return await self._begin(policy, ())

    async def findings(self, policy: AuditPolicy, items: Sequence[AuditItem], until_s: float) -> list[_Findings]:
        """What the checks say of each item, in their order; what could not be checked is broken.

        Args:
            policy: of which rules and auditors are meant.
            items: of one capability.
            until_s: when to give up, on the loop's clock.
        """
        found: list[_Findings] = []
        clock = asyncio.get_running_loop().time
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout_at(until_s):
                await self._turn.acquire()
            try:
                while len(found) < len(items) and clock() < until_s:
                    await self._some(policy, tuple(items[len(found) :]), found)
            finally:
                self._turn.release()
        return found + [NO_TIME] * (len(items) - len(found))

    async def close(self) -> None:
        """End the process."""
        await self._kill()

    async def _some(self, policy: AuditPolicy, items: tuple[AuditItem, ...], found: list[_Findings]) -> None:
        """Have items checked, up to the one of which the process has to be killed, or dies."""
        begun = False
        try:
            async with self._whole():
                problem = await self._begin(policy, items)
                if problem.reason:
                    # It could be carried out when it was set: since then something was uninstalled.
                    reason = f"the policy cannot be carried out: {problem.field}: {problem.reason}"
                    found += [broken(reason)] * len(items)
                    return
                begun = True
                for _ in items:
                    found.append(msgspec.msgpack.decode(await self._hear(CHECK_S), type=_Findings))
        except CannotAudit as error:
            found += [broken(str(error))] * (1 if begun else len(items))

    @contextlib.asynccontextmanager
    async def _whole(self) -> AsyncIterator[None]:
        """What is said and heard within it belongs together: when it is cut short, the process is not to be used again."""
        try:
            yield
        except TimeoutError:
            await self._kill()
            raise CannotAudit("the check took too long") from None
        except (OSError, asyncio.IncompleteReadError) as error:
            how = await self._kill()
            log.error("the process that checks results %s (%s); another one takes its place", how, error)
            raise CannotAudit(f"the process that checks results {how}") from None
        except BaseException:
            await self._kill()
            raise

    async def _begin(self, policy: AuditPolicy, items: tuple[AuditItem, ...]) -> PolicyProblem:
        if self._process is None:
            self._process = await asyncio.create_subprocess_exec(
                *self._command,
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                env=tethered(),
            )
        assert self._process.stdin is not None
        asked = AuditPolicy(policy.capability, rules=policy.rules, auditors=policy.auditors)
        data = msgspec.msgpack.encode(AuditBatch(asked, items))
        self._process.stdin.write(LENGTH.pack(len(data)) + data)
        # Not drained: it reads a batch in full before it answers, and there is never more than one.
        return msgspec.msgpack.decode(await self._hear(START_S), type=PolicyProblem)

    async def _hear(self, timeout_s: float) -> bytes:
        assert self._process is not None
        assert self._process.stdout is not None
        async with asyncio.timeout(timeout_s):
            (length,) = LENGTH.unpack(await self._process.stdout.readexactly(LENGTH.size))
            return await self._process.stdout.readexactly(length)

    async def _kill(self) -> str:
        """How it has ended, as a predicate."""
        process, self._process = self._process, None
        if process is None:
            return "cannot be started"
        code = process.returncode
        if code is None and process.stdout is not None and process.stdout.at_eof():
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_END_S):
                    code = await process.wait()
        if code is None:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            code = await process.wait()
        return f"was ended by signal {-code}" if code < 0 else f"ended with exit code {code}"
