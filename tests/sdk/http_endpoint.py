"""A real HTTP server for tests, in their own loop, which answers exactly what it is told to, byte by byte."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any


@dataclass
class Asked:
    """One request as it came in."""

    method: str
    target: str
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


Behaviour = Callable[[Asked, asyncio.StreamWriter], Awaitable[bytes]]


@dataclass
class Endpoint:
    """Answers all requests by `behave`, or one each by `answers` while there are any."""

    url: str = ""
    asked: list[Asked] = field(default_factory=list)
    answers: list[bytes | Behaviour] = field(default_factory=list)
    behave: Behaviour | None = None
    connections: int = 0
    gone: asyncio.Event = field(default_factory=asyncio.Event)
    """A peer has hung up."""

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
                method, target, _ = head[0].split(" ")
                headers = {k.lower(): v for k, _, v in (line.partition(": ") for line in head[1:] if line)}
                body = await reader.readexactly(int(headers.get("content-length", 0)))
                asked = Asked(method, target, headers, body)
                self.asked.append(asked)
                writer.write(await self._answer(asked, reader, writer))
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            self.gone.set()
        finally:
            writer.close()

    async def _answer(self, asked: Asked, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bytes:
        answer = self.answers.pop(0) if self.answers else self.behave
        if answer is None:
            return answered(200, {"ok": True})
        if isinstance(answer, bytes):
            return answer
        answering = asyncio.ensure_future(answer(asked, writer))
        hung_up = asyncio.ensure_future(reader.read(1))
        await asyncio.wait((answering, hung_up), return_when=asyncio.FIRST_COMPLETED)
        if answering.done():
            hung_up.cancel()
            await asyncio.wait((hung_up,))
            return answering.result()
        answering.cancel()
        raise ConnectionResetError


def answered(status: int, content: Any = b"", **headers: str) -> bytes:
    """A whole answer; what is not bytes goes as JSON. Underscores in names of headers are hyphens."""
    body = content if isinstance(content, bytes) else json.dumps(content).encode()
    lines = [f"HTTP/1.1 {status} {HTTPStatus(status).phrase}", f"Content-Length: {len(body)}"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return "\r\n".join([*lines, "", ""]).encode() + body


async def hangs(_asked: Asked, _writer: asyncio.StreamWriter) -> bytes:
    """Never answers."""
    await asyncio.Event().wait()
    raise AssertionError


@asynccontextmanager
async def endpoint() -> AsyncIterator[Endpoint]:
    """A server on a port of its own."""
    made = Endpoint()
    running: set[asyncio.Task[None]] = set()

    def take(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.ensure_future(made.serve(reader, writer))
        running.add(task)
        task.add_done_callback(running.discard)

    server = await asyncio.start_server(take, "127.0.0.1", 0)
    made.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        yield made
    finally:
        server.close()
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)
