"""CelebA's own layout: ``img_align_celeba/``, ``list_attr_celeba.txt``, ``list_eval_partition.txt``."""

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
    labels = _read_attributes(root / "list_attr_celeba.txt")
    partition = _read_partition(root / "list_eval_partition.txt")
    pictures = root / "img_align_celeba"
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


def _read_attributes(path: Path) -> dict[str, list[bool]]:
    lines = _lines(path)
    if len(lines) < 3:
        raise AttributeDataError(f"{path}: expected a count, the 40 names and one line per picture")
    names = lines[1].split()
    unknown = sorted(set(ATTRIBUTES) ^ set(names))
    if unknown:
        raise AttributeDataError(f"{path}, line 2: the 40 names of CelebA are expected; {unknown[0]!r} is amiss")
    order = [names.index(name) for name in ATTRIBUTES]
    found = {}
    for number, line in enumerate(lines[2:], start=3):
        name, *values = line.split()
        if len(values) != 40 or not set(values) <= {"1", "-1", "0"}:
            raise AttributeDataError(f"{path}, line {number}: expected a name and 40 values of 1 or -1")
        found[name] = [values[i] == "1" for i in order]
    return found


def _read_partition(path: Path) -> dict[str, int]:
    found = {}
    for number, line in enumerate(_lines(path), start=1):
        parts = line.split()
        if len(parts) != 2 or parts[1] not in ("0", "1", "2"):
            raise AttributeDataError(f"{path}, line {number}: expected a name and 0, 1 or 2")
        found[parts[0]] = int(parts[1])
    return found


def _lines(path: Path) -> list[str]:
    try:
        return [line for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    except OSError as error:
        raise AttributeDataError(f"{path}: {error.strerror}; a CelebA folder has it") from error
