"""What every adapter of the blobs' port must do."""

from __future__ import annotations

from collections.abc import Callable
from hashlib import sha256

import pytest

from merit.ports.blobs import BlobMissing, Blobs, BlobTooLarge

OpenBlobs = Callable[[int], Blobs]
"""Opens an empty store with this bound of bytes per blob."""

HOSTILE_TENANTS = (
    "..",
    ".",
    "../other",
    "/etc",
    "a/b",
    "a\\b",
    "a\0b",
    "A",
    "a",
    "%41",
    "ä",
    "con",
    " ",
    "~",
    "a" * 80,
)
"""Names that must be kept apart and must not lead out of the store."""


class BlobContract:
    """Subclass it and override the fixture `open_blobs`."""

    @pytest.fixture
    def open_blobs(self) -> OpenBlobs:
        """Opens the store that is tested."""
        raise NotImplementedError

    @pytest.fixture
    def blobs(self, open_blobs: OpenBlobs) -> Blobs:
        """A store with a bound of 1 MB."""
        return open_blobs(1_000_000)

    @pytest.mark.parametrize("data", [b"", b"x", bytes(range(256)) * 1000])
    def test_what_is_put_is_got(self, blobs: Blobs, data: bytes) -> None:
        """Under its SHA-256 digest."""
        digest = blobs.put("tenant", data)
        assert digest == sha256(data).hexdigest()
        assert blobs.get("tenant", digest) == data
        assert blobs.has("tenant", digest)

    def test_the_same_again_changes_nothing(self, blobs: Blobs) -> None:
        """Also many times."""
        digests = {blobs.put("tenant", b"same") for _ in range(3)}
        assert len(digests) == 1
        assert blobs.get("tenant", digests.pop()) == b"same"

    def test_what_is_missing_is_named(self, blobs: Blobs) -> None:
        """With tenant and digest."""
        digest = sha256(b"never put").hexdigest()
        assert not blobs.has("tenant", digest)
        with pytest.raises(BlobMissing, match=digest):
            blobs.get("tenant", digest)

    def test_tenants_do_not_see_each_other(self, blobs: Blobs) -> None:
        """Not even when the bytes are the same, and whatever they are called."""
        digests = {}
        for tenant in HOSTILE_TENANTS:
            digest = sha256(b"secret").hexdigest()
            assert not blobs.has(tenant, digest)
            digests[tenant] = blobs.put(tenant, b"secret")
        for tenant in HOSTILE_TENANTS:
            own = blobs.put(tenant, tenant.encode())
            assert [other for other in HOSTILE_TENANTS if blobs.has(other, own)] == [tenant]

    def test_the_bound_holds(self, open_blobs: OpenBlobs) -> None:
        """Exactly."""
        blobs = open_blobs(10)
        digest = blobs.put("tenant", b"x" * 10)
        assert blobs.get("tenant", digest) == b"x" * 10
        with pytest.raises(BlobTooLarge, match="10 bytes"):
            blobs.put("tenant", b"x" * 11)

    @pytest.mark.parametrize("tenant", ["", "a" * 81, "\ud800"])
    def test_a_tenant_must_have_a_name(self, blobs: Blobs, tenant: str) -> None:
        """Not empty, not too long, and text."""
        with pytest.raises(ValueError, match="tenant"):
            blobs.put(tenant, b"x")
        with pytest.raises(ValueError, match="tenant"):
            blobs.get(tenant, "0" * 64)

    @pytest.mark.parametrize("digest", ["", "0" * 63, "0" * 65, "A" * 64, "../" * 20 + "0000", "0" * 64 + "\n"])
    def test_a_digest_must_be_one(self, blobs: Blobs, digest: str) -> None:
        """So that it leads nowhere else."""
        with pytest.raises(ValueError, match="digest"):
            blobs.get("tenant", digest)
        with pytest.raises(ValueError, match="digest"):
            blobs.has("tenant", digest)
