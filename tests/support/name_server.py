"""A DNS server on loopback (UDP) that answers well, badly or not at all, by the first part of a name."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from ipaddress import IPv4Address
from typing import Final

_CODES: Final = {"servfail": 2, "missing": 3, "refused": 5}
_A: Final = 1


@dataclass
class NameServer:
    """``address`` is ``127.0.0.1:port``. Names that begin with ``silent`` get no answer, until ``awake`` is set; those with
    servfail, missing, refused get that code; ``addresses`` holds what others get, 127.0.0.1 where it says nothing."""

    address: str = ""
    addresses: dict[str, list[str]] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)
    awake: bool = False

    def answer(self, query: bytes) -> bytes | None:
        labels, place = [], 12
        while length := query[place]:
            labels.append(query[place + 1 : place + 1 + length].decode())
            place += length + 1
        name = ".".join(labels).lower()
        (kind,) = struct.unpack(">H", query[place + 1 : place + 3])
        self.asked.append(name)
        if name.startswith("silent") and not self.awake:
            return None
        code = next((code for start, code in _CODES.items() if name.startswith(start)), 0)
        found = self.addresses.get(name, ["127.0.0.1"]) if kind == _A and not code else []
        records = [b"\xc0\x0c" + struct.pack(">HHIH", _A, 1, 0, 4) + IPv4Address(address).packed for address in found]
        head = query[:2] + struct.pack(">HHHHH", 0x8180 | code, 1, len(records), 0, 0)
        return head + query[12 : place + 5] + b"".join(records)


@contextlib.contextmanager
def name_server() -> Iterator[NameServer]:
    server = NameServer()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as listener:
        listener.bind(("127.0.0.1", 0))
        listener.settimeout(0.2)
        server.address = f"127.0.0.1:{listener.getsockname()[1]}"
        stop = threading.Event()

        def serve() -> None:
            while not stop.is_set():
                with contextlib.suppress(TimeoutError):
                    query, peer = listener.recvfrom(4096)
                    if (answer := server.answer(query)) is not None:
                        listener.sendto(answer, peer)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        try:
            yield server
        finally:
            stop.set()
            thread.join(5)
