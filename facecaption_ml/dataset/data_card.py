"""The data card of a release: what is in it, how its labels and captions came about, with what it was made.

Every number is counted from the rows that are released (``release_summary``); ``release_card.md`` is the text around them.
"""

from __future__ import annotations

import html
import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from importlib import resources
from string import Template
from typing import Any, Final

import numpy as np

from facecaption_ml.columns import described_columns
from facecaption_ml.dataset.release_files import SPLITS
from facecaption_ml.dataset.release_summary import CaptionTally, Example, ReleaseSummary
from facecaption_ml.markdown import escape_cell, markdown_table
from facecaption_ml.schemas import CAPTION_SOURCES, DATASET, LLM, PUBLISHED, TEMPLATE
from facecaption_ml.texts import shortened

_SIZES: Final = ("n<1K", "1K<n<10K", "10K<n<100K", "100K<n<1M", "1M<n<10M", "10M<n<100M")  # the hub's words
_LONGEST_EXAMPLE: Final = 600  # characters
_WRITERS: Final = {LLM: "a language model", TEMPLATE: "the grammar", PUBLISHED: "as published"}


def data_card(
    summary: ReleaseSummary,
    funnel: Mapping[str, int],
    versions: Mapping[str, str],
    pixels: bool,
    statistics: str = "None.",
    *,
    label_rule: str,
    kept_out: Sequence[str] = (),
    spent: Mapping[str, str] | None = None,
) -> bytes:
    """The Hugging Face data card (README.md): metadata block, counts, captions' origins, figures, versions.

    ``statistics`` is the Markdown of the sections on the data set's statistics. ``label_rule``: when an attribute is a label,
    such as "p > 0.85". ``kept_out``: labels that the settings keep out of captions. ``spent``: what the language model cost,
    by name, where it is known.
    """
    from huggingface_hub import DatasetCardData

    files = [{"split": split, "path": f"data/{split}-*.parquet"} for split in SPLITS if summary.by_split[split]]
    header = DatasetCardData(
        pretty_name="FaceCaption",
        language="en",
        license="other",
        task_categories=["image-to-text", "text-to-image"],
        size_categories=[_size_category(summary.faces)],
        configs=[{"config_name": "default", "data_files": files}] if files else None,
    )
    template = resources.files("facecaption_ml.dataset").joinpath("release_card.md").read_text(encoding="utf-8")
    body = Template(template).substitute(
        faces=f"{summary.faces:,}" if files else "No pair was made, so that there is nothing to load: 0",
        mean_words=f"{summary.mean_words:.1f}",
        mean_side=f"{summary.mean_side:.0f}",
        duplicates=f"{summary.duplicate_faces:,}",
        left_out=f"{summary.left_out.total():,}",
        columns=_columns(pixels),
        splits=_counted(["split", "pairs"], {split: summary.by_split[split] for split in SPLITS}),
        funnel=_counted(["stage", "count"], funnel),
        label_rule=_label_rule(label_rule, summary.captions),
        saying=_saying(summary.captions),
        captions=_captions(summary.captions, kept_out, spent or {}),
        statistics=statistics,
        versions=markdown_table(["part", "version"], [[name, escape_cell(text)] for name, text in versions.items()]),
        pixels="`image`: the aligned crop." if pixels else "Pixels are not part of this release.",
    )
    return f"---\n{header.to_yaml()}\n---\n\n{body}".encode()


def summary_json(summary: ReleaseSummary, funnel: Mapping[str, int]) -> bytes:
    """The card's numbers for programs."""
    tally = summary.captions
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
            "captions": {
                "sources": {source: tally.sources[source] for source in CAPTION_SOURCES},
                "models": [
                    {
                        **asked._asdict(),
                        "asked": count,
                        "accepted": tally.accepted[asked],
                        "attempts": tally.attempts[asked],
                    }
                    for asked, count in sorted(tally.asked.items())
                ],
                "refused": dict(tally.refused.most_common()),
                "not_asked": dict(tally.unasked.most_common()),
                "unknown": tally.unknown,
                "labels_kept_out": dict(sorted(tally.kept_out.items())),
            },
            "funnel": dict(funnel),
        },
        indent=2,
    ).encode()


def _label_rule(words: str, tally: CaptionTally) -> str:
    """The rule, and which pairs have no labels beside others that have: those whose caption was published with the picture."""
    published, others = tally.sources[PUBLISHED], tally.sources[TEMPLATE] + tally.sources[LLM]
    if published and others:
        return f"{words}. The {published:,} pairs with a published caption have no labels: no predictor was asked"
    return words


def _saying(tally: CaptionTally) -> str:
    """What a caption says, by who wrote those that are released."""
    sentences = []
    if tally.sources[TEMPLATE] or tally.sources[LLM]:
        sentences.append(
            "A caption by the grammar says the labels of its face and nothing else."
            if not tally.sources[LLM]
            else "A caption by the grammar or by a language model says the labels of its face and nothing else: the grammar is "
            "conditioned on them, and a rewrite is taken only where it asserts every one of them and adds nothing."
        )
    if tally.sources[PUBLISHED]:
        sentences.append(
            "A published caption came with its picture and is as it was: nothing holds it to the labels of the face."
        )
    return " ".join(sentences) or "There are no captions."


def _captions(tally: CaptionTally, kept_out: Sequence[str], spent: Mapping[str, str]) -> str:
    """Who wrote them, what a model was asked for and what came of it, what they may not say, and examples."""
    total = max(tally.sources.total(), 1)
    rows = [
        [f"{_WRITERS[source]} (`{source}`)", f"{count:,}", f"{count / total:.1%}"]
        for source in CAPTION_SOURCES
        if (count := tally.sources[source])
    ]
    parts = [
        markdown_table(["written by", "pairs", "share"], rows, "lrr") if rows else "There are none.",
        *_models(tally),
    ]
    if spent:
        parts.append(f"What it took: {', '.join(f'{name} {amount}' for name, amount in spent.items())}.")
    if tally.sources[LLM] or tally.sources[TEMPLATE]:
        parts.append(_silent(tally.kept_out, kept_out))
    parts += [_shown(source, tally.examples(source)) for source in CAPTION_SOURCES if tally.examples(source)]
    return "\n\n".join(parts)


def _models(tally: CaptionTally) -> Iterable[str]:
    if not tally.asked:
        yield "No language model was asked."
    else:
        rows = [
            [
                f"`{asked.model}`",
                asked.prompt_version,
                f"{count:,}",
                f"{tally.accepted[asked]:,}",
                f"{tally.accepted[asked] / count:.1%}",
                f"{tally.attempts[asked] / count:.2f}",
            ]
            for asked, count in sorted(tally.asked.items())
        ]
        head = ["model", "prompt", "captions asked for", "accepted", "acceptance rate", "answers judged a caption"]
        yield markdown_table(head, rows, "llrrrr")
        if tally.refused:
            yield "Where no answer was good enough, the template caption stays:"
            yield _counted(["reason", "pairs"], dict(tally.refused.most_common()))
    if tally.unasked and tally.asked:
        yield "Not asked for at all:"
        yield _counted(["reason", "pairs"], dict(tally.unasked.most_common()))
    if tally.unknown:
        yield f"Of {tally.unknown:,} captions it is not stored any more how they came about."


def _silent(counted: Counter[str], kept_out: Sequence[str]) -> str:
    """The labels that captions may not say: those that the settings name, and those that the rows show to be missing."""
    names = [*kept_out, *sorted(set(counted) - set(kept_out))]
    if not names:
        return "Captions say every label of a face; only a woman's No_Beard goes without saying."
    listed = ", ".join(f"{name} (a label of {counted[name]:,} faces)" for name in names)
    gender = " Male stands for the gender: no caption tells it, nor a woman's No_Beard." if "Male" in names else ""
    return f"Labels kept out of captions, though `labels` has them: {listed}.{gender}"


def _shown(source: str, examples: Sequence[Example]) -> str:
    written = "Published captions" if source == PUBLISHED else f"Captions by {_WRITERS[source]}"
    lines = [f"{written}, for example:", ""]
    for example in examples:
        lines.append(f"- {_quoted(example.caption)}")
        if source == LLM and example.template_caption:
            lines.append(f"  - template: {_quoted(example.template_caption)}")
        if example.labels:
            lines.append(f"  - labels: {', '.join(f'{name} {share:.2f}' for name, share in example.labels)}")
    return "\n".join(lines)


def _quoted(text: str) -> str:
    """A caption as a line of Markdown, whoever wrote it."""
    return html.escape(shortened(text, _LONGEST_EXAMPLE), quote=False)


def _columns(pixels: bool) -> str:
    rows = [
        [f"`{column.name}`", column.kind, escape_cell(column.text)]
        for column in described_columns(DATASET)
        if pixels or column.name != "image"
    ]
    return markdown_table(["column", "type", "what it holds"], rows)


def _counted(head: Sequence[str], counts: Mapping[str, Any]) -> str:
    return markdown_table(head, [[escape_cell(str(name)), f"{count:,}"] for name, count in counts.items()], "lr")


def _size_category(rows: int) -> str:
    return _SIZES[np.searchsorted((1e3, 1e4, 1e5, 1e6, 1e7), rows, side="right")]
