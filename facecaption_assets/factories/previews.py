"""What a person looks at in the Dagster UI: pictures, histograms and small tables as metadata values.

All of it lands in the event log. So pictures have at most ``MOST_PICTURE_BYTES``, those of a shard ``SHARD_PICTURE_BYTES``
together, since there are thousands of shards; tables have at most ``MOST_ROWS`` rows, and their texts are cut to a line. Longer
tables lie in the store.
"""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

import dagster as dg
import numpy as np

from facecaption_assets.factories import inline_charts
from facecaption_ml import figures
from facecaption_ml.texts import shortened

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MOST_PICTURE_BYTES: Final = 60_000
SHARD_PICTURE_BYTES: Final = 21_000
"""As text a third more; with tables and numbers a shard then leaves less than 40 kB for each asset."""
MOST_ROWS: Final = 12
_WEBP_QUALITY: Final = 30  # a larger picture shows more than a finer one of as many bytes


def picture(image: np.ndarray, alt: str) -> dg.MarkdownMetadataValue:
    """An RGB uint8 [H, W, 3] image; JPEG quality is lowered until it fits into the event log's budget."""
    from facecaption_ml.decoding import encode_jpeg

    for quality in (80, 65, 50, 35, 20):
        data = encode_jpeg(image, quality=quality)
        if len(data) <= MOST_PICTURE_BYTES:
            break
    return _embedded(data, "jpeg", alt)


def shard_picture(image: np.ndarray, alt: str, pictures: int = 1) -> dg.MarkdownMetadataValue:
    """An RGB uint8 [H, W, 3] image as WebP, made smaller until it fits on the page of a shard that has so many ``pictures``."""
    from PIL import Image

    whole = shown = Image.fromarray(image)
    scale = 1.0
    while True:
        buffer = io.BytesIO()
        shown.save(buffer, "WEBP", quality=_WEBP_QUALITY)
        over = buffer.tell() * pictures / SHARD_PICTURE_BYTES
        if over <= 1 or min(shown.size) < 2:
            return _embedded(buffer.getvalue(), "webp", alt)
        scale *= min(0.95 / math.sqrt(over), 0.9)
        size = max(int(whole.width * scale), 1), max(int(whole.height * scale), 1)
        shown = whole.resize(size, Image.Resampling.LANCZOS)


def figure(drawn: Figure, alt: str) -> dg.MarkdownMetadataValue:
    """A figure, on a transparent background."""
    return png(figures.png(drawn), alt)


def png(data: bytes, alt: str) -> dg.MarkdownMetadataValue:
    """A picture that is PNG data already; a large one becomes a JPEG on white."""
    return _embedded(data, "png", alt) if len(data) <= MOST_PICTURE_BYTES else picture(_on_white(data), alt)


def histogram(
    values: Sequence[float] | np.ndarray, label: str, *, bins: int = 30, weights: Sequence[float] | None = None
) -> Figure:
    """A histogram of the values, each counted ``weights`` times where weights are given."""
    drawn, (axes,) = figures.new_figure(5.0, 2.4)
    axes.hist(np.asarray(values, dtype=float), bins=bins, weights=weights, color=figures.COLOURS[0])
    axes.set_xlabel(label)
    axes.set_ylabel("count")
    return drawn


def bars(by_name: Mapping[str, float], label: str) -> Figure:
    """Horizontal bars with their numbers, one per name, in the given order from the top."""
    drawn, (axes,) = figures.new_figure(5.0, 0.6 + 0.24 * max(len(by_name), 1))
    whole = all(float(value).is_integer() for value in by_name.values())
    figures.bars(axes, by_name, label, "{:,.0f}" if whole else "{:.3f}")
    return drawn


def spread(values: Sequence[float] | np.ndarray, unit: str, alt: str) -> dg.MarkdownMetadataValue:
    """A histogram that the UI shows in place."""
    return dg.MetadataValue.md(inline_charts.histogram(values, unit, alt))


def shares(
    by_name: Mapping[str, float], alt: str, baseline: Mapping[str, float] | None = None
) -> dg.MarkdownMetadataValue:
    """Bars of shares of 1, with ticks where a ``baseline`` lies; many of them stand behind a link of the UI."""
    return dg.MetadataValue.md(inline_charts.bars(by_name, alt, baseline))


def amounts(by_name: Mapping[str, int], alt: str) -> dg.MarkdownMetadataValue:
    """Bars of counts; many of them stand behind a link of the UI."""
    return dg.MetadataValue.md(inline_charts.bars(by_name, alt, form="{:,.0f}"))


def counts(heading: str, by_name: Mapping[str, int]) -> dict[str, int]:
    """One number of metadata per name, largest first, so that the UI shows it at a glance and plots it over partitions."""
    ordered = sorted(by_name.items(), key=lambda item: (-item[1], item[0]))
    return {f"{heading}: {name}": int(count) for name, count in ordered}


def rows(header: Sequence[str], body: Sequence[Sequence[Any]], rest: str = "the store") -> dg.TableMetadataValue:
    """A small table, a column per name of ``header``; numbers are rounded to three decimals, texts cut.

    Of more rows than ``MOST_ROWS`` the first are shown, and the last one says how many more there are in ``rest``.
    """
    shown = list(body)
    if len(shown) > MOST_ROWS:
        left = len(shown) - MOST_ROWS + 1
        shown = [*shown[: MOST_ROWS - 1], (f"… {left:,} more in {rest}", *[""] * (len(header) - 1))]
    records = [dg.TableRecord(dict(zip(header, map(_cell, row), strict=True))) for row in shown]
    schema = dg.TableSchema([dg.TableColumn(name) for name in header])
    return dg.MetadataValue.table(records, schema)


def _on_white(png: bytes) -> np.ndarray:
    from PIL import Image

    drawn = Image.open(io.BytesIO(png)).convert("RGBA")
    white = Image.new("RGBA", drawn.size, "white")
    return np.asarray(Image.alpha_composite(white, drawn).convert("RGB"))


def _cell(value: Any) -> str:
    return "–" if value is None else f"{value:.3f}" if isinstance(value, float) else shortened(str(value))


def _embedded(data: bytes, kind: str, alt: str) -> dg.MarkdownMetadataValue:
    return dg.MetadataValue.md(f"![{alt}](data:image/{kind};base64,{base64.b64encode(data).decode()})")
