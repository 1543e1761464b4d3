"""The reader of LFWA: MATLAB files of both versions and CSV files give the same; what is left out, and what is named."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dataset_folders import (
    LFWA_NAMES,
    ON_BOTH,
    lfwa_csv,
    lfwa_labels,
    matlab_5,
    matlab_73,
    put,
    refused,
    split_names,
    write_lfw_pictures,
)
from facecaption_ml.benchmarks.datasets.lfwa import read_lfwa
from facecaption_ml.benchmarks.datasets.matlab import MatlabError, cell_strings, read_matlab
from facecaption_ml.storage.store import Store
from facecaption_ml.taxonomy import ATTRIBUTES

ORDER = np.random.default_rng(5).permutation(40)
SPOKEN = [ATTRIBUTES[i].replace("_", " ").lower() for i in ORDER]
Write = Callable[[Mapping[str, Any]], bytes]


def write_lfwa(store: Store, write: Write, **changes: Any) -> None:
    """Six pictures, the first four for training; ``changes`` replace variables, None takes one away."""
    labels = {"AttrName": SPOKEN, "label": lfwa_labels()[:, ORDER].astype(float), "name": LFWA_NAMES}
    indices = {
        "indices_img_train": np.array([[1.0], [2], [3], [4]]),
        "indices_img_test": np.array([[5.0], [6]]),
    }
    for key, variables in (("lfw_att_40.mat", labels), ("indices_train_test.mat", indices)):
        changed = {name: changes.get(name, value) for name, value in variables.items()}
        store.write_bytes(key, write({name: value for name, value in changed.items() if value is not None}))


@pytest.fixture(params=[matlab_73, matlab_5], ids=["7.3", "5"])
def write(request: pytest.FixtureRequest) -> Write:
    return request.param


@pytest.mark.parametrize("pictures", ["lfw", "lfw-deepfunneled"])
def test_lfwa_is_read_from_matlab_files_of_both_versions(folder: Store, write: Write, pictures: str) -> None:
    write_lfw_pictures(folder, pictures)
    write_lfwa(folder, write)
    data = read_lfwa(folder)
    assert split_names(data) == {
        "train": ["Al_Bo_0001.jpg", "Al_Bo_0002.jpg", "Al_Bo_0003.jpg", "Cy_Dee_0001.jpg"],
        "test": ["Cy_Dee_0002.jpg", "Cy_Dee_0003.jpg"],
    }
    assert data.pictures.names[3] == f"{pictures}/Cy_Dee/Cy_Dee_0001.jpg"
    assert data.labels.tolist() == lfwa_labels().tolist()
    assert data.source.name == "lfwa"
    assert data.source.excluded == {}


@ON_BOTH
def test_lfwa_is_the_same_whatever_file_it_came_from(store: Store) -> None:
    write_lfw_pictures(store)
    paths = [name.replace("\\", "/") for name in LFWA_NAMES]
    store.write_bytes("list_attr_lfwa.csv", lfwa_csv(paths[:4], lfwa_labels()[:4]))
    store.write_bytes("list_attr_lfwa_test.csv", lfwa_csv(paths[4:], lfwa_labels()[4:], no="0"))
    versions = {read_lfwa(store).source.version}
    for write in (matlab_73, matlab_5):
        write_lfwa(store, write)
        versions.add(read_lfwa(store).source.version)
    assert len(versions) == 1
    write_lfwa(store, matlab_5, indices_img_test=np.array([[5.0]]))  # the MATLAB files go before the CSV files
    assert split_names(read_lfwa(store))["test"] == ["Cy_Dee_0002.jpg"]


def test_what_lfwa_lacks_or_repeats_is_counted(folder: Store, write: Write) -> None:
    write_lfw_pictures(folder, names=[*LFWA_NAMES[1:], "Ed_Fo\\Ed_Fo_0001.jpg"])
    write_lfwa(
        folder,
        write,
        name=[*LFWA_NAMES[:3], LFWA_NAMES[1], *LFWA_NAMES[4:]],
        indices_img_train=np.array([[1, 2, 5]]),
        indices_img_test=np.array([[5, 6]]),
    )
    data = read_lfwa(folder)
    assert split_names(data) == {"train": ["Al_Bo_0002.jpg"], "test": ["Cy_Dee_0002.jpg", "Cy_Dee_0003.jpg"]}
    assert data.labels.tolist() == lfwa_labels()[[1, 4, 5]].tolist()
    assert data.source.excluded == {
        "picture absent": 1,
        "in no split": 1,
        "not labelled": 2,  # Ed_Fo_0001, and Cy_Dee_0001 whose row has another's name
        "in both splits": 1,
        "listed twice": 1,
    }


@pytest.mark.parametrize("prefix", ["{person}/", "", "lfw/{person}/", "{person}\\"])
def test_a_row_in_both_csv_files_is_tested_on_only(folder: Store, prefix: str) -> None:
    write_lfw_pictures(folder)
    names = [prefix.format(person=name.partition("\\")[0]) + name.partition("\\")[2] for name in LFWA_NAMES]
    folder.write_bytes("list_attr_lfwa.csv", lfwa_csv([*names[:4], names[0]], ~lfwa_labels()[[0, 1, 2, 3, 3]]))
    folder.write_bytes("list_attr_lfwa_test.csv", lfwa_csv(names[2:], lfwa_labels()[2:]))
    data = read_lfwa(folder)
    assert [len(data.splits[split]) for split in ("train", "test")] == [2, 4]
    assert data.labels.tolist() == [*(~lfwa_labels()[:2]).tolist(), *lfwa_labels()[2:].tolist()]
    assert data.source.excluded == {"in both splits": 2, "listed twice": 1}


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"AttrName": None}, ["lfw_att_40.mat", "AttrName is missing"]),
        ({"AttrName": ["old", *SPOKEN[1:]]}, ["lfw_att_40.mat", "AttrName", "amiss"]),
        ({"AttrName": [SPOKEN[1], *SPOKEN[1:]]}, ["AttrName", "amiss"]),
        ({"AttrName": np.zeros((40, 1))}, ["AttrName", "cell array"]),
        ({"name": [*LFWA_NAMES, ""]}, ["lfw_att_40.mat", "label", "[7, 40]"]),
        ({"label": lfwa_labels() * 2.0}, ["lfw_att_40.mat", "label", "0 and 1"]),
        ({"label": ["a", "b"]}, ["label", "matrix of numbers"]),
        ({"indices_img_test": None}, ["indices_train_test.mat", "indices_img_test is missing"]),
        ({"indices_img_test": np.array([[7.0]])}, ["indices_train_test.mat", "indices_img_test", "1 … 6"]),
        ({"indices_img_train": np.array([[0.0]])}, ["indices_img_train", "1 … 6"]),
        ({"indices_img_train": np.array([[1.5]])}, ["indices_img_train", "1 … 6"]),
    ],
)
def test_a_wrong_variable_of_lfwa_is_named(
    folder: Store, write: Write, changes: dict[str, Any], words: list[str]
) -> None:
    write_lfw_pictures(folder)
    write_lfwa(folder, write, **changes)
    with refused("lfwa", words):
        read_lfwa(folder)


def test_matlab_texts_come_back_whatever_their_characters(write: Write) -> None:
    texts = ["Zoë_Ball", "", "a", "名前 1"]
    assert cell_strings(read_matlab(write({"name": texts}), ["name"]), "name") == texts


def test_an_empty_name_is_a_row_without_picture(folder: Store, write: Write) -> None:
    write_lfw_pictures(folder)
    write_lfwa(folder, write, name=[*LFWA_NAMES[:5], ""])
    assert read_lfwa(folder).source.excluded == {"picture absent": 1, "not labelled": 1}


@pytest.mark.parametrize("file", ["lfw_att_40.mat", "indices_train_test.mat"])
@pytest.mark.parametrize("damage", [lambda data: b"", lambda data: b"text", lambda data: data[: len(data) // 2]])
def test_a_damaged_matlab_file_is_named(
    folder: Store, write: Write, file: str, damage: Callable[[bytes], bytes]
) -> None:
    write_lfw_pictures(folder)
    write_lfwa(folder, write)
    folder.write_bytes(file, damage(folder.read_bytes(file)))
    with refused("lfwa", [f"{file}: ", "MATLAB"]):
        read_lfwa(folder)


GOOD = lfwa_csv(LFWA_NAMES, lfwa_labels()).decode()


@pytest.mark.parametrize(
    ("files", "words"),
    [
        ({}, ["lfw_att_40.mat is missing", "list_attr_lfwa.csv"]),
        ({"lfw_att_40.mat": "x"}, ["indices_train_test.mat is missing"]),
        ({"list_attr_lfwa.csv": GOOD}, ["list_attr_lfwa_test.csv is missing"]),
        ({"list_attr_lfwa_test.csv": GOOD}, ["list_attr_lfwa.csv is missing"]),
        ({"list_attr_lfwa.csv": ""}, ["list_attr_lfwa.csv, line 1", "40 attributes"]),
        ({"list_attr_lfwa.csv": GOOD.replace("Young", "Old")}, ["list_attr_lfwa.csv, line 1", "old"]),
        ({"list_attr_lfwa.csv": GOOD + "\n\na.jpg,1,1"}, ["list_attr_lfwa.csv, line 9", "40 values"]),
        ({"list_attr_lfwa.csv": GOOD.replace("-1", "2", 1)}, ["list_attr_lfwa.csv, line 2", "1 and 0"]),
    ],
)
def test_what_is_wrong_with_csv_labels_is_named(folder: Store, files: Mapping[str, str], words: list[str]) -> None:
    write_lfw_pictures(folder)
    for key, text in files.items():
        put(folder, key, text)
    if "list_attr_lfwa.csv" in files and files["list_attr_lfwa.csv"] != GOOD:
        put(folder, "list_attr_lfwa_test.csv", GOOD)
    with refused("lfwa", words):
        read_lfwa(folder)


@pytest.mark.parametrize("way", ["external storage", "external link", "virtual", "huge"])
def test_hdf5_leads_to_no_other_file_and_to_no_absurd_size(way: str, tmp_path: Path) -> None:
    import h5py

    (tmp_path / "secret").write_bytes(b"top secret")
    with h5py.File(tmp_path / "other.h5", "w") as other:
        other["label"] = np.frombuffer(b"top secret", np.uint8)
    with h5py.File(tmp_path / "hostile.mat", "w") as file:
        if way == "external storage":
            file.create_dataset("label", (10,), np.uint8, external=[(str(tmp_path / "secret"), 0, 10)])
        elif way == "external link":
            file["label"] = h5py.ExternalLink(str(tmp_path / "other.h5"), "/label")
        elif way == "virtual":
            layout = h5py.VirtualLayout((10,), np.uint8)
            layout[:] = h5py.VirtualSource(str(tmp_path / "other.h5"), "label", (10,))
            file.create_virtual_dataset("label", layout)
        else:
            file.create_dataset("label", (40_000, 1_000_000), np.uint8, chunks=(1000, 1000))
    with pytest.raises(MatlabError, match="label"):
        read_matlab((tmp_path / "hostile.mat").read_bytes(), ["label"])
