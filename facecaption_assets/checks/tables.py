"""What must hold of each shard's table. Each function looks at the finished rows and returns one check."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import polars as pl

from facecaption_assets.factories.check import Check
from facecaption_ml.attributes.label_scores import LabelScore
from facecaption_ml.attributes.labels import LabelRule
from facecaption_ml.captions import check_faithful
from facecaption_ml.captions.rewrite.judgement import unclean
from facecaption_ml.dataset.removals import RemovalList
from facecaption_ml.schemas import LLM, PUBLISHED, TEMPLATE
from facecaption_ml.taxonomy import FEMALE, settle_conflicts

_BELOW, _ABOVE = 0.05, 0.02  # how far a share that is right may lie beside the probabilities

SOURCE_MANIFEST: Final[Mapping[str, str]] = {
    "rows_conserved": "Rows of the source, counted apart from the reader, = rows in shards + rows dropped by reason.",
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
ATTRIBUTE_MODEL: Final[Mapping[str, str]] = {
    "beats_majority": "Mean accuracy on held-out faces is above that of always answering the majority class.",
    "calibrated": "Of the held-out labels just above the threshold, as many are right as their probabilities say.",
    "precise_labels": "Of the held-out labels under the thresholds for a precision, at least that share is right.",
}
FACE_ATTRIBUTES: Final[Mapping[str, str]] = {
    "faces_conserved": "Crops in = kept + dropped by reason.",
    "thresholds": "Every label's probability exceeds its threshold, and every face has as many labels as the settings ask for.",
    "no_conflicts": "No face carries two labels that contradict each other.",
    "unique_faces": "No face id occurs twice.",
}
TEMPLATE_CAPTIONS: Final[Mapping[str, str]] = {
    "faces_conserved": "Every labelled face has one caption.",
    "faithful": "Every caption asserts all of its labels and nothing else.",
    "unique_faces": "No face id occurs twice.",
}
REWRITING_DEMONSTRATION: Final[Mapping[str, str]] = {
    "faithful": "Every rewrite that is shown asserts all labels of its face and nothing else.",
}
LLM_CAPTIONS: Final[Mapping[str, str]] = {
    "faces_conserved": "Every template caption has one final caption, in the same order.",
    "faithful": "Every final caption asserts all labels of its face and nothing else.",
    "clean_text": "No final caption has control characters, markup or words of another language.",
    "explained": "A caption is the LLM's, or the template's with the reason why.",
    "acceptance": "The share of captions from the LLM reaches the floor.",
}
FACECAPTION_DATASET: Final[Mapping[str, str]] = {
    "faces_conserved": "Captioned faces = released + removed by reason.",
    "removals_honoured": "Nothing on the removal list is released.",
    "one_split_per_url": "No source URL is in two splits.",
    "provenance": "Every caption says who wrote it, an LLM's also which model and prompt; every label has its probability.",
    "unique_faces": "No face id occurs twice.",
}
FACECAPTION_RELEASE: Final[Mapping[str, str]] = {
    "images_in_one_split": "No image, by URL, is in two splits of the packed files.",
}


def conserved(name: str, entered: int, kept: int, dropped: Mapping[str, int], what: str = "rows") -> Check:
    """Rows in = rows kept + rows dropped, by reason; ``what`` they are called."""
    by_reason = {f"dropped: {reason}": count for reason, count in sorted(dropped.items())}
    lost = entered - kept - sum(dropped.values())
    parts = f"{kept:,} kept + {sum(dropped.values()):,} dropped by reason"
    found = f"{entered:,} {what}, but {parts}: {lost:+,} not accounted for" if lost else f"{entered:,} {what} = {parts}"
    return Check(name, not lost, {"in": entered, "kept": kept, **by_reason}, found=found)


def unique(frame: pl.DataFrame, column: str, name: str) -> Check:
    """No value of ``column`` occurs twice; nulls do not count."""
    values = frame.select(column).drop_nulls().group_by(column).len()
    repeated = values.filter(pl.col("len") > 1)[column].sort().to_list()
    return Check.of_each(name, repeated, len(values), f"values of {column} occur once")


def none_of(name: str, frame: pl.DataFrame, offends: pl.Expr, show: str, hold: str, **metadata: Any) -> Check:
    """No row of ``frame`` fulfils ``offends``; offending values of the column ``show`` are given as examples.

    ``hold``: what is said of the rows that do not, such as "faces carry no contradiction".
    """
    return Check.of_each(name, frame.filter(offends)[show].to_list(), len(frame), hold, **metadata)


def rows_conserved(manifest: pl.DataFrame, raw: pl.DataFrame) -> Check:
    same = manifest["sample_id"].to_list() == raw["sample_id"].to_list()
    found = f"{len(raw):,} rows for the {len(manifest):,} of the manifest, " + (
        "in the same order" if same else "not the same ones in the same order"
    )
    return Check("rows_conserved", same, {"in": len(manifest), "out": len(raw)}, found=found)


def failures_explained(facts: pl.DataFrame) -> Check:
    """``facts``: raw_images with ``image_bytes``, the size of each picture, in place of ``image``."""
    has_bytes = pl.col("image_bytes").is_not_null()
    ok = pl.col("status") == "ok"
    whole = has_bytes & pl.col("sha256").is_not_null() & (pl.col("width") > 0) & (pl.col("height") > 0)
    explained = ~has_bytes & pl.col("error").is_not_null()
    offends = ~pl.when(ok).then(whole).otherwise(explained).fill_null(False)
    hold = "rows have a picture with its size and hash, or a reason and no bytes"
    return none_of("failures_explained", facts, offends, "url", hold)


def denials_honoured(raw: pl.DataFrame, denied: RemovalList) -> Check:
    kept = raw.filter(pl.col("status") == "ok").select("url", "sample_id", "sha256")
    # No face yet: an id that names a face must not match its picture.
    bad = [url for url, sample_id, sha256 in kept.iter_rows() if denied.reason(url, f"{sample_id}_", sha256)]
    hold = f"kept images are on no deny or removal list, which have {len(denied):,} entries"
    return Check.of_each("denials_honoured", bad, len(kept), hold, listed=len(denied))


def removals_honoured(released: pl.DataFrame, sha256_of: Mapping[str, str | None], removed: RemovalList) -> Check:
    """``sha256_of`` maps sample ids to the hashes of their files."""
    bad = [
        face_id
        for face_id, url in released.select("face_id", "url").iter_rows()
        if removed.reason(url, face_id, sha256_of.get(face_id.rpartition("_")[0]))
    ]
    hold = f"released faces are not on the removal list, which has {len(removed):,} entries"
    return Check.of_each("removals_honoured", bad, len(released), hold, listed=len(removed))


def faces_conserved(crops: int, faces: Mapping[str, int], rows: int, images: Mapping[str, int], stored: int) -> Check:
    """``faces`` and ``images``: how many came to which outcome; ``rows`` were read of the ``stored`` ones of ``raw_images``."""
    dropped = {reason: count for reason, count in faces.items() if reason != "kept"}
    found = conserved("faces_conserved", sum(faces.values()), crops, dropped, "detected faces")
    whole = sum(images.values()) == rows == stored
    metadata = {**found.metadata, "images in": stored, **{f"images: {name}": count for name, count in images.items()}}
    sentence = f"{found.found}, from {sum(images.values()):,} of {stored:,} images"
    return Check(found.name, found.passed and whole, metadata, found=sentence)


def crop_thresholds(crops: pl.DataFrame, min_score: float, min_side: int) -> Check:
    x0, y0, x1, y1 = (pl.col("box").arr.get(i) for i in range(4))
    offends = (pl.col("score") <= min_score) | ((x1 - x0) <= min_side) | ((y1 - y0) <= min_side)
    hold = f"faces score above {min_score:g} and exceed {min_side} px on both sides of their box"
    return none_of("thresholds", crops, offends, "face_id", hold, min_score=min_score, min_side=min_side)


def beats_majority(accuracy: float, majority: float) -> Check:
    points = 100 * (accuracy - majority)
    side = f"{points:.1f} points above" if points > 0 else f"{-points:.1f} points under"
    found = f"the mean accuracy {accuracy:.1%} is {side} the majority class, {majority:.1%}"
    return Check("beats_majority", points > 0, {"accuracy": accuracy, "majority": majority}, found=found)


def calibrated(right: float | None, low: float, high: float) -> Check:
    """``right``: of the held-out labels with a probability of ``low`` to ``high``, the share that is right; None: no label."""
    metadata = {"right": "undefined" if right is None else round(right, 4), "from": low, "to": high}
    passed = right is not None and low - _BELOW <= right <= high + _ABOVE
    found = f"no held-out label has a probability of {low:.0%} to {high:.0%}"
    if right is not None:
        found = f"{right:.1%} of the labels with a probability of {low:.0%} to {high:.0%} are right"
    return Check("calibrated", passed, metadata, found=found)


def precise_labels(scores: Sequence[LabelScore]) -> Check:
    """``scores``: of the held-out labels under each rule; those of one threshold for all are not asked about here."""
    asked = {score.target: score.everyone.precision for score in scores if score.target}
    short = [target for target, right in asked.items() if right is not None and right < target]
    shown = ", ".join(
        f"{'none' if right is None else f'{right:.1%}'} for {target:g}" for target, right in asked.items()
    )
    found = f"of the held-out labels are right under the thresholds for a precision: {shown}"
    if not asked:
        found = (
            "this checkpoint has no thresholds for a precision, so FACECAPTION_LABEL_PRECISION cannot be used with it"
        )
    metadata = {f"right for a precision of {target:g}": right or 0.0 for target, right in asked.items()}
    return Check("precise_labels", bool(asked) and not short, metadata, found=found)


def label_thresholds(attributes: pl.DataFrame, rule: LabelRule, min_labels: int) -> Check:
    """Recounts each row from its 40 probabilities, independently of how the labels were made."""
    bad = []
    for row in attributes.iter_rows(named=True):
        certain = all(row[label] > rule.thresholds[label] for label in row["labels"])
        female = row["gender"] == "female"
        male_right = (row["gender"] == "male") == ("Male" in row["labels"])
        female_right = not female or 1 - row["Male"] > rule.thresholds[FEMALE]
        if not (certain and male_right and female_right and len(row["labels"]) + female >= min_labels):
            bad.append(row["face_id"])
    hold = f"faces have at least {min_labels} labels, each above its threshold ({rule.words})"
    return Check.of_each("thresholds", bad, len(attributes), hold, rule=rule.words)


def no_conflicts(attributes: pl.DataFrame) -> Check:
    bad = [
        face_id
        for face_id, labels, gender in attributes.select("face_id", "labels", "gender").iter_rows()
        if settle_conflicts([*labels, *([FEMALE] if gender == "female" else [])])[1]
    ]
    return Check.of_each("no_conflicts", bad, len(attributes), "faces carry no two labels that contradict each other")


def captions_conserved(captions: pl.DataFrame, templates: pl.DataFrame) -> Check:
    """``captions``: an ``llm_captions`` table; ``templates``: the one that it was made from."""
    same = captions["face_id"].to_list() == templates["face_id"].to_list()
    found = f"{len(captions):,} final captions for {len(templates):,} template captions, " + (
        "in the same order" if same else "not of the same faces in the same order"
    )
    return Check("faces_conserved", same, {"in": len(templates), "out": len(captions)}, found=found)


def faithful(captions: pl.DataFrame) -> Check:
    bad = [
        f"{face_id}: {caption}"
        for face_id, caption, labels, gender in captions.iter_rows()
        if not check_faithful(caption, labels, gender).faithful
    ]
    return Check.of_each("faithful", bad, len(captions), "captions assert all labels of their face and nothing else")


def clean_text(captions: pl.DataFrame) -> Check:
    """``captions``: face_id, caption."""
    bad = [f"{face_id}: {text}" for face_id, text in captions.select("face_id", "caption").iter_rows() if unclean(text)]
    return Check.of_each("clean_text", bad, len(captions), "captions are plain English text")


def explained(final: pl.DataFrame, template: pl.DataFrame) -> Check:
    """``final``: an ``llm_captions`` table; ``template``: the ``template_captions`` table that it was made from."""
    same = final["caption"] == template["template_caption"]
    kept = (pl.col("caption_source") == "template") & pl.col("reason").is_not_null() & pl.lit(same)
    written = (pl.col("caption_source") == "llm") & pl.col("reason").is_null() & ~pl.lit(same)
    hold = "captions are the LLM's, or the template's with the reason why"
    return none_of("explained", final, ~(kept | written), "face_id", hold)


def acceptance(written: int, captions: int, floor: float, *, asked: bool = True) -> Check:
    """``asked``: whether a language model was; where none was, there is no share that could be too low."""
    if not asked:
        return Check("acceptance", True, {}, found=f"no language model was asked: {captions:,} template captions stay")
    rate = written / captions if captions else 1.0
    metadata = {"rate": round(rate, 4), "floor": floor, "from the LLM": written}
    side = "at or above" if rate >= floor else "under"
    found = f"{written:,} of {captions:,} captions are the LLM's, {rate:.1%}: {side} the floor of {floor:.0%}"
    return Check("acceptance", rate >= floor, metadata, found=found)


def provenance(released: pl.DataFrame) -> Check:
    """``released``: a ``facecaption_dataset`` table."""
    source = pl.col("caption_source")
    named = pl.all_horizontal(pl.col("caption_model", "prompt_version").is_not_null())
    unnamed = pl.all_horizontal(pl.col("caption_model", "prompt_version").is_null())
    as_drawn = unnamed & pl.col("attempts").is_not_null() & (pl.col("caption") == pl.col("template_caption"))
    told = (
        pl.when(source == LLM)
        .then(named & (pl.col("attempts") > 0))
        .when(source == TEMPLATE)
        .then(as_drawn)
        .otherwise((source == PUBLISHED) & unnamed & pl.col("attempts").is_null())
    )
    likely = pl.col("labels").list.len().eq_missing(pl.col("label_probabilities").list.len())
    hold = "captions say who wrote them, and have a probability for each label"
    return none_of("provenance", released, ~(told & likely).fill_null(False), "face_id", hold)


def one_split_per_url(released: pl.DataFrame) -> Check:
    per_url = released.group_by("url").agg(pl.col("split").n_unique())
    return none_of("one_split_per_url", per_url, pl.col("split") > 1, "url", "URLs are in one split")
