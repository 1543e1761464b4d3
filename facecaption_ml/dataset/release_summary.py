"""What is in a release, gathered shard by shard in memory that does not grow with the rows."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Final, NamedTuple

import polars as pl

from facecaption_ml.schemas import CAPTION_SOURCES, LLM, TEMPLATE
from facecaption_ml.taxonomy import CATEGORIES

EXAMPLES: Final = 3
"""Captions of each source that the card shows."""
_MOST_KINDS: Final = 40
_OTHERS: Final = "other reasons"


class Asked(NamedTuple):
    """A model and the prompt that it was given."""

    model: str
    prompt_version: str


class Example(NamedTuple):
    """A released caption, what it was made from, and the labels with their probabilities."""

    caption: str
    template_caption: str | None
    labels: tuple[tuple[str, float], ...]


@dataclass
class CaptionTally:
    """How the released captions came about."""

    sources: Counter[str] = field(default_factory=Counter)
    asked: Counter[Asked] = field(default_factory=Counter)  # captions that a model was asked for
    accepted: Counter[Asked] = field(default_factory=Counter)  # of these, those that it wrote
    attempts: Counter[Asked] = field(default_factory=Counter)  # answers judged for them
    refused: Counter[str] = field(default_factory=Counter)  # why the others keep their template caption
    unasked: Counter[str] = field(default_factory=Counter)  # why no model was asked
    unknown: int = 0  # captions of whose making nothing is stored any more
    kept_out: Counter[str] = field(default_factory=Counter)  # labels that captions may not say → faces that have them
    _examples: dict[str, list[tuple[str, Example]]] = field(default_factory=dict)

    def add(self, released: pl.DataFrame, asked: pl.DataFrame | None, said: pl.DataFrame | None) -> None:
        """Count a shard's rows of ``facecaption_dataset``.

        ``asked``: its ``llm_captions``, with face_id, caption_source, reason, model and prompt_version. ``said``: its
        ``template_captions``, with face_id and labels. None for a table that is not there.
        """
        self.sources.update(released["caption_source"])
        if asked is not None:
            self._add_outcomes(released, asked)
        else:
            self.unknown += len(released)
        if said is not None:
            own = released.select("face_id", "labels").drop_nulls("labels")
            both = own.join(said.select("face_id", said="labels"), on="face_id", how="inner")
            hidden = both.select(pl.col("labels").list.set_difference("said")).explode("labels")["labels"].drop_nulls()
            self.kept_out.update(hidden)
        for source in CAPTION_SOURCES:
            self._show(source, released.filter(pl.col("caption_source") == source))

    def examples(self, source: str) -> list[Example]:
        """A few captions of a source: the same ones however the rows are divided into shards."""
        return [example for _, example in self._examples.get(source, ())]

    def _add_outcomes(self, released: pl.DataFrame, asked: pl.DataFrame) -> None:
        # Rows made anew since then say nothing of what is released.
        rows = released.select("face_id", "caption_source", "attempts").join(
            asked, on=["face_id", "caption_source"], how="inner"
        )
        self.unknown += len(released) - len(rows)
        for source, reason, model, prompt, attempts in rows.select(
            "caption_source", "reason", "model", "prompt_version", "attempts"
        ).iter_rows():
            kind = (reason or "no reason given").partition(":")[0].strip()  # without a server's own words
            if source == LLM or (source == TEMPLATE and attempts):
                key = Asked(model or "unnamed", prompt or "unnamed")
                self.asked[key] += 1
                self.attempts[key] += attempts or 0
                self.accepted[key] += source == LLM
                if source == TEMPLATE:
                    _count(self.refused, kind)
            elif source == TEMPLATE:
                _count(self.unasked, kind)

    def _show(self, source: str, rows: pl.DataFrame) -> None:
        # A face's id is the hash of its URL: its last digits are random, and its first ones have decided the split.
        place = pl.col("face_id").str.slice(8)
        columns = ("caption", "template_caption", "labels", "label_probabilities")
        first = rows.sort(place, "face_id").head(EXAMPLES)
        found = [*self._examples.get(source, ())]
        for key, caption, template, labels, shares in first.select(place.alias("place"), *columns).iter_rows():
            found.append((key, Example(caption, template, tuple(zip(labels or (), shares or (), strict=True)))))
        if found:
            self._examples[source] = sorted(found, key=lambda one: one[0])[:EXAMPLES]


def _count(kinds: Counter[str], kind: str) -> None:
    """Of more kinds than a card can show, the later ones together."""
    kinds[kind if kind in kinds or len(kinds) < _MOST_KINDS else _OTHERS] += 1


@dataclass
class ReleaseSummary:
    """Counts over everything released, gathered shard by shard in memory that does not grow with the rows."""

    by_split: Counter[str] = field(default_factory=Counter)
    labels: Counter[str] = field(default_factory=Counter)
    words: Counter[int] = field(default_factory=Counter)  # words in a caption → captions
    duplicate_faces: int = 0
    left_out: Counter[str] = field(default_factory=Counter)  # left_source or a removal's reason → faces
    side_sum: float = 0.0
    captions: CaptionTally = field(default_factory=CaptionTally)

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
