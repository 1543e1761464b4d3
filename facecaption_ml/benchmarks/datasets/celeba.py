"""CelebA in its authors' layout (Liu et al., "Deep Learning Face Attributes in the Wild", ICCV 2015), flat, as released, or as
Kaggle has it.

``img_align_celeba/`` (also with another within it) or ``Img/img_align_celeba/``; ``list_attr_celeba.txt``, also in ``Anno/``;
``list_eval_partition.txt``, also in ``Eval/``; both lists also as ``.csv``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, TypeVar

from facecaption_ml.attributes.celeba import parse_attributes, parse_partition
from facecaption_ml.attributes.data import AttributeDataError
from facecaption_ml.benchmarks.datasets.assembly import label_data
from facecaption_ml.benchmarks.datasets.data import SPLITS, LabelData
from facecaption_ml.benchmarks.datasets.folder import DataFolder
from facecaption_ml.benchmarks.datasets.spec import DataSetSpec, FolderSpec
from facecaption_ml.storage.store import Store

T = TypeVar("T")
_NESTED: Final = "img_align_celeba/img_align_celeba"
CELEBA: Final = FolderSpec("celeba", "CelebA: pictures, list_attr_celeba, list_eval_partition")


def read_celeba_labels(store: Store) -> LabelData:
    """CelebA's pictures with their 40 attributes, in its official split; 162,770 / 19,867 / 19,962 when it is complete.

    Raises BenchmarkDataError that names the file that is missing, or its line that is wrong.
    """
    folder = DataFolder(store, CELEBA.name)
    pictures, split_of = celeba_pictures(folder), official_split(folder)
    return label_data(folder, "celeba", pictures, attribute_labels(folder), split_of)


def celeba_pictures(folder: DataFolder) -> dict[str, str]:
    """Keys of the aligned pictures by file name."""
    if folder.files(_NESTED):
        return folder.pictures(_NESTED)
    return folder.pictures("img_align_celeba", "Img/img_align_celeba")


def official_split(folder: DataFolder) -> dict[str, str]:
    """The split of each picture by file name."""
    partition = _parsed(folder, parse_partition, "the official splits", "list_eval_partition.txt", "Eval/")
    return {name: SPLITS[number] for name, number in partition.items()}


def attribute_labels(folder: DataFolder) -> dict[str, list[bool]]:
    """The 40 labels of each picture by file name, in the order of ``taxonomy.ATTRIBUTES``."""
    return _parsed(folder, parse_attributes, "the 40 attribute labels", "list_attr_celeba.txt", "Anno/")


def _parsed(folder: DataFolder, parse: Callable[[str, str], T], what: str, file: str, released: str) -> T:
    key = folder.require(what, file, f"{released}{file}", f"{file.removesuffix('.txt')}.csv")
    try:
        return parse(folder.text(key), folder.address(key))
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
