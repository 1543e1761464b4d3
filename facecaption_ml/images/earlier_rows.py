"""A shard's raw_images of an earlier run: facts in memory, pictures where they are until a row of the new table asks."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Final, Protocol

import polars as pl

from facecaption_ml.schemas import SCHEMAS, conform

_FACTS: Final = tuple(name for name in SCHEMAS["raw_images"] if name != "image")
_SINCE_0_2: Final = ("decided_by", "file_version")
"""Columns that older tables lack."""
_SIZES_AT_A_TIME: Final = 16  # pictures in memory while their sizes are looked up


class _Pictures(Protocol):
    def size(self, index: int) -> int: ...

    def read(self, index: int) -> bytes: ...

    def sizes(self) -> list[int]: ...


class EarlierRows:
    """``facts``: the columns of raw_images but for ``image``, a row for each row of the table."""

    def __init__(self, facts: pl.DataFrame, pictures: _Pictures) -> None:
        self.facts = facts
        self._pictures = pictures

    @classmethod
    def of_frame(cls, frame: pl.DataFrame) -> EarlierRows:
        """A table in memory, with or without the columns that were added later."""
        frame = conform(_completed(frame), "raw_images")
        return cls(frame.select(_FACTS), _InFrame(frame["image"].struct.field("bytes")))

    @classmethod
    def of_file(cls, parquet: Any) -> EarlierRows:
        """A table as an open ``pyarrow.parquet.ParquetFile``, which has to stay open."""
        present = [name for name in _FACTS if name in parquet.schema_arrow.names]
        facts = _completed(pl.DataFrame(parquet.read(columns=present)))
        return cls(facts.select(_FACTS), _InFile(parquet))

    def body(self, index: int) -> EarlierBody:
        """The picture of a row with status ok."""
        return EarlierBody(self._pictures, index)

    def sizes(self) -> list[int]:
        """Bytes of each row's picture, 0 where there is none; reads through the pictures, a few at a time."""
        return self._pictures.sizes()


class EarlierBody:
    """A picture of the earlier table."""

    def __init__(self, pictures: _Pictures, index: int) -> None:
        self._pictures, self._index = pictures, index

    def size(self) -> int:
        return self._pictures.size(self._index)

    def read(self) -> bytes:
        return self._pictures.read(self._index)

    def release(self) -> None:
        """It stays where it is."""


class _InFrame:
    def __init__(self, data: pl.Series) -> None:
        self._data = data

    def size(self, index: int) -> int:
        return len(self._data[index])

    def read(self, index: int) -> bytes:
        return bytes(self._data[index])

    def sizes(self) -> list[int]:
        return self._data.bin.size().fill_null(0).to_list()


class _InFile:
    """Pictures in a Parquet file; of one row group at a time, as rows are mostly asked for in order."""

    def __init__(self, parquet: Any) -> None:
        self._parquet = parquet
        metadata = parquet.metadata
        self._starts = [0]
        for group in range(metadata.num_row_groups):
            self._starts.append(self._starts[-1] + metadata.row_group(group).num_rows)
        self._start = self._end = 0
        self._data: Any = None

    def size(self, index: int) -> int:
        return len(self._scalar(index).as_buffer())

    def read(self, index: int) -> bytes:
        return self._scalar(index).as_py()

    def _scalar(self, index: int) -> Any:
        if not self._start <= index < self._end:
            self._data = None  # before the next is read
            group = next(number for number, end in enumerate(self._starts[1:]) if index < end)
            self._start, self._end = self._starts[group : group + 2]
            self._data = self._parquet.read_row_group(group, columns=["image.bytes"]).column(0)
        return self._data[index - self._start]["bytes"]

    def sizes(self) -> list[int]:
        sizes: list[int] = []
        for column in self._batches():
            sizes += column.struct.field("bytes").bin.size().fill_null(0).to_list()
        return sizes

    def _batches(self) -> Iterator[pl.Series]:
        for group in range(len(self._starts) - 1):
            given = {"batch_size": _SIZES_AT_A_TIME, "row_groups": [group], "columns": ["image.bytes"]}
            for batch in self._parquet.iter_batches(**given):
                yield pl.DataFrame(batch)["image"]


def _completed(frame: pl.DataFrame) -> pl.DataFrame:
    missing: Sequence[str] = [name for name in _SINCE_0_2 if name not in frame.columns]
    return frame.with_columns(pl.lit(None, SCHEMAS["raw_images"][name]).alias(name) for name in missing)
