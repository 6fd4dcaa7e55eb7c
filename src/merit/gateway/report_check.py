"""The checks that the results of a capability go through at the door, before the cell hears of them; see ``AuditPolicy``."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Sequence
from fnmatch import fnmatchcase
from typing import Final

import msgspec
from msgspec.structs import replace

from merit.core.state import State
from merit.gateway.audit_items import AuditItem, brief
from merit.gateway.auditing_process import NO_TIME, AuditingProcess, broken
from merit.gateway.schemas import BadSchema, Schemas
from merit.model.auditing import SLOW, AuditPolicy, Finding
from merit.model.frames import Report, ReportStatus, WorkerFrame
from merit.model.json_check import BadJson, check_json
from merit.model.limits import AUDITED_BYTES_MAX, SECOND_NS
from merit.model.tasks import Attempt, Task
from merit.model.track_record import measured_ns
from merit.model.workers import Offer
from merit.ports.cell import Cell

LoadBlob = Callable[[str], bytes]

FRAME_S: Final = 10.0
"""How long the checks of one frame may take; its worker is not heard meanwhile, and must not pass for silent."""
_TURN_REPORTS: Final = 20
"""That are looked at in one turn of the loop: a few ms, if all are as large as can be."""
_BATCH_ITEMS: Final = 500
_BATCH_BYTES: Final = 8 * 1024 * 1024
_APART_NS: Final = SECOND_NS
"""Lines of different threads may stand so far from their order, and clocks are set."""
_DIGEST: Final = re.compile(r"[0-9a-f]{64}")


class _TrailLine(msgspec.Struct):
    time_ns: int
    message: str


class _TrailFile(msgspec.Struct):
    path: str
    size_bytes: int
    sha256: str


class _Trail(msgspec.Struct):
    """What checks want of the trail that the SDK sends."""

    log: list[_TrailLine] = []
    log_dropped: int = 0
    evidence: list[_TrailFile] = []


_decode_trail = msgspec.json.Decoder(_Trail).decode


def findings_of(
    policy: AuditPolicy, offer: Offer | None, report: Report, result: bytes, took_ns: int, schemas: Schemas
) -> list[Finding]:
    """What those checks say of a result that need nothing but a moment.

    Args:
        policy: of its capability.
        offer: the capability as its worker has offered it.
        report: of its attempt.
        result: in full, valid JSON.
        took_ns: how long it took, as far as that is known.
        schemas: compiled ones.
    """
    found = []
    if policy.schema:
        found.append(_matches("schema", policy.schema, result, schemas))
    if policy.declared and offer is not None and offer.output_schema:
        found.append(_matches("declared schema", offer.output_schema, result, schemas))
    if policy.evidence or policy.log_required or policy.log_errors:
        try:
            trail = _decode_trail(report.trail) if report.trail else _Trail()
        except msgspec.DecodeError as error:
            return [*found, Finding("trail", False, brief(f"log and evidence cannot be read: {error}"))]
        if policy.evidence:
            found.append(_has_evidence(policy, trail))
        if policy.log_required or policy.log_errors:
            found.append(_has_log(policy, trail, schemas))
    if 0 < policy.norm_ns < took_ns:
        reason = f"it took {took_ns / SECOND_NS:.3g} s; {policy.norm_ns / SECOND_NS:.3g} s are the norm"
        found.append(Finding(SLOW, True, reason))
    return found


def _matches(step: str, schema: bytes, result: bytes, schemas: Schemas) -> Finding:
    try:
        problem = schemas.problem(schema, msgspec.json.decode(result))
    except BadSchema as error:
        return Finding(step, False, brief(f"cannot be used: {error}"), broken=True)
    if problem is None:
        return Finding(step, True)
    where, why = problem
    return Finding(step, False, brief(f"result.{where}: {why}" if where else f"result: {why}"))


def _has_evidence(policy: AuditPolicy, trail: _Trail) -> Finding:
    names = []
    for file in trail.evidence:
        if file.size_bytes < 0 or not _DIGEST.fullmatch(file.sha256):
            return Finding("evidence", False, brief(f"{file.path}: without its size and SHA-256 it proves nothing"))
        names.append(file.path.replace("\\", "/").rpartition("/")[2])
    for wanted in policy.evidence:
        if not any(fnmatchcase(name, wanted) for name in names):
            return Finding("evidence", False, f"no file {wanted} was recorded")
    return Finding("evidence", True)


def _has_log(policy: AuditPolicy, trail: _Trail, schemas: Schemas) -> Finding:
    if policy.log_required:
        if not trail.log:
            return Finding("log", False, "there is none")
        if trail.log_dropped:
            return Finding("log", False, f"{trail.log_dropped:,} lines of it are missing")
        latest_ns = 0
        for line in trail.log:
            if line.time_ns < latest_ns - _APART_NS:
                return Finding("log", False, brief(f"its lines are not in order, at: {line.message}"))
            latest_ns = max(latest_ns, line.time_ns)
    for pattern in policy.log_errors:
        validator = schemas.validator(pattern_schema(pattern))
        for line in trail.log:
            if validator.is_valid(line.message):
                return Finding("log", False, brief(f"{pattern} is in a line of it: {line.message}"))
    return Finding("log", True)


def pattern_schema(pattern: str) -> bytes:
    """What a text matches that has the pattern somewhere in it; in linear time."""
    return msgspec.json.encode({"type": "string", "pattern": pattern})


class ReportCheck:
    """Checks the reports of a frame.

    Args:
        cell: has the policies, and the tasks.
        schemas: compiled ones.
        load_blob: for large parameters and results.
        apart: makes the checks that have no bound of their own.
    """

    def __init__(self, cell: Cell, schemas: Schemas, load_blob: LoadBlob, apart: AuditingProcess) -> None:
        self._cell = cell
        self._schemas = schemas
        self._load_blob = load_blob
        self._apart = apart

    def is_due(self, worker: str, frame: WorkerFrame) -> bool:
        """Whether something in a frame of the worker is to be checked. Where no policy is set this costs nothing."""
        state = self._cell.state
        return bool(state.audits) and any(
            _is_void(state, worker, report) or _concerned(state, report) is not None for report in frame.reports
        )

    async def check(self, worker: str, frame: WorkerFrame) -> None:
        """Put into the reports what was found. Frames of one worker are checked one after another.

        Results of attempts that the worker does not have are taken out. They would change nothing; but while the frame
        waits, such an attempt may be given to a worker that has guessed so, and its result would not have been checked.

        Args:
            worker: whose frame it is.
            frame: checked by the door already.

        Raises:
            BlobUnavailable: large contents cannot be had just now.
        """
        loop = asyncio.get_running_loop()
        until_s = loop.time() + FRAME_S
        state = self._cell.state
        reports = frame.reports = [report for report in frame.reports if not _is_void(state, worker, report)]
        waiting: dict[str, list[tuple[int, AuditItem]]] = {}
        weight_bytes = 0
        for place, report in enumerate(reports):
            if place % _TURN_REPORTS == _TURN_REPORTS - 1:
                await asyncio.sleep(0)
            asked = _concerned(state, report)
            if asked is None:
                continue
            if loop.time() >= until_s:
                reports[place] = replace(report, findings=NO_TIME)
                continue
            task, attempt, policy = asked
            took_ns = measured_ns(report.wall_ns, attempt.assigned_ns, attempt.started_ns, self._cell.now_ns)
            found, result = await self._at_once(policy, worker, report, took_ns)
            reports[place] = replace(report, findings=tuple(found))
            if not policy.apart or any(not finding.ok for finding in found):
                continue
            item = await self._item(task, worker, report, result, took_ns)
            if item is None:
                reports[place] = replace(report, findings=(*found, *broken("its parameters cannot be read here")))
                continue
            batch = waiting.setdefault(task.capability, [])
            batch.append((place, item))
            weight_bytes += item.weight_bytes
            if weight_bytes > _BATCH_BYTES or len(batch) >= _BATCH_ITEMS:
                await self._ask(waiting, reports, until_s)
                weight_bytes = 0
        await self._ask(waiting, reports, until_s)

    async def _at_once(
        self, policy: AuditPolicy, worker: str, report: Report, took_ns: int
    ) -> tuple[Sequence[Finding], bytes]:
        """What those checks find that are made here, and the result in full."""
        at = self._cell.state.workers.get(worker)  # it may have been removed just now
        offer = at.offer(policy.capability) if at is not None else None
        if not report.result_blob:
            return findings_of(policy, offer, report, report.result, took_ns, self._schemas), report.result
        try:
            return await asyncio.to_thread(self._large, policy, offer, report, took_ns)
        except LookupError as error:
            return broken(f"the result cannot be read: {error}"), b""

    def _large(
        self, policy: AuditPolicy, offer: Offer | None, report: Report, took_ns: int
    ) -> tuple[Sequence[Finding], bytes]:
        result = self._load_blob(report.result_blob)
        if len(result) > AUDITED_BYTES_MAX:
            return broken(f"the result has {len(result):,} bytes, and is too large to be checked here"), b""
        try:
            check_json(result)
        except BadJson as error:
            return [Finding("json", False, f"the result {error}")], b""
        return findings_of(policy, offer, report, result, took_ns, self._schemas), result

    async def _item(self, task: Task, worker: str, report: Report, result: bytes, took_ns: int) -> AuditItem | None:
        """What the process apart has to know; None: it cannot be had, or is too large."""
        contents = [(task.parameters, task.parameters_blob), *((one.result, one.blob) for one in task.inputs)]
        if any(blob for _, blob in contents):
            try:
                loaded = await asyncio.to_thread(self._load, contents)
            except LookupError:
                return None
        else:
            loaded = [data for data, _ in contents]
        if sum(map(len, loaded)) > AUDITED_BYTES_MAX:
            return None
        names = (one.name for one in task.inputs)
        return AuditItem(
            task.id,
            task.capability,
            int(task.priority),
            worker,
            took_ns,
            loaded[0],
            tuple(zip(names, loaded[1:], strict=True)),
            result,
            report.trail,
        )

    def _load(self, contents: list[tuple[bytes, str]]) -> list[bytes]:
        return [self._load_blob(blob) if blob else data for data, blob in contents]

    async def _ask(
        self, waiting: dict[str, list[tuple[int, AuditItem]]], reports: list[Report], until_s: float
    ) -> None:
        for capability, asked in waiting.items():
            policy = self._cell.state.audits.get(capability)
            if policy is None:
                continue  # it has been ended just now
            answers = await self._apart.findings(policy, [item for _, item in asked], until_s)
            for (place, _), findings in zip(asked, answers, strict=True):
                reports[place] = replace(reports[place], findings=(*reports[place].findings, *findings))
        waiting.clear()


def _is_void(state: State, worker: str, report: Report) -> bool:
    """Whether it is a result of an attempt that the worker does not have."""
    at = state.workers.get(worker)
    return report.status is ReportStatus.COMPLETED and (at is None or at.attempts.get(report.task) != report.number)


def _concerned(state: State, report: Report) -> tuple[Task, Attempt, AuditPolicy] | None:
    """What a report of a result is about, if that is to be checked, and the report may still change something."""
    if report.status is not ReportStatus.COMPLETED:
        return None
    task = state.tasks.get(report.task)
    policy = state.audits.get(task.capability) if task is not None else None
    attempt = task.attempt(report.number) if task is not None and policy is not None else None
    if task is None or policy is None or attempt is None or not attempt.live:
        return None
    return task, attempt, policy
