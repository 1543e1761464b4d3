"""What kinds of objects have in common: what is known of one, and what goes wrong on the way to it."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from typing import Final, NamedTuple

from facecaption_ml.errors import FaceCaptionError

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
