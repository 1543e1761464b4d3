"""FS2K-SDE1, FS2K-SDE2 and User-SDE: photos and the sketches of them, from the first strokes to the last.

Dai et al., "Sketch Less Face Image Retrieval: A New Challenge", ICASSP 2023: the sketches of FS2K (Fan et al., "Facial-Sketch
Synthesis: A New Challenge", 2022) drawn again step by step. The photos are FS2K's own and lie in its folder. Read are

- annotation files, where present: ``fs2ksde_train_v2.json`` and ``fs2ksde_test_v2.json`` (or without ``_v2``), at the root or
  in ``dataset1/`` or ``dataset2/``, each a list of ``{"photo_id", "photo": path, "sketch_sde": [paths in the order of
  drawing], "caption": text or texts}`` as the code of Dai et al. reads them, with paths from the file's folder, the root or
  the folder of the photos;
- else the published folders: ``dataset1/sketch/{train,test}/<episode>/<step>.png``, or ``sketch/…`` at the root. The number
  in a file's name is the step, the last number in the folder's name that of the photo, ``photo/photo1/image0001.jpg``
  (``photo/photo3/…`` for dataset2; ``photo`` may be the root). Captions stand in ``captions.json`` (photo file name → text).

None has a validation split.
"""

from __future__ import annotations

import posixpath
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from facecaption_ml.benchmarks.datasets.data import BenchmarkDataError, Episode, EpisodeData, Pictures, Source
from facecaption_ml.benchmarks.datasets.folder import DataFolder
from facecaption_ml.benchmarks.datasets.photo_episodes import (
    WITHOUT_CAPTIONS,
    Describe,
    each_photo,
    is_picture,
    reasons,
)
from facecaption_ml.benchmarks.datasets.pictures import JoinedPictures, content_version
from facecaption_ml.storage.store import Store

_PHOTO_FOLDERS: Final = {1: "photo1", 2: "photo3"}
_SPLITS: Final = ("train", "test")
_USER_LIST: Final = "user_sde.json"
_USER_FOLDERS: Final = ("sketch/test", "sketch", "test")

Place = tuple[bool, str]
"""A photo's key, and whether it lies in the folder of the sketches, not in that of the photos."""


def read_fs2k_sde(
    store: Store, setting: str, number: int, photos: Store, photos_setting: str, describe: Describe | None
) -> EpisodeData:
    """FS2K-SDE1 or FS2K-SDE2 (``number`` 1 or 2) in its own split.

    A photo without caption in the files is described by ``describe``, and left out and counted where others have captions
    and nothing describes it; without any, only sketches can be asked with. Left out and counted are also episodes whose
    photo is absent or does not decode (where it must be described) and those without sketches. Raises BenchmarkDataError
    that begins with one of the settings for what is missing or malformed, ValueError for another number.
    """
    if number not in _PHOTO_FOLDERS:
        raise ValueError(f"FS2K-SDE has the parts 1 and 2, not {number}")
    both = _Folders(DataFolder(store, setting), DataFolder(photos, photos_setting))
    left_out: Counter[str] = Counter()
    places = (f"dataset{number}/", "")
    lists = {
        split: [f"{place}fs2ksde_{split}{end}.json" for place in places for end in ("_v2", "")] for split in _SPLITS
    }
    if any(both.sketches.find(*names) for names in lists.values()):
        found = {split: both.sketches.require(f"the {split} episodes", *names) for split, names in lists.items()}
        drawings = [d for split, key in found.items() for d in _listed(both, key, split, left_out)]
    else:
        folders = _published_folders(both.sketches, number)
        captions = _given_captions(both.sketches, *(f"{place}captions.json" for place in places))
        drawings = _matched(both, folders, _PHOTO_FOLDERS[number], captions, left_out)
    return _data(f"fs2k_sde{number}", both, _collected(both, drawings, describe, left_out))


def read_user_sde(
    store: Store,
    setting: str,
    trained_on: EpisodeData,
    photos: Store,
    photos_setting: str,
    describe: Describe | None,
) -> EpisodeData:
    """User-SDE, 110 episodes that people drew: the test split; the train split is that of ``trained_on``, FS2K-SDE1.

    How User-SDE is laid out is documented nowhere in public. Read are ``user_sde.json``, shaped like the annotation files
    of FS2K-SDE, or else ``<episode>/<step>.png`` at the root or in ``sketch/`` or ``test/``, matched by number with FS2K's
    photo1 like FS2K-SDE1. Captions are those of ``read_fs2k_sde``; there are none where either part has none.
    Raises as ``read_fs2k_sde`` does.
    """
    both = _Folders(DataFolder(store, setting), DataFolder(photos, photos_setting))
    left_out: Counter[str] = Counter()
    if both.sketches.find(_USER_LIST):
        drawings = _listed(both, _USER_LIST, "test", left_out)
    else:
        captions = _given_captions(both.sketches, "captions.json")
        folders = _user_folders(store, both.sketches)
        drawings = _matched(both, folders, _PHOTO_FOLDERS[1], captions, left_out)
    own = _collected(both, drawings, describe, left_out)
    if not own.episodes:
        raise both.sketches.error(f"user_sde: there are no episodes{reasons(left_out)}")
    return _data("user_sde", both, _joined(trained_on, own))


@dataclass(frozen=True)
class _Folders:
    sketches: DataFolder
    photos: DataFolder

    def photo_pictures(self, places: Sequence[Place]) -> Pictures:
        """In order; those of the folder of the photos must come first."""
        return JoinedPictures(
            [
                folder.stored_pictures([key for beside, key in places if beside == here])
                for here, folder in ((False, self.photos), (True, self.sketches))
            ]
        )


@dataclass(frozen=True)
class _Drawing:
    split: str
    photo: Place
    sketches: tuple[str, ...]
    caption: str


@dataclass(frozen=True)
class _Collected:
    """An EpisodeData under way; it may lack a split."""

    photos: Pictures
    sketches: Pictures
    episodes: Sequence[Episode]
    splits: Sequence[str]  # of each episode
    captions: Sequence[str]
    left_out: Mapping[str, int]
    notes: Sequence[str]


# -- annotation files ------------------------------------------------------------------------------------------------


def _listed(both: _Folders, key: str, split: str, left_out: Counter[str]) -> list[_Drawing]:
    entries = both.sketches.json(key)
    if not isinstance(entries, list):
        raise both.sketches.error(f"{both.sketches.address(key)}: expected a list of episodes: fetch it again")
    drawings = []
    for entry in entries:
        if not _is_episode(entry):
            left_out["malformed entry"] += 1
            continue
        candidates = _candidates(key, entry["photo"])
        beside, elsewhere = both.sketches.find(*candidates), both.photos.find(*candidates)
        sketches = [both.sketches.find(*_candidates(key, path)) for path in entry["sketch_sde"]]
        there = tuple(sketch for sketch in sketches if sketch is not None)
        left_out["sketch absent"] += len(sketches) - len(there)
        if elsewhere is None and beside is None:
            left_out["photo absent"] += 1
        elif not there:
            left_out["no sketches"] += 1
        else:
            photo = (False, elsewhere) if elsewhere is not None else (True, str(beside))
            drawings.append(_Drawing(split, photo, there, _text(entry.get("caption"))))
    return drawings


def _is_episode(entry: Any) -> bool:
    if not isinstance(entry, dict) or not isinstance(entry.get("photo"), str):
        return False
    sketches = entry.get("sketch_sde")
    return isinstance(sketches, list) and all(isinstance(path, str) for path in sketches)


def _candidates(list_key: str, path: str) -> list[str]:
    """Keys that a path in an annotation file may mean: from the file's folder, the root, or below a root of its own."""
    parts = [part for part in posixpath.normpath(path.replace("\\", "/")).split("/") if part not in ("", "..")]
    below = ["/".join(parts[first:]) for first in range(len(parts))]
    return [posixpath.join(posixpath.dirname(list_key), below[0]), *below] if below else []


def _text(caption: Any) -> str:
    """A caption, or the first of several; empty where there is none."""
    texts = caption if isinstance(caption, list) else [caption]
    return next((text.strip() for text in texts if isinstance(text, str) and text.strip()), "")


# -- folders ---------------------------------------------------------------------------------------------------------

_EpisodeFolders = dict[tuple[str, str], list[str]]  # the keys in an episode's folder, by its split and name


def _published_folders(folder: DataFolder, number: int) -> _EpisodeFolders:
    for place in (f"dataset{number}/sketch", "sketch"):
        found: _EpisodeFolders = {}
        for split in _SPLITS:
            _add_folders(found, split, folder.files(f"{place}/{split}").items())
        if found:
            return found
    raise folder.error(
        f"{folder.address(f'dataset{number}/sketch')}/ has no episodes: train/<episode>/<step>.png and test/… lie there or in"
        f" sketch/, or else fs2ksde_train_v2.json at the root"
    )


def _user_folders(store: Store, folder: DataFolder) -> _EpisodeFolders:
    found: _EpisodeFolders = {}
    for place in _USER_FOLDERS:
        _add_folders(found, "test", folder.files(place).items())
        if found:
            return found
    at_root = ((key, key) for key in store.sizes() if not re.match(r"photo\d*/", key))
    _add_folders(found, "test", at_root)
    if not found:
        raise folder.error(f"{store.root} has no episodes: <episode>/<step>.png or {_USER_LIST} lie there")
    return found


def _add_folders(found: _EpisodeFolders, split: str, files: Iterable[tuple[str, str]]) -> None:
    for path, key in files:
        episode, _, name = path.partition("/")
        if name and "/" not in name:
            found.setdefault((split, episode), []).append(key)


def _matched(
    both: _Folders, folders: _EpisodeFolders, photo_folder: str, captions: Mapping[str, str], left_out: Counter[str]
) -> list[_Drawing]:
    """Each folder with the photo of its number."""
    pictures = both.photos.pictures(f"photo/{photo_folder}", photo_folder)
    photos = {_number(name): key for name, key in reversed(pictures.items()) if _number(name) is not None}
    drawings = []
    for (split, episode), keys in folders.items():
        pages = [(_number(key), key) for key in keys if is_picture(key)]
        steps = sorted((number, key) for number, key in pages if number is not None)
        photo = photos.get(_number(episode))
        if not steps:
            left_out["no sketches"] += 1
        elif photo is None:
            left_out["photo absent"] += 1
        else:
            left_out["sketch without number"] += len(pages) - len(steps)
            caption = captions.get(photo) or captions.get(posixpath.basename(photo), "")
            drawings.append(_Drawing(split, (False, photo), tuple(key for _, key in steps), caption))
    return drawings


def _number(path: str) -> int | None:
    """The last number in a file's or folder's name."""
    numbers = re.findall(r"[0-9]+", posixpath.basename(path))
    return int(numbers[-1]) if numbers else None


def _given_captions(folder: DataFolder, *keys: str) -> dict[str, str]:
    key = folder.find(*keys)
    if key is None:
        return {}
    found = folder.json(key)
    if not isinstance(found, dict):
        raise folder.error(f"{folder.address(key)}: expected an object of photo file names and their captions")
    return {name: _text(caption) for name, caption in found.items()}


# -- from drawings to the data set -----------------------------------------------------------------------------------


def _collected(
    both: _Folders, drawings: Sequence[_Drawing], describe: Describe | None, left_out: Counter[str]
) -> _Collected:
    """The drawings whose photos have captions, or all of them where no photo has one."""
    captions, lacking, notes = _captions(both, drawings, describe)
    left_out.update(lacking[drawing.photo] for drawing in drawings if drawing.photo in lacking)
    kept = [drawing for drawing in drawings if drawing.photo not in lacking]
    photos = {place: row for row, place in enumerate(sorted({drawing.photo for drawing in kept}))}
    keys = dict.fromkeys(key for drawing in kept for key in drawing.sketches)
    sketches = {key: row for row, key in enumerate(keys)}
    return _Collected(
        both.photo_pictures(list(photos)),
        both.sketches.stored_pictures(list(sketches)),
        [Episode(photos[drawing.photo], tuple(sketches[key] for key in drawing.sketches)) for drawing in kept],
        [drawing.split for drawing in kept],
        [captions[place] for place in photos] if captions else [],
        {reason: count for reason, count in sorted(left_out.items()) if count},
        notes,
    )


def _captions(
    both: _Folders, drawings: Sequence[_Drawing], describe: Describe | None
) -> tuple[dict[Place, str], dict[Place, str], list[str]]:
    """Captions by photo, the reasons why others have none, and what the tables say of them."""
    captions = {drawing.photo: drawing.caption for drawing in reversed(drawings) if drawing.caption}
    given = len(captions)
    missing = sorted({drawing.photo for drawing in drawings} - captions.keys())
    lacking = dict.fromkeys(missing, "no caption")
    if describe and missing:
        for place, (_, photo) in zip(missing, each_photo(both.photo_pictures(missing)), strict=True):
            if photo is None:
                lacking[place] = "photo does not decode"
            elif caption := describe(photo).strip():
                captions[place] = caption
                del lacking[place]
    if not captions and not describe:
        return {}, {}, [WITHOUT_CAPTIONS]
    notes = [f"captions: {given:,} from the data set's files, {len(captions) - given:,} written for the photos"]
    return captions, lacking, notes


def _joined(trained_on: EpisodeData, own: _Collected) -> _Collected:
    """The train split of ``trained_on``, and all of ``own``."""
    train = [trained_on.episodes[row] for row in trained_on.splits["train"].tolist()]
    photos, sketches = len(trained_on.photos.names), len(trained_on.sketches.names)
    shifted = [Episode(e.photo + photos, tuple(row + sketches for row in e.sketches)) for e in own.episodes]
    with_captions = bool(trained_on.captions and own.captions)
    elsewhere = {f"{reason} ({trained_on.source.name})": n for reason, n in trained_on.source.left_out.items()}
    return _Collected(
        JoinedPictures([trained_on.photos, own.photos]),
        JoinedPictures([trained_on.sketches, own.sketches]),
        [*train, *shifted],
        ["train"] * len(train) + ["test"] * len(shifted),
        [*trained_on.captions, *own.captions] if with_captions else [],
        {**own.left_out, **elsewhere},
        [f"trained on {trained_on.source.name}", *(own.notes if with_captions else [WITHOUT_CAPTIONS])],
    )


def _data(name: str, both: _Folders, found: _Collected) -> EpisodeData:
    of_episode = np.array(found.splits, dtype=str)
    splits = {split: np.flatnonzero(of_episode == split).astype(np.int64) for split in _SPLITS}
    episodes = (f"{split} {e.photo} {e.sketches}" for split, e in zip(found.splits, found.episodes, strict=True))
    version = content_version([found.photos.version, found.sketches.version, *episodes, "", *found.captions])
    source = Source(name, version, found.left_out, found.notes)
    try:
        return EpisodeData(source, found.photos, found.sketches, found.episodes, found.captions, splits)
    except BenchmarkDataError as error:
        raise both.sketches.error(f"{error}{reasons(found.left_out)}") from error
