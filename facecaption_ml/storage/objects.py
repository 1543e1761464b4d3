"""Addresses of a folder, a file or ``s3://bucket/key``, and the objects behind them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TypeAlias

from facecaption_ml.storage.base import S3, StoredObject, StoreError, normalize_scheme, scheme_of_address
from facecaption_ml.storage.local_files import LocalObjects
from facecaption_ml.storage.s3_objects import S3Objects

Objects: TypeAlias = LocalObjects | S3Objects
"""Objects by key (parts separated by ``/``) under a root: one set of methods, which LocalObjects documents."""


def open_objects(root: str, options: Mapping[str, str] | None = None) -> Objects:
    """Of a folder, or of ``s3://bucket/prefix``, which ``options`` reach.

    Raises StoreError for an address without a bucket, and for one of another scheme: it is no folder either.
    """
    root, scheme = normalize_scheme(root), scheme_of_address(root)
    if scheme not in ("", S3):
        raise StoreError(f"{root!r}: {scheme} is not supported; give a folder or s3://bucket/prefix")
    return S3Objects(root, options) if root.startswith(S3) else LocalObjects(root)


def open_parent(address: str, options: Mapping[str, str] | None = None) -> tuple[Objects, str]:
    """The objects among which one is, and its key there: of a file its folder, of ``s3://bucket/key`` the bucket."""
    address = normalize_scheme(address)
    if address.startswith(S3):
        bucket, _, key = address.removeprefix(S3).partition("/")
        return open_objects(f"{S3}{bucket}", options), key
    path = Path(address).expanduser()
    return open_objects(str(path.parent)), path.name


def read_object(address: str, options: Mapping[str, str] | None = None) -> bytes:
    """The bytes of a file or of ``s3://bucket/key``. Raises FileNotFoundError where there is none."""
    objects, key = open_parent(address, options)
    return objects.read(key)


def object_version(address: str, options: Mapping[str, str] | None = None) -> str | None:
    """What tells an object from the one before it at its place; None where there is none."""
    objects, key = open_parent(address, options)
    found = objects.find(key)
    return found and found.version


def find_address(address: str, options: Mapping[str, str] | None = None) -> tuple[str, StoredObject] | None:
    """The full address of a file or object and what it is now; None where there is none.

    The links of its folder are resolved, its own is not: what a file is called says how it is read.
    """
    objects, key = open_parent(address, options)
    present = objects.find(key) if key else None
    return present and (_full_address(objects, key), present)


def list_address(address: str, options: Mapping[str, str] | None = None) -> Iterator[tuple[str, StoredObject]]:
    """Every file or object below a folder or prefix, with its full address; keys are relative to ``address``.

    The address of a file or object gives just that, with its name as key; one where there is nothing gives nothing.
    """
    address = normalize_scheme(address)
    address = address if address == S3 else address.rstrip("/") or "/"
    alone = find_address(address, options)
    if alone is not None:
        yield alone[0], alone[1]._replace(key=alone[0].rpartition("/")[2])
        return
    below = open_objects(address, options)
    for stored in below.list():
        yield _full_address(below, stored.key), stored


def _full_address(objects: Objects, key: str) -> str:
    path = objects.local_path(key)
    return objects.uri(key) if path is None else str(path)
