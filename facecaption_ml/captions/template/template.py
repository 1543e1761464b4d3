"""Template captions: one for a set of labels, or one for each row of the attribute table."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Sequence
from typing import Final

import polars as pl

from facecaption_ml.captions.labels import captioned_labels
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


def face_caption(
    grammar: CaptionGrammar,
    face_id: str,
    labels: Sequence[str],
    gender: Gender | None,
    seed: int,
    excluded: Collection[str] = (),
) -> str:
    """The template caption of one face, of the data set or of a single photograph: the same wording for both.

    ``excluded``: attributes kept out of captions. Raises ValueError as :meth:`CaptionGrammar.caption` does.
    """
    return grammar.caption(*captioned_labels(labels, gender, excluded), caption_seed(face_id, grammar.version, seed))


def caption_table(
    attributes: pl.DataFrame,
    grammar: CaptionGrammar,
    seed: int,
    on_progress: Callable[[int, int], None] | None = None,
    excluded: Collection[str] = (),
) -> pl.DataFrame:
    """A template caption for each row of a ``face_attributes`` table, in its order, as a ``template_captions`` table.

    Uses the columns face_id, gender and labels. Every row gets a caption; one without labels and gender says "person".
    ``excluded``: attributes kept out of captions; the table's own labels and gender are without them (``captioned_labels``).
    ``on_progress(done, total)`` counts rows and is called every 1,000 rows and at the end.
    Raises ValueError naming the face whose labels or gender are not valid, SchemaError where a column is missing.
    """
    rows = conform(attributes, "face_attributes").select("face_id", "gender", "labels")
    written: list[tuple[str, str, tuple[str, ...], Gender | None]] = []
    for face_id, own_gender, own_labels in rows.iter_rows():
        labels, gender = captioned_labels(own_labels or (), own_gender, excluded)
        try:
            caption = face_caption(grammar, face_id, labels, gender, seed)
        except ValueError as error:
            raise ValueError(f"face {face_id!r}: {error}") from error
        written.append((face_id, caption, labels, gender))
        if on_progress and (len(written) % PROGRESS_EVERY == 0 or len(written) == len(rows)):
            on_progress(len(written), len(rows))
    table = pl.DataFrame(written, schema=dict(SCHEMAS["template_captions"]), orient="row")
    return conform(table, "template_captions")
