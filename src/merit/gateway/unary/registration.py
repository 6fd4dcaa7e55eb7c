"""What workers of the unary contract say of themselves, and what orchestrators are told of workers of either kind.

The contract has no fields for what came later: that travels as ``key=value`` tags. These have a meaning:

* ``max_concurrency=8``: tasks at a time; 4 if it is not said
* ``reopen=true``: the streams of its tasks may be opened again by another process of the control plane, so that attempts
  outlive a restart of it
* ``tenants=acme,globex``: whose tasks it takes; anybody's if it is not said
* ``capacity.cpu=4``, ``capacity.memory=8Gi``, ``capacity.NAME=2``: what it has of resources
* ``draining=true``: it finishes what it has, and leaves; said of a worker that has registered before
* ``version.CAPABILITY=2.1.0``: of one capability; otherwise the worker's own version is that of all of them, as far as
  it is one (``v1.2`` is ``1.2.0``, and what cannot be read is ``1.0.0``)

All of them, and all others, are tags like those of other workers too.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from decimal import Decimal
from hashlib import sha256
from typing import Final

from msgspec import Struct, field

from merit.allocation.versions import problem_of_version
from merit.gateway.fields import BadField, check_name, check_range, check_text
from merit.model.addresses import is_loopback, reachable, split_address
from merit.model.frames import Hello
from merit.model.limits import AMOUNT_THOUSANDTHS_MAX, CAPABILITIES_PER_WORKER_MAX, CONCURRENCY_MAX, NAME_LENGTH_MAX
from merit.model.workers import Amount, Offer, Registration
from merit.wire.unary import (
    CAPACITY_TAG,
    CONCURRENCY_TAG,
    DRAINING_TAG,
    REOPEN_TAG,
    TENANTS_TAG,
    VERSION_TAG,
    schema_of,
)
from merit.wire.worker_abstraction import worker_abstraction_pb2 as unary

CONCURRENCY_DEFAULT: Final = 4
"""Servers of this contract typically have ten threads, and each stream of a task that is open holds one."""

_VERSION_DEFAULT: Final = "1.0.0"
_ID_NAME_LENGTH_MAX: Final = 150
_DIGEST_LENGTH: Final = 12
_VERSION: Final = re.compile(
    r"[vV]?(\d{1,9})(?:\.(\d{1,9}))?(?:\.(\d{1,9}))?((?:-[0-9A-Za-z.-]+)?(?:\+[0-9A-Za-z.-]+)?)"
)
_AMOUNT: Final = re.compile(r"(\d{1,15}(?:\.\d{1,9})?)([kMGT]|[KMGT]i)?", re.ASCII)
_UNITS: Final[Mapping[str, int]] = {
    "": 1,
    **{sign: 1000**power for power, sign in enumerate("kMGT", 1)},
    **{f"{sign}i": 1024**power for power, sign in enumerate("KMGT", 1)},
}
_BOOLEANS: Final[Mapping[str, bool]] = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}


class WorkerTags(Struct, frozen=True):
    """What the tags of a worker say."""

    concurrency: int = CONCURRENCY_DEFAULT
    reopens: bool = False
    tenants: tuple[str, ...] = ()
    capacity: tuple[Amount, ...] = ()
    versions: dict[str, str] = field(default_factory=dict)
    """By capability."""
    draining: bool = False


def read_tags(tags: Sequence[str]) -> WorkerTags:
    """What the tags say; see the module.

    Raises:
        BadField: the value of one that has a meaning cannot be.
    """
    concurrency, reopens, draining = CONCURRENCY_DEFAULT, False, False
    tenants: tuple[str, ...] = ()
    capacity: dict[str, int] = {}
    versions: dict[str, str] = {}
    for tag in tags:
        key, equals, value = tag.partition("=")
        where = f"worker_info.tags.{key[:NAME_LENGTH_MAX]}"
        if not equals:
            continue
        if key == CONCURRENCY_TAG:
            concurrency = int(value) if value.isascii() and value.isdecimal() and len(value) < 10 else 0
            if not 1 <= concurrency <= CONCURRENCY_MAX:
                raise BadField(where, f"{value[:NAME_LENGTH_MAX]!r} is no whole number of 1 to {CONCURRENCY_MAX:,}")
        elif key == REOPEN_TAG:
            reopens = _boolean(where, value)
        elif key == DRAINING_TAG:
            draining = _boolean(where, value)
        elif key == TENANTS_TAG:
            tenants = tuple(dict.fromkeys(name.strip() for name in value.split(",")))
            for name in tenants:
                check_name(where, name)
        elif key.startswith(CAPACITY_TAG) and key != CAPACITY_TAG:
            capacity[key.removeprefix(CAPACITY_TAG)] = _thousandths(where, value)
        elif key.startswith(VERSION_TAG) and key != VERSION_TAG:
            versions[key.removeprefix(VERSION_TAG)] = semantic(where, value)
    amounts = tuple(sorted(Amount(name, thousandths) for name, thousandths in capacity.items()))
    return WorkerTags(concurrency, reopens, tenants, amounts, versions, draining)


def _boolean(where: str, text: str) -> bool:
    if text.lower() not in _BOOLEANS:
        raise BadField(where, f"{text[:NAME_LENGTH_MAX]!r} is neither true nor false")
    return _BOOLEANS[text.lower()]


def _thousandths(where: str, text: str) -> int:
    found = _AMOUNT.fullmatch(text)
    if found is None:
        raise BadField(where, f"{text[:NAME_LENGTH_MAX]!r} is no amount, such as 4, 0.5 or 8Gi")
    thousandths = int(Decimal(found[1]) * _UNITS[found[2] or ""] * 1_000)
    check_range(where, thousandths, 0, AMOUNT_THOUSANDTHS_MAX)
    return thousandths


def semantic(where: str, text: str) -> str:
    """A version with what it lacks of a semantic one: ``v1.2`` is ``1.2.0``, and nothing at all ``1.0.0``.

    Raises:
        BadField: it cannot be read as one.
    """
    if not text:
        return _VERSION_DEFAULT
    found = _VERSION.fullmatch(text) if text.isascii() and len(text) <= NAME_LENGTH_MAX else None
    if found is not None:
        major, minor, patch = (int(part or 0) for part in found.groups()[:3])
        version = f"{major}.{minor}.{patch}{found[4]}"
        if problem_of_version(version) is None:
            return version
    raise BadField(where, f"{text[:NAME_LENGTH_MAX]!r} is no version; write three numbers, such as 1.0.0 or 2.1.0-rc.1")


def worker_id(name: str, address: str) -> str:
    """The id of a worker that has said none: the same name at the same address is the same worker."""
    digest = sha256(f"{name}\0{address}".encode()).hexdigest()
    return f"{name[:_ID_NAME_LENGTH_MAX]}-{digest[:_DIGEST_LENGTH]}"


def read_info(info: unary.WorkerInfo) -> tuple[str, Registration]:
    """A worker's id and its registration.

    Raises:
        BadField: something in it cannot be. Names, counts and sizes that workers of all kinds have are left to the door.
    """
    check_text("worker_info.worker_id", info.worker_id, 0, NAME_LENGTH_MAX)
    name = info.name or info.worker_id
    check_name("worker_info.name", name)
    check_text("worker_info.address", info.address, 1, NAME_LENGTH_MAX)
    try:
        address = reachable(info.address)
        host, port = split_address(address)
    except ValueError as error:
        raise BadField("worker_info.address", str(error)) from None
    if not is_loopback(host):
        reason = (
            f"{info.address} is not on this machine. This version has no TLS and no identities yet, so it dials workers "
            "of this machine only: announce 127.0.0.1:PORT, with a tunnel (such as ssh -L) to a worker elsewhere"
        )
        raise BadField("worker_info.address", reason)
    if not port:
        raise BadField("worker_info.address", "port 0 cannot be dialled; announce the one that was given")
    if len(info.capabilities) > CAPABILITIES_PER_WORKER_MAX:
        raise BadField("worker_info.capabilities", f"more than {CAPABILITIES_PER_WORKER_MAX}")
    said = read_tags(info.tags)
    try:
        version = semantic("worker_info.version", info.version)
    except BadField:
        version = _VERSION_DEFAULT  # agents call theirs what they like, and work all the same
    offers = tuple(
        Offer(tool.name, said.versions.get(tool.name, version), tool.description, _schema(tool))
        for tool in info.capabilities
    )
    registration = Registration(name, address, info.version, offers, said.concurrency, tuple(info.tags), said.reopens)
    return info.worker_id or worker_id(name, address), registration


def _schema(tool: unary.ToolCapability) -> bytes:
    try:
        return schema_of(tool.parameters)
    except ValueError as error:
        raise BadField(f"worker_info.capabilities.parameters of {tool.name[:NAME_LENGTH_MAX]}", str(error)) from None


def hello_of(worker: str, registration: Registration) -> Hello:
    """What a worker's driver will say of it first, for the door to check.

    Raises:
        BadField: a tag says what cannot be.
    """
    said = read_tags(registration.tags)
    offers, concurrency, tags = registration.offers, registration.concurrency, registration.tags
    return Hello(worker, "boot", 1, offers, concurrency, (), tags, said.capacity, said.tenants)
