"""The door: everything that a client or a worker says is checked here before the cell hears it.

A bad task is refused by itself, with the field and the reason. A bad frame of a worker ends its stream, and nobody else
notices.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import ParamSpec

from msgspec.structs import replace

from merit.gateway.fields import BadField, check_digest, check_name, check_text
from merit.gateway.schemas import Schemas
from merit.gateway.terms_check import check_terms, in_normal_form
from merit.gateway.worker_check import check_hello
from merit.model.frames import ClientFrame, Report, ReportStatus, WorkerFrame
from merit.model.ids import is_task_id
from merit.model.json_check import BadJson, check_json
from merit.model.limits import (
    ATTEMPTS_MAX,
    DEPENDENCIES_MAX,
    DESCRIPTION_LENGTH_MAX,
    FAILURE_DETAIL_LENGTH_MAX,
    FAILURE_MESSAGE_LENGTH_MAX,
    LOG_LINES_MAX,
    NAME_LENGTH_MAX,
    PAYLOAD_INLINE_BYTES_MAX,
    RUN_TIMEOUT_NS_MAX,
    SUBMIT_TASKS_MAX,
    TIMEOUT_NS_MAX,
    TRAIL_BYTES_MAX,
)
from merit.model.tasks import Failure, Progress, Refusal, TaskSpec, Terms
from merit.model.workers import Offer
from merit.session.link import ProtocolViolation

LoadBlob = Callable[[str], bytes]
"""The blob with this digest, from now on kept for its time; raises ``LookupError`` when there is none that is whole, and
``BlobUnavailable`` when that cannot be told just now: then the client is to try again."""
TouchBlob = Callable[[str], None]
"""Has the blob with this digest kept for its time from now on; raises ``LookupError`` when there is none."""

_BATCH_REASON_LENGTH_MAX = 200

Checked = ParamSpec("Checked")


class Door:
    """Checks frames.

    Args:
        offers: by capability, as offered last: its input schema binds submitters.
        load_blob: for parameters that came by digest.
        clock: Unix time in nanoseconds.
        touch_blob: for results that come by digest; None: they are not looked at.
    """

    def __init__(
        self,
        offers: Mapping[str, Offer],
        load_blob: LoadBlob,
        clock: Callable[[], int] = time.time_ns,
        touch_blob: TouchBlob | None = None,
    ) -> None:
        self._offers = offers
        self._load_blob = load_blob
        self._touch_blob = touch_blob
        self._clock = clock
        self.schemas = Schemas()
        """Compiled ones."""

    def client_frame(self, frame: ClientFrame) -> list[Refusal]:
        """Take what cannot pass out of the frame, and put what can into its normal form; the refusals."""
        if frame.hello is not None:
            _violates(check_name, "hello.client_id", frame.hello.client)
        refusals: list[Refusal] = []
        if frame.tasks:
            check = self._refusal
            passed = []
            for spec in frame.tasks:
                refusal = check(spec)
                if refusal is None:
                    passed.append(in_normal_form(spec))
                else:
                    refusals.append(refusal)
            frame.tasks = passed
        if frame.groups:
            groups = [group for group in frame.groups if self._group_passes(group, refusals)]
            frame.groups = [[in_normal_form(spec) for spec in group] for group in groups]
        frame.watch = _ids_only(frame.watch, "watch", refusals)
        frame.cancels = _ids_only(frame.cancels, "cancels", refusals)
        if frame.follow:
            frame.follow = _ids_only(frame.follow, "follow", refusals)
        return refusals

    def _group_passes(self, group: list[TaskSpec], refusals: list[Refusal]) -> bool:
        if len(group) > SUBMIT_TASKS_MAX:
            reason = f"{len(group):,} tasks in one submit; {SUBMIT_TASKS_MAX:,} at most: submit the rest separately"
            refusals += [Refusal(spec.id, "invalid", "tasks", reason) for spec in group]
            return False
        found = {spec.id: refusal for spec in group if (refusal := self._refusal(spec)) is not None}
        if not found:
            return True
        first = next(iter(found.values()))
        # Said of each of up to 1,000 tasks, of several groups in one frame: short enough for all to fit into an answer.
        why = f"{first.field} {first.reason}"[:_BATCH_REASON_LENGTH_MAX]
        reason = f"not taken, since task {first.task} of the same submit was refused: {why}"
        refusals += [found.get(spec.id) or Refusal(spec.id, "batch", "tasks", reason) for spec in group]
        return False

    def _refusal(self, spec: TaskSpec) -> Refusal | None:
        try:
            self._check_spec(spec)
        except BadField as refused:
            return Refusal(spec.id[:NAME_LENGTH_MAX], "invalid", refused.field, refused.reason)
        return None

    def template(self, spec: TaskSpec) -> TaskSpec:
        """A task that a schedule makes, in its normal form: checked as any other, but for what each of its tasks has of its
        own.

        Raises:
            BadField: for the first field that cannot be.
        """
        terms = spec.terms or Terms()
        for field, given in (
            ("id", spec.id),
            ("after", spec.after),
            ("terms.inputs", terms.inputs),
            ("terms.idempotency_key", terms.idempotency_key),
            ("terms.not_before_ns", terms.not_before_ns),
            ("terms.deadline_ns", terms.deadline_ns),
        ):
            if given:
                reason = "must be left out: each task that the schedule makes would have the same"
                raise BadField(f"schedule.template.{field}", reason)
        try:
            self._check_content(spec)
        except BadField as refused:
            raise BadField(f"schedule.template.{refused.field}", refused.reason) from None
        return in_normal_form(spec)

    def _check_spec(self, spec: TaskSpec) -> None:
        if not is_task_id(spec.id):
            raise BadField("id", "must be a UUID version 7 in lower case")
        self._check_content(spec)

    def _check_content(self, spec: TaskSpec) -> None:
        check_text("capability", spec.capability, 1, NAME_LENGTH_MAX)
        if not 0 < spec.run_timeout_ns <= RUN_TIMEOUT_NS_MAX:
            raise BadField("run_timeout_ns", f"{spec.run_timeout_ns} is not above 0 and at most a year")
        if not 0 < spec.timeout_ns <= TIMEOUT_NS_MAX:
            raise BadField("timeout_ns", f"{spec.timeout_ns} is not above 0 and at most ten years")
        if not 0 < spec.attempts_max <= ATTEMPTS_MAX:
            raise BadField("attempts_max", f"{spec.attempts_max} is not between 1 and {ATTEMPTS_MAX}")
        if spec.description:
            check_text("description", spec.description, 0, DESCRIPTION_LENGTH_MAX)
        if spec.after:
            if len(spec.after) > DEPENDENCIES_MAX:
                raise BadField("after", f"{len(spec.after):,} tasks; {DEPENDENCIES_MAX:,} at most")
            if len(set(spec.after)) != len(spec.after):
                raise BadField("after", "names a task twice")
            for needed in spec.after:
                if not is_task_id(needed):
                    raise BadField("after", f"{needed[:NAME_LENGTH_MAX]!r} is no task id")
        if spec.terms is not None:
            check_terms(spec, spec.terms, self._clock())
        self._check_parameters(spec)

    def _check_parameters(self, spec: TaskSpec) -> None:
        data = spec.parameters
        if spec.parameters_blob:
            if data:
                raise BadField("parameters", "must be empty when parameters_blob is given")
            check_digest("parameters_blob", spec.parameters_blob)
            try:
                data = self._load_blob(spec.parameters_blob)
            except LookupError:
                reason = "is not in the blob store, or damaged there; put it there first"
                raise BadField("parameters_blob", reason) from None
        elif len(data) > PAYLOAD_INLINE_BYTES_MAX:
            reason = f"{len(data):,} bytes; above {PAYLOAD_INLINE_BYTES_MAX:,} put them into the blob store"
            raise BadField("parameters", reason)
        try:
            value = check_json(data)
        except BadJson as error:
            raise BadField("parameters", str(error)) from None
        if not isinstance(value, dict):
            raise BadField("parameters", f"must be a JSON object, not {type(value).__name__}")
        if spec.terms is not None and spec.terms.inputs:
            for name, _ in spec.terms.inputs:
                if name in value:
                    raise BadField("terms.inputs", f"{name!r} is in parameters too; leave it out of one of them")
            return  # the parameters are not complete before the results are in: the worker checks them then
        offer = self._offers.get(spec.capability)
        if offer is not None and offer.input_schema:
            problem = self.schemas.problem(offer.input_schema, value)
            if problem is not None:
                where, why = problem
                raise BadField(f"parameters.{where}" if where else "parameters", why)

    def worker_frame(self, frame: WorkerFrame) -> None:
        """Check a worker's frame.

        Raises:
            ProtocolViolation: something in it cannot be; the stream has to end.
        """
        if frame.hello is not None:
            try:
                check_hello(frame.hello, self.schemas)
            except BadField as refused:
                # The process will say the same of itself on every stream.
                raise ProtocolViolation(str(refused), permanent=True) from None
        for report in frame.reports:
            if report.result:
                if report.result_blob:
                    raise ProtocolViolation(f"reports.result: task {report.task} has a result_blob too")
                if len(report.result) > PAYLOAD_INLINE_BYTES_MAX:
                    raise ProtocolViolation(
                        f"reports.result: {len(report.result):,} bytes; "
                        f"above {PAYLOAD_INLINE_BYTES_MAX:,} put it into the blob store"
                    )
                try:
                    check_json(report.result)
                except BadJson as error:
                    raise ProtocolViolation(f"reports.result: of task {report.task} {error}") from None
            elif report.result_blob:
                _violates(check_digest, "reports.result_blob", report.result_blob)
            elif report.failure is None:
                raise ProtocolViolation(f"reports.result: task {report.task} is reported completed without a result")
            if report.trail:
                self._check_trail(report.trail)
            if report.failure is not None and (
                len(report.failure.message) > FAILURE_MESSAGE_LENGTH_MAX
                or len(report.failure.detail) > FAILURE_DETAIL_LENGTH_MAX
                or len(report.failure.kind) > NAME_LENGTH_MAX
            ):
                raise ProtocolViolation(
                    f"reports.failure: kind, message and detail may have {NAME_LENGTH_MAX}, "
                    f"{FAILURE_MESSAGE_LENGTH_MAX:,} and {FAILURE_DETAIL_LENGTH_MAX:,} characters"
                )
        for note in frame.progress:
            _check_progress(note)

    def large_results(self, frame: WorkerFrame) -> None:
        """See that results which the frame, checked already, names by digest are there and stay; it waits for the disk. One
        that is not there any more, since its worker was away for long, has been lost: the attempt has failed."""
        frame.reports = [self._with_result(report) if report.result_blob else report for report in frame.reports]

    def _with_result(self, report: Report) -> Report:
        try:
            if self._touch_blob is not None:
                self._touch_blob(report.result_blob)
        except LookupError as error:
            failure = Failure(
                "blob", f"its result was lost before it was reported: {error}"[:FAILURE_MESSAGE_LENGTH_MAX]
            )
            return replace(report, status=ReportStatus.FAILED, result_blob="", failure=failure)
        return report

    def _check_trail(self, trail: bytes) -> None:
        if len(trail) > TRAIL_BYTES_MAX:
            raise ProtocolViolation(f"reports.trail: {len(trail):,} bytes; {TRAIL_BYTES_MAX:,} at most")
        try:
            check_json(trail)
        except BadJson as error:
            raise ProtocolViolation(f"reports.trail: {error}") from None


def _check_progress(note: Progress) -> None:
    if not (0 <= note.fraction <= 1 or note.fraction == -1) or len(note.message) > DESCRIPTION_LENGTH_MAX:
        raise ProtocolViolation(f"progress: of task {note.task}: a fraction of 0 to 1, or -1, and a short message")
    if len(note.log) > LOG_LINES_MAX or any(len(line) > FAILURE_DETAIL_LENGTH_MAX for line in note.log):
        raise ProtocolViolation(
            f"progress.log: of task {note.task}: {LOG_LINES_MAX} lines "
            f"of {FAILURE_DETAIL_LENGTH_MAX:,} characters at most"
        )


def _violates(check: Callable[Checked, None], *args: Checked.args, **kwargs: Checked.kwargs) -> None:
    try:
        check(*args, **kwargs)
    except BadField as refused:
        raise ProtocolViolation(str(refused)) from None


def _ids_only(ids: list[str], field: str, refusals: list[Refusal]) -> list[str]:
    if all(map(is_task_id, ids)):
        return ids
    refusals += [
        Refusal(bad[:NAME_LENGTH_MAX], "invalid", field, "must be a UUID version 7 in lower case")
        for bad in ids
        if not is_task_id(bad)
    ]
    return [task_id for task_id in ids if is_task_id(task_id)]
