"""``facecaption search --in FOLDER`` and by labels over the data set: what is found, kept, written and refused."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import polars as pl
import pytest
from click.testing import CliRunner, Result

from facecaption_assets.commands import search as search_command
from facecaption_assets.commands.cli import main
from facecaption_ml.decoding import decode_image, encode_jpeg
from facecaption_ml.faces import Face
from facecaption_ml.schemas import SCHEMAS
from facecaption_ml.search import photos as photos_module
from facecaption_ml.search.photo_features import photo_features
from facecaption_ml.search.photos import PhotoFaces
from facecaption_ml.storage.store import Store
from facecaption_ml.taxonomy import ATTRIBUTES

REDDISH, BLUISH = (200, 40, 40), (40, 40, 200)


class WholePicture:
    """Finds one face in every picture, which is all of it; a black picture shows none."""

    def detect(self, images: list[np.ndarray]) -> list[list[Face]]:
        return [[self._face(image)] if image.max() > 30 else [] for image in images]

    def _face(self, image: np.ndarray) -> Face:
        side = float(image.shape[0])
        eyes = np.array([(0.35, 0.4), (0.65, 0.4), (0.5, 0.55), (0.38, 0.7), (0.62, 0.7)], np.float32)
        return Face((0.2 * side, 0.2 * side, 0.8 * side, 0.9 * side), side * eyes, 0.99)


class Reddish:
    """Bald is whatever is red."""

    version = "reddish"

    def __init__(self) -> None:
        self.seen = 0

    def predict(self, images: list[np.ndarray]) -> np.ndarray:
        self.seen += len(images)
        found = np.full((len(images), len(ATTRIBUTES)), 0.5, np.float32)
        middles = [image[image.shape[0] // 2, image.shape[1] // 2].astype(float) for image in images]
        found[:, ATTRIBUTES.index("Bald")] = [0.98 if red > blue else 0.02 for red, _, blue in middles]
        return found


class BluishFlip:
    """Every text is a text about blue; features are a picture's own shares of red and blue."""

    version = "bluish"
    config: ClassVar[dict[str, Any]] = {"search": {"by": "both", "weight": 3.0}}

    def __init__(self) -> None:
        self.seen = 0

    def encode_images(self, images: Sequence[np.ndarray]) -> np.ndarray:
        self.seen += len(images)
        middles = [image[image.shape[0] // 2, image.shape[1] // 2].astype(float) for image in images]
        return np.array([[red, blue] / np.hypot(red, blue) for red, _, blue in middles], np.float32)

    def encode_texts(self, texts: Sequence[str]) -> np.ndarray:
        return np.tile(np.array([0, 1], np.float32), (len(texts), 1))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two reddish faces, two bluish ones, one picture without a face and one that is none."""
    photos = tmp_path / "photos"
    (photos / "more").mkdir(parents=True)
    colours = {"a.jpg": REDDISH, "b.jpg": BLUISH, "more/c.jpg": REDDISH, "d.jpg": BLUISH, "dark.jpg": (5, 5, 5)}
    for number, (name, colour) in enumerate(colours.items()):
        image = np.full((120, 120, 3), colour, np.uint8)
        image[0, 0] = number  # files that differ
        (photos / name).write_bytes(encode_jpeg(image))
    (photos / "broken.jpg").write_bytes(b"no picture")
    return photos


def finder(cache: Path, predictor: Reddish, version: str = "v1") -> PhotoFaces:
    return PhotoFaces(lambda: WholePicture(), predictor, cache, version, 0.3)  # type: ignore[arg-type, return-value]


# -- faces of photographs --------------------------------------------------------------------------------------------------


def test_a_file_is_looked_at_once_whatever_it_is_called(tmp_path: Path, folder: Path) -> None:
    paths = sorted(folder.rglob("*.jpg"))
    predictor = Reddish()
    faces, faults = finder(tmp_path / "cache", predictor).of(paths)
    assert [face.name for face in faces] == ["a.jpg#0", "b.jpg#0", "d.jpg#0", "c.jpg#0"]
    assert len(faults) == 1
    assert "broken.jpg" in faults[0]
    assert predictor.seen == 4
    shutil.move(folder / "a.jpg", folder / "renamed.jpg")
    again, _ = finder(tmp_path / "cache", predictor).of(sorted(folder.rglob("*.jpg")))
    assert predictor.seen == 4
    assert {face.name for face in again} == {"renamed.jpg#0", "b.jpg#0", "d.jpg#0", "c.jpg#0"}
    for one in again:
        before = next(face for face in faces if face.name in (one.name, one.name.replace("renamed", "a")))
        assert one.probabilities == pytest.approx(before.probabilities, abs=1e-5)
        assert np.array_equal(one.crop(0.3), align(one))


def align(face: photos_module.PhotoFace) -> np.ndarray:
    return photos_module.align_and_crop(decode_image(face.path.read_bytes()), face.face, 0.3)[0]


def test_another_version_or_another_content_is_looked_at_anew(tmp_path: Path, folder: Path) -> None:
    predictor = Reddish()
    finder(tmp_path / "cache", predictor).of([folder / "a.jpg"])
    finder(tmp_path / "cache", predictor, "v2").of([folder / "a.jpg"])
    assert predictor.seen == 2
    (folder / "a.jpg").write_bytes((folder / "b.jpg").read_bytes())
    finder(tmp_path / "cache", predictor).of([folder / "a.jpg"])
    assert predictor.seen == 3


def test_what_is_kept_and_damaged_is_looked_at_anew(tmp_path: Path, folder: Path) -> None:
    predictor = Reddish()
    finder(tmp_path / "cache", predictor).of([folder / "a.jpg"])
    (kept,) = (tmp_path / "cache" / "v1").iterdir()
    for text in ("", "[1]", '[{"box": []}]'):
        kept.write_text(text)
        faces, _ = finder(tmp_path / "cache", predictor).of([folder / "a.jpg"])
        assert len(faces) == 1
    assert predictor.seen == 4


def test_photographs_are_looked_at_together_and_kept_before_the_next_ones(tmp_path: Path) -> None:
    paths = [tmp_path / f"{number:02}.jpg" for number in range(20)]
    for number, path in enumerate(paths):
        path.write_bytes(encode_jpeg(np.full((120, 120, 3), (200, 40, 10 * number), np.uint8)))
    loaded: list[WholePicture] = []

    class Interrupted(Reddish):
        def predict(self, images: list[np.ndarray]) -> np.ndarray:
            if self.seen:
                raise KeyboardInterrupt
            return super().predict(images)

    def detector() -> WholePicture:
        loaded.append(WholePicture())
        return loaded[-1]

    first, second = Interrupted(), Reddish()
    with pytest.raises(KeyboardInterrupt):
        PhotoFaces(detector, first, tmp_path / "cache", "v1", 0.3).of(paths)  # type: ignore[arg-type]
    assert 1 < first.seen < 20
    faces, _ = PhotoFaces(detector, second, tmp_path / "cache", "v1", 0.3).of(paths)  # type: ignore[arg-type]
    assert second.seen == 20 - first.seen
    assert [face.path for face in faces] == paths
    assert len(loaded) == 2, "once each"


def test_two_files_of_one_content_are_looked_at_once(tmp_path: Path, folder: Path) -> None:
    shutil.copy(folder / "a.jpg", folder / "z.jpg")
    predictor = Reddish()
    faces, _ = finder(tmp_path / "cache", predictor).of([folder / "a.jpg", folder / "b.jpg", folder / "z.jpg"])
    assert [face.name for face in faces] == ["a.jpg#0", "b.jpg#0", "z.jpg#0"]
    assert predictor.seen == 2


# -- the command -----------------------------------------------------------------------------------------------------------


def search(home: Path, *arguments: str) -> Result:
    return CliRunner().invoke(main, ["search", *arguments], env={"FACECAPTION_HOME": str(home)})


@pytest.fixture
def _models(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(search_command, "load_detector", lambda *_: WholePicture())
    monkeypatch.setattr("facecaption_ml.attributes.AttributePredictor.load", lambda *_, **__: Reddish())
    monkeypatch.setattr(search_command, "load_flip", lambda *_: (BluishFlip(), "bundled"))


@pytest.mark.usefixtures("_models")
def test_faces_of_a_folder_are_found_by_what_the_text_names(tmp_path: Path, folder: Path) -> None:
    out = tmp_path / "found.jpg"
    done = search(tmp_path, "a bald person", "--in", str(folder), "--top", "2", "--by", "labels", "--out", str(out))
    assert done.exit_code == 0, done.output
    first, *faces = done.stdout.splitlines()
    assert "read as Bald: 2 nearest of 4 faces" in first
    assert {line.split()[2] for line in faces} == {"a.jpg#0", "c.jpg#0"}
    assert all("Bald 0.98" in line for line in faces)
    assert "broken.jpg" in done.stderr
    assert decode_image(out.read_bytes()).shape[2] == 3


@pytest.mark.usefixtures("_models")
def test_a_denial_turns_the_order(tmp_path: Path, folder: Path) -> None:
    out = str(tmp_path / "found.jpg")
    done = search(tmp_path, "someone who is not bald", "--in", str(folder), "--by", "labels", "--json", "--out", out)
    record = json.loads(done.stdout)
    assert (record["by"], record["labels"], record["faces"]) == ("labels", "not Bald", 4)
    assert {Path(face["photo"]).name for face in record["nearest"][:2]} == {"b.jpg", "d.jpg"}
    assert [face["rank"] for face in record["nearest"]] == [1, 2, 3, 4]
    assert all(len(face["box"]) == 4 for face in record["nearest"])


@pytest.mark.usefixtures("_models")
def test_mistakes_are_one_line(tmp_path: Path, folder: Path) -> None:
    out = str(tmp_path / "found.jpg")
    for arguments, said in {
        ("a bald man", "--in", str(tmp_path / "absent")): "there is no such folder",
        ("a window", "--in", str(folder), "--by", "labels"): "names none of the 40 attributes",
    }.items():
        done = search(tmp_path, *arguments, "--out", out)
        assert done.exit_code != 0
        assert said in done.stderr.strip().splitlines()[-1]
    empty = tmp_path / "empty"
    empty.mkdir()
    assert f"{empty}: no pictures in this folder" in search(tmp_path, "bald", "--in", str(empty), "--out", out).stderr
    (empty / "dark.jpg").write_bytes((folder / "dark.jpg").read_bytes())
    assert "no face was found in its 1 pictures" in search(tmp_path, "bald", "--in", str(empty), "--out", out).stderr


def test_a_variant_that_the_data_set_lacks_is_one_line(
    tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(search_command, "load_detector", lambda *_: WholePicture())
    out = str(tmp_path / "found.jpg")
    for text, said in {
        "a bald man": "no checkpoint of variant 'flip'",
        "a window": "names none of the 40 attributes, so FLIP is needed: no checkpoint of variant 'flip'",
    }.items():
        done = search(tmp_path, text, "--in", str(folder), "--by", "flip", "--variant", "flip", "--out", out)
        assert done.exit_code != 0
        assert said in done.stderr.strip().splitlines()[-1]


@pytest.mark.usefixtures("_models")
def test_without_a_way_photographs_are_searched_as_the_checkpoint_was_measured_to_do_best(
    tmp_path: Path, folder: Path
) -> None:
    """A text that names no label can only be FLIP's."""
    out = str(tmp_path / "found.jpg")
    for text, by, labels, first in (
        ("a bald person", "both", "Bald", {"b.jpg", "d.jpg"}),  # FLIP counts three times
        ("in front of a window", "flip", "", {"b.jpg", "d.jpg"}),
    ):
        record = json.loads(search(tmp_path, text, "--in", str(folder), "--json", "--out", out).stdout)
        assert (record["by"], record["labels"], record["variant"], record["checkpoint"]) == (
            by,
            labels,
            "bundled",
            "bluish",
        )
        assert {Path(face["photo"]).name for face in record["nearest"][:2]} == first
    record = json.loads(
        search(tmp_path, "a bald person", "--in", str(folder), "--by", "labels", "--json", "--out", out).stdout
    )
    assert (record["by"], record["variant"], record["checkpoint"]) == ("labels", "", "")
    assert {Path(face["photo"]).name for face in record["nearest"][:2]} == {"a.jpg", "c.jpg"}


def test_features_of_a_file_are_kept_under_the_checkpoint(tmp_path: Path, folder: Path) -> None:
    found = finder(tmp_path / "cache", Reddish())
    faces, _ = found.of(sorted(folder.rglob("*.jpg")))
    flip = BluishFlip()
    first = photo_features(faces, flip, found.folder, 0.3)
    assert flip.seen == 4
    assert np.allclose(np.linalg.norm(first, axis=1), 1, atol=1e-3)
    assert np.array_equal(photo_features(faces, flip, found.folder, 0.3), first)
    assert flip.seen == 4
    kept = sorted((found.folder / "bluish").iterdir())
    assert [path.stem for path in kept] == sorted(face.digest for face in faces)
    kept[0].write_bytes(b"damaged")
    assert np.array_equal(photo_features(faces, flip, found.folder, 0.3), first)
    assert flip.seen == 5
    flip.version = "another"
    photo_features(faces, flip, found.folder, 0.3)
    assert flip.seen == 9


@pytest.mark.usefixtures("_models")
def test_hidden_pictures_are_passed_over_as_a_source_passes_them(tmp_path: Path, folder: Path) -> None:
    for name in (".hidden.jpg", ".thumbnails/e.jpg"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes((folder / "a.jpg").read_bytes())
    done = search(tmp_path, "a bald person", "--in", str(folder), "--json", "--out", str(tmp_path / "found.jpg"))
    assert json.loads(done.stdout)["faces"] == 4


def test_a_predictor_that_is_not_there_is_named_with_its_setting(tmp_path: Path, folder: Path) -> None:
    environment = {"FACECAPTION_HOME": str(tmp_path), "FACECAPTION_ATTRIBUTE_WEIGHTS": "absent"}
    arguments = ["search", "a bald man", "--in", str(folder), "--out", str(tmp_path / "found.jpg")]
    said = CliRunner().invoke(main, arguments, env=environment).stderr.strip().splitlines()[-1]
    assert "FACECAPTION_ATTRIBUTE_WEIGHTS" in said
    assert "attributes.safetensors is missing" in said


@pytest.mark.usefixtures("_models")
def test_a_long_description_is_not_repeated_whole(tmp_path: Path, folder: Path) -> None:
    out = str(tmp_path / "found.jpg")
    done = search(tmp_path, "a bald person " * 800, "--in", str(folder), "--by", "labels", "--out", out)
    assert "read as Bald: 4 nearest" in done.stdout
    refused = search(tmp_path, "a window " * 800, "--in", str(folder), "--by", "labels", "--out", out)
    assert len(done.stdout.splitlines()[0]) < 300
    assert len(refused.stderr) < 400


# -- the data set ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A home whose faces have probabilities: the n-th is the likelier bald the higher its number."""
    store = Store(str(tmp_path / "home" / "store"))
    for shard, numbers in (("shard-00000", [3, 0]), ("shard-00001", [5, 1])):
        image = encode_jpeg(np.full((32, 32, 3), 120, np.uint8))
        crops = [
            {"face_id": f"{n}_0", "sample_id": str(n), "image": {"bytes": image, "path": f"{n}.jpg"}} for n in numbers
        ]
        store.write_table("face_crops", pl.DataFrame(crops, schema=dict(SCHEMAS["face_crops"]), strict=False), shard)
        rows = [
            {
                "face_id": f"{n}_0",
                **dict.fromkeys(ATTRIBUTES, 0.5),
                "Bald": n / 10,
                "labels": [],
                "dropped_conflicts": [],
            }
            for n in numbers
        ]
        table = pl.DataFrame(rows, schema=dict(SCHEMAS["face_attributes"]), strict=False)
        store.write_table("face_attributes", table, shard)
    return tmp_path / "home"


def test_faces_of_a_home_are_found_without_a_checkpoint(tmp_path: Path, home: Path) -> None:
    out = str(tmp_path / "found.jpg")
    for own, arguments in ((home, ()), (tmp_path / "other", ("--in", str(home)))):
        done = search(own, "a bald person", "--top", "3", "--json", "--out", out, *arguments)
        assert done.exit_code == 0, done.output
        record = json.loads(done.stdout)
        assert (record["by"], record["faces"], record["checkpoint"]) == ("labels", 4, "")
        assert [face["face_id"] for face in record["nearest"]] == ["5_0", "3_0", "1_0"]
