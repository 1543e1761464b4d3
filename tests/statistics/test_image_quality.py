"""CLIP-IQA against arithmetic by hand, and quality scores of whole data sets."""

from __future__ import annotations

import math
import os
import random
import time
from pathlib import Path

import numpy as np
import pytest

from facecaption_ml.pretrained import WeightsNotReachable
from facecaption_ml.sample.attribute_sampling import sample_labels
from facecaption_ml.sample.portraits import draw_portrait
from facecaption_ml.statistics.brisque import Brisque
from facecaption_ml.statistics.clip_iqa import ClipIqa, PromptPair, prompt_pairs
from facecaption_ml.statistics.quality import (
    QUALITY_SCHEMA,
    Picture,
    PictureFolderError,
    QualityScorer,
    QualitySummary,
    folder_pictures,
    quality_figure,
    quality_table,
)
from facecaption_ml.statistics.sampling import hashed_sample
from png_files import png
from tiny_checkpoints import save_clip

Rgb = np.ndarray


def portrait(seed: int, size: int = 256) -> Rgb:
    return draw_portrait(sample_labels(seed), seed, size).image


def noise(seed: int) -> Rgb:
    return np.random.default_rng(seed).integers(0, 256, (80, 60, 3)).astype(np.uint8)


@pytest.fixture(scope="module")
def brisque() -> Brisque:
    return Brisque.load()


@pytest.fixture(scope="module")
def clip_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Initial weights are so small that every picture would score alike."""
    return save_clip(tmp_path_factory.mktemp("clip"), spread=8)


def test_clip_iqa_is_the_softmax_of_scaled_cosines(clip_folder: Path) -> None:
    import torch
    from transformers import AutoProcessor, CLIPModel

    pictures = [portrait(0), noise(0), portrait(5, 301), noise(1), portrait(2)]
    found = ClipIqa.load(clip_folder, batch_size=2).score(pictures)
    assert found.shape == (5, len(prompt_pairs()))
    assert found.dtype == np.float32

    model = CLIPModel.from_pretrained(clip_folder).double().eval()
    processor = AutoProcessor.from_pretrained(clip_folder)
    for picture, row in zip(pictures, found, strict=True):
        pixels = processor(images=picture, return_tensors="pt")["pixel_values"].double()
        for pair, score in zip(prompt_pairs(), row, strict=True):
            cosines = []
            for prompt in (pair.better, pair.worse):
                tokens = processor(text=prompt, return_tensors="pt")
                with torch.no_grad():
                    both = model(pixel_values=pixels, **tokens)
                image, text = both.image_embeds[0].numpy(), both.text_embeds[0].numpy()
                cosines.append(float(image @ text / math.sqrt(image @ image) / math.sqrt(text @ text)))
            scale = math.exp(model.logit_scale.item())
            better, worse = (math.exp(scale * (cosine - max(cosines))) for cosine in cosines)
            assert score == pytest.approx(better / (better + worse), abs=1e-4)
    assert np.ptp(found, axis=0).max() > 0.05, "the pictures must not all score alike"


def test_clip_iqa_takes_other_prompts(clip_folder: Path) -> None:
    swapped = [PromptPair("a", "good", "bad"), PromptPair("b", "bad", "good")]
    metric = ClipIqa.load(clip_folder, pairs=swapped)
    assert metric.metrics == ("clip_iqa_a", "clip_iqa_b")
    scores = metric.score([portrait(0), noise(0)])
    np.testing.assert_allclose(scores.sum(1), 1, atol=1e-6)
    assert metric.score([]).shape == (0, 2)


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("", "no model is named"),
        ("/no/such/folder", "no such folder"),
        ("two words", "no such folder"),
        ("nobody-has-this/clip-model", "hub"),
    ],
)
def test_a_wrong_clip_is_one_line(name: str, why: str, caplog: pytest.LogCaptureFixture) -> None:
    start = time.monotonic()
    with pytest.raises(WeightsNotReachable, match=r"^no weights from ") as caught:
        ClipIqa.load(name)
    assert time.monotonic() - start < 20
    assert why in str(caught.value)
    assert "openai/clip-vit-base-patch16" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_clip_without_some_weights_is_refused(clip_folder: Path, tmp_path: Path) -> None:
    from safetensors.numpy import load_file, save_file

    for file in clip_folder.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    weights = load_file(clip_folder / "model.safetensors")
    weights.pop("visual_projection.weight")
    save_file(weights, tmp_path / "model.safetensors", {"format": "pt"})
    with pytest.raises(WeightsNotReachable, match=r"no weight 'visual_projection\.weight'"):
        ClipIqa.load(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"broken")
    with pytest.raises(WeightsNotReachable, match=r"^no weights from "):
        ClipIqa.load(tmp_path)


def test_a_data_set_has_a_row_per_metric(brisque: Brisque, clip_folder: Path) -> None:
    pictures = [portrait(seed, 96) for seed in range(5)]
    good: list[Picture] = [png(picture) for picture in pictures]
    bad: list[Picture] = [b"<html>", png(pictures[0])[:200], None, png(np.zeros((64, 64, 3), np.uint8))]
    scorers: list[QualityScorer] = [brisque, ClipIqa.load(clip_folder)]
    summary = QualitySummary()
    seen: list[tuple[int, int]] = []
    summary.add([*good, *bad], scorers, lambda done, total: seen.append((done, total)), total=9)
    assert seen == [(done, 9) for done in range(1, 10)]
    assert summary.sampled == 9

    table = quality_table({"ours": summary})
    assert dict(table.schema) == QUALITY_SCHEMA
    assert table["metric"].to_list() == ["brisque", *scorers[1].metrics]
    assert (table["images"] == 9).all()
    assert (table["scored"] + table["unreadable"] + table["undefined"] == table["images"]).all()
    assert summary.reasons == {"not_an_image": 1, "undecodable": 1, "unreadable_file": 1}
    row = table.row(0, named=True)
    scores = brisque.score(pictures)[:, 0].astype(float)
    assert (row["scored"], row["unreadable"], row["undefined"], row["better"]) == (5, 3, 1, "lower")
    assert row["mean"] == pytest.approx(scores.mean(), abs=1e-6)
    assert row["sd"] == pytest.approx(scores.std(), abs=1e-6)
    assert row["median"] == pytest.approx(np.median(scores), abs=0.5 * np.ptp(scores))


def test_nothing_to_score_gives_empty_rows(brisque: Brisque, tmp_path: Path) -> None:
    assert dict(quality_table({}).schema) == QUALITY_SCHEMA
    empty = QualitySummary()
    empty.add(folder_pictures(tmp_path), [brisque])
    empty.add([], [brisque])
    (row,) = quality_table({"empty": empty}).rows(named=True)
    assert (row["images"], row["scored"], row["mean"], row["sd"], row["median"]) == (0, 0, None, None, None)
    assert quality_figure({"empty": empty}).axes
    assert quality_figure({}).axes


def test_a_folder_is_read_with_its_subfolders(brisque: Brisque, tmp_path: Path) -> None:
    (tmp_path / "deep/er").mkdir(parents=True)
    for seed, name in enumerate(("a.png", "deep/b.PNG", "deep/er/c.jpeg")):
        (tmp_path / name).write_bytes(png(portrait(seed, 64)))
    (tmp_path / "deep/broken.jpg").write_bytes(b"\xff\xd8\xff broken")
    (tmp_path / "dangling.jpg").symlink_to(tmp_path / "nowhere.jpg")
    (tmp_path / "notes.txt").write_text("no picture")
    (tmp_path / "folder.jpg").mkdir()
    os.mkfifo(tmp_path / "pipe.png")
    summary = QualitySummary()
    summary.add(folder_pictures(tmp_path), [brisque])
    (row,) = quality_table({"folder": summary}).rows(named=True)
    assert (row["images"], row["scored"], row["unreadable"]) == (6, 3, 3)
    assert summary.reasons == {"undecodable": 1, "unreadable_file": 2}


def test_a_missing_folder_is_one_line(tmp_path: Path) -> None:
    for wrong in (tmp_path / "nowhere", __file__):
        with pytest.raises(PictureFolderError, match=r"^'.*' is no folder; .*$"):
            folder_pictures(wrong)


def test_a_limit_samples_the_same_pictures_in_any_order(tmp_path: Path) -> None:
    pictures = [(f"f_{k}", bytes([k])) for k in range(40)]
    shuffled = random.Random(1).sample(pictures, len(pictures))
    chosen = [list(hashed_sample(order, 7)) for order in (pictures, shuffled)]
    assert chosen[0] == chosen[1]
    assert len(set(chosen[0])) == 7
    assert chosen[0] != list(hashed_sample(pictures, 7, seed=1))
    assert set(chosen[0]) < set(hashed_sample(pictures, 20))
    for name, data in pictures:
        (tmp_path / f"{name}.png").write_bytes(data)
    assert len(set(folder_pictures(tmp_path, limit=9))) == 9
    assert list(folder_pictures(tmp_path, limit=0)) == []
    with pytest.raises(ValueError, match="limit: -1"):
        hashed_sample([], -1)


def test_the_figure_has_both_panels_only_with_clip_scores(brisque: Brisque, clip_folder: Path) -> None:
    from facecaption_ml import figures

    with_clip, without = QualitySummary(), QualitySummary()
    with_clip.add([portrait(0, 64)], [brisque, ClipIqa.load(clip_folder)])
    without.add([portrait(1, 64), portrait(2, 64)], [brisque])
    both = quality_figure({"ours": with_clip, "other": without})
    assert len(both.axes) == 2
    assert len(quality_figure({"other": without}).axes) == 1
    svg = figures.files(both, "quality")["quality.svg"].decode()
    for text in ("ours (n = 1)", "other (n = 2)", "other (no values)", "BRISQUE", "CLIP-IQA"):
        assert text in svg
