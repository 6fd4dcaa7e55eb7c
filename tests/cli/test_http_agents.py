"""`merit worker --http`: the how-to, pasted, with real processes; and what is said of wrong usage."""

import re
import socket
import subprocess
import sys

import pytest

from tests.merit_command import ROOT, Running, environment, fleet, merit, until


def a_free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port: int = found.getsockname()[1]
        return port


def answers(port: int) -> bool:
    with socket.socket() as asking:
        return asking.connect_ex(("127.0.0.1", port)) == 0


def test_the_how_to_works(tmp_path):
    port = a_free_port()
    text = (ROOT / "docs" / "http-agents.md").read_text().replace("8080", str(port))
    blocks = re.findall(r"```(sh|python|toml)\n(.*?)```", text, re.DOTALL)
    assert [language for language, _ in blocks] == ["python", "toml", "sh", "sh", "sh", "sh"]
    (_, service), (_, spec), (_, up), (_, serving), (_, working), (_, submitting) = blocks
    (tmp_path / "thesaurus.py").write_text(service)
    (tmp_path / "thesaurus.toml").write_text(spec)
    assert (up, serving) == ("merit up\n", "python thesaurus.py\n")
    export, worker = working.splitlines()
    (token,) = re.findall(r'^export THESAURUS_TOKEN="(.*)"$', export)
    with fleet(tmp_path) as made:
        made.up()
        made.running.append(Running(["thesaurus.py"], tmp_path, "service"))
        until(lambda: answers(port), "the service listens")
        options = worker.removeprefix("merit ").split()
        words = ["-m", "merit", *options, "--server", made.server, "--name", "w", "--count", "2"]
        made.running.append(Running(words, tmp_path, "worker", THESAURUS_TOKEN=token))
        made.running[-1].says("attached", "err")
        ran = subprocess.run(
            ["bash", "-ec", f'merit() {{ "$PYTHON" -m merit "$@"; }}\n{submitting}'],
            cwd=tmp_path,
            env=environment(MERIT_SERVER=made.server, PYTHON=sys.executable),
            capture_output=True,
            text=True,
            timeout=100,
        )
        assert ran.returncode == 0, ran.stderr
        assert '"result":["fast","rapid"]' in ran.stdout
        assert '["little","tiny"]' in ran.stdout
        assert ran.stdout.endswith("dead at once: 404 says that trying again is pointless\n")
        assert token not in made.running[-1].err
        assert "/words/" not in made.running[-1].err


SPEC = "[[capability]]\nname = 'a'\nheaders.X = '${env:NOT_SET_HERE}'"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--http", "http://127.0.0.1:1"], "--http and --spec belong together"),
        (["--spec", "agent.toml"], "--http and --spec belong together"),
        ([], "name a MODULE, a file of commands with --command, or an agent with --http and --spec"),
        (["--http", "http://127.0.0.1:1", "--spec", "missing.toml"], "missing.toml: No such file"),
        (
            ["--http", "http://127.0.0.1:1", "--spec", "agent.toml"],
            "agent.toml: a: headers.X: the environment variable NOT_SET",
        ),
        (["--http", "127.0.0.1:1", "--spec", "agent.toml"], "the agent's URL: 127.0.0.1:1 must begin with http://"),
    ],
)
def test_wrong_usage_starts_nothing(tmp_path, words, message):
    (tmp_path / "agent.toml").write_text(SPEC)
    ran = merit("worker", *words, cwd=tmp_path)
    assert ran.code == 2
    assert message in ran.err
    assert len(ran.err.splitlines()) == 1
