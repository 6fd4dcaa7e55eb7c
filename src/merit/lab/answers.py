"""What simulated workers answer: who has made it, and what it says. What would be right follows from the parameters, so that
the simulator knows it and two honest workers say the same."""

from __future__ import annotations

from hashlib import sha256

import msgspec
from msgspec import Raw, Struct

from merit.model.auditing import Comparison

PROBE = b'{"probe":"do it"}'
"""Parameters of the probes, and of the tasks with a known result, that operators set."""
PROBE_RESULT = b'{"probe":"done"}'
"""What a simulated worker gives as the right result of a probe."""
ALIKE = Comparison(ignore=("/by",))
"""Two answers are the same whoever has made them."""


class GivenAnswer(Struct, omit_defaults=True):
    """``by``: task, attempt, worker and boot. ``ok``: the word of a judge on somebody else's answer."""

    by: str = ""
    says: str = ""
    ok: bool | None = None


class Judged(Struct):
    """What a judge is given."""

    parameters: Raw
    result: Raw


def made_by(task: str, number: int, worker: str, boot: str) -> str:
    """Whose an answer is."""
    return f"{task} {number} {worker} {boot}"


def right_answer(parameters: bytes) -> str:
    """What an honest worker says to parameters of this digest."""
    return parameters.hex()[:12]


def answer(parameters: bytes, by: str, wrong: str = "") -> bytes:
    """The result of a task: an honest one, or ``wrong``. A judge that lies says the contrary, or nothing of use."""
    digest = sha256(parameters).digest()
    if b'"result":' not in parameters:
        return msgspec.json.encode(GivenAnswer(by, wrong or right_answer(digest)))
    judged = msgspec.json.decode(parameters, type=Judged)
    ok = read(bytes(judged.result)).says == right_answer(sha256(judged.parameters).digest())
    if wrong:
        return msgspec.json.encode(GivenAnswer(by, wrong, not ok if wrong == "wrong" else None))
    return msgspec.json.encode(GivenAnswer(by, "", ok))


def read(result: bytes) -> GivenAnswer:
    """An answer; an empty one if it is none of these."""
    return msgspec.json.decode(result, type=GivenAnswer) if result else GivenAnswer()
