"""Parameters that are results of other tasks."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from merit.model.limits import PAYLOAD_BYTES_MAX
from merit.sdk.schema import InvalidInput

_decode = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode


def with_inputs(parameters: bytes, inputs: Iterable[tuple[str, bytes]]) -> bytes:
    """A JSON object with more members, each a name and a JSON value. Contents are passed on as they are.

    Raises:
        InvalidInput: there is no object, a name stands in it already, or all together is too large.
    """
    try:
        members = _decode(parameters)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidInput(f"parameters: not a JSON object: {error}") from None
    size_bytes = len(parameters)
    for name, value in inputs:
        if name in members:
            raise InvalidInput(f"{name}: is both a parameter and an input; leave it out of one of them")
        size_bytes += len(value)
        check_size(size_bytes)
        members[name] = msgspec.Raw(value or b"null")
    return msgspec.json.encode(members)


def check_size(size_bytes: int) -> None:
    """Raise ``InvalidInput`` when parameters and inputs are too large together."""
    if size_bytes > PAYLOAD_BYTES_MAX:
        raise InvalidInput(
            f"parameters: more than {PAYLOAD_BYTES_MAX:,} bytes with the inputs; let tasks pass on where a content is"
        )
