"""What holds when nothing is said."""

import pytest

from merit import AsyncClient, MeritError
from merit.sdk.capability import declaring
from merit.sdk.worker import serve


def test_the_environment_names_the_server(monkeypatch):
    monkeypatch.setenv("MERIT_SERVER", "127.0.0.1:7")
    assert AsyncClient().server == "127.0.0.1:7"
    assert AsyncClient("127.0.0.1:9").server == "127.0.0.1:9"
    monkeypatch.delenv("MERIT_SERVER")
    assert AsyncClient().server == "127.0.0.1:50051"


def test_serve_does_nothing_in_a_module_that_is_loaded_for_what_it_declares():
    with declaring():
        serve()  # would run until a signal


async def test_a_client_that_is_not_connected_says_so():
    with pytest.raises(MeritError, match="async with"):
        await AsyncClient().submit("greet", {})
