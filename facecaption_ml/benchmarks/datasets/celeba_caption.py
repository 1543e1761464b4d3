"""CelebA with captions: CelebA-Caption's annotation files, one file of captions by picture, or captions from the true labels.

The first is the layout that FLIP's authors read (``CelebA_Caption_train.json`` and its like); the second that of CelebA-Dialog
(Jiang et al., "Talk-to-Edit", ICCV 2021), whose captions are as many as CelebA's pictures.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any, Final

from facecaption_ml.benchmarks.datasets.assembly import BOTH_SPLITS, NOT_LABELLED, pair_data, split_names
from facecaption_ml.benchmarks.datasets.celeba import CELEBA, attribute_labels, celeba_pictures, official_split
from facecaption_ml.benchmarks.datasets.data import PairData
from facecaption_ml.benchmarks.datasets.folder import DataFolder
from facecaption_ml.benchmarks.datasets.spec import DataSetSpec, FolderSpec
from facecaption_ml.storage.store import Store
from facecaption_ml.taxonomy import ATTRIBUTES, Gender, settle_conflicts

CAPTIONS: Final = FolderSpec(
    "celeba_captions", "CelebA-Caption's annotation files; without: captions from CelebA's true labels", optional=True
)
_NAME: Final = "celeba_caption"
_ANNOTATIONS: Final = {
    "train": "CelebA_Caption_train.json",
    "validation": "CelebA_Caption_eval.json",
    "test": "CelebA_Caption_test.json",
}
_BY_PICTURE: Final = "captions.json"
_NAMELESS: Final = "caption without picture name"

_Captions = dict[str, dict[str, None]]  # by file name; a picture's texts are keys: in order, without repeats


def read_celeba_captions(store: Store, captions: Store | None, seed: int) -> PairData:
    """CelebA's pictures with captions, and one note that says where the captions come from unless they are CelebA-Caption's.

    ``captions`` holds ``CelebA_Caption_train.json`` and ``CelebA_Caption_test.json``, with ``CelebA_Caption_eval.json`` for
    a validation split, each a list of {"image": path, "caption": [text, …]}; or else ``captions.json``, which maps a file
    name to a text, a list of texts or {"overall_caption": text} and is split by CelebA's own list. Without ``captions``
    the bundled grammar makes one from the true labels, drawn with ``seed`` and the file name.

    Raises BenchmarkDataError that names the folder at fault, and the file in it that is missing or wrong.
    """
    folder = DataFolder(store, CELEBA.name)
    pictures = celeba_pictures(folder)
    if captions is None:
        return _from_labels(folder, pictures, seed)
    given = DataFolder(captions, CAPTIONS.name)
    if given.find(*_ANNOTATIONS.values()) is None and given.find(_BY_PICTURE) is not None:
        return _from_one_file(folder, given, pictures)
    return _from_annotations(folder, given, pictures)


def _from_annotations(folder: DataFolder, given: DataFolder, pictures: Mapping[str, str]) -> PairData:
    excluded = Counter[str]()
    listed: dict[str, _Captions] = {}
    for split, file in _ANNOTATIONS.items():
        if split == "validation" and given.find(file) is None:
            continue
        key = given.require(f"the captions of the {split} split, where not in {_BY_PICTURE},", file)
        listed[split], nameless = _annotations(given.json(key), given, key)
        excluded[_NAMELESS] += nameless
    split_of, excluded[BOTH_SPLITS] = split_names(listed)
    captions = {name: listed[split][name] for name, split in split_of.items()}
    return pair_data(folder, _NAME, pictures, captions, split_of, excluded)


def _annotations(entries: Any, given: DataFolder, key: str) -> tuple[_Captions, int]:
    """The captions of one annotation file, and how many of its entries name no picture."""
    if not isinstance(entries, list):
        raise given.error(f'{given.address(key)}: expected a list of {{"image": path, "caption": [text, …]}}')
    captions: _Captions = {}
    nameless = 0
    for entry in entries:
        path = entry.get("image") if isinstance(entry, dict) else None
        if not isinstance(path, str) or not path.strip():
            nameless += 1
            continue
        captions.setdefault(_file_name(path), {}).update(dict.fromkeys(_texts(entry.get("caption"))))
    return captions, nameless


def _from_one_file(folder: DataFolder, given: DataFolder, pictures: Mapping[str, str]) -> PairData:
    entries = given.json(_BY_PICTURE)
    if not isinstance(entries, dict):
        raise given.error(f"{given.address(_BY_PICTURE)}: expected an object that maps file names to captions")
    split_of = official_split(folder)
    captions: _Captions = {}
    for path, value in entries.items():
        text = value.get("overall_caption") if isinstance(value, dict) else value
        captions.setdefault(_file_name(path), {}).update(dict.fromkeys(_texts(text)))
    note = f"Captions are those of {_BY_PICTURE}, not CelebA-Caption's; the split is CelebA's."
    return pair_data(folder, _NAME, pictures, captions, split_of, notes=[note])


def _from_labels(folder: DataFolder, pictures: Mapping[str, str], seed: int) -> PairData:
    from facecaption_ml.captions import caption_seed
    from facecaption_ml.captions.template.grammar import bundled_grammar

    split_of, labels = official_split(folder), attribute_labels(folder)
    grammar = bundled_grammar()
    captions: dict[str, list[str]] = {name: [] for name in labels}
    for name in labels.keys() & pictures.keys():
        held = [attribute for attribute, has in zip(ATTRIBUTES, labels[name], strict=True) if has]
        gender: Gender = "male" if "Male" in held else "female"
        drawn = caption_seed(name, grammar.version, seed)
        captions[name].append(grammar.caption(settle_conflicts(held)[0], gender, drawn))
    origin = f"grammar {grammar.version}, seed {seed}"
    note = f"Captions were generated from the true labels ({origin}); they are not CelebA-Caption's."
    return pair_data(folder, _NAME, pictures, captions, split_of, notes=[note], undescribed=NOT_LABELLED)


def _texts(value: Any) -> list[str]:
    """A text, or those in a list, without the blank ones."""
    texts = value if isinstance(value, list) else [value]
    return [text.strip() for text in texts if isinstance(text, str) and text.strip()]


def _file_name(path: str) -> str:
    """CelebA's picture folder is flat: the name is enough, whatever folder the list was written for."""
    return path.strip().replace("\\", "/").rpartition("/")[2]


DATA_SETS: Final = (
    DataSetSpec(
        name=_NAME,
        task="retrieval",
        title="CelebA-Caption",
        folders=(CELEBA, CAPTIONS),
        open=lambda folders, options: read_celeba_captions(
            folders[CELEBA.name], folders.get(CAPTIONS.name), options.seed
        ),
    ),
)
