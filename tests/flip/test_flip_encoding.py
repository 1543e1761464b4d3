"""``Flip`` in use: features and match probabilities of pictures and texts, and what is said of a checkpoint that is none."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.torch import load_file, save_file
from transformers import AutoModel, BertModel, ViTModel

from facecaption_ml.decoding import UndecodableImage, decode_image
from facecaption_ml.flip import Flip, FlipError
from facecaption_ml.flip.model.files import sha256_of
from facecaption_ml.flip.model.weight_names import stable_name
from facecaption_ml.flip.training.process import train
from facecaption_ml.storage.store import Store
from squares import COLOURS, GROUNDS, micro_config, square, write_squares

pytestmark = pytest.mark.slow  # a training comes first

PAIRS = [(colour, ground) for colour in COLOURS for ground in GROUNDS]
TEXTS = [f"A {colour} square on a {ground} ground." for colour, ground in PAIRS]
TOLERANCE = 2e-6  # of unit rows in float32, when sums are taken in another order


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint that knows its colours."""
    folder = tmp_path_factory.mktemp("checkpoint")
    store = Store(str(folder / "store"))
    write_squares(store, 240)
    train(micro_config(store, epochs=10), folder / "work")
    return store.local_folder("flip_checkpoint/flip", folder / "cache")


@pytest.fixture(scope="module")
def flip(checkpoint: Path) -> Flip:
    return Flip.load(checkpoint, device="cpu", precision="fp32")


@pytest.fixture(scope="module")
def images() -> list[bytes]:
    rng = np.random.default_rng(7)
    return [square(rng, colour, ground) for colour, ground in PAIRS]


def test_features_are_unit_rows_in_one_space(flip: Flip, images: list[bytes]) -> None:
    pictures, texts = flip.encode_images(images), flip.encode_texts(TEXTS)
    for features in (pictures, texts):
        assert features.dtype == np.float32
        assert features.shape == (len(PAIRS), 32)
        assert np.linalg.norm(features, axis=1) == pytest.approx(np.ones(len(PAIRS)), abs=1e-5)
    own = (texts @ pictures.T).argsort(axis=1)[:, ::-1][:, :5]
    found = [row in nearest for row, nearest in enumerate(own)]
    assert np.mean(found) > 2 * 5 / len(PAIRS)


@pytest.mark.parametrize("batch_size", [1, 5, 100])
def test_the_batch_size_changes_nothing(flip: Flip, images: list[bytes], batch_size: int) -> None:
    texts = [*TEXTS[:-1], "Red."]  # widths differ
    for encode, given in ((flip.encode_images, images), (flip.encode_texts, texts)):
        assert encode(given, batch_size=batch_size) == pytest.approx(encode(given), abs=TOLERANCE)
    match = flip.match(images, texts, batch_size=batch_size)
    assert match == pytest.approx(flip.match(images, texts), abs=TOLERANCE)


def test_bytes_and_arrays_are_alike(flip: Flip, images: list[bytes]) -> None:
    arrays = [decode_image(image) for image in images]
    assert np.array_equal(flip.encode_images(arrays), flip.encode_images(images))
    assert np.array_equal(flip.encode_images(np.stack(arrays)), flip.encode_images(images))


def test_match_is_a_probability_of_each_pair(flip: Flip, images: list[bytes]) -> None:
    own = flip.match(images, TEXTS)
    assert own.dtype == np.float32
    assert own.shape == (len(PAIRS),)
    assert ((own >= 0) & (own <= 1)).all()
    # a pair's probability is its own affair
    assert flip.match(images[::-1], TEXTS[::-1]) == pytest.approx(own[::-1], abs=TOLERANCE)
    with pytest.raises(ValueError, match="24 images and 23 texts"):
        flip.match(images, TEXTS[1:])


def test_nothing_gives_nothing(flip: Flip) -> None:
    assert flip.encode_images([]).shape == flip.encode_texts([]).shape == (0, 32)
    assert flip.match([], []).shape == (0,)


def test_what_cannot_be_encoded_is_refused(flip: Flip, images: list[bytes]) -> None:
    with pytest.raises(UndecodableImage):
        flip.encode_images([images[0], b"no picture"])
    with pytest.raises(ValueError, match="uint8"):
        flip.encode_images([np.zeros((4, 4, 3))])
    with pytest.raises(ValueError, match="one string"):
        flip.encode_texts("A red square.")


@pytest.mark.parametrize("text", [None, "", " \n", 7, b"a"])
def test_a_text_that_is_none_is_named_with_its_row(flip: Flip, images: list[bytes], text: Any) -> None:
    said = re.escape(f"texts[1] is {text!r}: each should be a text of a word or more")
    with pytest.raises(ValueError, match=said):
        flip.encode_texts(["A red square.", text])
    with pytest.raises(ValueError, match=said):
        flip.match(images[:2], ["A red square.", text])


def test_one_flipped_bit_is_noticed(checkpoint: Path, tmp_path: Path) -> None:
    """Weights load as well with a bit turned, and give other features."""
    folder = Path(shutil.copytree(checkpoint, tmp_path / "flip"))
    data = bytearray((folder / "model.safetensors").read_bytes())
    data[-10] ^= 1
    (folder / "model.safetensors").write_bytes(data)
    with pytest.raises(FlipError, match=r"model\.safetensors cannot be used \(its SHA-256 is not the one"):
        Flip.load(folder, device="cpu")
    config = json.loads((folder / "config.json").read_text())
    del config["sha256"]  # as checkpoints of earlier versions are: their version has the first digits of it
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(FlipError, match="SHA-256"):
        Flip.load(folder, device="cpu")


def test_weights_that_are_not_finite_are_noticed(checkpoint: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(checkpoint, tmp_path / "flip"))
    weights = load_file(folder / "model.safetensors")
    weights["match_head.bias"][0] = float("nan")
    save_file(weights, folder / "model.safetensors")
    config = json.loads((folder / "config.json").read_text())
    config["sha256"] = sha256_of(folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(FlipError, match=r"match_head\.bias holds NaN or infinity"):
        Flip.load(folder, device="cpu")


def test_names_in_the_file_are_those_of_save_pretrained_and_others_load_as_well(
    flip: Flip, images: list[bytes], checkpoint: Path, tmp_path: Path
) -> None:
    """What ``transformers`` calls its modules in memory has changed before."""
    weights = load_file(checkpoint / "model.safetensors")
    flip.model.image.save_pretrained(tmp_path / "vit")
    flip.model.text.save_pretrained(tmp_path / "bert")
    for tower, folder in (("image", "vit"), ("text", "bert")):
        own = {name.removeprefix(f"{tower}.") for name in weights if name.startswith(f"{tower}.")}
        assert own == load_file(tmp_path / folder / "model.safetensors").keys()
    folder = Path(shutil.copytree(checkpoint, tmp_path / "flip"))
    in_memory = {stable_name(name): name for name in flip.model.state_dict()}
    save_file({in_memory[name]: value for name, value in weights.items()}, folder / "model.safetensors")
    config = json.loads((folder / "config.json").read_text())
    config["sha256"] = sha256_of(folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps(config))
    assert np.array_equal(Flip.load(folder, device="cpu").encode_images(images), flip.encode_images(images))


def test_transformers_refuses_the_folder_by_the_name_of_its_type(checkpoint: Path) -> None:
    with pytest.raises(ValueError, match="facecaption_flip"):
        AutoModel.from_pretrained(checkpoint)
    # by its own type transformers would only warn, and give random weights
    for tower in (ViTModel, BertModel):
        with pytest.raises(Exception, match=r"facecaption_ml\.flip\.Flip\.load"):
            tower.from_pretrained(checkpoint)


def test_the_readme_has_the_card_and_what_hubs_index(checkpoint: Path) -> None:
    readme, card = ((checkpoint / name).read_text(encoding="utf-8") for name in ("README.md", "MODEL_CARD.md"))
    _, front, body = readme.split("---\n", 2)
    assert "library_name: facecaption\n" in front
    assert body.lstrip("\n") == card


def test_the_version_names_the_weights(flip: Flip, checkpoint: Path, tmp_path: Path) -> None:
    assert len(flip.version) == 12
    assert flip.config["version"] == flip.version
    other = Path(shutil.copytree(checkpoint, tmp_path / "other"))
    assert Flip.load(other, device="cpu").version == flip.version


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "tokenizer.json"])
@pytest.mark.parametrize("fault", ["missing", "cut", "empty"])
def test_a_file_that_is_missing_or_damaged_is_named(checkpoint: Path, tmp_path: Path, name: str, fault: str) -> None:
    folder = Path(shutil.copytree(checkpoint, tmp_path / "flip"))
    data = (folder / name).read_bytes()
    (folder / name).unlink()
    if fault != "missing":
        (folder / name).write_bytes(data[: len(data) // 2] if fault == "cut" else b"")
    with pytest.raises(FlipError, match="materialize flip_checkpoint") as error:
        Flip.load(folder, device="cpu")
    assert str(folder) in str(error.value)
    assert name in str(error.value)
    assert "\n" not in str(error.value)


def test_files_that_do_not_belong_together_are_noticed(checkpoint: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(checkpoint, tmp_path / "flip"))
    config = json.loads((folder / "config.json").read_text())
    config["preset"]["image"]["mlp_width"] = 128
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(FlipError, match=r"model.safetensors cannot be used \(image.* has the shape .*the model's is"):
        Flip.load(folder, device="cpu")
    weights = load_file(checkpoint / "model.safetensors")
    del weights["match_head.bias"]
    save_file(weights, folder / "model.safetensors")
    config = json.loads((checkpoint / "config.json").read_text())
    config["sha256"] = sha256_of(folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(FlipError, match=r"model.safetensors cannot be used \(match_head.bias is missing\)"):
        Flip.load(folder, device="cpu")
    config = json.loads((checkpoint / "config.json").read_text())
    del config["preset"]
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(FlipError, match=r"config.json cannot be used \(no entry 'preset'\)"):
        Flip.load(folder, device="cpu")


def test_a_folder_without_a_checkpoint_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(FlipError, match=r"is no FLIP checkpoint: config\.json is missing"):
        Flip.load(tmp_path / "nothing")
