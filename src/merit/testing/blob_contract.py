"""What every adapter of the blobs' port must do."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from hashlib import sha256

import pytest

from merit.ports.blobs import TOUCH_NS, BlobMissing, Blobs, BlobTooLarge

OpenBlobs = Callable[[int, Callable[[], int]], Blobs]
"""Opens the store with this bound of bytes per blob and this clock; the same one again when it is called again."""

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


DAY_NS = 24 * 3600 * 1_000_000_000


class SetClock:
    """Unix time in nanoseconds, as it is set."""

    def __init__(self) -> None:
        self.now_ns = time.time_ns()

    def __call__(self) -> int:
        return self.now_ns


def nobody(_tenant: str, _digest: str) -> bool:
    """Keeps anything."""
    return False


class BlobContract:
    """Subclass it and override the fixture `open_blobs`."""

    @pytest.fixture
    def open_blobs(self) -> OpenBlobs:
        """Opens the store that is tested."""
        raise NotImplementedError

    @pytest.fixture
    def blobs(self, open_blobs: OpenBlobs) -> Blobs:
        """A store with a bound of 1 MB."""
        return open_blobs(1_000_000, time.time_ns)

    @pytest.fixture
    def clock(self) -> SetClock:
        """For the stores whose time matters."""
        return SetClock()

    @pytest.fixture
    def aging(self, open_blobs: OpenBlobs, clock: SetClock) -> Blobs:
        """A store that goes by ``clock``."""
        return open_blobs(1_000_000, clock)

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
        blobs = open_blobs(10, time.time_ns)
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
        with pytest.raises(ValueError, match="digest"):
            blobs.touch("tenant", digest)

    # Sweeping

    def test_what_nobody_has_touched_for_long_goes(self, aging: Blobs, clock: SetClock) -> None:
        """And nothing else does: not what was put, put again or touched since, nor what is kept."""
        digests = {name: aging.put("tenant", name.encode()) for name in ("old", "again", "touched", "kept")}
        other = aging.put("Ä/..", b"kept")
        clock.now_ns += DAY_NS
        aging.put("tenant", b"again")
        aging.touch("tenant", digests["touched"])
        digests["new"] = aging.put("tenant", b"new")
        kept = {("tenant", digests["kept"])}
        assert aging.sweep(clock.now_ns - DAY_NS, nobody, 100) == 0, "none is older than that"
        assert aging.sweep(clock.now_ns - TOUCH_NS, lambda *at: at in kept, 100) == 2
        assert {name for name, digest in digests.items() if aging.has("tenant", digest)} == digests.keys() - {"old"}
        assert not aging.has("Ä/..", other)
        with pytest.raises(BlobMissing, match=digests["old"]):
            aging.get("tenant", digests["old"])
        assert aging.put("tenant", b"old") == digests["old"]
        assert aging.get("tenant", digests["old"]) == b"old"

    def test_what_is_kept_counts_as_touched(self, aging: Blobs, clock: SetClock) -> None:
        """So that it stays for its time when nobody keeps it any more."""
        digest = aging.put("tenant", b"x")
        clock.now_ns += DAY_NS
        assert aging.sweep(clock.now_ns - TOUCH_NS, lambda *_: True, 100) == 0
        assert aging.sweep(clock.now_ns - TOUCH_NS, nobody, 100) == 0
        clock.now_ns += DAY_NS
        assert aging.sweep(clock.now_ns - TOUCH_NS, nobody, 100) == 1
        assert not aging.has("tenant", digest)

    def test_small_portions_come_to_everything(self, aging: Blobs, clock: SetClock) -> None:
        """Also when others have to stay, and when more comes in between."""
        old = [aging.put("tenant", b"old %d" % number) for number in range(20)]
        stay = set(old[::3])
        clock.now_ns += DAY_NS
        young = [aging.put("tenant", b"young %d" % number) for number in range(20)]
        removed = []
        for number in range(60):
            removed.append(aging.sweep(clock.now_ns - TOUCH_NS, lambda _, digest: digest in stay, 3))
            young.append(aging.put("tenant", b"younger %d" % number))
        assert max(removed) <= 3
        assert sum(removed) == len(old) - len(stay)
        assert all(aging.has("tenant", digest) for digest in [*young, *stay])

    def test_nothing_is_there_to_be_swept_or_touched(self, aging: Blobs) -> None:
        """As in a store that was never used."""
        assert aging.sweep(2**62, nobody, 10) == 0
        with pytest.raises(BlobMissing, match="--keep"):
            aging.touch("tenant", "0" * 64)

    def test_what_was_touched_while_it_was_swept_is_there(self, open_blobs: OpenBlobs, clock: SetClock) -> None:
        """Whoever could touch it finds it then, however the two meet; whoever could not puts it again."""
        sweeper, door = open_blobs(1_000, clock), open_blobs(1_000, clock)
        for number in range(60):
            digests = [door.put("tenant", b"%d of %d" % (one, number)) for one in range(8)]
            clock.now_ns += DAY_NS
            start = threading.Barrier(2)

            def sweep(start: threading.Barrier = start) -> None:
                start.wait(10)
                while sweeper.sweep(clock.now_ns - TOUCH_NS, nobody, 8):
                    pass

            thread = threading.Thread(target=sweep)
            thread.start()
            start.wait(10)
            touched = [digest for digest in digests[:: 1 if number % 2 else -1] if _touches(door, digest)]
            thread.join(10)
            assert not thread.is_alive()
            assert [digest for digest in digests if door.has("tenant", digest)] == sorted(touched, key=digests.index)

    def test_whoever_touches_it_right_before_it_goes_keeps_it(self, open_blobs: OpenBlobs, clock: SetClock) -> None:
        """When the sweep has already found it old."""
        sweeper, door = open_blobs(1_000, clock), open_blobs(1_000, clock)
        digest = door.put("tenant", b"x")
        clock.now_ns += DAY_NS

        def keeps(tenant: str, asked: str) -> bool:
            door.touch(tenant, asked)
            return False

        assert sweeper.sweep(clock.now_ns - TOUCH_NS, keeps, 10) == 0
        assert door.get("tenant", digest) == b"x"


def _touches(blobs: Blobs, digest: str) -> bool:
    try:
        blobs.touch("tenant", digest)
    except BlobMissing:
        return False
    return True
