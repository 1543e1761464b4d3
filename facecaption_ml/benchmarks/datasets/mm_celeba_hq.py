"""Multi-Modal-CelebA-HQ in its authors' layout (Xia et al., "TediGAN", CVPR 2021): 30,000 pictures, ten captions each.

Pictures N.jpg in ``images/``, ``CelebA-HQ-img/`` or ``image/images/``; a picture's captions, one a line, in
``text/celeba-caption/N.txt`` or ``celeba-caption/N.txt``; the split in ``train/filenames.pickle`` and ``test/filenames.pickle``
(also under ``text/``), or in ``train.txt`` and ``test.txt`` with a name a line.
"""

from __future__ import annotations

import io
import pickle
import pickletools
from typing import Any, Final

from facecaption_ml.benchmarks.datasets.assembly import BOTH_SPLITS, pair_data, split_names
from facecaption_ml.benchmarks.datasets.data import PairData
from facecaption_ml.benchmarks.datasets.folder import DataFolder
from facecaption_ml.benchmarks.datasets.spec import DataSetSpec, FolderSpec
from facecaption_ml.storage.store import Store

MM_CELEBA: Final = FolderSpec("mm_celeba", "MM-CelebA-HQ: pictures, ten captions each, split")
_CAPTION_FOLDERS: Final = ("text/celeba-caption", "celeba-caption")
_ENDINGS: Final = ("jpg", "jpeg", "png", "txt")


def read_mm_celeba_hq(store: Store) -> PairData:
    """MM-CelebA-HQ's pictures and captions in its official split, 24,000 / 6,000 when complete; there is no validation split.

    A caption file that is not UTF-8 counts as none. Raises BenchmarkDataError that names the file that is missing or wrong.
    """
    folder = DataFolder(store, MM_CELEBA.name)
    pictures = _by_stem(folder.pictures("images", "CelebA-HQ-img", "image/images"))
    files = _caption_files(folder)
    split_of, twice = split_names({split: _split_list(folder, split) for split in ("train", "test")})
    wanted = [name for name in files if name in pictures]
    read = zip(wanted, folder.read_all([files[name] for name in wanted]), strict=True)
    captions = dict.fromkeys(files, ()) | {name: _lines(data) for name, data in read}
    return pair_data(folder, "mm_celeba_hq", pictures, captions, split_of, {BOTH_SPLITS: twice})


def _caption_files(folder: DataFolder) -> dict[str, str]:
    for place in _CAPTION_FOLDERS:
        texts = {path: key for path, key in folder.files(place).items() if path.lower().endswith(".txt")}
        if texts:
            return _by_stem(texts)
    raise folder.error(
        f"{folder.address(_CAPTION_FOLDERS[0])}/ has no captions: N.txt, a caption a line, lie there or in "
        f"{_CAPTION_FOLDERS[1]}/"
    )


def _lines(data: bytes) -> tuple[str, ...]:
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError:
        return ()
    return tuple(line.strip() for line in text.splitlines() if line.strip())


def _split_list(folder: DataFolder, split: str) -> list[str]:
    pickled, plain = f"{split}/filenames.pickle", f"{split}.txt"
    key = folder.require(
        f"the names of the {split} split", pickled, f"text/{pickled}", plain, f"text/{plain}", f"{split}/{plain}"
    )
    names = folder.text(key).splitlines() if key.endswith(".txt") else _pickled_names(folder, key)
    return [_stem(name.strip()) for name in names if name.strip()]


def _pickled_names(folder: DataFolder, key: str) -> list[str]:
    try:
        data = folder.read(key)
        _require_small_memo(data)
        names = _PlainUnpickler(io.BytesIO(data), encoding="utf-8").load()
    except Exception as error:  # bytes that are no pickle make pickle raise almost anything
        raise folder.error(f"{folder.address(key)} is no pickled list of names ({error}): fetch it again") from error
    if not isinstance(names, list | tuple) or not all(type(name) in (str, int) for name in names):
        raise folder.error(f"{folder.address(key)}: expected a pickled list of names, nothing else: fetch it again")
    return [str(name) for name in names]


def _require_small_memo(data: bytes) -> None:
    """A pickle may number what it remembers as it likes, and pickle reserves memory up to the number: 34 GB in seven bytes."""
    for operation, number, _ in pickletools.genops(data):
        if operation.name in ("PUT", "BINPUT", "LONG_BINPUT") and isinstance(number, int) and number > len(data):
            raise pickle.UnpicklingError(f"it remembers value {number} in {len(data)} bytes")


class _PlainUnpickler(pickle.Unpickler):
    """A pickle may name any function to be called; this one resolves none, so only plain values come out."""

    def find_class(self, module: str, name: str) -> Any:
        raise pickle.UnpicklingError(f"it asks for {module}.{name}, but only names are read")


def _by_stem(files: dict[str, str]) -> dict[str, str]:
    return {_stem(path): key for path, key in files.items()}


def _stem(path: str) -> str:
    """What a picture, its captions and the split lists have in common: N of images/N.jpg."""
    name = path.replace("\\", "/").rpartition("/")[2]
    stem, _, ending = name.rpartition(".")
    return stem if stem and ending.lower() in _ENDINGS else name


DATA_SETS: Final = (
    DataSetSpec(
        name="mm_celeba_hq",
        task="retrieval",
        title="MM-CelebA",
        folders=(MM_CELEBA,),
        open=lambda folders, _: read_mm_celeba_hq(folders[MM_CELEBA.name]),
    ),
)
