"""Help: quick, and the same for every command."""

import importlib
import subprocess
import sys
from collections.abc import Iterator

import click
import pytest

from merit.app import state_directory
from merit.app.control_plane import Settings
from merit.cli import command
from merit.cli.command import MeritCommand
from merit.cli.main import COMMANDS, main, merit
from merit.cli.worker import work
from merit.sdk import channel
from tests.merit_command import environment


def commands() -> Iterator[tuple[str, click.Command]]:
    for name in COMMANDS:
        found = getattr(importlib.import_module(f"merit.cli.{name}"), name)
        if isinstance(found, click.Group):
            context = click.Context(found)
            for inner in found.list_commands(context):
                one = found.get_command(context, inner)
                assert one is not None
                yield f"{name} {inner}", one
        else:
            yield name, found


def test_help_loads_no_command():
    program = (
        "import sys\n"
        "from merit.cli.main import main\n"
        "try:\n    main(['--help'])\n"
        "except SystemExit as ended:\n    assert ended.code == 0\n"
        "heavy = {'grpc', 'rich', 'apsw', 'asyncio', 'merit.sdk', 'merit.app'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    ran = subprocess.run(
        [sys.executable, "-c", program], env=environment(), capture_output=True, text=True, check=False
    )
    assert ran.returncode == 0, ran.stderr
    assert all(f"  {name}" in ran.stdout for name in COMMANDS)


@pytest.mark.parametrize(("name", "found"), [pytest.param(*pair, id=pair[0]) for pair in commands()])
def test_each_command_has_an_example_and_json(name: str, found: click.Command, capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit) as ended:
        main([*name.split(), "--help"])
    said = capsys.readouterr().out
    assert ended.value.code == 0
    assert f"merit {name}" in said
    assert "--json" in said
    if isinstance(found, MeritCommand):
        assert "Example:" in said
        assert "Exit codes:" in said


def test_the_help_of_workers_tells_the_kinds_of_agents_apart_and_leaves_no_option_out(
    capsys: pytest.CaptureFixture[str],
):
    with pytest.raises(SystemExit):
        main(["worker", "--help"])
    said = capsys.readouterr().out
    for param in work.params:
        if isinstance(param, click.Option):
            assert said.count(f"\n  {param.opts[0]} ") == 1, param.name
    example = said.partition("Example:")[2].split("\n  ")
    for kind in ("hello", "--command", "--http", "hello --unary"):
        assert any(line.startswith(f"merit worker {kind}") for line in example)


@pytest.mark.parametrize(
    "name", ["", "task", "queue", "dead", "schedule", "capability", "rollout", "journal", "lab", "bench"]
)
def test_a_group_without_arguments_is_its_help(name: str, capsys: pytest.CaptureFixture[str]):
    said = []
    for words in (name.split(), [*name.split(), "--help"]):
        with pytest.raises(SystemExit) as ended:
            main(words)
        assert ended.value.code == 0
        said.append(capsys.readouterr())
    assert said[0] == said[1]
    assert not said[0].err
    *_, heading, example = said[0].out.replace(":\n  merit up\n  merit worker MODULE", ":").splitlines()
    assert heading == "Example:"
    assert example.startswith(f"  merit {name}".rstrip())


def test_an_unknown_command_is_wrong_usage(capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit) as ended:
        main(["fly", "--json"])
    said = capsys.readouterr()
    assert ended.value.code == 2
    assert '"kind":"usage"' in said.out
    assert said.err == "merit: No such command 'fly'; see merit --help\n"


def test_json_behind_two_dashes_is_no_option(capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit):
        main(["fly", "--", "--json"])
    assert capsys.readouterr().out == ""


def test_every_command_can_be_got():
    context = click.Context(merit)
    assert merit.list_commands(context) == list(COMMANDS)
    assert merit.get_command(context, "up") is not None


def test_defaults_are_those_of_the_parts():
    assert channel.DEFAULT_SERVER == command.DEFAULT_SERVER == Settings().grpc
    assert state_directory.DEFAULT == command.DEFAULT_STATE
