"""What a person looks at in the Dagster UI: pictures, histograms and small tables as metadata values.

Pictures are embedded as JPEG or PNG data of at most a few dozen KB, since each lands in the event log.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

import dagster as dg
import numpy as np
import polars as pl

from facecaption_ml.statistics import figures

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_MAX_PICTURE_BYTES: Final = 120_000
_MAX_ROWS: Final = 60


def picture(image: np.ndarray, alt: str) -> dg.MarkdownMetadataValue:
    """An RGB uint8 [H, W, 3] image; JPEG quality is lowered until it fits into the event log's budget."""
    from facecaption_ml.decoding import encode_jpeg

    for quality in (80, 65, 50, 35, 20):
        data = encode_jpeg(image, quality=quality)
        if len(data) <= _MAX_PICTURE_BYTES:
            break
    return _embedded(data, "jpeg", alt)


def figure(drawn: Figure, alt: str) -> dg.MarkdownMetadataValue:
    """A figure, on a transparent background."""
    return png(figures.png(drawn), alt)


def png(data: bytes, alt: str) -> dg.MarkdownMetadataValue:
    """A picture that is PNG data already."""
    return _embedded(data, "png", alt)


def histogram(
    values: Sequence[float] | np.ndarray, label: str, *, bins: int = 30, weights: Sequence[float] | None = None
) -> Figure:
    """A histogram of the values, each counted ``weights`` times where weights are given."""
    drawn, (axes,) = figures.new_figure(5.0, 2.4)
    axes.hist(np.asarray(values, dtype=float), bins=bins, weights=weights, color=figures.COLOURS[0])
    axes.set_xlabel(label)
    axes.set_ylabel("count")
    return drawn


def bars(shares: Mapping[str, float], label: str) -> Figure:
    """Horizontal bars with their numbers, one per name, in the given order from the top."""
    drawn, (axes,) = figures.new_figure(5.0, 0.6 + 0.24 * max(len(shares), 1))
    whole = all(float(value).is_integer() for value in shares.values())
    figures.bars(axes, shares, label, "{:,.0f}" if whole else "{:.3f}")
    return drawn


def counts(heading: str, by_name: Mapping[str, int]) -> dict[str, int]:
    """One number of metadata per name, largest first, so that the UI shows it at a glance and plots it over partitions."""
    ordered = sorted(by_name.items(), key=lambda item: (-item[1], item[0]))
    return {f"{heading}: {name}": int(count) for name, count in ordered}


def rows(header: Sequence[str], body: Sequence[Sequence[Any]]) -> dg.TableMetadataValue:
    """A small table, a column per name of ``header``; numbers are rounded to three decimals."""
    records = [dg.TableRecord(dict(zip(header, map(_cell, row), strict=True))) for row in body]
    schema = dg.TableSchema([dg.TableColumn(name) for name in header])
    return dg.MetadataValue.table(records, schema)


def frame(table: pl.DataFrame) -> dg.TableMetadataValue:
    """The first rows of a table."""
    return rows(table.columns, list(table.head(_MAX_ROWS).iter_rows()))


def _cell(value: Any) -> str:
    return "–" if value is None else f"{value:.3f}" if isinstance(value, float) else str(value)


def _embedded(data: bytes, kind: str, alt: str) -> dg.MarkdownMetadataValue:
    return dg.MetadataValue.md(f"![{alt}](data:image/{kind};base64,{base64.b64encode(data).decode()})")


def crop_sheet(crops: pl.DataFrame, texts: Sequence[str] | None) -> dg.MarkdownMetadataValue:
    """The pictures of a few rows of ``face_crops`` on one sheet, with a line of text each: by default their scores."""
    from facecaption_ml.decoding import decode_image
    from facecaption_ml.faces import contact_sheet

    decoded = [decode_image(data) for data in crops["image"].struct.field("bytes")]
    return picture(contact_sheet(decoded, list(texts or (f"{score:.3f}" for score in crops["score"]))), "face crops")
