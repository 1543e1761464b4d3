"""A server between a client and an S3 server that misbehaves: 503 answers, connections cut within an upload or a download."""

from __future__ import annotations

import socket
import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

_SLOW_DOWN = (
    b'<?xml version="1.0" encoding="UTF-8"?><Error><Code>SlowDown</Code>'
    b"<Message>Please reduce your request rate.</Message></Error>"
)
_BUSY = (
    b"HTTP/1.1 503 Slow Down\r\nContent-Type: application/xml\r\nConnection: close\r\n"
    b"Content-Length: %d\r\n\r\n" % len(_SLOW_DOWN)
) + _SLOW_DOWN
_CUT_AFTER = 200_000


@dataclass
class FaultyProxy:
    """``faults`` are served to connections in their order (``busy``, ``cut`` or ``cut answer``); without one, all is passed on.

    With ``always`` every connection gets that fault. ``served`` says what was done to whom.
    """

    port: int
    faults: deque[str] = field(default_factory=deque)
    always: str = ""
    served: list[str] = field(default_factory=list)

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.port}"


@contextmanager
def faulty_proxy(port: int) -> Iterator[FaultyProxy]:
    """In front of a server on the loopback address."""
    listener = socket.create_server(("127.0.0.1", 0))
    proxy = FaultyProxy(listener.getsockname()[1])
    threading.Thread(target=_accept, args=(listener, proxy, port), daemon=True).start()
    try:
        yield proxy
    finally:
        listener.close()


def _accept(listener: socket.socket, proxy: FaultyProxy, port: int) -> None:
    while True:
        try:
            client, _ = listener.accept()
        except OSError:  # closed: the test is over
            return
        fault = proxy.always or (proxy.faults.popleft() if proxy.faults else "")
        proxy.served.append(fault or "passed on")
        threading.Thread(target=_serve, args=(client, fault, port), daemon=True).start()


def _serve(client: socket.socket, fault: str, port: int) -> None:
    with client:
        if fault == "busy":
            client.recv(65_536)
            client.sendall(_BUSY)
            return
        with socket.create_connection(("127.0.0.1", port)) as server:
            limit = _CUT_AFTER if fault == "cut answer" else None
            back = threading.Thread(target=_pass_on, args=(server, client, limit), daemon=True)
            back.start()
            _pass_on(client, server, _CUT_AFTER if fault == "cut" else None)
            if fault != "cut":
                back.join(60)


def _pass_on(source: socket.socket, target: socket.socket, limit: int | None) -> None:
    """Bytes from one to the other until one is closed, or ``limit`` have passed."""
    passed = 0
    try:
        while limit is None or passed < limit:
            data = source.recv(65_536)
            if not data:
                break
            target.sendall(data)
            passed += len(data)
        if limit is None:
            target.shutdown(socket.SHUT_WR)
        else:
            for end in (source, target):
                end.shutdown(socket.SHUT_RDWR)
    except OSError:  # the other side has gone
        pass
