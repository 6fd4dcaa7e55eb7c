"""Snapshots that older versions wrote (``tests/histories/snapshots``) are what this version's fold of the same records is."""

import json
import zlib
from base64 import b64decode

import msgspec
import pytest

from merit.core.codec import FOLD_VERSION, decode_state, encode_state, fold
from merit.core.invariants import check
from merit.core.state import State
from merit.model.supervision import Conduct
from tests.histories.replay import HERE, records_of

OLD = json.loads((HERE / "snapshots" / "fold-2.json").read_text())
OF_3 = json.loads((HERE / "snapshots" / "fold-3.json").read_text())


def without_turns(state):
    """Whose turn it was among the workers is the one thing that snapshots of version 2 did not hold."""
    for worker in state.workers.values():
        worker.given = worker.turn = 0
    return encode_state(state)


@pytest.mark.parametrize("name", sorted(OLD["histories"]))
def test_a_snapshot_of_version_2_is_upgraded(name):
    records = records_of(json.loads((HERE / f"{name}.json").read_text()))
    for count, data in OLD["histories"][name]:
        upgraded = decode_state(zlib.decompress(b64decode(data)), 2)
        check(None, upgraded)
        state = State()
        for record in records[:count]:
            fold(state, record)
        assert without_turns(upgraded) == without_turns(state)
        for record in records[count:]:
            fold(upgraded, record)
            fold(state, record)
        check(None, upgraded)
        assert without_turns(upgraded) == without_turns(state)


def without_records(state):
    """How workers had done was not counted in version 3; of that, counting begins anew."""
    for profile in state.profiles.values():
        profile.records, profile.conduct = {}, Conduct()
    return encode_state(state)


@pytest.mark.parametrize("name", sorted(OF_3["histories"]))
def test_a_snapshot_of_version_3_is_upgraded(name):
    records = records_of(json.loads((HERE / f"{name}.json").read_text()))
    for count, data in OF_3["histories"][name]:
        upgraded = decode_state(zlib.decompress(b64decode(data)), 3)
        check(None, upgraded)
        state = State()
        for record in records[:count]:
            fold(state, record)
        for record in records[count:]:
            fold(upgraded, record)
            fold(state, record)
        check(None, upgraded)
        assert without_records(upgraded) == without_records(state)


@pytest.mark.parametrize("version", [0, 1, FOLD_VERSION + 1])
def test_a_snapshot_of_a_version_without_an_upgrade_is_refused(version):
    with pytest.raises(ValueError, match="newer version" if version > FOLD_VERSION else "not a snapshot"):
        decode_state(encode_state(State()), version)


@pytest.mark.parametrize("data", [b"", b"\xc0", b"\x90", msgspec.msgpack.encode(["x"] * 26)])
def test_what_is_no_snapshot_of_version_2_is_refused(data):
    with pytest.raises(ValueError, match="not a snapshot"):
        decode_state(data, 2)
