"""A tower trained on labels: it learns them, it starts a FLIP, and what is written is whole, small and the same each time."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from facecaption_ml.flip.errors import TrainingError
from facecaption_ml.flip.model.initialisation import build, tokenizer_of
from facecaption_ml.flip.model.presets import Preset
from facecaption_ml.flip.training.labelled_tower import LabelledFaces, TowerResult, train_labelled_tower
from facecaption_ml.labelled_tower import main

MICRO = Preset.named("micro")
COLOURS = np.array([(200, 30, 30), (30, 200, 30), (30, 30, 200)])


def coloured_squares(count: int) -> LabelledFaces:
    """Labels: which of three colours the middle has, and whether the ground is light."""
    draw = np.random.default_rng(4)
    colours, light = draw.integers(0, 3, count), draw.random(count) < 0.5
    pixels = np.where(light[:, None, None, None], 220, 40) + draw.integers(-20, 20, (count, 32, 32, 3))
    pixels[:, 10:22, 10:22] = COLOURS[colours][:, None, None]
    labels = np.column_stack([colours == at for at in range(3)] + [light])
    rows = np.split(np.arange(count), [count - 128, count - 64])
    return LabelledFaces(
        pixels.astype(np.uint8), labels, dict(zip(("train", "validation", "test"), rows, strict=True)), "squares"
    )


def trained(out: Path, seed: int = 0) -> TowerResult:
    return train_labelled_tower(
        coloured_squares(512), MICRO, out, epochs=6, batch_size=32, peak_learning_rate=3e-3, seed=seed
    )


@pytest.fixture(scope="module")
def tower(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, TowerResult]:
    folder = tmp_path_factory.mktemp("tower")
    return folder, trained(folder)


def test_it_learns_the_labels(tower: tuple[Path, TowerResult]) -> None:
    result = tower[1]
    assert result.majority < 0.75
    assert result.accuracy > 0.95


def test_what_is_written_starts_a_flip_of_the_preset(tower: tuple[Path, TowerResult]) -> None:
    folder = tower[0]
    held = load_file(folder / "model.safetensors")
    assert {value.dtype for value in held.values()} == {torch.float16}
    tokenizer = tokenizer_of(MICRO, "", lambda: ["a red square"])
    model = build(MICRO, tokenizer, 0, str(folder), "")
    patch = model.image.embeddings.patch_embeddings.projection.weight
    assert patch.dtype is torch.float32
    assert torch.equal(patch, held["embeddings.patch_embeddings.projection.weight"].float())


def test_the_card_and_the_figures_say_what_it_is(tower: tuple[Path, TowerResult]) -> None:
    folder, result = tower
    card = (folder / "MODEL_CARD.md").read_text(encoding="utf-8")
    assert "$" not in card
    assert f"{100 * result.accuracy:.1f} %" in card
    figures = json.loads((folder / "evaluation.json").read_text())
    assert figures["accuracy"] == result.accuracy
    assert figures["data"] == "squares"


@pytest.mark.slow
def test_equal_arguments_give_equal_weights(tower: tuple[Path, TowerResult], tmp_path: Path) -> None:
    trained(tmp_path / "again")
    again = load_file(tmp_path / "again" / "model.safetensors")
    for name, value in load_file(tower[0] / "model.safetensors").items():
        assert torch.equal(value, again[name]), name


@pytest.mark.slow
def test_the_command_trains_on_drawn_portraits(tmp_path: Path) -> None:
    out = tmp_path / "tower"
    given = ["--data", "drawn", "--portraits", "60", "--preset", "micro", "--epochs", "1", "--out", str(out)]
    assert main(given) == 0
    assert json.loads((out / "evaluation.json").read_text())["faces"] == 48
    assert (out / "model.safetensors").stat().st_size < 1 << 20


def test_a_folder_that_cannot_be_used_is_one_line(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert main(["--data", str(tmp_path), "--preset", "micro", "--out", str(tmp_path / "out")]) == 1
    assert caplog.messages[-1].startswith("error: ")
    empty = LabelledFaces(np.zeros((0, 32, 32, 3), np.uint8), np.zeros((0, 4), bool), {}, "nothing")
    with pytest.raises(TrainingError, match="nothing has no faces in its train split"):
        train_labelled_tower(empty, MICRO, tmp_path)
