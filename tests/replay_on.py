"""Replays the recorded histories under other interpreters: a journal gives the same state everywhere.

    python tests/replay_on.py PYTHON...

Each PYTHON needs what merit.core needs: msgspec. It is run twice, with different seeds of its hashes.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
HISTORIES = ROOT / "tests" / "histories"
SEEDS = ("0", "4711")


def replay_with(python: str, seed: str):
    """What `tests/histories/replay.py` prints under this interpreter and this PYTHONHASHSEED."""
    environment = {**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": str(ROOT / "src")}
    done = subprocess.run(
        [python, str(HISTORIES / "replay.py")],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=100,
    )
    if done.returncode:
        raise RuntimeError(f"{python} with hash seed {seed}:\n{done.stderr}")
    return json.loads(done.stdout)


def disagreements(found):
    """What a replay found, compared with what is recorded; a line for each difference."""
    lines = []
    for path in sorted(HISTORIES.glob("*.json")):
        recorded, replayed = json.loads(path.read_text()), found["histories"][path.stem]
        if recorded["outcome"] != replayed["outcome"]:
            lines.append(f"{path.stem}: tasks end otherwise than they did: {replayed['outcome']}")
        if recorded["fold_version"] != found["fold_version"]:
            lines.append(
                f"{path.stem}: FOLD_VERSION went up from {recorded['fold_version']} to {found['fold_version']}: "
                "run python -m tests.histories.record --digests"
            )
        elif recorded["digest"] != replayed["digest"]:
            lines.append(
                f"{path.stem}: the state has digest {replayed['digest'][:16]}, not {recorded['digest'][:16]}: the same "
                "events give another state. If that is meant, FOLD_VERSION in merit.core.codec has to go up"
            )
    return lines


def main():
    wrong = 0
    for python in sys.argv[1:]:
        for seed in SEEDS:
            found = replay_with(python, seed)
            lines = disagreements(found)
            wrong += len(lines)
            says = "agrees" if not lines else "\n  ".join(["differs:", *lines])
            sys.stdout.write(f"{found['python']} with hash seed {seed}: {len(found['histories'])} histories, {says}\n")
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    main()
