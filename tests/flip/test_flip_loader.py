"""The loader on real stores: the same batches however they are made, nothing read twice, faults counted or raised."""

from __future__ import annotations

import contextlib
import itertools
import multiprocessing
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from facecaption_ml.flip.errors import PairsError
from facecaption_ml.flip.pairs import loader as data
from facecaption_ml.flip.pairs.index import PairIndex, PairSource
from facecaption_ml.flip.pairs.loader import PairBatch, PairLoader
from facecaption_ml.flip.pairs.reader import caption_id
from facecaption_ml.storage.store import Store, StoreError
from pair_stores import colour, picture, row_of, write_crops, write_pairs

NewLoader = Callable[..., PairLoader]
Reads = Counter[tuple[str, int]]
BROKEN = (3, 17, 18, 41)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(str(tmp_path))


@pytest.fixture
def new_loader() -> Iterator[NewLoader]:
    """Makes loaders, small by default, and closes them."""
    with contextlib.ExitStack() as stack:

        def make(source: PairSource | PairIndex, **changes: Any) -> PairLoader:
            index = source if isinstance(source, PairIndex) else PairIndex.build(source)
            given = {"batch_size": 8, "image_size": 16, "seed": 5, "window_row_groups": 2}
            loader = PairLoader(index, **given | changes)
            stack.callback(loader.close)
            return loader

        yield make


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> Reads:
    """Counts every row group of face_crops that is read, by shard and number."""
    counted: Reads = Counter()
    opened = Store.open_table

    class Watched:
        def __init__(self, parquet: Any, shard: str) -> None:
            self._parquet, self._shard = parquet, shard

        def __getattr__(self, name: str) -> Any:
            return getattr(self._parquet, name)

        def read_row_group(self, number: int, columns: Sequence[str]) -> Any:
            assert set(columns) == {"face_id", "image.bytes"}, "only the columns needed"
            counted[self._shard, number] += 1
            return self._parquet.read_row_group(number, columns=columns)

    @contextlib.contextmanager
    def open_table(self: Store, table: str, shard: str) -> Iterator[Any]:
        with opened(self, table, shard) as parquet:
            yield Watched(parquet, shard) if table == "face_crops" else parquet

    monkeypatch.setattr(Store, "open_table", open_table)
    return counted


def assert_same(found: Sequence[PairBatch], expected: Sequence[PairBatch]) -> None:
    assert len(found) == len(expected)
    for one, other in zip(found, expected, strict=True):
        assert one.face_ids == other.face_ids
        assert one.texts == other.texts
        assert torch.equal(one.caption_ids, other.caption_ids)
        assert torch.equal(one.images, other.images)
        assert one.undecodable == other.undecodable


def rows(batches: Sequence[PairBatch]) -> list[int]:
    return [row_of(face) for batch in batches for face in batch.face_ids]


def assert_own_pictures(batch: PairBatch) -> None:
    assert batch.texts == [f"person {row}" for row in rows([batch])]
    seen = batch.images.float().mean((2, 3))
    assert (seen - torch.tensor([colour(row) for row in rows([batch])])).abs().max() < 6


def loader_threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith(("read", "decode"))]


# -- what a batch is -------------------------------------------------------------------------------------------------


def test_a_batch_holds_pictures_with_their_own_texts(store: Store, new_loader: NewLoader) -> None:
    loader = new_loader(write_pairs(store, [35, 20]), augment=False)
    batches = list(loader.epoch(0))
    assert len(batches) == loader.batches_per_epoch == 6
    for batch in batches:
        assert batch.images.shape == (8, 3, 16, 16)
        assert batch.images.dtype == torch.uint8
        assert batch.caption_ids.dtype == torch.int64
        assert_own_pictures(batch)
        assert batch.caption_ids.tolist() == [caption_id(text) for text in batch.texts]
    assert len(set(rows(batches))) == 48


def test_views_differ_between_epochs_and_not_within_one(store: Store, new_loader: NewLoader) -> None:
    source = write_pairs(store, [24])
    loader = new_loader(source, batch_size=24)
    (first,), (second,), (again,) = (list(loader.epoch(epoch)) for epoch in (0, 1, 0))
    assert_same([again], [first])
    by_face = dict(zip(second.face_ids, second.images, strict=True))
    differs = [not torch.equal(image, by_face[face]) for face, image in zip(first.face_ids, first.images, strict=True)]
    assert sum(differs) > 12
    (plain,) = new_loader(source, batch_size=24, augment=False).epoch(0)
    assert plain.face_ids == first.face_ids
    assert not torch.equal(plain.images, first.images)


def test_the_view_of_a_face_depends_on_seed_and_epoch_only(store: Store, new_loader: NewLoader) -> None:
    index = PairIndex.build(write_pairs(store, [30, 30]))

    def views(**changes: Any) -> dict[str, torch.Tensor]:
        batches = list(new_loader(index, **changes).epoch(1))
        return {face: view for batch in batches for face, view in zip(batch.face_ids, batch.images, strict=True)}

    expected = views(batch_size=10)
    for changes in ({"window_row_groups": 1, "batch_size": 7}, {"rank": 1, "world_size": 3}):
        found = views(**changes)
        assert found
        assert all(torch.equal(view, expected[face]) for face, view in found.items())
    other = views(batch_size=10, seed=6)
    assert sum(torch.equal(view, expected[face]) for face, view in other.items()) < 30


def test_training_views_are_decoded_larger_than_plain_ones(
    store: Store, new_loader: NewLoader, monkeypatch: pytest.MonkeyPatch
) -> None:
    sides: list[int] = []
    decode = data.decode_for
    monkeypatch.setattr(data, "decode_for", lambda found, side: (sides.append(side), decode(found, side))[1])
    source = write_pairs(store, [8])
    list(new_loader(source, crop_area=0.5).epoch(0))
    assert set(sides) == {23}  # half of whose area is that of a view, 16 × 16
    sides.clear()
    list(new_loader(source, augment=False).epoch(0))
    assert set(sides) == {16}


@pytest.mark.slow
@pytest.mark.parametrize("threads", [1, 2, 5])
@pytest.mark.parametrize("prefetch", [0, 1, 4])
def test_threads_change_nothing(store: Store, new_loader: NewLoader, threads: int, prefetch: int) -> None:
    source = write_pairs(store, [35, 30], broken=BROKEN)
    expected = list(new_loader(source).epoch(2))
    loader = new_loader(source, threads=threads, prefetch=prefetch)
    assert_same(list(loader.epoch(2)), expected)


@pytest.mark.processes
def test_a_process_of_its_own_changes_nothing_and_outlives_a_signal_to_the_group(
    store: Store, new_loader: NewLoader
) -> None:
    source = write_pairs(store, [35, 30], broken=BROKEN)
    here = new_loader(source)
    expected = list(here.epoch(2, first_batch=1))
    loader = new_loader(source, process=True, threads=2)
    batches = loader.epoch(2, first_batch=1)
    found = [next(batches)]
    (child,) = multiprocessing.active_children()
    os.kill(child.pid, signal.SIGTERM)  # the training process finishes its step after a signal, and so needs batches
    os.kill(child.pid, signal.SIGINT)
    found += batches
    assert_same(found, expected)
    assert loader.undecodable == here.undecodable > 0
    assert not multiprocessing.active_children()


# -- ranks and resume --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("world_size", [1, 2, 3])
def test_ranks_share_an_epoch_without_overlap_and_read_a_row_group_once(
    store: Store, new_loader: NewLoader, reads: Reads, world_size: int
) -> None:
    index = PairIndex.build(write_pairs(store, [35, 30, 28]))
    seen: list[int] = []
    lengths = set()
    for rank in range(world_size):
        reads.clear()
        loader = new_loader(index, rank=rank, world_size=world_size, batch_size=5)
        batches = list(loader.epoch(1))
        lengths.add(len(batches))
        assert len(batches) == loader.batches_per_epoch
        assert reads
        assert set(reads.values()) == {1}
        seen += rows(batches)
    assert lengths == {93 // (5 * world_size)}
    assert len(set(seen)) == len(seen) == 5 * world_size * lengths.pop()


def test_resume_gives_the_next_batches_and_reads_no_window_before_them(
    store: Store, new_loader: NewLoader, reads: Reads
) -> None:
    index = PairIndex.build(write_pairs(store, [40, 40], broken=BROKEN))
    loader = new_loader(index)
    whole = list(loader.epoch(3))
    assert sum(batch.undecodable for batch in whole) > 1
    assert sum(reads.values()) == 8
    for first in range(12):
        reads.clear()
        assert_same(list(loader.epoch(3, first_batch=first)), whole[first:])
        assert sum(reads.values()) == 8 - first * 8 // 20 * 2, "windows of two row groups, 20 rows"


# -- pictures that do not decode -----------------------------------------------------------------------------------------


def test_a_picture_that_does_not_decode_is_counted_and_replaced(store: Store, new_loader: NewLoader) -> None:
    loader = new_loader(write_pairs(store, [48], broken=BROKEN), augment=False)
    batches = list(loader.epoch(0))
    assert len(batches) == 6
    assert [len(batch.texts) for batch in batches] == [8] * 6
    found = rows(batches)
    assert not set(found) & set(BROKEN)
    assert len(found) - len(set(found)) == loader.undecodable == sum(batch.undecodable for batch in batches) == 4
    for batch in batches:  # the stand-in brings its own picture and text
        assert_own_pictures(batch)


def test_a_stand_in_belongs_to_the_same_window(store: Store, new_loader: NewLoader) -> None:
    source = write_pairs(store, [60], broken=[row for row in range(60) if row % 10 != 4])
    batches = list(new_loader(source, window_row_groups=1, batch_size=10).epoch(0))
    assert [len(set(batch.face_ids)) for batch in batches] == [1] * 6
    assert {row_of(batch.face_ids[0]) for batch in batches} == {4, 14, 24, 34, 44, 54}
    assert [batch.undecodable for batch in batches] == [9] * 6


def test_stand_ins_are_drawn_from_the_whole_window(store: Store, new_loader: NewLoader) -> None:
    source = write_pairs(store, [80], broken=range(0, 80, 2))
    (batch,) = new_loader(source, window_row_groups=8, batch_size=80).epoch(0)
    assert batch.undecodable == 40
    stand_ins = [face for face, times in Counter(batch.face_ids).items() if times > 1]
    assert len(stand_ins) > 15  # of 40 drawn from 40, 25 are different on average; some stand twice or thrice


def test_no_picture_that_decodes_is_one_clear_line(store: Store, new_loader: NewLoader) -> None:
    loader = new_loader(write_pairs(store, [20], broken=range(20)))
    with pytest.raises(StoreError, match=r"^none of 16 pictures decodes.*face_crops.*materialize"):
        next(loader.epoch(0))


def test_less_than_one_global_batch_is_one_clear_line(store: Store) -> None:
    index = PairIndex.build(write_pairs(store, [15]))
    with pytest.raises(PairsError, match=r"^15 training pairs .* 8 × 2 processes.*batch_size[^\n]*$"):
        PairLoader(index, batch_size=8, image_size=16, seed=0, world_size=2)


# -- reading ahead -------------------------------------------------------------------------------------------------------


def test_the_next_window_is_read_meanwhile_and_no_more(store: Store, new_loader: NewLoader, reads: Reads) -> None:
    loader = new_loader(write_pairs(store, [200]), window_row_groups=4, prefetch=2)
    batches = loader.epoch(0)
    for taken in range(1, 25):
        next(batches)
        # windows of 5 batches: the one that the last batch under way belongs to, and the next
        begun = min((taken + 2 + 4) // 5 + 1, 5)
        deadline = time.monotonic() + 5
        while sum(reads.values()) < 4 * begun and time.monotonic() < deadline:
            time.sleep(0.005)
        time.sleep(0.01)
        assert sum(reads.values()) == 4 * begun
    batches.close()


def test_waiting_for_batches_is_measured(store: Store, new_loader: NewLoader, monkeypatch: pytest.MonkeyPatch) -> None:
    loader = new_loader(write_pairs(store, [16]))
    read = data.PairReader.read
    monkeypatch.setattr(data.PairReader, "read", lambda *given: (time.sleep(0.3), read(*given))[1])
    batches = loader.epoch(0)
    next(batches)
    waited = loader.wait_seconds
    assert waited >= 0.3
    time.sleep(1)
    list(batches)
    assert loader.wait_seconds < waited + 1, "the consumer's own time is no waiting"


# -- ends and faults -----------------------------------------------------------------------------------------------------


def test_threads_end_when_an_epoch_is_left_and_the_loader_closed(store: Store, new_loader: NewLoader) -> None:
    loader = new_loader(write_pairs(store, [100]), threads=3)
    batches = loader.epoch(0)
    expected = [next(batches), next(batches)]
    batches.close()
    assert_same(list(itertools.islice(loader.epoch(0), 2)), expected)
    assert loader_threads()
    loader.close()
    assert not loader_threads()
    assert_same(list(itertools.islice(loader.epoch(0), 2)), expected)  # it can be opened again


@pytest.mark.slow
@pytest.mark.parametrize("process", [False, True], ids=["threads", "process"])
def test_a_fault_while_reading_reaches_the_consumer_and_everything_ends(
    store: Store, new_loader: NewLoader, process: bool
) -> None:
    index = PairIndex.build(write_pairs(store, [30, 30]))
    path = Path(store.uri("face_crops/shard-00001.parquet"))
    path.write_bytes(b"PAR1" + bytes(path.stat().st_size - 4))
    loader = new_loader(index, process=process, window_row_groups=1)
    with pytest.raises(StoreError, match=r"^cannot read .*face_crops/shard-00001[^\n]*$"):
        list(loader.epoch(0))
    assert not multiprocessing.active_children()
    loader.close()
    assert not loader_threads()


def test_a_fault_in_a_decoding_thread_reaches_the_consumer(
    store: Store, new_loader: NewLoader, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise MemoryError("no room")

    monkeypatch.setattr(data, "decode_for", fail)
    loader = new_loader(write_pairs(store, [30]), threads=2)
    with pytest.raises(MemoryError, match="no room"):
        list(loader.epoch(0))
    loader.close()
    assert not loader_threads()


_KILLED = """
import multiprocessing, os, signal, sys
from pair_stores import write_pairs
from facecaption_ml.flip.pairs.index import PairIndex
from facecaption_ml.flip.pairs.loader import PairLoader
from facecaption_ml.storage.store import Store

if __name__ == "__main__":
    index = PairIndex.build(write_pairs(Store({root!r}), [200]))
    batches = PairLoader(index, batch_size=8, image_size=16, seed=5, process=True).epoch(0)
    next(batches)
    (child,) = multiprocessing.active_children()
    os.kill(child.pid, signal.SIGKILL)
    sys.exit(f"{{sum(1 for _ in batches)}} more batches came")
"""


@pytest.mark.processes
def test_a_process_that_is_killed_ends_the_training_with_a_clear_line(tmp_path: Path) -> None:
    """In a process of its own: torch raises the error wherever the training then is."""
    script = tmp_path / "killed.py"
    script.write_text(_KILLED.format(root=str(tmp_path / "store")))
    ended = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, timeout=120)
    assert ended.returncode == 1
    assert re.search(r"^RuntimeError: DataLoader worker.* (killed|exited)", ended.stderr, re.MULTILINE), ended.stderr
    assert not re.search(r"^\d+ more batches", ended.stderr, re.MULTILINE)


# -- object storage ------------------------------------------------------------------------------------------------------


def test_from_object_storage_come_the_same_batches(
    store: Store,
    new_loader: NewLoader,
    reads: Reads,
    s3_server: dict[str, str],
    tmp_path: Path,
) -> None:
    remote = Store(
        f"s3://data/{tmp_path.name}",
        {
            "aws_endpoint_url": s3_server["endpoint"],
            "aws_access_key_id": s3_server["AWS_ACCESS_KEY_ID"],
            "aws_secret_access_key": s3_server["AWS_SECRET_ACCESS_KEY"],
            "aws_region": s3_server["AWS_REGION"],
        },
    )
    expected = list(new_loader(write_pairs(store, [35, 30], broken=BROKEN)).epoch(0))
    index = PairIndex.build(write_pairs(remote, [35, 30], broken=BROKEN))
    reads.clear()
    assert_same(list(new_loader(index, threads=2).epoch(0)), expected)
    assert set(reads.values()) == {1}
    write_crops(remote, "shard-00001", [1])
    with pytest.raises(StoreError, match=r"shard-00001.*has changed"):
        list(new_loader(index).epoch(0))


def test_pictures_of_the_test_stores_tell_rows_apart() -> None:
    assert len({picture(row) for row in range(200)}) == 200
