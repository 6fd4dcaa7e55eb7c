"""What functions and programs say while they run, on its way to those who follow."""

import asyncio
import json
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from merit.model.limits import LOG_LINES_MAX, PAYLOAD_BYTES_MAX
from merit.sdk.capability import capability
from merit.sdk.command_line import command_line
from merit.sdk.context import Context, active
from merit.sdk.execution import Job
from merit.sdk.inputs import with_inputs
from merit.sdk.lanes import Held
from merit.sdk.live_lines import LINE_BYTES_MAX, LiveLines
from merit.sdk.notes import NOTE_NS_MIN, Notes
from merit.sdk.outcome import LogLine, ProgressNote
from merit.sdk.schema import CapabilityError, InvalidInput
from merit.session.newest import LEFT_OUT

FIRST_NS = 10 * NOTE_NS_MIN


@capability
def nothing() -> None: ...


def a_note(fraction=-1.0, message="", log=(), attempt="a"):
    return ProgressNote(attempt, fraction, 0.0, None, message, 0, tuple(log))


def test_a_note_goes_out_at_once_and_the_next_one_a_quarter_of_a_second_later():
    notes = Notes()
    notes.put(a_note(0.1, "one"))
    assert notes.take(FIRST_NS) == [a_note(0.1, "one")]
    notes.put(a_note(0.2, "two", ["x"]))
    notes.put(a_note(0.3, "three"))
    notes.put(a_note(log=["y"]))
    notes.put(a_note(attempt="other"))
    assert notes.take(FIRST_NS + NOTE_NS_MIN - 1) == [a_note(attempt="other")]
    assert notes.take(FIRST_NS + NOTE_NS_MIN) == [a_note(0.3, "three", ["x", "y"])]
    assert notes.take(FIRST_NS + 10 * NOTE_NS_MIN) == []
    assert not notes._gathered, "nothing is remembered of those who have nothing to say"


def test_what_has_ended_is_forgotten():
    notes = Notes()
    notes.put(a_note(0.1))
    notes.forget("a")
    notes.forget("unknown")
    assert notes.take(FIRST_NS) == []


def test_a_function_that_talks_all_the_time_costs_no_more_than_the_bound():
    notes = Notes()

    def talk():
        for number in range(5_000):
            notes.put(a_note(number / 5_000, log=[str(number)]))

    threads = [threading.Thread(target=talk) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(notes._gathered["a"].log) <= 2 * LOG_LINES_MAX
    (note,) = notes.take(FIRST_NS)
    assert (note.log[0], len(note.log)) == (LEFT_OUT, LOG_LINES_MAX)


def test_a_context_gives_signs_of_life_and_shows_lines():
    said: list[ProgressNote] = []
    held = Held(Job("t#1", "t", 1, "nothing", b"{}"), nothing, said.append)
    held.beat()
    held.tell("one", "two")
    held.log("warning", "careful", x=1)
    held.log("info", "fine")
    assert [note.fraction for note in said] == [-1.0] * 4
    assert [note.log for note in said] == [(), ("one", "two"), ('warning: careful {"x":1}',), ("fine",)]
    assert len(held.said()[0]) == 2, "what was only told is not kept"


def test_lines_beyond_what_is_kept_are_still_shown():
    said: list[ProgressNote] = []
    held = Held(Job("t#1", "t", 1, "nothing", b"{}"), nothing, said.append)
    for number in range(1_200):
        held.add_line(LogLine(0, "info", str(number)))
    assert held.said()[1] == 200
    assert said[-1].log == ("1199",)


@given(st.lists(st.binary(max_size=300), max_size=10), st.integers(1, 50))
def test_lines_come_as_they_were_written_however_the_pipe_cuts_them(chunks, size):
    said: list[ProgressNote] = []
    data = b"".join(chunks)
    live = LiveLines(Context("a", on_progress=said.append), shown=True)
    for start in range(0, len(data), size):
        live.feed(data[start : start + size])
    shown = [line for note in said for line in note.log]
    whole = [line.decode("utf-8", "replace").rstrip("\r") for line in data.split(b"\n")[:-1]]
    # A context makes lines that can be sent of what cannot; here all can.
    assert shown == whole
    assert len(said) == len(range(0, len(data), size)), "each portion is a sign of life"


def test_a_program_that_writes_without_end_is_looked_at_only_in_part():
    said: list[ProgressNote] = []
    live = LiveLines(Context("a", on_progress=said.append), shown=True)
    live.feed(b"x" * 10_000_000)
    live.feed(b"y\n" * 1_000_000)
    assert max(len(line.encode()) for note in said for line in note.log) <= LINE_BYTES_MAX
    assert max(len(note.log) for note in said) <= LOG_LINES_MAX
    assert len(live._rest) <= LINE_BYTES_MAX


async def test_whoever_follows_sees_the_output_of_a_program():
    tool = command_line("tells", ["sh", "-c", "echo one; echo two >&2; echo three"], {})
    quiet = command_line("tells_json", ["sh", "-c", "echo 1; echo two >&2"], {}, output="json")
    seen: dict[str, list[str]] = {}
    for made in (tool, quiet):
        said: list[ProgressNote] = []

        async def followed(made=made, said=said):
            active.set(Context("a", on_progress=said.append))
            return await made()

        await asyncio.create_task(followed())
        seen[made.name] = sorted(line for note in said for line in note.log)
    assert seen == {"tells": ["one", "three", "two"], "tells_json": ["two"]}
    assert (await tool())["stdout"] == "one\nthree\n", "it need not be followed"


# Parameters from other tasks


def test_inputs_become_parameters_as_they_are():
    merged = with_inputs(b'{"a": 1.0, "b": [1,2]}', [("c", b'{"x": 1e400}'), ("d", b"null"), ("e", b"")])
    assert merged == b'{"a":1.0,"b":[1,2],"c":{"x": 1e400},"d":null,"e":null}'
    assert json.loads(merged)["d"] is None
    assert with_inputs(b"{}", []) == b"{}"


@pytest.mark.parametrize(
    ("parameters", "inputs", "reason"),
    [
        (b"[]", [], "not a JSON object"),
        (b"{", [], "not a JSON object"),
        (b'{"a": 1}', [("a", b"2")], "a: is both"),
        (b"{}", [("a", b"1"), ("a", b"2")], "a: is both"),
        (b"{}", [("a", b" " * PAYLOAD_BYTES_MAX)], "more than"),
    ],
)
def test_inputs_that_do_not_fit_are_the_tasks_own_fault(parameters, inputs, reason):
    with pytest.raises(InvalidInput, match=reason):
        with_inputs(parameters, inputs)


# What a capability says of itself


def test_a_capability_says_what_must_not_be_repeated_and_how_often_it_gives_a_sign_of_life():
    @capability(safe_to_repeat=False, heartbeat_timeout_s=2.5)
    def pays() -> None: ...

    offer = pays.offer
    assert (offer.safe_to_repeat, offer.heartbeat_timeout_ns) == (False, 2_500_000_000)
    usual = nothing.offer
    assert (usual.safe_to_repeat, usual.heartbeat_timeout_ns) == (True, 0)


@pytest.mark.parametrize("timeout_s", [0, -1, 0.5, 1e12, float("nan")])
def test_a_heartbeat_time_out_that_cannot_be_kept_is_refused(timeout_s):
    with pytest.raises(CapabilityError, match="heartbeat_timeout_s"):
        capability(name="x", heartbeat_timeout_s=timeout_s)(lambda: None)
