"""Workers as people and programs see them: who is meant, and what is told of each."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from itertools import chain, repeat
from typing import Final

from merit.allocation.feasibility import NOTHING, needs_of
from merit.allocation.versions import matches, problem_of_range
from merit.core.desk import Desk
from merit.core.liberty import liberties
from merit.core.standing import Standing, standing
from merit.core.supervising import metrics
from merit.gateway.fields import BadField, check_range, check_text
from merit.model.limits import NAME_LENGTH_MAX, TAGS_MAX
from merit.model.search import WorkerQuery, WorkerRow
from merit.model.supervision import Conduct
from merit.model.workers import Amount, Offer, Profile, Worker
from merit.ports.cell import Cell
from merit.supervision.metrics import Metrics
from merit.wire.specs import encode_amounts
from merit.wire.supervision import encode_circuit, encode_judgement, encode_point, encode_rating
from merit.wire.v1 import fleet_pb2, supervision_pb2

TASKS_SHOWN_MAX: Final = 1_000
_TIME_NS_MAX: Final = 2**63 - 1
TURN_WORKERS: Final = 200
"""Workers that one turn of the loop looks at: some 20 µs each."""


def known_workers(desk: Desk) -> Iterable[str]:
    """The ids of all workers that are here, or of which something is kept."""
    return desk.state.workers.keys() | desk.state.profiles.keys()


def standing_of(cell: Cell, worker_id: str) -> Standing:
    """Where a worker is in its life now."""
    desk, state = cell.desk, cell.state
    heard_ns = max(state.grace_until_ns, desk.quiet_until_ns)
    return standing(
        state.workers.get(worker_id),
        state.profiles.get(worker_id),
        desk.seats.get(worker_id),
        cell.now_ns,
        heard_ns,
        desk.limits.beat_ns,
        desk.limits.stale_ns,
    )


class WorkerSearch:
    """A filter, checked.

    Raises:
        BadField: for the first field that cannot be.
    """

    def __init__(self, wanted: fleet_pb2.WorkerFilter) -> None:
        check_text("filter.capability", wanted.capability, 0, NAME_LENGTH_MAX)
        check_text("filter.tenant", wanted.tenant, 0, NAME_LENGTH_MAX)
        check_range("filter.tags", len(wanted.tags), 0, TAGS_MAX)
        for tag in wanted.tags:
            check_text("filter.tags", tag, 1, NAME_LENGTH_MAX)
        problem = problem_of_range(wanted.versions)
        if problem is not None:
            raise BadField("filter.versions", problem)
        if wanted.versions and not wanted.capability:
            raise BadField("filter.versions", "is about the versions of a capability: give filter.capability too")
        for number in wanted.standings:
            check_range("filter.standings", number, min(Standing), max(Standing))
        check_text("filter.name", wanted.name, 0, NAME_LENGTH_MAX)
        check_range("filter.left_from_ns", wanted.left_from_ns, 0, _TIME_NS_MAX)
        check_range("filter.left_to_ns", wanted.left_to_ns, 0, _TIME_NS_MAX)
        self._capability = wanted.capability
        self._versions = wanted.versions
        self._tags = frozenset(wanted.tags)
        self._standings = frozenset(int(number) for number in wanted.standings)
        self._tenant = wanted.tenant
        self._name = wanted.name
        self.has_left = bool(wanted.left_from_ns or wanted.left_to_ns)
        """It is about when workers left, which only the read model knows."""
        self.gone = Standing.GONE in self._standings if self._standings else self.has_left
        """It is about workers that are gone, perhaps among others."""
        self.query = WorkerQuery(
            capability=wanted.capability,
            tag=next(iter(wanted.tags), ""),
            name=wanted.name,
            here=False,
            left_from_ns=wanted.left_from_ns,
            left_to_ns=wanted.left_to_ns or _TIME_NS_MAX,
        )
        """What the read model has of those; the rest is for ``remembers``."""

    def remembers(self, row: WorkerRow) -> bool:
        """Whether a worker that ``query`` has found is meant."""
        return (
            self._tags.issubset(row.tags)
            and (not self._tenant or not row.tenants or self._tenant in row.tenants)
            and (
                not self._versions
                or any(
                    name == self._capability and matches(self._versions, version)
                    for name, version in zip(row.capabilities, row.versions, strict=False)  # older rows have none
                )
            )
        )

    def matches(self, cell: Cell, worker_id: str) -> bool:
        """Whether the worker is meant."""
        state = cell.state
        worker, profile = state.workers.get(worker_id), state.profiles.get(worker_id)
        if (worker is None and profile is None) or self.has_left or not worker_id.startswith(self._name):
            return False
        offers = offers_of(worker, profile)
        if self._capability:
            offers = tuple(offer for offer in offers if offer.name == self._capability)
            if not any(matches(self._versions, offer.version) for offer in offers):
                return False
        if self._tags and not self._tags <= {*tags_of(worker, profile), *(tag for one in offers for tag in one.tags)}:
            return False
        if self._tenant and worker is not None and worker.tenants and self._tenant not in worker.tenants:
            return False
        now = standing_of(cell, worker_id)
        return now in self._standings if self._standings else now is not Standing.GONE


def offers_of(worker: Worker | None, profile: Profile | None) -> tuple[Offer, ...]:
    """What a worker offers, or offered when it was dialled last."""
    if worker is not None:
        return worker.offers
    return profile.registration.offers if profile is not None and profile.registration is not None else ()


def tags_of(worker: Worker | None, profile: Profile | None) -> tuple[str, ...]:
    """Its own tags, as ``offers_of``."""
    if worker is not None:
        return worker.tags
    return profile.registration.tags if profile is not None and profile.registration is not None else ()


def view_worker(cell: Cell, worker_id: str) -> fleet_pb2.FleetWorker:
    """A worker, as far as the cell knows it; without when it was heard last, and its tasks."""
    desk, state = cell.desk, cell.state
    worker, profile = state.workers.get(worker_id), state.profiles.get(worker_id)
    registration = profile.registration if profile is not None else None
    contract = fleet_pb2.CONTRACT_UNARY if registration is not None else fleet_pb2.CONTRACT_SESSION
    message = fleet_pb2.FleetWorker(
        id=worker_id,
        standing=fleet_pb2.Standing.ValueType(standing_of(cell, worker_id)),
        contract=contract if worker is not None or profile is not None else fleet_pb2.CONTRACT_UNSPECIFIED,
        address=registration.address if registration is not None else "",
        tags=tags_of(worker, profile),
        concurrency=registration.concurrency if registration is not None else 0,
        offers=[_view_offer(offer, profile) for offer in offers_of(worker, profile)],
    )
    if worker is not None:
        _fill_present(message, desk, worker)
    if profile is not None:
        message.first_ns = profile.first_ns
        message.reason = profile.reason
        message.completed = profile.completed
        message.failed = profile.failed
        message.words.extend(profile.words)
        message.conduct.CopyFrom(_view_conduct(profile.conduct))
    return message


def fill_past(message: fleet_pb2.FleetWorker, row: WorkerRow) -> None:
    """What the read model remembers of a worker that is gone, beside what the cell still knows of it."""
    message.first_ns = row.first_ns
    message.left_ns = row.left_ns
    message.lost = row.lost
    message.reason = message.reason or row.reason
    if not message.offers:
        versions = chain(row.versions, repeat(""))
        message.offers.extend(
            fleet_pb2.OfferView(name=name, version=version)
            for name, version in zip(row.capabilities, versions, strict=False)  # older rows have none
        )
    message.tags.extend(tag for tag in row.tags if tag not in message.tags)
    message.tenants.extend(row.tenants)


def fill_details(message: fleet_pb2.FleetWorker, desk: Desk) -> None:
    """What is told only of a worker that was asked for: its last word, what it has, and what was decided about it."""
    seat = desk.seats.get(message.id)
    message.seen_ns = seat.seen_ns if seat is not None else 0
    worker = desk.state.workers.get(message.id)
    if worker is not None:
        message.tasks.extend(list(worker.attempts)[:TASKS_SHOWN_MAX])
    profile = desk.state.profiles.get(message.id)
    if profile is not None:
        conduct = profile.conduct
        message.conduct.liberties.extend(liberties(desk, profile))
        message.conduct.judgements.extend(encode_judgement(judgement) for judgement in conduct.judgements)
        message.conduct.points.extend(encode_point(point) for point in conduct.points)
        message.conduct.metrics.CopyFrom(_view_metrics(metrics(desk, profile)))


def _view_conduct(conduct: Conduct) -> supervision_pb2.Conduct:
    return supervision_pb2.Conduct(
        factor_permille=conduct.factor,
        score_millipoints=conduct.score if conduct.rated_ns else None,
        reputation=encode_rating(conduct.rating),
        stage=supervision_pb2.Stage.ValueType(conduct.stage),
        since_ns=conduct.since_ns,
        circuit=encode_circuit(conduct.circuit),
        privileges=conduct.privileges,
        pinned=conduct.pinned,
        rewards=conduct.rewards,
        punishments=conduct.punishments,
    )


def _view_metrics(metrics: Metrics) -> supervision_pb2.WorkerMetrics:
    return supervision_pb2.WorkerMetrics(
        attempts=metrics.attempts,
        failed=metrics.failed,
        error_permille=metrics.error_permille,
        mean_ns=metrics.mean_ns,
        p95_ns=metrics.p95_ns,
        rate_millihz=metrics.rate_milli // 1_000,
        utilisation_permille=metrics.utilisation_permille,
        lateness_permille=metrics.lateness_permille,
        checked=metrics.checked,
        quality_permille=metrics.quality_permille,
    )


def _fill_present(message: fleet_pb2.FleetWorker, desk: Desk, worker: Worker) -> None:
    seat = desk.seats.get(worker.id)
    message.boot_id = worker.boot
    message.tenants.extend(worker.tenants)
    message.capacity.extend(encode_amounts(worker.capacity))
    message.in_use.extend(encode_amounts(in_use(desk, worker)))
    message.concurrency = worker.concurrency
    message.attempts = len(worker.attempts)
    message.room = max(0, seat.granted - seat.used) if seat is not None and seat.attached else 0
    message.joined_ns = worker.joined_ns


def in_use(desk: Desk, worker: Worker) -> list[Amount]:
    """What the attempts that a worker has take of its resources, by name."""
    used: Counter[str] = Counter()
    for task_id in worker.attempts:
        task = desk.state.tasks[task_id]
        offer = worker.offer(task.capability)
        demand = task.terms.demand if task.terms is not None else None
        if offer is not None and (demand is not None or offer.resources):
            for need in needs_of(offer, demand or NOTHING):
                used[need.name] += need.thousandths
    return [Amount(name, thousandths) for name, thousandths in sorted(used.items())]


def _view_offer(offer: Offer, profile: Profile | None) -> fleet_pb2.OfferView:
    record = profile.records.get(offer.name) if profile is not None else None
    return fleet_pb2.OfferView(
        name=offer.name,
        version=offer.version,
        tags=offer.tags,
        resources=encode_amounts(offer.resources),
        concurrency_max=offer.concurrency_max,
        cost_micros=offer.cost_micros,
        preference_permille=offer.preference_permille,
        stateful=offer.stateful,
        took_ns=record.took_ns if record is not None else 0,
        measured=record.attempts if record is not None else 0,
        admitted=profile is not None and f"{offer.name}@{offer.version}" in profile.admitted,
        reputation=encode_rating(record.rating) if record is not None and record.counted else None,
    )
