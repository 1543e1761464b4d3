"""Whole objects on S3 through boto3: the few verbs that stores, manifests and picture folders need."""

from __future__ import annotations

import contextlib
import io
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import IO, Any, Final
from urllib.parse import urlsplit

ENCRYPTION: Final = "aws_server_side_encryption"
KMS_KEY: Final = "aws_sse_kms_key_id"
"""Options of writing: ``AES256`` or ``aws:kms``, and the key of the latter."""
_PART_BYTES: Final = 16 * 2**20  # larger objects travel in parts, some at a time
_PARTS_AT_ONCE: Final = 8
_ATTEMPTS: Final = 6  # of a request that met 5xx, throttling or a cut connection; AWS_MAX_ATTEMPTS wins


@dataclass(frozen=True)
class S3Location:
    """A bucket and a prefix in it. ``options`` are Polars' object-store options; the AWS environment fills what they lack.

    Requests that meet 5xx, throttling or a cut connection are repeated, with growing pauses. An object appears when its last
    byte has arrived, in parts where it is large; an upload that is given up leaves what was there before.
    """

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
        self._upload(key, io.BytesIO(data))

    def get(self, key: str) -> bytes:
        """Raises KeyError where there is no such object."""
        body = io.BytesIO()
        with self._present(key):
            self._client.download_fileobj(self.bucket, self._full(key), body, Config=_transfer())
        return body.getvalue()

    def put_file(self, key: str, path: Path) -> None:
        """Upload a file in parts, without holding it in memory."""
        with path.open("rb") as file:
            self._upload(key, file)

    def get_file(self, key: str, path: Path) -> None:
        """Raises KeyError where there is no such object."""
        with self._present(key):
            self._client.download_file(self.bucket, self._full(key), str(path), Config=_transfer())

    def _upload(self, key: str, file: IO[bytes]) -> None:
        given = dict(self.options)
        how = {"ServerSideEncryption": given.get(ENCRYPTION), "SSEKMSKeyId": given.get(KMS_KEY)}
        self._client.upload_fileobj(
            file,
            self.bucket,
            self._full(key),
            ExtraArgs={name: value for name, value in how.items() if value},
            Config=_transfer(),
        )

    @contextlib.contextmanager
    def _present(self, key: str) -> Iterator[None]:
        from botocore.exceptions import ClientError

        try:
            yield
        except ClientError as error:
            if _status(error) == 404:
                raise KeyError(key) from None
            raise

    def exists(self, key: str) -> bool:
        return self.version(key) is not None

    def version(self, key: str) -> str | None:
        """The entity tag of the object, which changes with its content; None where there is none."""
        from botocore.exceptions import ClientError

        try:
            return str(self._client.head_object(Bucket=self.bucket, Key=self._full(key))["ETag"])
        except ClientError as error:
            if _status(error) == 404:
                return None
            raise

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
            retry_strategy=fs.AwsStandardS3RetryStrategy(max_attempts=attempts()),
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
    try:
        return S3Location(place.bucket, "", place.options).get(place.prefix)
    except KeyError:
        raise FileNotFoundError(url) from None


def reading_options(options: Mapping[str, str]) -> dict[str, Any]:
    """What Polars reads with, of the options of a store."""
    kept = {name: value for name, value in options.items() if name not in (ENCRYPTION, KMS_KEY)}
    return {"max_retries": attempts(), **kept}


def attempts() -> int:
    """How often a request is made before it counts as failed."""
    given = os.environ.get("AWS_MAX_ATTEMPTS", "")
    return int(given) if given.isdigit() and int(given) else _ATTEMPTS


def _status(error: Any) -> int:
    return int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))


def _transfer() -> Any:
    from boto3.s3.transfer import TransferConfig

    return TransferConfig(
        multipart_threshold=_PART_BYTES, multipart_chunksize=_PART_BYTES, max_concurrency=_PARTS_AT_ONCE
    )


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
        config=Config(
            retries={"max_attempts": attempts(), "mode": "standard"},
            connect_timeout=10,
            read_timeout=60,
            max_pool_connections=2 * _PARTS_AT_ONCE,
        ),
    )
