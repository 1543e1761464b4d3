"""The public form of the data set: image URL, face box, caption; no pixels unless asked (spec §1).

A shard is joined, cleared of what the removal list names and split by source URL. The release then packs all shards into a
folder that ``datasets.load_dataset`` opens, leaving out images that another URL has already brought (equal SHA-256).
"""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import polars as pl

from facecaption_ml.dataset.release_files import PREFIX, SplitWriter
from facecaption_ml.dataset.release_summary import ReleaseSummary
from facecaption_ml.dataset.removals import RemovalList
from facecaption_ml.dataset.sources import mark_duplicates
from facecaption_ml.errors import FaceCaptionError
from facecaption_ml.schemas import DATASET, LLM, PUBLISHED, SCHEMAS, SOURCE, conform
from facecaption_ml.storage.store import Store
from facecaption_ml.taxonomy import ATTRIBUTES


class ReleaseError(FaceCaptionError):
    """The shards cannot be packed together; the message names the one at fault."""


class OldShardError(ReleaseError):
    """A shard lacks a column that an earlier version of the code did not write."""

    option = ""  # no setting is at fault


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

    ``crops``: face_id, sample_id, url, box, alt_text and, where pixels are wanted, image. ``captions``: as of
    ``released_captions``. ``sha256_of``: sample id → hash of the image file.
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


def require_one_form(store: Store, shards: Iterable[str], wanted: bool) -> None:
    """Raises ReleaseError naming the first shard of ``facecaption_dataset`` that cannot go into one release with the rest.

    That is one with pixels, or without them, where ``wanted`` says otherwise, or one that an earlier version of the code made
    without a column of today: one release has one form.
    """
    for shard in shards:
        columns = store.stored_schema(DATASET, shard)[0]
        missing = [name for name in SCHEMAS[DATASET] if name not in columns]
        if missing:
            raise OldShardError(
                f"{shard} was made without the column {missing[0]!r}: rebuild facecaption_dataset of it"
            )
        there = "image" in columns
        if there != wanted:
            raise ReleaseError(
                f"{wanted}, but {shard} was made with{'' if there else 'out'} pixels: rebuild facecaption_dataset of it, or "
                f"set it to {there}"
            )


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
        writer = SplitWriter(Path(scratch), store)
        for number, (shard, frame) in enumerate(_released(store, shards, removed or RemovalList(), summary), start=1):
            summary.add(frame)
            summary.captions.add(frame, *_how_captioned(store, shard))
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
    """What ``facecaption_dataset`` says of a shard's captioned faces, in the order of ``llm_captions``.

    ``face_id, caption, caption_source, caption_model, prompt_version, attempts, template_caption, labels,
    label_probabilities``. Labels and probabilities are the face's own, those kept out of captions among them. Model and prompt
    are those that wrote the caption, null where none did. A shard of published captions has neither templates nor labels.
    """
    wrote = pl.col("caption_source") == LLM
    final = store.read_table("llm_captions", shard).select(
        "face_id",
        "caption",
        "caption_source",
        caption_model=pl.when(wrote).then("model"),
        prompt_version=pl.when(wrote).then("prompt_version"),
        attempts=pl.when(pl.col("caption_source") != PUBLISHED).then("attempts"),
    )
    if len(final) and (final["caption_source"] == PUBLISHED).all():
        absent = {name: SCHEMAS[DATASET][name] for name in ("template_caption", "labels", "label_probabilities")}
        return final.with_columns(pl.lit(None, dtype).alias(name) for name, dtype in absent.items())
    template = store.read_table("template_captions", shard, columns=["face_id", "template_caption"])
    labelled = _with_probabilities(
        store.read_table("face_attributes", shard, columns=["face_id", "labels", *ATTRIBUTES])
    )
    joined = final.join(template, on="face_id", how="inner", maintain_order="left")
    return joined.join(labelled, on="face_id", how="inner", maintain_order="left")


def _with_probabilities(attributes: pl.DataFrame) -> pl.DataFrame:
    """``face_id, labels, label_probabilities`` of rows of ``face_attributes``."""
    column = {name: place for place, name in enumerate(ATTRIBUTES)}
    values = attributes.select(ATTRIBUTES).to_numpy()
    rows = enumerate(attributes["labels"])
    found = [[float(values[row, column[label]]) for label in labels] for row, labels in rows]
    return attributes.select("face_id", "labels").with_columns(
        label_probabilities=pl.Series(found, dtype=SCHEMAS[DATASET]["label_probabilities"])
    )


def _how_captioned(store: Store, shard: str) -> tuple[pl.DataFrame | None, pl.DataFrame | None]:
    """Of a shard's faces what was asked of which model, and the labels that captions may say; None for a table not there."""
    columns = {
        "llm_captions": ["face_id", "caption_source", "reason", "model", "prompt_version"],
        "template_captions": ["face_id", "labels"],
    }
    asked, said = (
        store.read_table(table, shard, columns=names) if store.has_table(table, shard) else None
        for table, names in columns.items()
    )
    return asked, said


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
) -> Iterator[tuple[str, pl.DataFrame]]:
    """The shards, each with its rows that are still wanted, less the faces of images that an earlier shard holds under
    another URL.
    """
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
        yield shard, kept
