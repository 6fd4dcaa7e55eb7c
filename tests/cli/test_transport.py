"""How gRPC is set up in Merit's own processes."""

import pytest

from merit.cli import transport


@pytest.mark.parametrize(
    ("version", "before", "after"),
    [
        ("1.85.1", None, "-event_engine_client,-event_engine_listener"),
        ("1.85.1", "of the user", "of the user"),
        ("1.99.0", None, None),
    ],
)
def test_only_what_was_measured_is_set_and_the_user_has_the_last_word(monkeypatch, version, before, after):
    environment = {} if before is None else {"GRPC_EXPERIMENTS": before}
    monkeypatch.setattr(transport, "version", lambda _name: version)
    monkeypatch.setattr("merit.cli.transport.os.environ", environment)
    transport.prepare()
    assert environment.get("GRPC_EXPERIMENTS") == after
