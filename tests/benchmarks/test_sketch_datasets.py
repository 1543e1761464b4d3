"""Sketch episodes: edges of photos drawn line by line, FS2K-SDE and User-SDE in their layouts, any folder of photos."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from examples import examples
from facecaption_ml.benchmarks.datasets.contours import photo_curves, photo_sketches
from facecaption_ml.benchmarks.datasets.data import BenchmarkDataError, EpisodeData
from facecaption_ml.benchmarks.datasets.fs2k_sde import read_fs2k_sde, read_user_sde
from facecaption_ml.benchmarks.datasets.photo_episodes import photo_episodes
from facecaption_ml.decoding import decode_image
from facecaption_ml.storage.store import Store
from png_files import png
from servers import s3_options


def picture(tone: int, size: tuple[int, int] = (40, 48)) -> np.ndarray:
    """A grey square of its own place and tone on a light ground: a photo with edges, unlike that of another tone."""
    image = np.full((*size, 3), 230, np.uint8)
    left = 4 + tone % 12
    image[8:30, left : left + 20] = tone % 150
    return image


def write(root: Path, files: dict[str, Any]) -> Store:
    """Pictures from numbers (``picture``), JSON from lists and objects, bytes as they are."""
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(content, int):
            content = png(picture(content))
        path.write_bytes(content if isinstance(content, bytes) else json.dumps(content).encode())
    return Store(str(root))


def described(image: np.ndarray) -> str:
    return f"tone {int(image.min())}"


def photo_names(data: EpisodeData, split: str) -> list[str]:
    return [data.photos.names[data.episodes[row].photo] for row in data.splits[split]]


def sketch_names(data: EpisodeData, split: str) -> list[list[str]]:
    return [[data.sketches.names[s] for s in data.episodes[row].sketches] for row in data.splits[split]]


# -- contours --------------------------------------------------------------------------------------------------------


def scene(seed: int, height: int, width: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    image = np.full((height, width, 3), 200, np.uint8)
    for _ in range(4):
        at = tuple(int(v) for v in rng.integers(0, (width, height)))
        cv2.circle(image, at, int(rng.integers(5, 20)), rng.integers(0, 255, 3).tolist(), -1)
    return image


@given(st.integers(0, 2**32), st.integers(1, 9), st.sampled_from([64, 100, 256]), st.integers(20, 90))
@examples(25)
def test_every_sketch_holds_the_one_before_and_nothing_is_ever_rubbed_out(
    seed: int, steps: int, size: int, height: int
) -> None:
    photo = scene(seed, height, 64)
    pages = photo_sketches(photo, steps, size)
    assert len(pages) == steps
    assert all(page.shape == (size, size) and page.dtype == np.uint8 for page in pages)
    assert all((later <= earlier).all() for earlier, later in itertools.pairwise(pages))
    assert all((a == b).all() for a, b in zip(pages, photo_sketches(photo.copy(), steps, size), strict=True))


def test_the_outline_of_a_disc_is_one_line_round_it() -> None:
    photo = np.full((128, 128, 3), 240, np.uint8)
    cv2.circle(photo, (64, 60), 30, (20, 20, 20), -1)
    curves = photo_curves(photo, 256)
    assert len(curves) == 1
    distance = np.hypot(curves[0][:, 0] - 128.5, curves[0][:, 1] - 120.5)
    assert np.abs(distance - 60).max() < 2.5
    length = np.hypot(*np.diff(curves[0], axis=0).T).sum()
    assert length == pytest.approx(2 * np.pi * 60, rel=0.05)


def test_the_longest_lines_come_first_and_every_step_adds_about_the_same_length() -> None:
    photo = scene(3, 200, 200)
    lengths = [float(np.hypot(*np.diff(curve, axis=0).T).sum()) for curve in photo_curves(photo)]
    assert len(lengths) > 3
    assert lengths == sorted(lengths, reverse=True)
    ink = [int((255 - page.astype(int)).sum()) for page in photo_sketches(photo, 8)]
    added = np.diff([0, *ink])
    assert added.min() > 0.6 * added.mean()
    assert added.max() < 1.4 * added.mean()


def test_a_photo_without_edges_gives_blank_pages() -> None:
    rng = np.random.default_rng(0)
    noisy = (128 + rng.normal(0, 3, (90, 80, 3))).clip(0, 255).astype(np.uint8)
    for photo in (np.full((50, 60, 3), 77, np.uint8), noisy, np.zeros((1, 1, 3), np.uint8)):
        assert photo_curves(photo) == []
        pages = photo_sketches(photo, 4, 64)
        assert len(pages) == 4
        assert all((page == 255).all() for page in pages)


def test_what_cannot_be_drawn_is_named() -> None:
    with pytest.raises(ValueError, match="steps is 0"):
        photo_sketches(picture(9), 0)
    with pytest.raises(ValueError, match=r"\[40, 48\]"):
        photo_curves(picture(9)[:, :, 0])


def test_a_real_face_is_drawn_where_it_is(photos: Path) -> None:
    """Ink falls on edges: the photo changes more where the pen was than elsewhere."""
    photo = decode_image((photos / "obama.jpg").read_bytes())
    page = photo_sketches(photo, 20)[-1]
    small = cv2.cvtColor(cv2.resize(photo, (256, 256), interpolation=cv2.INTER_AREA), cv2.COLOR_RGB2GRAY)
    small = cv2.GaussianBlur(small.astype(np.float32), (0, 0), 1.5)
    change = np.hypot(cv2.Sobel(small, cv2.CV_32F, 1, 0), cv2.Sobel(small, cv2.CV_32F, 0, 1))
    drawn = page < 128
    assert 0.01 < drawn.mean() < 0.2
    assert np.median(change[drawn]) > 4 * np.median(change[page == 255])


# -- FS2K-SDE --------------------------------------------------------------------------------------------------------

FS2K = {f"photo/photo1/image{n:04d}.jpg": n for n in range(1, 8)} | {"photo/photo3/image0001.jpg": 101}


def published(dataset: str = "dataset1/") -> dict[str, Any]:
    return {
        f"{dataset}sketch/train/image0001/{step}.png": 200 + step for step in (1, 2, 3, 10, 11)
    } | {
        f"{dataset}sketch/train/sketch_2/step_1.png": 20,
        f"{dataset}sketch/test/0003/001.png": 30,
        f"{dataset}sketch/test/0003/002.png": 31,
    }  # fmt: skip


@pytest.mark.parametrize("dataset", ["dataset1/", ""])
def test_the_published_folders_give_episodes_in_the_order_of_their_numbers(tmp_path: Path, dataset: str) -> None:
    sketches, fs2k = write(tmp_path / "sde", published(dataset)), write(tmp_path / "fs2k", FS2K)
    data = read_fs2k_sde(sketches, 1, fs2k, None)
    assert data.source.name == "fs2k_sde1"
    assert photo_names(data, "train") == ["photo/photo1/image0001.jpg", "photo/photo1/image0002.jpg"]
    assert photo_names(data, "test") == ["photo/photo1/image0003.jpg"]
    steps = [f"{dataset}sketch/train/image0001/{step}.png" for step in (1, 2, 3, 10, 11)]
    assert sketch_names(data, "train")[0] == steps
    assert [len(episode.sketches) for episode in data.episodes] == [5, 1, 2]
    read = data.sketches.read(data.episodes[0].sketches)
    assert all((page == picture(200 + step)).all() for page, step in zip(read, (1, 2, 3, 10, 11), strict=True))
    assert (data.photos.read([data.episodes[2].photo])[0] == picture(3)).all()
    assert "validation" not in data.splits
    assert data.captions == []
    assert any("no captions" in note for note in data.source.notes)


def test_the_second_part_belongs_to_the_photos_of_the_third_folder(tmp_path: Path) -> None:
    files = published("dataset1/") | {
        "dataset2/sketch/train/image0001/1.png": 5, "dataset2/sketch/test/image0002/1.png": 6,
    }  # fmt: skip
    fs2k = write(
        tmp_path / "photo", {"photo3/image0001.jpg": 101, "photo3/image0002.png": 102, "photo1/image0001.jpg": 1}
    )
    data = read_fs2k_sde(write(tmp_path / "sde", files), 2, fs2k, described)
    assert data.source.name == "fs2k_sde2"
    assert photo_names(data, "train") == ["photo3/image0001.jpg"]
    assert photo_names(data, "test") == ["photo3/image0002.png"]
    assert data.captions == ["tone 101", "tone 102"]


def test_what_is_absent_or_broken_is_left_out_and_counted(tmp_path: Path) -> None:
    files = published() | {
        "dataset1/sketch/train/image0099/1.png": 1,  # no such photo
        "dataset1/sketch/train/without/1.png": 1,
        "dataset1/sketch/test/image0004/readme.txt": b"no picture",
        "dataset1/sketch/test/image0005/1.png": 50,  # its photo is damaged
        "dataset1/sketch/test/image0006/1.png": 60,
        "dataset1/sketch/test/image0006/whole.png": 61,
    }  # fmt: skip
    fs2k = write(tmp_path / "fs2k", FS2K | {"photo/photo1/image0005.jpg": b"damaged"})
    asked: list[str] = []

    def describe(image: np.ndarray) -> str:
        asked.append(described(image))
        return asked[-1]

    data = read_fs2k_sde(write(tmp_path / "sde", files), 1, fs2k, describe)
    assert data.source.excluded == {
        "no sketches": 1, "photo absent": 2, "photo does not decode": 1, "sketch without number": 1,
    }  # fmt: skip
    assert photo_names(data, "test") == ["photo/photo1/image0003.jpg", "photo/photo1/image0006.jpg"]
    assert data.captions == asked == ["tone 1", "tone 2", "tone 3", "tone 6"], (
        "only photos with sketches are described, each once"
    )


def test_captions_of_the_file_go_before_those_that_are_written_and_count_without_them(tmp_path: Path) -> None:
    captions = {"image0001.jpg": "A man.", "photo/photo1/image0003.jpg": ["", "A woman."], "image0007.jpg": "nobody"}
    sketches = write(tmp_path / "sde", published() | {"dataset1/captions.json": captions})
    fs2k = write(tmp_path / "fs2k", FS2K)
    alone = read_fs2k_sde(sketches, 1, fs2k, None)
    assert alone.captions == ["A man.", "A woman."]
    assert alone.source.excluded == {"no caption": 1}
    filled = read_fs2k_sde(sketches, 1, fs2k, described)
    assert filled.captions == ["A man.", "tone 2", "A woman."]
    assert filled.source.excluded == {}
    assert any("2 from the data set's files, 1 written" in note for note in filled.source.notes)
    assert filled.source.version != alone.source.version


def entry(photo: str, sketches: list[str], caption: Any = "A face.") -> dict[str, Any]:
    return {"photo_id": 7, "photo": photo, "sketch_sde": sketches, "caption": caption}


def annotated() -> dict[str, Any]:
    return {f"drawn/{n}/{step}.png": 10 * n + step for n in (1, 2, 3) for step in (1, 2, 3)} | {
        "fs2ksde_train_v2.json": [
            entry("photo/photo1/image0001.jpg", ["drawn/1/3.png", "./drawn/1/1.png"], ["First.", "Second."]),
            entry("/data/fs2k/photo/photo1/image0002.jpg", ["drawn/2/1.png", "drawn/2/9.png"]),
            entry("photo/photo1/image0099.jpg", ["drawn/1/1.png"]),
            entry("photo/photo1/image0003.jpg", ["drawn/9/1.png"]),
            {"photo": "photo/photo1/image0003.jpg"},
            "nothing",
        ],
        "fs2ksde_train.json": [],
        "fs2ksde_test.json": [
            entry("beside.png", ["drawn/3/2.png"], "Beside."),
            entry("beside.png", ["drawn/3/3.png"]),
        ],
        "beside.png": 77,
    }


def test_annotation_files_are_used_where_they_are(tmp_path: Path) -> None:
    sketches = write(tmp_path / "sde", published() | annotated())
    data = read_fs2k_sde(sketches, 1, write(tmp_path / "fs2k", FS2K), None)
    assert photo_names(data, "train") == ["photo/photo1/image0001.jpg", "photo/photo1/image0002.jpg"]
    assert photo_names(data, "test") == ["beside.png", "beside.png"]
    assert len(data.photos.names) == 3, "two drawings of one photo share it"
    assert sketch_names(data, "train") == [["drawn/1/3.png", "drawn/1/1.png"], ["drawn/2/1.png"]]
    assert data.captions == ["First.", "A face.", "Beside."]
    assert data.source.excluded == {"malformed entry": 2, "no sketches": 1, "photo absent": 1, "sketch absent": 2}
    assert (data.photos.read([data.episodes[2].photo])[0] == picture(77)).all()


def test_the_version_differs_where_the_order_of_drawing_does(tmp_path: Path) -> None:
    fs2k = write(tmp_path / "fs2k", FS2K)
    versions = set()
    for number in range(3):
        files = annotated()
        if number == 1:
            files["fs2ksde_train_v2.json"][0]["sketch_sde"].reverse()
        sketches = write(tmp_path / f"sde{number}", files)
        versions.add(read_fs2k_sde(sketches, 1, fs2k, None).source.version)
    assert len(versions) == 2


def test_errors_name_the_folder_and_the_file(tmp_path: Path) -> None:
    fs2k = write(tmp_path / "fs2k", FS2K)

    def words_of(files: dict[str, Any], photos: Store = fs2k, number: int = 1) -> str:
        folder = tmp_path / str(len(list(tmp_path.iterdir())))
        with pytest.raises(BenchmarkDataError) as error:
            read_fs2k_sde(write(folder, files), number, photos, None)
        assert "\n" not in str(error.value)
        return str(error.value)

    assert words_of({"fs2ksde_train_v2.json": []}).startswith("fs2k_sde: ")
    assert "fs2ksde_test_v2.json is missing" in words_of({"fs2ksde_train_v2.json": []})
    assert "expected a list" in words_of({"fs2ksde_train.json": {}, "fs2ksde_test.json": []})
    assert "no JSON" in words_of({"fs2ksde_train.json": b"[", "fs2ksde_test.json": []})
    assert "captions.json: expected an object" in words_of(published() | {"captions.json": []})
    assert "dataset2/sketch" in words_of(published(), number=2)
    assert words_of(published(), write(tmp_path / "other", {"a.jpg": 1})).startswith("fs2k: ")
    only_train = {name: content for name, content in published().items() if "/train/" in name}
    assert "test split has no episodes" in words_of(only_train | {"dataset1/sketch/test/image0099/1.png": 1})
    assert "1 photo absent" in words_of(only_train | {"dataset1/sketch/test/image0099/1.png": 1})


def test_a_bucket_is_read_like_a_folder(tmp_path: Path, s3_server: dict[str, str]) -> None:
    here = [write(tmp_path / "sde", published()), write(tmp_path / "fs2k", FS2K)]
    there = [Store(f"s3://data/{Path(store.root).name}", s3_options(s3_server)) for store in here]
    for local, remote in zip(here, there, strict=True):
        for key in local.keys():  # noqa: SIM118
            remote.write_bytes(key, local.read_bytes(key))
    datas = [read_fs2k_sde(a, 1, b, described) for a, b in (here, there)]
    assert datas[0].source == datas[1].source
    assert datas[0].captions == datas[1].captions == ["tone 1", "tone 2", "tone 3"]
    pages = [data.sketches.read(data.episodes[0].sketches) for data in datas]
    assert all((a == b).all() for a, b in zip(*pages, strict=True))


# -- User-SDE --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("place", ["", "sketch/", "test/", "sketch/test/", "list"])
def test_user_sketches_are_the_test_split_behind_the_training_split_of_fs2k_sde(tmp_path: Path, place: str) -> None:
    fs2k = write(tmp_path / "fs2k", FS2K)
    trained_on = read_fs2k_sde(write(tmp_path / "sde", published()), 1, fs2k, described)
    files: dict[str, Any] = {f"{place}painter_4/{step}.png": 40 + step for step in (1, 2, 12)} | {"notes.txt": b"x"}
    if place == "list":
        keys = [f"listpainter_4/{step}.png" for step in (1, 2, 12)]
        files["user_sde.json"] = [entry("photo/photo1/image0004.jpg", keys, "A painted face.")]
    user = write(tmp_path / "user", files)
    data = read_user_sde(user, trained_on, fs2k, described)
    assert data.source.name == "user_sde"
    assert photo_names(data, "train") == photo_names(trained_on, "train")
    assert sketch_names(data, "train") == sketch_names(trained_on, "train")
    assert photo_names(data, "test") == ["photo/photo1/image0004.jpg"]
    (test,) = data.splits["test"]
    pages = data.sketches.read(data.episodes[test].sketches)
    assert all((page == picture(40 + step)).all() for page, step in zip(pages, (1, 2, 12), strict=True))
    assert (data.photos.read([data.episodes[test].photo])[0] == picture(4)).all()
    texts = [data.captions[episode.photo] for episode in data.episodes]
    assert texts == ["tone 1", "tone 2", "A painted face." if place == "list" else "tone 4"]
    silent = read_user_sde(user, trained_on, fs2k, None)
    assert bool(silent.captions) == (place == "list")


def test_user_sketches_without_episodes_are_an_error(tmp_path: Path) -> None:
    fs2k = write(tmp_path / "fs2k", FS2K)
    trained_on = read_fs2k_sde(write(tmp_path / "sde", published()), 1, fs2k, None)
    for files, words in (({"readme.txt": b"x"}, "has no episodes"), ({"p_98/1.png": 1}, "1 photo absent")):
        with pytest.raises(BenchmarkDataError, match=f"user_sde: .*{words}"):
            read_user_sde(write(tmp_path / words, files), trained_on, fs2k, None)


# -- any folder of photos --------------------------------------------------------------------------------------------


def some_photos(count: int) -> dict[str, Any]:
    return {f"album/{n:03d}.png": n for n in range(count)}


def test_photos_become_episodes_with_their_own_edges(tmp_path: Path) -> None:
    files = some_photos(20) | {
        "flat.png": png(np.full((30, 30, 3), 90, np.uint8)), "broken.jpg": b"none", "notes.txt": b"x",
    }  # fmt: skip
    store = write(tmp_path, files)
    data = photo_episodes(store, described, steps=5)
    assert {split: len(rows) for split, rows in data.splits.items()} == {"train": 14, "validation": 2, "test": 4}
    assert data.source.excluded == {"photo does not decode": 1, "photo without edges": 1}
    for row in (0, 7, 19):
        episode = data.episodes[row]
        photo = data.photos.read([episode.photo])[0]
        assert photo is not None
        assert data.captions[episode.photo] == described(photo)
        pages = data.sketches.read(episode.sketches)
        expected = photo_sketches(photo, 5)
        assert all((page == wanted[:, :, None]).all() for page, wanted in zip(pages, expected, strict=True))
        assert all(page is not None and page.shape == (256, 256, 3) for page in pages)


def test_sketches_do_not_depend_on_the_order_in_which_they_are_read(tmp_path: Path) -> None:
    sketches = photo_episodes(write(tmp_path, some_photos(4)), None, steps=5).sketches
    together = sketches.read(range(20))
    for rows in ([13, 2, 13, 0, 19], [7], [], list(range(19, -1, -3))):
        found = sketches.read(rows)
        assert [page.tobytes() for page in found if page is not None] == [
            page.tobytes() for page in (together[row] for row in rows) if page is not None
        ]
        assert len(found) == len(rows)


@pytest.mark.slow
def test_the_split_follows_from_names_and_seed_and_not_from_captions(tmp_path: Path) -> None:
    store = write(tmp_path, some_photos(12))
    first, again = photo_episodes(store, None, steps=2), photo_episodes(store, described, steps=2)
    assert photo_names(first, "test") == photo_names(again, "test")
    assert first.captions == []
    assert first.source.version != again.source.version
    other = photo_episodes(store, None, steps=2, seed=1)
    assert photo_names(other, "test") != photo_names(first, "test")
    assert other.source.version != first.source.version
    assert photo_episodes(store, None, steps=3).sketches.version != first.sketches.version


def test_a_photo_that_is_gone_has_no_sketches(tmp_path: Path) -> None:
    data = photo_episodes(write(tmp_path, some_photos(3)), None, steps=2)
    (tmp_path / "album/001.png").unlink()
    assert [page is None for page in data.sketches.read(range(6))] == [False, False, True, True, False, False]


def test_too_few_photos_are_an_error_that_says_how_many_are_needed(tmp_path: Path) -> None:
    three = photo_episodes(write(tmp_path / "three", some_photos(3)), None)
    assert {split: len(rows) for split, rows in three.splits.items()} == {"train": 1, "validation": 1, "test": 1}
    two = write(tmp_path / "two", some_photos(2) | {"bad.png": b"x"})
    with pytest.raises(
        BenchmarkDataError, match=r"photos: 2 of the 3 photos .* 3 or more are needed .*1 photo does not"
    ):
        photo_episodes(two, None)
    with pytest.raises(BenchmarkDataError, match=r"photos: 0 of the 3 photos .*3 no caption"):
        photo_episodes(Store(str(tmp_path / "three")), lambda _: " ")
    with pytest.raises(ValueError, match="steps is 0"):
        photo_episodes(two, None, steps=0)
