"""The FLIP for photographs that comes along: small, whole, the same each time, and of use on real photographs."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from transformers import ViTModel

from facecaption_assets.commands.cli import main
from facecaption_ml.flip import Flip
from facecaption_ml.flip.model.bundled_towers import BUNDLED, FACES, bundled_towers, checkpoint_folder, described
from facecaption_ml.flip.model.initialisation import build, tokenizer_of
from facecaption_ml.flip.model.presets import Preset
from facecaption_ml.flip.model.weight_names import stable_state
from facecaption_ml.pretrained import weights_version
from facecaption_ml.sample.labelled import labelled_portraits

FOLDER = checkpoint_folder(BUNDLED)
MOST_BYTES = 8 << 20


@pytest.fixture(scope="module")
def flip() -> Flip:
    return Flip.load("bundled", device="cpu", precision="fp32")


@pytest.fixture(scope="module")
def portraits() -> list[np.ndarray]:
    return list(labelled_portraits(6, seed=4, size=120)[0])


def test_it_is_small_and_what_its_card_says(flip: Flip) -> None:
    assert sum(file.stat().st_size for file in FOLDER.iterdir()) <= MOST_BYTES
    assert flip.version == weights_version(FOLDER / "model.safetensors")
    card = (FOLDER / "MODEL_CARD.md").read_text(encoding="utf-8")
    assert f"# FLIP for photographs, version {flip.version}\n" in card
    assert flip.config["command"] in card
    assert "non-commercial research" in card
    figures = json.loads((FOLDER / "evaluation.json").read_text(encoding="utf-8"))
    test = figures["ways"]["test"]
    for way in ("labels", "flip", "both"):
        assert f"| test | {way} | " + " | ".join(f"{100 * value:.1f} %" for value in test[way]["recalls"]) in card
    assert flip.config["search"] == {"weight": figures["weight"], "by": figures["best"]}
    assert test["flip"]["recalls"][2] >= 0.2
    assert test["both"]["recalls"][2] >= 0.45


def test_features_are_the_same_each_time_and_in_any_batch(flip: Flip, portraits: list[np.ndarray]) -> None:
    texts = ["a bald man with a mustache", "a smiling woman with blond hair and glasses", "a man without a beard"]
    images, words = flip.encode_images(portraits), flip.encode_texts(texts)
    assert images.shape == (6, flip.preset.projection)
    assert np.allclose(np.linalg.norm(images, axis=1), 1, atol=1e-5)
    again = Flip.load("bundled", device="cpu", precision="fp32")
    assert np.array_equal(again.encode_images(portraits), images)
    assert np.array_equal(again.encode_texts(texts), words)
    assert np.allclose(flip.encode_images(portraits, batch_size=1), images, atol=1e-5)
    assert np.allclose(flip.encode_texts(texts, batch_size=1), words, atol=1e-5)
    matches = flip.match(portraits[:3], texts)
    assert bool(((matches >= 0) & (matches <= 1)).all())


def test_classes_of_transformers_refuse_it_in_its_own_words() -> None:
    """They would warn of the other type and give random weights."""
    with pytest.raises(Exception, match=r"load it with facecaption_ml\.flip\.Flip\.load"):
        ViTModel.from_pretrained(FOLDER)


def test_a_training_of_photographs_starts_from_it(flip: Flip) -> None:
    assert bundled_towers()[FACES] == {"photos": FOLDER}
    assert described(FACES, "photos") == f"the bundled faces_photos, version {flip.version}"
    preset = Preset.named("photos")
    assert (preset.image_init, preset.text_init) == (FACES, BUNDLED)
    tokenizer = tokenizer_of(preset, preset.text_init, list)
    assert tokenizer.vocabulary == flip.tokenizer.vocabulary
    started = stable_state(build(preset, tokenizer, 0, preset.image_init, preset.text_init))
    for name, value in stable_state(flip.model).items():
        if name.startswith(("stem.", "image.", "text.")):
            assert torch.equal(started[name], value), name
    whole = stable_state(build(preset, tokenizer, 0, "", "", BUNDLED))
    assert all(torch.equal(whole[name], value) for name, value in stable_state(flip.model).items())


@pytest.mark.slow
def test_photographs_are_searched_with_it(tmp_path: Path, photos: Path) -> None:
    """What is found of real photographs, as JSON and as a sheet; a second search looks at no photograph again."""
    found = {}
    for text in ("an old man with gray hair in a necktie", "a man without a beard"):
        out = tmp_path / "found.jpg"
        arguments = ["search", text, "--in", str(photos), "--by", "both", "--top", "3", "--json", "--out", str(out)]
        done = CliRunner().invoke(main, arguments, env={"FACECAPTION_HOME": str(tmp_path / "home")})
        assert done.exit_code == 0, done.output
        found[text] = json.loads(done.stdout)
        assert out.stat().st_size > 5000
    assert len({record["faces"] for record in found.values()}) == 1
    record = found["an old man with gray hair in a necktie"]
    assert (record["variant"], record["checkpoint"]) == ("bundled", Flip.load("bundled").version)
    assert Path(record["nearest"][0]["photo"]).name in ("biden.jpg", "two_people.jpg")
    assert "No_Beard" in found["a man without a beard"]["labels"]
    kept = list((tmp_path / "home" / "cache" / "photo_faces").glob(f"*/{record['checkpoint']}/*.npy"))
    assert kept
