"""Held-out recall against a slow count, chance against drawing lots, equal captions as one another's."""

from __future__ import annotations

import json
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from examples import examples
from facecaption_ml.flip.pairs.loader import PairBatch
from facecaption_ml.flip.pairs.reader import caption_id
from facecaption_ml.flip.training.evaluation import KS, encode_pairs, held_out_recall


def unit_rows(rows: np.ndarray) -> np.ndarray:
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def slow_recall(queries: np.ndarray, gallery: np.ndarray, ids: list[int], k: int) -> float:
    """Query by query: found where fewer than k others are at least as similar as the best of its own."""
    found = 0
    for query in range(len(ids)):
        similar = [float(np.float32(queries[query].astype(float) @ item.astype(float))) for item in gallery]
        best = max(similar[item] for item in range(len(ids)) if ids[item] == ids[query])
        rivals = sum(similar[item] >= best for item in range(len(ids)) if ids[item] != ids[query])
        found += rivals < k
    return found / len(ids)


@given(st.integers(1, 25), st.integers(1, 8), st.integers(0, 1000))
@examples(60)
def test_recall_is_that_of_a_slow_count(pairs: int, captions: int, seed: int) -> None:
    draw = np.random.default_rng(seed)
    ids = [caption_id(f"caption {number}") for number in draw.integers(0, captions, pairs)]
    images, texts = (unit_rows(draw.normal(size=(pairs, 3)).round(1) + 0.01) for _ in range(2))
    found = held_out_recall(images, texts, ids)
    assert found.pairs == pairs
    for at, k in enumerate(KS):
        assert found.image_to_text[at] == pytest.approx(slow_recall(images, texts, ids, min(k, pairs)))
        assert found.text_to_image[at] == pytest.approx(slow_recall(texts, images, ids, min(k, pairs)))


@pytest.mark.slow
@pytest.mark.parametrize("sizes", [[1] * 30, [1, 2, 3, 5, 9], [20], [10, 1]], ids=str)
def test_chance_is_what_random_features_reach(sizes: list[int]) -> None:
    ids = np.repeat(np.arange(len(sizes)), sizes)
    draw = np.random.default_rng(1)
    recalls = []
    for _ in range(600):
        images, texts = (unit_rows(draw.normal(size=(len(ids), 8))) for _ in range(2))
        found = held_out_recall(images, texts, ids)
        recalls.append(found.image_to_text)
    np.testing.assert_allclose(np.mean(recalls, axis=0), found.chance, atol=0.02)


def test_chance_of_distinct_captions_is_k_of_n() -> None:
    features = unit_rows(np.random.default_rng(0).normal(size=(200, 16)))
    found = held_out_recall(features, features, np.arange(200))
    assert found.chance == pytest.approx((1 / 200, 5 / 200, 10 / 200))
    assert found.image_to_text == found.text_to_image == (1.0, 1.0, 1.0)
    assert found.reciprocal_rank == 1.0


def test_equal_captions_count_as_one_anothers() -> None:
    """Four pictures, two captions: every text is like the other picture of its caption."""
    images = np.eye(4, dtype=np.float32)
    swapped = images[[1, 0, 3, 2]]
    assert held_out_recall(images, swapped, [7, 7, 9, 9]).image_to_text[0] == 1.0
    assert held_out_recall(images, swapped, [1, 2, 3, 4]).image_to_text[0] == 0.0


def test_a_model_that_says_the_same_of_all_is_no_better_than_the_last_rank() -> None:
    same = np.ones((30, 4), np.float32) / 2
    found = held_out_recall(same, same, np.arange(30))
    assert found.image_to_text == found.text_to_image == (0.0, 0.0, 0.0)


def test_what_it_says_and_logs() -> None:
    images = np.eye(4, dtype=np.float32)
    found = held_out_recall(images, images[[0, 1, 3, 2]], np.arange(4))
    assert str(found).startswith("4 held-out pairs: R@1/5/10 image→text 50.0/100.0/100.0, text→image 50.0/100.0/100.0")
    assert "chance 25.0/100.0/100.0" in str(found)
    values = found.values()
    assert values["image_to_text_r1"] == values["text_to_image_r1"] == 0.5
    assert values["chance_r5"] == 1.0
    assert found.reciprocal_rank == pytest.approx(5 / 8)  # of ranks 1, 1, 4, 4: ties count against it
    assert values["reciprocal_rank"] == found.reciprocal_rank
    assert "mean reciprocal rank 0.625" in str(found)
    assert json.loads(json.dumps(found.as_dict()))["ks"] == [1, 5, 10]


def test_no_pairs_and_broken_features_are_refused() -> None:
    with pytest.raises(ValueError, match="empty"):
        held_out_recall(np.zeros((0, 4), np.float32), np.zeros((0, 4), np.float32), [])
    broken = np.eye(3, dtype=np.float32)
    broken[1, 1] = np.nan
    with pytest.raises(ValueError, match="row 1"):
        held_out_recall(broken, np.eye(3, dtype=np.float32), np.arange(3))


class ColourModel(torch.nn.Module):
    """Stands for FLIP: the feature of a picture is its mean colour, that of a text its tokens' numbers."""

    class preset:  # noqa: N801
        projection = 3

    def __init__(self) -> None:
        super().__init__()
        self.sizes: list[int] = []

    def image_tokens(self, images: torch.Tensor) -> torch.Tensor:
        assert not self.training
        self.sizes.append(len(images))
        return images.float().mean((2, 3))

    def image_features(self, tokens: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.normalize(tokens, dim=1)

    def text_tokens(self, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        return ids.float() * mask

    text_features = image_features


class ColourTokenizer:
    """Texts are three numbers."""

    ids: torch.Tensor
    mask: torch.Tensor

    def __call__(self, texts: list[str]) -> ColourTokenizer:
        found = ColourTokenizer()
        found.ids = torch.tensor([[int(word) for word in text.split()] for text in texts])
        found.mask = torch.ones_like(found.ids)
        return found

    def to(self, device: torch.device) -> ColourTokenizer:
        return self


@pytest.mark.parametrize("size", [1, 7, 100])
def test_pairs_are_encoded_whatever_the_size_of_their_batches(size: int) -> None:
    colours = np.random.default_rng(0).integers(1, 255, (150, 3))

    def batches() -> Iterator[PairBatch]:
        for start in range(0, 150, size):
            part = colours[start : start + size]
            images = torch.from_numpy(part.astype(np.uint8))[:, :, None, None].expand(-1, 3, 4, 4)
            texts = [" ".join(map(str, rgb)) for rgb in part]
            yield PairBatch(images, texts, texts, torch.arange(start, start + len(part)))

    model = ColourModel().train()
    images, texts, ids = encode_pairs(model, ColourTokenizer(), batches(), torch.device("cpu"), torch.float32)  # type: ignore[arg-type]
    np.testing.assert_allclose(images, unit_rows(colours), atol=1e-6)
    np.testing.assert_allclose(texts, unit_rows(colours), atol=1e-6)
    np.testing.assert_array_equal(ids, np.arange(150))
    assert images.dtype == texts.dtype == np.float32
    assert model.training, "as it was before"
    assert max(model.sizes) >= 64, "not one by one"


def test_no_batches_give_no_features() -> None:
    images, texts, ids = encode_pairs(ColourModel(), ColourTokenizer(), [], torch.device("cpu"), torch.float32)  # type: ignore[arg-type]
    assert images.shape == texts.shape == (0, 3)
    assert ids.shape == (0,)
