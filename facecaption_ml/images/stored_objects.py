"""Pictures that already lie in a folder (file://) or an object store (s3://)."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import TYPE_CHECKING, Final
from urllib.parse import unquote_to_bytes, urlsplit

from facecaption_ml.images.status import FetchFailure, FetchStatus

if TYPE_CHECKING:
    from facecaption_ml.images.policy import DownloadContext

STORED_SCHEMES: Final = ("file", "s3")


def scheme_of(url: str | None) -> str:
    """The URL's scheme in lower case, empty if it has none."""
    head, colon, _ = (url or "").strip().partition(":")
    return head.lower() if colon else ""


def is_stored(url: str | None) -> bool:
    """Whether the URL is of a file or an object, not of the web."""
    return scheme_of(url) in STORED_SCHEMES


def stored_version(url: str, context: DownloadContext) -> str | None:
    """What tells a file:// or s3:// picture from an earlier one at its place (size and times, or what the object store
    calls its version); None where there is none, or nobody can tell. Blocks; never fails, as reading says what is wrong.
    """
    with contextlib.suppress(Exception):
        if scheme_of(url) != "file":
            return context.object_version(url.strip()) if context.object_version is not None else None
        state = _file_path(url, context).stat()
        # A copy that is put back may keep its size and the time of its content, not the time of its entry in the folder.
        return f"{state.st_size}-{state.st_mtime_ns}-{state.st_ctime_ns}"
    return None


def read_stored(url: str, max_image_bytes: int, context: DownloadContext) -> bytes:
    """The bytes behind a file:// or s3:// URL; blocks. Raises FetchFailure."""
    is_file = scheme_of(url) == "file"
    data = _read_file(url, max_image_bytes, context) if is_file else _read_object(url, context)
    if len(data) > max_image_bytes:
        raise FetchFailure(FetchStatus.too_large, f"over max_image_bytes {max_image_bytes}")
    return data


def _file_path(url: str, context: DownloadContext) -> Path:
    """The file, wherever its folder's own links lead. Raises FetchFailure for one that is not below the folder as spelt."""
    if context.allow_files_under is None:
        raise FetchFailure(
            FetchStatus.invalid_url, "file:// URLs are read only where the source is a folder of pictures"
        )
    parts = urlsplit(url.strip())
    if parts.netloc not in ("", "localhost"):
        raise FetchFailure(FetchStatus.invalid_url, "file:// URL with a host")
    path = Path(os.path.normpath(os.fsdecode(unquote_to_bytes(parts.path))))
    if not any(
        path.is_relative_to(folder) for folder in (context.allow_files_under, context.allow_files_under.resolve())
    ):
        raise FetchFailure(FetchStatus.refused_address, f"not in the source's folder {context.allow_files_under}")
    return path


def _read_file(url: str, max_image_bytes: int, context: DownloadContext) -> bytes:
    try:
        path = _file_path(url, context)
        if not path.is_file():  # a device or a pipe could be read for ever
            raise FetchFailure(FetchStatus.missing_file, "not a regular file" if path.exists() else "no such file")
        with path.open("rb") as file:
            return file.read(max_image_bytes + 1)
    except (FileNotFoundError, NotADirectoryError):
        raise FetchFailure(FetchStatus.missing_file, "no such file") from None
    except (ValueError, RuntimeError) as error:  # a null byte, a loop of links
        raise FetchFailure(FetchStatus.invalid_url, str(error)) from None
    except OSError as error:
        raise FetchFailure(FetchStatus.read_error, error.strerror or str(error)) from None


def _read_object(url: str, context: DownloadContext) -> bytes:
    if context.open_object is None:
        raise FetchFailure(FetchStatus.invalid_url, "s3:// URLs are read only with open_object set")
    try:
        return context.open_object(url.strip())
    except (FileNotFoundError, KeyError):
        raise FetchFailure(FetchStatus.missing_file, "no such object") from None
    except Exception as error:  # whatever the store's client raises is this row's failure
        raise FetchFailure(FetchStatus.read_error, f"{type(error).__name__}: {error}".splitlines()[0]) from error
