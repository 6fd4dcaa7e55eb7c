"""What is kept beside the journal of a simulated cell, with bounds so small that all of them are met."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from random import Random

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from merit.app import follower, retaining
from merit.gateway import portions
from merit.lab.instead import instead
from merit.lab.turns import threads_take_turns
from merit.model.limits import MILLISECOND_NS
from merit.model.retention import Retention
from merit.ports.read_model import Portion
from merit.ports.signer import SignerUnavailable
from merit.runtime.anchoring import Anchoring
from merit.storage import segments
from merit.storage.memory_archive import MemoryArchive
from merit.storage.memory_read_model import MemoryReadModel
from merit.storage.memory_snapshots import MemorySnapshots


class SimulatedSigner:
    """A `Signer` that is the same in all worlds."""

    def __init__(self) -> None:
        self._key = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
        self.public_key = self._key.public_key().public_bytes_raw()

    def sign(self, data: bytes) -> bytes:
        """See `Signer.sign`."""
        return self._key.sign(data)


class SometimesSigns:
    """A `Signer` with the key of another one, which is not there when ``fails`` says so."""

    def __init__(self, signer: SimulatedSigner, fails: Callable[[], bool]) -> None:
        self._signer = signer
        self._fails = fails
        self.public_key = signer.public_key

    def sign(self, data: bytes) -> bytes:
        """See `Signer.sign`."""
        if self._fails():
            raise SignerUnavailable("the key is not there: restore it")
        return self._signer.sign(data)


class Kept:
    """It outlives all processes."""

    def __init__(self, rng: Random, cell: str) -> None:
        keep_s = rng.choice((0.05, 0.3, 1.0))
        usual = Retention()
        self.retention = Retention(
            journal_keep_s=keep_s,
            audit_horizon_s=keep_s * rng.choice((0.3, 1)),
            journal_bytes_max=rng.choice((usual.journal_bytes_max, 4_000)),
            archive_bytes_max=usual.archive_bytes_max if rng.random() < 0.8 else 3_000,
            snapshots_bytes_max=rng.choice((usual.snapshots_bytes_max, 10_000)),
        )
        self.snapshot_events = rng.choice((5, 20, 60))
        self.looked_at_max = rng.choice((10_000, 3))
        self.snapshots = MemorySnapshots()
        self.archive = MemoryArchive(cell)
        self.read_model = MemoryReadModel()
        self._portions: list[Portion] = []
        self.signer = SimulatedSigner()

    def reader(self) -> MemoryReadModel:
        """The read model, opened to be asked."""
        return self.read_model.opened(self.looked_at_max)

    def written(self, portion: Portion) -> None:
        """A portion has come into the read model."""
        self._portions.append(portion)

    def cut_power(self, rng: Random, safe: int) -> None:
        """The read model loses what came into it last, but for what is known up to the event ``safe``, which is older."""
        durable = sum(1 for portion in self._portions if portion.after < safe)
        del self._portions[rng.randint(durable, len(self._portions)) :]
        self.read_model.clear()
        for portion in self._portions:
            self.read_model.write(portion)


@contextmanager
def small_portions(seed: int) -> Iterator[None]:
    """While it lasts, everything is cut into small pieces, in every second world even smaller ones."""
    with ExitStack() as stack:
        stack.enter_context(threads_take_turns())
        for place, name, value in (
            (follower, "PORTION_EVENTS", 8 + 20 * (seed % 2)),
            (follower, "SNAPSHOT_EVENTS_AT_END", 10),
            (follower, "_ANCHOR_NS", 200 * MILLISECOND_NS),
            (follower, "Anchoring", partial(Anchoring, records_max=3 + 5 * (seed % 2))),
            (retaining, "ARCHIVED_AT_A_TIME", 8 + 20 * (seed % 2)),
            (segments, "SEGMENT_RECORDS_MAX", 4),
            (portions, "PORTION", 3),
        ):
            stack.enter_context(instead(place, name, value))
        yield
