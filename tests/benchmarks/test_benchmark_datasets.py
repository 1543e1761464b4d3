"""The readers of CelebA and its captions: layouts and splits, what is left out, and what is named when it is wrong."""

from __future__ import annotations

import json
import tarfile
import tempfile
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dataset_folders import (
    CELEBA_FLAT,
    CELEBA_KAGGLE,
    CELEBA_RELEASED,
    ON_BOTH,
    captions_by_name,
    celeba_name,
    labels_of,
    picture,
    put,
    refused,
    split_names,
    write_celeba,
)
from examples import examples
from facecaption_ml.benchmarks.datasets.celeba import read_celeba_labels
from facecaption_ml.benchmarks.datasets.celeba_caption import read_celeba_captions
from facecaption_ml.benchmarks.datasets.data import BenchmarkDataError
from facecaption_ml.captions import caption_seed, template_caption
from facecaption_ml.captions.template.grammar import bundled_grammar
from facecaption_ml.decoding import decode_image
from facecaption_ml.storage.store import Store
from facecaption_ml.taxonomy import ATTRIBUTES, settle_conflicts
from servers import s3_options

SHARED_DATA = Path(__file__).parents[2].parent / "shared" / "data"
SIX = range(1, 7)
SPLIT_OF_SIX = {1: 0, 2: 0, 3: 1, 4: 2, 5: 2, 6: 0}


@pytest.fixture
def captions(tmp_path: Path) -> Store:
    return Store(str(tmp_path / "captions"))


# -- CelebA ----------------------------------------------------------------------------------------------------------


@ON_BOTH
@pytest.mark.parametrize("layout", [CELEBA_FLAT, CELEBA_RELEASED, CELEBA_KAGGLE])
def test_celeba_is_read_flat_as_released_and_as_kaggle_has_it(store: Store, layout: tuple[str, str, str]) -> None:
    write_celeba(store, SIX, SIX, SPLIT_OF_SIX, layout)
    data = read_celeba_labels(store)
    assert split_names(data) == {
        "train": ["000001.jpg", "000002.jpg", "000006.jpg"],
        "validation": ["000003.jpg"],
        "test": ["000004.jpg", "000005.jpg"],
    }
    assert data.labels.tolist() == [labels_of(number) for number in SIX]
    assert data.source.name == "celeba"
    assert data.source.excluded == {}
    np.testing.assert_array_equal(data.pictures.read([4, 1]), [decode_image(picture(number)) for number in (5, 2)])


@examples(60)
@given(st.sets(st.integers(3, 9)), st.sets(st.integers(3, 9)), st.dictionaries(st.integers(3, 9), st.integers(0, 2)))
def test_every_picture_of_celeba_is_a_row_or_counted_once(
    pictures: set[int], labelled: set[int], partition: dict[int, int]
) -> None:
    pictures, labelled, partition = pictures | {1, 2}, labelled | {1, 2}, partition | {1: 0, 2: 2}
    with tempfile.TemporaryDirectory() as scratch:
        write_celeba(Store(scratch), list(pictures), list(labelled), partition)
        data = read_celeba_labels(Store(scratch))
    expected = Counter[str]()
    kept = []
    for number in range(10):
        if number in pictures and number in labelled and number in partition:
            kept.append(celeba_name(number))
        elif number not in pictures:
            expected["picture absent"] += number in labelled or number in partition
        elif number not in labelled:
            expected["not labelled"] += 1
        else:
            expected["in no split"] += 1
    assert [key.rpartition("/")[2] for key in data.pictures.names] == kept
    assert data.source.excluded == {reason: count for reason, count in expected.items() if count}
    numbers = [int(name.removesuffix(".jpg")) for name in kept]
    assert data.labels.tolist() == [labels_of(number) for number in numbers]
    for index, split in enumerate(("train", "validation", "test")):
        assert [numbers[row] for row in data.splits.get(split, ())] == [n for n in numbers if partition[n] == index]


def test_no_picture_is_opened_before_it_is_asked_for(folder: Store) -> None:
    write_celeba(folder, SIX, SIX, SPLIT_OF_SIX)
    folder.write_bytes("img_align_celeba/000002.jpg", b"no picture")
    put(folder, "img_align_celeba/Thumbs.db", "no picture either")
    data = read_celeba_labels(folder)
    assert len(data.pictures.names) == 6
    assert data.source.excluded == {}
    assert [found is None for found in data.pictures.read([0, 1])] == [False, True]


def _swap(old: str, new: str, key: str) -> Callable[[Store], None]:
    return lambda store: put(store, key, store.read_bytes(key).decode().replace(old, new, 1))


def _flip_first_label(store: Store) -> None:
    before = store.read_bytes("list_attr_celeba.txt").decode()
    name, value, rest = before.splitlines()[2].split(" ", 2)
    after = before.replace(f"{name} {value} {rest}", f"{name} {'-1' if value == '1' else '1'} {rest}")
    put(store, "list_attr_celeba.txt", after)


@pytest.mark.parametrize(
    "change",
    [
        lambda store: store.write_bytes("img_align_celeba/000002.jpg", picture(2) + b" "),
        lambda store: store.delete("img_align_celeba/000002.jpg"),
        _flip_first_label,
        _swap("000002.jpg 0", "000002.jpg 1", "list_eval_partition.txt"),
    ],
)
def test_the_version_differs_with_pictures_labels_and_splits(folder: Store, change: Callable[[Store], None]) -> None:
    write_celeba(folder, SIX, SIX, SPLIT_OF_SIX)
    before = read_celeba_labels(folder).source.version
    assert read_celeba_labels(folder).source.version == before
    change(folder)
    assert read_celeba_labels(folder).source.version != before


def test_the_order_of_the_lists_does_not_matter(tmp_path: Path) -> None:
    for name, order in (("a", [1, 2, 3, 4, 5, 6]), ("b", [4, 6, 1, 5, 3, 2])):
        write_celeba(Store(str(tmp_path / name)), SIX, order, {n: SPLIT_OF_SIX[n] for n in reversed(order)})
    one, other = (read_celeba_labels(Store(str(tmp_path / name))) for name in ("a", "b"))
    assert one.source == other.source
    assert one.labels.tolist() == other.labels.tolist()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda s: s.delete("list_attr_celeba.txt"), ["/list_attr_celeba.txt is missing", "Anno/"]),
        (lambda s: s.delete("list_eval_partition.txt"), ["/list_eval_partition.txt is missing", "Eval/"]),
        (lambda s: [s.delete(key) for key in s.keys("img_align_celeba/")], ["/img_align_celeba/ has no pictures"]),
        (_swap("Young", "Old", "list_attr_celeba.txt"), ["list_attr_celeba.txt, line 2", "Old"]),
        (_swap("000002.jpg 0", "\n000002.jpg 7", "list_eval_partition.txt"), ["list_eval_partition.txt, line 3"]),
        (lambda s: s.write_bytes("list_attr_celeba.txt", b"\xff\xfe"), ["list_attr_celeba.txt", "UTF-8"]),
        (
            lambda s: [s.delete(f"img_align_celeba/{celeba_name(n)}") for n in (4, 5)],
            ["test split has no pictures", "2 picture absent"],
        ),
        (lambda s: [s.delete(key) for key in s.keys("")], ["holds no files"]),
    ],
)
def test_what_is_wrong_with_celeba_is_named_in_one_line(
    folder: Store, change: Callable[[Store], object], words: list[str]
) -> None:
    write_celeba(folder, SIX, SIX, SPLIT_OF_SIX)
    change(folder)
    with refused("celeba", words):
        read_celeba_labels(folder)


def test_a_bucket_that_is_not_there_is_named(s3_server: dict[str, str]) -> None:
    with pytest.raises(BenchmarkDataError, match=r"^celeba: .*s3://absent/celeba"):
        read_celeba_labels(Store("s3://absent/celeba", s3_options(s3_server)))


@pytest.mark.slow
def test_real_celeba_is_read_with_its_own_labels_and_split(tmp_path: Path) -> None:
    archive = SHARED_DATA / "celeba_lowres.tar"
    if not archive.is_file():
        pytest.skip("the shared CelebA pictures are not at hand")
    with tarfile.open(archive) as tar:
        tar.extractall(tmp_path, filter="data")
    root = tmp_path / "celeba_lowres"
    data = read_celeba_labels(Store(str(root)))
    assert {split: len(rows) for split, rows in data.splits.items()} == {"train": 6400, "validation": 600, "test": 1000}
    assert data.source.excluded == {}
    lines = (root / "list_attr_celeba.txt").read_text().splitlines()
    names = lines[1].split()
    for row in (0, 4_321, 7_999):
        picture_name, *values = lines[2 + row].split()
        assert data.pictures.names[row] == f"img_align_celeba/{picture_name}"
        assert {name for name, value in zip(names, values, strict=True) if value == "1"} == {
            name for name, has in zip(ATTRIBUTES, data.labels[row], strict=True) if has
        }
    (found,) = data.pictures.read([7_999])
    assert found is not None
    assert found.shape == (109, 89, 3)


# -- CelebA-Caption --------------------------------------------------------------------------------------------------


def entry(number: int, *texts: Any, folder: str = "") -> dict[str, Any]:
    return {"image": f"{folder}{celeba_name(number)}", "image_id": number, "caption": list(texts)}


def write_annotations(store: Store, **entries: list[Any]) -> None:
    for split, found in entries.items():
        put(store, f"CelebA_Caption_{split}.json", json.dumps(found))


@ON_BOTH
def test_annotation_files_give_captions_and_splits(store: Store, captions: Store) -> None:
    for number in (1, 2, 3, 4):
        store.write_bytes(f"img_align_celeba/{celeba_name(number)}", picture(number))
    write_annotations(
        captions,
        train=[
            entry(1, "A man.", "He smiles."),
            entry(2, "A woman.", folder="img_align_celeba/"),
            entry(1, "He smiles.", " A tall man. "),
        ],
        eval=[entry(3, "A child.", folder="deep\\img\\")],
        test=[entry(4, "One.", "Two.")],
    )
    data = read_celeba_captions(store, captions, 0)
    assert split_names(data) == {
        "train": ["000001.jpg", "000002.jpg"],
        "validation": ["000003.jpg"],
        "test": ["000004.jpg"],
    }
    assert captions_by_name(data) == {
        "000001.jpg": ("A man.", "He smiles.", "A tall man."),
        "000002.jpg": ("A woman.",),
        "000003.jpg": ("A child.",),
        "000004.jpg": ("One.", "Two."),
    }
    assert data.source.name == "celeba_caption"
    assert data.source.excluded == {}
    assert list(data.source.notes) == []


def test_what_annotation_files_lack_or_repeat_is_counted(folder: Store, captions: Store) -> None:
    for number in (1, 2, 3, 4, 5):
        folder.write_bytes(f"img_align_celeba/{celeba_name(number)}", picture(number))
    write_annotations(
        captions,
        train=[entry(1, "One."), entry(2, "Seen."), entry(3, " ", 7), entry(8, "Gone."), {"caption": ["?"]}, 4],
        test=[entry(2, "Asked in the test."), entry(4, "Four.")],
    )
    data = read_celeba_captions(folder, captions, 0)
    assert split_names(data) == {"train": ["000001.jpg"], "test": ["000002.jpg", "000004.jpg"]}
    assert captions_by_name(data)["000002.jpg"] == ("Asked in the test.",)
    assert data.source.excluded == {
        "picture absent": 1,  # 8
        "no caption": 2,  # 3 has blank ones, 5 is in no file
        "in both splits": 1,  # 2
        "caption without picture name": 2,
    }


def test_one_file_of_captions_is_split_by_celebas_list(folder: Store, captions: Store) -> None:
    write_celeba(folder, SIX, [1], {1: 0, 2: 1, 3: 2, 4: 0, 9: 2})
    found = {
        "000001.jpg": "A man.",
        "000002.jpg": ["A woman.", "She smiles.", "A woman."],
        "000003.jpg": {"overall_caption": "A child.", "attribute_wise_captions": {"Bangs": "None."}},
        "000004.jpg": {},
        "000006.jpg": "In no split.",
        "000008.jpg": "Gone.",
        "000007.jpg": "",
    }
    put(captions, "captions.json", json.dumps(found))
    data = read_celeba_captions(folder, captions, 0)
    assert split_names(data) == {"train": ["000001.jpg"], "validation": ["000002.jpg"], "test": ["000003.jpg"]}
    assert list(data.captions) == [("A man.",), ("A woman.", "She smiles."), ("A child.",)]
    assert data.source.excluded == {"picture absent": 3, "no caption": 2, "in no split": 1}
    assert "captions.json" in " ".join(data.source.notes)


def test_without_captions_the_grammar_describes_the_true_labels(folder: Store) -> None:
    count = 120  # enough for labels that contradict each other in more than one way
    partition = {number: number % 3 for number in range(count) if number != 5}
    write_celeba(folder, range(count - 1), range(count), partition)
    data = read_celeba_captions(folder, None, 7)
    assert len(data.captions) == count - 2
    for number in set(partition) - {count - 1}:
        held = [name for name, has in zip(ATTRIBUTES, labels_of(number), strict=True) if has]
        seed = caption_seed(celeba_name(number), bundled_grammar().version, 7)
        expected = template_caption(settle_conflicts(held)[0], "male" if "Male" in held else "female", seed)
        assert captions_by_name(data)[celeba_name(number)] == (expected,)
    assert data.source.name == "celeba_caption"
    assert data.source.excluded == {"picture absent": 1, "in no split": 1}
    (note,) = data.source.notes
    assert "generated from the true labels" in note


def test_a_generated_caption_depends_on_seed_and_picture_alone(tmp_path: Path) -> None:
    few, many = Store(str(tmp_path / "few")), Store(str(tmp_path / "many"))
    write_celeba(few, [1, 4], [4, 1], {4: 2, 1: 0})
    write_celeba(many, SIX, SIX, SPLIT_OF_SIX, CELEBA_RELEASED)
    alone, together = (captions_by_name(read_celeba_captions(store, None, 0)) for store in (few, many))
    assert alone == {name: together[name] for name in alone}
    again, other = (read_celeba_captions(many, None, seed) for seed in (0, 1))
    assert captions_by_name(again) == together
    assert captions_by_name(other) != together
    assert other.source.version != again.source.version


@examples(50)
@given(st.lists(st.booleans(), min_size=40, max_size=40))
def test_any_labels_have_a_caption(labels: list[bool]) -> None:
    line = " ".join("1" if value else "-1" for value in labels)
    with tempfile.TemporaryDirectory() as scratch:
        store = Store(scratch)
        write_celeba(store, [1, 2], [1, 2], {1: 0, 2: 2})
        put(store, "list_attr_celeba.txt", f"2\n{' '.join(ATTRIBUTES)}\n000001.jpg {line}\n000002.jpg {line}")
        data = read_celeba_captions(store, None, 0)
    assert all(len(texts) == 1 and texts[0].strip() for texts in data.captions)


def test_the_version_of_pairs_differs_with_a_caption_and_where_it_belongs(tmp_path: Path) -> None:
    versions = set()
    for number, texts in enumerate([(["a", "b"], ["c"]), (["a"], ["b", "c"]), (["ab"], ["c"]), (["a", "b"], ["d"])]):
        store, found = Store(str(tmp_path / f"{number}")), Store(str(tmp_path / f"{number}c"))
        write_celeba(store, [1, 2], [1], {1: 0, 2: 2})
        write_annotations(found, train=[entry(1, *texts[0])], test=[entry(2, *texts[1])])
        versions.add(read_celeba_captions(store, found, 0).source.version)
    assert len(versions) == 4


@pytest.mark.parametrize(
    ("files", "words"),
    [
        ({"else.json": "[]"}, ["CelebA_Caption_train.json is missing", "captions.json"]),
        ({"CelebA_Caption_train.json": "[]"}, ["CelebA_Caption_test.json is missing"]),
        ({"CelebA_Caption_train.json": "[\n{,"}, ["CelebA_Caption_train.json is no JSON", "line 2"]),
        ({"CelebA_Caption_train.json": "{}"}, ["CelebA_Caption_train.json", "expected a list"]),
        ({"captions.json": "[]"}, ["captions.json", "expected an object"]),
        ({"captions.json": "[" * 100_000}, ["captions.json is no JSON"]),
        ({"captions.json": '{"000001.jpg": "A man."}'}, ["test split has no pictures", "no caption"]),
        ({}, ["holds no files"]),
    ],
)
def test_what_is_wrong_with_captions_is_named(
    folder: Store, captions: Store, files: Mapping[str, str], words: list[str]
) -> None:
    write_celeba(folder, SIX, SIX, SPLIT_OF_SIX)
    for key, text in files.items():
        put(captions, key, text)
    with refused("celeba" if "test split has no pictures" in words else "celeba_captions", words):
        read_celeba_captions(folder, captions, 0)
