"""Tiny data sets in their authors' layouts, in a folder or on S3, and what the readers' tests look at."""

from __future__ import annotations

import io
import pickle
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import numpy as np
import pytest

from facecaption_ml.benchmarks.datasets.data import BenchmarkDataError, LabelData, PairData
from facecaption_ml.decoding import encode_jpeg
from facecaption_ml.storage.store import Store
from facecaption_ml.taxonomy import ATTRIBUTES

CELEBA_FLAT = ("img_align_celeba", "list_attr_celeba.txt", "list_eval_partition.txt")
CELEBA_KAGGLE = ("img_align_celeba/img_align_celeba", "list_attr_celeba.csv", "list_eval_partition.csv")
CELEBA_RELEASED = ("Img/img_align_celeba", "Anno/list_attr_celeba.txt", "Eval/list_eval_partition.txt")
LFWA_NAMES = [f"{person}\\{person}_{number:04d}.jpg" for person in ("Al_Bo", "Cy_Dee") for number in (1, 2, 3)]


ON_BOTH = pytest.mark.parametrize("store", ["folder", "s3"], indirect=True)


@contextmanager
def refused(folder: str, words: Sequence[str]) -> Iterator[None]:
    """One line that names the folder at fault and has all of the words."""
    with pytest.raises(BenchmarkDataError, match=rf"^{folder}: .*$") as error:
        yield
    message = str(error.value)
    assert "\n" not in message
    assert [word for word in words if word not in message] == []


def split_names(data: LabelData | PairData) -> dict[str, list[str]]:
    """File names of each split."""
    return {s: [data.pictures.names[row].rpartition("/")[2] for row in rows] for s, rows in data.splits.items()}


def captions_by_name(data: PairData) -> dict[str, tuple[str, ...]]:
    names = [key.rpartition("/")[2] for key in data.pictures.names]
    return dict(zip(names, data.captions, strict=True))


def put(store: Store, key: str, text: str) -> None:
    store.write_bytes(key, text.encode())


def picture(number: int) -> bytes:
    """One colour, which tells pictures apart."""
    return encode_jpeg(np.full((16, 12, 3), number % 8 * 32, np.uint8))


def celeba_name(number: int) -> str:
    return f"{number:06d}.jpg"


def labels_of(number: int) -> list[bool]:
    return [bool(value) for value in np.random.default_rng(number).random(40) < 0.3]


def write_celeba(
    store: Store,
    pictures: Sequence[int],
    labelled: Sequence[int],
    partition: Mapping[int, int],
    layout: tuple[str, str, str] = CELEBA_FLAT,
) -> None:
    """Pictures, labels and splits of the numbers given; the names of the attributes stand in reverse order."""
    folder, attributes, evaluation = layout
    for number in pictures:
        store.write_bytes(f"{folder}/{celeba_name(number)}", picture(number))
    gap = "," if layout == CELEBA_KAGGLE else " "
    names = gap.join(reversed(ATTRIBUTES))
    lines = [f"image_id,{names}"] if layout == CELEBA_KAGGLE else [str(len(labelled)), names]
    for number in labelled:
        values = gap.join("1" if value else "-1" for value in reversed(labels_of(number)))
        lines.append(f"{celeba_name(number)}{gap}{values}")
    store.write_bytes(attributes, "\n".join(lines).encode())
    splits = ["image_id,partition"] if layout == CELEBA_KAGGLE else []
    splits += [f"{celeba_name(number)}{gap}{split}" for number, split in partition.items()]
    store.write_bytes(evaluation, "\n".join(splits).encode())


def write_mm_celeba_hq(
    store: Store,
    captions: Mapping[int, Sequence[str]],
    splits: Mapping[str, Sequence[int]],
    *,
    pictures: str = "images",
    texts: str = "text/celeba-caption",
    lists: str = "{split}/filenames.pickle",
) -> None:
    """A picture and a caption file for each number, and the lists of the splits; ``lists`` says where, and thereby how."""
    for number, lines in captions.items():
        store.write_bytes(f"{pictures}/{number}.jpg", picture(number))
        store.write_bytes(f"{texts}/{number}.txt", "\n".join(lines).encode())
    for split, numbers in splits.items():
        names = [str(number) for number in numbers]
        data = "\n".join(names).encode() if lists.endswith(".txt") else pickle.dumps(names, protocol=0)
        store.write_bytes(lists.format(split=split), data)


def write_lfw_pictures(store: Store, folder: str = "lfw", names: Sequence[str] = LFWA_NAMES) -> None:
    for number, name in enumerate(names):
        store.write_bytes(f"{folder}/{name.replace(chr(92), '/')}", picture(number))


def lfwa_labels(count: int = len(LFWA_NAMES)) -> np.ndarray:
    """bool [count, 40] in the order of ATTRIBUTES."""
    return np.array([labels_of(number) for number in range(count)])


def lfwa_csv(names: Sequence[str], labels: np.ndarray, *, no: str = "-1") -> bytes:
    header = ",".join(["image", *(name.replace("_", " ") for name in ATTRIBUTES)])
    rows = [",".join([name, *("1" if value else no for value in row)]) for name, row in zip(names, labels, strict=True)]
    return "\n".join([header, *rows]).encode()


def matlab_5(variables: Mapping[str, np.ndarray | list[str]]) -> bytes:
    """As MATLAB writes them by default: a list becomes a cell array, one text a row."""
    from scipy.io import savemat

    file = io.BytesIO()
    savemat(file, {name: _cells(v) if isinstance(v, list) else v for name, v in variables.items()})
    return file.getvalue()


def matlab_73(variables: Mapping[str, np.ndarray | list[str]]) -> bytes:
    """As MATLAB writes them with -v7.3: HDF5 behind a header of 512 bytes, matrices transposed, cells as references."""
    import h5py

    file = io.BytesIO()
    with h5py.File(file, "w", userblock_size=512) as out:
        for name, value in variables.items():
            if isinstance(value, list):
                cells = [_hdf5_text(out, f"#refs#/{name}{i}", text) for i, text in enumerate(value)]
                out.create_dataset(name, data=np.array([cells], h5py.ref_dtype), dtype=h5py.ref_dtype)
            else:
                out[name] = value.T
    header = b"MATLAB 7.3 MAT-file, Platform: GLNXA64".ljust(124) + b"\x00\x02IM"
    return header.ljust(512, b"\0") + file.getvalue()[512:]


def _hdf5_text(out, key: str, text: str):  # type: ignore[no-untyped-def]
    """An empty text is stored as its shape."""
    data = np.array([[ord(c)] for c in text], np.uint16) if text else np.zeros(2, np.uint64)
    out[key] = data
    if not text:
        out[key].attrs["MATLAB_empty"] = np.uint8(1)
    return out[key].ref


def _cells(texts: list[str]) -> np.ndarray:
    cells = np.empty((len(texts), 1), object)
    cells[:, 0] = texts
    return cells
