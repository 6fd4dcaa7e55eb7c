"""What lies where in the directory in which a control plane keeps its state."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import msgspec

from merit.kernel.quarantine import Quarantine, Stopped
from merit.storage.durable_files import write_durably

DEFAULT: Final = Path(".merit")
CELL: Final = "cell-1"


class _QuarantineFile(msgspec.Struct):
    digests: list[str] = []
    tasks: list[str] = []
    reasons: list[str] = []


class StateDirectory:
    """Names the parts; makes nothing by itself."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.journal = path / "journal"
        self.snapshots = path / "snapshots"
        self.blobs = path / "blobs"
        self.archive = path / "archive.sqlite3"
        self.read_model = path / "read-model.sqlite3"
        self.key = path / "control-plane.key"
        self.quarantine_file = path / "quarantine.json"

    def quarantine(self) -> Quarantine:
        """What stopped the cell before; the file may be edited by a person who knows better.

        Raises:
            ValueError: the file is not what it should be.
        """
        kept = self._kept()
        return Quarantine(frozenset(kept.digests), tuple(kept.tasks))

    def set_aside(self, stopped: Stopped) -> None:
        """Durably note what stopped the cell, so that it cannot stop the next start too."""
        kept = self._kept()
        if stopped.digest:
            kept.digests.append(stopped.digest)
        if stopped.task:
            kept.tasks.append(stopped.task)
        kept.reasons.append(str(stopped))
        write_durably(self.quarantine_file, msgspec.json.format(msgspec.json.encode(kept)), self.path)

    def _kept(self) -> _QuarantineFile:
        try:
            return msgspec.json.decode(self.quarantine_file.read_bytes(), type=_QuarantineFile)
        except FileNotFoundError:
            return _QuarantineFile()
        except msgspec.MsgspecError as error:
            raise ValueError(f"{self.quarantine_file}: {error}; mend the file, or remove it") from error
