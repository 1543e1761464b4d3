"""LFWA: LFW's pictures with CelebA's 40 attributes (Liu et al., ICCV 2015), in the authors' MATLAB files or as CSV.

``lfw/Person_Name/Person_Name_0001.jpg`` (or ``lfw-deepfunneled/``); ``lfw_att_40.mat`` with ``AttrName`` (40), ``label``
[13143, 40] of 0 and 1 and ``name`` (13143 paths), and ``indices_train_test.mat`` with ``indices_img_train`` and
``indices_img_test``, counted from 1. Or the files that FLIP's authors read: ``list_attr_lfwa.csv`` for training and
``list_attr_lfwa_test.csv`` for testing, a file name and 40 values a row under a header with the attributes' names.
"""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np
import numpy.typing as npt

from facecaption_ml.benchmarks.datasets.assembly import BOTH_SPLITS, label_data, split_names
from facecaption_ml.benchmarks.datasets.data import LabelData
from facecaption_ml.benchmarks.datasets.folder import DataFolder
from facecaption_ml.benchmarks.datasets.matlab import MatlabError, cell_strings, read_matlab, real_matrix
from facecaption_ml.benchmarks.datasets.spec import DataSetSpec, FolderSpec
from facecaption_ml.storage.store import Store
from facecaption_ml.taxonomy import ATTRIBUTES

LFWA: Final = FolderSpec("lfwa", "LFWA: lfw/ and its 40 attributes")
_LABELS: Final = "lfw_att_40.mat"
_INDICES: Final = "indices_train_test.mat"
_TABLES: Final = {"train": "list_attr_lfwa.csv", "test": "list_attr_lfwa_test.csv"}
_VALUES: Final = {"1": True, "1.0": True, "0": False, "0.0": False, "-1": False, "-1.0": False}
_LISTED_TWICE: Final = "listed twice"


@dataclass
class _Lists:
    """What the lists say: labels by picture, names by split, and the rows that repeat a name within a list."""

    labels: dict[str, npt.NDArray[np.bool_]] = field(default_factory=dict)
    names: dict[str, list[str]] = field(default_factory=dict)
    repeated: int = 0


def read_lfwa(store: Store) -> LabelData:
    """LFWA's pictures with their 40 attributes in its official split, 6,263 / 6,880 when complete; no validation split.

    The MATLAB files are read where ``lfw_att_40.mat`` is there, else the CSV files. A picture that stands in both splits is
    tested on only, and counted. Raises BenchmarkDataError that names the file that is missing, or its variable or line that
    is wrong.
    """
    folder = DataFolder(store, LFWA.name)
    pictures = folder.pictures("lfw", "lfw-deepfunneled")
    files = {_path_of(path): key for path, key in pictures.items()}
    tables = folder.find(_LABELS) is None and folder.find(*_TABLES.values()) is not None
    lists = _from_tables(folder) if tables else _from_matlab(folder)
    split_of, twice = split_names(lists.names)
    return label_data(
        folder, "lfwa", files, lists.labels, split_of, {BOTH_SPLITS: twice, _LISTED_TWICE: lists.repeated}
    )


def _from_matlab(folder: DataFolder) -> _Lists:
    what = f"LFWA's labels, where not in {' and '.join(_TABLES.values())},"
    labels_key = folder.require(what, _LABELS)
    indices_key = folder.require("the rows of the official split", _INDICES)
    lists = _Lists()
    try:
        names, labels = _matlab_labels(folder.read(labels_key))
    except MatlabError as error:
        raise folder.error(f"{folder.address(labels_key)}: {error}") from error
    for name, row in zip(names, labels, strict=True):
        lists.repeated += name in lists.labels
        lists.labels.setdefault(name, row)
    try:
        for split, rows in _matlab_split(folder.read(indices_key), len(names)).items():
            lists.names[split] = [names[row] for row in rows]
    except MatlabError as error:
        raise folder.error(f"{folder.address(indices_key)}: {error}") from error
    return lists


def _matlab_labels(data: bytes) -> tuple[list[str], npt.NDArray[np.bool_]]:
    """The pictures of ``lfw_att_40.mat`` and their labels, bool [N, 40] in the order of ``taxonomy.ATTRIBUTES``."""
    stored = read_matlab(data, ("AttrName", "label", "name"))
    names = [_path_of(name) for name in cell_strings(stored, "name")]
    values = real_matrix(stored, "label")
    if values.shape != (len(names), 40):
        raise MatlabError(f"label: expected [{len(names)}, 40], a row for each name, not {list(values.shape)}")
    if not np.isin(values, (0, 1)).all():
        raise MatlabError("label: expected 0 and 1 only")
    try:
        return names, values[:, _order(cell_strings(stored, "AttrName"))] == 1
    except ValueError as error:
        raise MatlabError(f"AttrName: {error}") from error


def _matlab_split(data: bytes, count: int) -> dict[str, list[int]]:
    """Rows, counted from 0, of the two splits among ``count``."""
    variables = {"train": "indices_img_train", "test": "indices_img_test"}
    stored = read_matlab(data, tuple(variables.values()))
    rows = {}
    for split, variable in variables.items():
        numbers = real_matrix(stored, variable).ravel()
        if not np.isin(numbers, np.arange(1, count + 1)).all():
            raise MatlabError(f"{variable}: expected rows 1 … {count} of {_LABELS}")
        rows[split] = [int(number) - 1 for number in numbers]
    return rows


def _from_tables(folder: DataFolder) -> _Lists:
    """The later file's labels hold for a picture that stands in both: it is tested on."""
    lists = _Lists()
    for split, file in _TABLES.items():
        key = folder.require(f"the labels of the {split} split", file)
        labels, repeated = _table(folder, key)
        lists.labels |= labels
        lists.names[split] = list(labels)
        lists.repeated += repeated
    return lists


def _table(folder: DataFolder, key: str) -> tuple[dict[str, npt.NDArray[np.bool_]], int]:
    """The labels of one CSV file by picture, and how many of its rows repeat a picture; the first row of one holds."""
    try:
        header, *rows = csv.reader(folder.text(key).splitlines() or [""])
        order = _order(header[1:])
    except csv.Error as error:
        raise folder.error(f"{folder.address(key)} is no CSV ({error}): fetch it again") from error
    except ValueError as error:
        raise folder.error(f"{folder.address(key)}, line 1: {error}") from error
    labels: dict[str, npt.NDArray[np.bool_]] = {}
    repeated = 0
    for line, row in enumerate(rows, start=2):
        if not row:
            continue
        values = [_VALUES.get(value.strip()) for value in row[1:]]
        if len(values) != 40 or None in values:
            raise folder.error(
                f"{folder.address(key)}, line {line}: expected a file name and 40 values of 1 and 0 or -1"
            )
        name = _path_of(row[0])
        repeated += name in labels
        labels.setdefault(name, np.array(values, bool)[order])
    return labels, repeated


def _order(names: Sequence[str]) -> list[int]:
    """Where each of CelebA's attributes stands among ``names``, whatever their case, with spaces or underscores."""
    given = ["_".join(name.split()).casefold() for name in names]
    expected = [attribute.casefold() for attribute in ATTRIBUTES]
    if sorted(given) != sorted(expected):
        amiss = sorted(set(given) ^ set(expected)) or sorted(name for name in given if given.count(name) > 1)
        raise ValueError(f"the 40 attributes of CelebA are expected, not {len(given)}; {amiss[0]!r} is amiss")
    return [given.index(name) for name in expected]


def _path_of(name: str) -> str:
    """Person_Name/Person_Name_0001.jpg of a path that may have folders before, backslashes, or only the file's name."""
    parts = name.strip().replace("\\", "/").split("/")
    if len(parts) == 1:
        parts = [parts[0].rpartition("_")[0], parts[0]]
    return "/".join(parts[-2:])


DATA_SETS: Final = (
    DataSetSpec(
        name="lfwa",
        task="attributes",
        title="LFWA",
        folders=(LFWA,),
        open=lambda folders, _: read_lfwa(folders[LFWA.name]),
    ),
)
