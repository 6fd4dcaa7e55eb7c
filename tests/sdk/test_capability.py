import asyncio
import pickle
import re
import types

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from merit.allocation.versions import problem_of_version
from merit.model.workers import Amount, Offer
from merit.sdk.capability import VERSION, Capability, capabilities_of, capability, declared, find
from merit.sdk.schema import CapabilityError


@capability
def words(text: str) -> int:
    """Number of words in a text."""
    return len(text.split())


@capability(name="text.shout", version="2.1.0-rc.1", description="Louder.", concurrency=3, tags=["text", "fun"])
async def shout(text: str) -> str:
    return text.upper()


@capability(cpu=True)
def square(x: int) -> int:
    return x * x


def test_a_capability_is_still_the_function():
    assert words("a b c") == 3
    assert square(x=4) == 16
    assert asyncio.run(shout("a")) == "A"
    assert words.__name__ == "words"
    assert words.__doc__ == "Number of words in a text."


def test_what_is_declared_is_what_the_fleet_sees():
    assert (words.name, words.version, words.description, words.mode) == (
        "words",
        "1.0.0",
        "Number of words in a text.",
        "thread",
    )
    assert (shout.name, shout.version, shout.description, shout.mode) == (
        "text.shout",
        "2.1.0-rc.1",
        "Louder.",
        "async",
    )
    assert (shout.concurrency, shout.tags) == (3, ("text", "fun"))
    assert square.mode == "process"
    assert {words, shout, square} <= set(declared())


def test_an_offer_is_what_was_declared_in_the_units_of_the_model():
    def render(scene: int) -> str:
        return str(scene)

    declared_so = capability(
        name="render",
        version="2.1.0",
        resources={"memory": "512Mi", "cpu": 0.5},
        concurrency=2,
        cost=0.25,
        preference=0.8,
        stateful=True,
        requires=["blender 4"],
        tags=["gpu"],
        safe_to_repeat=False,
        heartbeat_timeout_s=1.5,
    )(render)
    offer = declared_so.offer
    assert offer == Offer(
        "render",
        "2.1.0",
        "",
        msgspec.json.encode(declared_so.input_schema),
        msgspec.json.encode(declared_so.output_schema),
        ("gpu",),
        False,
        1_500_000_000,
        (Amount("cpu", 500), Amount("memory", 512 * 2**20 * 1_000)),
        2,
        250_000,
        800,
        True,
        ("blender 4",),
    )
    plain = words.offer
    assert plain == Offer("words", "1.0.0", words.description, plain.input_schema, plain.output_schema)


@given(
    st.from_regex(re.compile(r"[0-9]{1,2}\.[0-9]{1,2}\.[0-9]{1,2}(-[0-9a-z.\-]{1,6})?(\+[0-9a-z.\-]{1,6})?", re.ASCII))
    | st.text("0123456789.-+ab\n٣", max_size=10)
)
def test_what_is_declared_as_a_version_is_one_to_the_control_plane(version):
    assert (VERSION.fullmatch(version) is not None) == (problem_of_version(version) is None)


def test_a_modules_capabilities_are_found_in_order():
    assert capabilities_of(_module(a=words, b=[square, words], c=1)) == (words, square)


def test_two_capabilities_of_one_name_are_refused():
    other = Capability(
        square.function, name="words", version="1.0.0", description="", mode="thread", signature=square.signature
    )
    with pytest.raises(CapabilityError, match="two capabilities are called words"):
        capabilities_of(_module(a=words, b=other))


def test_it_is_pickled_by_reference(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, __name__, _module(words=words))
    assert pickle.loads(pickle.dumps(words)) is words
    assert find(__name__, "words") is words
    with pytest.raises(CapabilityError, match="is no capability"):
        find(__name__, "nothing")


def _module(**content):
    module = types.ModuleType("some_module")
    vars(module).update(content)
    return module


def ok(x: int) -> int:
    return x


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"name": "two words"}, "a capability's name is"),
        ({"name": ""}, "a capability's name is"),
        ({"name": "x" * 129}, "a capability's name is"),
        ({"version": "1"}, "ok: version '1' is not semantic"),
        ({"version": "1.0"}, "not semantic"),
        ({"version": "1.0.0-01"}, "not semantic"),
        ({"version": "1.0.0-a..b"}, "not semantic"),
        ({"version": "1.0.0\n"}, "not semantic"),
        ({"version": "1.0.0-" + "x" * 200}, "not semantic"),
        ({"resources": {"cpu": -1}}, "ok: resources: cpu: -1 is no number"),
        ({"resources": {"": 1}}, "ok: resources: '' is no name"),
        ({"resources": "cpu"}, "ok: resources: must be amounts by name"),
        ({"resources": {"memory": "5 GB"}}, "ok: resources: memory: '5 GB' is no amount, such as 0.5, 500m, 512Mi"),
        ({"cost": -1}, "ok: cost must be a number from 0"),
        ({"cost": float("nan")}, "ok: cost must be a number from 0"),
        ({"cost": True}, "ok: cost must be a number from 0"),
        ({"preference": 1.1}, "ok: preference must be a number from 0 to 1, not 1.1"),
        ({"preference": "much"}, "ok: preference must be"),
        ({"requires": [""]}, "ok: requires are at most"),
        ({"concurrency": 0}, "ok: concurrency must be"),
        ({"tags": [""]}, "ok: tags are"),
        ({"description": "x" * 5_000}, "ok: its description is longer"),
    ],
)
def test_bad_declarations_are_refused_with_the_reason(options, message):
    with pytest.raises(CapabilityError, match=message):
        capability(**options)(ok)


def test_what_cannot_run_is_refused():
    async def waits(x: int) -> int:
        return x

    def generates(x: int):
        yield x

    with pytest.raises(CapabilityError, match="waits: cpu=True is for plain functions"):
        capability(cpu=True)(waits)
    with pytest.raises(CapabilityError, match="generates: a generator"):
        capability(generates)
    with pytest.raises(CapabilityError, match="module level"):
        capability(cpu=True)(lambda: None)
    with pytest.raises(CapabilityError, match="is not a function"):
        capability(3)  # type: ignore[call-overload] # what is tested
