"""Where tables, checkpoints and pictures are: a local folder or ``s3://bucket/prefix``, whole objects, atomic writes.

One shard of one table is one Parquet object, ``<root>/<table>/<shard>.parquet``; a table without shards is
``<root>/<table>.parquet``. An object is there whole or not at all: locally it is written under another name, synced and
renamed; on S3 an object appears when its upload completes.
"""

from __future__ import annotations

import contextlib
import shutil
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Final, TypeVar

import polars as pl

from facecaption_ml.schemas import SOURCE, conform
from facecaption_ml.storage.base import ObjectChangedError, StoreError, reason
from facecaption_ml.storage.lease import LEASE_S, WAIT_S, Check, working_alone
from facecaption_ml.storage.local_files import atomic_write
from facecaption_ml.storage.objects import Objects, open_objects
from facecaption_ml.storage.table_file import TableFile

__all__ = ["ROW_GROUP_ROWS", "Store", "StoreError"]

ROW_GROUP_ROWS: Final = 512
"""Rows in a row group: some 30–60 MB of pictures, so that a reader never needs more of a table than that."""
_READINGS: Final = 5  # of an object that other writers replace meanwhile
T = TypeVar("T")


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
        object.__setattr__(self, "root", self._objects.root)

    @cached_property
    def _objects(self) -> Objects:
        return open_objects(self.root, self.storage_options)

    def uri(self, key: str) -> str:
        """The full address of the object ``key`` (parts separated by ``/``)."""
        return self._objects.uri(key)

    # -- tables ------------------------------------------------------------------------------------------------------

    def table_key(self, table: str, shard: str | None = None, *, incomplete: bool = False) -> str:
        if shard is None:
            return f"{table}.parquet"
        return f"{table}/{'incomplete/' if incomplete else ''}{shard}.parquet"

    def write_table(
        self,
        table: str,
        frame: pl.DataFrame | TableFile,
        shard: str | None = None,
        *,
        incomplete: bool = False,
        row_group_rows: int = ROW_GROUP_ROWS,
        notes: Mapping[str, str] | None = None,
    ) -> str:
        """Write a table of ``schemas.SCHEMAS`` whole and return its address.

        ``notes``: what a reader should know of its rows, kept in the Parquet file's metadata; a TableFile has none.

        ``incomplete`` keeps the rows of a shard that does not count as done apart from the finished ones.
        A TableFile keeps its own row groups.
        Raises SchemaError where the frame does not fit, StoreError where the store cannot be written.
        """
        key = self.table_key(table, shard, incomplete=incomplete)
        frame = frame if isinstance(frame, TableFile) else conform(frame, table)
        with self.writing_file(key) as path:
            if isinstance(frame, TableFile):
                frame.copy_to(path)
            else:
                frame.write_parquet(path, row_group_size=row_group_rows, statistics=False, metadata=dict(notes or {}))
        if not incomplete and shard is not None:
            self.delete(self.table_key(table, shard, incomplete=True))
        return self.uri(key)

    def read_table(
        self, table: str, shard: str | None = None, *, columns: Sequence[str] | None = None, incomplete: bool = False
    ) -> pl.DataFrame:
        """Read a table, or only some of its columns. Raises StoreError where it is absent or damaged."""

        def read(parquet: Any) -> pl.DataFrame:
            present = parquet.schema_arrow.names
            wanted = present if columns is None else list(columns)
            missing = [name for name in wanted if name not in present]
            if missing:
                raise ValueError(f"there is no column {missing[0]!r}")
            # By row groups: what was read of one is free before the next.
            groups = [pl.DataFrame(parquet.read_row_group(i, columns=wanted)) for i in range(parquet.num_row_groups)]
            return pl.concat(groups or [pl.DataFrame(parquet.schema_arrow.empty_table())]).select(wanted)

        return self._read(self.table_key(table, shard, incomplete=incomplete), read)

    def iter_table(
        self, table: str, shard: str, *, columns: Sequence[str] | None = None, batch_rows: int = 128
    ) -> Iterator[pl.DataFrame]:
        """The rows of a shard in order, at most ``batch_rows`` at a time: for pictures that should not all be in memory.

        No batch has rows of two row groups: those of large pictures are short, and so are their batches.
        """
        wanted = list(columns) if columns else None
        with self.open_table(table, shard) as parquet:
            for group in range(parquet.num_row_groups):
                for batch in parquet.iter_batches(batch_size=batch_rows, row_groups=[group], columns=wanted):
                    yield pl.DataFrame(batch)

    def open_table(self, table: str, shard: str, *, incomplete: bool = False) -> contextlib.AbstractContextManager[Any]:
        """The shard as a ``pyarrow.parquet.ParquetFile``, for readers of single row groups; on S3 only those travel.

        All that is read is of one version of the shard. Raises StoreError, in the block too, where it is absent, damaged, or
        replaced meanwhile.
        """
        return self._open(self.table_key(table, shard, incomplete=incomplete))

    def row_count(self, table: str, shard: str | None = None) -> int:
        return self.stored_schema(table, shard)[1]

    def stored_schema(
        self, table: str, shard: str | None = None, *, incomplete: bool = False
    ) -> tuple[dict[str, pl.DataType], int]:
        """Columns with their types, and the number of rows, of the object as it is in the store."""

        def read(parquet: Any) -> tuple[dict[str, pl.DataType], int]:
            return dict(pl.DataFrame(parquet.schema_arrow.empty_table()).schema), parquet.metadata.num_rows

        return self._read(self.table_key(table, shard, incomplete=incomplete), read)

    def table_notes(self, table: str, shard: str | None = None) -> dict[str, str]:
        """What :meth:`write_table` was told to note of the table; empty where that was nothing."""

        def read(parquet: Any) -> dict[str, str]:
            found = parquet.metadata.metadata or {}
            return {key.decode(): value.decode() for key, value in found.items() if not key.startswith(b"ARROW:")}

        return self._read(self.table_key(table, shard), read)

    def has_table(self, table: str, shard: str | None = None, *, incomplete: bool = False) -> bool:
        return self.exists(self.table_key(table, shard, incomplete=incomplete))

    def shards(self, table: str) -> list[str]:
        """The shards of a table that are complete, sorted."""
        names = (key.removeprefix(f"{table}/") for key in self.keys(f"{table}/"))
        return sorted(name.removesuffix(".parquet") for name in names if name.endswith(".parquet") and "/" not in name)

    def registered_shards(self, table: str) -> list[str]:
        """The complete shards of a table that the source has today, sorted; every reader of a whole table takes these.

        Tables of shards that left the source, or that a larger shard size made superfluous, stay in the store until
        ``facecaption clean``. A store without any ``source_manifest`` (a copy of a few tables) has no source to ask.
        """
        shards = self.shards(table)
        if table == SOURCE:
            return shards
        registered = set(self.shards(SOURCE))
        return [shard for shard in shards if shard in registered] if registered else shards

    def _read(self, key: str, read: Callable[[Any], T]) -> T:
        """What ``read`` gives of one version of a Parquet object; it is asked anew where another took its place meanwhile."""
        for reading in range(_READINGS):
            try:
                # Small neighbouring reads are joined, which on S3 saves requests.
                with self._open(key, pre_buffer=True) as parquet:
                    return read(parquet)
            except ObjectChangedError:
                if reading == _READINGS - 1:
                    raise
        raise AssertionError

    @contextlib.contextmanager
    def _open(self, key: str, *, pre_buffer: bool = False) -> Iterator[Any]:
        import pyarrow.parquet as pq

        with contextlib.ExitStack() as stack:
            with self._present(key):
                source = stack.enter_context(self._objects.open(key))
            try:
                yield stack.enter_context(pq.ParquetFile(source, pre_buffer=pre_buffer))
            except ObjectChangedError as error:
                line = f"{self.uri(key)} changed while it was read: another run wrote it; try again"
                raise ObjectChangedError(line) from error
            except (OSError, ValueError) as error:
                raise StoreError(f"cannot read {self.uri(key)}: {reason(error)}") from error

    # -- other objects -----------------------------------------------------------------------------------------------

    def write_bytes(self, key: str, data: bytes) -> str:
        self._objects.write(key, data)
        return self.uri(key)

    def read_bytes(self, key: str) -> bytes:
        """Raises StoreError where there is no such object."""
        with self._present(key):
            return self._objects.read(key)

    def update(self, key: str, change: Callable[[bytes | None], bytes | None]) -> None:
        """Write what ``change`` makes of an object's bytes, None where there is none; no other update comes between."""
        self._objects.update(key, change)

    def working_alone(
        self,
        name: str,
        what: str,
        *,
        wait_s: float = WAIT_S,
        lease_s: float = LEASE_S,
        on_wait: Callable[[str], None] = lambda line: None,
    ) -> contextlib.AbstractContextManager[Check]:
        """Within the block no other process does the work ``name`` on this store; see ``lease.working_alone``."""
        return working_alone(self._objects, name, what, wait_s=wait_s, lease_s=lease_s, on_wait=on_wait)

    def writing_file(self, key: str) -> contextlib.AbstractContextManager[Path]:
        """A local path to write a large object to; it becomes ``key`` when the block ends well, else nothing does."""
        return self._objects.writing_file(key)

    @contextlib.contextmanager
    def reading_file(self, key: str) -> Iterator[Path]:
        """A local path with the object's bytes, for readers that want a file; on S3 a copy that goes with the block."""
        with contextlib.ExitStack() as stack:
            with self._present(key):
                path = stack.enter_context(self._objects.reading_file(key))
            yield path

    def exists(self, key: str) -> bool:
        return self._objects.find(key) is not None

    def delete(self, key: str) -> None:
        """Remove an object; nothing happens where there is none."""
        self._objects.delete(key)

    def keys(self, prefix: str = "") -> list[str]:
        """The keys of all objects that start with ``prefix``, sorted; unfinished writes are not among them."""
        return list(self.sizes(prefix))

    def sizes(self, prefix: str = "") -> dict[str, int]:
        """The keys that ``keys`` gives, each with its size in bytes; one listing, no object is opened."""
        return {key: size for key, size, _ in sorted(self._objects.list(prefix))}

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
            raise StoreError(f"nothing under {self.uri(prefix)}: materialize {prefix.split('/')[0]!r} first")
        own = self._objects.local_path(prefix)
        if own is not None:
            return own
        for key in keys:  # others may read the cache meanwhile
            with self.reading_file(key) as copy, copy.open("rb") as source, atomic_write(cache / key) as target:
                shutil.copyfileobj(source, target)
        return cache / prefix

    def check_writable(self) -> None:
        """Write and remove a small object. Raises StoreError naming the root where that fails."""
        key = f".probe-{uuid.uuid4().hex}"
        self.write_bytes(key, b"")
        self.delete(key)

    @contextlib.contextmanager
    def _present(self, key: str) -> Iterator[None]:
        """Within the block, an object that is absent is a StoreError that says what makes it."""
        try:
            yield
        except FileNotFoundError:
            table, _, shard = key.removesuffix(".parquet").partition("/")
            what = f"table {table!r} has no shard {shard!r} yet" if shard else f"{table!r} is not there yet"
            raise StoreError(f"{what}: materialize it first (looked at {self.uri(key)})") from None
