"""What tests of source tables share: reading one with its counts, and addresses for its rows."""

from __future__ import annotations

from pathlib import Path

from facecaption_ml.dataset.sources import ManifestCounts, read_source


def read(path: Path | str, **more: object) -> tuple[list[tuple[str | None, str | None]], ManifestCounts]:
    """URL and alt text of every row that the reader hands on, and the counts, which add up."""
    counts = ManifestCounts()
    frames = list(read_source(str(path), counts=counts, **more))  # type: ignore[arg-type]
    rows = [row for frame in frames for row in frame.select("url", "alt_text").iter_rows()]
    assert counts.records == len(rows) + sum(counts.dropped.values())
    return rows, counts


def places(counts: ManifestCounts) -> list[tuple[str, str]]:
    """Place and reason of each row that was dropped or repaired."""
    return [(example.place, example.reason) for example in (*counts.dropped_examples, *counts.repaired_examples)]


def urls(count: int) -> list[str]:
    return [f"http://a.test/{number}.jpg" for number in range(count)]
