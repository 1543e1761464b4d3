"""The faces that held-out captions find, by a model whose features are colours."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from facecaption_ml.decoding import as_rgb, encode_jpeg
from facecaption_ml.flip.pairs.index import PairSource
from facecaption_ml.flip.use.retrievals import held_out_retrievals
from facecaption_ml.schemas import SCHEMAS
from facecaption_ml.storage.store import Store

COLOURS = {"red": (220, 20, 20), "green": (20, 220, 20), "blue": (20, 20, 220), "grey": (120, 120, 120)}


class ColourFlip:
    """Finds a picture by the name of its colour."""

    def encode_images(self, images: Sequence[np.ndarray | bytes]) -> np.ndarray:
        return unit(np.array([as_rgb(image).mean((0, 1)) for image in images]).reshape(-1, 3))

    def encode_texts(self, texts: Sequence[str]) -> np.ndarray:
        return unit(np.array([COLOURS[text.split()[-1].lower()] for text in texts]).reshape(-1, 3))


def unit(rows: np.ndarray) -> np.ndarray:
    return (rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-9)).astype(np.float32)


def source(folder: Path, *shards: list[tuple[str, str]], split: str = "test") -> PairSource:
    """``shards`` of (colour of the picture or 'broken', caption)."""
    store = Store(str(folder))
    names = tuple(f"shard-{number:05d}" for number in range(len(shards)))
    for number, (name, pairs) in enumerate(zip(names, shards, strict=True)):
        crops, rows = [], []
        for k, (colour, caption) in enumerate(pairs):
            picture = encode_jpeg(np.full((16, 16, 3), COLOURS[colour], np.uint8)) if colour in COLOURS else b"no"
            face_id = f"{number}{k:03d}_0"
            crops.append({"face_id": face_id, "image": {"bytes": picture, "path": None}})
            rows.append({"face_id": face_id, "caption": caption, "split": split})
        for table, content in (("face_crops", crops), ("facecaption_dataset", rows)):
            blank = dict.fromkeys(SCHEMAS[table])
            store.write_table(table, pl.DataFrame([{**blank, **row} for row in content], dict(SCHEMAS[table])), name)
    return PairSource(store, names, "caption", "test")


def test_captions_find_their_faces(tmp_path: Path) -> None:
    pairs = source(
        tmp_path, [("red", "A face of red"), ("green", "A face of green")], [("blue", "Blue"), ("grey", "Grey")]
    )
    found = held_out_retrievals(ColourFlip(), pairs, nearest=3)
    assert found.searched == 4
    assert {row.caption for row in found.shown} == {"A face of red", "A face of green", "Blue", "Grey"}
    for row in found.shown:
        assert row.rank == 1
        assert row.nearest[0] == row.own
        assert [face.own for face in row.nearest] == [True, False, False]
        similarities = [face.similarity for face in row.nearest]
        assert similarities == sorted(similarities, reverse=True)


def test_a_caption_whose_face_is_another_colour_has_a_low_rank(tmp_path: Path) -> None:
    pairs = source(tmp_path, [("green", "Red"), ("red", "Blue"), ("blue", "Green")])
    for row in held_out_retrievals(ColourFlip(), pairs, nearest=1).shown:
        assert row.rank > 1
        assert not row.nearest[0].own


def test_equal_captions_are_asked_once_and_own_each_others_faces(tmp_path: Path) -> None:
    pairs = source(tmp_path, [("red", "A red"), ("red", "a  RED"), ("green", "Green")])
    shown = held_out_retrievals(ColourFlip(), pairs, nearest=3).shown
    assert sorted(row.caption.split()[-1].lower() for row in shown) == ["green", "red"]
    assert sorted(sum(face.own for face in row.nearest) for row in shown) == [1, 2]


def test_pictures_that_do_not_decode_are_left_out(tmp_path: Path) -> None:
    found = held_out_retrievals(ColourFlip(), source(tmp_path, [("broken", "Red"), ("green", "Green")]))
    assert (found.searched, [row.caption for row in found.shown]) == (1, ["Green"])


@pytest.mark.parametrize("pairs", [1, 40, 70, 200])
def test_no_more_pairs_are_searched_than_asked_for(tmp_path: Path, pairs: int) -> None:
    shard = [("red", "Red"), ("green", "Green")] * 35
    assert held_out_retrievals(ColourFlip(), source(tmp_path, shard, shard), pairs=pairs).searched == min(pairs, 140)


def test_the_seed_draws_the_captions(tmp_path: Path) -> None:
    pairs = source(tmp_path, [(name, f"Number {k} {name}") for k in range(10) for name in COLOURS])
    drawn = [
        [row.caption for row in held_out_retrievals(ColourFlip(), pairs, seed=seed, queries=4).shown]
        for seed in (1, 1, 2)
    ]
    assert drawn[0] == drawn[1] != drawn[2]
    assert [len(captions) for captions in drawn] == [4, 4, 4]


def test_nothing_held_out_shows_nothing(tmp_path: Path) -> None:
    found = held_out_retrievals(ColourFlip(), source(tmp_path, [("red", "Red")], split="train"))
    assert (found.shown, found.searched) == ([], 0)
