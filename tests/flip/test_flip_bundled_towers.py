"""Towers that come with the package: each loads, starts the FLIP of its preset, is small, and its card is that of its file."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from facecaption_ml.flip.model.bundled_towers import FACES, bundled_towers, described, located
from facecaption_ml.flip.model.initialisation import build, tokenizer_of
from facecaption_ml.flip.model.presets import Preset
from facecaption_ml.flip.training.config import TrainingConfig
from facecaption_ml.flip.training.distributed import process_group
from facecaption_ml.flip.training.options import TrainingOptions
from facecaption_ml.flip.training.train_state import TrainState
from facecaption_ml.labelled_tower import DRAWING_SEED
from facecaption_ml.pretrained import WeightsNotReachable, weights_version
from facecaption_ml.sample.labelled import portrait_people

EVERY = [(name, preset, folder) for name, own in bundled_towers().items() for preset, folder in own.items()]
TOWERS = [one for one in EVERY if one[0] != FACES]  # which is the bundled FLIP's: test_flip_bundled.py
MOST_BYTES = 3 << 20


@pytest.mark.parametrize(("name", "preset", "folder"), TOWERS, ids=lambda value: str(getattr(value, "name", value)))
def test_a_training_under_its_name_starts_from_its_weights(name: str, preset: str, folder: Path) -> None:
    shape = Preset.named(preset)
    tokenizer = tokenizer_of(shape, "", lambda: ["a smiling woman"])
    config = TrainingConfig(
        options=TrainingOptions(preset=preset, image_init=name, threads=1), store="nowhere", shards=(), variant="flip"
    )
    with process_group("cpu") as dist:
        started = TrainState(config, shape, tokenizer, dist).model.image.state_dict()
    own = build(shape, tokenizer, 0, str(folder), "").image.state_dict()
    random = build(shape, tokenizer, 0, "none", "").image.state_dict()
    weight = "embeddings.patch_embeddings.projection.weight"
    assert torch.equal(started[weight], load_file(folder / "model.safetensors")[weight].float())
    assert all(torch.equal(started[key], value) for key, value in own.items())
    assert not torch.equal(started[weight], random[weight])


@pytest.mark.parametrize(("name", "preset", "folder"), TOWERS, ids=lambda value: str(getattr(value, "name", value)))
def test_card_and_figures_are_those_of_the_file(name: str, preset: str, folder: Path) -> None:
    version = weights_version(folder / "model.safetensors")
    assert (
        f"{preset}, version {version}\n" in (folder / "MODEL_CARD.md").read_text(encoding="utf-8").splitlines(True)[0]
    )
    assert described(name, preset) == f"the bundled {name}_{preset}, version {version}"
    figures = json.loads((folder / "evaluation.json").read_text())
    assert figures["preset"] == preset
    assert figures["accuracy"] > figures["majority"] + 0.02, "it learned labels"
    assert sum(file.stat().st_size for file in folder.iterdir()) <= MOST_BYTES


def test_a_name_that_is_there_for_another_preset_only_is_one_line() -> None:
    with pytest.raises(
        WeightsNotReachable, match=r"^the bundled tower 'drawn' is for the preset tiny, not for micro: "
    ) as error:
        located("drawn", "micro")
    assert "none for random weights" in str(error.value)
    tokenizer = tokenizer_of(Preset.named("micro"), "", lambda: ["a smiling woman"])
    with pytest.raises(WeightsNotReachable, match=r"^image_init: the bundled tower 'drawn'"):
        build(Preset.named("micro"), tokenizer, 0, "drawn", "")


def test_other_names_are_what_they_are() -> None:
    assert located("google/vit-base-patch16-224-in21k", "base") == "google/vit-base-patch16-224-in21k"
    assert described("google/vit-base-patch16-224-in21k", "base") == "google/vit-base-patch16-224-in21k"


def test_the_drawn_tower_knows_nobody_of_the_demo() -> None:
    """The demo's labelled portraits have its seed; scenes have even numbers and benchmarks larger ones."""
    learned = portrait_people(10_000, DRAWING_SEED)
    assert not set(learned) & set(portrait_people(10_000, 0))
    assert all(person % 2 and person < 2**61 for person in learned)
