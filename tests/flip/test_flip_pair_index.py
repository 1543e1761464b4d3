"""Which rows are pairs: joined by id, split and texts respected, everything left out counted."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from examples import examples
from facecaption_ml.flip.pairs.index import PairIndex, PairSource
from facecaption_ml.flip.pairs.reader import PairReader, caption_id
from facecaption_ml.storage.store import Store, StoreError
from pair_stores import face_id, write_captions, write_crops, write_pairs


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(str(tmp_path))


def pairs_of(index: PairIndex) -> list[tuple[str, str]]:
    """Face ids and texts, read row group by row group straight from the tables."""
    found = []
    for group in range(len(index.numbers)):
        shard = index.source.shards[index.owners[group]]
        with index.source.store.open_table("face_crops", shard) as parquet:
            faces = parquet.read_row_group(int(index.numbers[group]), columns=["face_id"])["face_id"].to_pylist()
        texts = dict(index.source.store.read_table("facecaption_dataset", shard).select("face_id", "caption").rows())
        rows = index.rows[index.starts[group] : index.starts[group + 1]]
        found += [(faces[row], texts[faces[row]]) for row in rows]
    return found


def test_only_crops_of_the_split_with_a_text_are_pairs(store: Store) -> None:
    write_crops(store, "shard-00000", range(25))
    captions: dict[int, str | None] = {
        row: f"person {row}" for row in range(2, 27)
    }  # 0 and 1 without, 25 and 26 no crop
    captions |= {3: None, 4: "", 5: " \t\n"}
    write_captions(store, "shard-00000", captions, splits={6: "validation", 7: "test", 8: "validation"})
    write_crops(store, "shard-00001", [100])
    source = PairSource(store, ("shard-00000", "shard-00001", "shard-00002"), "caption")
    index = PairIndex.build(source)
    expected = [row for row in range(2, 25) if row not in {3, 4, 5, 6, 7, 8}]
    assert pairs_of(index) == [(face_id(row), f"person {row}") for row in expected]
    assert index.counts == {"pairs": 17, "no_text": 3, "other_split": 3, "no_crop": 2, "shards_missing": 2}
    assert index.rows.dtype == np.uint32
    held_out = PairIndex.build(PairSource(store, source.shards, "caption", split="validation"))
    assert pairs_of(held_out) == [(face_id(row), f"person {row}") for row in (6, 8)]


@given(
    st.lists(
        st.dictionaries(
            st.integers(0, 30), st.sampled_from(["train", "validation", "no text", "no caption"]), max_size=12
        ),
        max_size=3,
    ),
    st.integers(1, 5),
)
@examples(25)
def test_any_tables_are_indexed_as_a_plain_join_would(
    tmp_path_factory: pytest.TempPathFactory, shards: list[dict[int, str]], row_group_rows: int
) -> None:
    store = Store(str(tmp_path_factory.mktemp("store")))
    expected = []
    for number, rows in enumerate(shards):
        shard, kinds = f"shard-{number:05d}", {100 * number + row: kind for row, kind in rows.items()}
        write_crops(store, shard, list(kinds), row_group_rows=row_group_rows)
        captions = {
            row: None if kind == "no text" else f"person {row}" for row, kind in kinds.items() if "no c" not in kind
        }
        write_captions(
            store, shard, captions, splits={row: "validation" for row in kinds if kinds[row] == "validation"}
        )
        expected += [(face_id(row), f"person {row}") for row, kind in kinds.items() if kind == "train"]
    source = PairSource(store, tuple(f"shard-{number:05d}" for number in range(len(shards))), "caption")
    index = PairIndex.build(source)
    assert pairs_of(index) == expected
    assert len(index) == index.counts["pairs"] == len(expected)
    positions = np.random.default_rng(0).permutation(len(expected))
    read = PairReader(index).read(positions)
    assert [(pair.face_id, pair.text) for pair in read] == [expected[position] for position in positions]


def test_it_goes_to_other_processes_and_back(store: Store) -> None:
    source = write_pairs(store, [25, 7])
    index = PairIndex.build(source)
    back = PairIndex.from_bytes(index.to_bytes(), source)
    assert back.counts == index.counts
    assert back.version == index.version
    for name in ("owners", "numbers", "starts", "rows"):
        np.testing.assert_array_equal(getattr(back, name), getattr(index, name))
    assert len(index.to_bytes()) < 32 * 4 + 4000  # four bytes a pair, and the arrays' headers


def test_the_version_follows_texts_pairs_and_their_order(store: Store) -> None:
    source = write_pairs(store, [25])
    first = PairIndex.build(source).version
    assert PairIndex.build(source).version == first

    write_captions(store, "shard-00000", {row: f"person {row}" for row in range(24)} | {24: "someone else"})
    changed_text = PairIndex.build(source).version
    write_captions(store, "shard-00000", {row: f"person {row}" for row in range(24)})
    one_less = PairIndex.build(source).version
    write_captions(store, "shard-00000", {row: f"person {row}" for row in range(25)})
    assert PairIndex.build(source).version == first  # the data set's own order does not matter
    write_crops(store, "shard-00000", list(reversed(range(25))))
    other_order = PairIndex.build(source).version
    write_crops(store, "shard-00000", range(25), row_group_rows=9)
    other_groups = PairIndex.build(source).version
    assert len({first, changed_text, one_less, other_order, other_groups}) == 5
    assert PairIndex.build(PairSource(store, source.shards, "template_caption")).version != other_groups


def test_progress_counts_shards(store: Store) -> None:
    told: list[tuple[int, int]] = []
    PairIndex.build(write_pairs(store, [5, 5, 5]), on_progress=lambda done, of: told.append((done, of)))
    assert told == [(1, 3), (2, 3), (3, 3)]


def test_a_damaged_shard_and_a_missing_column_are_named(store: Store) -> None:
    source = write_pairs(store, [5, 5])
    with pytest.raises(StoreError, match="no_such_column"):
        PairIndex.build(PairSource(store, source.shards, "no_such_column"))
    path = Path(store.uri("face_crops/shard-00001.parquet"))
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(StoreError, match=r"cannot read .*face_crops/shard-00001"):
        PairIndex.build(source)


def test_a_face_that_stands_twice_is_an_error_not_two_pairs(store: Store) -> None:
    source = write_pairs(store, [5])
    frame = store.read_table("facecaption_dataset", "shard-00000")
    store.write_table("facecaption_dataset", pl.concat([frame, frame.head(1)]), "shard-00000")
    with pytest.raises(StoreError, match=r"shard-00000.*twice"):
        PairIndex.build(source)


def changed_crops(store: Store) -> None:
    write_crops(store, "shard-00000", range(100, 125))


def fewer_crops(store: Store) -> None:
    write_crops(store, "shard-00000", range(12))


def other_captions(store: Store) -> None:
    write_captions(store, "shard-00000", dict.fromkeys(range(25)))


@pytest.mark.parametrize("change", [changed_crops, fewer_crops, other_captions])
def test_tables_that_change_under_a_reader_are_named(store: Store, change) -> None:
    index = PairIndex.build(write_pairs(store, [25]))
    change(store)
    with pytest.raises(StoreError, match=r"shard-00000.*has changed.*start the training again"):
        PairReader(index).read(np.arange(25))


def test_caption_ids_are_equal_where_captions_are() -> None:
    assert caption_id("A  smiling woman.\n") == caption_id("a smiling Woman.")
    assert caption_id("A smiling woman.") != caption_id("A smiling man.")
    assert len({caption_id(f"person {row}") for row in range(5000)}) == 5000
    assert all(-(2**63) <= caption_id(text) < 2**63 for text in ("", "a", "b"))
