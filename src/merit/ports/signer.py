"""The port of the control plane's key: what it signs, anybody can verify with the public half."""

from __future__ import annotations

from typing import Protocol


class SignerUnavailable(Exception):
    """The key cannot be had; the message names the place and what to do."""


class Signer(Protocol):
    """Signs with Ed25519 (RFC 8032)."""

    @property
    def public_key(self) -> bytes:
        """The public half, 32 bytes."""
        ...

    def sign(self, data: bytes) -> bytes:
        """The signature of `data`, 64 bytes."""
        ...
