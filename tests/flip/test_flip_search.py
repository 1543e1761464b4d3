"""Search: exact against a full matrix, ties and shards included; faces encoded once; the command as a user meets it."""

from __future__ import annotations

import contextlib
import json
import tracemalloc
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import polars as pl
import pytest
from click.testing import CliRunner, Result
from hypothesis import given
from hypothesis import strategies as st

from facecaption_assets.commands import search as search_command
from facecaption_assets.commands.cli import main
from facecaption_ml.decoding import decode_image, encode_jpeg
from facecaption_ml.flip.use import search
from facecaption_ml.flip.use.face_features import FaceFeatures, ShardEntry
from facecaption_ml.flip.use.search import nearest_faces, shown_faces
from facecaption_ml.schemas import SCHEMAS, empty
from facecaption_ml.storage.store import Store, StoreError

COLOURS = {"red": (230, 20, 20), "green": (20, 230, 20), "blue": (20, 20, 230), "grey": (128, 128, 128)}


class ColourEncoder:
    """Stands for a checkpoint: the feature of a picture is its mean colour, that of a text the colour it names."""

    def __init__(self, version: str = "c0ffee", fail_after: int | None = None) -> None:
        self.version, self.fail_after, self.encoded = version, fail_after, 0

    def encode_images(self, images: Sequence[np.ndarray]) -> npt.NDArray[np.float32]:
        self.encoded += len(images)
        if self.fail_after is not None and self.encoded > self.fail_after:
            raise KeyboardInterrupt
        return unit_rows([image.mean((0, 1)) for image in images])

    def encode_texts(self, texts: Sequence[str]) -> npt.NDArray[np.float32]:
        return unit_rows([next(rgb for name, rgb in COLOURS.items() if name in text) for text in texts])


def unit_rows(rows: Sequence[npt.ArrayLike]) -> npt.NDArray[np.float32]:
    matrix = np.asarray(rows, np.float32)
    return matrix / np.linalg.norm(matrix, axis=1, keepdims=True)


def write_crops(store: Store, shard: str, colours: dict[str, str], shift: float = 0.0) -> None:
    """A shard of ``face_crops``: 20×20 pictures of one colour each; ``shift`` moves the boxes. ``broken`` is no picture."""
    rows = [
        {
            "face_id": face_id,
            "sample_id": face_id.partition("_")[0],
            "url": "http://a.test/1.jpg",
            "alt_text": None,
            "image": {"bytes": picture(colour), "path": None},
            "width": 20,
            "height": 20,
            "box": [shift, 0.0, 20.0, 20.0],
            "landmarks": [[1.0, 2.0]] * 5,
            "score": 0.99,
            "roll_degrees": 0.0,
        }
        for face_id, colour in colours.items()
    ]
    store.write_table("face_crops", pl.DataFrame(rows, schema=dict(SCHEMAS["face_crops"]), orient="row"), shard)


def picture(colour: str) -> bytes:
    if colour == "broken":
        return b"\xff\xd8\xff no picture"
    return encode_jpeg(np.full((20, 20, 3), COLOURS[colour], np.uint8))


def write_captions(store: Store, shard: str, captions: dict[str, str]) -> None:
    schema = dict(SCHEMAS["facecaption_dataset"])
    rows = [{**dict.fromkeys(schema), "face_id": face_id, "caption": text} for face_id, text in captions.items()]
    store.write_table("facecaption_dataset", pl.DataFrame(rows, schema=schema), shard)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    store = Store(str(tmp_path / "store"))
    write_crops(store, "shard-00000", {"b_0": "green", "a_0": "red"})
    write_crops(store, "shard-00001", {"d_0": "red", "c_0": "blue"})
    write_captions(store, "shard-00000", {"a_0": "A red face."})
    return store


@pytest.fixture
def features(store: Store) -> FaceFeatures:
    """Those of every crop of the store."""
    features = FaceFeatures(store, "c0ffee")
    features.update(ColourEncoder())
    return features


class FeaturesInMemory:
    """What ``nearest_faces`` asks of stored features, without a store."""

    def __init__(self, shards: dict[str, tuple[list[str], npt.NDArray[np.float16]]]) -> None:
        self._shards = shards

    def shards(self) -> list[str]:
        return sorted(self._shards)

    def entry(self, shard: str) -> ShardEntry:
        return ShardEntry("", self._shards[shard][0], [])

    @contextlib.contextmanager
    def open(self, shard: str) -> Iterator[npt.NDArray[np.float16]]:
        yield self._shards[shard][1]


# -- nearest faces ---------------------------------------------------------------------------------------------------------


@given(st.integers(0, 2**32 - 1), st.integers(1, 12), st.lists(st.integers(0, 9), max_size=5), st.integers(1, 4))
def test_the_nearest_are_those_of_the_full_matrix(seed: int, k: int, sizes: list[int], block: int) -> None:
    draw = np.random.default_rng(seed)
    ids = draw.permutation([f"{i:04d}_0" for i in range(sum(sizes))])
    parts = [sorted(part) for part in np.split(ids, np.cumsum(sizes)[:-1])] if sizes else []
    # few distinct values make ties within and across shards common
    shards = {
        f"shard-{number}": ([str(face_id) for face_id in part], draw.integers(-1, 2, (len(part), 3)).astype(np.float16))
        for number, part in enumerate(parts)
    }
    queries = draw.integers(-2, 3, (3, 3)).astype(np.float32)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(search, "_FACES_AT_ONCE", block)
        patch.setattr(search, "_QUERIES_AT_ONCE", 2)
        found = nearest_faces(FeaturesInMemory(shards), queries, k)  # type: ignore[arg-type]
    for query, faces in zip(queries, found, strict=True):
        everything = [
            (-float(query.astype(np.float64) @ feature.astype(np.float64)), face_id, shard)
            for shard, (part, features) in shards.items()
            for face_id, feature in zip(part, features, strict=True)
        ]
        expected = sorted(everything)[:k]
        assert [(-face.similarity, face.face_id, face.shard) for face in faces] == expected


def test_equal_faces_tie_to_the_last_bit_wherever_they_lie() -> None:
    draw = np.random.default_rng(0)
    feature = unit_rows(draw.standard_normal((1, 256))).astype(np.float16)
    ids = [f"{i:05d}_0" for i in range(9_001)]
    shards = {"one": (ids[1::2], feature.repeat(4_500, 0)), "two": (ids[0::2], feature.repeat(4_501, 0))}
    (found,) = nearest_faces(FeaturesInMemory(shards), unit_rows(draw.standard_normal((1, 256))), 10)  # type: ignore[arg-type]
    assert [face.face_id for face in found] == ids[:10]
    assert len({face.similarity for face in found}) == 1


def test_memory_does_not_grow_with_the_faces() -> None:
    features = unit_rows(np.random.default_rng(0).standard_normal((5_000, 128))).astype(np.float16)
    ids = [f"{i:05d}_0" for i in range(5_000)]
    shards = {f"{number:02d}": (ids, features) for number in range(40)}  # in float32, one matrix: 102 MB
    queries = features[:4].astype(np.float32)
    tracemalloc.start()
    try:
        found = nearest_faces(FeaturesInMemory(shards), queries, 3)  # type: ignore[arg-type]
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert [[face.shard for face in faces] for faces in found] == [["00", "01", "02"]] * 4
    assert peak < 12e6


@pytest.mark.parametrize(
    ("queries", "k", "words"),
    [
        ([[1.0, 0.0, 0.0]], 0, ["k must be 1"]),
        ([[1.0, 0.0]], 3, ["2 dimensions", "shard-00000", "3"]),
        ([[1.0, float("nan"), 0.0]], 3, ["finite"]),
    ],
)
def test_queries_that_do_not_fit_are_named(
    store: Store, features: FaceFeatures, queries: list[list[float]], k: int, words: list[str]
) -> None:
    with pytest.raises(ValueError, match=words[0]) as error:
        nearest_faces(features, queries, k)
    assert all(word in str(error.value) for word in words)


# -- stored features -------------------------------------------------------------------------------------------------------


def test_faces_are_found_by_what_they_look_like(store: Store) -> None:
    encoder, features = ColourEncoder(), FaceFeatures(store, "c0ffee")
    counts = features.update(encoder)
    assert (counts.encoded, counts.kept, counts.searchable) == (4, 0, 4)
    red, blue = nearest_faces(features, encoder.encode_texts(["red", "blue"]), 2)
    assert [(face.face_id, face.shard) for face in red] == [("a_0", "shard-00000"), ("d_0", "shard-00001")]
    assert red[0].similarity == pytest.approx(1.0, abs=2e-3)
    assert blue[0].face_id == "c_0"
    shown = shown_faces(store, [*blue[:1], *red])
    assert [face.caption for face in shown] == [None, "A red face.", None]
    assert all(decode_image(face.image).shape == (20, 20, 3) for face in shown)


def test_what_is_encoded_is_not_encoded_again(store: Store, features: FaceFeatures) -> None:
    again = ColourEncoder()
    assert features.update(again).kept == 4
    assert again.encoded == 0
    write_crops(store, "shard-00002", {"e_0": "grey"})
    counts = features.update(again)
    assert (again.encoded, counts.encoded, counts.kept) == (1, 1, 4)


def test_crops_made_anew_are_encoded_anew(store: Store, features: FaceFeatures) -> None:
    write_crops(store, "shard-00001", {"d_0": "green", "c_0": "blue"}, shift=1.0)
    encoder = ColourEncoder()
    assert features.update(encoder).encoded == encoder.encoded == 2
    (found,) = nearest_faces(features, encoder.encode_texts(["green"]), 2)
    assert [face.face_id for face in found] == ["b_0", "d_0"]


def test_a_shard_without_crops_is_forgotten(store: Store, features: FaceFeatures) -> None:
    store.delete(store.table_key("face_crops", "shard-00000"))
    counts = features.update(ColourEncoder())
    assert (counts.removed_shards, counts.searchable) == (1, 2)
    (found,) = nearest_faces(features, ColourEncoder().encode_texts(["green"]), 9)
    assert {face.face_id for face in found} == {"c_0", "d_0"}
    assert store.keys("face_features/c0ffee/shard-00000") == []


def test_faces_of_a_shard_that_left_the_source_are_not_found(store: Store, features: FaceFeatures) -> None:
    store.write_table("source_manifest", empty("source_manifest"), "shard-00001")
    assert features.update(ColourEncoder()).removed_shards == 1
    (found,) = nearest_faces(features, ColourEncoder().encode_texts(["green"]), 9)
    assert {face.face_id for face in found} == {"c_0", "d_0"}


def test_an_interrupted_update_goes_on_where_it_stopped(store: Store) -> None:
    features = FaceFeatures(store, "c0ffee")
    with pytest.raises(KeyboardInterrupt):
        features.update(ColourEncoder(fail_after=2))
    assert features.shards() == ["shard-00000"]
    rest = ColourEncoder()
    counts = features.update(rest)
    assert (rest.encoded, counts.kept, counts.searchable) == (2, 2, 4)


def test_each_checkpoint_has_features_of_its_own(store: Store) -> None:
    FaceFeatures(store, "c0ffee").update(ColourEncoder())
    other = ColourEncoder("decaf")
    assert FaceFeatures(store, "decaf").update(other).encoded == 4
    assert FaceFeatures(store, "c0ffee").update(ColourEncoder()).kept == 4
    with pytest.raises(ValueError, match=r"c0ffee .* decaf"):
        FaceFeatures(store, "c0ffee").update(other)
    with pytest.raises(ValueError, match="no version"):
        FaceFeatures(store, "")


def test_crops_that_do_not_decode_are_counted_and_left_out(store: Store) -> None:
    write_crops(store, "shard-00002", {"e_0": "broken", "f_0": "grey"})
    write_crops(store, "shard-00003", {"g_0": "broken"})
    features = FaceFeatures(store, "c0ffee")
    told: list[tuple[int, int]] = []
    for encoder in (ColourEncoder(), ColourEncoder()):
        counts = features.update(encoder, lambda done, total: told.append((done, total)))
        assert (counts.unreadable, counts.searchable) == (2, 5)
    assert told[-1] == (7, 7)
    (found,) = nearest_faces(features, encoder.encode_texts(["grey"]), 9)
    assert found[0].face_id == "f_0"
    assert len(found) == 5


def test_features_that_are_not_numbers_name_the_face(store: Store) -> None:
    encoder = ColourEncoder()
    encoder.encode_images = lambda images: np.full((len(images), 3), np.nan, np.float32)  # type: ignore[method-assign]
    with pytest.raises(ValueError, match=r"c0ffee.*b_0"):
        FaceFeatures(store, "c0ffee").update(encoder)


@pytest.mark.parametrize("name", ["shard-00001.npy", "shard-00001.json"])
def test_damaged_features_are_named(store: Store, features: FaceFeatures, name: str) -> None:
    store.write_bytes(f"face_features/c0ffee/{name}", b"{")
    with pytest.raises(StoreError, match=name):
        nearest_faces(features, ColourEncoder().encode_texts(["red"]), 9)


def test_features_on_an_object_store(s3_server: dict[str, str]) -> None:
    options = {
        "aws_endpoint_url": s3_server["endpoint"],
        "aws_access_key_id": s3_server["AWS_ACCESS_KEY_ID"],
        "aws_secret_access_key": s3_server["AWS_SECRET_ACCESS_KEY"],
        "aws_region": s3_server["AWS_REGION"],
    }
    store = Store("s3://data/search", options)
    write_crops(store, "shard-00000", {"b_0": "green", "a_0": "red"})
    features, encoder = FaceFeatures(store, "c0ffee"), ColourEncoder()
    assert [features.update(encoder).encoded for _ in range(2)] == [2, 0]
    (found,) = nearest_faces(features, encoder.encode_texts(["red"]), 1)
    assert [face.found.face_id for face in shown_faces(store, found)] == ["a_0"]


# -- the command -----------------------------------------------------------------------------------------------------------


def facecaption_search(home: Path, *arguments: str) -> Result:
    return CliRunner().invoke(main, ["search", *arguments], env={"FACECAPTION_HOME": str(home)})


@pytest.fixture
def _colour_checkpoint(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(search_command, "load_flip", lambda *_: (ColourEncoder(), "flip"))


@pytest.mark.usefixtures("store", "_colour_checkpoint")
def test_the_command_prints_the_faces_and_draws_them(tmp_path: Path) -> None:
    out = tmp_path / "found.jpg"
    done = facecaption_search(tmp_path, "a red  face", "--top", "3", "--out", str(out))
    assert done.exit_code == 0, done.output
    first, *faces = done.stdout.splitlines()
    assert "'a red face'" in first
    assert "3 nearest of 4 faces" in first
    assert [line.split()[0] for line in faces] == ["1", "2", "3"]
    assert [line.split()[2] for line in faces[:2]] == ["a_0", "d_0"]
    assert faces[0].endswith("A red face.")
    sheet = decode_image(out.read_bytes()).reshape(-1, 3).astype(int)
    assert (np.abs(sheet - COLOURS["red"]).max(1) < 12).sum() > 2 * 200 * 200  # two red faces, scaled up


@pytest.mark.usefixtures("store", "_colour_checkpoint")
def test_the_command_as_json(tmp_path: Path) -> None:
    out = tmp_path / "found.jpg"
    done = facecaption_search(tmp_path, "blue", "--top", "99", "--json", "--out", str(out))
    (line,) = done.stdout.splitlines()
    record = json.loads(line)
    assert {key: record[key] for key in ("text", "variant", "checkpoint", "faces", "sheet")} == {
        "text": "blue",
        "variant": "flip",
        "checkpoint": "c0ffee",
        "faces": 4,
        "sheet": str(out),
    }
    assert [face["rank"] for face in record["nearest"]] == [1, 2, 3, 4]
    assert record["nearest"][0]["face_id"] == "c_0"
    assert record["nearest"][0]["similarity"] > record["nearest"][1]["similarity"]


def assert_one_line(done: Result, *words: str) -> None:
    assert done.exit_code != 0
    assert "Traceback" not in done.stderr
    assert all(word in done.stderr.strip().splitlines()[-1] for word in words), done.stderr


@pytest.mark.usefixtures("store")
def test_mistakes_are_told_in_one_line(tmp_path: Path) -> None:
    out = str(tmp_path / "found.jpg")
    assert_one_line(facecaption_search(tmp_path, "  ", "--out", out), "description is empty")
    assert_one_line(
        facecaption_search(tmp_path, "red", "--variant", "flip", "--out", out),
        "no checkpoint",
        "'flip'",
        "flip_checkpoint",
    )
    assert_one_line(facecaption_search(tmp_path, "red", "--variant", "clip", "--out", out), "clip", "flip_template")
    assert_one_line(facecaption_search(tmp_path, "red", "--top", "0", "--out", out), "--top")
    assert_one_line(facecaption_search(tmp_path, "red", "--out", str(tmp_path / "a" / "b.jpg")), "no folder", "a")
    assert_one_line(facecaption_search(tmp_path, "red", "--out", str(tmp_path / "b.png")), "b.png", ".jpg")


@pytest.mark.usefixtures("_colour_checkpoint")
def test_a_store_without_faces(tmp_path: Path) -> None:
    out = str(tmp_path / "found.jpg")
    assert_one_line(facecaption_search(tmp_path, "red", "--out", out), "no faces", "face_crops")
    write_crops(Store(str(tmp_path / "store")), "shard-00000", {})
    assert_one_line(facecaption_search(tmp_path, "red", "--out", out), "no faces to search")


def test_the_checkpoint_is_looked_for_in_the_store(tmp_path: Path, store: Store) -> None:
    store.write_bytes("flip_checkpoint/flip_template/config.json", b"{}")
    out = str(tmp_path / "found.jpg")
    done = facecaption_search(tmp_path, "red", "--variant", "flip_template", "--out", out)
    assert_one_line(done, "flip_checkpoint/flip_template", "missing")


def test_every_variant_that_is_trained_can_be_searched_with(tmp_path: Path) -> None:
    from facecaption_ml.flip.training.config import TEXT_COLUMNS

    for variant in TEXT_COLUMNS:
        done = facecaption_search(tmp_path, "red", "--variant", variant, "--out", str(tmp_path / "found.jpg"))
        assert_one_line(done, "no checkpoint", repr(variant))
