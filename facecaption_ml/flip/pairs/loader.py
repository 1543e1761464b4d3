"""Batches of face–caption pairs, streamed from shards window by window, decoded in the background (see epoch_order)."""

from __future__ import annotations

import signal
import time
from collections import deque
from collections.abc import Generator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field, replace
from typing import Final

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset

from facecaption_ml.decoding import UndecodableImage
from facecaption_ml.errors import first_line
from facecaption_ml.flip.pairs import epoch_order
from facecaption_ml.flip.pairs.augmentation import decode_for, decoded_side, plain_view, training_view
from facecaption_ml.flip.pairs.index import CROPS, PairIndex
from facecaption_ml.flip.pairs.reader import Pair, PairReader, caption_id
from facecaption_ml.storage.store import StoreError

_VIEW_STREAM: Final = 0x6703
_TOGETHER: Final = 8  # pictures a task: handing over single ones costs a tenth of decoding them
_SENT_AHEAD: Final = 2  # batches between the processes; they lie in /dev/shm, which containers keep small


@dataclass(frozen=True)
class PairBatch:
    """``images`` uint8 [B, 3, S, S] RGB, one text and face id each, ``caption_ids`` int64 [B], equal where captions are.

    ``undecodable``: pictures that could not be decoded and in whose place another pair of their window stands.
    """

    images: Tensor
    texts: list[str]
    face_ids: list[str]
    caption_ids: Tensor
    undecodable: int = 0


@dataclass
class PairLoader:
    """The batches of one process among ``world_size``, the same whatever the number of threads.

    ``augment``: training views, as ``randaugment`` and ``crop_area`` of ``training_view`` say; else plain ones. ``threads``
    decode in the background and one more reads; with ``process`` they do so in a process of their own, away from the training
    loop's interpreter lock. ``prefetch`` batches are decoded ahead. In memory are the encoded pictures of two windows: that
    which is decoded, and the next one, which is read meanwhile. Close it after use. Raises PairsError for less than one
    global batch.
    """

    index: PairIndex
    batch_size: int
    image_size: int
    seed: int
    rank: int = 0
    world_size: int = 1
    augment: bool = True
    randaugment: float = 1.0
    crop_area: float = 1.0
    threads: int = 1
    process: bool = False
    window_row_groups: int = 16
    prefetch: int = 4
    batches_per_epoch: int = field(init=False)
    """Equal on every process."""
    undecodable: int = field(default=0, init=False)
    """Pictures that did not decode, so far."""
    wait_seconds: float = field(default=0.0, init=False)
    """How long the consumer has waited for batches, so far."""
    _pools: tuple[ThreadPoolExecutor, ThreadPoolExecutor] | None = field(default=None, init=False, repr=False)

    def __post_init__(self) -> None:
        self.batches_per_epoch = epoch_order.batches_per_epoch(len(self.index), self.batch_size, self.world_size)

    def epoch(self, epoch: int, first_batch: int = 0) -> Generator[PairBatch]:
        """The batches of an epoch from ``first_batch`` on.

        Windows that lie before it are neither read nor decoded. Raises StoreError naming a shard that cannot be read, and
        with ``process`` RuntimeError where the process is killed.
        """
        source = self._from_process if self.process else self._batches
        with closing(source(epoch, first_batch)) as batches:
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
        for pool in self._pools or ():
            pool.shutdown(cancel_futures=True)
        self._pools = None

    # -- in this process ---------------------------------------------------------------------------------------------

    def _batches(self, epoch: int, first_batch: int) -> Generator[PairBatch]:
        """Batches in order, while the ``prefetch`` next ones are decoded."""
        if self._pools is None:
            # kept for all epochs: threads that come and go leave memory behind in numerical libraries
            decoding = ThreadPoolExecutor(self.threads, "decode", initializer=cv2.setNumThreads, initargs=(1,))
            self._pools = ThreadPoolExecutor(1, "read"), decoding
        in_flight: deque[_BatchInFlight] = deque()
        with closing(self._submitted(epoch, first_batch, *self._pools)) as submitted:
            try:
                for batch in submitted:
                    in_flight.append(batch)
                    if len(in_flight) > self.prefetch:
                        yield in_flight.popleft().finished()
                while in_flight:
                    yield in_flight.popleft().finished()
            finally:
                for batch in in_flight:
                    batch.cancel()

    def _submitted(
        self, epoch: int, first_batch: int, reading: ThreadPoolExecutor, decoding: ThreadPoolExecutor
    ) -> Generator[_BatchInFlight]:
        """Hands the rows of one window after another to the decoding threads, batch by batch."""
        rows: list[tuple[_Window, int]] = []
        with closing(self._windows(epoch, first_batch, reading)) as windows:
            for window, skipped in windows:
                rows += ((window, place) for place in range(skipped, len(window.pairs)))
                whole = len(rows) - len(rows) % self.batch_size
                for start in range(0, whole, self.batch_size):
                    yield self._submit(rows[start : start + self.batch_size], epoch, decoding)
                rows = rows[whole:]

    def _windows(self, epoch: int, first_batch: int, reading: ThreadPoolExecutor) -> Generator[tuple[_Window, int]]:
        """Windows, and how many of their rows to skip; the next one is read while one is used."""
        order = epoch_order.windows(
            self.index,
            seed=self.seed,
            epoch=epoch,
            rank=self.rank,
            world_size=self.world_size,
            batch_size=self.batch_size,
            window_row_groups=self.window_row_groups,
            first_batch=first_batch,
        )
        reader = PairReader(self.index)

        def read_next() -> tuple[_Window, int] | None:
            positions, skipped = next(order, (None, 0))
            # rows before the first batch are read as well: one of them may stand in for a picture that does not decode
            return None if positions is None else (_Window(positions, reader.read(positions)), skipped)

        coming = reading.submit(read_next)
        try:
            while (window := coming.result()) is not None:
                coming = reading.submit(read_next)
                yield window
        finally:
            coming.cancel()

    def _submit(self, rows: list[tuple[_Window, int]], epoch: int, decoding: ThreadPoolExecutor) -> _BatchInFlight:
        pixels = np.empty((len(rows), self.image_size, self.image_size, 3), np.uint8)
        parts = (slice(start, start + _TOGETHER) for start in range(0, len(rows), _TOGETHER))
        return _BatchInFlight(
            pixels, [decoding.submit(self._show_all, rows[part], pixels[part], epoch) for part in parts]
        )

    def _show_all(self, rows: list[tuple[_Window, int]], pixels: np.ndarray, epoch: int) -> list[_Shown]:
        """Fill ``pixels`` uint8 [N, S, S, 3] with the views of the pairs at ``rows``; what each of them shows."""
        return [self._show(window, place, view, epoch) for (window, place), view in zip(rows, pixels, strict=True)]

    def _show(self, window: _Window, place: int, view: np.ndarray, epoch: int) -> _Shown:
        """A pair's picture as the model sees it; where it does not decode, another pair of the window, drawn at random."""
        rng = np.random.default_rng((_VIEW_STREAM, self.seed, epoch, int(window.positions[place])))
        pair = window.pairs[place]
        if self._showed(pair, view, rng):
            return _Shown(pair.face_id, pair.text, caption_id(pair.text))
        for other in rng.permutation(len(window.pairs)).tolist():
            pair = window.pairs[other]
            if self._showed(pair, view, rng):
                return _Shown(pair.face_id, pair.text, caption_id(pair.text), replaces=True)
        raise StoreError(f"none of {len(window.pairs)} pictures decodes: {CROPS} is damaged, materialize it again")

    def _showed(self, pair: Pair, view: np.ndarray, rng: np.random.Generator) -> bool:
        side = self.image_size
        try:
            image = decode_for(pair.data, decoded_side(side, self.crop_area) if self.augment else side)
        except UndecodableImage:
            return False
        if self.augment:
            view[:] = training_view(image, side, rng, self.randaugment, self.crop_area)
        else:
            view[:] = plain_view(image, side)
        return True

    # -- in another process ------------------------------------------------------------------------------------------

    def _from_process(self, epoch: int, first_batch: int) -> Generator[PairBatch]:
        batches = iter(
            DataLoader(
                _EpochStream(replace(self, process=False), epoch, first_batch),
                batch_size=None,
                num_workers=1,  # one process: a second would read the same row groups again
                prefetch_factor=_SENT_AHEAD,
                multiprocessing_context="spawn",
                generator=torch.Generator(),  # or a resumed training's own random numbers would be drawn from
            )
        )
        try:
            while (item := _received(batches)) is not None:
                if isinstance(item, Exception):
                    raise item
                yield item
        finally:
            del batches  # which ends the process, even while a traceback keeps this frame


class _EpochStream(IterableDataset[PairBatch | Exception]):
    """An epoch of a loader, for another process; what goes wrong there is its last item, to be raised here in one line."""

    def __init__(self, loader: PairLoader, epoch: int, first_batch: int) -> None:
        self._loader, self._epoch, self._first_batch = loader, epoch, first_batch

    def __iter__(self) -> Iterator[PairBatch | Exception]:
        # The training process is told to stop together with its group and still finishes a step; it ends this process.
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_IGN)
        try:
            yield from self._loader.epoch(self._epoch, self._first_batch)
        except Exception as error:
            yield error
        finally:
            self._loader.close()


def _received(batches: Iterator[PairBatch | Exception]) -> PairBatch | Exception | None:
    """The next item. An error is one, not raised here: its traceback would keep ``batches``, and so torch's watch, alive."""
    try:
        return next(batches, None)
    except (RuntimeError, OSError, EOFError) as error:  # whichever notices first that the other side is gone
        reason = first_line(error)
    return RuntimeError(f"DataLoader worker, which reads and decodes pairs, was killed or has ended: {reason}")


# -- what goes between the threads -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Window:
    """Rows that are shuffled together: their positions in the index, int64 [N], and their pairs."""

    positions: np.ndarray
    pairs: list[Pair]


@dataclass(frozen=True)
class _Shown:
    """Whose picture stands at a place of a batch; ``replaces`` one that did not decode."""

    face_id: str
    text: str
    caption_id: int
    replaces: bool = False


@dataclass(frozen=True)
class _BatchInFlight:
    """``pixels`` uint8 [B, S, S, 3], which the tasks fill, a part each."""

    pixels: np.ndarray
    tasks: list[Future[list[_Shown]]]

    def finished(self) -> PairBatch:
        """Waits for the tasks. Raises what one of them raised."""
        shown = [one for task in self.tasks for one in task.result()]
        return PairBatch(
            torch.from_numpy(self.pixels).permute(0, 3, 1, 2),
            [one.text for one in shown],
            [one.face_id for one in shown],
            torch.tensor([one.caption_id for one in shown], dtype=torch.int64),
            sum(one.replaces for one in shown),
        )

    def cancel(self) -> None:
        for task in self.tasks:
            task.cancel()
