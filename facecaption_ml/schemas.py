"""The Polars schema of every table, once. Keys: ``sample_id`` names a source row, ``face_id`` = ``{sample_id}_{k}`` a face."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import polars as pl

from facecaption_ml.errors import FaceCaptionError
from facecaption_ml.taxonomy import ATTRIBUTES

LLM: Final = "llm"
TEMPLATE: Final = "template"
PUBLISHED: Final = "published"
CAPTION_SOURCES: Final = (LLM, TEMPLATE, PUBLISHED)
"""Who wrote a caption: a language model, the grammar, or whoever published it."""

Schema = Mapping[str, "pl.DataType | type[pl.DataType]"]

# The Hugging Face image layout, so that datasets.load_dataset("parquet", …) shows pictures.
IMAGE: Final = pl.Struct({"bytes": pl.Binary, "path": pl.String})
BOX: Final = pl.Array(pl.Float32, 4)  # x0, y0, x1, y1 in pixels of the source image
LANDMARKS: Final = pl.Array(pl.Float32, (5, 2))  # eyes, nose, mouth corners, as drawn left to right, source pixels

SCHEMAS: Final[Mapping[str, Schema]] = {
    "source_manifest": {
        "sample_id": pl.String,
        "url": pl.String,
        "alt_text": pl.String,
        "width": pl.Int32,
        "height": pl.Int32,
        "nsfw": pl.String,
        "duplicate_url": pl.Boolean,  # an earlier row of the whole source has the same URL
        "shard": pl.String,
    },
    "raw_images": {
        "sample_id": pl.String,
        "url": pl.String,
        "alt_text": pl.String,
        "status": pl.String,  # a FetchStatus
        "error": pl.String,  # what went wrong in words; null where status is ok
        "image": IMAGE,  # the bytes as received; null unless status is ok
        "width": pl.Int32,  # after EXIF orientation
        "height": pl.Int32,
        "sha256": pl.String,  # of the received bytes
        "attempts": pl.Int16,
        "fetched_at": pl.Datetime("ms", "UTC"),
        "decided_by": pl.String,  # settings that the status depends on, "max_image_bytes=20000000; …"; null: on none
        "file_version": pl.String,  # what tells a file:// or s3:// picture from a later one at its place: size and times
    },
    "face_crops": {
        "face_id": pl.String,
        "sample_id": pl.String,
        "url": pl.String,
        "alt_text": pl.String,
        "image": IMAGE,  # the aligned crop
        "width": pl.Int32,  # of the crop
        "height": pl.Int32,
        "box": BOX,
        "landmarks": LANDMARKS,
        "score": pl.Float32,
        "roll_degrees": pl.Float32,  # rotation taken out; positive: the face leaned clockwise
    },
    "face_attributes": {
        "face_id": pl.String,
        **dict.fromkeys(ATTRIBUTES, pl.Float32),
        "gender": pl.String,  # male, female or null
        "labels": pl.List(pl.String),
        "dropped_conflicts": pl.List(pl.String),
    },
    "template_captions": {
        "face_id": pl.String,
        "template_caption": pl.String,
        "labels": pl.List(pl.String),
        "gender": pl.String,
    },
    "llm_captions": {
        "face_id": pl.String,
        "caption": pl.String,
        "caption_source": pl.String,  # one of CAPTION_SOURCES
        "attempts": pl.Int16,
        "missing": pl.List(pl.String),  # by the closest rewrite, where the template caption was kept
        "invented": pl.List(pl.String),
        "reason": pl.String,  # why the template caption was kept; null for a rewrite
        "model": pl.String,
        "prompt_version": pl.String,
    },
    "facecaption_dataset": {
        "face_id": pl.String,
        "url": pl.String,
        "box": BOX,
        "caption": pl.String,
        "caption_source": pl.String,  # one of CAPTION_SOURCES
        "caption_model": pl.String,  # that wrote the caption; null where none did
        "prompt_version": pl.String,
        "attempts": pl.Int16,  # answers of a model that were judged; null for a published caption
        "template_caption": pl.String,
        "alt_text": pl.String,
        "labels": pl.List(pl.String),
        "label_probabilities": pl.List(pl.Float32),  # in the order of labels
        "split": pl.String,  # train, validation or test, by source URL
    },
}

SHARD_TABLES: Final = tuple(SCHEMAS)
"""The tables of which every shard has one, in the order in which they are made, from the URL to the released row."""
SOURCE: Final = SHARD_TABLES[0]
"""The table of the rows to fetch; its shards are those that the source has."""
DATASET: Final = SHARD_TABLES[-1]
"""The table of released pairs."""

OPTIONAL: Final[Mapping[str, Schema]] = {
    DATASET: {"image": IMAGE}  # the crop, only on request
}


class SchemaError(FaceCaptionError):
    """A table does not have the columns or types that its schema names."""


def conform(frame: pl.DataFrame, table: str) -> pl.DataFrame:
    """The frame with exactly the columns of ``table``'s schema, in its order, optional ones last.

    Raises SchemaError naming the table and the first column that is missing, superfluous or of another type.
    """
    present = {name: dtype for name, dtype in OPTIONAL.get(table, {}).items() if name in frame.columns}
    schema = {**SCHEMAS[table], **present}
    for name in schema:
        if name not in frame.columns:
            raise SchemaError(f"table {table}: column {name!r} is missing")
    for name in frame.columns:
        if name not in schema:
            raise SchemaError(f"table {table}: unexpected column {name!r}")
    for name, dtype in schema.items():
        if frame.schema[name] != dtype:
            raise SchemaError(f"table {table}: column {name!r} is {frame.schema[name]}, should be {dtype}")
    return frame.select(list(schema))


def empty(table: str) -> pl.DataFrame:
    """No rows, with the columns of ``table``."""
    return pl.DataFrame(schema=dict(SCHEMAS[table]))
