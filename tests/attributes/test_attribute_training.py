from __future__ import annotations

import dataclasses
import json
import re
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from safetensors.numpy import load_file

from coloured_noise import pictures
from facecaption_ml.attributes import (
    ATTRIBUTES,
    AttributeData,
    AttributeDataError,
    AttributePredictor,
    CheckpointError,
    attribute_table,
    read_celeba,
    train_attributes,
)
from facecaption_ml.attributes.data import cut
from facecaption_ml.decoding import encode_jpeg
from facecaption_ml.schemas import SCHEMAS


@pytest.fixture(scope="module")
def data() -> AttributeData:
    return AttributeData.from_arrays(*pictures(240), "colours")


@pytest.fixture(scope="module")
def checkpoint(data: AttributeData, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("checkpoint")
    result = train_attributes(data, "micro", out, epochs=4, seed=1)
    learned = result.scores[:3]
    assert np.mean([score.accuracy for score in learned]) > 0.85
    assert np.mean([score.majority for score in learned]) < 0.7
    return out


@pytest.mark.slow
def test_a_batch_gives_what_single_crops_give(checkpoint: Path) -> None:
    predictor = AttributePredictor.load(checkpoint)
    crops = [picture[: 30 + i] for i, picture in enumerate(pictures(9, 5)[0])]
    together = predictor.predict(crops)
    assert together.shape == (9, 40)
    assert together.dtype == np.float32
    for i, crop in enumerate(crops):
        assert predictor.predict([crop])[0] == pytest.approx(together[i], abs=1e-3)
    assert predictor.predict([]).shape == (0, 40)
    encoded = predictor.predict([encode_jpeg(crops[8], quality=100)])
    assert encoded[0] == pytest.approx(together[8], abs=0.1)


@pytest.mark.slow
def test_the_model_card_tells_what_was_measured(checkpoint: Path) -> None:
    card = (checkpoint / "MODEL_CARD.md").read_text()
    scores = json.loads((checkpoint / "evaluation.json").read_text())
    mean = sum(score["accuracy"] for score in scores["scores"]) / 40
    assert f"{100 * mean:.1f} %" in card
    assert card.count("\n| Eyeglasses |") == 1
    assert "$" not in card


@pytest.mark.slow
def test_equal_seeds_give_equal_weights(data: AttributeData, tmp_path: Path) -> None:
    for name in ("a", "b"):
        train_attributes(data, "micro", tmp_path / name, epochs=2, seed=3)
    first, second = (load_file(tmp_path / name / "attributes.safetensors") for name in ("a", "b"))
    assert all(np.array_equal(first[key], second[key]) for key in first)


_KILLED = """
import os, signal, sys
from pathlib import Path
from coloured_noise import pictures
from facecaption_ml.attributes import AttributeData, train_attributes
import torch
torch.set_num_threads(int(sys.argv[1]))
def stop(report):
    if report.epoch == 2:
        os.kill(os.getpid(), signal.SIGKILL)
data = AttributeData.from_arrays(*pictures(240), "colours")
train_attributes(data, "micro", Path({out!r}), epochs=4, seed=3, on_epoch=stop)
"""


@pytest.mark.processes
def test_a_killed_training_goes_on_where_it_stopped(data: AttributeData, tmp_path: Path) -> None:
    import torch

    train_attributes(data, "micro", tmp_path / "whole", epochs=4, seed=3)
    code = _KILLED.format(out=str(tmp_path / "killed"))
    done = subprocess.run([sys.executable, "-c", code, str(torch.get_num_threads())])
    assert done.returncode == -signal.SIGKILL
    epochs = []
    train_attributes(data, "micro", tmp_path / "killed", epochs=4, seed=3, on_epoch=lambda r: epochs.append(r.epoch))
    assert epochs == [3, 4]
    whole, resumed = (load_file(tmp_path / name / "attributes.safetensors") for name in ("whole", "killed"))
    assert all(np.array_equal(whole[key], resumed[key]) for key in whole)


@pytest.mark.slow
@pytest.mark.parametrize("damage", ["cut", "garbage", "empty", "other", "no weights"])
def test_a_damaged_state_is_named_and_the_training_starts_anew(
    damage: str, data: AttributeData, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    out, state = tmp_path / "out", tmp_path / "out" / "training_state.pt"
    train_attributes(data, "micro", out, epochs=1, seed=3)
    expected = load_file(out / "attributes.safetensors")
    whole = state.read_bytes()
    if damage == "no weights":
        (out / "attributes.safetensors").unlink()
    else:
        state.write_bytes(
            {"cut": whole[: len(whole) // 2], "garbage": b"\x80\x02cos\nsystem\n.", "empty": b""}.get(damage, b"")
        )
    if damage == "other":
        import torch

        torch.save({"preset": 1}, state)
    epochs: list[int] = []
    with caplog.at_level("INFO", "facecaption"):
        train_attributes(data, "micro", out, epochs=1, seed=3, on_epoch=lambda r: epochs.append(r.epoch))
    assert epochs == [1]
    assert f"{state} is damaged" in caplog.text
    assert "weights_only" not in caplog.text
    found = load_file(out / "attributes.safetensors")
    assert all(np.array_equal(expected[key], found[key]) for key in expected)


@pytest.mark.slow
def test_a_state_of_other_data_is_not_resumed(data: AttributeData, tmp_path: Path) -> None:
    train_attributes(data, "micro", tmp_path, epochs=1, seed=3)
    epochs: list[int] = []
    other = dataclasses.replace(data, labels=~data.labels)
    train_attributes(other, "micro", tmp_path, epochs=1, seed=3, on_epoch=lambda r: epochs.append(r.epoch))
    assert epochs == [1]


@pytest.mark.slow
def test_it_stops_when_nothing_gets_better(data: AttributeData, tmp_path: Path) -> None:
    coins = np.random.default_rng(0).random((100, 40)) < 0.5
    noise = AttributeData.from_arrays(pictures(100)[0], coins, "coins")
    epochs: list[int] = []
    train_attributes(noise, "micro", tmp_path, epochs=60, patience=2, on_epoch=lambda r: epochs.append(r.epoch))
    assert len(epochs) < 60


@pytest.mark.slow
def test_the_production_preset_takes_a_step(tmp_path: Path) -> None:
    small = AttributeData.from_arrays(*pictures(10), "few")
    result = train_attributes(small, "resnet50", tmp_path, epochs=1)
    assert result.rows == 1
    assert AttributePredictor.load(tmp_path).predict([np.zeros((50, 40, 3), np.uint8)]).shape == (1, 40)


def celeba_folder(root: Path, count: int = 12) -> Path:
    pixels, labels = pictures(count)
    (root / "img_align_celeba").mkdir(parents=True)
    lines = [str(count), " ".join(ATTRIBUTES)]
    for i in range(count):
        (root / "img_align_celeba" / f"{i:06d}.jpg").write_bytes(encode_jpeg(pixels[i]))
        lines.append(f"{i:06d}.jpg " + " ".join("1" if value else "-1" for value in labels[i]))
    (root / "list_attr_celeba.txt").write_text("\n".join(lines))
    (root / "list_eval_partition.txt").write_text("\n".join(f"{i:06d}.jpg {i % 3}" for i in range(count)))
    return root


def test_a_celeba_folder_is_read_with_its_splits_and_holes(tmp_path: Path) -> None:
    root = celeba_folder(tmp_path / "celeba")
    (root / "img_align_celeba" / "000003.jpg").unlink()
    (root / "img_align_celeba" / "000004.jpg").write_bytes(b"no picture")
    data = read_celeba(root, (96, 72))
    assert len(data.images) == 10
    assert {split: len(rows) for split, rows in data.rows.items()} == {"train": 3, "validation": 3, "test": 4}
    assert data.images.batch(np.array([0]), (96, 72)).shape == (1, 96, 72, 3)
    assert np.array_equal(data.labels[0], pictures(12)[1][0])


def test_celeba_as_kaggle_has_it_is_the_same(tmp_path: Path) -> None:
    released, kaggle = celeba_folder(tmp_path / "released"), celeba_folder(tmp_path / "kaggle")
    pictures_there = (kaggle / "img_align_celeba").rename(tmp_path / "inner")
    (kaggle / "img_align_celeba").mkdir()
    pictures_there.rename(kaggle / "img_align_celeba" / "img_align_celeba")
    for name, header in (("list_attr_celeba", "image_id "), ("list_eval_partition", "image_id partition\n")):
        text = (kaggle / f"{name}.txt").read_text()
        (kaggle / f"{name}.txt").unlink()
        text = text.partition("\n")[2] if name == "list_attr_celeba" else text
        (kaggle / f"{name}.csv").write_text(f"{header}{text}".replace(" ", ","))
    first, second = read_celeba(released, (96, 72)), read_celeba(kaggle, (96, 72))
    assert np.array_equal(first.labels, second.labels)
    assert {s: rows.tolist() for s, rows in first.rows.items()} == {s: rows.tolist() for s, rows in second.rows.items()}


@pytest.mark.parametrize(
    ("name", "change", "words"),
    [
        ("list_attr_celeba.txt", lambda text: text.replace("Young", "Old"), r"list_attr_celeba.txt, line 2.*Old"),
        ("list_attr_celeba.txt", lambda text: text + "\n000001.jpg 1 1", r"list_attr_celeba.txt, line 15"),
        ("list_eval_partition.txt", lambda text: text.replace(" 2", " 7", 1), r"list_eval_partition.txt, line 3"),
        ("list_eval_partition.txt", lambda text: text.replace(" 2", " 0"), r"test split is empty"),
    ],
)
def test_a_wrong_celeba_folder_is_named(tmp_path: Path, name: str, change, words: str) -> None:  # type: ignore[no-untyped-def]
    root = celeba_folder(tmp_path / "celeba")
    (root / name).write_text(change((root / name).read_text()))
    with pytest.raises(AttributeDataError, match=words):
        read_celeba(root, (96, 72))


@pytest.mark.processes
def test_a_missing_celeba_file_is_named_by_the_command(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "facecaption_ml.attributes", "--data", tmp_path, "--out", tmp_path / "out"]
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True)
    assert done.returncode == 1
    assert re.fullmatch(r"error: .*list_attr_celeba.txt: No such file.*\n", done.stderr)


def test_a_window_that_leaves_the_frame_repeats_the_border() -> None:
    picture = np.arange(4 * 4 * 3, dtype=np.uint8).reshape(4, 4, 3)
    assert np.array_equal(cut(picture, (0.0, 0.0, 1.0, 1.0)), picture)
    lower = cut(picture, (0.25, 0.5, 1.0, 1.5))
    assert lower.shape == (4, 3, 3)
    assert np.array_equal(lower[1], lower[3])


@pytest.mark.slow
def test_the_table_counts_every_crop(checkpoint: Path) -> None:
    pixels, _ = pictures(6, 9)
    bodies: list[bytes | None] = [encode_jpeg(picture) for picture in pixels[:4]] + [b"damaged", None]
    crops = pl.DataFrame(
        {"face_id": [f"{i:016x}_0" for i in range(6)], "image": [{"bytes": body, "path": None} for body in bodies]},
        schema={"face_id": pl.String, "image": SCHEMAS["face_crops"]["image"]},
    )
    frame, outcomes = attribute_table(crops, AttributePredictor.load(checkpoint), min_labels=1, batch_size=4)
    assert sum(outcomes.values()) == 6
    assert outcomes["undecodable"] == 2
    assert len(frame) == outcomes["kept"]
    everything, _ = attribute_table(crops, AttributePredictor.load(checkpoint), min_labels=1, batch_size=64)
    assert everything["face_id"].to_list() == frame["face_id"].to_list()


@pytest.mark.slow
def test_checkpoints_that_do_not_fit_are_named(checkpoint: Path, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"attributes.safetensors is missing"):
        AttributePredictor.load(tmp_path)
    for name in ("attributes.safetensors", "config.json", "evaluation.json", "MODEL_CARD.md"):
        (tmp_path / name).write_bytes((checkpoint / name).read_bytes())
    config = json.loads((tmp_path / "config.json").read_text())
    config["preset"]["widths"] = [8, 8, 8, 8]
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(CheckpointError, match="does not fit"):
        AttributePredictor.load(tmp_path)
    (tmp_path / "attributes.safetensors").write_bytes(b"none")
    with pytest.raises(CheckpointError, match=r"attributes\.safetensors"):
        AttributePredictor.load(tmp_path)


@pytest.mark.models
def test_the_bundled_predictor_knows_well_known_faces(photos: Path) -> None:
    from facecaption_ml.decoding import decode_image
    from facecaption_ml.faces import FaceDetector, align_and_crop

    detector, predictor = FaceDetector.load("bundled"), AttributePredictor.load("bundled")
    found = {}
    for name in ("obama.jpg", "biden.jpg"):
        image = decode_image((photos / name).read_bytes())
        crop = align_and_crop(image, detector.detect([image])[0][0], 0.3)[0]
        found[name] = dict(zip(ATTRIBUTES, predictor.predict([crop])[0], strict=True))
    assert found["obama.jpg"]["Male"] > 0.85
    assert found["biden.jpg"]["Male"] > 0.85
    assert found["obama.jpg"]["Smiling"] > 0.85
    assert found["biden.jpg"]["Blond_Hair"] < 0.85
    assert found["obama.jpg"]["Wearing_Lipstick"] < 0.15
