"""Addresses of a folder, a file or ``s3://bucket/key``, the objects behind them, and what goes wrong on the way."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple, TypeAlias

from facecaption_ml.errors import FaceCaptionError

if TYPE_CHECKING:
    from facecaption_ml.storage.local_files import LocalObjects
    from facecaption_ml.storage.s3_objects import S3Objects

Objects: TypeAlias = "LocalObjects | S3Objects"
"""Objects by key (parts separated by ``/``) under a root: one set of methods, which LocalObjects documents."""

S3: Final = "s3://"


class StoreError(FaceCaptionError):
    """The store cannot be reached, read or written; the message names the address and what is wrong there."""


class ObjectChangedError(StoreError):
    """Another writer replaced an object while it was read."""


class StoredObject(NamedTuple):
    """An object as it was seen. ``version`` changes with its content: size and time in a folder, size and ETag on S3."""

    key: str
    size: int
    version: str


def open_objects(root: str, options: Mapping[str, str] | None = None) -> Objects:
    """Of a folder, or of ``s3://bucket/prefix``, which ``options`` reach. Raises StoreError for an address without a bucket."""
    from facecaption_ml.storage.local_files import LocalObjects
    from facecaption_ml.storage.s3_objects import S3Objects

    return S3Objects(root, options) if root.startswith(S3) else LocalObjects(root)


def open_parent(address: str, options: Mapping[str, str] | None = None) -> tuple[Objects, str]:
    """The objects among which one is, and its key there: of a file its folder, of ``s3://bucket/key`` the bucket."""
    if address.startswith(S3):
        bucket, _, key = address.removeprefix(S3).partition("/")
        return open_objects(f"{S3}{bucket}", options), key
    path = Path(address).expanduser()
    return open_objects(str(path.parent)), path.name


def read_object(address: str, options: Mapping[str, str] | None = None) -> bytes:
    """The bytes of a file or of ``s3://bucket/key``. Raises FileNotFoundError where there is none."""
    objects, key = open_parent(address, options)
    return objects.read(key)


def find_address(address: str, options: Mapping[str, str] | None = None) -> tuple[str, StoredObject] | None:
    """The full address, links resolved, of a file or object and what it is now; None where there is none."""
    objects, key = open_parent(address, options)
    present = objects.find(key) if key else None
    return present and (_full_address(objects, key), present)


def list_address(address: str, options: Mapping[str, str] | None = None) -> Iterator[tuple[str, StoredObject]]:
    """Every file or object below a folder or prefix, with its full address; keys are relative to ``address``.

    The address of a file or object gives just that, with its name as key; one where there is nothing gives nothing.
    """
    address = address.rstrip("/") or "/"
    alone = find_address(address, options)
    if alone is not None:
        yield alone[0], alone[1]._replace(key=alone[0].rpartition("/")[2])
        return
    below = open_objects(address, options)
    for stored in below.list():
        yield _full_address(below, stored.key), stored


def _full_address(objects: Objects, key: str) -> str:
    path = objects.local_path(key)
    return objects.uri(key) if path is None else str(path.resolve())


@contextlib.contextmanager
def writing(address: str) -> Iterator[None]:
    """Within the block, whatever keeps ``address`` from being written is a StoreError that names it."""
    import polars as pl
    from obstore.exceptions import BaseError

    try:
        yield
    except (OSError, BaseError, pl.exceptions.PolarsError) as error:
        raise StoreError(f"cannot write {address}: {reason(error)}") from error


def reason(error: BaseException) -> str:
    """An error in one line; of an answer of S3, its code and message."""
    said = re.search(r"<Code>(.*?)</Code>.*?<Message>(.*?)</Message>", str(error), re.DOTALL)
    return f"{said[1]}: {said[2]}" if said else (str(error) or type(error).__name__).splitlines()[0]
