"""The paper's own numbers (Tables 2, 3 and 4, ``published.toml``), to stand beside measured ones and never among them."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib.resources import files
from typing import Any, Final

from facecaption_ml.benchmarks.encoders.registry import MODEL_TITLES
from facecaption_ml.benchmarks.report.layout import TaskLayout, own_data, task_layouts
from facecaption_ml.benchmarks.result import Measurement
from facecaption_ml.errors import FaceCaptionError

_MISSING: Final = "–"
_NOTE_KEYS: Final = ("data", "settings", "rows")


class PublishedError(FaceCaptionError):
    """A published number is not usable; one line that names the table and the row, column or note that is wrong."""


@dataclass(frozen=True)
class PublishedRow:
    """A row of the paper on one data set. ``measurements`` are shares of 1, without spread; what is not printed is left out.

    ``printed`` is the row's name in the paper, ``model`` its id where it is one that is measured here.
    """

    printed: str
    model: str | None
    measurements: Sequence[Measurement]

    @property
    def name(self) -> str:
        """The printed name without the paper's reference number."""
        return re.sub(r"\s*\[\d+]$", "", self.printed)


@dataclass(frozen=True)
class PublishedNote:
    """What a reader has to know of the rows (as printed), or of the data sets (in those settings only, if any are given)."""

    text: str
    data: Sequence[str] = ()
    settings: Sequence[str] = ()
    rows: Sequence[str] = ()


@dataclass(frozen=True)
class PublishedTable:
    """A table of the paper: its number there, its rows by data set, and what has to be said with it."""

    table: str
    source: str
    data: Mapping[str, Sequence[PublishedRow]]
    notes: Sequence[PublishedNote]
    remarks: Sequence[str]


def published(task: str, data: str) -> list[PublishedRow]:
    """The paper's rows of a task on a data set, in its order; none where it has none. Raises ValueError for another task."""
    return list(published_table(task).data.get(data, ()))


def published_table(task: str) -> PublishedTable:
    """The paper's table of a task. Raises ValueError for a task that has none, and PublishedError as read_published does."""
    tables = _tables()
    if task not in tables:
        raise ValueError(f"there is no task {task!r}; the tasks are {', '.join(tables)}")
    return tables[task]


def read_published(text: str) -> dict[str, PublishedTable]:
    """The tables of a TOML file like ``published.toml``, by task.

    Raises PublishedError for unknown tasks, data sets, settings, metrics or models, for data made here, for rows that are not
    as long as the columns, for values that are not percentages, for a row that stands twice, and for a note that names
    nothing.
    """
    stored = tomllib.loads(text)
    source = str(stored.pop("source", ""))
    layouts = task_layouts()
    tables = {}
    for task, given in stored.items():
        if task not in layouts:
            raise PublishedError(f"published {task}: there is no such task; the tasks are {', '.join(layouts)}")
        tables[task] = _table(given, layouts[task], source, f"published {task}")
    return tables


@lru_cache(maxsize=1)
def _tables() -> Mapping[str, PublishedTable]:
    return read_published(files("facecaption_ml.benchmarks.report").joinpath("published.toml").read_text("utf-8"))


def _table(given: Mapping[str, Any], layout: TaskLayout, source: str, where: str) -> PublishedTable:
    columns = [tuple(column) for column in given["columns"]]
    names = [row["row"] for row in given["rows"]]
    twice = [name for name in names if names.count(name) > 1]
    if twice:
        raise PublishedError(f"{where}: the row {twice[0]!r} stands twice")
    by_data: dict[str, list[PublishedRow]] = {column[0]: [] for column in columns}
    for row in given["rows"]:
        for data, measurements in _measurements(row, columns, layout, f"{where}, row {row['row']!r}").items():
            by_data[data].append(PublishedRow(row["row"], row.get("model"), measurements))
    notes = [PublishedNote(**note) for note in given.get("notes", ())]
    for note in notes:
        _check_note(note, by_data, layout, names, where)
    return PublishedTable(given["table"], source, by_data, notes, given.get("remarks", ()))


def _measurements(
    row: Mapping[str, Any], columns: Sequence[tuple[str, ...]], layout: TaskLayout, where: str
) -> dict[str, list[Measurement]]:
    """A row's numbers by data set; data sets on which it has none are left out."""
    if "model" in row and row["model"] not in MODEL_TITLES:
        raise PublishedError(f"{where}: there is no model {row['model']!r}; the models are {', '.join(MODEL_TITLES)}")
    if len(row["values"]) != len(columns):
        raise PublishedError(f"{where}: {len(row['values'])} values for {len(columns)} columns")
    by_data: dict[str, list[Measurement]] = {}
    seen = set()
    for column, value in zip(columns, row["values"], strict=True):
        data, setting, metric = _column(column, row.get("setting"), where)
        _check_ids(data, setting, metric, layout, where)
        if (data, setting, metric) in seen:
            raise PublishedError(f"{where}: {data}, {setting}, {metric} has two columns")
        seen.add((data, setting, metric))
        if value == _MISSING:
            continue
        if not isinstance(value, int | float) or not 0 <= value <= 100:
            raise PublishedError(f"{where}: {data}, {setting}, {metric} is {value!r}, not a percentage or {_MISSING!r}")
        by_data.setdefault(data, []).append(Measurement(setting, metric, value / 100))
    return by_data


def _column(column: tuple[str, ...], row_setting: str | None, where: str) -> tuple[str, str, str]:
    if len(column) == 3 and row_setting is None:
        return column[0], column[1], column[2]
    if len(column) == 2 and row_setting is not None:
        return column[0], row_setting, column[1]
    raise PublishedError(f"{where}: either the columns name a setting, or the row does; not both, not neither")


def _check_ids(data: str, setting: str, metric: str, layout: TaskLayout, where: str) -> None:
    for what, name, known in (
        ("data set", data, [name for name in layout.data if name not in own_data()]),
        ("setting", setting, layout.settings),
        ("metric", metric, layout.metrics),
    ):
        if name not in known:
            raise PublishedError(f"{where}: nothing is published with the {what} {name!r}; it is {', '.join(known)}")


def _check_note(
    note: PublishedNote, data: Mapping[str, Any], layout: TaskLayout, rows: Sequence[str], where: str
) -> None:
    if bool(note.data) == bool(note.rows) or (note.settings and not note.data):
        raise PublishedError(f"{where}: a note names data sets, with settings or without, or rows: {note.text[:40]!r}")
    for key, known in zip(_NOTE_KEYS, (list(data), layout.settings, rows), strict=True):
        unknown = [name for name in getattr(note, key) if name not in known]
        if unknown:
            raise PublishedError(f"{where}: a note is on {key} {unknown[0]!r}, which the table does not have")
