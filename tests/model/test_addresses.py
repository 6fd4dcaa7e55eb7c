"""HOST:PORT."""

import pytest

from merit.model.addresses import is_loopback, reachable, split_address


@pytest.mark.parametrize(
    ("address", "host", "port"),
    [("127.0.0.1:50051", "127.0.0.1", 50051), ("[::1]:0", "::1", 0), ("a.example:65535", "a.example", 65535)],
)
def test_is_split(address: str, host: str, port: int):
    assert split_address(address) == (host, port)


@pytest.mark.parametrize("address", ["", "here", ":50051", "127.0.0.1:", "127.0.0.1:65536", "127.0.0.1:-1", "h:٣"])
def test_what_is_none_is_refused_and_quoted(address: str):
    with pytest.raises(ValueError, match="is no HOST:PORT") as refused:
        split_address(address)
    assert repr(address) in str(refused.value)


def test_only_this_machine_is_loopback():
    assert all(map(is_loopback, ["127.0.0.1", "127.8.9.1", "::1", "localhost"]))
    assert not any(map(is_loopback, ["0.0.0.0", "::", "10.0.0.1", "localhost.evil.example", "", "example.org"]))


def test_who_listens_everywhere_is_reached_here():
    assert reachable("0.0.0.0:7") == "127.0.0.1:7"
    assert reachable("[::]:7") == "[::1]:7"
    assert reachable("localhost:7") == "localhost:7"
