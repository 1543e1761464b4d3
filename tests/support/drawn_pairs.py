"""A small data set of drawn faces in a store, and settings of a training that is over in seconds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import polars as pl

from facecaption_ml.captions import CaptionGrammar, caption_seed
from facecaption_ml.decoding import encode_jpeg
from facecaption_ml.sample.portraits import draw_portrait
from facecaption_ml.schemas import SCHEMAS
from facecaption_ml.storage.store import Store

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


def fill(folder: Path) -> Store:
    """Two shards of 24 drawn faces, a third of them held out; a third shard is in the manifest only."""
    store, grammar = Store(str(folder)), CaptionGrammar.load()
    for shard in range(2):
        crops, pairs = [], []
        for k in range(24 * shard, 24 * shard + 24):
            face_id, labels = f"{k:016x}_0", LABELS[k % 3]
            picture = encode_jpeg(draw_portrait(frozenset(labels), k, 64).image)
            text = grammar.caption(
                labels, "male" if "Male" in labels else "female", caption_seed(face_id, grammar.version, 0)
            )
            split = {0: "validation", 1: "test"}.get(k % 6, "train")
            texts = {"caption": text, "template_caption": text, "alt_text": f"portrait {k}"}
            crops.append({"face_id": face_id, "image": {"bytes": picture, "path": None}})
            pairs.append({"face_id": face_id, "labels": labels, "split": split, **texts})
        for name, rows in (("face_crops", crops), ("facecaption_dataset", pairs)):
            blank = dict.fromkeys(SCHEMAS[name])
            frame = pl.DataFrame([{**blank, **row} for row in rows], schema=dict(SCHEMAS[name]))
            store.write_table(name, frame, f"shard-{shard:05d}")
    manifest = pl.DataFrame(schema=dict(SCHEMAS["source_manifest"]))
    for number in range(3):
        store.write_table("source_manifest", manifest, f"shard-{number:05d}")
    return store
