"""Batches of face–caption pairs, streamed from shards window by window, decoded in the background (see epoch_order)."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Generator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import Any, Final

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset

from facecaption_ml.decoding import UndecodableImage
from facecaption_ml.flip import epoch_order
from facecaption_ml.flip.augmentation import decode_for, plain_view, training_view
from facecaption_ml.flip.pair_index import CROPS, PairIndex, PairSource
from facecaption_ml.flip.pair_reader import Pair, PairReader, caption_id
from facecaption_ml.store import StoreError

__all__ = ["PairBatch", "PairIndex", "PairLoader", "PairSource", "caption_id"]

_VIEW_STREAM: Final = 0x6703
_POLL_S: Final = 0.1


@dataclass(frozen=True)
class PairBatch:
    """``images`` uint8 [B, 3, S, S] RGB, one text and face id each, ``caption_ids`` int64 [B], equal where captions are.

    ``undecodable``: pictures that could not be decoded and in whose place another pair stands.
    """

    images: Tensor
    texts: list[str]
    face_ids: list[str]
    caption_ids: Tensor
    undecodable: int = 0


@dataclass(frozen=True)
class View:
    """A pair with its picture decoded, uint8 [S, S, 3]; ``replaced`` where it stands for one that did not decode."""

    pixels: np.ndarray
    pair: Pair
    replaced: bool


@dataclass
class PairLoader:
    """The batches of one process among ``world_size``, the same whatever the number of threads.

    ``augment``: training views, a share ``randaugment`` of them with RandAugment; else plain ones. ``threads`` decode in
    the background; with ``process`` they do so in a process of their own, away from the training loop's interpreter
    lock. ``prefetch`` batches are prepared ahead. Close it after use. Raises ValueError for less than one global batch.
    """

    index: PairIndex
    batch_size: int
    image_size: int
    seed: int
    rank: int = 0
    world_size: int = 1
    augment: bool = True
    randaugment: float = 1.0
    threads: int = 1
    process: bool = False
    window_row_groups: int = 16
    prefetch: int = 4
    undecodable: int = 0
    """Pictures that did not decode, so far."""
    wait_seconds: float = 0.0
    """How long the consumer has waited for batches, so far."""
    _pool: ThreadPoolExecutor | None = field(default=None, init=False, repr=False)

    def __post_init__(self) -> None:
        self.batches_per_epoch = epoch_order.batches_per_epoch(len(self.index), self.batch_size, self.world_size)

    def epoch(self, epoch: int, first_batch: int = 0) -> Generator[PairBatch]:
        """The batches of an epoch from ``first_batch`` on. What comes before is neither read nor decoded."""
        batches = self._from_process(epoch, first_batch) if self.process else self._batches(epoch, first_batch)
        while True:
            started = time.monotonic()
            batch = next(batches, None)
            self.wait_seconds += time.monotonic() - started
            if batch is None:
                return
            self.undecodable += batch.undecodable
            yield batch

    def close(self) -> None:
        """End the threads."""
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)
            self._pool = None

    # -- in this process ---------------------------------------------------------------------------------------------

    def _batches(self, epoch: int, first_batch: int) -> Iterator[PairBatch]:
        """A thread reads windows and hands pairs to the decoding threads; batches come out in order."""
        # kept for all epochs: threads that come and go leave memory behind in numerical libraries
        self._pool = self._pool or ThreadPoolExecutor(
            self.threads, thread_name_prefix="decode", initializer=_one_thread
        )
        ready: queue.Queue[Any] = queue.Queue(self.prefetch)
        stop = threading.Event()
        reader = threading.Thread(target=self._read, args=(epoch, first_batch, ready, stop), daemon=True, name="read")
        reader.start()
        try:
            while (item := ready.get()) is not None:
                if isinstance(item, BaseException):
                    raise item
                yield _assembled([future.result() for future in item])
        finally:
            stop.set()
            reader.join()

    def _read(self, epoch: int, first_batch: int, ready: queue.Queue[Any], stop: threading.Event) -> None:
        try:
            assert self._pool is not None
            reader = PairReader(self.index)
            waiting: list[Future[View]] = []
            for positions in self._windows(epoch, first_batch):
                pairs = reader.read(positions)
                for place, position in enumerate(positions.tolist()):
                    waiting.append(self._pool.submit(self._view, pairs, place, position, epoch))
                    if len(waiting) == self.batch_size:
                        if not _put(ready, waiting, stop):
                            return
                        waiting = []
            _put(ready, None, stop)
        except BaseException as error:  # raised where the batches are taken
            _put(ready, error, stop)

    def _windows(self, epoch: int, first_batch: int) -> Iterator[np.ndarray]:
        return epoch_order.windows(
            self.index,
            seed=self.seed,
            epoch=epoch,
            rank=self.rank,
            world_size=self.world_size,
            batch_size=self.batch_size,
            window_row_groups=self.window_row_groups,
            first_batch=first_batch,
        )

    def _view(self, pairs: list[Pair], place: int, position: int, epoch: int) -> View:
        """A pair's picture as the model sees it; where it does not decode, another pair of the window, drawn at random."""
        rng = np.random.default_rng((_VIEW_STREAM, self.seed, epoch, position))
        image = self._decoded(pairs[place])
        if image is not None:
            return View(self._seen(image, rng), pairs[place], False)
        for other in rng.permutation(len(pairs)).tolist():
            image = self._decoded(pairs[other])
            if image is not None:
                return View(self._seen(image, rng), pairs[other], True)
        raise StoreError(f"none of {len(pairs)} pictures decodes: {CROPS} is damaged, materialise it again")

    def _decoded(self, pair: Pair) -> np.ndarray | None:
        try:
            return decode_for(pair.data, self.image_size)
        except UndecodableImage:
            return None

    def _seen(self, image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        if self.augment:
            return training_view(image, self.image_size, rng, self.randaugment)
        return plain_view(image, self.image_size)

    # -- in another process ------------------------------------------------------------------------------------------

    def _from_process(self, epoch: int, first_batch: int) -> Iterator[PairBatch]:
        stream = _EpochStream(replace(self, process=False), epoch, first_batch)
        return iter(
            DataLoader(
                stream,
                batch_size=None,
                num_workers=1,  # one process: a second would read the same row groups again
                prefetch_factor=self.prefetch,
                multiprocessing_context="spawn",
            )
        )


class _EpochStream(IterableDataset[PairBatch]):
    """An epoch of a loader, for another process."""

    def __init__(self, loader: PairLoader, epoch: int, first_batch: int) -> None:
        self._loader, self._epoch, self._first_batch = loader, epoch, first_batch

    def __iter__(self) -> Iterator[PairBatch]:
        yield from self._loader.epoch(self._epoch, self._first_batch)
        self._loader.close()


def _assembled(views: list[View]) -> PairBatch:
    pixels = torch.from_numpy(np.stack([view.pixels for view in views])).permute(0, 3, 1, 2)
    texts = [view.pair.text for view in views]
    return PairBatch(
        pixels,
        texts,
        [view.pair.face_id for view in views],
        torch.tensor([caption_id(text) for text in texts], dtype=torch.int64),
        sum(view.replaced for view in views),
    )


def _put(ready: queue.Queue[Any], item: Any, stop: threading.Event) -> bool:
    """Put unless the consumer has gone; whether it was put."""
    while not stop.is_set():
        try:
            ready.put(item, timeout=_POLL_S)
            return True
        except queue.Full:
            continue
    return False


def _one_thread() -> None:
    cv2.setNumThreads(1)  # the pool is what runs side by side
