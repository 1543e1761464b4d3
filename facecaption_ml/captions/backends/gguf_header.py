"""The key-value pairs at the head of a GGUF file, read without its tensors: what a model is, before anything is unpacked.

The format is that of the GGUF specification (ggml, docs/gguf.md), versions 2 and 3, little-endian.
"""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any, BinaryIO, Final

_MAGIC: Final = b"GGUF"
_NUMBERS: Final = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
_STRING, _ARRAY = 8, 9
_MOST_BYTES: Final = 1 << 28  # of one string; more is a broken file


def read_texts(file: Path) -> dict[str, str]:
    """The entries that are texts, such as ``general.name`` and ``tokenizer.chat_template``.

    Raises OSError, or ValueError where the file is no such GGUF file or ends too early.
    """
    with file.open("rb") as opened:
        if opened.read(4) != _MAGIC:
            raise ValueError("no GGUF file")
        version, _, pairs = struct.unpack("<IQQ", _exactly(opened, 20))
        if version not in (2, 3):
            raise ValueError(f"GGUF version {version}, not 2 or 3")
        texts = {}
        for _ in range(pairs):
            key = _text(opened)
            (kind,) = struct.unpack("<I", _exactly(opened, 4))
            value = _value(opened, kind)
            if isinstance(value, str):
                texts[key] = value
    return texts


def _value(opened: BinaryIO, kind: int) -> Any:
    """A value; of an array, which is skipped, None."""
    if kind == _STRING:
        return _text(opened)
    if kind in _NUMBERS:
        return struct.unpack(f"<{_NUMBERS[kind]}", _exactly(opened, struct.calcsize(_NUMBERS[kind])))[0]
    if kind != _ARRAY:
        raise ValueError(f"GGUF value of unknown type {kind}")
    inner, count = struct.unpack("<IQ", _exactly(opened, 12))
    if inner in _NUMBERS:
        opened.seek(count * struct.calcsize(_NUMBERS[inner]), 1)
        return None
    for _ in range(count):
        if inner == _STRING:
            opened.seek(_length(opened), 1)
        else:
            _value(opened, inner)
    return None


def _length(opened: BinaryIO) -> int:
    (length,) = struct.unpack("<Q", _exactly(opened, 8))
    if length > _MOST_BYTES:
        raise ValueError(f"GGUF string of {length} bytes")
    return int(length)


def _text(opened: BinaryIO) -> str:
    return _exactly(opened, _length(opened)).decode("utf-8", "replace")


def _exactly(opened: BinaryIO, count: int) -> bytes:
    data = opened.read(count)
    if len(data) < count:
        raise ValueError("GGUF file that ends too early")
    return data
