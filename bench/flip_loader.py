"""Pictures per second and peak memory of the training loader on one core, beside a plain one.

    python bench/flip_loader.py [--pairs 4096] [--faces 512] [--rounds 5] [--data FOLDER] [--out FILE]

Makes a store of ``--pairs`` pairs out of ``--faces`` drawn faces, JPEG crops of 285 × 285 pixels in row groups of 512, and
reads one epoch of it in batches of 64 views of 224 × 224 pixels:

1. ``PairLoader`` with training views: reading, decoding, augmentation and assembly, the first window's reading included.
2. The plain way: rows of a shard shuffled and taken one by one, Pillow decodes, torchvision's v2 transforms (RandomResizedCrop,
   RandomHorizontalFlip, RandAugment with two operations) make the view, ``torch.stack`` the batch.

Each measurement has a process of its own, pinned to one core where the system can do so, with one thread in OpenCV and
torch; the ways take turns. Rates are medians of ``--rounds`` (lowest–highest): by wall clock, which other work on the core
lowers, and by CPU seconds of all the process's threads. Memory is the highest resident size; the interpreter and its
libraries ("idle") are included.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import io
import json
import os
import statistics
import tempfile
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import polars as pl
import pyarrow.parquet  # noqa: F401  (before the clock starts: Store imports it with the first table)
import torch
from harness import clocked, in_own_process, machine, write_json
from PIL import Image
from torchvision.transforms import v2

from facecaption_ml.decoding import encode_jpeg
from facecaption_ml.flip.pairs.index import PairIndex, PairSource
from facecaption_ml.flip.pairs.loader import PairLoader
from facecaption_ml.markdown import markdown_table
from facecaption_ml.sample.labelled import labelled_portraits
from facecaption_ml.schemas import SCHEMAS
from facecaption_ml.storage.store import Store

CROP, SIDE, BATCH, SHARD_ROWS = 285, 224, 64, 2048
NAMES = {"ours": "PairLoader", "plain": "Pillow + torchvision v2"}


def write_store(root: Path, pairs: int, faces: int) -> None:
    """The drawn faces over and over, each row with an id and a text of its own."""
    store = Store(str(root))
    if store.shards("face_crops"):
        return
    drawn, _ = labelled_portraits(faces, seed=1, size=CROP)
    files = [encode_jpeg(image) for image in drawn]
    for number, start in enumerate(range(0, pairs, SHARD_ROWS)):
        shard, rows = f"shard-{number:05d}", range(start, min(start + SHARD_ROWS, pairs))
        ids = [hashlib.sha256(str(row).encode()).hexdigest()[:16] for row in rows]
        shared = {"url": "http://a.test/1.jpg", "alt_text": None, "box": [0.0, 0.0, CROP, CROP]}
        crops = [
            {
                **shared, "face_id": f"{key}_0", "sample_id": key, "width": CROP, "height": CROP, "score": 0.99,
                "image": {"bytes": files[row % faces], "path": None}, "landmarks": [[0.0, 0.0]] * 5, "roll_degrees": 0.0,
            }
            for key, row in zip(ids, rows, strict=True)
        ]  # fmt: skip
        texts = [f"A person with a long description, the {row}th of many." for row in rows]
        captions = [
            {
                **shared, "face_id": f"{key}_0", "caption": text, "template_caption": text, "labels": [], "split": "train",
            }
            for key, text in zip(ids, texts, strict=True)
        ]  # fmt: skip
        for table, found in (("face_crops", crops), ("facecaption_dataset", captions)):
            store.write_table(table, pl.DataFrame(found, schema=dict(SCHEMAS[table]), orient="row"), shard)


def ours(store: Store) -> Iterator[int]:
    """Sizes of batches."""
    source = PairSource(store, tuple(store.shards("face_crops")), "caption")
    loader = PairLoader(PairIndex.build(source), batch_size=BATCH, image_size=SIDE, seed=1, window_row_groups=4)
    try:
        for batch in loader.epoch(0):
            assert batch.images.shape[1:] == (3, SIDE, SIDE)
            yield len(batch.images)
    finally:
        loader.close()


def plain(store: Store) -> Iterator[int]:
    transform = v2.Compose(
        [
            v2.RandomResizedCrop(SIDE, scale=(0.5, 1.0)),
            v2.RandomHorizontalFlip(),
            v2.RandAugment(num_ops=2, magnitude=7),
            v2.PILToTensor(),
        ]
    )
    views: list[torch.Tensor] = []
    for shard in store.shards("face_crops"):
        crops = store.read_table("face_crops", shard, columns=["face_id", "image"])
        texts = dict(store.read_table("facecaption_dataset", shard, columns=["face_id", "caption"]).iter_rows())
        for row in np.random.default_rng(1).permutation(len(crops)).tolist():
            face_id, image = crops.row(row)
            assert texts[face_id]
            views.append(transform(Image.open(io.BytesIO(image["bytes"])).convert("RGB")))
            if len(views) == BATCH:
                yield len(torch.stack(views))
                views = []


def measure_here(way: str, root: Path) -> dict:
    """What the timed process does."""
    with contextlib.suppress(AttributeError):  # not every system has it
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    cv2.setNumThreads(1)
    torch.set_num_threads(1)
    store = Store(str(root))
    pictures, taken = clocked(lambda: sum({"ours": ours, "plain": plain}[way](store)))
    return {"pictures": pictures, **taken}


def measure(way: str, root: Path) -> dict:
    threads = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "POLARS_MAX_THREADS"), "1")
    return in_own_process(__file__, "--measure", way, "--data", root, **threads)


def rate(run: dict, clock: str) -> float:
    return run["pictures"] / run[f"{clock}_s"]


def record_of(way: str, runs: list[dict]) -> dict:
    rates = {clock: [rate(run, clock) for run in runs] for clock in ("wall", "cpu")}
    return {
        "way": way,
        **{f"per_{clock}_s": statistics.median(found) for clock, found in rates.items()},
        **{f"per_{clock}_s_range": [min(found), max(found)] for clock, found in rates.items()},
        "peak_mb": max(run["peak_mb"] for run in runs),
        "idle_mb": max(run["idle_mb"] for run in runs),
    }


def row(record: dict) -> list[str]:
    rates = (
        f"{record[f'per_{clock}_s']:,.0f} ({low:,.0f}–{high:,.0f})"
        for clock in ("wall", "cpu")
        for low, high in [record[f"per_{clock}_s_range"]]
    )
    return [NAMES[record["way"]], *rates, f"{record['peak_mb']:,.0f}", f"{record['idle_mb']:,.0f}"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=4096, help="default 4096")
    parser.add_argument("--faces", type=int, default=512, help="different ones to draw, default 512")
    parser.add_argument("--rounds", type=int, default=5, help="default 5")
    parser.add_argument("--data", type=Path, help="folder for the made store, kept; default: a temporary one")
    parser.add_argument("--out", type=Path, help="write the figures as JSON here")
    parser.add_argument("--measure", choices=("ours", "plain"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        print(json.dumps(measure_here(options.measure, options.data)))
        return
    with tempfile.TemporaryDirectory() as temporary:
        root = options.data or Path(temporary)
        write_store(root, options.pairs, options.faces)
        rounds = [{way: measure(way, root) for way in ("ours", "plain")} for _ in range(options.rounds)]
    records = [record_of(way, [both[way] for both in rounds]) for way in ("ours", "plain")]
    heads = ("loader, one core", "pictures/s, wall (range)", "pictures/CPU s (range)", "peak MB", "idle MB")
    print(markdown_table(heads, map(row, records), "lrrrr"))
    ratios = {
        clock: statistics.median(rate(both["ours"], clock) / rate(both["plain"], clock) for both in rounds)
        for clock in ("wall", "cpu")
    }
    print(
        f"\nPairLoader is {ratios['wall']:.2f} times as fast by wall clock, {ratios['cpu']:.2f} times by CPU seconds."
    )
    write_json(options.out, {"machine": machine(), "ratios": ratios, "runs": records})


if __name__ == "__main__":
    main()
