"""The version of a table's content: one hash of its logical rows, whatever wrote the file and however it lies there."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, Final

import polars as pl

if TYPE_CHECKING:
    from facecaption_ml.storage.store import Store

_DIGITS: Final = 16
_BATCH_ROWS: Final = 4096
NOT_CONTENT: Final[Mapping[str, frozenset[str]]] = {
    # How a download went differs from one to the next, and nothing is made from it; ``sha256`` stands for the bytes.
    "raw_images": frozenset({"error", "image", "attempts", "fetched_at", "decided_by", "file_version"}),
}
"""Columns of a table that its version does not depend on."""


def table_version(store: Store, table: str, shard: str, *, columns: Iterable[str]) -> str:
    """The version of a shard as it is in the store, read in batches. Raises StoreError where it is absent."""
    wanted = [name for name in columns if name not in NOT_CONTENT.get(table, ())]
    return content_version(store.iter_table(table, shard, columns=wanted, batch_rows=_BATCH_ROWS))


def content_version(frames: Iterable[pl.DataFrame]) -> str:
    """16 hex digits for the rows of the frames, one after the other.

    Equal for equal columns, types and values in the same order, into whatever batches they are cut, under any version of
    Polars or Parquet. Frames without a single one among them have the version of nothing.
    """
    hashes: dict[str, Any] = {}
    for frame in frames:
        for column in frame.iter_columns():
            for part, data in _parts(column.name, column):
                hashes.setdefault(part, hashlib.sha256()).update(data)
    whole = hashlib.sha256()
    for part in sorted(hashes):
        whole.update(f"{part}\0{hashes[part].hexdigest()}\n".encode())
    return whole.hexdigest()[:_DIGITS]


def _parts(name: str, column: pl.Series) -> Iterator[tuple[str, bytes]]:
    """The column as named streams of bytes, each of which goes on in the next batch: which are null, lengths, values."""
    kind = column.dtype
    yield f"{name}:{kind.base_type().__name__}:null", column.is_null().to_numpy().astype("u1").tobytes()
    if isinstance(kind, pl.Struct):
        for field in kind.fields:
            yield from _parts(f"{name}.{field.name}", column.struct.field(field.name))
    elif isinstance(kind, pl.List | pl.Array):
        lists = column.cast(pl.List(kind.inner)) if isinstance(kind, pl.Array) else column
        yield f"{name}:length", lists.list.len().fill_null(0).to_numpy().astype("<u4").tobytes()
        values = lists.drop_nulls()
        values = values.filter(values.list.len() > 0).explode()
        yield from _parts(f"{name}[]", values)
    elif kind in (pl.String, pl.Binary):
        sizes = column.str.len_bytes() if kind == pl.String else column.bin.size()
        yield f"{name}:length", sizes.fill_null(0).to_numpy().astype("<u4").tobytes()
        for value in column.drop_nulls():
            yield f"{name}:value", value.encode() if isinstance(value, str) else value
    else:
        plain = column.drop_nulls().to_physical()
        values = plain.cast(pl.UInt8) if plain.dtype == pl.Boolean else plain
        yield f"{name}:value", values.to_numpy().astype(values.to_numpy().dtype.newbyteorder("<")).tobytes()
