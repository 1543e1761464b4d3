"""How template captions of real label rows read: openings, sentences that begin alike, words, unique 4-grams.

    python bench/template_style.py --celeba FOLDER [--rows 5000] [--captions 100000] [--json FILE]

FOLDER has CelebA's ``list_attr_celeba.txt``; every positive label counts as asserted, conflicts settled. Speed is of processor
time over all captions, tables warm after the first 5,000. Run it with another checkout on PYTHONPATH for a before and after.
"""

from __future__ import annotations

import argparse
import re
import statistics
import time
from collections import Counter
from pathlib import Path

import numpy as np
import polars as pl
from harness import machine, write_json

from facecaption_ml.attributes.celeba import parse_attributes
from facecaption_ml.captions import CaptionGrammar, caption_seed, check_faithful
from facecaption_ml.markdown import markdown_table
from facecaption_ml.statistics.ngrams import gram_hashes, word_hashes, words
from facecaption_ml.taxonomy import ATTRIBUTES, FEMALE, Gender, settle_conflicts

Row = tuple[str, list[str], Gender]


def label_rows(folder: Path, count: int) -> list[Row]:
    """Picture, settled labels and gender of the first rows."""
    file = folder / "list_attr_celeba.txt"
    rows: list[Row] = []
    for name, values in list(parse_attributes(file.read_text(), str(file)).items())[:count]:
        labels = [attribute for attribute, holds in zip(ATTRIBUTES, values, strict=True) if holds]
        gender: Gender = "male" if "Male" in labels else "female"
        kept = settle_conflicts([*labels, *([FEMALE] if gender == "female" else [])])[0]
        rows.append((name, [label for label in kept if label != FEMALE], gender))
    return rows


def figures(rows: list[Row], many: int) -> dict[str, float]:
    """What the captions of the rows are like; of ``many`` captions, the rows again under other ids, the unique 4-grams."""
    grammar = CaptionGrammar.load()
    first = [grammar.caption(labels, gender, caption_seed(name, grammar.version, 0)) for name, labels, gender in rows]
    openings = Counter(tuple(re.findall(r"[\w'-]+", text.lower())[:3]) for text in first)
    starts = [[sentence.split()[0] for sentence in text.split(". ")] for text in first]
    alike = sum(any(a == b == c for a, b, c in zip(s, s[1:], s[2:], strict=False)) for s in starts)
    unfaithful = sum(
        not check_faithful(text, labels, g).faithful for text, (_, labels, g) in zip(first, rows, strict=True)
    )
    start = time.process_time()
    captions = []
    for number in range(many):
        name, labels, gender = rows[number % len(rows)]
        seed = caption_seed(f"{name}_{number // len(rows)}", grammar.version, 0)
        captions.append(grammar.caption(labels, gender, seed))
    rate = many / (time.process_time() - start)
    hashes, texts, vocabulary = word_hashes(words(pl.Series(captions)))
    enough = [
        len(text.split()) for text, (_, labels, g) in zip(first, rows, strict=True) if len(labels) + (g == "female") > 5
    ]
    return {
        "rows": len(rows),
        "openings of three words": len(openings),
        "three sentences that begin alike, share": alike / len(rows),
        "mean words, more than five labels": statistics.mean(enough),
        "sentences": statistics.mean(map(len, starts)),
        "not faithful": unfaithful,
        f"unique 4-grams of {many:,}": len(np.unique(gram_hashes(hashes, texts, 4)[0])),
        "vocabulary": len(vocabulary),
        "captions a second": rate,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--celeba", type=Path, required=True, help="folder with list_attr_celeba.txt")
    parser.add_argument("--rows", type=int, default=5000)
    parser.add_argument("--captions", type=int, default=100_000)
    parser.add_argument("--json", type=Path, help="write the figures here")
    options = parser.parse_args()
    found = figures(label_rows(options.celeba, options.rows), options.captions)
    print(markdown_table(("figure", "value"), [(name, f"{value:,.4g}") for name, value in found.items()], "lr"))
    write_json(options.json, {"machine": machine(), **found})


if __name__ == "__main__":
    main()
