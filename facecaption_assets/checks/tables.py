"""What must hold of each shard's table. Each function looks at the finished rows and returns one check."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import polars as pl

from facecaption_assets.factories.check import Check
from facecaption_ml.captions import check_faithful
from facecaption_ml.captions.rewrite.judgement import unclean
from facecaption_ml.dataset.removals import RemovalList
from facecaption_ml.taxonomy import FEMALE, settle_conflicts

_EXAMPLES: Final = 5

SOURCE_MANIFEST: Final[Mapping[str, str]] = {
    "rows_conserved": "Rows of the source = rows in shards + rows dropped by reason.",
}
RAW_IMAGES: Final[Mapping[str, str]] = {
    "rows_conserved": "Every row of the manifest is a row here, in the same order.",
    "failures_explained": "A fetched image has bytes, size and hash; any other row has a reason and no bytes.",
    "unique_images": "No two kept images have the same SHA-256.",
    "denials_honoured": "No image is kept whose URL, host or hash is on a deny or removal list.",
}
FACE_CROPS: Final[Mapping[str, str]] = {
    "faces_conserved": "Detected faces = kept + dropped by reason, and images in = with + without faces + not usable.",
    "thresholds": "Every kept face scores above the floor and both sides of its box exceed the smallest side.",
    "unique_faces": "No face id occurs twice.",
}
FACE_ATTRIBUTES: Final[Mapping[str, str]] = {
    "faces_conserved": "Crops in = kept + dropped by reason.",
    "thresholds": "Every label's probability exceeds the threshold, and every face has as many labels as the settings ask for.",
    "no_conflicts": "No face carries two labels that contradict each other.",
    "unique_faces": "No face id occurs twice.",
}
TEMPLATE_CAPTIONS: Final[Mapping[str, str]] = {
    "faces_conserved": "Every labelled face has one caption.",
    "faithful": "Every caption asserts all of its labels and nothing else.",
    "unique_faces": "No face id occurs twice.",
}
LLM_CAPTIONS: Final[Mapping[str, str]] = {
    "faces_conserved": "Every template caption has one final caption, in the same order.",
    "faithful": "Every final caption asserts all labels of its face and nothing else.",
    "clean_text": "No final caption has control characters, markup or words of another language.",
    "explained": "A caption is the LLM's, or the template's with the reason why.",
    "acceptance": "The share of captions from the LLM reaches the floor (a warning).",
}
FACECAPTION_DATASET: Final[Mapping[str, str]] = {
    "faces_conserved": "Captioned faces = released + removed by reason.",
    "removals_honoured": "Nothing on the removal list is released.",
    "one_split_per_url": "No source URL is in two splits.",
    "unique_faces": "No face id occurs twice.",
}
FACECAPTION_RELEASE: Final[Mapping[str, str]] = {
    "images_in_one_split": "No image, by URL, is in two splits of the packed files.",
}


def conserved(name: str, entered: int, kept: int, dropped: Mapping[str, int]) -> Check:
    """Rows in = rows kept + rows dropped, by reason."""
    by_reason = {f"dropped: {reason}": count for reason, count in sorted(dropped.items())}
    return Check(name, entered == kept + sum(dropped.values()), {"in": entered, "kept": kept, **by_reason})


def unique(frame: pl.DataFrame, column: str, name: str) -> Check:
    """No value of ``column`` occurs twice; nulls do not count."""
    repeated = frame.select(column).drop_nulls().group_by(column).len().filter(pl.col("len") > 1)[column].sort()
    examples = [str(value) for value in repeated.head(_EXAMPLES)]
    return Check(name, repeated.is_empty(), {"repeated": len(repeated), "examples": examples})


def none_of(name: str, frame: pl.DataFrame, offends: pl.Expr, show: str, **metadata: Any) -> Check:
    """No row of ``frame`` fulfils ``offends``; offending values of the column ``show`` are given as examples."""
    return _none(name, frame.filter(offends)[show].to_list(), **metadata)


def _none(name: str, offending: Sequence[Any], **metadata: Any) -> Check:
    examples = [str(value) for value in offending[:_EXAMPLES]]
    return Check(name, not offending, {"offending": len(offending), "examples": examples, **metadata})


def rows_conserved(manifest: pl.DataFrame, raw: pl.DataFrame) -> Check:
    same = manifest["sample_id"].to_list() == raw["sample_id"].to_list()
    return Check("rows_conserved", same, {"in": len(manifest), "out": len(raw)})


def failures_explained(facts: pl.DataFrame) -> Check:
    """``facts``: raw_images with ``image_bytes``, the size of each picture, in place of ``image``."""
    has_bytes = pl.col("image_bytes").is_not_null()
    ok = pl.col("status") == "ok"
    whole = has_bytes & pl.col("sha256").is_not_null() & (pl.col("width") > 0) & (pl.col("height") > 0)
    explained = ~has_bytes & pl.col("error").is_not_null()
    return none_of("failures_explained", facts, ~pl.when(ok).then(whole).otherwise(explained).fill_null(False), "url")


def denials_honoured(raw: pl.DataFrame, denied: RemovalList) -> Check:
    kept = raw.filter(pl.col("status") == "ok").select("url", "sample_id", "sha256")
    # No face yet: an id that names a face must not match its picture.
    bad = [url for url, sample_id, sha256 in kept.iter_rows() if denied.reason(url, f"{sample_id}_", sha256)]
    return _none("denials_honoured", bad, listed=len(denied))


def removals_honoured(released: pl.DataFrame, sha256_of: Mapping[str, str | None], removed: RemovalList) -> Check:
    """``sha256_of`` maps sample ids to the hashes of their files."""
    bad = [
        face_id
        for face_id, url in released.select("face_id", "url").iter_rows()
        if removed.reason(url, face_id, sha256_of.get(face_id.rpartition("_")[0]))
    ]
    return _none("removals_honoured", bad, listed=len(removed))


def crop_thresholds(crops: pl.DataFrame, min_score: float, min_side: int) -> Check:
    x0, y0, x1, y1 = (pl.col("box").arr.get(i) for i in range(4))
    offends = (pl.col("score") <= min_score) | ((x1 - x0) <= min_side) | ((y1 - y0) <= min_side)
    return none_of("thresholds", crops, offends, "face_id", min_score=min_score, min_side=min_side)


def label_thresholds(attributes: pl.DataFrame, threshold: float, min_labels: int) -> Check:
    """Recounts each row from its 40 probabilities, independently of how the labels were made."""
    bad = []
    for row in attributes.iter_rows(named=True):
        certain = all(row[label] > threshold for label in row["labels"])
        female = row["gender"] == "female"
        male_right = (row["gender"] == "male") == ("Male" in row["labels"])
        female_right = not female or 1 - row["Male"] > threshold
        if not (certain and male_right and female_right and len(row["labels"]) + female >= min_labels):
            bad.append(row["face_id"])
    return _none("thresholds", bad, threshold=threshold)


def no_conflicts(attributes: pl.DataFrame) -> Check:
    bad = [
        face_id
        for face_id, labels, gender in attributes.select("face_id", "labels", "gender").iter_rows()
        if settle_conflicts([*labels, *([FEMALE] if gender == "female" else [])])[1]
    ]
    return _none("no_conflicts", bad)


def faithful(captions: pl.DataFrame) -> Check:
    bad = [
        f"{face_id}: {caption}"
        for face_id, caption, labels, gender in captions.iter_rows()
        if not check_faithful(caption, labels, gender).faithful
    ]
    return _none("faithful", bad)


def clean_text(captions: pl.DataFrame) -> Check:
    """``captions``: face_id, caption."""
    bad = [f"{face_id}: {text}" for face_id, text in captions.select("face_id", "caption").iter_rows() if unclean(text)]
    return _none("clean_text", bad)


def explained(final: pl.DataFrame, template: pl.DataFrame) -> Check:
    """``final``: an ``llm_captions`` table; ``template``: the ``template_captions`` table that it was made from."""
    same = final["caption"] == template["template_caption"]
    kept = (pl.col("caption_source") == "template") & pl.col("reason").is_not_null() & pl.lit(same)
    written = (pl.col("caption_source") == "llm") & pl.col("reason").is_null() & ~pl.lit(same)
    return none_of("explained", final, ~(kept | written), "face_id")


def acceptance(written: int, captions: int, floor: float) -> Check:
    rate = written / captions if captions else 1.0
    metadata = {"rate": round(rate, 4), "floor": floor, "from the LLM": written}
    return Check("acceptance", rate >= floor, metadata, blocks=False)


def one_split_per_url(released: pl.DataFrame) -> Check:
    per_url = released.group_by("url").agg(pl.col("split").n_unique())
    return none_of("one_split_per_url", per_url, pl.col("split") > 1, "url")
