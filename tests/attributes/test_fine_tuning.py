from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from coloured_noise import pictures
from facecaption_ml.attributes import AttributeData, CheckpointError, checkpoint_folder, train_attributes


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
    with pytest.raises(CheckpointError, match=r"init .*bundled.*preset is 'tiny'"):
        train_attributes(data, "micro", tmp_path / "out", epochs=1, init=checkpoint_folder("bundled"))


def test_a_folder_without_weights_is_named(learned: Path, tmp_path: Path) -> None:
    data = AttributeData.from_arrays(*pictures(60), "colours")
    empty = tmp_path / "empty"
    empty.mkdir()
    shutil.copy(learned / "config.json", empty)
    with pytest.raises(CheckpointError, match=r"init .*attributes\.safetensors is missing"):
        train_attributes(data, "micro", tmp_path / "out", epochs=1, init=empty)
