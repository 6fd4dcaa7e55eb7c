"""What this machine can do without Merit: its disk, its loopback under gRPC, its Python. Figures mean little without it."""

from __future__ import annotations

import asyncio
import os
import platform
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, Final

import grpc
import psutil

from merit.lab.bench.figures import percentile, rounded

_SYNCS: Final = 200
_SYNC_BYTES: Final = 8_192
_ECHOES: Final = 500
_STREAM_ECHOES: Final = 5_000
_ON_THE_WAY: Final = 64
_TURNS: Final = 50_000
_MESSAGE: Final = bytes(100)
_METHOD: Final = "/bench.Echo/Session"


def sync_times_s(directory: Path | None, count: int = _SYNCS) -> list[float]:
    """How long each of ``count`` appends of 8 KiB to a file took to be on the disk (fsync)."""
    times: list[float] = []
    with tempfile.TemporaryFile(dir=directory) as file:
        number = file.fileno()
        for _ in range(count):
            os.write(number, bytes(_SYNC_BYTES))
            began_s = time.perf_counter()
            os.fsync(number)
            times.append(time.perf_counter() - began_s)
    return times


async def calibrate(directory: Path | None) -> dict[str, Any]:
    """The machine in a few numbers; takes about two seconds."""
    syncs = sync_times_s(directory)
    echo = await _echo()
    return {
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "grpcio": grpc.__version__,
        "cpus": os.cpu_count(),
        "memory_gb": rounded(psutil.virtual_memory().total / 1e9),
        "load_1min": rounded(os.getloadavg()[0]),
        "fsync_p50_ms": rounded(percentile(syncs, 0.5) * 1e3),
        "fsync_p99_ms": rounded(percentile(syncs, 0.99) * 1e3),
        **{name: rounded(value) for name, value in echo.items()},
        "loop_turns_per_s": rounded(await _loop_turns_per_s()),
    }


async def _echo() -> dict[str, float]:
    """Round trips of small messages on one stream to another process, one at a time and with 64 on the way."""
    server = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "merit.lab.bench.calibration", stdout=asyncio.subprocess.PIPE
    )
    assert server.stdout is not None
    try:
        port = int(await server.stdout.readline())
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            call: grpc.aio.StreamStreamCall[bytes, bytes] = channel.stream_stream(_METHOD)()
            times: list[float] = []
            for _ in range(_ECHOES):
                began_s = time.perf_counter()
                await call.write(_MESSAGE)
                await call.read()
                times.append(time.perf_counter() - began_s)
            began_s = time.perf_counter()
            room = asyncio.Semaphore(_ON_THE_WAY)

            async def write() -> None:
                for _ in range(_STREAM_ECHOES):
                    await room.acquire()
                    await call.write(_MESSAGE)

            writing = asyncio.create_task(write())
            for _ in range(_STREAM_ECHOES):
                await call.read()
                room.release()
            await writing
            per_s = _STREAM_ECHOES / (time.perf_counter() - began_s)
            await call.done_writing()
    finally:
        server.kill()
        await server.wait()
    return {
        "grpc_echo_p50_ms": percentile(times, 0.5) * 1e3,
        "grpc_echo_p99_ms": percentile(times, 0.99) * 1e3,
        "grpc_echoes_per_s": per_s,
    }


async def _loop_turns_per_s() -> float:
    began_s = time.perf_counter()
    for _ in range(_TURNS):
        await asyncio.sleep(0)
    return _TURNS / (time.perf_counter() - began_s)


async def _serve_echo() -> None:
    """The other process of ``_echo``: says its port, and everything that it hears."""

    async def session(_: object, context: grpc.aio.ServicerContext[Any, Any]) -> None:
        while (message := await context.read()) is not grpc.aio.EOF:
            await context.write(message)

    server = grpc.aio.server(options=(("grpc.so_reuseport", 0),))
    handler: grpc.RpcMethodHandler[bytes, bytes] = grpc.stream_stream_rpc_method_handler(session)
    service, _, method = _METHOD.strip("/").partition("/")
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, {method: handler}),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    sys.stdout.write(f"{port}\n")
    sys.stdout.flush()
    await server.wait_for_termination()


if __name__ == "__main__":
    asyncio.run(_serve_echo())
