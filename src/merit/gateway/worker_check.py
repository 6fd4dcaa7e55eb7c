"""What a worker says of itself, field by field."""

from __future__ import annotations

from merit.allocation.versions import problem_of_version
from merit.gateway.fields import (
    BadField,
    check_amounts,
    check_distinct,
    check_name,
    check_range,
    check_words,
)
from merit.gateway.identity import check_tenant
from merit.gateway.schemas import BadSchema, Schemas
from merit.model.frames import Hello
from merit.model.limits import (
    CAPABILITIES_PER_WORKER_MAX,
    CONCURRENCY_MAX,
    COST_MICROS_MAX,
    FAILURE_DETAIL_LENGTH_MAX,
    HELLO_BYTES_MAX,
    RUN_TIMEOUT_NS_MAX,
    SCHEMA_BYTES_MAX,
    TAGS_MAX,
    WORKER_TENANTS_MAX,
)
from merit.model.supervision import RESERVED_TAGS
from merit.model.workers import PERMILLE, Offer


def check_hello(hello: Hello, schemas: Schemas) -> None:
    """Raises ``BadField`` for the first field that cannot be."""
    check_name("hello.worker_id", hello.worker)
    check_name("hello.boot_id", hello.boot)
    if hello.session < 1:
        raise BadField("hello.session", "must be 1 or more")
    check_range("hello.concurrency", hello.concurrency, 1, CONCURRENCY_MAX)
    _check_tags("hello.tags", hello.tags)
    check_amounts("hello.capacity", hello.capacity)
    check_words("hello.tenants", hello.tenants, WORKER_TENANTS_MAX)
    for tenant in hello.tenants:
        try:
            check_tenant(tenant)
        except ValueError as error:
            raise BadField("hello.tenants", str(error)) from None
    check_offers("hello.capabilities", hello.offers, schemas)


def check_offers(field: str, offers: tuple[Offer, ...], schemas: Schemas) -> None:
    """Capabilities that a worker offers. Raises ``BadField`` for the first field that cannot be.

    Args:
        field: what they are called where they stand.
        offers: the capabilities.
        schemas: in which theirs are compiled.
    """
    check_range(field, len(offers), 1, CAPABILITIES_PER_WORKER_MAX)
    contents = sum(len(offer.input_schema) + len(offer.output_schema) + len(offer.description) for offer in offers)
    if contents > HELLO_BYTES_MAX:
        raise BadField(field, f"schemas and descriptions of {contents:,} bytes; {HELLO_BYTES_MAX:,} at most")
    for offer in offers:
        check_name(f"{field}.name", offer.name)
        _check_offer(field, offer, schemas)
    check_distinct(field, (offer.name for offer in offers))


def _check_tags(field: str, tags: tuple[str, ...]) -> None:
    check_words(field, tags, TAGS_MAX)
    for tag in tags:
        if tag.startswith(RESERVED_TAGS):
            reason = f"{tag!r} begins with {RESERVED_TAGS!r}: such tags are earned; choose another name"
            raise BadField(field, reason)


def _check_offer(field: str, offer: Offer, schemas: Schemas) -> None:
    def named(part: str) -> str:
        return f"{field}.{part} of {offer.name}"

    problem = problem_of_version(offer.version)
    if problem is not None:
        raise BadField(named("version"), problem)
    check_range(f"{named('description')}: characters", len(offer.description), 0, FAILURE_DETAIL_LENGTH_MAX)
    _check_tags(named("tags"), offer.tags)
    check_range(named("heartbeat_timeout_ns"), offer.heartbeat_timeout_ns, 0, RUN_TIMEOUT_NS_MAX)
    check_amounts(named("resources"), offer.resources)
    check_range(named("concurrency_max"), offer.concurrency_max, 0, CONCURRENCY_MAX)
    check_range(named("cost_micros"), offer.cost_micros, 0, COST_MICROS_MAX)
    check_range(named("preference_permille"), offer.preference_permille, 0, PERMILLE)
    check_words(named("requires"), offer.requires, TAGS_MAX)
    for part, schema in (("input_schema", offer.input_schema), ("output_schema", offer.output_schema)):
        if len(schema) > SCHEMA_BYTES_MAX:
            raise BadField(named(part), f"{len(schema):,} bytes; {SCHEMA_BYTES_MAX:,} at most")
        if schema:
            try:
                schemas.validator(schema)
            except BadSchema as error:
                raise BadField(named(part), str(error)) from None
