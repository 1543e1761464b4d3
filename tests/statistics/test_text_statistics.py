"""The text statistics against plain Python, in any order and any cut of the rows, and what they say of nothing at all."""

from __future__ import annotations

import math
import os
import random
import re
import subprocess
import sys
from collections import Counter
from itertools import pairwise
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from examples import examples
from facecaption_ml import figures
from facecaption_ml.schemas import SchemaError
from facecaption_ml.statistics.diversity import distinct_n, moving_average_ttr, self_bleu
from facecaption_ml.statistics.ngrams import DistinctHashes, stable_hashes, words
from facecaption_ml.statistics.text import (
    CATEGORY_SCHEMA,
    CURVE_SCHEMA,
    TABLE_SCHEMA,
    WORDS_SCHEMA,
    TextStatistics,
)
from facecaption_ml.statistics.text_tally import LONGEST, SOURCES, batches
from facecaption_ml.taxonomy import ATTRIBUTES, CATEGORIES

SCHEMA = {**dict.fromkeys(("face_id", *SOURCES), pl.String), "labels": pl.List(pl.String)}
TINY = 4096  # bytes: 64 records in a buffer, so that even small data go through the scratch disk


def frame_of(rows: list[tuple]) -> pl.DataFrame:
    return pl.DataFrame(rows, schema=SCHEMA, orient="row")


def random_rows(count: int, seed: int) -> list[tuple]:
    """Texts of a small vocabulary with capitals, punctuation, other scripts, nulls and blanks."""
    draw = random.Random(seed)
    vocabulary = [
        "A",
        "woman",
        "man",
        "Clean-shaven",
        "person's",
        "smiles",
        "hair",
        "été",
        "Ñandú",
        "男の人",
        "42",
        "мир",
    ]

    def text() -> str:
        return "".join(
            draw.choice(vocabulary) + draw.choice([" ", ", ", ". ", " - ", "\n"]) for _ in range(draw.randrange(14))
        )

    def alt() -> str | None:
        return draw.choice([None, "", "  ", "!?", text(), text(), text()])

    return [
        (f"face_{i}", text() + "She smiles.", text(), alt(), draw.sample(ATTRIBUTES, draw.randrange(8)))
        for i in range(count)
    ]


def plain_words(text: str | None) -> list[str]:
    return re.findall(r"[^\W_]+(?:['-][^\W_]+)*", (text or "").lower())


def grams(text: list[str], n: int = 4) -> list[tuple[str, ...]]:
    return [tuple(text[i : i + n]) for i in range(len(text) - n + 1)]


# -- against plain Python ------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def rows() -> list[tuple]:
    return random_rows(400, seed=1)


@pytest.fixture(scope="module")
def measured(rows: list[tuple], tmp_path_factory: pytest.TempPathFactory) -> TextStatistics:
    return TextStatistics.of([frame_of(rows)], scratch=tmp_path_factory.mktemp("scratch"), memory_budget=TINY)


@pytest.mark.parametrize("number", range(3))
def test_counts_equal_a_plain_loop(measured: TextStatistics, rows: list[tuple], number: int) -> None:
    texts = [found for row in rows if (found := plain_words(row[1 + number]))]
    line = measured.table().row(number, named=True)
    total = sum(len(text) for text in texts)
    assert line["source"] == SOURCES[number]
    assert (line["texts"], line["empty"], line["words"]) == (len(texts), len(rows) - len(texts), total)
    assert line["mean_words"] == pytest.approx(total / len(texts))
    assert line["vocabulary"] == len({word for text in texts for word in text})
    assert line["type_token_ratio"] == pytest.approx(line["vocabulary"] / total)
    assert line["grams"] == sum(len(grams(text)) for text in texts)
    assert line["unique_4_grams"] == len({gram for text in texts for gram in grams(text)})
    histogram = measured.words_table().filter(source=SOURCES[number])
    assert dict(zip(histogram["words"], histogram["texts"], strict=True)) == Counter(len(text) for text in texts)
    assert histogram["share"].sum() == pytest.approx(1)


@pytest.mark.parametrize("number", range(3))
def test_the_curve_counts_the_first_texts_in_the_order_of_their_hashes(
    measured: TextStatistics, rows: list[tuple], number: int
) -> None:
    place = stable_hashes([row[0] for row in rows], seed=0) >> np.uint64(48)
    texts = sorted(
        (int(p), found) for p, row in zip(place, rows, strict=True) if (found := plain_words(row[1 + number]))
    )
    curve = measured.curve_table().filter(source=SOURCES[number])
    assert curve["share"].to_list() == pytest.approx([k / 10 for k in range(1, 11)])
    for k, (count, unique) in enumerate(curve.select("texts", "unique_4_grams").iter_rows(), start=1):
        wanted = math.ceil(len(texts) * k / 10)
        last_place = texts[wanted - 1][0]
        until = [text for p, text in texts if p <= last_place]
        assert wanted <= count == len(until) <= wanted + 2
        assert unique == len({gram for text in until for gram in grams(text)})


def test_category_shares_equal_a_plain_loop(measured: TextStatistics, rows: list[tuple]) -> None:
    table = measured.category_table()
    total = sum(len(row[4]) for row in rows)
    for name, line in zip(CATEGORIES, table.iter_rows(named=True), strict=True):
        of_category = [len(set(row[4]) & set(CATEGORIES[name])) for row in rows]
        assert (line["category"], line["labels"]) == (name, sum(of_category))
        assert line["share"] == pytest.approx(sum(of_category) / total)
        assert line["share_of_faces"] == pytest.approx(sum(map(bool, of_category)) / len(rows))
    assert table["share"].sum() == pytest.approx(1)
    assert table["published_share"].sum() == pytest.approx(1)
    mentioned = dict(zip(table["category"], table["mentioned_by_caption"], strict=True))
    assert mentioned["facial"] == 1, "each caption ends with 'She smiles.'"
    assert mentioned["accessories"] == 0


def test_the_sample_is_the_first_texts_in_the_order_of_their_hashes(rows: list[tuple], tmp_path: Path) -> None:
    result = TextStatistics.of([frame_of(rows)], scratch=tmp_path, seed=5, sample=30)
    keys = stable_hashes([row[0] for row in rows], seed=5)
    order = sorted(range(len(rows)), key=lambda i: int(keys[i]))
    for number, source in enumerate(SOURCES):
        texts = [found for i in order if (found := plain_words(rows[i][1 + number]))][:30]
        line = result.table().row(number, named=True)
        assert line["sampled_texts"] == 30
        for n in (1, 2, 3, 4):
            all_grams = [gram for text in texts for gram in grams(text, n)]
            assert line[f"distinct_{n}"] == pytest.approx(len(set(all_grams)) / len(all_grams)), source
        assert line["self_bleu"] == pytest.approx(nltk_self_bleu(texts))
        assert line["moving_average_ttr"] == pytest.approx(moving_average_ttr([w for text in texts for w in text]))


# -- order and cuts ------------------------------------------------------------------------------------------------------


@examples(15)
@given(
    count=st.integers(0, 60),
    seed=st.integers(0, 1000),
    order=st.randoms(use_true_random=False),
    cuts=st.lists(st.integers(0, 60), max_size=5),
    budget=st.sampled_from([TINY, 1 << 20]),
)
def test_neither_order_nor_cuts_nor_budget_change_anything(
    tmp_path_factory: pytest.TempPathFactory, count: int, seed: int, order: random.Random, cuts: list[int], budget: int
) -> None:
    rows = random_rows(count, seed)
    shuffled = order.sample(rows, len(rows))
    edges = [0, *sorted(min(cut, count) for cut in cuts), count]
    frames = [frame_of(shuffled[start:end]) for start, end in pairwise(edges)]
    scratch = tmp_path_factory.mktemp("scratch")
    whole = TextStatistics.of([frame_of(rows)], scratch=scratch, sample=10)
    assert TextStatistics.of(frames, scratch=scratch, sample=10, memory_budget=budget) == whole
    assert not any(scratch.iterdir()), "the scratch folder is left as it was"


def test_another_seed_takes_another_sample_but_counts_the_same(rows: list[tuple], tmp_path: Path) -> None:
    one, other = (TextStatistics.of([frame_of(rows)], scratch=tmp_path, sample=20, seed=s).table() for s in (0, 1))
    same = ["source", "texts", "empty", "words", "vocabulary", "unique_4_grams"]
    assert one.select(same).equals(other.select(same))
    assert not one["self_bleu"].equals(other["self_bleu"])


def test_batches_keep_every_row_and_stay_small(rows: list[tuple]) -> None:
    many = pl.concat([frame_of(rows)] * 60).rechunk()
    cut = list(batches([many, *many.iter_slices(700)]))
    assert pl.concat(cut).equals(pl.concat([many, many]))
    assert max(batch.height for batch in cut) < 40_000
    long = frame_of([(str(i), "x " * 100_000, "", None, []) for i in range(600)])  # 120 MB in one frame
    assert max(batch.estimated_size() for batch in batches([long])) < 80 << 20


# -- distinct hashes in bounded memory -----------------------------------------------------------------------------------


@examples(40)
@given(
    pairs=st.lists(st.tuples(st.integers(0, 2**64 - 1) | st.integers(0, 30), st.integers(0, 65535)), max_size=300),
    capacity=st.integers(1, 40),
    step=st.integers(1, 50),
)
def test_distinct_hashes_equal_a_dictionary(
    tmp_path_factory: pytest.TempPathFactory, pairs: list[tuple[int, int]], capacity: int, step: int
) -> None:
    counter = DistinctHashes(tmp_path_factory.mktemp("runs"), capacity)
    first: dict[int, int] = {}
    for start in range(0, len(pairs), step):
        part = pairs[start : start + step]
        counter.add(np.array([h for h, _ in part], np.uint64), np.array([p for _, p in part], np.uint16))
    for value, place in pairs:
        first[value] = min(place, first.get(value, place))
    counts = counter.first_places()
    assert {int(p): int(counts[p]) for p in np.flatnonzero(counts)} == Counter(first.values())


def test_buffer_and_ranges_stay_within_the_capacity(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from facecaption_ml.statistics import ngrams

    sorted_at_once: list[int] = []
    first_of_each = ngrams._first_of_each

    def watched(hashes: np.ndarray, places: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        sorted_at_once.append(len(hashes))
        return first_of_each(hashes, places)

    monkeypatch.setattr(ngrams, "_first_of_each", watched)
    counter, rng = DistinctHashes(tmp_path, capacity=10_000), np.random.default_rng(0)
    for _ in range(50):
        counter.add(rng.integers(0, 2**64, 9_000, np.uint64), rng.integers(0, 65536, 9_000))
    assert sum(path.stat().st_size for path in tmp_path.iterdir()) <= 450_000 * 10
    assert counter.first_places().sum() == 450_000
    assert max(sorted_at_once) <= 10_000
    assert len(sorted_at_once) == 45 + 57, "45 runs, then ranges four fifths full"


MEMORY_PROGRAM = """
import sys
import polars as pl
from pathlib import Path
from facecaption_ml.statistics.text import TextStatistics

def peak():  # ru_maxrss would count the parent's memory before the exec
    status = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in status if line.startswith("VmHWM")) / 1024

def frames():
    for number in range(140):  # 3 MB of text and 6,000 new 4-grams each
        rows = range(number * 1000, number * 1000 + 1000)
        texts = [f"{'x' * 3000} " + " ".join(f"w{row}.{k}" for k in range(4)) for row in rows]
        yield pl.DataFrame({"face_id": [str(row) for row in rows], "caption": texts}).with_columns(
            template_caption=pl.lit(""), alt_text=pl.lit(""), labels=pl.lit(["Male"]))

peaks = []
scratch = Path(sys.argv[1])
result = TextStatistics.of(frames(), scratch=scratch, memory_budget=1 << 22, on_progress=lambda *_: peaks.append(peak()))
print(result.table()["unique_4_grams"][0], peaks[len(peaks) // 4], peak())
"""


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs /proc for the peak of the memory")
def test_memory_does_not_grow_with_the_rows(tmp_path: Path) -> None:
    """A quarter of 420 MB of text takes the memory that all of it takes: keeping the rest would take 315 MB more."""
    command = [sys.executable, "-c", MEMORY_PROGRAM, str(tmp_path)]
    freed_at_once = {  # allocators that keep freed pages for a while hold more of them on a busy machine
        "_RJEM_MALLOC_CONF": "dirty_decay_ms:0,muzzy_decay_ms:0",
        "ARROW_DEFAULT_MEMORY_POOL": "system",
        "MALLOC_ARENA_MAX": "1",
    }
    environment = {**os.environ, **freed_at_once, "POLARS_MAX_THREADS": "1"}
    printed = subprocess.run(command, capture_output=True, text=True, check=True, env=environment).stdout
    unique, after_a_quarter, at_the_end = (float(value) for value in printed.split())
    assert unique == 140 * 1000 * 6
    assert at_the_end < after_a_quarter + 150


def test_hashes_are_the_same_on_every_machine() -> None:
    # BLAKE2b, 8 bytes little-endian, key of 16 zeros
    known = ["a9572f91bc974d84", "2000bc7f1bb1b421", "563d1cc24c6ceceb"]
    assert [f"{h:016x}" for h in stable_hashes(["", "face", "人"])] == known
    program = "from facecaption_ml.statistics.ngrams import stable_hashes; print(*stable_hashes(['face', 'e']))"
    other = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
    assert other.split() == [str(h) for h in stable_hashes(["face", "e"])]
    assert len(set(stable_hashes([str(i) for i in range(10_000)]))) == 10_000


# -- words and diversity -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("He's Clean-Shaven, 5 o’clock!", ["he's", "clean-shaven", "5", "o'clock"]),
        ("IMG_0042.JPG – 'quoted' - dash--dash", ["img", "0042", "jpg", "quoted", "dash", "dash"]),
        ("ÉTÉ  \t Große\u00a0Straße", ["été", "große", "straße"]),
        (" .,!? ", []),
        (None, []),
    ],
)
def test_words(text: str | None, found: list[str]) -> None:
    assert words(pl.Series([text], dtype=pl.String)).to_list() == [found]


def nltk_self_bleu(texts: list[list[str]]) -> float:
    from nltk.translate.bleu_score import SmoothingFunction, sentence_bleu

    smoothed = SmoothingFunction().method1
    scores = [
        sentence_bleu(texts[:i] + texts[i + 1 :], text, smoothing_function=smoothed) for i, text in enumerate(texts)
    ]
    return sum(scores) / len(scores)


@examples(80)
@given(st.lists(st.lists(st.sampled_from("abcde"), min_size=1, max_size=9), min_size=2, max_size=7))
def test_self_bleu_equals_nltks(texts: list[list[str]]) -> None:
    assert self_bleu(texts) == pytest.approx(nltk_self_bleu(texts), abs=1e-12)


def test_self_bleu_of_copies_and_of_strangers() -> None:
    assert self_bleu([["a", "man", "with", "dark", "hair"]] * 3) == pytest.approx(1)
    assert self_bleu([["a", "b"], ["c", "d"]]) == 0
    assert self_bleu([["alone"]]) is None


@examples(50)
@given(st.lists(st.sampled_from("abcdefg"), max_size=40), st.integers(1, 12))
def test_moving_average_equals_a_plain_loop(text: list[str], window: int) -> None:
    windows = [text[i : i + window] for i in range(max(1, len(text) - window + 1))]
    plain = sum(len(set(part)) / len(part) for part in windows) / len(windows) if text else None
    assert moving_average_ttr(text, window) == (None if plain is None else pytest.approx(plain))


def test_distinct_n_of_short_texts() -> None:
    assert distinct_n([["a", "a", "b"], ["a", "b"]], 2) == pytest.approx(2 / 3)
    assert distinct_n([["a"], []], 2) is None


# -- bad and empty input -------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize(
    "frames", [[], [frame_of([])], [frame_of([("f", None, " ", None, None)])]], ids=["none", "empty", "blank"]
)
def test_nothing_gives_the_schemas_and_nulls(frames: list[pl.DataFrame], tmp_path: Path) -> None:
    result = TextStatistics.of(frames, scratch=tmp_path)
    tables = [result.table(), result.curve_table(), result.category_table(), result.words_table()]
    for table, schema in zip(tables, (TABLE_SCHEMA, CURVE_SCHEMA, CATEGORY_SCHEMA, WORDS_SCHEMA), strict=True):
        assert dict(table.schema) == dict(schema)
    assert [table.height for table in tables] == [3, 30, 5, 0]
    assert result.table()["texts"].sum() == result.table()["unique_4_grams"].sum() == 0
    assert result.table()["empty"].to_list() == [result.rows] * 3
    for name in ("mean_words", "type_token_ratio", "moving_average_ttr", "distinct_1", "self_bleu"):
        assert result.table()[name].null_count() == 3
    assert result.category_table()["share"].null_count() == 5
    assert figures.png(result.figure()).startswith(b"\x89PNG")


def test_a_very_long_text_counts_in_full(tmp_path: Path) -> None:
    result = TextStatistics.of([frame_of([("f", "word " * 5000, "a", "b", [])])], scratch=tmp_path)
    assert result.table()["mean_words"][0] == 5000
    assert result.words_table().row(0) == ("caption", LONGEST, 1, 1.0)


def test_errors_name_what_is_wrong(tmp_path: Path) -> None:
    good = frame_of([("f", "a", "b", "c", ["Male"])])
    with pytest.raises(SchemaError, match="'alt_text' is missing"):
        TextStatistics.of([good.drop("alt_text")], scratch=tmp_path)
    with pytest.raises(ValueError, match="'labels': 'Mal' is no attribute"):
        TextStatistics.of([frame_of([("f", "a", "b", "c", ["Mal"])])], scratch=tmp_path)
    with pytest.raises(ValueError, match="'face_id' has nulls"):
        TextStatistics.of([frame_of([(None, "a", "b", "c", [])])], scratch=tmp_path)
    with pytest.raises(ValueError, match="memory_budget is 10"):
        TextStatistics.of([good], scratch=tmp_path, memory_budget=10)
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="file"):
        TextStatistics.of([good], scratch=tmp_path / "file")


def test_a_full_scratch_disk_is_named(tmp_path: Path) -> None:
    (tmp_path / "runs").write_text("a file where the folder should be")
    counter = DistinctHashes(tmp_path / "runs", capacity=4)
    with pytest.raises(OSError, match=r"cannot write n-grams to .*runs.*10 bytes for each n-gram"):
        counter.add(np.arange(9, dtype=np.uint64), np.zeros(9, np.uint16))


@pytest.mark.slow
def test_progress_counts_rows_and_the_figure_has_three_panels(rows: list[tuple], tmp_path: Path) -> None:
    seen: list[int] = []
    result = TextStatistics.of(
        [frame_of(rows)] * 60, scratch=tmp_path, on_progress=lambda done, total: seen.append(done)
    )
    assert seen[-1] == result.rows == 24_000
    assert seen == sorted(seen)
    figure = result.figure()
    assert [axes.get_title()[:3] for axes in figure.axes] == ["(a)", "(b)", "(c)"]
    drawn = np.asarray(figure.axes[2].lines[0].get_ydata()).tolist()
    assert drawn == [unique for _, unique in result.sources["caption"].curve]
    assert figures.files(figure, "text_statistics").keys() == {"text_statistics.svg", "text_statistics.png"}
