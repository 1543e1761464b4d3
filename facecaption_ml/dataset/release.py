"""The public form of the data set: image URL, face box, caption; no pixels unless asked (spec §1).

A shard is joined, cleared of what the removal list names and split by source URL. The release then packs all shards into a
folder that ``datasets.load_dataset`` opens, leaving out images that another URL has already brought (equal SHA-256).
"""

from __future__ import annotations

import json
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from string import Template
from typing import Any, Final

import numpy as np
import polars as pl

from facecaption_ml.dataset.removals import RemovalList
from facecaption_ml.dataset.sources import mark_duplicates
from facecaption_ml.schemas import DATASET, SCHEMAS, SOURCE, conform
from facecaption_ml.storage.store import Store
from facecaption_ml.taxonomy import CATEGORIES

SPLITS: Final = ("train", "validation", "test")
_ROWS_PER_FILE: Final = 500_000
PREFIX: Final = "release"
_SIZES: Final = ("n<1K", "1K<n<10K", "10K<n<100K", "100K<n<1M", "1M<n<10M", "10M<n<100M")  # the hub's words


def split_of(sample_id: str, validation_share: float, test_share: float) -> str:
    """The split of everything from one source URL.

    ``sample_id`` is a hash of the URL, so its position in its range is uniform: the lowest ``test_share`` of the range is
    test, the next ``validation_share`` validation, the rest train. A URL keeps its split whatever else is in the data set.
    """
    position = int(sample_id, 16) / 16 ** len(sample_id)
    if position < test_share:
        return "test"
    return "validation" if position < test_share + validation_share else "train"


def release_table(
    crops: pl.DataFrame,
    captions: pl.DataFrame,
    sha256_of: Mapping[str, str | None],
    removed: RemovalList,
    validation_share: float,
    test_share: float,
) -> tuple[pl.DataFrame, Counter[str]]:
    """A shard of ``facecaption_dataset`` and its captioned faces by outcome (``released`` or a removal's reason).

    ``crops``: face_id, sample_id, url, box, alt_text and, where pixels are wanted, image. ``captions``: face_id, caption,
    template_caption, labels. ``sha256_of``: sample id → hash of the image file.
    """
    joined = captions.join(crops, on="face_id", how="inner", maintain_order="left")
    reasons = [
        removed.reason(url, face_id, sha256_of.get(sample_id)) or "released"
        for face_id, sample_id, url in joined.select("face_id", "sample_id", "url").iter_rows()
    ]
    splits = [split_of(sample_id, validation_share, test_share) for sample_id in joined["sample_id"]]
    kept = joined.with_columns(
        reason=pl.Series(reasons, dtype=pl.String), split=pl.Series(splits, dtype=pl.String)
    ).filter(pl.col("reason") == "released")
    columns = [*SCHEMAS[DATASET], *(["image"] if "image" in joined.columns else [])]
    return conform(kept.select(columns), DATASET), Counter(reasons)


@dataclass
class ReleaseSummary:
    """Counts over everything released, gathered shard by shard in memory that does not grow with the rows."""

    by_split: Counter[str] = field(default_factory=Counter)
    labels: Counter[str] = field(default_factory=Counter)
    words: Counter[int] = field(default_factory=Counter)  # words in a caption → captions
    duplicate_faces: int = 0
    left_out: Counter[str] = field(default_factory=Counter)  # left_source or a removal's reason → faces
    side_sum: float = 0.0

    @property
    def faces(self) -> int:
        return self.by_split.total()

    @property
    def mean_words(self) -> float:
        return sum(words * count for words, count in self.words.items()) / max(self.faces, 1)

    @property
    def mean_side(self) -> float:
        """Mean of the boxes' geometric mean side, px."""
        return self.side_sum / max(self.faces, 1)

    @property
    def category_shares(self) -> dict[str, float]:
        """Share of each category of Fig. 4a among all labels."""
        total = max(self.labels.total(), 1)
        return {name: sum(self.labels[label] for label in group) / total for name, group in CATEGORIES.items()}

    def add(self, frame: pl.DataFrame) -> None:
        self.by_split.update(frame["split"].to_list())
        self.labels.update(frame["labels"].explode().drop_nulls().to_list())
        self.words.update(frame["caption"].str.split(" ").list.len().to_list())
        x0, y0, x1, y1 = (frame["box"].arr.get(i) for i in range(4))
        self.side_sum += float((((x1 - x0) * (y1 - y0)) ** 0.5).sum() or 0.0)


def write_release(
    store: Store,
    shards: Sequence[str],
    make_card: Callable[[ReleaseSummary], Mapping[str, bytes]],
    on_progress: Callable[[int, int], None] | None = None,
    removed: RemovalList | None = None,
) -> ReleaseSummary:
    """Pack the shards of ``facecaption_dataset`` under ``release/`` and return what is in it.

    Faces are left out, and counted, whose row is no longer in the shard's manifest (the source has changed since) or that
    ``removed`` names, whether or not the shard was rebuilt after that.

    Files of an earlier release that this one does not write are removed at the end, so that what a removal took out does
    not stay behind. ``make_card`` gives the other files (data card, figures) by name.
    """
    summary = ReleaseSummary()
    before = set(store.keys(f"{PREFIX}/"))
    with tempfile.TemporaryDirectory() as scratch:
        writer = _SplitWriter(Path(scratch), store)
        for number, frame in enumerate(_released(store, shards, removed or RemovalList(), summary), start=1):
            summary.add(frame)
            writer.add(frame)
            if on_progress:
                on_progress(number, len(shards))
        written = writer.close()
    for name, data in make_card(summary).items():
        store.write_bytes(f"{PREFIX}/{name}", data)
        written.add(f"{PREFIX}/{name}")
    for key in before - written:
        store.delete(key)
    return summary


def released_captions(store: Store, shard: str) -> pl.DataFrame:
    """``face_id, caption, template_caption, labels`` of a shard's captioned faces, in the order of ``llm_captions``."""
    template = store.read_table("template_captions", shard).select("face_id", "template_caption", "labels")
    final = store.read_table("llm_captions", shard, columns=["face_id", "caption"])
    return final.join(template, on="face_id", how="inner", maintain_order="left")


def image_hashes(store: Store, shard: str) -> pl.DataFrame:
    """``sample_id, sha256`` of the images that a shard holds; rows that only repeat a URL have none of their own."""
    return store.read_table("raw_images", shard, columns=["sample_id", "sha256"]).drop_nulls("sha256")


def _still_wanted(
    store: Store, shard: str, frame: pl.DataFrame, hashes: pl.DataFrame, removed: RemovalList
) -> tuple[pl.DataFrame, Counter[str]]:
    """A shard's rows that its manifest has today and no request names, and the others by reason."""
    addresses: dict[str, str | None] | None = None
    if store.has_table(SOURCE, shard):
        # No list of images becomes a shard without rows: such a one only registers the shard.
        addresses = dict(store.read_table(SOURCE, shard, columns=["sample_id", "url"]).iter_rows()) or None
    sha256_of = dict(hashes.iter_rows())
    reasons: list[str | None] = []
    for face_id, url in frame.select("face_id", "url").iter_rows():
        sample = face_id.rpartition("_")[0]
        reason = removed.reason(url, face_id, sha256_of.get(sample))
        if reason is None and addresses is not None:
            reason = "left_source" if sample not in addresses else removed.reason(addresses[sample], face_id, None)
        reasons.append(reason)
    kept = frame.filter(pl.Series(reasons, dtype=pl.String).is_null())
    return kept, Counter(filter(None, reasons))


def _released(
    store: Store, shards: Iterable[str], removed: RemovalList, summary: ReleaseSummary
) -> Iterator[pl.DataFrame]:
    """The shards' rows that are still wanted, less the faces of images that an earlier shard holds under another URL."""
    seen = np.empty(0, np.uint64)
    for shard in shards:
        hashes = image_hashes(store, shard)
        frame, left_out = _still_wanted(store, shard, store.read_table(DATASET, shard), hashes, removed)
        summary.left_out.update(left_out)
        sample = pl.col("face_id").str.slice(0, 16)
        ids = frame.select(sample_id=sample).unique(maintain_order=True).join(hashes, on="sample_id", how="inner")
        keys = np.array([int(sha256[:16], 16) for sha256 in ids["sha256"]], np.uint64)
        duplicate, seen = mark_duplicates(keys, seen)
        repeated = ids.filter(pl.Series(duplicate, dtype=pl.Boolean))["sample_id"]
        kept = frame.filter(~sample.is_in(repeated.implode()))
        summary.duplicate_faces += len(frame) - len(kept)
        yield kept


class _SplitWriter:
    """Parquet files of at most ``_ROWS_PER_FILE`` rows for each split."""

    def __init__(self, folder: Path, store: Store) -> None:
        self._folder, self._store = folder, store
        self._writers: dict[str, Any] = {}
        self._rows: Counter[str] = Counter()
        self._files: Counter[str] = Counter()
        self._written: set[str] = set()

    def add(self, frame: pl.DataFrame) -> None:
        import pyarrow.parquet as pq

        for split in SPLITS:
            rows = frame.filter(pl.col("split") == split)
            if not len(rows):
                continue
            table = rows.to_arrow()
            if split not in self._writers:
                self._writers[split] = pq.ParquetWriter(self._path(split), table.schema, compression="zstd")
            self._writers[split].write_table(table)
            self._rows[split] += len(rows)
            if self._rows[split] >= _ROWS_PER_FILE:
                self._finish(split)

    def close(self) -> set[str]:
        for split in list(self._writers):
            self._finish(split)
        return self._written

    def _path(self, split: str) -> Path:
        return self._folder / f"{split}-{self._files[split]:05d}.parquet"

    def _finish(self, split: str) -> None:
        self._writers.pop(split).close()
        path = self._path(split)
        key = f"{PREFIX}/data/{path.name}"
        self._store.write_bytes(key, path.read_bytes())
        self._written.add(key)
        path.unlink()
        self._files[split] += 1
        self._rows[split] = 0


def data_card(
    summary: ReleaseSummary,
    funnel: Mapping[str, int],
    versions: Mapping[str, str],
    pixels: bool,
    statistics: str = "None.",
) -> bytes:
    """The Hugging Face data card (README.md): metadata block, counts, figures, versions.

    ``statistics`` is the Markdown of the sections on the data set's statistics.
    """
    from huggingface_hub import DatasetCardData

    header = DatasetCardData(
        pretty_name="FaceCaption",
        language="en",
        license="other",
        task_categories=["image-to-text", "text-to-image"],
        size_categories=[_size_category(summary.faces)],
        configs=[
            {
                "config_name": "default",
                "data_files": [
                    {"split": split, "path": f"data/{split}-*.parquet"} for split in SPLITS if summary.by_split[split]
                ],
            }
        ],
    )
    template = resources.files("facecaption_ml.dataset").joinpath("release_card.md").read_text(encoding="utf-8")
    body = Template(template).substitute(
        faces=f"{summary.faces:,}",
        mean_words=f"{summary.mean_words:.1f}",
        mean_side=f"{summary.mean_side:.0f}",
        duplicates=f"{summary.duplicate_faces:,}",
        left_out=f"{summary.left_out.total():,}",
        splits="\n".join(f"| {split} | {summary.by_split[split]:,} |" for split in SPLITS),
        funnel="\n".join(f"| {stage} | {count:,} |" for stage, count in funnel.items()),
        statistics=statistics,
        versions="\n".join(f"| {name} | {version} |" for name, version in versions.items()),
        pixels="`image`: the aligned crop." if pixels else "Pixels are not part of this release.",
    )
    return f"---\n{header.to_yaml()}\n---\n\n{body}".encode()


def summary_json(summary: ReleaseSummary, funnel: Mapping[str, int]) -> bytes:
    """The card's numbers for programs."""
    return json.dumps(
        {
            "faces": summary.faces,
            "splits": {split: summary.by_split[split] for split in SPLITS},
            "mean_words": round(summary.mean_words, 3),
            "mean_side": round(summary.mean_side, 2),
            "duplicate_faces": summary.duplicate_faces,
            "left_out": dict(sorted(summary.left_out.items())),
            "category_shares": {name: round(share, 5) for name, share in summary.category_shares.items()},
            "labels": dict(sorted(summary.labels.items())),
            "words": {str(words): count for words, count in sorted(summary.words.items())},
            "funnel": dict(funnel),
        },
        indent=2,
    ).encode()


def _size_category(rows: int) -> str:
    return _SIZES[np.searchsorted((1e3, 1e4, 1e5, 1e6, 1e7), rows, side="right")]
