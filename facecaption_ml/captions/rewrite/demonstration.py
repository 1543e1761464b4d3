"""A small model's rewrites of a few captions, shown beside the templates that the data set keeps."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import polars as pl

from facecaption_ml.captions.guided.calibration import Calibration, calibration_of
from facecaption_ml.captions.rewrite.rewriting import LLM, Rewriter
from facecaption_ml.markdown import escape_cell, markdown_table

_DEMONSTRATION: Final = "It is a demonstration"
_WORTH: Final = "Such rewrites count as better than nothing"


@dataclass(frozen=True)
class Demonstration:
    """``rewrites``: those that were taken, ``caption``, with face_id, template_caption, labels and gender. ``kept``: how many
    templates had none, by reason."""

    model_id: str
    rewrites: pl.DataFrame
    kept: Mapping[str, int]
    calibration: Calibration | None

    @property
    def pairs(self) -> list[tuple[str, str]]:
        """Template captions and their rewrites."""
        return list(self.rewrites.select("template_caption", "caption").iter_rows())

    @property
    def told(self) -> str:
        """What it is, in a line or two."""
        count = len(self.rewrites) + sum(self.kept.values())
        known = self.calibration
        judged = f" ({known.told})" if known and known.pairs else " (its rewrites have not been judged)"
        verdict = _WORTH if known and known.worth_having else _DEMONSTRATION
        rewrote = f"{self.model_id} rewrote {len(self.rewrites)} of {count} captions."
        return f"{rewrote} {verdict}{judged}; here they are shown, and the data set keeps the templates."

    @property
    def markdown(self) -> str:
        """All pairs side by side, under what they are."""
        rows = [(escape_cell(template), escape_cell(rewrite)) for template, rewrite in self.pairs]
        return f"{self.told}\n\n{markdown_table(['template caption', 'rewrite'], rows)}"

    def lines(self, most: int) -> list[str]:
        """The first pairs for a terminal, each template above its rewrite."""
        return [line for pair in self.pairs[:most] for line in (f"  template  {pair[0]}", f"  rewrite   {pair[1]}", "")]


def demonstrate(rewriter: Rewriter, templates: pl.DataFrame, count: int) -> Demonstration:
    """Rewrite the first ``count`` different captions of a ``template_captions`` table. Raises ChatModelError."""
    few = templates.unique("template_caption", keep="first", maintain_order=True).head(count)
    written = rewriter.rewrite(few).join(few, on="face_id", how="inner", maintain_order="left")
    taken = written.filter(caption_source=LLM).select("face_id", "template_caption", "caption", "labels", "gender")
    reasons = written.filter(pl.col("caption_source") != LLM)["reason"].value_counts(sort=True)
    known = calibration_of(rewriter.model.model_id)
    return Demonstration(rewriter.model_id, taken, dict(reasons.iter_rows()), known)
