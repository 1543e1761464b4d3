"""Template captions: one for a set of labels, or one for each row of the attribute table."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from typing import Final

import polars as pl

from facecaption_ml.captions.template.grammar import CaptionGrammar, bundled_grammar
from facecaption_ml.schemas import SCHEMAS, conform
from facecaption_ml.taxonomy import Gender

PROGRESS_EVERY: Final = 1_000


def template_caption(labels: Sequence[str], gender: Gender | None, seed: int) -> str:
    """A caption of the bundled grammar; see :meth:`CaptionGrammar.caption` for what it takes and raises."""
    return bundled_grammar().caption(labels, gender, seed)


def caption_seed(face_id: str, grammar_version: str, seed: int) -> int:
    """The seed of one face's caption, 0 ≤ seed < 2⁶⁴: the same on every machine, in every process, in any order."""
    key = f"{seed}\n{grammar_version}\n{face_id}".encode()
    return int.from_bytes(hashlib.blake2b(key, digest_size=8).digest(), "little")


def caption_table(
    attributes: pl.DataFrame, grammar: CaptionGrammar, seed: int, on_progress: Callable[[int, int], None] | None = None
) -> pl.DataFrame:
    """A template caption for each row of a ``face_attributes`` table, in its order, as a ``template_captions`` table.

    Uses the columns face_id, gender and labels. Every row gets a caption; one without labels and gender says "person".
    ``on_progress(done, total)`` counts rows and is called every 1,000 rows and at the end.
    Raises ValueError naming the face whose labels or gender are not valid, SchemaError where a column is missing.
    """
    rows = conform(attributes, "face_attributes").select("face_id", "gender", "labels")
    captions: list[str] = []
    version = grammar.version
    for face_id, gender, labels in rows.iter_rows():
        try:
            captions.append(grammar.caption(labels or (), gender, caption_seed(face_id, version, seed)))
        except ValueError as error:
            raise ValueError(f"face {face_id!r}: {error}") from error
        if on_progress and (len(captions) % PROGRESS_EVERY == 0 or len(captions) == len(rows)):
            on_progress(len(captions), len(rows))
    table = rows.with_columns(pl.Series("template_caption", captions, dtype=pl.String))
    return conform(table.select(list(SCHEMAS["template_captions"])), "template_captions")
