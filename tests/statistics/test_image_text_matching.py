"""BLIP's matching head against the model's own forward pass, and matching scores of whole data sets."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from examples import examples
from facecaption_ml.decoding import encode_jpeg
from facecaption_ml.pretrained import WeightsNotReachable
from facecaption_ml.sample.portraits import draw_portrait
from facecaption_ml.statistics.blip import BlipMatcher
from facecaption_ml.statistics.matching import (
    MATCHING_SCHEMA,
    SOURCES,
    MatchingSummary,
    SourceScores,
    matching_figure,
    matching_sample,
    matching_table,
    other_texts,
)
from tiny_checkpoints import save_blip

WORDS = [
    "a",
    "woman",
    "man",
    "smiling",
    "young",
    "old",
    "with",
    "hat",
    "blond",
    "glasses",
    "and",
    "photo",
    "of",
    "news",
]
IMAGE = pl.Struct({"bytes": pl.Binary, "path": pl.String})
FACES: dict[str, Any] = {"face_id": pl.String, "image": IMAGE, **dict.fromkeys(SOURCES, pl.String)}


@pytest.fixture(scope="module")
def blip_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_blip(tmp_path_factory.mktemp("blip"), WORDS)


def portraits(count: int) -> list[np.ndarray]:
    labels = ({"Male", "Black_Hair"}, {"Blond_Hair", "Smiling"}, {"Eyeglasses", "Wearing_Hat"})
    return [draw_portrait(labels[k % 3], k, 72).image for k in range(count)]


def test_blip_matches_as_its_own_forward_pass_says(blip_folder: Path) -> None:
    import torch
    from transformers import AutoProcessor, BlipForImageTextRetrieval

    pictures = portraits(4)
    images = [pictures[k] for k in (0, 0, 1, 2, 0, 3, 3)]
    texts = ["a woman", "old man with glasses and hat", "photo of a man", "news", "smiling", "a hat", "a " * 200]
    found = BlipMatcher.load(blip_folder, batch_size=3).match(images, texts)
    assert found.shape == (7,)
    assert found.dtype == np.float32

    model = BlipForImageTextRetrieval.from_pretrained(blip_folder).double().eval()
    processor = AutoProcessor.from_pretrained(blip_folder)
    for image, text, chance in zip(images, texts, found, strict=True):
        tokens = processor.tokenizer(text, truncation=True, max_length=24, return_tensors="pt")
        pixels = processor.image_processor(images=image, return_tensors="pt")["pixel_values"].double()
        with torch.no_grad():
            no, yes = model(tokens["input_ids"], pixels, attention_mask=tokens["attention_mask"]).itm_score[0].tolist()
        assert chance == pytest.approx(1 / (1 + math.exp(no - yes)), abs=1e-4)
    same_text = BlipMatcher.load(blip_folder).match(pictures, ["a man with glasses"] * 4)
    assert np.ptp(found[[0, 1, 4]]) > 0.01, "texts must tell"
    assert np.ptp(same_text) > 0.01, "pictures must tell"


def test_blip_takes_bytes_and_nothing_and_refuses_unequal_lists(blip_folder: Path) -> None:
    matcher = BlipMatcher.load(blip_folder)
    picture = encode_jpeg(portraits(1)[0])
    assert matcher.match([picture], ["a man"]).shape == (1,)
    assert matcher.match([], []).shape == (0,)
    with pytest.raises(ValueError, match="texts: 1 for 2 images"):
        matcher.match([picture, picture], ["a man"])


def test_a_checkpoint_without_a_matching_head_is_refused(blip_folder: Path, tmp_path: Path) -> None:
    from safetensors.numpy import load_file, save_file

    for file in blip_folder.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    weights = load_file(blip_folder / "model.safetensors")
    save_file(
        {k: v for k, v in weights.items() if "itm_head" not in k}, tmp_path / "model.safetensors", {"format": "pt"}
    )
    with pytest.raises(WeightsNotReachable, match=r"^no weights from .*no weight 'itm_head") as caught:
        BlipMatcher.load(tmp_path)
    assert "\n" not in str(caught.value)
    with pytest.raises(WeightsNotReachable, match=r"^no weights from .*Salesforce/blip-itm-base-coco"):
        BlipMatcher.load(tmp_path / "nowhere")


class Brightness:
    """A matcher whose truth is plain: texts "bright" and "dark" match pictures by their mean."""

    def __init__(self) -> None:
        self.calls = 0

    def match(self, images: Sequence[np.ndarray], texts: Sequence[str]) -> np.ndarray:
        self.calls += 1
        bright = np.array([image.mean() / 255 for image in images])
        return np.where(["bright" in text for text in texts], bright, 1 - bright).astype(np.float32)


def grey_faces(count: int) -> pl.DataFrame:
    """Faces of even numbers are bright, of odd ones dark; captions say so, alternative texts never mention it."""
    rows = []
    for k in range(count):
        level = 230 - k if k % 2 == 0 else 20 + k
        said = "bright" if k % 2 == 0 else "dark"
        data = encode_jpeg(np.full((40, 40, 3), level, np.uint8))
        image = {"bytes": data, "path": None}
        rows.append((f"p{k:03d}_0", image, f"A {said} face, {k}.", f"{said} {k}", None if k % 4 == 0 else f"photo {k}"))
    return pl.DataFrame(rows, schema=FACES, orient="row")


def test_captions_that_fit_separate_from_those_of_others_and_noise_does_not() -> None:
    summary, seen = MatchingSummary(), list[tuple[int, int]]()
    summary.add(grey_faces(40), Brightness(), on_progress=lambda done, total: seen.append((done, total)))
    assert seen == [(16, 40), (32, 40), (40, 40)]
    assert summary.sampled == 40
    table = matching_table(summary)
    assert dict(table.schema) == MATCHING_SCHEMA
    rows = {row["source"]: row for row in table.rows(named=True)}
    assert list(rows) == list(SOURCES)
    for row in rows.values():
        assert row["scored"] + row["no_text"] + row["unreadable"] == row["faces"] == 40
    for source in ("caption", "template_caption"):
        assert rows[source]["scored"] == rows[source]["mismatched"] == 40
        assert rows[source]["mean"] > 0.8
        assert rows[source]["auc"] > 0.7
    assert rows["alt_text"]["no_text"] == 10
    assert rows["alt_text"]["auc"] == pytest.approx(0.5, abs=0.05)


def test_scores_near_one_still_separate() -> None:
    class Sure:
        def match(self, images: Sequence[np.ndarray], texts: Sequence[str]) -> np.ndarray:
            return np.where(["right" in text for text in texts], 0.99999, 0.9999).astype(np.float32)

    faces = grey_faces(12).with_columns(
        caption=pl.Series([f"{'right' if k % 2 else 'wrong'} {k // 2}" for k in range(12)])
    )
    summary = MatchingSummary({"caption": SourceScores()})
    summary.add(faces, Sure())
    scores = summary.sources["caption"]
    assert scores.own.probabilities.counts.max() == 12, "in one bin as probabilities"
    assert (scores.own.log_odds.counts > 0).sum() == 2


def test_unreadable_crops_and_missing_texts_are_counted() -> None:
    faces = grey_faces(6).with_columns(
        image=pl.Series([{"bytes": b"<html>", "path": None}, {"bytes": None, "path": None}, None, *grey_faces(3)["image"]],
                        dtype=IMAGE),
        caption=pl.Series(["a", "b", "c", "", "  \n", "bright"]),
    )  # fmt: skip
    summary = MatchingSummary()
    summary.add(faces, Brightness())
    row = matching_table(summary).row(0, named=True)
    assert (row["faces"], row["scored"], row["no_text"], row["unreadable"]) == (6, 1, 2, 3)


def test_an_empty_shard_and_no_shard_give_empty_rows() -> None:
    matcher = Brightness()
    summary = MatchingSummary()
    summary.add(pl.DataFrame(schema=FACES), matcher)
    table = matching_table(summary)
    assert dict(table.schema) == MATCHING_SCHEMA
    assert matcher.calls == 0
    for row in table.rows(named=True):
        assert row["faces"] == 0
        assert {row[name] for name in ("mean", "median", "mismatched_mean", "auc")} == {None}
    assert len(matching_figure(summary).axes) == 2


def test_one_face_has_no_other_to_be_confused_with() -> None:
    summary = MatchingSummary()
    summary.add(grey_faces(1), Brightness())
    row = matching_table(summary).row(0, named=True)
    assert (row["scored"], row["mismatched"], row["auc"]) == (1, 0, None)


def test_a_matcher_that_gives_no_probabilities_is_refused() -> None:
    class Cosine:
        def match(self, images: Sequence[np.ndarray], texts: Sequence[str]) -> np.ndarray:
            return np.full(len(texts), -0.2, np.float32)

    with pytest.raises(ValueError, match="matcher: Cosine gave no probability"):
        MatchingSummary().add(grey_faces(2), Cosine())


@examples(80)
@given(
    st.lists(st.tuples(st.integers(0, 8), st.sampled_from(["red", "green", "blue", None])), max_size=25, unique=True),
    st.integers(0, 5),
)
def test_another_text_is_of_another_picture_and_reads_differently(faces: list[tuple[int, Any]], seed: int) -> None:
    ids = [f"{sample}_{k}" for k, (sample, _) in enumerate(faces)]
    samples, texts = [sample for sample, _ in faces], [text for _, text in faces]
    found = other_texts(ids, texts, seed)
    for at, text in enumerate(found):
        suitable = {
            texts[k]
            for k in range(len(texts))
            if texts[at] is not None and texts[k] not in (None, texts[at]) and samples[k] != samples[at]
        }
        assert text in suitable if suitable else text is None
    order = np.random.default_rng(seed).permutation(len(ids))
    again = other_texts([ids[k] for k in order], [texts[k] for k in order], seed)
    assert [again[list(order).index(k)] for k in range(len(ids))] == found


def test_others_texts_are_spread_over_the_sample() -> None:
    ids = [f"{k:04d}_0" for k in range(200)]
    found = other_texts(ids, ids, seed=1)
    assert len(set(found)) == 200, "distinct texts are dealt as a derangement"
    assert found != other_texts(ids, ids, seed=2)


def test_the_sample_joins_pairs_with_their_crops() -> None:
    faces = grey_faces(30)
    pairs = [faces.drop("image").slice(start, 7) for start in range(0, 30, 7)]
    crops = [faces.select("face_id", "image").sample(fraction=1, shuffle=True, seed=1).slice(0, 25)]
    sample = matching_sample(pairs, crops, limit=12)
    assert sample.schema == pl.Schema(FACES)
    assert len(sample) == 12
    assert sample["face_id"].to_list() == matching_sample(pairs[::-1], crops, limit=12)["face_id"].to_list()
    for row in sample.rows(named=True):
        truth = faces.filter(pl.col("face_id") == row["face_id"]).row(0, named=True)
        assert row["caption"] == truth["caption"]
        has_crop = row["face_id"] in set(crops[0]["face_id"])
        assert row["image"] == (truth["image"] if has_crop else None)
    assert matching_sample([], [], limit=5).schema == pl.Schema(FACES)
    assert len(matching_sample(pairs, crops, limit=None)) == 30


def test_blip_scores_a_sample_from_end_to_end(blip_folder: Path) -> None:
    faces = grey_faces(4).with_columns(
        image=pl.Series([{"bytes": encode_jpeg(p), "path": None} for p in portraits(4)], dtype=IMAGE),
        caption=pl.Series(["a man", "a smiling woman", "young man with glasses", "old woman with hat"]),
    )
    summary = MatchingSummary()
    summary.add(faces, BlipMatcher.load(blip_folder))
    row = matching_table(summary).row(0, named=True)
    assert (row["scored"], row["mismatched"]) == (4, 4)
    assert 0 < row["mean"] < 1
    from facecaption_ml import figures

    svg = figures.files(matching_figure(summary), "matching")["matching.svg"].decode()
    for text in ("caption (n = 4)", "alt_text (n = 3)", "another face"):
        assert text in svg
