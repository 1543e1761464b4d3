"""CelebA's own layout: ``img_align_celeba/``, ``list_attr_celeba.txt``, ``list_eval_partition.txt``; and Kaggle's.

Kaggle has the lists as CSV, and a second ``img_align_celeba/`` within the first.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Final

import numpy as np

from facecaption_ml.attributes.data import SPLITS, AttributeData, AttributeDataError, FileImages, Window
from facecaption_ml.decoding import UndecodableImage, decode_image
from facecaption_ml.taxonomy import ATTRIBUTES

logger = logging.getLogger("facecaption")

# Where the pipeline's crop (RetinaFace box enlarged by 0.3 of its sides all round) lies in a CelebA-aligned picture, as
# shares of width and height: the median over 320 of its training pictures. It reaches a little below the lower edge.
CROP_WINDOW: Final[Window] = (0.123, 0.130, 0.891, 1.003)
_IN_MEMORY_ROWS: Final = 50_000


def read_celeba(folder: str | Path, size: tuple[int, int]) -> AttributeData:
    """A CelebA folder as labelled crops, framed like the pipeline's own.

    Up to 50,000 pictures are held in memory at ``size`` (H, W); more are decoded as they are needed. Listed pictures that are
    absent or do not decode are counted and left out. Raises AttributeDataError naming the file and line that is wrong.
    """
    root = Path(folder).expanduser()
    attributes, evaluation = _list(root, "list_attr_celeba"), _list(root, "list_eval_partition")
    labels = parse_attributes(_text(attributes), str(attributes))
    partition = parse_partition(_text(evaluation), str(evaluation))
    pictures = root / "img_align_celeba"
    nested = pictures / pictures.name
    pictures = nested if nested.is_dir() else pictures
    names = [name for name in labels if name in partition and (pictures / name).is_file()]
    if not names:
        raise AttributeDataError(f"{pictures}: none of the {len(labels)} listed pictures is here")
    if len(names) <= _IN_MEMORY_ROWS:
        names = [name for name in names if _decodes(pictures / name)]
    if len(names) < len(labels):
        logger.warning(
            "%s: %d of %d listed pictures are absent or damaged", root, len(labels) - len(names), len(labels)
        )
    images = FileImages([pictures / name for name in names], CROP_WINDOW)
    splits = np.array([partition[name] for name in names])
    sizes = ", ".join(f"{np.count_nonzero(splits == number):,} {split}" for number, split in enumerate(SPLITS))
    return AttributeData(
        images.in_memory(size) if len(names) <= _IN_MEMORY_ROWS else images,
        np.array([labels[name] for name in names], bool),
        {split: np.flatnonzero(splits == number) for number, split in enumerate(SPLITS)},
        f"CelebA layout: {sizes}",
    )


def _decodes(path: Path) -> bool:
    try:
        decode_image(path.read_bytes())
    except (OSError, UndecodableImage):
        return False
    return True


def parse_attributes(text: str, name: str) -> dict[str, list[bool]]:
    """The labels of ``list_attr_celeba.txt`` by picture, 40 each in the order of ``taxonomy.ATTRIBUTES``.

    ``text`` has a count, the 40 names in any order and one line per picture, with 1 for yes, -1 or 0 for no; as CSV, no count,
    and a name for the column of pictures too. Raises AttributeDataError with ``name``, which stands for the file, and the line
    that is wrong.
    """
    lines = _numbered(text)
    is_csv = bool(lines) and len(lines[0][1]) > 1
    rows = lines[1:] if is_csv else lines[2:]
    if not rows:
        raise AttributeDataError(f"{name}: expected a count, the 40 names and one line per picture")
    number, names = (lines[0][0], lines[0][1][1:]) if is_csv else lines[1]
    unknown = sorted(set(ATTRIBUTES) ^ set(names))
    if unknown:
        raise AttributeDataError(f"{name}, line {number}: the 40 names of CelebA are expected; {unknown[0]!r} is amiss")
    order = [names.index(attribute) for attribute in ATTRIBUTES]
    labels = {}
    for number, (picture, *values) in rows:
        if len(values) != 40 or not set(values) <= {"1", "-1", "0"}:
            raise AttributeDataError(f"{name}, line {number}: expected a name and 40 values of 1 or -1")
        labels[picture] = [values[i] == "1" for i in order]
    return labels


def parse_partition(text: str, name: str) -> dict[str, int]:
    """The splits of ``list_eval_partition.txt`` by picture: 0 train, 1 validation, 2 test, the indices of ``SPLITS``.

    Raises AttributeDataError with ``name``, which stands for the file, and the line that is wrong.
    """
    splits = {}
    for place, (number, parts) in enumerate(_numbered(text)):
        if place == 0 and parts[1:] == ["partition"]:  # the header of a CSV
            continue
        if len(parts) != 2 or parts[1] not in ("0", "1", "2"):
            raise AttributeDataError(f"{name}, line {number}: expected a name and 0, 1 or 2")
        splits[parts[0]] = int(parts[1])
    return splits


def _numbered(text: str) -> list[tuple[int, list[str]]]:
    """The cells of each line that is not blank, cut at commas or blanks."""
    lines = [(number, line.strip()) for number, line in enumerate(text.splitlines(), start=1) if line.strip()]
    comma = "," if lines and "," in lines[0][1] else None
    return [(number, [cell.strip() for cell in line.split(comma)]) for number, line in lines]


def _list(root: Path, name: str) -> Path:
    """As CSV where only that is there."""
    text, csv = root / f"{name}.txt", root / f"{name}.csv"
    return csv if csv.is_file() and not text.is_file() else text


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise AttributeDataError(f"{path}: {error.strerror}; a CelebA folder has it") from error
