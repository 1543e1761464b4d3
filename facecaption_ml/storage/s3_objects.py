"""Whole objects on S3 through obstore: retries, uploads in parts, and reads that are pinned to one version."""

from __future__ import annotations

import contextlib
import io
import os
import random
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import obstore
from obstore.exceptions import AlreadyExistsError, BaseError, PreconditionError

from facecaption_ml.storage.base import S3, ObjectChangedError, StoredObject, StoreError, reason, writing

if TYPE_CHECKING:
    from obstore import Bytes, GetOptions, ObjectMeta, PutMode
    from obstore.store import BackoffConfig

_ENCRYPTION: Final = ("aws_server_side_encryption", "aws_sse_kms_key_id")
"""Options of writing: ``AES256`` or ``aws:kms``, and the key of the latter."""
_PART_BYTES: Final = 16 * 2**20  # larger objects travel in parts, some at a time
_PARTS_AT_ONCE: Final = 8
_ATTEMPTS: Final = 6  # of a request that met 5xx, throttling or a cut connection; AWS_MAX_ATTEMPTS wins
_UPDATES: Final = 50  # tries of a change that other writers are faster with
_UPDATE_PAUSE_S: Final = 0.2
_TIMEOUTS: Final = {"connect_timeout": "10s", "read_timeout": "60s", "timeout": "900s"}  # the last: of one part
_BACKOFF: Final[BackoffConfig] = {
    "init_backoff": timedelta(seconds=0.5),
    "max_backoff": timedelta(seconds=20),
    "base": 2,
}
_CREDENTIALS_TTL: Final = timedelta(minutes=5)  # botocore renews those that end in less than ten


class S3Objects:
    """Whole objects under ``s3://bucket/prefix``, with the methods of LocalObjects.

    ``options`` are Polars' object-store options; the AWS environment fills what they lack.
    Requests that meet 5xx, throttling or a cut connection are repeated, with growing pauses. An object appears when its last
    byte has arrived, in parts where it is large; an upload that is given up leaves what was there before.
    """

    def __init__(self, root: str, options: Mapping[str, str] | None = None) -> None:
        """Raises StoreError where the address has no bucket."""
        self._bucket, _, self._prefix = root.removeprefix(S3).strip("/").partition("/")
        self.root = root.rstrip("/")
        if not self._bucket:
            raise StoreError(f"not an S3 address: {root!r} (expected s3://bucket/prefix)")
        self._options = tuple(sorted((options or {}).items()))

    def uri(self, key: str) -> str:
        return f"{self.root}/{key}"

    def local_path(self, key: str) -> Path | None:
        return None

    def find(self, key: str) -> StoredObject | None:
        with self._reaching() as store:
            try:
                return self._described(obstore.head(store, self._full(key)))
            except FileNotFoundError:
                return None

    def list(self, prefix: str = "") -> Iterator[StoredObject]:
        folder = self._full(prefix.rpartition("/")[0]).strip("/")
        with self._reaching() as store:
            for chunk in obstore.list(store, folder or None, chunk_size=1000):
                yield from (stored for stored in map(self._described, chunk) if stored.key.startswith(prefix))

    def read(self, key: str) -> bytes:
        with self._reaching() as store:
            return obstore.get(store, self._full(key)).bytes().to_bytes()

    @contextlib.contextmanager
    def open(self, key: str) -> Iterator[Any]:
        with self._reaching() as store:
            meta = obstore.head(store, self._full(key))
        with _VersionReader(self, meta) as file:
            yield file

    @contextlib.contextmanager
    def reading_file(self, key: str) -> Iterator[Path]:
        with tempfile.TemporaryDirectory() as scratch:
            path = Path(scratch, key.rpartition("/")[2])
            with path.open("wb") as file, self._reaching() as store:
                meta = obstore.head(store, self._full(key))
                self.fetch(meta, 0, meta["size"], lambda begin, data: os.pwrite(file.fileno(), data, begin))
            yield path

    def write(self, key: str, data: bytes | Path) -> None:
        with writing(self.uri(key)):
            obstore.put(self._store, self._full(key), data, chunk_size=_PART_BYTES, max_concurrency=_PARTS_AT_ONCE)

    def update(self, key: str, change: Callable[[bytes | None], bytes | None]) -> None:
        for _ in range(_UPDATES):
            data, mode = self._as_it_is(key)
            changed = change(data)
            if changed is None:
                return
            try:
                with writing(self.uri(key)):
                    obstore.put(self._store, self._full(key), changed, mode=mode)
                return
            except StoreError as error:
                if not isinstance(error.__cause__, AlreadyExistsError | PreconditionError):
                    raise
            time.sleep(_UPDATE_PAUSE_S * random.random())
        raise StoreError(f"cannot write {self.uri(key)}: others were faster {_UPDATES} times; try again")

    def _as_it_is(self, key: str) -> tuple[bytes | None, PutMode]:
        """An object's bytes, and how to write over just this version of it: If-Match, or If-None-Match where there is none."""
        with self._reaching() as store:
            try:
                found = obstore.get(store, self._full(key))
            except FileNotFoundError:
                return None, "create"
            return found.bytes().to_bytes(), {"e_tag": found.meta["e_tag"]}

    @contextlib.contextmanager
    def writing_file(self, key: str) -> Iterator[Path]:
        with writing(self.uri(key)), tempfile.TemporaryDirectory() as scratch:
            path = Path(scratch, key.rpartition("/")[2])
            yield path
            self.write(key, path)

    def delete(self, key: str) -> None:
        with writing(self.uri(key)):
            obstore.delete(self._store, self._full(key))

    def fetch(self, meta: ObjectMeta, start: int, end: int, take: Callable[[int, Bytes], object]) -> None:
        """Bytes ``start`` to ``end`` of the version that ``meta`` describes, in parts, several at once.

        ``take`` gets the place of each part, counted from ``start``, and its bytes; it is called from several threads. Raises
        ObjectChangedError where that version is gone.
        """

        def part(begin: int) -> None:
            pinned: GetOptions = {"if_match": meta["e_tag"], "range": (begin, min(begin + _PART_BYTES, end))}
            take(begin - start, obstore.get(store, meta["path"], options=pinned).bytes())

        begins = range(start, end, _PART_BYTES)
        with self._reaching() as store:
            if len(begins) == 1:
                part(start)
            else:
                with ThreadPoolExecutor(_PARTS_AT_ONCE, "parts") as pool:
                    list(pool.map(part, begins))

    @property
    def _store(self) -> Any:
        return _connection(self._bucket, self._options, _attempts())

    def _full(self, key: str) -> str:
        return f"{self._prefix}/{key}" if self._prefix else key

    def _described(self, meta: ObjectMeta) -> StoredObject:
        key = meta["path"].removeprefix(f"{self._prefix}/") if self._prefix else meta["path"]
        return StoredObject(key, meta["size"], f"{meta['size']}-{(meta['e_tag'] or '').strip(chr(34))}")

    @contextlib.contextmanager
    def _reaching(self) -> Iterator[Any]:
        """obstore's store; its errors are StoreErrors that name the root, absent objects apart."""
        try:
            yield self._store
        except FileNotFoundError as error:
            if "NoSuchBucket" not in str(error):
                raise
            raise StoreError(f"cannot reach {self.root}: {reason(error)}") from error
        except PreconditionError as error:
            raise ObjectChangedError(f"an object under {self.root} changed while it was read") from error
        except (BaseError, ValueError) as error:  # the latter of keys that obstore has no form for, such as a//b
            raise StoreError(f"cannot reach {self.root}: {reason(error)}") from error


class _VersionReader(io.RawIOBase):
    """A seekable file over one version of an object: each read is a request for a range, or several at once."""

    def __init__(self, objects: S3Objects, meta: ObjectMeta) -> None:
        super().__init__()
        self._objects, self._meta = objects, meta
        self._place = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._place

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._place = offset + (0, self._place, self._meta["size"])[whence]
        return self._place

    def read(self, size: int | None = -1) -> Any:
        """bytes, or what can be used as such."""
        end = self._meta["size"] if size is None or size < 0 else min(self._place + size, self._meta["size"])
        if end <= self._place:
            return b""
        data = bytearray(end - self._place)

        def take(place: int, part: Bytes) -> None:
            data[place : place + len(part)] = memoryview(part)

        self._objects.fetch(self._meta, self._place, end, take)
        self._place = end
        return data


def reading_options(options: Mapping[str, str]) -> dict[str, Any]:
    """Of the options of a store, those that Polars reads with."""
    kept = {name: value for name, value in options.items() if name not in _ENCRYPTION}
    return {"max_retries": _attempts(), **kept}


def _attempts() -> int:
    """How often a request is made before it counts as failed."""
    given = os.environ.get("AWS_MAX_ATTEMPTS", "")
    return int(given) if given.isdigit() and int(given) else _ATTEMPTS


@lru_cache(maxsize=16)
def _connection(bucket: str, options: tuple[tuple[str, str], ...], attempts: int) -> Any:
    """obstore's store. Keys come from ``options``, else from boto3, which knows AWS's variables, profiles and roles."""
    from obstore.auth.boto3 import Boto3CredentialProvider
    from obstore.store import S3Store

    config: Any = {**dict(options), "disable_bulk_delete": True}  # which not every server has
    client: Any = {**_TIMEOUTS, "allow_http": True}  # with an endpoint that says http://
    try:
        provider = None if "aws_access_key_id" in dict(options) else Boto3CredentialProvider(ttl=_CREDENTIALS_TTL)
        return S3Store(
            bucket,
            config=config,
            credential_provider=provider,
            client_options=client,
            retry_config={"max_retries": attempts - 1, "backoff": _BACKOFF},
        )
    except (BaseError, ValueError) as error:
        raise StoreError(f"cannot reach {S3}{bucket}: no AWS credentials or a wrong option: {reason(error)}") from error
