"""Errors of the databases in which Dagster keeps its runs and events, as one line for whoever can mend them."""

from __future__ import annotations

import os
import re
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from facecaption_assets.settings import PREFIX

_MENDABLE: Final = re.compile(
    r"database or disk is full|disk I/O error|readonly database|unable to open database|database is locked|malformed"
)


def describe_storage(error: BaseException) -> str | None:
    """The line of an error that comes from SQLite having no room, no access or a damaged file; None of any other."""
    for cause in _chain(error):
        if isinstance(cause, sqlite3.Error) and (found := _MENDABLE.search(str(cause))):
            home = os.environ.get("DAGSTER_HOME") or str(
                Path(os.environ.get(f"{PREFIX}HOME", ".facecaption"), "dagster")
            )
            advice = "make room and start again" if "full" in found[0] or "I/O" in found[0] else "see to its files"
            return f"cannot keep Dagster's records in {home} ({PREFIX}HOME): {cause}: {advice}"
    return None


def _chain(error: BaseException) -> Iterator[BaseException]:
    """The error, what it was raised from or beside, and what SQLAlchemy wraps."""
    seen: set[int] = set()
    left: list[BaseException | None] = [error]
    while left:
        one = left.pop()
        if one is None or id(one) in seen:
            continue
        seen.add(id(one))
        yield one
        left += [one.__cause__, one.__context__, getattr(one, "orig", None)]
