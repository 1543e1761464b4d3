"""Whole objects on S3 through boto3: the few verbs that stores, manifests and picture folders need."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit


@dataclass(frozen=True)
class S3Location:
    """A bucket and a prefix in it. ``options`` are Polars' object-store options; the AWS environment fills what they lack."""

    bucket: str
    prefix: str
    options: tuple[tuple[str, str], ...] = ()

    @classmethod
    def from_url(cls, url: str, options: Mapping[str, str]) -> S3Location:
        """From ``s3://bucket/prefix``. Raises ValueError for anything else."""
        parts = urlsplit(url)
        if parts.scheme != "s3" or not parts.netloc:
            raise ValueError(f"not an S3 address: {url!r} (expected s3://bucket/prefix)")
        return cls(parts.netloc, parts.path.strip("/"), tuple(sorted(options.items())))

    def put(self, key: str, data: bytes) -> None:
        self._client.upload_fileobj(io.BytesIO(data), self.bucket, self._full(key))

    def get(self, key: str) -> bytes:
        body = io.BytesIO()
        self._client.download_fileobj(self.bucket, self._full(key), body)
        return body.getvalue()

    def put_file(self, key: str, path: Path) -> None:
        """Upload a file in parts, without holding it in memory."""
        self._client.upload_file(str(path), self.bucket, self._full(key))

    def get_file(self, key: str, path: Path) -> None:
        self._client.download_file(self.bucket, self._full(key), str(path))

    def exists(self, key: str) -> bool:
        from botocore.exceptions import ClientError

        try:
            self._client.head_object(Bucket=self.bucket, Key=self._full(key))
        except ClientError as error:
            if error.response.get("ResponseMetadata", {}).get("HTTPStatusCode") == 404:
                return False
            raise
        return True

    def delete(self, key: str) -> None:
        self._client.delete_object(Bucket=self.bucket, Key=self._full(key))

    def keys(self, prefix: str = "") -> Iterator[str]:
        """Keys under ``prefix``, relative to this location."""
        return (key for key, _ in self.sizes(prefix))

    def sizes(self, prefix: str = "") -> Iterator[tuple[str, int]]:
        """Keys under ``prefix``, relative to this location, each with its size in bytes."""
        start = f"{self.prefix}/" if self.prefix else ""
        for page in self._client.get_paginator("list_objects_v2").paginate(Bucket=self.bucket, Prefix=start + prefix):
            for entry in page.get("Contents", ()):
                yield entry["Key"].removeprefix(start), int(entry["Size"])

    @contextlib.contextmanager
    def open(self, key: str) -> Iterator[Any]:
        """A seekable file for pyarrow that reads ranges of the object."""
        from pyarrow import fs

        options = dict(self.options)
        filesystem = fs.S3FileSystem(
            access_key=options.get("aws_access_key_id"),
            secret_key=options.get("aws_secret_access_key"),
            region=options.get("aws_region"),
            endpoint_override=options.get("aws_endpoint_url"),
        )
        with filesystem.open_input_file(f"{self.bucket}/{self._full(key)}") as file:
            yield file

    def _full(self, key: str) -> str:
        return f"{self.prefix}/{key}" if self.prefix else key

    @property
    def _client(self) -> Any:
        return _client(self.options)


def read_object(url: str, options: Mapping[str, str]) -> bytes:
    """The object at ``s3://bucket/key``. Raises FileNotFoundError where there is none."""
    place = S3Location.from_url(url, options)
    bucket = S3Location(place.bucket, "", place.options)
    if not bucket.exists(place.prefix):
        raise FileNotFoundError(url)
    return bucket.get(place.prefix)


@lru_cache(maxsize=8)
def _client(options: tuple[tuple[str, str], ...]) -> Any:
    import boto3
    from botocore.config import Config

    given = dict(options)
    return boto3.client(
        "s3",
        endpoint_url=given.get("aws_endpoint_url"),
        aws_access_key_id=given.get("aws_access_key_id"),
        aws_secret_access_key=given.get("aws_secret_access_key"),
        region_name=given.get("aws_region"),
        config=Config(retries={"max_attempts": 5, "mode": "standard"}, connect_timeout=10, read_timeout=60),
    )
