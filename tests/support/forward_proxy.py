"""A forward proxy on loopback: absolute URLs and CONNECT, with a log, and a login where one is wanted."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from loopback import stream_server


@dataclass
class ForwardProxy:
    """``requests`` are the heads it got. It reaches every name at ``port`` of 127.0.0.1."""

    port: int = 0
    target: int = 0
    login: str = ""  # the value of Proxy-Authorization that is wanted
    broken: bool = False
    requests: list[str] = field(default_factory=list)

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode()
                self.requests.append(head)
                if self.broken:
                    writer.write(b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\n\r\n")
                elif self.login and f"Proxy-Authorization: {self.login}" not in head:
                    writer.write(b"HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n")
                elif head.startswith("CONNECT "):
                    await self._tunnel(reader, writer)
                    return
                else:
                    await self._forward(head, writer)
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    async def _forward(self, head: str, writer: asyncio.StreamWriter) -> None:
        method, url, rest = head.split(" ", 2)
        parts = urlsplit(url)
        path = url[len(f"{parts.scheme}://{parts.netloc}") :]
        reader_there, there = await asyncio.open_connection("127.0.0.1", self.target)
        there.write(f"{method} {path} {rest}".replace("\r\n", "\r\nConnection: close\r\n", 1).encode())
        there.write_eof()
        writer.write(await reader_there.read())
        there.close()

    async def _tunnel(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        reader_there, there = await asyncio.open_connection("127.0.0.1", self.target)
        writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
        await asyncio.gather(_copy(reader, there), _copy(reader_there, writer))


async def _copy(source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
    with contextlib.suppress(ConnectionError):
        while data := await source.read(65_536):
            target.write(data)
            await target.drain()
    target.close()


@contextlib.contextmanager
def forward_proxy(target: int) -> Iterator[ForwardProxy]:
    proxy = ForwardProxy(target=target)
    with stream_server(proxy.handle) as proxy.port:
        yield proxy
