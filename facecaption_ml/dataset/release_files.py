"""Packs released rows into Parquet files that ``datasets.load_dataset`` opens."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any, Final

import polars as pl

from facecaption_ml.storage.store import Store

PREFIX: Final = "release"
SPLITS: Final = ("train", "validation", "test")
_ROWS_PER_FILE: Final = 500_000
_PICTURES_AT_A_TIME: Final = 1_000  # an Arrow array of binary holds 2 GB


class SplitWriter:
    """Parquet files under ``release/data/`` of at most ``_ROWS_PER_FILE`` rows for each split, by way of a local ``folder``."""

    def __init__(self, folder: Path, store: Store) -> None:
        self._folder, self._store = folder, store
        self._writers: dict[str, Any] = {}
        self._rows: Counter[str] = Counter()
        self._files: Counter[str] = Counter()
        self._written: set[str] = set()

    def add(self, frame: pl.DataFrame) -> None:
        import pyarrow.parquet as pq

        for split in SPLITS:
            rows = frame.filter(pl.col("split") == split)
            if not len(rows):
                continue
            table = _with_pictures(rows.to_arrow())
            if split not in self._writers:
                self._writers[split] = pq.ParquetWriter(self._path(split), table.schema, compression="zstd")
            self._writers[split].write_table(table)
            self._rows[split] += len(rows)
            if self._rows[split] >= _ROWS_PER_FILE:
                self._finish(split)

    def close(self) -> set[str]:
        for split in list(self._writers):
            self._finish(split)
        return self._written

    def _path(self, split: str) -> Path:
        return self._folder / f"{split}-{self._files[split]:05d}.parquet"

    def _finish(self, split: str) -> None:
        self._writers.pop(split).close()
        path = self._path(split)
        key = f"{PREFIX}/data/{path.name}"
        self._store.write_bytes(key, path.read_bytes())
        self._written.add(key)
        path.unlink()
        self._files[split] += 1
        self._rows[split] = 0


def _with_pictures(table: Any) -> Any:
    """The Arrow table with its ``image`` column, if there is one, as ``datasets`` stores pictures, and marked as such."""
    import pyarrow as pa

    if "image" not in table.column_names:
        return table
    # Features.from_arrow_schema takes the mark only where the type is exactly the one that datasets.Image has.
    kind = pa.struct({"bytes": pa.binary(), "path": pa.string()})
    place = table.column_names.index("image")
    slices = [table.column("image").slice(i, _PICTURES_AT_A_TIME) for i in range(0, len(table), _PICTURES_AT_A_TIME)]
    pictures = pa.chunked_array([chunk for part in slices for chunk in part.cast(kind).chunks], kind)
    features = {"info": {"features": {"image": {"_type": "Image"}}}}
    return table.set_column(place, "image", pictures).replace_schema_metadata({"huggingface": json.dumps(features)})
