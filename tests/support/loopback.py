"""Servers on the loopback address, in threads of their own."""

from __future__ import annotations

import asyncio
import contextlib
import queue
import random
import socket
import ssl
import threading
from collections.abc import Awaitable, Callable, Iterator, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

_PORTS = range(12_000, 32_000)
"""Below the ports that the kernel gives to outgoing connections (from 32,768 on): one of those that is free now may be some
connection's by the time that a server asks for it."""


def free_port(offsets: Sequence[int] = (0,), among: range = _PORTS) -> int:
    """A port that nobody listens on, nor on those at ``offsets`` from it."""
    ports = random.sample(among, len(among))
    return next(port for port in ports if all(_is_free(port + offset) for offset in offsets))


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


@contextlib.contextmanager
def http_server(handler: type[BaseHTTPRequestHandler]) -> Iterator[int]:
    """Its port. The handler logs nothing."""
    quiet = type("Quiet", (handler,), {"log_message": lambda *_: None})
    server = ThreadingHTTPServer(("127.0.0.1", 0), quiet)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield server.server_port
    finally:
        server.shutdown()
        server.server_close()


@contextlib.contextmanager
def stream_server(
    handle: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]],
    port: int = 0,
    tls: ssl.SSLContext | None = None,
) -> Iterator[int]:
    """Its port: a free one unless one is given. ``handle`` serves one connection."""
    ready: queue.Queue[tuple[int, Callable[[], object]]] = queue.Queue()

    async def serve() -> None:
        server = await asyncio.start_server(handle, "127.0.0.1", port, backlog=512, ssl=tls)
        loop, stop = asyncio.get_running_loop(), asyncio.Event()
        ready.put((server.sockets[0].getsockname()[1], lambda: loop.call_soon_threadsafe(stop.set)))
        await stop.wait()
        server.close()

    thread = threading.Thread(target=lambda: asyncio.run(serve()), daemon=True)
    thread.start()
    found, end = ready.get(timeout=10)
    try:
        yield found
    finally:
        end()
        thread.join(10)


def http_answer(status: str, body: bytes, headers: dict[str, str]) -> bytes:
    """A whole answer; underscores in the headers' names stand for hyphens."""
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return ("\r\n".join(lines) + "\r\n\r\n").encode() + body
