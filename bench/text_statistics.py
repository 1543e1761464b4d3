"""Memory and time of the text statistics, and that both grow as they should, beside the plain way.

    python bench/text_statistics.py [--captions 2000000] [--plain 250000] [--worst 15000000] [--data FOLDER] [--out FILE.json]

1. Writes the data, 25,000 rows to a Parquet file: ``template_caption`` is the project's grammar on random label sets (those of
   bench/template_captions.py); ``caption`` a stand-in for an LLM's rewrite: another caption of the grammar with its
   sentences shuffled and one word in twelve followed by one of 5,000 made-up words; ``alt_text`` as in the sample
   world. Two million rows take some four minutes on two cores; ``--data`` keeps them for the next run.
2. Measures ``TextStatistics`` on an eighth, a quarter, half and all of them, each in a process of its own: wall and
   processor seconds, peak resident memory, the most that lay on the scratch disk; and fits a line to the processor seconds.
3. Beside it, on ``--plain`` rows, the plain way for the 4-gram curves alone: a regular expression, ``nltk.ngrams`` and one
   Python set for each source. Both must find the same numbers of unique 4-grams and words.
4. With ``--worst``, the worst case for the 4-grams: so many texts of 12 words drawn from a million (Zipf), made while they
   are read, of which nearly every 4-gram is new.
"""

from __future__ import annotations

import argparse
import json
import random
import re
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
import polars as pl
from harness import clocked, in_own_process, machine, write_json
from template_captions import label_sets

from facecaption_ml.captions import CaptionGrammar, caption_seed
from facecaption_ml.markdown import markdown_table
from facecaption_ml.sample.alt_text import alt_text
from facecaption_ml.statistics.text import TextStatistics
from facecaption_ml.statistics.text_tally import SOURCES

PART_ROWS = 25_000
WORST_WORDS = 12
COLUMNS: dict[str, pl.DataType | type[pl.DataType]] = {
    "caption": pl.String,
    "template_caption": pl.String,
    "alt_text": pl.String,
    "labels": pl.List(pl.String),
}


def write_part(folder: Path, number: int) -> None:
    target = folder / f"{number:05d}.parquet"
    if target.exists():
        return
    grammar, draw, rng = CaptionGrammar.load(), random.Random(number), np.random.default_rng(number)
    rows = []
    for i, (labels, gender) in enumerate(label_sets(PART_ROWS, seed=number)):
        face_id = f"{number:08x}{i:08x}_0"
        first, second = (grammar.caption(labels, gender, caption_seed(face_id, grammar.version, s)) for s in (0, 1))
        rows.append((face_id, rewritten(second, draw), first, alt_text(rng, frozenset(labels)) or None, labels))
    frame = pl.DataFrame(rows, schema={"face_id": pl.String, **COLUMNS}, orient="row")
    frame.write_parquet(target.with_suffix(".tmp"))
    target.with_suffix(".tmp").rename(target)


def rewritten(caption: str, draw: random.Random) -> str:
    sentences = caption.split(". ")
    draw.shuffle(sentences)
    spoken = []
    for word in ". ".join(sentences).split():
        spoken.append(word)
        if draw.random() < 1 / 12:
            spoken.append(f"w{draw.randrange(5_000)}")
    return " ".join(spoken)


def frames(folder: Path, rows: int) -> Iterator[pl.DataFrame]:
    for path in sorted(folder.glob("*.parquet"))[: -(-rows // PART_ROWS)]:
        frame = pl.read_parquet(path)
        yield frame.head(rows)
        rows -= frame.height


def worst_frames(rows: int) -> Iterator[pl.DataFrame]:
    """Texts whose words are drawn by Zipf's law (exponent 1) from a million made-up words."""
    names = pl.Series([f"v{i}" for i in range(1_000_000)])
    rng = np.random.default_rng(0)
    for start in range(0, rows, PART_ROWS):
        count = min(PART_ROWS, rows - start)
        ranks = np.exp(rng.random(count * WORST_WORDS) * np.log(len(names))).astype(np.int64)
        table = pl.DataFrame({"row": np.repeat(np.arange(count), WORST_WORDS), "word": names.gather(ranks)})
        texts = table.group_by("row", maintain_order=True).agg(pl.col("word").str.join(" "))["word"]
        nothing = {name: pl.lit(None, dtype) for name, dtype in COLUMNS.items() if name != "alt_text"}
        faces = pl.DataFrame({"face_id": [f"{start + i:016x}_0" for i in range(count)], "alt_text": texts})
        yield faces.with_columns(**nothing)


def ours(data: Iterator[pl.DataFrame]) -> dict:
    used = 0

    def watch(*_: int) -> None:
        nonlocal used
        used = max(used, sum(path.stat().st_size for path in Path(scratch).rglob("*") if path.is_file()))

    with tempfile.TemporaryDirectory() as scratch:
        result = TextStatistics.of(data, scratch=Path(scratch), on_progress=watch)
    table = result.table()
    return {
        "grams": int(table["grams"].sum()),
        "unique": dict(zip(table["source"], table["unique_4_grams"], strict=True)),
        "vocabulary": dict(zip(table["source"], table["vocabulary"], strict=True)),
        "scratch_mb": used / 1e6,
    }


def plain(data: Iterator[pl.DataFrame]) -> dict:
    from nltk import ngrams

    word = re.compile(r"[^\W_]+(?:['-][^\W_]+)*")
    seen: dict[str, set] = {source: set() for source in SOURCES}
    vocabulary: dict[str, set] = {source: set() for source in SOURCES}
    total = 0
    for frame in data:
        for source in SOURCES:
            for text in frame[source].drop_nulls():
                found = word.findall(text.lower())
                total += max(len(found) - 3, 0)
                vocabulary[source].update(found)
                seen[source].update(ngrams(found, 4))
    return {
        "grams": total,
        "unique": {source: len(grams) for source, grams in seen.items()},
        "vocabulary": {source: len(found) for source, found in vocabulary.items()},
        "scratch_mb": 0.0,
    }


def measure_here(way: str, rows: int, data: Path) -> dict:
    """What the timed process does."""
    source = worst_frames(rows) if way == "worst" else frames(data, rows)
    result, taken = clocked(lambda: (plain if way == "plain" else ours)(source))
    return {"way": way, "rows": rows, **taken, **result}


def row(run: dict) -> list[str]:
    name = {"ours": "TextStatistics", "plain": "nltk and sets, 4-grams alone", "worst": "TextStatistics, worst case"}
    return [
        name[run["way"]], f"{run['rows']:,}", f"{run['wall_s']:.1f}", f"{run['cpu_s']:.1f}",
        f"{1e6 * run['cpu_s'] / run['rows']:.1f}", f"{run['peak_mb']:,.0f}", f"{run['scratch_mb']:,.0f}",
        f"{run['grams'] / 1e6:,.1f} M", f"{sum(run['unique'].values()) / 1e6:,.2f} M",
    ]  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--captions", type=int, default=2_000_000, help="rows of three texts each, default 2000000")
    parser.add_argument(
        "--plain", type=int, default=250_000, help="rows for the plain way, default 250000; 0: leave out"
    )
    parser.add_argument("--worst", type=int, default=0, help="texts of the worst case; default 0: leave out")
    parser.add_argument("--data", type=Path, help="folder for the made rows, kept; default: a temporary one")
    parser.add_argument("--out", type=Path, help="write the figures as JSON here")
    parser.add_argument("--measure", nargs=2, metavar=("WAY", "ROWS"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        print(json.dumps(measure_here(options.measure[0], int(options.measure[1]), options.data)))
        return
    with tempfile.TemporaryDirectory() as temporary:
        data = options.data or Path(temporary)
        data.mkdir(parents=True, exist_ok=True)
        start = time.perf_counter()
        with ProcessPoolExecutor() as pool:
            list(pool.map(partial(write_part, data), range(-(-options.captions // PART_ROWS))))
        print(f"{options.captions:,} rows in {time.perf_counter() - start:.0f} s\n")
        plan = [("ours", options.captions // part) for part in (8, 4, 2, 1)]
        plan += [("plain", options.plain), ("ours", options.plain)] if options.plain else []
        plan += [("worst", options.worst)] if options.worst else []
        runs = [in_own_process(__file__, "--measure", *part, "--data", data) for part in dict.fromkeys(plan)]
    heads = ("way", "rows", "wall s", "CPU s", "CPU µs a row", "peak MB", "scratch MB", "4-grams", "unique")
    print(markdown_table(heads, map(row, runs), "l" + "r" * 8))
    compared = [run for run in runs if run["rows"] == options.plain and run["way"] != "worst"]
    if len({json.dumps([run["unique"], run["vocabulary"]]) for run in compared}) > 1:
        raise SystemExit("the ways disagree about the unique 4-grams or words")
    mine = [run for run in runs if run["way"] == "ours" and run["rows"] in {r for w, r in plan[:4] if w == "ours"}]
    slope, base = np.polyfit([run["rows"] for run in mine], [run["cpu_s"] for run in mine], 1)
    print(
        f"\nCPU time = {base:.1f} s + {1e6 * slope:.1f} µs a row; 15,000,000 rows on that line: {base + 15e6 * slope:,.0f} s"
    )
    write_json(options.out, {"machine": machine(), "runs": runs})


if __name__ == "__main__":
    main()
