"""Makes those checks of results that have no bound of their own, in a process apart: ``python -m merit.app.audit_reports``.
It is started by ``merit.gateway.auditing_process``, says what it has to say on stdout, and ends with whoever started it."""

from __future__ import annotations

import contextlib
import os
import resource
import signal
import sys
from typing import BinaryIO, Final

import msgspec

from merit.app.plug_ins import load_plug_ins
from merit.auditing.catalogue import AUDITORS
from merit.gateway.audit_items import LENGTH, AuditBatch
from merit.gateway.audit_rules import Auditing
from merit.pools.tether import tether

GROUP: Final = "merit.auditors"
"""Of entry points, each the name of an auditor and what makes one (``MakeAuditor``)."""
_MEMORY_BYTES_MAX: Final = 2 * 1024**3
"""Of addresses; who wants more is ended."""


def main() -> None:
    """Answer until stdin ends."""
    tether()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a Ctrl-C is for the control plane, which then ends this one
    with contextlib.suppress(ValueError, OSError):  # not everywhere can it be bounded
        resource.setrlimit(resource.RLIMIT_AS, (_MEMORY_BYTES_MAX, _MEMORY_BYTES_MAX))
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    # What auditors print is not for the control plane.
    with os.fdopen(os.dup(1), "wb") as said:
        os.dup2(2, 1)
        _answer(sys.stdin.buffer, said, Auditing(load_plug_ins(GROUP, "auditor", AUDITORS)))


def _answer(asked: BinaryIO, said: BinaryIO, auditing: Auditing) -> None:
    decode, encode = msgspec.msgpack.Decoder(AuditBatch).decode, msgspec.msgpack.Encoder().encode

    def say(answer: object) -> None:
        data = encode(answer)
        said.write(LENGTH.pack(len(data)) + data)
        said.flush()

    while head := asked.read(LENGTH.size):
        (length,) = LENGTH.unpack(head)
        batch = decode(asked.read(length))
        problem = auditing.problem(batch.policy)
        say(problem)
        if not problem.reason:
            for item in batch.items:
                say(auditing.findings(batch.policy, item))


if __name__ == "__main__":
    main()
