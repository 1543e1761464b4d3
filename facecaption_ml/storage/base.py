"""What kinds of objects have in common: what is known of one, and what goes wrong on the way to it."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from typing import Final, NamedTuple

from facecaption_ml.errors import FaceCaptionError, first_line

S3: Final = "s3://"
_SCHEME: Final = re.compile(r"[a-z][a-z0-9+.-]*://|s3:", re.IGNORECASE)


class StoreError(FaceCaptionError):
    """The store cannot be reached, read or written; the message names the address and what is wrong there."""


class ObjectChangedError(StoreError):
    """Another writer replaced an object while it was read."""


class StoredObject(NamedTuple):
    """An object as it was seen. ``version`` changes with its content: size and time in a folder, size and ETag on S3."""

    key: str
    size: int
    version: str


def normalize_scheme(address: str) -> str:
    """An address with its scheme in lower case: ``S3://bucket`` is no folder."""
    scheme = _SCHEME.match(address)
    return address if scheme is None else scheme[0].lower() + address[scheme.end() :]


def scheme_of_address(address: str) -> str:
    """``s3://``, ``gs://`` …; ``s3:`` where the slashes are missing; empty for a path."""
    scheme = _SCHEME.match(address)
    return scheme[0].lower() if scheme else ""


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
    return f"{said[1]}: {said[2]}" if said else first_line(error)
