import asyncio
import inspect
import json
import os
import re
import sys
import time
from pathlib import Path

import msgspec
import psutil
import pytest
from hypothesis import given
from hypothesis import strategies as st

from merit.model.workers import Amount
from merit.sdk.command_line import CommandFailed, CommandSpecification, command_line, load_commands
from merit.sdk.execution import Job
from merit.sdk.runner import Runner
from merit.sdk.schema import CapabilityError, InvalidInput

HOW_TO = Path(__file__).resolve().parents[2] / "docs" / "command-line-agents.md"
WAIT_S = 30
PYTHON = sys.executable
SHOW_ARGUMENTS = "import json, sys; print(json.dumps(sys.argv[1:]))"


def python(program, *arguments, **options):
    parameters = options.pop("parameters", {})
    literal = program.replace("{", "{{").replace("}", "}}")
    return command_line("program", [PYTHON, "-c", literal, *arguments], parameters, **options)


async def run(capability, **arguments):
    """As a worker does it: through the decoder, and through the encoder."""
    signature = capability.signature
    value = await capability(**signature.decode(json.dumps(arguments).encode()))
    return json.loads(signature.encode(value))


def gone(pid):
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


async def until(condition):
    async with asyncio.timeout(WAIT_S):
        while not condition():
            await asyncio.sleep(0.005)


async def test_text_comes_back_with_the_exit_code():
    result = await run(python("import sys; print('hello'); print('careful', file=sys.stderr)"))
    assert (result["exit_code"], result["stdout"], result["stderr"]) == (0, "hello\n", "careful\n")
    assert result["stdout_replaced"] is False
    assert result["duration_s"] > 0


NASTY = [
    "a b", "a;b", "$(id)", "`id`", "a\nb", "'", '"', "\\", "*", "~", "{path}", "{{", "", "é\U0001f600", "a | b > c", "%s", "--",
    "-rf", "--output=x", "x" * 50_000,
]  # fmt: skip


@pytest.mark.parametrize("value", NASTY)
async def test_a_parameter_is_one_argument_whatever_is_in_it(value):
    echo = python(
        SHOW_ARGUMENTS, "--file={path}", "<{path}|{path}>", "--", "{path}", parameters={"path": str}, output="json"
    )
    result = await run(echo, path=value)
    assert result["stdout"] == [f"--file={value}", f"<{value}|{value}>", "--", value]


@given(st.lists(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0")), min_size=2, max_size=2))
def test_filling_never_splits_or_joins(values):
    a, b = values
    made = python("", "--", "{a}", "x{a}{b}", "{{a}}", "{b}", parameters={"a": str, "b": str})
    command = made.function.__closure__[0].cell_contents
    assert command.filled({"a": a, "b": b}) == [PYTHON, "-c", "", "--", a, f"x{a}{b}", "{a}", b]


@pytest.mark.parametrize("value", ["-x", "--help", "-", "--"])
async def test_a_value_cannot_become_an_option_unless_declared(value):
    with pytest.raises(InvalidInput, match=r"path: .* would be read as an option"):
        await run(python(SHOW_ARGUMENTS, "{path}", parameters={"path": str}), path=value)
    allowed = python(SHOW_ARGUMENTS, "{path}", parameters={"path": str}, options=["path"], output="json")
    assert (await run(allowed, path=value))["stdout"] == [value]


async def test_a_double_dash_that_comes_from_a_parameter_protects_nothing():
    made = python(SHOW_ARGUMENTS, "{first}", "{second}", parameters={"first": str, "second": str}, options=["first"])
    with pytest.raises(InvalidInput, match=r"second: "):
        await run(made, first="--", second="-x")


async def test_numbers_and_booleans_are_written_as_text():
    made = python(SHOW_ARGUMENTS, "{n}", "{r}", "{b}", parameters={"n": (int, 3), "r": float, "b": bool}, output="json")
    assert (await run(made, r=0.5, b=True))["stdout"] == ["3", "0.5", "true"]
    with pytest.raises(InvalidInput, match=r"n: .* would be read as an option"):
        await run(made, n=-1, r=0.5, b=True)


async def test_a_nul_character_is_refused():
    with pytest.raises(InvalidInput, match=r"path: .*NUL"):
        await run(python(SHOW_ARGUMENTS, "{path}", parameters={"path": str}), path="a\0b")


async def test_an_argument_longer_than_the_system_takes_fails_with_the_reason():
    with pytest.raises(CommandFailed, match=r"cannot be started"):
        await run(python(SHOW_ARGUMENTS, "x{path}", parameters={"path": str}), path="x" * 10_000_000)


@pytest.mark.parametrize(
    ("argv", "parameters", "options", "message"),
    [
        ("ls -l", {}, {}, "c: argv must be a list"),
        ([], {}, {}, "c: argv must be a list"),
        (["{p}"], {"p": str}, {}, r"c: argv\[0\], the program"),
        (["ls", "{q}"], {"p": str}, {}, "c: placeholder {q} has no parameter"),
        (["ls"], {"p": str}, {}, "c: parameter 'p' is used neither"),
        (["ls", "{}"], {}, {}, "a placeholder is {name}"),
        (["ls", "{p.__class__}"], {"p": str}, {}, "a placeholder is {name}"),
        (["ls", "{p!r}"], {"p": str}, {}, "a placeholder is {name}"),
        (["ls", "{p:>9}"], {"p": str}, {}, "a placeholder is {name}"),
        (["ls", "{p"], {"p": str}, {}, "c: '{p'"),
        (["ls\0"], {}, {}, "NUL"),
        (["sh", "-c", "ls {p}"], {"p": str}, {}, "{p} stands inside a shell script"),
        (["env", "/bin/bash", "-xc", "ls {p}"], {"p": str}, {}, "{p} stands inside a shell script"),
        (["ls", "{p}"], {"p": str}, {"options": ["q"]}, "options names 'q'"),
        (["ls"], {}, {"output": "xml"}, "output must be one of"),
        (["ls"], {}, {"timeout_s": 0}, "timeout_s must be"),
        (["ls"], {}, {"timeout_s": float("nan")}, "timeout_s must be"),
        (["ls"], {}, {"output_bytes_max": -1}, "output_bytes_max must"),
        (["ls"], {"a-b": str}, {}, "parameter 'a-b' is not a name"),
        (["ls", "{p}"], {"p": {"type": "text"}}, {}, "c: parameter 'p': type must be one of"),
        (["ls", "{p}"], {"p": {"type": "string", "format": "uri"}}, {}, "keyword format is not supported"),
        (["ls", "{p}"], {"p": {"enum": []}}, {}, "c: parameter 'p': enum must be"),
        (["ls"], {"type": "object", "properties": {}, "oneOf": []}, {}, "oneOf is not supported"),
        (
            ["ls", "{p}"],
            {"type": "object", "properties": {"p": {"type": "string"}}},
            {},
            "'p' must be required or have",
        ),
    ],
)
def test_declarations_that_do_not_fit_together_are_refused(argv, parameters, options, message):
    with pytest.raises(CapabilityError, match=message):
        command_line("c", argv, parameters, **options)


async def test_a_shell_script_takes_parameters_as_its_arguments():
    made = command_line("c", ["sh", "-c", 'printf "<%s>" "$1"', "sh", "{p}"], {"p": str})
    assert (await run(made, p="$(id); `id`"))["stdout"] == "<$(id); `id`>"


async def test_lines_end_at_line_feeds_only():
    program = r"import sys; sys.stdout.write('a\r\nb\x0cc\u2028d\n\ne')"
    assert (await run(python(program, output="lines", env={"PYTHONUTF8": "1"})))["stdout"] == [
        "a",
        "b\x0cc\u2028d",
        "",
        "e",
    ]
    assert (await run(python("", output="lines")))["stdout"] == []


async def test_bytes_that_are_not_text_are_replaced_and_it_is_said():
    result = await run(python(r"import sys; sys.stdout.buffer.write(b'a\xffb')"))
    assert (result["stdout"], result["stdout_replaced"]) == ("a\ufffdb", True)
    result = await run(python(r"import sys; sys.stdout.buffer.write('\ufffd'.encode())"))
    assert (result["stdout"], result["stdout_replaced"]) == ("\ufffd", False)


async def test_json_is_parsed_or_refused():
    assert (await run(python("print('{\"a\": [1, null]}')", output="json")))["stdout"] == {"a": [1, None]}
    for bad in ("print('{')", "print('NaN')", "", "print('[' * 100000)"):
        with pytest.raises(CommandFailed, match=r"is not JSON"):
            await run(python(bad, output="json"))


async def test_standard_input_is_a_template_or_json_or_nothing():
    copy = "import sys; sys.stdout.write(sys.stdin.read())"
    assert (await run(python(copy)))["stdout"] == ""
    text = python(copy, parameters={"text": str}, stdin="<{text}>")
    assert (await run(text, text="a\0b $x " + "é" * 300_000))["stdout"] == "<a\0b $x " + "é" * 300_000 + ">"
    as_json = python(copy, parameters={"a": list[int], "b": (str, "x")}, stdin="json", output="json")
    assert (await run(as_json, a=[1, 2]))["stdout"] == {"a": [1, 2], "b": "x"}


async def test_a_program_that_does_not_read_its_input_is_no_failure():
    made = python("print('done')", parameters={"text": str}, stdin="{text}")
    assert (await run(made, text="x" * 5_000_000))["stdout"] == "done\n"


async def test_exit_codes():
    program = "import sys; print('x' * 9000 + 'the end', file=sys.stderr); sys.exit(3)"
    with pytest.raises(CommandFailed, match=r"ended with exit code 3; standard error ends with: .*the end$") as raised:
        await run(python(program))
    assert len(str(raised.value)) < 3_000
    result = await run(python(program, ok_codes=[0, 3]))
    assert result["exit_code"] == 3
    assert len(result["stderr"]) == 4 * 1024
    with pytest.raises(CommandFailed, match=r"was ended by SIGKILL"):
        await run(python("import os; os.kill(os.getpid(), 9)"))


async def test_a_program_that_is_not_there():
    with pytest.raises(CommandFailed, match=r"no-such-program cannot be started"):
        await run(command_line("c", ["no-such-program"], {}))
    with pytest.raises(CommandFailed, match=r"cannot be started: .*no such folder"):
        await run(python("", cwd="no such folder"))


async def test_output_is_limited_at_the_very_byte():
    made = python(
        "print('x' * int(__import__('sys').argv[1]), end='')", "{n}", parameters={"n": int}, output_bytes_max=100_000
    )
    assert len((await run(made, n=100_000))["stdout"]) == 100_000
    with pytest.raises(CommandFailed, match=r"wrote more than 100000 bytes"):
        await run(made, n=100_001)


async def test_endless_output_ends_the_program():
    with pytest.raises(CommandFailed, match=r"wrote more than 1048576 bytes"):
        await run(python("while True: print('x' * 1000)", timeout_s=WAIT_S))
    with pytest.raises(CommandFailed, match=r"took longer than 0.5 s .*yyy"):
        await run(python("import sys\nwhile True: sys.stderr.write('y' * 1000)", timeout_s=0.5))


FAMILY = """
import os, subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", "import signal, time; signal.signal(15, signal.SIG_IGN); time.sleep(300)"])
with open(sys.argv[1] + ".part", "w") as file:
    file.write(f"{os.getpid()} {child.pid}")
os.replace(sys.argv[1] + ".part", sys.argv[1])
if sys.argv[2] == "wait":
    time.sleep(300)
"""


@pytest.fixture
def family(tmp_path):
    path = tmp_path / "pids"

    class Family:
        file = path

        @property
        def pids(self):
            return [int(pid) for pid in path.read_text().split()]

        def made(self, **options):
            return python(FAMILY, "{path}", "{how}", parameters={"path": str, "how": str}, **options)

    return Family()


async def test_a_time_out_kills_the_whole_family(family):
    began_s = time.monotonic()
    with pytest.raises(CommandFailed, match=r"took longer than 2 s and was killed"):
        await run(family.made(timeout_s=2), path=str(family.file), how="wait")
    assert time.monotonic() - began_s < 60
    await until(lambda: all(gone(pid) for pid in family.pids))


async def test_a_cancel_kills_the_whole_family(family):
    changed = asyncio.Event()
    loop = asyncio.get_running_loop()
    runner = Runner([family.made()], 1, lambda: loop.call_soon_threadsafe(changed.set))
    parameters = json.dumps({"path": str(family.file), "how": "wait"}).encode()
    runner.start([Job("a", "t", 1, "program", parameters)])
    await until(family.file.exists)
    runner.cancel("a")
    async with asyncio.timeout(WAIT_S):
        await changed.wait()
    assert [o.status for o in runner.finished()] == ["canceled"]
    await until(lambda: all(gone(pid) for pid in family.pids))
    await runner.close(1)


async def test_what_a_program_leaves_running_ends_with_it(family):
    result = await run(family.made(), path=str(family.file), how="go")
    assert result["exit_code"] == 0
    await until(lambda: all(gone(pid) for pid in family.pids))


async def test_the_environment_is_small(monkeypatch):
    monkeypatch.setenv("SECRET", "x")
    program = "import json, os; print(json.dumps(dict(os.environ)))"
    found = (await run(python(program, output="json", env={"EXTRA": "1"})))["stdout"]
    assert found["EXTRA"] == "1"
    assert found["LANG"] == "C.UTF-8"
    assert found["PATH"] == os.environ["PATH"]
    assert set(found) <= {"EXTRA", "LANG", "PATH", "HOME", "TMPDIR", "LC_CTYPE"}


async def test_the_working_directory_is_the_declared_one(tmp_path):
    result = await run(python("import os; print(os.getcwd())", cwd=tmp_path, output="lines"))
    assert result["stdout"] == [str(tmp_path.resolve())]


SPECIFICATION = """
[[command]]
name = "shout"
description = "Says it louder."
argv = ["PYTHON", "-c", "import sys; print(sys.argv[1].upper() * int(sys.argv[2]), end='')", "{text}", "{times}"]
timeout_s = 30
tags = ["text"]
[command.parameters]
text = { type = "string", pattern = "^[a-z]+$", maxLength = 5, description = "What to say." }
times = { type = "integer", minimum = 1, default = 2 }

[[command]]
name = "pick"
argv = ["PYTHON", "-c", "import sys; print(sys.argv[1])", "{which}"]
output = "lines"
[command.parameters]
type = "object"
required = ["which"]
properties.which.enum = ["a", "b"]
"""


@pytest.fixture
def specification(tmp_path):
    def write(text):
        (tmp_path / "commands.toml").write_text(text.replace("PYTHON", PYTHON))
        return tmp_path / "commands.toml"

    return write


A_COMMAND = "[[command]]\nname = 'a'\nargv = ['x']\n"


def test_what_a_command_needs_of_its_worker_is_offered(specification):
    text = """
        concurrency = 2
        resources = { cpu = 1, memory = "512Mi", licence = 0.5 }
        cost = 0.25
        preference = 0.8
        stateful = true
        requires = ["git 2.40"]
    """
    (made,) = load_commands(specification(A_COMMAND + text))
    assert made.offer.resources == (Amount("cpu", 1_000), Amount("licence", 500), Amount("memory", 2**29 * 1_000))
    assert (made.offer.concurrency_max, made.offer.cost_micros, made.offer.preference_permille) == (2, 250_000, 800)
    assert (made.offer.stateful, made.offer.requires) == (True, ("git 2.40",))


def test_what_the_how_to_shows_can_be_read(specification):
    shown = re.findall(r"```toml\n(.*?)```", HOW_TO.read_text(), re.DOTALL)
    checksum, tag = load_commands(specification("\n".join(shown)))
    assert (checksum.name, tag.name, len(tag.offer.resources)) == ("checksum", "tag", 3)


def test_the_function_takes_what_the_file_takes():
    fields = {field.name for field in msgspec.structs.fields(CommandSpecification)}
    assert fields == inspect.signature(command_line).parameters.keys()


async def test_commands_are_read_from_a_file(specification):
    shout, pick = load_commands(specification(SPECIFICATION))
    assert (shout.name, shout.description, shout.tags, shout.mode) == ("shout", "Says it louder.", ("text",), "async")
    assert shout.input_schema["properties"] == {
        "text": {"type": "string", "pattern": "^[a-z]+$", "maxLength": 5, "description": "What to say."},
        "times": {"type": "integer", "minimum": 1, "default": 2},
    }
    assert shout.input_schema["required"] == ["text"]
    assert (await run(shout, text="ab"))["stdout"] == "ABAB"
    assert (await run(shout, text="ab", times=1))["stdout"] == "AB"
    assert (await run(pick, which="b"))["stdout"] == ["b"]
    with pytest.raises(InvalidInput, match=r"text: .*pattern"):
        await run(shout, text="A")
    with pytest.raises(InvalidInput, match=r"which: Input should be 'a' or 'b'"):
        await run(pick, which="c")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", r"it must hold \[\[command\]\] tables"),
        ("x = 1", "tables, not x"),
        ("[[command]", "not TOML"),
        ("[[command]]\nname = 'a'", "missing required field `argv`"),
        ("[[command]]\nname = 'a'\nargv = ['x']\nshell = true", "unknown field `shell`"),
        ("[[command]]\nname = 'a'\nargv = 'x'", "Expected `array`"),
        ("[[command]]\nname = 'a b'\nargv = ['x']", "a capability's name is"),
        ("[[command]]\nname = 'a'\nargv = ['x']\n" * 2, "two commands are called a"),
        ("[[command]]\nname = 'a'\nargv = ['x', '{p}']", "placeholder {p} has no parameter"),
        (A_COMMAND + "resources = 1", r"command\[0\] \(a\): Expected `object`, got `int` - at `\$.resources`"),
        (A_COMMAND + "resources.cpu = -1", "a: resources: cpu: -1 is no number from 0"),
        (A_COMMAND + "resources.cpu = true", "a: resources: cpu: True is no number"),
        (A_COMMAND + "resources.cpu = nan", "a: resources: cpu: nan is no number"),
        (
            A_COMMAND + "resources.memory = '5 GB'",
            "a: resources: memory: '5 GB' is no amount, such as 0.5, 500m, 512Mi",
        ),
        (A_COMMAND + "resources.memory = ['5G']", "a: resources: memory: .* is no number"),
        (A_COMMAND + "cost = '1'", r"Expected `float`, got `str` - at `\$.cost`"),
        (A_COMMAND + "cost = -1", "a: cost must be a number from 0"),
        (A_COMMAND + "cost = inf", "a: cost must be a number from 0"),
        (A_COMMAND + "preference = 2", "a: preference must be a number from 0 to 1"),
        (A_COMMAND + "stateful = 1", r"Expected `bool`, got `int` - at `\$.stateful`"),
        (A_COMMAND + "requires = 'git'", r"Expected `array`, got `str` - at `\$.requires`"),
        (A_COMMAND + "requires = ['']", "a: requires are at most"),
        ("command = [1]", r"command\[0\]: Expected `object`"),
    ],
)
def test_a_file_that_does_not_fit_is_refused_by_name(specification, text, message):
    with pytest.raises(CapabilityError, match=message) as raised:
        load_commands(specification(text))
    assert "commands.toml: " in str(raised.value)
