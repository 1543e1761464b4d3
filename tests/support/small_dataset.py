"""A finished data set of two shards in a real store, with its materializations in a real Dagster instance, for a second's work.

Each shard has three URLs: one with a released face and one of too few labels, one that did not arrive, one with a released
face.
"""

from __future__ import annotations

import datetime
import hashlib
from collections.abc import Mapping
from pathlib import Path

import dagster as dg
import polars as pl

from facecaption_assets.commands.instance import Pipeline
from facecaption_assets.partitions import SHARDS
from facecaption_assets.settings import Settings, load_settings
from facecaption_ml.dataset.sources import sample_id
from facecaption_ml.schemas import SCHEMAS
from facecaption_ml.storage.store import Store
from facecaption_ml.taxonomy import ATTRIBUTES

NAMES = ["shard-00000", "shard-00001"]
LABELS = ["Male", "Young", "Smiling", "Black_Hair", "Eyeglasses", "Wearing_Hat"]
CAPTION = "A smiling young man with black hair. He wears glasses and a hat."
SECONDS = {"raw_images": 2.0, "face_crops": 0.5, "face_attributes": 0.25, "template_captions": 0.1, "llm_captions": 4.0,
           "facecaption_dataset": 0.05}  # fmt: skip


def url(shard: int, row: int) -> str:
    return f"http://host-{shard}.test/{row}.jpg"


def face(shard: int, row: int, rank: int = 0) -> str:
    return f"{sample_id(url(shard, row))}_{rank}"


def picture(shard: int, row: int) -> bytes:
    """Not decodable, but bytes; the first picture of the second shard equals that of the first."""
    return b"\xff\xd8" + (b"same" if row == 0 else f"{shard}{row}".encode()) * 500


def settings_of(home: Path, **more: object) -> Settings:
    return load_settings(profile="photos", home=home, source=str(home), **more)


def make_data_set(settings: Settings) -> tuple[Pipeline, Store]:
    """Write the tables and report the materializations."""
    pipeline, store = Pipeline(settings), Store(settings.store_root)
    assert SHARDS.name
    pipeline.instance.add_dynamic_partitions(SHARDS.name, NAMES)
    report(pipeline, "source_manifest", None, {"dagster/row_count": 6, "source": "list.parquet"})
    report(pipeline, "attribute_model", None, {"version": "model1", "trained on": "bundled"})
    for number, shard in enumerate(NAMES):
        for table, frame in tables(number).items():
            store.write_table(table, frame, shard)
            if table != "source_manifest":
                counts = {"dagster/row_count": len(frame), "seconds": SECONDS[table], **METADATA[table]}
                report(pipeline, table, shard, counts)
    return pipeline, store


def report(pipeline: Pipeline, asset: str, shard: str | None, metadata: Mapping[str, int | float | str]) -> None:
    pipeline.instance.report_runless_asset_event(dg.AssetMaterialization(asset, partition=shard, metadata=metadata))


METADATA: dict[str, dict[str, int | float | str]] = {
    "raw_images": {"status: ok": 2, "status: timeout": 1},
    "face_crops": {"images: with_faces": 2, "images: not_fetched": 1, "faces: kept": 3, "detector weights": "weights1"},
    "face_attributes": {"faces: kept": 2, "faces: too_few_labels": 1, "predictor": "model1"},
    "template_captions": {"grammar version": "grammar1", "seed": 0},
    "llm_captions": {"model": "chat1", "prompt version": "prompt1"},
    "facecaption_dataset": {"faces: released": 2},
}


def tables(shard: int) -> dict[str, pl.DataFrame]:
    ids, urls = [sample_id(url(shard, row)) for row in range(3)], [url(shard, row) for row in range(3)]
    images = [picture(shard, 0), None, picture(shard, 2)]
    released, kept = [face(shard, 0), face(shard, 2)], [face(shard, 0), face(shard, 0, 1), face(shard, 2)]
    fetched_at = datetime.datetime(2026, 5, 4, 3, 2, 1, tzinfo=datetime.UTC)
    sides, texts = [400] * 3, ["a man"] * 3
    frames: dict[str, dict[str, object]] = {
        "source_manifest": {
            "sample_id": ids, "url": urls, "alt_text": texts, "width": sides, "height": sides, "nsfw": ["UNLIKELY"] * 3,
            "duplicate_url": [False] * 3, "shard": [NAMES[shard]] * 3,
        },
        "raw_images": {
            "sample_id": ids, "url": urls, "alt_text": texts, "status": ["ok", "timeout", "ok"],
            "error": [None, "no answer within 10 s", None],
            "image": [data and {"bytes": data, "path": "x.jpg"} for data in images],
            "width": [400, None, 400], "height": [400, None, 400],
            "sha256": [data and hashlib.sha256(data).hexdigest() for data in images],
            "attempts": [1, 2, 1], "fetched_at": [fetched_at] * 3, "decided_by": [None] * 3, "file_version": [None] * 3,
        },
        "face_crops": {
            "face_id": kept, "sample_id": [name[:16] for name in kept], "url": [urls[0], urls[0], urls[2]],
            "alt_text": texts, "image": [{"bytes": b"\xff\xd8crop" * 100, "path": "x.jpg"}] * 3, "width": sides,
            "height": sides, "box": [[1.0, 2.0, 201.0, 202.0]] * 3, "landmarks": [[[1.0, 2.0]] * 5] * 3,
            "score": [0.99] * 3, "roll_degrees": [0.0] * 3,
        },
        "face_attributes": {
            "face_id": released, **{name: [0.9 if name in LABELS else 0.1] * 2 for name in ATTRIBUTES},
            "gender": ["male"] * 2, "labels": [LABELS] * 2, "dropped_conflicts": [["Bald"]] * 2,
        },
        "template_captions": {
            "face_id": released, "template_caption": [CAPTION] * 2, "labels": [LABELS] * 2, "gender": ["male"] * 2,
        },
        "llm_captions": {
            "face_id": released, "caption": [CAPTION] * 2, "caption_source": ["template"] * 2, "attempts": [3] * 2,
            "missing": [[]] * 2, "invented": [[]] * 2, "reason": ["unfaithful"] * 2, "model": ["chat1"] * 2,
            "prompt_version": ["prompt1"] * 2,
        },
        "facecaption_dataset": {
            "face_id": released, "url": [urls[0], urls[2]], "box": [[1.0, 2.0, 201.0, 202.0]] * 2,
            "caption": [CAPTION] * 2, "caption_source": ["template"] * 2, "caption_model": [None] * 2,
            "prompt_version": [None] * 2, "attempts": [3] * 2, "template_caption": [CAPTION] * 2, "alt_text": texts[:2],
            "labels": [LABELS] * 2, "label_probabilities": [[0.9] * len(LABELS)] * 2, "split": ["train"] * 2,
        },
    }  # fmt: skip
    return {table: pl.DataFrame(columns, dict(SCHEMAS[table])) for table, columns in frames.items()}
