"""The how-tos, pasted: each begins with nothing, and is followed from its first block to its last."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from tests.merit_command import ROOT, Fleet, Running, environment, fleet

HOW_TOS = {
    "audit": 2,
    "command-line-agents": 0,
    "delayed-and-recurring": 0,
    "fleet": 0,
    "following-a-task": 0,
    "idempotency": 1,
    "limits-and-pauses": 0,
    "placement": 0,
    "priorities-and-shares": 0,
    "results-as-parameters": 0,
    "retries-and-dead-letters": 4,
    "rollouts": 0,
    "search": 0,
    "submit-and-wait": 0,
    "supervision": 0,
    "time-outs-and-deadlines": 1,
    "time-travel": 0,
    "trails": 1,
    "unary-workers": 0,
    "write-a-worker": 0,
}
"""With the number of their commands that end with 1, since the text is about tasks that fail and submits that are refused."""
SHELL = """
set -e
python() { "$PYTHON" "$@"; }
merit() { python -m merit "$@" || { code=$?; echo failed >> failed; [ $code = 1 ] || exit $code; }; }
"""
BLOCK = re.compile(r"(?:`([\w-]+\.(?:py|toml))`:\n\n)?```(sh|python|toml)\n(.*?)```", re.DOTALL)
"""The file that it goes into, if the text before ends with one; the language; and what it says."""


def run(made: Fleet, words: list[str], block: str) -> str:
    ran = subprocess.run(
        words,
        cwd=made.folder,
        env=environment(MERIT_SERVER=made.server, MERIT_STATE=str(made.state), PYTHON=sys.executable),
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert ran.returncode == 0, f"{block}\n{ran.stdout}\n{ran.stderr}"
    assert "Traceback" not in ran.stderr
    return ran.stdout


def stays(made: Fleet, block: str) -> Running | None:
    """What goes on in a terminal of its own, if it does that."""
    if block == "merit up\n":
        return made.up()
    if not re.match(r"merit worker (--|\S+\.py\b)[^&\n]*\n\Z", block):
        return None
    words = ["-m", *shlex.split(block, comments=True), "--server", made.server]
    worker = Running(words, made.folder, f"worker-{len(made.running)}")
    made.running.append(worker)
    worker.says("attached", "err")
    return worker


@pytest.mark.parametrize(("name", "failing"), HOW_TOS.items())
def test_what_it_shows_works(tmp_path: Path, name: str, failing: int):
    text = (ROOT / "docs" / f"{name}.md").read_text()
    failed = tmp_path / "failed"
    failed.write_text("")
    with fleet(tmp_path) as made:
        for file, language, block in BLOCK.findall(text):
            if file:
                (tmp_path / file).write_text(block)
            elif language == "python":
                assert "@capability" not in block, "nobody knows where this goes"
                assert run(made, [sys.executable, "-c", block], block).strip()
            elif language == "sh" and not stays(made, block):
                run(made, ["bash", "-c", f"{SHELL}\n{block}"], block)
        if "\nmerit worker drain " in text:
            made.running[-1].ended()  # by itself
        for running in reversed(made.running):
            assert running.stop() == 0
    assert len(failed.read_text().split()) == failing


def test_all_are_linked_from_the_readme():
    linked = set(re.findall(r"\(docs/([\w-]+)\.md\)", (ROOT / "README.md").read_text()))
    assert linked == {path.stem for path in (ROOT / "docs").glob("*.md")}
    for path in (ROOT / "docs").glob("*.md"):
        for other in re.findall(r"\]\(([\w-]+\.md)\)", path.read_text()):
            assert (path.parent / other).is_file(), f"{path.name} names {other}"
