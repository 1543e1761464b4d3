"""What a person looks at in the Dagster UI: pictures, histograms and small tables as metadata values.

Pictures are embedded as JPEG or PNG data of at most a few dozen KB, since each lands in the event log.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

import dagster as dg
import numpy as np

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_MAX_PICTURE_BYTES: Final = 120_000


def picture(image: np.ndarray, alt: str) -> dg.MarkdownMetadataValue:
    """An RGB uint8 [H, W, 3] image; JPEG quality is lowered until it fits into the event log's budget."""
    from facecaption_ml.decoding import encode_jpeg

    for quality in (80, 65, 50, 35, 20):
        data = encode_jpeg(image, quality=quality)
        if len(data) <= _MAX_PICTURE_BYTES:
            break
    return _embedded(data, "jpeg", alt)


def figure(drawn: Figure, alt: str) -> dg.MarkdownMetadataValue:
    """A matplotlib figure, which is closed afterwards."""
    return _embedded(figure_png(drawn), "png", alt)


def figure_png(drawn: Figure) -> bytes:
    """PNG bytes of a matplotlib figure."""
    buffer = io.BytesIO()
    drawn.savefig(buffer, format="png", dpi=90, bbox_inches="tight", facecolor="white")
    return buffer.getvalue()


def histogram(
    values: Sequence[float] | np.ndarray, label: str, *, bins: int = 30, weights: Sequence[float] | None = None
) -> Figure:
    """A histogram of the values, each counted ``weights`` times where weights are given."""
    drawn, axes = _axes(5.0, 2.4)
    axes.hist(np.asarray(values, dtype=float), bins=bins, weights=weights, color="#4c72b0")
    axes.set_xlabel(label)
    axes.set_ylabel("count")
    return drawn


def bars(shares: Mapping[str, float], label: str) -> Figure:
    """Horizontal bars, one per name, in the given order from the top."""
    drawn, axes = _axes(5.0, 0.6 + 0.24 * max(len(shares), 1))
    names = list(shares)[::-1]
    axes.barh(names, [shares[name] for name in names], color="#4c72b0")
    axes.set_xlabel(label)
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


def _cell(value: Any) -> str:
    return "–" if value is None else f"{value:.3f}" if isinstance(value, float) else str(value)


def _embedded(data: bytes, kind: str, alt: str) -> dg.MarkdownMetadataValue:
    return dg.MetadataValue.md(f"![{alt}](data:image/{kind};base64,{base64.b64encode(data).decode()})")


def _axes(width: float, height: float) -> tuple[Figure, Any]:
    from matplotlib.figure import Figure  # not pyplot: no global state, no display

    drawn = Figure(figsize=(width, height))
    axes = drawn.subplots()
    axes.spines[["top", "right"]].set_visible(False)
    return drawn, axes
