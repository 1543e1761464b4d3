"""A small world that a small FLIP learns in seconds: squares of a colour on a ground, captions that say so."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch
from safetensors.torch import load_file

from facecaption_ml.decoding import encode_jpeg
from facecaption_ml.flip.training.checkpoint import TrainingCheckpoints
from facecaption_ml.flip.training.config import TrainingConfig
from facecaption_ml.flip.training.options import TrainingOptions
from facecaption_ml.schemas import SCHEMAS
from facecaption_ml.storage.store import Store

COLOURS = {
    "red": (220, 30, 30),
    "green": (30, 180, 40),
    "blue": (40, 60, 220),
    "yellow": (230, 220, 40),
    "purple": (140, 40, 160),
    "orange": (250, 140, 20),
    "cyan": (40, 210, 220),
    "brown": (120, 70, 30),
}
GROUNDS = {"black": (10, 10, 10), "grey": (128, 128, 128), "white": (245, 245, 245)}
SPLITS = ("train",) * 8 + ("validation", "test")


def square(rng: np.random.Generator, colour: str, ground: str) -> bytes:
    """A JPEG of 40 × 40 px: a square of one colour on a ground of another, both a little noisy."""
    image = np.empty((40, 40, 3), np.int64)
    image[:] = GROUNDS[ground]
    top, left = rng.integers(4, 12, 2)
    image[top : top + 24, left : left + 24] = COLOURS[colour]
    return encode_jpeg(np.clip(image + rng.integers(-8, 9, image.shape), 0, 255).astype(np.uint8))


def write_squares(store: Store, pairs: int = 400, shards: int = 2, *, extra: str = "", damaged: int = 0) -> None:
    """``pairs`` pairs, eight tenths for training. ``extra`` follows each caption; so many pictures are ``damaged``."""
    rng = np.random.default_rng(0)
    crops: list[dict[str, Any]] = []
    captions: list[dict[str, Any]] = []
    for number in range(pairs):
        colour, ground = rng.choice(list(COLOURS)), rng.choice(list(GROUNDS))
        sample = hashlib.sha256(str(number).encode()).hexdigest()[:16]
        caption = f"A {colour} square on a {ground} ground.{extra}"
        data = b"no picture" if number < damaged else square(rng, colour, ground)
        shared = {"face_id": f"{sample}_0", "url": f"http://example.org/{number}", "box": [0.0, 0.0, 40.0, 40.0]}
        crops.append(
            shared
            | {"sample_id": sample, "alt_text": "a square", "image": {"bytes": data, "path": None}, "width": 40}
            | {"height": 40, "landmarks": [[0.0, 0.0]] * 5, "score": 0.99, "roll_degrees": 0.0}
        )
        captions.append(
            shared
            | {"caption": caption, "template_caption": caption, "alt_text": "a square", "labels": []}
            | {"split": SPLITS[number % len(SPLITS)]}
        )
    for number in range(shards):
        shard, rows = f"shard-{number:05d}", slice(number * pairs // shards, (number + 1) * pairs // shards)
        for table, found in (("face_crops", crops[rows]), ("facecaption_dataset", captions[rows])):
            store.write_table(table, pl.DataFrame(found, schema=dict(SCHEMAS[table])), shard, row_group_rows=64)


def micro_config(store: Store, **given: Any) -> TrainingConfig:
    """A training of the smallest preset on one thread; every step is logged. ``given``: options and fields of the config."""
    plain = {"preset": "micro", "threads": 1, "precision": "fp32", "log_every": 1, "evaluation_pairs": 40}
    of_options = {name: given.pop(name) for name in TrainingOptions.model_fields if name in given}
    fields: dict[str, Any] = {"variant": "flip", "device": "cpu", "shards": tuple(store.shards("facecaption_dataset"))}
    where = {"store": store.root, "storage_options": dict(store.storage_options)}
    return TrainingConfig(options=TrainingOptions(**{**plain, **of_options}), **{**where, **fields, **given})


def newest(store: Store, variant: str = "flip") -> dict[str, Any]:
    """Everything in a training's newest checkpoint but its log, whose times differ."""
    step = TrainingCheckpoints(store, variant, 1).latest_step()
    assert step is not None
    return at_step(store, step, variant)


def at_step(store: Store, step: int, variant: str = "flip") -> dict[str, Any]:
    """Everything in the checkpoint after ``step`` but its log."""
    name = f"flip_training/{variant}/step-{step:08d}"
    with store.reading_file(f"{name}.safetensors") as path:
        weights = load_file(path)
    with store.reading_file(f"{name}.pt") as path:
        state = torch.load(path, weights_only=True)
    return {"weights": weights} | {key: value for key, value in state.items() if key != "log"}


def steps_kept(store: Store, variant: str = "flip") -> list[int]:
    """The steps after which there is a whole checkpoint."""
    keys = store.keys(f"flip_training/{variant}/step-")
    return [int(key.rpartition("-")[2].removesuffix(".json")) for key in keys if key.endswith(".json")]


def forget_after(store: Store, step: int, variant: str = "flip") -> None:
    """As if the training had stopped after ``step``."""
    for key in store.keys(f"flip_training/{variant}/step-"):
        if int(Path(key).name.split(".")[0].removeprefix("step-")) > step:
            store.delete(key)


def assert_same(one: Any, other: Any, place: str = "") -> None:
    """Equal to the last bit, all the way down."""
    assert type(one) is type(other), place
    if isinstance(one, torch.Tensor):
        assert torch.equal(one, other), place
    elif isinstance(one, dict):
        assert one.keys() == other.keys(), place
        for key in one:
            assert_same(one[key], other[key], f"{place}/{key}")
    elif isinstance(one, list):
        assert len(one) == len(other), place
        for number, (left, right) in enumerate(zip(one, other, strict=True)):
            assert_same(left, right, f"{place}/{number}")
    else:
        assert one == other, place
