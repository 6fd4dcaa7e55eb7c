"""`merit up --store`, and the how-to about it, pasted with a private PostgreSQL in the place of the one that it names."""

import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from merit.testing.processes import free_port
from tests.merit_command import ROOT, Fleet, Running, environment, fleet, merit

PLACES = ("127.0.0.1:50051", "127.0.0.1:50052")
URL = "postgresql://merit@127.0.0.1/merit"


def test_the_how_to_works(postgres_url: str, tmp_path: Path):
    text = (ROOT / "docs" / "high-availability.md").read_text().replace(URL, f"'{postgres_url}'")
    for place in PLACES:
        text = text.replace(place, f"127.0.0.1:{free_port()}")
    blocks = [block for _, block in re.findall(r"```(sh|python)\n(.*?)```", text, re.DOTALL)]
    starts = [block for block in blocks if block.startswith("merit up")]
    working = next(block for block in blocks if block.startswith("merit worker"))
    agent = next(block for block in blocks if "@capability" in block)
    submits = next(block for block in blocks if "merit submit" in block)
    servers = re.search(r"MERIT_SERVER=(\S+)", submits)
    assert servers is not None
    with fleet(tmp_path) as made:
        nodes: list[Running] = []
        for start, says in zip(starts, ("ready: gRPC on", "standby: "), strict=True):
            nodes.append(Running(["-m", *shlex.split(start)], tmp_path, f"node-{len(nodes)}"))
            made.running += nodes[-1:]
            nodes[-1].says(says)
        (tmp_path / "agent.py").write_text(agent)
        made.running.append(Running(["-m", *shlex.split(working)], tmp_path, "worker"))
        made.running[-1].says("attached", "err")
        shell = f'set -e; merit() {{ "{sys.executable}" -m merit "$@"; }}\n{submits}'
        ran = subprocess.run(["bash", "-c", shell], cwd=tmp_path, env=environment(), capture_output=True, text=True)
        assert ran.returncode == 0, ran.stderr
        assert "hello world" in ran.stdout
        assert nodes[0].stop() == 0
        nodes[1].says("ready: gRPC on")
        program = next(block for block in blocks if "with Client(" in block)
        ran = subprocess.run(
            [sys.executable, "-c", program], cwd=tmp_path, env=environment(), capture_output=True, text=True
        )
        assert ran.returncode == 0, ran.stderr
        assert "hello world" in ran.stdout
        assert nodes[1].stop() == 0
        for node in nodes:
            assert "Traceback" not in node.err
            assert postgres_url not in node.err + node.out


def test_each_says_in_one_document_what_it_is(postgres_url: str, made: Fleet):
    nodes = []
    for name in ("a", "b"):
        words = ["-m", "merit", "up", "--state", name, "--grpc", "127.0.0.1:0", "--json"]
        nodes.append(Running(words, made.folder, name, MERIT_STORE=postgres_url))
        made.running += nodes[-1:]
        nodes[-1].says("\n")
    first, second = (json.loads(node.out) for node in nodes)
    assert (first["epoch"], first["pid"], first["state"]) == (1, nodes[0].pid, "a")
    assert (second["standby"], second["pid"]) == (True, nodes[1].pid)
    assert second["leader"].endswith(f"-{nodes[0].pid}")
    assert nodes[1].stop() == 0, "one that stands by ends when it is asked to"
    assert nodes[0].stop() == 0


@pytest.fixture
def made(tmp_path: Path):
    with fleet(tmp_path) as made:
        yield made


@pytest.mark.parametrize(
    ("words", "code", "kind", "about"),
    [
        (["--store", "mysql://x/y"], 2, "store", "postgresql://user@host/database"),
        (["--store", "postgresql://me:secret@127.0.0.1:1/d"], 1, "journal_unavailable", "cannot be reached"),
        (["--store", "postgresql://me:secret@127.0.0.1:1/d", "--lease", "10ms"], 2, "lease", "--lease"),
    ],
    ids=["of-something-else", "not-there", "too-short"],
)
def test_what_cannot_be_is_said_at_once_and_no_password_with_it(
    tmp_path: Path, words: list[str], code: int, kind: str, about: str
):
    ran = merit("up", "--grpc", "127.0.0.1:0", "--json", *words, cwd=tmp_path)
    assert (ran.code, ran.json["error"]["kind"]) == (code, kind)
    assert about in ran.json["error"]["message"]
    assert "secret" not in ran.out + ran.err
