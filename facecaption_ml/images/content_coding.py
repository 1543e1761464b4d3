"""Bodies that a server encoded although nobody asked (RFC 9110 §8.4), decoded within a limit."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterable
from typing import Any, Final

import brotli
from backports import zstd

from facecaption_ml.images.status import FetchFailure, FetchStatus

_MOST_LAYERS: Final = 5  # as many as curl takes off
_MOST_MEMBERS: Final = 1000
_PIECE_BYTES: Final = 64 * 1024  # what follows a member is copied, so not all at once
_ZSTD_WINDOW_LOG: Final = 23  # 8 MiB, the most that RFC 9659 allows


def codings_of(lines: Iterable[str]) -> list[str]:
    """The codings of Content-Encoding lines that there is a decoder for, in the order in which they were applied.

    Others say nothing about the bytes, and browsers overlook them too: ``identity``, ``none``, ``utf-8``, ``aws-chunked``.
    """
    names = (name.strip().lower() for line in lines for name in line.split(","))
    return [name for name in names if name in _DECODERS]


def decoded(data: bytes, codings: list[str], limit: int, is_plain: Callable[[bytes], bool], cut: bool = False) -> bytes:
    """``data`` without its ``codings``, never more than ``limit`` bytes long, whatever they unpack to.

    A coding that the data does not have, but says to have, is passed over where ``is_plain`` finds the data good as it is.
    ``cut``: a longer one is cut, not refused. Raises FetchFailure: too_large or undecodable.
    """
    if len(codings) > _MOST_LAYERS:
        raise FetchFailure(FetchStatus.undecodable, f"Content-Encoding has more than {_MOST_LAYERS} layers")
    for coding in reversed(codings):
        try:
            plain = _DECODERS[coding](data, limit + 1)
        except (zlib.error, brotli.error, zstd.ZstdError, ValueError):
            if is_plain(data):
                continue
            raise FetchFailure(FetchStatus.undecodable, f"body is not valid {coding}") from None
        if len(plain) > limit and not cut:
            raise FetchFailure(FetchStatus.too_large, f"decoded body is over {limit} bytes")
        data = plain[:limit]
    return data


def _joined(start: Callable[[], Any], data: bytes, limit: int) -> bytes:
    """What gzip members or zstd frames, one behind the other, hold; other bytes behind the first one are overlooked."""
    view, place, ended = memoryview(data), 0, 0
    plain = bytearray()
    decoder = start()
    while place < len(view) and len(plain) < limit and ended < _MOST_MEMBERS:
        piece = view[place : place + _PIECE_BYTES]
        try:
            plain += decoder.decompress(piece, limit - len(plain))
        except (zlib.error, zstd.ZstdError):
            if not ended:
                raise
            break
        place += len(piece)
        if decoder.eof:
            place -= len(decoder.unused_data)
            decoder, ended = start(), ended + 1
    return bytes(plain)


def _gunzip(data: bytes, limit: int) -> bytes:
    return _joined(lambda: zlib.decompressobj(31), data, limit)


def _unzstd(data: bytes, limit: int) -> bytes:
    widest = {int(zstd.DecompressionParameter.window_log_max): _ZSTD_WINDOW_LOG}
    return _joined(lambda: zstd.ZstdDecompressor(options=widest), data, limit)


def _inflate(data: bytes, limit: int) -> bytes:
    try:
        return zlib.decompressobj(15).decompress(data, limit)
    except zlib.error:
        return zlib.decompressobj(-15).decompress(data, limit)  # some servers send it without zlib's frame


def _unbrotli(data: bytes, limit: int) -> bytes:
    decoder = brotli.Decompressor()
    plain = bytearray(decoder.process(data, output_buffer_limit=limit))
    while len(plain) < limit and not decoder.is_finished():
        more = decoder.process(b"", output_buffer_limit=limit - len(plain))
        if not more:
            break
        plain += more
    return bytes(plain)


_DECODERS: Final[dict[str, Callable[[bytes, int], bytes]]] = {
    "gzip": _gunzip,
    "x-gzip": _gunzip,
    "deflate": _inflate,
    "br": _unbrotli,
    "zstd": _unzstd,
}
