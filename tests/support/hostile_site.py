"""A site on loopback that answers well, badly or not at all, by path."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import io
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import polars as pl
from PIL import Image

from facecaption_ml.schemas import SCHEMAS
from loopback import http_answer, stream_server


def picture(number: int, format_name: str = "JPEG", size: tuple[int, int] = (40, 30)) -> bytes:
    values = np.random.default_rng(number).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(values).save(buffer, format_name)
    return buffer.getvalue()


def png_bomb(side: int) -> bytes:
    """A PNG of side × side grey pixels in a few megabytes."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return len(body).to_bytes(4, "big") + kind + body + zlib.crc32(kind + body).to_bytes(4, "big")

    header = side.to_bytes(4, "big") * 2 + bytes([8, 0, 0, 0, 0])
    packer = zlib.compressobj(1)
    rows = b"".join(packer.compress(bytes(side + 1)) for _ in range(side)) + packer.flush()
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


def manifest(urls: list[str | None], duplicate: list[bool] | None = None) -> pl.DataFrame:
    repeated = duplicate or [False] * len(urls)
    rows = [
        {"sample_id": f"{i:016x}", "url": url, "alt_text": f"text {i}", "duplicate_url": repeated[i], "shard": "00000"}
        for i, url in enumerate(urls)
    ]
    return pl.DataFrame(rows, dict(SCHEMAS["source_manifest"]))


def reply(status: str = "200 OK", body: bytes = b"", **headers: str) -> bytes:
    return http_answer(status, body, headers)


@dataclass
class Site:
    """``base`` is its URL; ``requests`` the request heads received; ``replies`` maps paths to whole answers."""

    base: str = ""
    port: int = 0
    requests: list[str] = field(default_factory=list)
    replies: dict[str, bytes] = field(default_factory=dict)
    with_cookie: dict[str, tuple[str, bytes]] = field(
        default_factory=dict
    )  # path → a cookie and the answer where it is sent
    piece_bytes: int = 0  # of ``replies``, where they are to come in pieces
    closes: bool = False  # after each of ``replies``
    bytes_sent: int = 0
    open_now: int = 0
    most_open: int = 0  # connections at one time

    def requested(self, path: str) -> int:
        return sum(head.split(" ", 2)[1] == path for head in self.requests)

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.open_now += 1
        self.most_open = max(self.most_open, self.open_now)
        try:
            while True:
                start = await reader.readexactly(1)
                if start == b"\x16":  # a TLS handshake
                    writer.write(reply("400 Bad Request"))
                    return
                head = (start + await reader.readuntil(b"\r\n\r\n")).decode()
                self.requests.append(head)
                path = head.split(" ", 2)[1]
                cookie, whole = self.with_cookie.get(path, ("", b""))
                if cookie and f"\r\nCookie: {cookie}\r\n" in head:
                    writer.write(whole)
                else:
                    await self.answer(writer, path)
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            pass
        finally:
            self.open_now -= 1
            writer.close()

    async def answer(self, writer: asyncio.StreamWriter, path: str) -> None:
        if path in self.replies:
            await self.send(writer, self.replies[path])
            if self.closes:
                raise ConnectionError
            return
        kind, _, rest = path[1:].partition("/")
        number = int(rest) if rest.isdigit() else 0
        match kind:
            case "image":
                await asyncio.sleep(0.01 * (number * 7 % 5))  # so that rows finish out of order
                writer.write(reply(body=picture(number)))
            case "status":
                writer.write(reply(f"{number} Status"))
            case "hang":
                await asyncio.sleep(60)
            case "loop":
                writer.write(reply("302 Found", Location="/loop"))
            case "hop":
                writer.write(reply("301 Moved", Location=f"/hop/{number - 1}" if number else "/image/0"))
            case "drop":
                raise ConnectionError
            case "short":
                writer.write(reply(body=picture(3)).replace(b"Content-Length: ", b"Content-Length: 9"))
                raise ConnectionError
            case "drip":
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n\xff\xd8\xff\xe0")
                await self.drip(writer, b"\x00")
            case "headers":
                writer.write(b"HTTP/1.1 200 OK\r\n")
                await self.drip(writer, b"X-More: and more\r\n")
            case "flood":
                writer.write(b"HTTP/1.1 200 OK\r\n\r\n\xff\xd8\xff\xe0")
                await self.flood(writer, b"\x00" * 100_000)
            case "header-flood":
                writer.write(b"HTTP/1.1 200 OK\r\n")
                await self.flood(writer, b"X-More: and more\r\n" * 1000)
            case "gzip-bomb":
                body = gzip.compress(picture(1) + bytes(50_000_000))
                writer.write(reply(body=body, Content_Encoding="gzip"))
            case "gzip":
                writer.write(reply(body=gzip.compress(picture(9)), Content_Encoding="gzip"))
            case _:
                writer.write(reply("404 Not Found", b"no"))

    async def send(self, writer: asyncio.StreamWriter, whole: bytes) -> None:
        step = self.piece_bytes or len(whole) or 1
        for start in range(0, len(whole), step):
            writer.write(whole[start : start + step])
            if self.piece_bytes:
                await writer.drain()
                await asyncio.sleep(0)

    async def drip(self, writer: asyncio.StreamWriter, piece: bytes) -> None:
        for _ in range(600):
            writer.write(piece)
            await writer.drain()
            await asyncio.sleep(0.1)

    async def flood(self, writer: asyncio.StreamWriter, piece: bytes) -> None:
        for _ in range(5000):
            writer.write(piece)
            self.bytes_sent += len(piece)
            await writer.drain()


@contextlib.contextmanager
def running_site(site: Site | None = None) -> Iterator[Site]:
    site = site or Site()
    with stream_server(site.handle) as site.port:
        site.base = f"http://127.0.0.1:{site.port}"
        yield site
