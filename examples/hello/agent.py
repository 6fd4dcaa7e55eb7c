"""A worker in three lines. Start it with ``merit worker examples.hello.agent`` or ``python -m examples.hello.agent``."""

from merit import capability, serve


@capability
def greet(name: str, times: int = 1) -> str:
    """Greet somebody, politely."""
    return ", ".join([f"hello {name}"] * times)


if __name__ == "__main__":
    serve()
