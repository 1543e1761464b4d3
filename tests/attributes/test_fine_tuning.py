from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from coloured_noise import pictures
from facecaption_ml.attributes import (
    AttributeData,
    AttributePredictor,
    CheckpointError,
    checkpoint_folder,
    train_attributes,
)
from facecaption_ml.attributes.distillation import soft_labels

pytestmark = pytest.mark.slow  # a training comes first


@pytest.fixture(scope="module")
def learned(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint that has learned the colours from pictures of its own."""
    out = tmp_path_factory.mktemp("learned")
    train_attributes(AttributeData.from_arrays(*pictures(240, seed=7), "colours"), "micro", out, epochs=4, seed=1)
    return out


def accuracy(out: Path, init: Path | None) -> float:
    data = AttributeData.from_arrays(*pictures(120), "colours")
    found = train_attributes(data, "micro", out, epochs=1, seed=2, init=init)
    return float(np.mean([score.accuracy for score in found.scores[:3]]))


def test_a_checkpoint_is_ahead_after_one_epoch(learned: Path, tmp_path: Path) -> None:
    assert accuracy(tmp_path / "tuned", learned) > accuracy(tmp_path / "new", None) + 0.1


def test_a_state_of_another_start_is_not_gone_on_with(learned: Path, tmp_path: Path) -> None:
    data, out = AttributeData.from_arrays(*pictures(120), "colours"), tmp_path / "out"
    train_attributes(data, "micro", out, epochs=1, seed=2)
    tuned = train_attributes(data, "micro", out, epochs=1, seed=2, init=learned)
    alone = train_attributes(data, "micro", tmp_path / "alone", epochs=1, seed=2, init=learned)
    assert tuned.version == alone.version


def test_a_checkpoint_of_another_preset_is_named(tmp_path: Path) -> None:
    data = AttributeData.from_arrays(*pictures(60), "colours")
    with pytest.raises(CheckpointError, match=r"init .*drawn.*preset is 'micro'"):
        train_attributes(data, "tiny", tmp_path / "out", epochs=1, init=checkpoint_folder("drawn"))


def test_an_ensemble_is_nothing_to_start_from(tmp_path: Path) -> None:
    data = AttributeData.from_arrays(*pictures(60), "colours")
    with pytest.raises(CheckpointError, match=r"init .*bundled: is an ensemble"):
        train_attributes(data, "face_resnet", tmp_path / "out", epochs=1, init=checkpoint_folder("bundled"))


def test_a_folder_without_weights_is_named(learned: Path, tmp_path: Path) -> None:
    data = AttributeData.from_arrays(*pictures(60), "colours")
    empty = tmp_path / "empty"
    empty.mkdir()
    shutil.copy(learned / "config.json", empty)
    with pytest.raises(CheckpointError, match=r"init .*attributes\.safetensors is missing"):
        train_attributes(data, "micro", tmp_path / "out", epochs=1, init=empty)


def test_a_teacher_speaks_of_the_training_pictures_only(learned: Path) -> None:
    data = AttributeData.from_arrays(*pictures(60), "colours")
    teacher = AttributePredictor.load(learned)
    found = soft_labels(data, teacher)
    train, held = data.rows["train"], np.concatenate([data.rows["validation"], data.rows["test"]])
    said = teacher.predict(list(data.images.batch(train, teacher.input)))
    assert found[train] == pytest.approx((data.labels[train] + said) / 2, abs=1e-5)
    assert np.array_equal(found[held], data.labels[held])


def test_what_a_teacher_has_learned_reaches_pictures_with_wrong_labels(learned: Path, tmp_path: Path) -> None:
    pixels, labels = pictures(240, seed=9)
    wrong = labels.copy()
    spoiled = np.random.default_rng(0).random(labels.shape) < 0.45
    spoiled[192:] = False  # validation and test stay true
    wrong[spoiled] = ~wrong[spoiled]
    data = AttributeData.from_arrays(pixels, wrong, "spoiled colours")
    alone = train_attributes(data, "micro", tmp_path / "alone", epochs=3, seed=2)
    taught = train_attributes(data, "micro", tmp_path / "taught", epochs=3, seed=2, teacher=learned)
    gain = [b.accuracy - a.accuracy for a, b in zip(alone.scores[:3], taught.scores[:3], strict=True)]
    assert np.mean(gain) > 0.05
    assert '"teacher"' in (tmp_path / "taught" / "config.json").read_text()
