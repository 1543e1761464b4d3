"""What Dagster remembers of something that is to be removed: pictures, tables and texts in its event log and log files.

Events stay, so that nothing counts as missing; what they show is taken out of them. In SQLite the old bytes would stay in free
pages and in the write-ahead log, so every file is rewritten (VACUUM).
"""

from __future__ import annotations

import html
import json
import os
import re
import sqlite3
from collections.abc import Collection, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import dagster as dg
import sqlalchemy as sa
from dagster._core.storage.event_log import SqliteEventLogStorage
from dagster._core.storage.event_log.sql_event_log import SqlEventLogStorage

from facecaption_assets.partitions import DEMONSTRATION, SHARD_ASSETS, STATISTICS_ASSETS
from facecaption_ml.dataset.removals import RemovalList
from facecaption_ml.errors import first_line
from facecaption_ml.storage.local_files import atomic_write

REDACTED: Final = "[removed on request]"
_WHOLE: Final = frozenset(
    {"source_manifest", "facecaption_release", "flip_checkpoint", DEMONSTRATION, *STATISTICS_ASSETS}
)
"""Assets over all shards that may show a picture, URL or text of any."""
# Tables of Dagster's that hold events, and the column with the event's JSON.
_COLUMNS: Final = {
    "event_logs": "event",
    "asset_keys": "last_materialization",
    "asset_check_executions": "evaluation_event",
}
_AT_ONCE: Final = 200  # events in memory; one with pictures has some hundred kB
_LOCK_SECONDS: Final = 30.0
_SHORTEST: Final = 12  # characters of a text that is looked for
_MOST_NEEDLES: Final = 2_000  # texts looked for inside of others; beyond that only those that stand alone are found
_BEGINNING: Final = 40  # characters by which a text that was cut is known
_URL: Final = re.compile(r"(?:https?|file|s3)://[^\s\"'<>|`\\]+", re.IGNORECASE)
_PUNCTUATION: Final = ".,;:!?)]}*_"


@dataclass(frozen=True)
class Words:
    """What must not be read any more: URLs that the list names in any spelling, and texts as they stand in the tables."""

    removed: RemovalList
    urls: Collection[str] = frozenset()
    texts: Collection[str] = frozenset()
    _whole: frozenset[str] = field(init=False)
    _needles: tuple[str, ...] = field(init=False)

    def __post_init__(self) -> None:
        whole = frozenset([*(url for url in self.urls if "://" in url), *filter(_is_specific, self.texts)])
        whole |= {" ".join(text.split()) for text in whole}  # as a cell or a sentence shows it
        object.__setattr__(self, "_whole", whole)
        object.__setattr__(self, "_needles", tuple(sorted(whole, key=len, reverse=True)[:_MOST_NEEDLES]))

    def redact(self, text: str) -> str:
        """The text without them."""
        if text in self._whole:
            return REDACTED
        for needle in self._needles:
            if needle in text:
                text = text.replace(needle, REDACTED)
        if "…" in text:
            text = self._redact_cut(text)
        return _URL.sub(self._redact_url, text) if "://" in text else text

    def _redact_cut(self, text: str) -> str:
        """The text without beginnings of them that end in "…", as long ones are shown."""
        for needle in self._needles:
            at = text.find(needle[:_BEGINNING]) if len(needle) > _BEGINNING else -1
            while at >= 0:
                end = text.find("…", at)
                cut = end >= 0 and needle.startswith(text[at:end])
                text = f"{text[:at]}{REDACTED}{text[end + 1 :]}" if cut else text
                at = text.find(needle[:_BEGINNING], at + 1)
        return text

    def _redact_url(self, found: re.Match[str]) -> str:
        url = found[0]
        bare = url.rstrip(_PUNCTUATION)
        named = any(self.removed.names_url(form) for form in {url, bare, html.unescape(url), html.unescape(bare)})
        return REDACTED if named else url


def _is_specific(text: str) -> bool:
    """Whether a text is long enough to be looked for: "ok" or "male" would be found in any event."""
    return (len(text) >= _SHORTEST and " " in text) or (len(text) >= _SHORTEST // 3 and not text.isascii())


@dataclass
class Redactions:
    """``events`` and ``files`` that held something; ``problems``: what could not be reached, a line each."""

    events: int = 0
    files: int = 0
    problems: list[str] = field(default_factory=list)


def redact_events(instance: dg.DagsterInstance, shards: Collection[str], words: Words, *, dry_run: bool) -> Redactions:
    """Take pictures and tables out of the events of ``shards`` and of the assets over all shards, and ``words`` out of all.

    The log files under DAGSTER_HOME lose the words too. With ``dry_run`` only what would change is counted.
    """
    redactions = Redactions()
    change = _Change(frozenset(shards), words)
    storage = instance.event_log_storage
    if isinstance(storage, SqliteEventLogStorage):
        folder = Path(storage._base_dir)
        for path in sorted(path for path in folder.iterdir() if path.name.endswith(".db")):
            try:
                _rewrite_file(path, change, redactions, dry_run)
            except (sqlite3.Error, sa.exc.SQLAlchemyError) as error:
                redactions.problems.append(
                    f"{path} could not be rewritten ({first_line(getattr(error, 'orig', None) or error)}): "
                    "close `facecaption ui`, wait for runs, and run this again"
                )
    elif isinstance(storage, SqlEventLogStorage):
        with storage.index_connection() as connection:
            redactions.events += _rewrite(connection, change, dry_run)
        redactions.problems.append(
            f"{type(storage).__name__}: the server keeps old versions of rows until it vacuums "
            "(VACUUM FULL event_logs, asset_keys, asset_check_executions), and in its backups"
        )
    else:
        redactions.problems.append(f"{type(storage).__name__}: events in it are not reached")
    logs = Path(getattr(instance.compute_log_manager, "_base_dir", instance.root_directory))
    for path in sorted({*_log_files(Path(instance.root_directory)), *_log_files(logs)}):
        redactions.files += redact_file(path, words, dry_run)
    if type(instance.compute_log_manager).__name__ not in ("LocalComputeLogManager", "NoOpComputeLogManager"):
        redactions.problems.append(f"logs kept by {type(instance.compute_log_manager).__name__} are not reached")
    return redactions


@dataclass(frozen=True)
class _Change:
    """What becomes of an event."""

    shards: frozenset[str]
    words: Words

    def of(self, text: str) -> str:
        """The JSON of an event, or of a record of one, without what must go."""
        try:
            record = json.loads(text)
        except ValueError:
            return self.words.redact(text)
        changed = self._mapped(record, self._shows(record))
        return text if changed == record else json.dumps(changed)

    def _shows(self, record: Any) -> bool:
        """Whether the event's pictures and tables may show something that goes."""
        try:
            event = record.get("event_log_entry") or record
            data = event["dagster_event"]["event_specific_data"]
            data = data.get("materialization") or data.get("asset_observation") or data
            asset, shard = data["asset_key"]["path"][-1], data.get("partition")
        except (AttributeError, KeyError, TypeError, IndexError):
            return False
        if not self.shards:
            return False
        return asset in _WHOLE or (asset in SHARD_ASSETS and (shard is None or shard in self.shards))

    def _mapped(self, value: Any, shows: bool) -> Any:
        if isinstance(value, str):
            return self.words.redact(value)
        if isinstance(value, list):
            return [self._mapped(one, shows) for one in value]
        if not isinstance(value, dict):
            return value
        kind = value.get("__class__")
        if shows and kind == "MarkdownMetadataEntryData":
            return {**value, "md_str": REDACTED}
        if shows and kind == "TableMetadataEntryData":
            return {**value, "records": []}
        return {name: self._mapped(one, shows) for name, one in value.items()}


def _rewrite_file(path: Path, change: _Change, redactions: Redactions, dry_run: bool) -> None:
    engine = sa.create_engine(
        "sqlite://", creator=lambda: sqlite3.connect(path, timeout=_LOCK_SECONDS), poolclass=sa.NullPool
    )
    with engine.connect() as connection, connection.begin():
        redactions.events += _rewrite(connection, change, dry_run)
    if dry_run:
        return
    # Also where nothing changed now: an earlier try may have ended between the two.
    with closing(sqlite3.connect(path, timeout=_LOCK_SECONDS, isolation_level=None)) as file:
        file.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        file.execute("VACUUM")
        busy = file.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0]
    if busy:
        redactions.problems.append(f"{path}-wal is in use: close `facecaption ui`, wait for runs, and run this again")


def _rewrite(connection: sa.Connection, change: _Change, dry_run: bool) -> int:
    """The number of events that changed; those that Dagster keeps in two tables count once in each."""
    number = 0
    present = sa.inspect(connection).get_table_names()
    for table, column in _COLUMNS.items():
        if table not in present:
            continue
        events = sa.table(table, sa.column("id"), sa.column(column))
        last = -1
        query = sa.select(events.c.id, events.c[column]).order_by(events.c.id).limit(_AT_ONCE)
        while rows := connection.execute(query.where(events.c.id > last)).fetchall():
            last = rows[-1][0]
            for row, text in rows:
                changed = change.of(text) if text else text
                if changed != text:
                    number += 1
                    if not dry_run:
                        connection.execute(events.update().where(events.c.id == row).values({column: changed}))
    return number


def _log_files(home: Path) -> Iterator[Path]:
    for folder, _, names in os.walk(home):
        for name in names:
            path = Path(folder, name)
            if not re.search(r"\.db(-wal|-shm|-journal)?$|\.lock$|\.yaml$", name) and path.is_file():
                yield path


def redact_file(path: Path, words: Words, dry_run: bool) -> bool:
    """Take ``words`` out of a file of text, and whether it had any; line by line, as a log may be large."""
    with path.open(encoding="utf-8", errors="surrogateescape", newline="") as lines:
        if not any(words.redact(line) != line for line in lines):
            return False
    if not dry_run:
        with path.open(encoding="utf-8", errors="surrogateescape", newline="") as lines, atomic_write(path) as target:
            for line in lines:
                target.write(words.redact(line).encode("utf-8", "surrogateescape"))
    return True
