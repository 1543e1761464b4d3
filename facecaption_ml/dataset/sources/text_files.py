"""Tables of text as whole lines, some MiB at a time: decompressed, as UTF-8, and counted as they come."""

from __future__ import annotations

import bz2
import codecs
import contextlib
import gzip
import lzma
import re
import zlib
from collections.abc import Iterator, Mapping
from typing import Any, Final, NamedTuple

from facecaption_ml.dataset.sources.counts import ManifestCounts, Repair, SourceError, SourceOutcome, shown
from facecaption_ml.dataset.sources.names import table_name
from facecaption_ml.storage.base import StoreError
from facecaption_ml.storage.objects import open_parent

BLOCK_BYTES: Final = 2 * 2**20
MAX_LINE_BYTES: Final = 16 * 2**20
"""A longer line is dropped, and read in blocks until it ends."""
_BOMS: Final = ((codecs.BOM_UTF16_LE, "utf-16-le"), (codecs.BOM_UTF16_BE, "utf-16-be"))
_LINE_END: Final = re.compile(rb"\r*\n|\r")
_LONE_RETURN: Final = re.compile(rb"\r(?!\n)")


class Block(NamedTuple):
    """Whole lines, each with its ``\\n``, as valid UTF-8; the first has the number ``line``, counted from 1."""

    line: int
    data: bytes


class TextFile:
    """A table of text. ``lines`` counts the line ends of what was read, a last line without one too."""

    def __init__(self, name: str, counts: ManifestCounts, options: Mapping[str, str] | None = None) -> None:
        self.name, self.lines = name, 0
        self._counts, self._options = counts, options

    def blocks(self) -> Iterator[Block]:
        """The lines of the file. Lines over MAX_LINE_BYTES are dropped and counted; bytes that are no UTF-8 become U+FFFD.

        Raises SourceError where the file cannot be read or decompressed.
        """
        rest, line, skipping = b"", 1, False
        for chunk in self._chunks():
            if skipping:
                end = chunk.find(b"\n")
                if end < 0:
                    continue
                chunk, skipping = chunk[end + 1 :], False
                line += 1
            end = chunk.rfind(b"\n")
            if end < 0:
                rest += chunk
            else:
                data, rest = rest + chunk[: end + 1], chunk[end + 1 :]
                yield Block(line, self._repaired(line, data))
                line += data.count(b"\n")
            if len(rest) > MAX_LINE_BYTES:
                self._counts.drop(SourceOutcome.LINE_TOO_LONG, self.name, f"line {line}", rest[:200])
                rest, skipping = b"", True
        if rest:
            yield Block(line, self._repaired(line, rest + b"\n"))

    def _repaired(self, line: int, data: bytes) -> bytes:
        try:
            data.decode()
            return data
        except UnicodeDecodeError:
            pass
        lines = data.split(b"\n")
        for number, text in enumerate(lines):
            try:
                text.decode()
            except UnicodeDecodeError:
                lines[number] = text.decode("utf-8", "replace").encode()
                self._counts.note_repair(Repair.INVALID_UTF8, self.name, f"line {line + number}", lines[number])
        return b"\n".join(lines)

    def _chunks(self) -> Iterator[bytes]:
        """Its bytes as UTF-8, lines ended by ``\\n`` or ``\\r\\n`` and counted in ``lines``.

        Where the first line ends with a ``\\r`` alone, each does.
        """
        last, returns = b"", None
        for chunk in _with_whole_ends(self._decoded()):
            end = _LINE_END.search(chunk) if returns is None else None
            if end is not None:
                returns = end[0] == b"\r"
            if returns:
                chunk = _LONE_RETURN.sub(b"\n", chunk)
            self.lines += chunk.count(b"\n")
            last = chunk[-1:] or last
            yield chunk
        self.lines += last not in (b"", b"\n")

    def _decoded(self) -> Iterator[bytes]:
        """Its bytes as UTF-8 without a mark at the beginning; what is no UTF-16 becomes what is no UTF-8."""
        with reading(self.name), open_bytes(self.name, self._options) as file:
            chunk = _read(file)
            mark, encoding = next(
                ((mark, name) for mark, name in _BOMS if chunk.startswith(mark)), (codecs.BOM_UTF8, "")
            )
            chunk = chunk.removeprefix(mark)
            decoder = codecs.getincrementaldecoder(encoding)("surrogatepass") if encoding else None
            while chunk:
                yield decoder.decode(chunk).encode("utf-8", "surrogatepass") if decoder else chunk
                chunk = _read(file)
            if decoder and decoder.getstate()[0]:
                yield b"\xff"


def _with_whole_ends(chunks: Iterator[bytes]) -> Iterator[bytes]:
    """The same bytes in chunks none of which but the last ends with a ``\\r``, which a ``\\n`` may follow."""
    held = b""
    for chunk in chunks:
        whole = held + chunk if held else chunk
        held = b"\r" if whole.endswith(b"\r") else b""
        yield whole[:-1] if held else whole
    yield held


@contextlib.contextmanager
def open_bytes(name: str, options: Mapping[str, str] | None = None) -> Iterator[Any]:
    """A table's file for reading, decompressed where its name says that it is compressed."""
    objects, key = open_parent(name, options)
    path = objects.local_path(key)
    kind = table_name(name)
    with path.open("rb") if path is not None else objects.open(key) as file:
        match kind.compression if kind else "":
            case "gzip":
                with gzip.GzipFile(fileobj=file) as unpacked:
                    yield unpacked
            case "bz2":
                with bz2.BZ2File(file) as unpacked:
                    yield unpacked
            case "xz":
                with lzma.LZMAFile(file) as unpacked:
                    yield unpacked
            case "zstd":
                import pyarrow as pa

                yield pa.CompressedInputStream(pa.PythonFile(file, "r"), "zstd")
            case _:
                yield file


@contextlib.contextmanager
def reading(name: str) -> Iterator[None]:
    """Within the block, whatever keeps a file from being read is a SourceError that names it."""
    try:
        yield
    except SourceError:
        raise
    except (OSError, EOFError, StoreError, zlib.error, lzma.LZMAError, ValueError) as error:
        said = (error.strerror if isinstance(error, OSError) else None) or str(error) or type(error).__name__
        found = table_name(name)
        kind = ".".join(part for part in found or () if part)
        raise SourceError(f"source {shown(name)}: cannot be read as {kind}: {shown(said)}") from error


def _read(file: Any) -> bytes:
    """The next block, from streams that give less than they are asked for too."""
    parts, missing = [], BLOCK_BYTES
    while missing > 0:
        part = bytes(file.read(missing))
        if not part:
            break
        parts.append(part)
        missing -= len(part)
    return b"".join(parts)
