"""Who calls, and for whom. There are no identities yet: everybody is the same principal, and says its tenant itself."""

from __future__ import annotations

from typing import Any, Final

import grpc

from merit.model.limits import NAME_LENGTH_MAX
from merit.model.tenancy import DEFAULT_TENANT

TENANT_KEY: Final = "merit-tenant"
"""In the metadata of a call or a stream."""


def check_tenant(name: str) -> str:
    """The name, if a tenant can have it: the metadata of a call carries it, so it is ASCII.

    Raises:
        ValueError: with the reason.
    """
    if not 1 <= len(name) <= NAME_LENGTH_MAX:
        raise ValueError(f"has {len(name):,} characters; 1 to {NAME_LENGTH_MAX} are allowed")
    if not (name.isascii() and name.isprintable()) or name != name.strip():
        raise ValueError("must be printable ASCII without spaces at its ends")
    return name


def claimed_tenant(context: grpc.aio.ServicerContext[Any, Any]) -> str:
    """The tenant that the call or stream is for.

    Raises:
        ValueError: no tenant can have such a name; says which field it is.
    """
    claims = [value for key, value in context.invocation_metadata() or () if key == TENANT_KEY]
    if not claims:
        return DEFAULT_TENANT
    if len(claims) > 1:
        raise ValueError(f"{TENANT_KEY}: stands {len(claims)} times in the metadata; say it once")
    claim = claims[0]
    try:
        return check_tenant(claim if isinstance(claim, str) else claim.decode())
    except ValueError as error:
        raise ValueError(f"{TENANT_KEY}: {error}") from None


async def tenant_of(context: grpc.aio.ServicerContext[Any, Any]) -> str:
    """The tenant that the call is for; ends the call when no tenant can have such a name."""
    try:
        return claimed_tenant(context)
    except ValueError as error:
        await context.abort(grpc.StatusCode.INVALID_ARGUMENT, str(error))
