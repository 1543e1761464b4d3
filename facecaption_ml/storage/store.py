"""Where tables, checkpoints and pictures live: a local folder or ``s3://bucket/prefix``, whole objects, atomic writes.

One shard of one table is one Parquet object, ``<root>/<table>/<shard>.parquet``; a table without shards is
``<root>/<table>.parquet``. An object is there whole or not at all: locally it is written beside its final name, synced and
renamed; on S3 an object appears when its upload completes.
"""

from __future__ import annotations

import contextlib
import tempfile
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, TypeVar

import polars as pl

from facecaption_ml.errors import FaceCaptionError
from facecaption_ml.schemas import conform
from facecaption_ml.storage.local_files import replacing
from facecaption_ml.storage.object_storage import S3Location, reading_options

ROW_GROUP_ROWS: Final = 512
"""Rows in a row group: some 30–60 MB of pictures, so that a reader never needs more of a table than that."""
_READINGS: Final = 5  # of an object that other writers replace meanwhile
T = TypeVar("T")


class StoreError(FaceCaptionError):
    """The store cannot be reached, read or written; the message names the place and the setting that points there."""


@dataclass(frozen=True)
class Store:
    """Tables and files under one root.

    ``root`` is a folder or ``s3://bucket/prefix``; ``storage_options`` are the object-store options of Polars
    (``aws_endpoint_url``, ``aws_region``, ``aws_access_key_id``, ``aws_secret_access_key``), and how objects are encrypted
    at rest (``aws_server_side_encryption``, ``aws_sse_kms_key_id``); without them the usual AWS environment applies.
    """

    root: str
    storage_options: Mapping[str, str] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "root", self.root.rstrip("/") if self.is_s3 else str(Path(self.root).resolve()))

    @property
    def is_s3(self) -> bool:
        return self.root.startswith("s3://")

    @property
    def _s3(self) -> S3Location:
        return S3Location.from_url(self.root, self.storage_options)

    def uri(self, key: str) -> str:
        """The full address of the object ``key`` (parts separated by ``/``)."""
        return f"{self.root}/{key}"

    # -- tables ------------------------------------------------------------------------------------------------------

    def table_key(self, table: str, shard: str | None = None, *, incomplete: bool = False) -> str:
        if shard is None:
            return f"{table}.parquet"
        return f"{table}/{'incomplete/' if incomplete else ''}{shard}.parquet"

    def write_table(
        self,
        table: str,
        frame: pl.DataFrame,
        shard: str | None = None,
        *,
        incomplete: bool = False,
        row_group_rows: int = ROW_GROUP_ROWS,
    ) -> str:
        """Write a table of ``schemas.SCHEMAS`` whole and return its address.

        ``incomplete`` keeps the rows of a shard that does not count as done apart from the finished ones.
        Raises SchemaError where the frame does not fit, StoreError where the store cannot be written.
        """
        key = self.table_key(table, shard, incomplete=incomplete)
        frame = conform(frame, table)
        # On S3 by way of a local file: parts are then sent again, and encrypted, as those of every other object.
        with self.writing_file(key) as path:
            frame.write_parquet(path, row_group_size=row_group_rows, statistics=False)
        if not incomplete and shard is not None:
            self.delete(self.table_key(table, shard, incomplete=True))
        return self.uri(key)

    def read_table(
        self,
        table: str,
        shard: str | None = None,
        *,
        columns: Sequence[str] | None = None,
        incomplete: bool = False,
    ) -> pl.DataFrame:
        """Read a table, or only some of its columns. Raises StoreError where it is absent or damaged."""
        return self._collect(self.table_key(table, shard, incomplete=incomplete), columns)

    def iter_table(
        self, table: str, shard: str, *, columns: Sequence[str] | None = None, batch_rows: int = 128
    ) -> Iterator[pl.DataFrame]:
        """The rows of a shard in order, ``batch_rows`` at a time, for tables whose pictures should not all be in memory."""
        with self.open_table(table, shard) as parquet:
            for batch in parquet.iter_batches(batch_size=batch_rows, columns=list(columns) if columns else None):
                frame = pl.from_arrow(batch)
                assert isinstance(frame, pl.DataFrame)
                yield frame

    @contextlib.contextmanager
    def open_table(self, table: str, shard: str) -> Iterator[Any]:
        """The shard as a ``pyarrow.parquet.ParquetFile``, for readers of single row groups; on S3 only those travel."""
        import pyarrow.parquet as pq

        key = self.table_key(table, shard)
        version = self._version(key)
        try:
            with self._open_for_arrow(key) as source, pq.ParquetFile(source) as parquet:
                yield parquet
        except (OSError, ValueError) as error:
            raise StoreError(f"cannot read {self.uri(key)}: {_first_line(error)}") from error
        if self.is_s3 and self._version(key) != version:
            raise StoreError(f"{self.uri(key)} changed while it was read: another run wrote it; try again")

    def row_count(self, table: str, shard: str | None = None) -> int:
        return self._facts(self.table_key(table, shard))[1]

    def stored_schema(
        self, table: str, shard: str | None = None, *, incomplete: bool = False
    ) -> tuple[dict[str, pl.DataType], int]:
        """Columns with their types, and the number of rows, of the object as it lies in the store."""
        return self._facts(self.table_key(table, shard, incomplete=incomplete))

    def has_table(self, table: str, shard: str | None = None, *, incomplete: bool = False) -> bool:
        return self.exists(self.table_key(table, shard, incomplete=incomplete))

    def shards(self, table: str) -> list[str]:
        """The shards of a table that are complete, sorted."""
        names = (key.removeprefix(f"{table}/") for key in self.keys(f"{table}/"))
        return sorted(name.removesuffix(".parquet") for name in names if name.endswith(".parquet") and "/" not in name)

    def _collect(self, key: str, columns: Sequence[str] | None) -> pl.DataFrame:
        def read() -> pl.DataFrame:
            if self.is_s3:
                scan = pl.scan_parquet(self.uri(key), storage_options=self._options(), glob=False)
                return (scan.select(columns) if columns is not None else scan).collect()
            return self._read_open_file(key, columns)

        return self._consistent(key, read)

    def _facts(self, key: str) -> tuple[dict[str, pl.DataType], int]:
        """Columns with their types, and the number of rows."""
        import pyarrow.parquet as pq

        def read() -> tuple[dict[str, pl.DataType], int]:
            with self._open_for_arrow(key) as source, pq.ParquetFile(source) as parquet:
                none = pl.from_arrow(parquet.schema_arrow.empty_table())
                assert isinstance(none, pl.DataFrame)
                return dict(none.schema), parquet.metadata.num_rows

        return self._consistent(key, read)

    def _read_open_file(self, key: str, columns: Sequence[str] | None) -> pl.DataFrame:
        """Through one open file: Polars opens a path several times, between which another run may replace what is there."""
        import pyarrow.parquet as pq

        with pq.ParquetFile(self.uri(key)) as parquet:
            missing = [name for name in columns or () if name not in parquet.schema_arrow.names]
            if missing:
                raise ValueError(f"there is no column {missing[0]!r}")
            found = pl.from_arrow(parquet.read(columns=list(columns) if columns is not None else None))
            assert isinstance(found, pl.DataFrame)
            return found.select(columns) if columns is not None else found

    def _consistent(self, key: str, read: Callable[[], T]) -> T:
        """What ``read`` gives of one version of an object; on S3 it is asked anew where another took its place meanwhile."""
        for _ in range(_READINGS):
            before = self._version(key)
            try:
                found = read()
            except (OSError, ValueError, pl.exceptions.PolarsError, pl.exceptions.PanicException) as error:
                if self.is_s3 and self._version(key) != before:
                    continue
                raise StoreError(f"cannot read {self.uri(key)}: {_first_line(error)}") from error
            if not self.is_s3 or self._version(key) == before:
                return found
        raise StoreError(f"{self.uri(key)} changes while it is read: another run writes it; try again later")

    def _version(self, key: str) -> str:
        """What names the object's content on S3; nothing for a folder. Raises StoreError where there is no object."""
        if not self.is_s3:
            self._require(key)
            return ""
        with self._reaching():
            version = self._s3.version(key)
        if version is None:
            raise self._absent(key)
        return version

    def _open_for_arrow(self, key: str) -> contextlib.AbstractContextManager[Any]:
        if not self.is_s3:
            return contextlib.nullcontext(self.uri(key))
        return self._s3.open(key)

    # -- other objects -----------------------------------------------------------------------------------------------

    def write_bytes(self, key: str, data: bytes) -> str:
        with self._writing(key):
            if self.is_s3:
                self._s3.put(key, data)
            else:
                with replacing(Path(self.uri(key))) as file:
                    file.write(data)
        return self.uri(key)

    def read_bytes(self, key: str) -> bytes:
        """Raises StoreError where there is no such object."""
        try:
            if self.is_s3:
                with self._reaching():
                    return self._s3.get(key)
            return Path(self.uri(key)).read_bytes()
        except (KeyError, FileNotFoundError):
            raise self._absent(key) from None

    @contextlib.contextmanager
    def writing_file(self, key: str) -> Iterator[Path]:
        """A local path to write a large object to; it becomes ``key`` when the block ends well, else nothing does."""
        if not self.is_s3:
            with self._writing(key), replacing(Path(self.uri(key))) as file:
                yield Path(file.name)
            return
        with self._writing(key), tempfile.TemporaryDirectory() as scratch:
            path = Path(scratch) / key.rpartition("/")[2]
            yield path
            self._s3.put_file(key, path)

    @contextlib.contextmanager
    def reading_file(self, key: str) -> Iterator[Path]:
        """A local path with the object's bytes, for readers that want a file; on S3 a copy that goes with the block."""
        if not self.is_s3:
            self._require(key)
            yield Path(self.uri(key))
            return
        with tempfile.TemporaryDirectory() as scratch:
            path = Path(scratch) / key.rpartition("/")[2]
            self._fetch(key, path)
            yield path

    def exists(self, key: str) -> bool:
        if self.is_s3:
            with self._reaching():
                return self._s3.exists(key)
        return Path(self.uri(key)).is_file()

    def delete(self, key: str) -> None:
        """Remove an object; nothing happens where there is none."""
        with self._writing(key):
            if self.is_s3:
                self._s3.delete(key)
            else:
                Path(self.uri(key)).unlink(missing_ok=True)

    def keys(self, prefix: str = "") -> list[str]:
        """The keys of all objects that start with ``prefix``, sorted; unfinished writes are not among them."""
        return list(self.sizes(prefix))

    def sizes(self, prefix: str = "") -> dict[str, int]:
        """The keys that ``keys`` gives, each with its size in bytes; one listing, no object is opened."""
        if self.is_s3:
            with self._reaching():
                return dict(sorted(self._s3.sizes(prefix)))
        root = Path(self.root)
        folder = root / prefix.rpartition("/")[0]
        found = ((path.relative_to(root).as_posix(), path) for path in folder.rglob("*") if path.is_file())
        kept = [(key, path) for key, path in found if key.startswith(prefix) and not path.name.startswith(".")]
        return {key: path.stat().st_size for key, path in sorted(kept)}

    def upload_folder(self, folder: Path, prefix: str) -> None:
        """Copy every file of a local folder under ``prefix``."""
        for path in sorted(p for p in folder.rglob("*") if p.is_file()):
            self.write_bytes(f"{prefix}/{path.relative_to(folder).as_posix()}", path.read_bytes())

    def local_folder(self, prefix: str, cache: Path) -> Path:
        """A local folder with the files under ``prefix``: the store's own where it is local, else a copy in ``cache``.

        Raises StoreError where there is no such object.
        """
        keys = self.keys(f"{prefix}/")
        if not keys:
            raise StoreError(f"nothing under {self.uri(prefix)}: materialise {prefix.split('/')[0]!r} first")
        if not self.is_s3:
            return Path(self.uri(prefix))
        for key in keys:
            target = cache / key
            target.parent.mkdir(parents=True, exist_ok=True)
            partial = target.with_name(f".{target.name}.{uuid.uuid4().hex}.tmp")  # others may read the cache meanwhile
            try:
                self._fetch(key, partial)
                partial.replace(target)
            finally:
                partial.unlink(missing_ok=True)
        return cache / prefix

    # -- plumbing ----------------------------------------------------------------------------------------------------

    def check_writable(self) -> None:
        """Write and remove a small object. Raises StoreError naming the root where that fails."""
        key = f".probe-{uuid.uuid4().hex}"
        self.write_bytes(key, b"")
        self.delete(key)

    def _options(self) -> dict[str, Any] | None:
        return reading_options(self.storage_options) if self.is_s3 else None

    def _fetch(self, key: str, path: Path) -> None:
        """An object of S3 as a local file."""
        try:
            with self._reaching():
                self._s3.get_file(key, path)
        except KeyError:
            raise self._absent(key) from None

    def _require(self, key: str) -> None:
        if not self.exists(key):
            raise self._absent(key)

    def _absent(self, key: str) -> StoreError:
        table, _, shard = key.removesuffix(".parquet").partition("/")
        what = f"table {table!r} has no shard {shard!r} yet" if shard else f"{table!r} is not there yet"
        return StoreError(f"{what}: materialise it first (looked at {self.uri(key)})")

    @contextlib.contextmanager
    def _reaching(self) -> Iterator[None]:
        from botocore.exceptions import BotoCoreError, ClientError

        try:
            yield
        except (BotoCoreError, ClientError) as error:
            raise StoreError(
                f"cannot reach {self.root} (FACECAPTION_STORE, FACECAPTION_S3_ENDPOINT): {_first_line(error)}"
            ) from error

    @contextlib.contextmanager
    def _writing(self, key: str) -> Iterator[None]:
        try:
            if self.is_s3:
                with self._reaching():
                    yield
            else:
                yield
        except (OSError, pl.exceptions.PolarsError) as error:
            raise StoreError(f"cannot write {self.uri(key)} (FACECAPTION_STORE): {_first_line(error)}") from error


def _first_line(error: BaseException) -> str:
    return (str(error) or type(error).__name__).splitlines()[0]
