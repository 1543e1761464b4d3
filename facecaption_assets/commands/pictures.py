"""The pictures of a user's folder."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from facecaption_ml.dataset.sources import PICTURE_SUFFIXES, is_picture
from facecaption_ml.dataset.sources.counts import in_words
from facecaption_ml.dataset.sources.names import passed_over_kind
from facecaption_ml.errors import FaceCaptionError


def pictures_in(folder: Path) -> list[Path]:
    """Those that a source of this folder would have: none that is hidden, unfinished or a system's own."""
    found = sorted(path for path in folder.rglob("*") if is_picture(path.name) and path.is_file())
    passed = {path: passed_over_kind(path.relative_to(folder).as_posix()) for path in found}
    pictures = [path for path in found if passed[path] is None]
    if not pictures:
        kinds = in_words(Counter(kind for kind in passed.values() if kind))
        over = f"; passed over: {kinds}" if kinds else ""
        raise FaceCaptionError(f"{folder}: no pictures in this folder ({', '.join(PICTURE_SUFFIXES)}){over}")
    return pictures
