"""Stands between a client and PostgreSQL: as a connection pooler looks from outside, or as a network that fails.

There is no PgBouncer to be had here. What makes one recognisable is that it hands out a process number of its own
(BackendKeyData), which is all that is played.
"""

import asyncio
import contextlib
from urllib.parse import urlsplit


class PostgresProxy:
    """Listens on a port of this machine; ``url`` leads to it."""

    def __init__(self, socket, *, pooler=False):
        self._socket = str(socket)
        self._pooler = pooler
        self._connections = []
        self.muted = False
        """What the server says is lost from now on."""

    async def __aenter__(self):
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self._port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_):
        self._server.close()
        self.cut()

    def url(self, direct):
        """The way through here to the database at a URL."""
        return f"postgresql://postgres@127.0.0.1:{self._port}{urlsplit(direct).path}?sslmode=disable"

    def cut(self):
        """Ends all connections at once."""
        for writer in self._connections:
            writer.transport.abort()
        self._connections.clear()

    async def _serve(self, reader, writer):
        server_reader, server_writer = await asyncio.open_unix_connection(self._socket)
        self._connections += [writer, server_writer]
        await asyncio.gather(self._upstream(reader, server_writer), self._downstream(server_reader, writer))

    async def _upstream(self, reader, writer):
        with contextlib.suppress(ConnectionError):
            while data := await reader.read(65536):
                writer.write(data)
                await writer.drain()
        writer.close()

    async def _downstream(self, reader, writer):
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            kind = b""
            while self._pooler and kind != b"Z":
                kind = await reader.readexactly(1)
                length = await reader.readexactly(4)
                body = await reader.readexactly(int.from_bytes(length, "big") - 4)
                if kind == b"K":
                    body = (4711).to_bytes(4, "big") + body[4:]
                writer.write(kind + length + body)
            while data := await reader.read(65536):
                if not self.muted:
                    writer.write(data)
                    await writer.drain()
        writer.close()
