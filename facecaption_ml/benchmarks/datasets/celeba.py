"""CelebA in its authors' layout (Liu et al., "Deep Learning Face Attributes in the Wild", ICCV 2015), flat or as released.

``img_align_celeba/`` or ``Img/img_align_celeba/``; ``list_attr_celeba.txt``, also in ``Anno/``; ``list_eval_partition.txt``,
also in ``Eval/``.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from facecaption_ml.attributes.celeba import parse_attributes, parse_partition
from facecaption_ml.attributes.data import AttributeDataError
from facecaption_ml.benchmarks.datasets.assembly import NOT_LABELLED, label_data, usable_names
from facecaption_ml.benchmarks.datasets.data import SPLITS, LabelData
from facecaption_ml.benchmarks.datasets.folder import DataFolder
from facecaption_ml.benchmarks.datasets.spec import DataSetSpec, FolderSpec
from facecaption_ml.storage.store import Store

CELEBA: Final = FolderSpec("celeba", "CelebA: pictures, list_attr_celeba, list_eval_partition")


def read_celeba_labels(store: Store) -> LabelData:
    """CelebA's pictures with their 40 attributes, in its official split; 162,770 / 19,867 / 19,962 when it is complete.

    Raises BenchmarkDataError that names the file that is missing, or its line that is wrong.
    """
    folder = DataFolder(store, CELEBA.name)
    pictures, split_of = celeba_pictures(folder), official_split(folder)
    labels = attribute_labels(folder)
    names, excluded = usable_names(pictures.keys(), labels.keys(), split_of.keys(), NOT_LABELLED)
    return label_data(
        folder,
        "celeba",
        [pictures[name] for name in names],
        np.array([labels[name] for name in names], bool).reshape(-1, 40),
        [split_of[name] for name in names],
        excluded,
    )


def celeba_pictures(folder: DataFolder) -> dict[str, str]:
    """Keys of the aligned pictures by file name."""
    return folder.pictures("img_align_celeba", "Img/img_align_celeba")


def official_split(folder: DataFolder) -> dict[str, str]:
    """The split of each picture by file name."""
    key = folder.require("the official splits", "list_eval_partition.txt", "Eval/list_eval_partition.txt")
    try:
        partition = parse_partition(folder.text(key), folder.address(key))
    except AttributeDataError as error:
        raise folder.error(error) from error
    return {name: SPLITS[number] for name, number in partition.items()}


def attribute_labels(folder: DataFolder) -> dict[str, list[bool]]:
    """The 40 labels of each picture by file name, in the order of ``taxonomy.ATTRIBUTES``."""
    key = folder.require("the 40 attribute labels", "list_attr_celeba.txt", "Anno/list_attr_celeba.txt")
    try:
        return parse_attributes(folder.text(key), folder.address(key))
    except AttributeDataError as error:
        raise folder.error(error) from error


DATA_SETS: Final = (
    DataSetSpec(
        name="celeba",
        task="attributes",
        title="CelebA",
        folders=(CELEBA,),
        open=lambda folders, _: read_celeba_labels(folders[CELEBA.name]),
    ),
)
