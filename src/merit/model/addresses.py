"""HOST:PORT, as it is written in settings and said by workers."""

from __future__ import annotations

import ipaddress
from typing import Final

PORT_MAX: Final = 65_535


def split_address(address: str) -> tuple[str, int]:
    """Host, without the brackets of an IPv6 address, and port.

    Raises:
        ValueError: it is no HOST:PORT; the message quotes it.
    """
    host, colon, port = address.rpartition(":")
    if not colon or not host or not (port.isascii() and port.isdecimal()) or int(port) > PORT_MAX:
        raise ValueError(f"{address!r} is no HOST:PORT, such as 127.0.0.1:50051")
    return host.removeprefix("[").removesuffix("]"), int(port)


def is_loopback(host: str) -> bool:
    """Whether only this machine can be meant. Names are not looked up: of those, localhost alone."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def reachable(address: str) -> str:
    """The address at which somebody on this machine is reached who says that he listens at ``address``: in place of all
    interfaces (0.0.0.0, [::]) that of the loopback.

    Raises:
        ValueError: it is no HOST:PORT.
    """
    host, port = split_address(address)
    if host == "0.0.0.0":  # noqa: S104  (nothing is bound to it here)
        return f"127.0.0.1:{port}"
    return f"[::1]:{port}" if host == "::" else address
