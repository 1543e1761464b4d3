"""The base of every error that a user can mend: wrong input, wrong options, missing files, unreachable servers."""

from __future__ import annotations

import errno
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final


class FaceCaptionError(Exception):
    """One line that names the option, file, column, URL or row that is wrong, and what to do.

    Programs show it as that line. Any other exception is a fault of this project and keeps its traceback.
    ``option``: the name, in the caller's words, of the option at fault where the message does not say it; it stands
    before the message.
    """

    option: str | None = None

    def __str__(self) -> str:
        message = super().__str__()
        return f"{self.option}: {message}" if self.option and self.option not in message else message


@contextmanager
def naming(option: str) -> Iterator[None]:
    """Within the block, a FaceCaptionError that names no option yet gets ``option``: the caller knows what it is called."""
    try:
        yield
    except FaceCaptionError as error:
        if error.option is None:
            error.option = option
        raise


@contextmanager
def naming_fields(prefix: str) -> Iterator[None]:
    """Within the block, a FaceCaptionError whose ``option`` is a field of an options class gets the caller's name of it.

    That is ``prefix`` and the field in capitals: environment variables, say.
    """
    try:
        yield
    except FaceCaptionError as error:
        if error.option and error.option.islower():
            error.option = f"{prefix}{error.option.upper()}"
        raise


_PACKAGES: Final = ("facecaption_ml", "facecaption_assets")
# What a path, a disk or a machine lacks or forbids.
_SURROUNDINGS: Final = frozenset({
    errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.ENAMETOOLONG, errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS,
    errno.EACCES, errno.EPERM, errno.EADDRINUSE, errno.EMFILE,
})  # fmt: skip


def is_mendable(error: BaseException) -> bool:
    """Whether the user can mend it: a FaceCaptionError, or an OSError of a path, a full disk, a permission, a port in use."""
    return isinstance(error, FaceCaptionError) or (isinstance(error, OSError) and error.errno in _SURROUNDINGS)


def first_line(error: BaseException) -> str:
    """The first line of another library's error, or its kind where it says nothing."""
    return (str(error).strip() or type(error).__name__).splitlines()[0].strip()


def describe(error: BaseException) -> str:
    """One line for whoever started the program: the message of what can be mended, else "internal error" and its place.

    The place is the innermost line of this project that the error passed. The traceback is the caller's to log.
    """
    message = " ".join(str(error).split())
    if isinstance(error, OSError) and error.filename and error.strerror:
        message = f"{error.filename}: {error.strerror}"
    if is_mendable(error) and message:
        return message
    kind = type(error).__name__
    shown = f"{kind}: {message}" if message else kind
    places = [_place(frame) for frame in traceback.extract_tb(error.__traceback__)]
    own = [place for place in places if place]
    return f"internal error: {shown} ({own[-1]})" if own else f"internal error: {shown}"


def _place(frame: traceback.FrameSummary) -> str:
    """``facecaption_ml/module.py, line 3``; empty for a line of another project."""
    parts = Path(frame.filename).parts
    start = next((i for i, part in enumerate(parts) if part in _PACKAGES), None)
    return "" if start is None else f"{'/'.join(parts[start:])}, line {frame.lineno}"
