"""Sheets of pictures with texts, for the Dagster UI: crops with labels or captions, and pictures as they were fetched."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import dagster as dg
import numpy as np
import polars as pl

from facecaption_assets.factories.previews import shard_picture
from facecaption_ml.schemas import DATASET
from facecaption_ml.storage.store import Store

WHOLE: Final = None
"""Of a sheet's texts: in as many lines as they need."""
_FACES: Final = 6
_CELL, _WIDE_CELL = 160, 220  # px; the wide one where the texts are long


def crop_sheet(
    crops: pl.DataFrame,
    texts: Sequence[str] | None = None,
    *,
    alt: str = "face crops",
    columns: int = 6,
    lines: int | None = 2,
    pictures: int = 1,
) -> dg.MarkdownMetadataValue:
    """The crops of a few rows of ``face_crops``, with a text each, by default their scores, for the page of a shard.

    ``lines``: of a text, at most; ``WHOLE``: all of them. ``pictures``: on the page, this one among them.
    """
    shown = list(texts) if texts is not None else [f"{score:.3f}" for score in crops["score"]]
    return _sheet(_decoded(crops), shown, alt, columns, lines, pictures)


def picture_sheet(raw: pl.DataFrame, alt: str) -> dg.MarkdownMetadataValue:
    """The pictures of a few rows of ``raw_images`` that were fetched, with their sizes, for the page of a shard."""
    sizes = [f"{width} × {height} px" for width, height in raw.select("width", "height").iter_rows()]
    return _sheet(_decoded(raw), sizes, alt, columns=4, lines=1)


def caption_sheet(store: Store, shards: Sequence[str], released: pl.DataFrame | None = None) -> dict[str, Any]:
    """Metadata with a sheet of the first released faces and their captions; nothing where there are none.

    ``released``: the rows to show, of the only shard; by default those of the first of ``shards`` that has any.
    """
    for shard in shards:
        rows = released
        if rows is None:
            rows = store.read_table(DATASET, shard, columns=["face_id", "caption"])
        shown = rows.select("face_id", "caption").head(_FACES)
        crops = crops_of(store, shard, shown["face_id"].to_list()).drop_nulls("image")
        if len(crops):
            texts = crops.join(shown, on="face_id", how="left", maintain_order="left")["caption"].to_list()
            alt = "released faces with their captions"
            return {"faces and captions": crop_sheet(crops, texts, alt=alt, columns=3, lines=WHOLE)}
    return {}


def crops_of(store: Store, shard: str, face_ids: Sequence[str]) -> pl.DataFrame:
    """``face_id`` and ``image`` of these faces in this order, null for one without a crop; reads no further than needed."""
    found = [pl.DataFrame(schema={"face_id": pl.String, "image": pl.Struct({"bytes": pl.Binary, "path": pl.String})})]
    wanted = pl.DataFrame({"face_id": list(face_ids)}, schema={"face_id": pl.String})
    for batch in store.iter_table("face_crops", shard, columns=("face_id", "image")) if len(wanted) else ():
        found.append(batch.filter(pl.col("face_id").is_in(wanted["face_id"].to_list())))
        if sum(map(len, found)) == len(wanted):
            break
    return wanted.join(pl.concat(found), on="face_id", how="left", maintain_order="left")


def _decoded(rows: pl.DataFrame) -> list[np.ndarray | None]:
    """The rows' pictures, None for one that does not decode (any more): a preview is no reason for a shard to fail."""
    from facecaption_ml.decoding import UndecodableImage, decode_image

    pictures: list[np.ndarray | None] = []
    for data in rows["image"].struct.field("bytes"):
        try:
            pictures.append(decode_image(data))
        except UndecodableImage:
            pictures.append(None)
    return pictures


def _sheet(
    decoded: Sequence[np.ndarray | None],
    texts: Sequence[str],
    alt: str,
    columns: int,
    lines: int | None,
    pictures: int = 1,
) -> dg.MarkdownMetadataValue:
    from facecaption_ml.faces import contact_sheet

    cell = _WIDE_CELL if lines is None or lines > 2 else _CELL
    shown = [(drawn, text) for drawn, text in zip(decoded, texts, strict=True) if drawn is not None]
    if not shown:
        return dg.MetadataValue.md(f"none of these {len(decoded)} pictures can be decoded")
    drawn, captions = [drawn for drawn, _ in shown], [text for _, text in shown]
    sheet = contact_sheet(drawn, captions, columns=columns, cell=cell, caption_lines=lines)
    return shard_picture(sheet, alt, pictures)
