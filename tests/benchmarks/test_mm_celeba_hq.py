"""The reader of MM-CelebA-HQ: its layouts and lists, hostile pickles, what is left out, and what is named."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dataset_folders import ON_BOTH, captions_by_name, refused, split_names, write_mm_celeba_hq
from facecaption_ml.benchmarks.datasets.mm_celeba_hq import read_mm_celeba_hq
from facecaption_ml.storage.store import Store

TEN = [f"Caption number {number}." for number in range(10)]


@pytest.mark.parametrize("pictures", ["images", "CelebA-HQ-img", "image/images"])
@pytest.mark.parametrize("texts", ["text/celeba-caption", "celeba-caption"])
@pytest.mark.parametrize(
    "lists", ["{split}/filenames.pickle", "text/{split}/filenames.pickle", "{split}.txt", "text/{split}.txt"]
)
def test_mm_celeba_hq_is_read_in_every_layout(folder: Store, pictures: str, texts: str, lists: str) -> None:
    captions = {0: TEN, 7: ["A man.", "", "  He smiles. ", ""], 10: ["Ä wöman."], 12: ["One."]}
    splits = {"train": [0, 10], "test": [7, 12]}
    write_mm_celeba_hq(folder, captions, splits, pictures=pictures, texts=texts, lists=lists)
    data = read_mm_celeba_hq(folder)
    assert split_names(data) == {"train": ["0.jpg", "10.jpg"], "test": ["12.jpg", "7.jpg"]}
    assert captions_by_name(data) == {
        "0.jpg": tuple(TEN),
        "7.jpg": ("A man.", "He smiles."),
        "10.jpg": ("Ä wöman.",),
        "12.jpg": ("One.",),
    }
    assert data.source.name == "mm_celeba_hq"
    assert data.source.excluded == {}


@ON_BOTH
def test_mm_celeba_hq_is_read_from_s3(store: Store) -> None:
    write_mm_celeba_hq(store, {n: [f"{n}."] for n in range(30)}, {"train": range(20), "test": range(20, 30)})
    data = read_mm_celeba_hq(store)
    assert captions_by_name(data) == {f"{n}.jpg": (f"{n}.",) for n in range(30)}
    assert {split: len(rows) for split, rows in data.splits.items()} == {"train": 20, "test": 10}


def test_what_mm_celeba_hq_lacks_is_counted(folder: Store) -> None:
    write_mm_celeba_hq(folder, {n: ["A face."] for n in range(8)}, {"train": [0, 1, 2, 3, 4, 90], "test": [4, 5, 6]})
    folder.write_bytes("text/celeba-caption/1.txt", b"caf\xe9")
    folder.write_bytes("text/celeba-caption/2.txt", b"\n \n")
    folder.delete("text/celeba-caption/3.txt")
    folder.delete("images/5.jpg")
    data = read_mm_celeba_hq(folder)
    assert split_names(data) == {"train": ["0.jpg"], "test": ["4.jpg", "6.jpg"]}
    assert data.source.excluded == {
        "no caption": 3,
        "picture absent": 2,  # 5 and 90
        "in no split": 1,  # 7
        "in both splits": 1,  # 4
    }


class _Opens:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[str, str]]:
        return open, (str(self.path), "w")


@pytest.mark.parametrize("protocol", [0, 2, 5])
def test_a_pickle_can_call_nothing(folder: Store, tmp_path: Path, protocol: int) -> None:
    write_mm_celeba_hq(folder, {0: TEN, 1: TEN}, {"train": [0], "test": [1]})
    folder.write_bytes("train/filenames.pickle", pickle.dumps(["0", _Opens(tmp_path / "opened")], protocol))
    with refused("mm_celeba", ["train/filenames.pickle", "open"]):
        read_mm_celeba_hq(folder)
    assert not (tmp_path / "opened").exists()


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"no pickle",
        b"Nr\xff\xff\xff\x7f.",  # asks pickle for 34 GB
        pickle.dumps({"0": 1}),
        pickle.dumps(["0", 1.5]),
        pickle.dumps(["0", b"1"]),
        pickle.dumps(["0", None]),
        pickle.dumps([["0"]]),
        pickle.dumps(np.array(["0"])),
        pickle.dumps(["0"] * 9)[:-3],
    ],
)
def test_what_is_no_pickled_list_of_names_is_named(folder: Store, data: bytes) -> None:
    write_mm_celeba_hq(folder, {0: TEN, 1: TEN}, {"train": [0], "test": [1]})
    folder.write_bytes("test/filenames.pickle", data)
    with refused("mm_celeba", ["test/filenames.pickle", "names"]):
        read_mm_celeba_hq(folder)


@pytest.mark.parametrize("names", [("0",), [0], ["0.jpg"], ["images/0.jpg"]])
@pytest.mark.parametrize("protocol", [0, 2, 4])
def test_names_may_be_numbers_or_have_an_ending(folder: Store, names: Any, protocol: int) -> None:
    write_mm_celeba_hq(folder, {0: TEN, 1: TEN}, {"train": [0], "test": [1]})
    folder.write_bytes("train/filenames.pickle", pickle.dumps(names, protocol))
    assert split_names(read_mm_celeba_hq(folder))["train"] == ["0.jpg"]


@pytest.mark.parametrize(
    ("gone", "words"),
    [
        ("images/", ["/images/ has no pictures", "CelebA-HQ-img/"]),
        ("text/celeba-caption/", ["/text/celeba-caption/ has no captions"]),
        ("train/", ["/train/filenames.pickle is missing", "train.txt"]),
        ("test/", ["/test/filenames.pickle is missing", "test.txt"]),
    ],
)
def test_what_mm_celeba_hq_cannot_do_without_is_named(folder: Store, gone: str, words: list[str]) -> None:
    write_mm_celeba_hq(folder, {0: TEN, 1: TEN}, {"train": [0], "test": [1]})
    for key in folder.keys(gone):
        folder.delete(key)
    with refused("mm_celeba", words):
        read_mm_celeba_hq(folder)
