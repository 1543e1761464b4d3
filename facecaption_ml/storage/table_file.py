"""A table that is written group by group and read so too, for tables whose pictures are more than memory should hold."""

from __future__ import annotations

import io
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import polars as pl

from facecaption_ml.schemas import conform, empty
from facecaption_ml.storage.base import writing

if TYPE_CHECKING:
    import pyarrow.parquet as pq


class TableFile:
    """Rows of a table of ``schemas.SCHEMAS`` in a Parquet file without a name: it goes with the object, or with the process.

    Each frame that is added becomes a row group, so that a reader never needs more of the table than was in one frame.
    """

    def __init__(self, table: str, folder: Path | None = None) -> None:
        """``folder``: where the file is, by default among the system's temporary ones. Raises StoreError."""
        self.table = table
        self._rows = 0
        self._where = str(folder or tempfile.gettempdir())
        with writing(self._where):
            if folder is not None:
                folder.mkdir(parents=True, exist_ok=True)
            self._file: IO[bytes] = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115 – as long as the table is
        self._writer: pq.ParquetWriter | None = None
        self._empty = empty(table)

    def add(self, frame: pl.DataFrame) -> None:
        """One more row group. Raises SchemaError where the frame does not fit, StoreError where the disk is full."""
        frame = conform(frame, self.table)
        with writing(self._where):
            self._open_writer().write_table(frame.to_arrow(), row_group_size=max(len(frame), 1))
        self._rows += len(frame)

    def close(self) -> TableFile:
        """Nothing is added any more; only then it can be read. Gives itself."""
        with writing(self._where):
            self._open_writer().close()
        return self

    def batches(self) -> Iterator[pl.DataFrame]:
        """Its rows in order, a row group at a time; without rows, none."""
        import pyarrow.parquet as pq

        self._file.seek(0)
        with pq.ParquetFile(self._file) as parquet:
            for group in range(parquet.num_row_groups):
                yield pl.DataFrame(parquet.read_row_group(group))

    def copy_to(self, path: Path) -> None:
        """The file's bytes, whole, to another place."""
        self._file.seek(0)
        with path.open("wb") as target:
            shutil.copyfileobj(self._file, target, 2**20)

    def __len__(self) -> int:
        return self._rows

    @property
    def schema(self) -> Mapping[str, pl.DataType]:
        return self._empty.schema

    @property
    def columns(self) -> list[str]:
        return self._empty.columns

    def clear(self) -> pl.DataFrame:
        """The table without its rows, as a frame's ``clear``."""
        return self._empty

    def _open_writer(self) -> Any:
        import pyarrow.parquet as pq

        if self._writer is None:
            # No statistics and no dictionaries: of pictures they are as large as the pictures, which do not get smaller either.
            schema = self._empty.to_arrow().schema
            self._writer = pq.ParquetWriter(
                self._file,
                schema,
                compression={name: "none" if name.endswith(".bytes") else "zstd" for name in _leaves(schema)},
                use_dictionary=False,
                write_statistics=False,
                write_batch_size=16,
            )
        return self._writer


def _leaves(schema: Any) -> list[str]:
    """The paths of the columns as Parquet has them."""
    import pyarrow.parquet as pq

    file = io.BytesIO()
    pq.write_table(schema.empty_table(), file)
    parquet = pq.ParquetFile(file).schema
    return [parquet.column(index).path for index in range(len(parquet.names))]
