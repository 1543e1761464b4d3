"""The FLIP for photographs trained on drawn maps: captions, batches, choices, and what the command leaves and refuses."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import cv2
import numpy as np
import pytest

from facecaption_ml.attributes.data import AttributeData
from facecaption_ml.errors import FaceCaptionError
from facecaption_ml.flip import Flip
from facecaption_ml.flip.model.presets import MAP_CHANNELS, MAP_GRID, Preset
from facecaption_ml.photo_flip import __main__ as command
from facecaption_ml.photo_flip.faces import MappedFaces, caption_of, read_faces, read_stem, short_caption_of
from facecaption_ml.photo_flip.scoring import Asked, best_weight, measure
from facecaption_ml.photo_flip.training import Plan, _batches, recall_of, train, training_texts
from facecaption_ml.search.query import read_query
from facecaption_ml.taxonomy import ATTRIBUTES

MALE, BALD, HAT, GLASSES = (ATTRIBUTES.index(name) for name in ("Male", "Bald", "Wearing_Hat", "Eyeglasses"))


def drawn_faces(count: int = 96) -> MappedFaces:
    """Faces whose maps have a channel for each label, some noise, and labels that differ between people."""
    rng = np.random.default_rng(3)
    labels = np.zeros((count, len(ATTRIBUTES)), bool)
    for column in (MALE, HAT, GLASSES, ATTRIBUTES.index("Smiling"), ATTRIBUTES.index("Blond_Hair")):
        labels[:, column] = rng.random(count) < 0.5
    maps = rng.random((count, 2, MAP_CHANNELS, *MAP_GRID)).astype(np.float16)
    maps[:, :, : len(ATTRIBUTES)] += 4 * labels[:, None, :, None, None].astype(np.float16)
    data = AttributeData.from_arrays(np.zeros((count, 8, 8, 3), np.uint8), labels, "drawn", 0.2, 0.2)
    return MappedFaces(maps, data)


PLAN = Plan(epochs=6, batch_size=16, peak_learning_rate=3e-3, warm_up_steps=5, wordings=2, short=1, matched=0.5)


@pytest.mark.slow
def test_a_training_learns_what_captions_say_and_is_the_same_again() -> None:
    faces = drawn_faces()
    stem, _ = read_stem("bundled")
    epochs: list[int] = []
    first = train(faces, stem, Preset.named("photos"), PLAN, lambda epoch, _: epochs.append(epoch))
    again = train(faces, stem, Preset.named("photos"), PLAN)
    assert epochs == list(range(1, PLAN.epochs + 1))
    assert first.epoch == again.epoch
    assert [one.as_dict() for one in first.history] == [one.as_dict() for one in again.history]
    best = first.history[first.epoch - 1]
    assert best.reciprocal_rank == max(one.reciprocal_rank for one in first.history)
    assert best.reciprocal_rank > 1.5 * sum(1 / rank for rank in range(1, best.pairs + 1)) / best.pairs
    texts = [caption_of(faces.data.labels[row], row) for row in faces.data.rows["validation"].tolist()]
    assert recall_of(first.model, first.tokenizer, faces, "validation", texts) == best
    assert not any(parameter.requires_grad for parameter in first.model.stem.parameters())


def test_a_face_has_captions_of_its_labels_long_and_short() -> None:
    faces = drawn_faces()
    texts = training_texts(faces, Plan(wordings=3, short=1))
    assert len(texts) == len(faces.data.rows["train"])
    for row, own in zip(faces.data.rows["train"].tolist(), texts, strict=True):
        labels = faces.data.labels[row]
        held = {name for name, has in zip(ATTRIBUTES, labels, strict=True) if has} | ({"Female"} - {"Male"})
        assert len(own) == 3
        for text in own:
            query = read_query(text)
            assert set(query.wanted) <= held | {"No_Beard", "Female"}
        assert len(read_query(own[2]).wanted) <= 5
    assert short_caption_of(labels, 7) == short_caption_of(labels, 7)


def test_batches_have_every_place_once_and_texts_of_like_length() -> None:
    lengths = np.random.default_rng(0).integers(20, 200, size=331).tolist()
    batches = _batches(lengths, 10, np.random.default_rng(1))
    places = np.concatenate(batches)
    assert len(batches) == 33
    assert len(set(places.tolist())) == 330
    spread = np.mean([np.ptp(np.array(lengths)[batch]) for batch in batches])
    assert spread < 0.25 * np.ptp(lengths)
    assert [batch.tolist() for batch in _batches(lengths, 10, np.random.default_rng(1))] == [
        b.tolist() for b in batches
    ]


# -- scoring ---------------------------------------------------------------------------------------------------------------


def test_the_weight_is_that_with_the_best_rank_and_right_labels_are_counted() -> None:
    truth = np.zeros((4, len(ATTRIBUTES)), bool)
    truth[:2, BALD] = True
    truth[:, MALE] = True
    queries = [read_query("a bald man")] * 4
    labels = np.array([[1, 1, 0, 0]] * 2 + [[0, 0, 1, 1]] * 2, np.float32)  # pairs of faces are alike
    flip = 0.1 * np.eye(4, dtype=np.float32)  # FLIP tells them apart
    asked = Asked(queries, labels, flip)
    groups = np.arange(4)
    assert measure(asked, asked, groups, truth, "labels", 1.0).recalls[0] == 0  # ties count against
    weight = best_weight(asked, groups)
    found = measure(asked, asked, groups, truth, "both", weight)
    assert found.reciprocal_rank == 1
    assert found.recalls[0] == 1
    # all four are among the best eight: male all, bald half of them
    assert found.right == pytest.approx(0.75)


# -- the command -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def celeba(tmp_path: Path) -> Path:
    """36 pictures of noise with CelebA's layout, bright ones with hats."""
    rng = np.random.default_rng(0)
    folder = tmp_path / "celeba"
    (folder / "img_align_celeba").mkdir(parents=True)
    rows, splits = [], []
    for number in range(36):
        values = [-1] * 40
        for column in (MALE, HAT, GLASSES):
            values[column] = 1 if rng.random() < 0.5 else -1
        picture = rng.integers(60, size=(109, 89, 3)).astype(np.uint8) + (150 if values[HAT] == 1 else 0)
        cv2.imwrite(str(folder / "img_align_celeba" / f"{number}.jpg"), picture.astype(np.uint8))
        rows.append(f"{number}.jpg " + " ".join(map(str, values)))
        splits.append(f"{number}.jpg {0 if number < 20 else 1 if number < 28 else 2}")
    (folder / "list_attr_celeba.txt").write_text(f"36\n{' '.join(ATTRIBUTES)}\n" + "\n".join(rows) + "\n")
    (folder / "list_eval_partition.txt").write_text("\n".join(splits) + "\n")
    return folder


@pytest.mark.slow
def test_the_command_leaves_a_checkpoint_with_card_and_figures(
    tmp_path: Path, celeba: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    arguments = ["--data", str(celeba), "--epochs", "2", "--batch-size", "8", "--wordings", "2"]
    maps = tmp_path / "maps.safetensors"
    outs = [tmp_path / "first", tmp_path / "second"]
    for out in outs:
        assert command.main([*arguments, "--out", str(out), "--maps", str(maps)]) == 0
    flip = Flip.load(outs[0])
    assert flip.version == Flip.load(outs[1]).version
    assert flip.config["search"]["by"] in ("labels", "flip", "both")
    card = (outs[0] / "MODEL_CARD.md").read_text()
    assert f"version {flip.version}" in card
    assert (
        "python -m facecaption_ml.photo_flip --data CELEBA --out FOLDER --epochs 2 --batch-size 8 --wordings 2\n"
        in card
    )
    assert "$" not in card
    figures = json.loads((outs[0] / "evaluation.json").read_text())
    assert set(figures["ways"]) == {"validation", "test"}
    assert len(figures["history"]) == 2
    assert "test by both: R@1/5/10 " in caplog.text
    # measured anew, the figures are the same
    before = card
    (outs[0] / "MODEL_CARD.md").unlink()
    assert command.main(["--data", str(celeba), "--out", str(outs[0]), "--measure"]) == 0
    assert (outs[0] / "MODEL_CARD.md").read_text() == before


def test_maps_that_were_kept_are_of_these_faces_and_this_stem(tmp_path: Path, celeba: Path) -> None:
    stem, version = read_stem("bundled")
    kept = tmp_path / "maps.safetensors"
    faces = read_faces(celeba, stem, version, kept)
    assert np.array_equal(read_faces(celeba, stem, version, kept).maps, faces.maps)
    mirrored = faces.maps[:, 1].astype(np.float32)
    assert not np.array_equal(mirrored, faces.maps[:, 0].astype(np.float32))
    with pytest.raises(FaceCaptionError, match="maps of another network or of other faces"):
        read_faces(celeba, stem, "another", kept)


def test_a_predictor_without_the_network_is_one_line(
    tmp_path: Path, celeba: Path, caplog: pytest.LogCaptureFixture
) -> None:
    assert command.main(["--data", str(celeba), "--out", str(tmp_path / "out"), "--predictor", "drawn"]) == 1
    assert "none of its networks is of the preset tiny" in caplog.text
    assert command.main(["--data", str(tmp_path / "absent"), "--out", str(tmp_path / "out")]) == 1
    assert "list_attr_celeba.txt" in caplog.text
