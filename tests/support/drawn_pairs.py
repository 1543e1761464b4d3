"""A small data set of drawn faces in a store, and settings of a training that is over in seconds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import polars as pl

from facecaption_ml.captions import caption_seed
from facecaption_ml.captions.template.template import bundled_grammar
from facecaption_ml.decoding import encode_jpeg
from facecaption_ml.sample.portraits import draw_portrait
from facecaption_ml.schemas import SCHEMAS
from facecaption_ml.storage.store import Store
from facecaption_ml.taxonomy import Gender

SHORT: dict[str, Any] = {
    "flip_epochs": 2,
    "flip_batch_size": 8,
    "flip_queue_size": 16,
    "flip_warm_up_steps": 2,
    "flip_log_every": 2,
    "flip_precision": "fp32",
}
LABELS = (["Male", "Black_Hair", "Smiling"], ["Blond_Hair", "Young", "Bangs"], ["Eyeglasses", "Wearing_Hat", "Male"])
ROWS, TRAIN = 48, 32


def face(number: int, side: int = 64) -> dict[str, Any]:
    """What rows of ``face_crops`` and ``facecaption_dataset`` say of a drawn face, and its gender."""
    labels = LABELS[number % 3]
    gender: Gender = "male" if "Male" in labels else "female"
    picture = encode_jpeg(draw_portrait(frozenset(labels), number, side).image)
    face_id, grammar = f"{number:016x}_0", bundled_grammar()
    caption = grammar.caption(labels, gender, caption_seed(face_id, grammar.version, 0))
    texts = {"caption": caption, "template_caption": caption}
    return {"face_id": face_id, "image": {"bytes": picture}, "labels": labels, "gender": gender, **texts}


def table(name: str, rows: Sequence[Mapping[str, Any]]) -> pl.DataFrame:
    """The columns of a table that the rows have; the others are null."""
    return pl.DataFrame([{column: row.get(column) for column in SCHEMAS[name]} for row in rows], dict(SCHEMAS[name]))


def fill(folder: Path) -> Store:
    """Two shards of 24 drawn faces, a third of them held out; a third shard is in the manifest only."""
    store = Store(str(folder))
    for shard in range(3):
        numbers = range(24 * shard, 24 * shard + 24)
        store.write_table("source_manifest", table("source_manifest", []), f"shard-{shard:05d}")
        if shard < 2:
            splits = {0: "validation", 1: "test"}
            faces = [face(k) | {"split": splits.get(k % 6, "train"), "alt_text": f"portrait {k}"} for k in numbers]
            for name in ("face_crops", "facecaption_dataset"):
                store.write_table(name, table(name, faces), f"shard-{shard:05d}")
    return store
