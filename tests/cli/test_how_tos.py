"""The how-tos about the queue, pasted: the agents that they show are offered, their commands and programs are run."""

import re
import shlex
import subprocess
import sys
from collections.abc import Iterator

import pytest

from tests.merit_command import ROOT, Fleet, Running, environment, fleet

HOW_TOS = {
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
    "time-outs-and-deadlines": 1,
    "time-travel": 0,
    "trails": 1,
    "unary-workers": 0,
}
"""With the number of their commands that end with 1, since the text is about tasks that fail and submits that are refused."""
SHELL = """
set -e
merit() { "$PYTHON" -m merit "$@" || { code=$?; echo failed >> failed; [ $code = 1 ] || exit $code; }; }
"""


@pytest.fixture(scope="module")
def greeting(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    with fleet(tmp_path_factory.mktemp("how-tos")) as made:
        made.up()
        made.worker("greeter", module=str(ROOT / "examples" / "hello" / "agent.py"))
        yield made


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


@pytest.mark.parametrize(("name", "failing"), HOW_TOS.items())
def test_what_it_shows_works(greeting: Fleet, name: str, failing: int):
    text = (ROOT / "docs" / f"{name}.md").read_text()
    blocks = re.findall(r"```(sh|python)\n(.*?)```", text, re.DOTALL)
    agents = [block for language, block in blocks if language == "python" and "@capability" in block]
    failed = greeting.folder / "failed"
    failed.write_text("")
    worker: Running | None = None
    if agents:
        module = greeting.folder / f"{name.replace('-', '_')}_agent.py"
        module.write_text("\n".join(agents))
        starts = [
            block for language, block in blocks if language == "sh" and block.startswith(f"merit worker {module.name}")
        ]
        blocks = [(language, block) for language, block in blocks if block not in starts]
        options = shlex.split(starts[0])[3:] if starts else []
        worker = greeting.worker(f"for-{name}", *options, module=str(module))
    try:
        for language, block in blocks:
            if language == "sh":
                run(greeting, ["bash", "-c", f"{SHELL}\n{block}"], block)
            elif block not in agents:
                assert run(greeting, [sys.executable, "-c", block], block).strip()
    finally:
        if worker is not None:
            assert worker.stop() == 0
    assert len(failed.read_text().split()) == failing


def test_all_are_linked_from_the_readme():
    linked = set(re.findall(r"\(docs/([\w-]+)\.md\)", (ROOT / "README.md").read_text()))
    assert linked == {path.stem for path in (ROOT / "docs").glob("*.md")}
    for path in (ROOT / "docs").glob("*.md"):
        for other in re.findall(r"\]\(([\w-]+\.md)\)", path.read_text()):
            assert (path.parent / other).is_file(), f"{path.name} names {other}"
