"""The sample world's web server on the loopback interface, in this process or in one of its own.

``python -m facecaption_ml.sample.server --scenes 600 --port 0 --announce`` prints one JSON line with the port and serves
until it is interrupted; with ``--until-stdin-ends`` also until whoever started it is gone.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import logging
import subprocess
import sys
import threading
import time
from collections import OrderedDict, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Final, Self

from facecaption_ml.sample.world import FORBIDDEN_HOST, HANGING_HOSTS, HOST_PATTERN, Behaviour, Page, SampleWorld
from facecaption_ml.storage.local_files import atomic_write

logger = logging.getLogger(__name__)

ConnectTo = dict[str, tuple[str, int]]
_PAUSE_S: Final = 0.4  # of a slow page
_HUGE_BYTES: Final = 400_000_000
_KEPT_BODIES: Final = 256  # in memory
_READY_WITHIN_S: Final = 60.0
_ROBOTS: Final = "User-agent: *\nDisallow: /admin/\n"
_ROBOTS_FORBIDDEN: Final = "User-agent: *\nDisallow: /\n"
_HTML: Final = (
    "<!doctype html><html><head><title>Picture removed</title></head><body><p>This picture has moved.</p></body></html>"
)
_STATUS: Final = {Behaviour.not_found: 404, Behaviour.removed: 410, Behaviour.server_error: 500}


class _Bodies:
    """Files of pages: drawn when first asked for, each once, several at a time; kept in memory and, on request, on disk."""

    def __init__(self, world: SampleWorld, folder: Path | None) -> None:
        self._world = world
        self._folder = folder
        self._kept: OrderedDict[str, tuple[bytes, str]] = OrderedDict()
        self._lock = threading.Lock()
        self._drawing: defaultdict[str, threading.Lock] = defaultdict(threading.Lock)
        if folder is not None:
            folder.mkdir(parents=True, exist_ok=True)

    def of(self, page: Page) -> tuple[bytes, str]:
        key = "bomb" if page.behaviour is Behaviour.too_many_pixels else f"{page.scene}-{page.variant}"
        with self._lock:
            if key in self._kept:
                self._kept.move_to_end(key)
                return self._kept[key]
            drawing = self._drawing[key]
        with drawing:  # two clients who want the same picture wait for one drawing
            with self._lock:
                if key in self._kept:
                    return self._kept[key]
            body = self._from_disk(key) or self._drawn(key, page)
            with self._lock:
                self._kept[key] = body
                self._drawing.pop(key, None)
                while len(self._kept) > _KEPT_BODIES:
                    self._kept.popitem(last=False)
            return body

    def _drawn(self, key: str, page: Page) -> tuple[bytes, str]:
        data, kind = self._world.body_of(page)
        if self._folder is not None:
            with atomic_write(self._path(key), sync=False) as file:  # the digest tells a damaged file
                file.write(hashlib.sha256(data).digest() + kind.encode().ljust(32) + data)
        return data, kind

    def _from_disk(self, key: str) -> tuple[bytes, str] | None:
        if self._folder is None:
            return None
        try:
            stored = self._path(key).read_bytes()
        except FileNotFoundError:
            return None
        digest, kind, data = stored[:32], stored[32:64].decode(errors="replace").strip(), stored[64:]
        return (data, kind) if hashlib.sha256(data).digest() == digest else None

    def _path(self, key: str) -> Path:
        assert self._folder is not None
        return self._folder / f"{key}.body"


class SampleServer:
    """Serves a :class:`~facecaption_ml.sample.world.SampleWorld` over HTTP/1.1, telling its hosts apart by the Host header.

    Use it as a context manager, or call :meth:`close`. ``cache_dir`` keeps drawn pictures between runs. Raises OSError
    where the port is taken.
    """

    def __init__(
        self, world: SampleWorld, host: str = "127.0.0.1", port: int = 0, cache_dir: str | Path | None = None
    ) -> None:
        self.world = world
        self.bodies = _Bodies(world, Path(cache_dir) if cache_dir is not None else None)
        self.closing = threading.Event()
        self.asked: defaultdict[str, int] = defaultdict(int)
        self.asked_lock = threading.Lock()
        self._http = _Server((host, port), _handler_for(self))
        self.host, self.port = self._http.server_address[0], self._http.server_address[1]
        self._thread = threading.Thread(target=self._http.serve_forever, args=(0.05,), daemon=True, name="sample-web")
        self._thread.start()

    @property
    def connect_to(self) -> ConnectTo:
        """Host pattern → address and port, for the downloader."""
        return {HOST_PATTERN: (str(self.host), int(self.port))}

    def close(self) -> None:
        """Stop answering; connections that hang are dropped."""
        if self.closing.is_set():
            return
        self.closing.set()
        self._http.shutdown()
        self._http.server_close()
        self._thread.join(5)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 512

    def handle_error(self, request: object, client_address: object) -> None:
        logger.debug("request from %s failed", client_address, exc_info=True)


def _handler_for(server: SampleServer) -> type[BaseHTTPRequestHandler]:
    return type("BoundHandler", (_Handler,), {"web": server})


class _Handler(BaseHTTPRequestHandler):
    web: SampleServer
    protocol_version = "HTTP/1.1"
    server_version = "SampleWeb/1.0"
    timeout = 30.0
    disable_nagle_algorithm = True

    def do_GET(self) -> None:
        host = self.headers.get("Host", "").split(":")[0].lower()
        if host in HANGING_HOSTS:
            self._hang()
        elif self.path == "/robots.txt":
            text = _ROBOTS_FORBIDDEN if host == FORBIDDEN_HOST else _ROBOTS
            self._send(200, text.encode(), "text/plain; charset=utf-8")
        else:
            self._send_page(host)

    def do_HEAD(self) -> None:
        self.do_GET()

    def _send_page(self, host: str) -> None:
        path, _, hop = self.path.partition("?hop=")
        page = self.web.world.page_at(host, path)
        if page is None:
            self._send(404, b"no such page\n", "text/plain")
            return
        match page.behaviour:
            case Behaviour.not_found | Behaviour.removed | Behaviour.server_error:
                self._send(_STATUS[page.behaviour], _HTML.encode(), "text/html; charset=utf-8")
            case Behaviour.redirect if int(hop or 0) < page.hops:
                step = int(hop or 0) + 1
                self._send(301 if step % 2 else 302, b"", "text/plain", {"Location": f"{path}?hop={step}"})
            case Behaviour.redirect_loop:
                self._send(302, b"", "text/plain", {"Location": page.url})
            case Behaviour.unavailable_once if self._first_time(page):
                self._send(503, b"busy\n", "text/plain", {"Retry-After": "0"})
            case Behaviour.html:
                self._send(200, _HTML.encode(), "text/html; charset=utf-8")
            case Behaviour.html_as_image:
                self._send(200, _HTML.encode(), "image/jpeg")
            case Behaviour.too_large:
                self._send_endlessly()
            case _:
                self._send_picture(page)

    def _send_picture(self, page: Page) -> None:
        if page.behaviour is Behaviour.slow:
            self.web.closing.wait(_PAUSE_S)
        body, kind = self.web.bodies.of(page)
        headers = {"Cache-Control": "max-age=86400"}
        if page.behaviour is Behaviour.opted_out:
            headers["X-Robots-Tag"] = "noai, noimageai"
        if page.behaviour is Behaviour.image_as_html:
            kind = "text/html"
        if page.behaviour is Behaviour.truncated:
            self._send(200, body[: len(body) // 2], kind, headers, announced=len(body))
            self.close_connection = True
            return
        self._send(200, body, kind, headers)

    def _first_time(self, page: Page) -> bool:
        with self.web.asked_lock:
            self.web.asked[page.url] += 1
            return self.web.asked[page.url] == 1

    def _hang(self) -> None:
        self.close_connection = True
        self.web.closing.wait(120)

    def _send_endlessly(self) -> None:
        self._head(200, "image/jpeg", _HUGE_BYTES, {})
        self.close_connection = True
        block = b"\xff\xd8\xff\xe0" + bytes(65_532)
        for _ in range(_HUGE_BYTES // len(block)):
            if self.web.closing.is_set() or self.command == "HEAD":
                return
            self.wfile.write(block)

    def _send(
        self, status: int, body: bytes, kind: str, headers: dict[str, str] | None = None, announced: int | None = None
    ) -> None:
        self._head(status, kind, len(body) if announced is None else announced, headers or {})
        if self.command != "HEAD":
            self.wfile.write(body)

    def _head(self, status: int, kind: str, length: int, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in {"Content-Type": kind, "Content-Length": str(length), **headers}.items():
            self.send_header(name, value)
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        logger.debug("%s %s", self.address_string(), format % args)


# -- in its own process ----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class SubprocessServer:
    """A server running in a child process: its ``port``, the ``connect_to`` of the downloader, the child's ``pid``."""

    port: int
    pid: int
    connect_to: ConnectTo


@contextlib.contextmanager
def serve_in_subprocess(
    seed: int = 0, scenes: int = 600, port: int = 0, cache_dir: str | Path | None = None
) -> Iterator[SubprocessServer]:
    """Serve ``SampleWorld(seed, scenes)`` from a child process for as long as the ``with`` block lasts.

    The child also ends when this process dies, however it dies: it reads a pipe that then closes. Raises RuntimeError where
    it does not come up.
    """
    command = [sys.executable, "-m", "facecaption_ml.sample.server", "--seed", str(seed), "--scenes", str(scenes)]
    command += ["--port", str(port), "--announce", "--until-stdin-ends"]
    command += ["--cache-dir", str(cache_dir)] if cache_dir is not None else []
    child = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert child.stdin is not None
    assert child.stdout is not None
    overdue = threading.Timer(_READY_WITHIN_S, child.kill)
    try:
        overdue.start()
        line = child.stdout.readline()
        overdue.cancel()
        if not line:
            raise RuntimeError(f"the sample server did not start (exit code {child.wait()}); run: {' '.join(command)}")
        ready = json.loads(line)["port"]
        yield SubprocessServer(ready, child.pid, {HOST_PATTERN: ("127.0.0.1", ready)})
    finally:
        overdue.cancel()
        child.stdin.close()
        try:
            child.wait(5)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()
        child.stdout.close()


def main(arguments: list[str] | None = None) -> int:
    """The command line; see the module's docstring."""
    parser = argparse.ArgumentParser(
        prog="python -m facecaption_ml.sample.server", description="Serve the sample world."
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--scenes", type=int, default=600)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=0, help="0: any free port")
    parser.add_argument("--cache-dir", default=None, help="keep drawn pictures here between runs")
    parser.add_argument("--announce", action="store_true", help="print one JSON line with the port when ready")
    parser.add_argument("--until-stdin-ends", action="store_true", help="stop when standard input is closed")
    options = parser.parse_args(arguments)
    with SampleServer(
        SampleWorld(options.seed, options.scenes), options.host, options.port, options.cache_dir
    ) as server:
        if options.announce:
            sys.stdout.write(json.dumps({"port": server.port}) + "\n")
            sys.stdout.flush()
        with contextlib.suppress(KeyboardInterrupt):
            if options.until_stdin_ends:
                sys.stdin.buffer.read()
            else:
                while True:
                    time.sleep(3600)
    return 0


if __name__ == "__main__":
    sys.exit(main())
