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
from collections.abc import Iterable, Mapping
from functools import partial
from typing import Any, Final

from facecaption_ml.benchmarks.datasets.assembly import exclusions
from facecaption_ml.benchmarks.datasets.data import Describe, EpisodeData
from facecaption_ml.benchmarks.datasets.folder import DataFolder
from facecaption_ml.benchmarks.datasets.pictures import is_picture
from facecaption_ml.benchmarks.datasets.sketch_assembly import (
    SPLITS,
    Drawing,
    PhotoKey,
    SketchFolders,
    assemble,
    tested_on,
)
from facecaption_ml.benchmarks.datasets.spec import DataSetSpec, FolderSpec, OpenOptions
from facecaption_ml.storage.store import Store

FS2K: Final = FolderSpec("fs2k", "FS2K, whose photos FS2K-SDE's and User-SDE's drawings show")
FS2K_SDE: Final = FolderSpec("fs2k_sde", "FS2K-SDE: dataset1/ and dataset2/")
USER_SDE: Final = FolderSpec("user_sde", "User-SDE: drawings by painters")
_PHOTO_FOLDERS: Final = {1: "photo1", 2: "photo3"}
_USER_LIST: Final = "user_sde.json"
_USER_FOLDERS: Final = ("sketch/test", "sketch", "test")
_EpisodeFolders = dict[tuple[str, str], list[str]]  # the keys in an episode's folder, by its split and name


def read_fs2k_sde(store: Store, number: int, photos: Store, describe: Describe | None) -> EpisodeData:
    """FS2K-SDE1 or FS2K-SDE2 (``number`` 1 or 2) in its own split; ``photos`` is FS2K.

    A photo without caption in the files is described by ``describe``, and excluded and counted where others have captions
    and nothing describes it; without any, only sketches can be asked with. Excluded and counted are also episodes whose
    photo is absent or does not decode (where it must be described) and those without sketches. Raises BenchmarkDataError
    naming the folder for what is missing or malformed.
    """
    folders = SketchFolders(DataFolder(store, FS2K_SDE.name), DataFolder(photos, FS2K.name))
    excluded: Counter[str] = Counter()
    prefixes = (f"dataset{number}/", "")
    lists = {
        split: [f"{prefix}fs2ksde_{split}{end}.json" for prefix in prefixes for end in ("_v2", "")] for split in SPLITS
    }
    if any(folders.sketches.find(*names) for names in lists.values()):
        keys = {split: folders.sketches.require(f"the {split} episodes", *names) for split, names in lists.items()}
        drawings = [d for split, key in keys.items() for d in _listed_drawings(folders, key, split, excluded)]
    else:
        episodes = _published_folders(folders.sketches, number)
        captions = _captions_by_photo(folders.sketches, *(f"{prefix}captions.json" for prefix in prefixes))
        drawings = _drawings_by_number(folders, episodes, _PHOTO_FOLDERS[number], captions, excluded)
    return assemble(folders, drawings, describe, excluded).as_data(f"fs2k_sde{number}", folders.sketches)


def read_user_sde(store: Store, trained_on: EpisodeData, photos: Store, describe: Describe | None) -> EpisodeData:
    """User-SDE, 110 episodes that people drew: the test split; the train split is that of ``trained_on``, FS2K-SDE1.

    How User-SDE is laid out is documented nowhere in public. Read are ``user_sde.json``, shaped like the annotation files
    of FS2K-SDE, or else ``<episode>/<step>.png`` at the root or in ``sketch/`` or ``test/``, matched by number with FS2K's
    photo1 like FS2K-SDE1. Captions are those of ``read_fs2k_sde``; there are none where either part has none.
    Raises as ``read_fs2k_sde`` does.
    """
    folders = SketchFolders(DataFolder(store, USER_SDE.name), DataFolder(photos, FS2K.name))
    excluded: Counter[str] = Counter()
    if folders.sketches.find(_USER_LIST):
        drawings = _listed_drawings(folders, _USER_LIST, "test", excluded)
    else:
        captions = _captions_by_photo(folders.sketches, "captions.json")
        episodes = _user_folders(store, folders.sketches)
        drawings = _drawings_by_number(folders, episodes, _PHOTO_FOLDERS[1], captions, excluded)
    test = assemble(folders, drawings, describe, excluded)
    if not test.episodes:
        raise folders.sketches.error(f"there are no episodes{exclusions(excluded)}")
    return tested_on(trained_on, test).as_data("user_sde", folders.sketches)


# -- annotation files ------------------------------------------------------------------------------------------------


def _listed_drawings(folders: SketchFolders, key: str, split: str, excluded: Counter[str]) -> list[Drawing]:
    """The drawings of one annotation file."""
    entries = folders.sketches.json(key)
    if not isinstance(entries, list):
        raise folders.sketches.error(f"{folders.sketches.address(key)}: expected a list of episodes: fetch it again")
    drawings = [_listed_drawing(folders, key, entry, split, excluded) for entry in entries]
    return [drawing for drawing in drawings if drawing]


def _listed_drawing(
    folders: SketchFolders, list_key: str, entry: Any, split: str, excluded: Counter[str]
) -> Drawing | None:
    """The drawing of one entry, or None and its reason counted."""
    if not _is_episode(entry):
        excluded["malformed entry"] += 1
        return None
    photo = folders.find_photo(_possible_keys(list_key, entry["photo"]))
    listed = [folders.sketches.find(*_possible_keys(list_key, path)) for path in entry["sketch_sde"]]
    sketches = tuple(key for key in listed if key is not None)
    excluded["sketch absent"] += len(listed) - len(sketches)
    if photo is None:
        excluded["photo absent"] += 1
        return None
    if not sketches:
        excluded["no sketches"] += 1
        return None
    return Drawing(split, photo, sketches, _first_text(entry.get("caption")))


def _is_episode(entry: Any) -> bool:
    if not isinstance(entry, dict) or not isinstance(entry.get("photo"), str):
        return False
    sketches = entry.get("sketch_sde")
    return isinstance(sketches, list) and all(isinstance(path, str) for path in sketches)


def _possible_keys(list_key: str, path: str) -> list[str]:
    """Keys that a path in an annotation file may mean: from the file's folder, the root, or below a root of its own."""
    parts = [part for part in posixpath.normpath(path.replace("\\", "/")).split("/") if part not in ("", "..")]
    below = ["/".join(parts[first:]) for first in range(len(parts))]
    return [posixpath.join(posixpath.dirname(list_key), below[0]), *below] if below else []


def _first_text(caption: Any) -> str:
    """A caption, or the first of several; empty where there is none."""
    texts = caption if isinstance(caption, list) else [caption]
    return next((text.strip() for text in texts if isinstance(text, str) and text.strip()), "")


# -- folders ---------------------------------------------------------------------------------------------------------


def _published_folders(folder: DataFolder, number: int) -> _EpisodeFolders:
    for prefix in (f"dataset{number}/sketch", "sketch"):
        by_split = {split: _by_episode(split, folder.files(f"{prefix}/{split}").items()) for split in SPLITS}
        if any(by_split.values()):
            return by_split["train"] | by_split["test"]
    raise folder.error(
        f"{folder.address(f'dataset{number}/sketch')}/ has no episodes: train/<episode>/<step>.png and test/… lie there or in"
        f" sketch/, or else fs2ksde_train_v2.json at the root"
    )


def _user_folders(store: Store, folder: DataFolder) -> _EpisodeFolders:
    for prefix in _USER_FOLDERS:
        episodes = _by_episode("test", folder.files(prefix).items())
        if episodes:
            return episodes
    at_root = ((key, key) for key in store.sizes() if not re.match(r"photo\d*/", key))
    episodes = _by_episode("test", at_root)
    if not episodes:
        raise folder.error(f"{store.root} has no episodes: <episode>/<step>.png or {_USER_LIST} lie there")
    return episodes


def _by_episode(split: str, files: Iterable[tuple[str, str]]) -> _EpisodeFolders:
    """Files (path, key) by the folder that they lie in; those that lie deeper or in none are nobody's."""
    episodes: _EpisodeFolders = {}
    for path, key in files:
        episode, _, name = path.partition("/")
        if name and "/" not in name:
            episodes.setdefault((split, episode), []).append(key)
    return episodes


def _drawings_by_number(
    folders: SketchFolders,
    episodes: _EpisodeFolders,
    photo_folder: str,
    captions: Mapping[str, str],
    excluded: Counter[str],
) -> list[Drawing]:
    """Each folder with the photo of its number."""
    pictures = folders.photos.pictures(f"photo/{photo_folder}", photo_folder)
    photos = {_number(name): key for name, key in reversed(pictures.items()) if _number(name) is not None}
    drawings = []
    for (split, episode), keys in episodes.items():
        pages = [(_number(key), key) for key in keys if is_picture(key)]
        steps = sorted((number, key) for number, key in pages if number is not None)
        photo = photos.get(_number(episode))
        if not steps:
            excluded["no sketches"] += 1
        elif photo is None:
            excluded["photo absent"] += 1
        else:
            excluded["sketch without number"] += len(pages) - len(steps)
            caption = captions.get(photo) or captions.get(posixpath.basename(photo), "")
            drawings.append(Drawing(split, PhotoKey(False, photo), tuple(key for _, key in steps), caption))
    return drawings


def _number(path: str) -> int | None:
    """The last number in a file's or folder's name."""
    numbers = re.findall(r"[0-9]+", posixpath.basename(path))
    return int(numbers[-1]) if numbers else None


def _captions_by_photo(folder: DataFolder, *keys: str) -> dict[str, str]:
    key = folder.find(*keys)
    if key is None:
        return {}
    captions = folder.json(key)
    if not isinstance(captions, dict):
        raise folder.error(f"{folder.address(key)}: expected an object of photo file names and their captions")
    return {name: _first_text(caption) for name, caption in captions.items()}


# -- data sets -------------------------------------------------------------------------------------------------------


def _open_part(number: int, folders: Mapping[str, Store], options: OpenOptions) -> EpisodeData:
    return read_fs2k_sde(folders[FS2K_SDE.name], number, folders[FS2K.name], options.describe)


def _open_user_sde(folders: Mapping[str, Store], options: OpenOptions) -> EpisodeData:
    trained_on = _open_part(1, folders, options)
    return read_user_sde(folders[USER_SDE.name], trained_on, folders[FS2K.name], options.describe)


_PARTS: Final = tuple(
    DataSetSpec(
        name=f"fs2k_sde{number}",
        task="sketches",
        title=f"FS2K-SDE{number}",
        folders=(FS2K_SDE, FS2K),
        open=partial(_open_part, number),
    )
    for number in _PHOTO_FOLDERS
)
_USER: Final = DataSetSpec("user_sde", "sketches", "User-SDE", (USER_SDE, FS2K_SDE, FS2K), open=_open_user_sde)
DATA_SETS: Final = (*_PARTS, _USER)
