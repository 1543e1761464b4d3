"""FLIP on real faces: captions of the grammar from CelebA's true labels, retrieval on its test split against chance.

``--celeba`` is a folder in CelebA's own layout (or a small part of one). Its official split is kept: the epoch is chosen on the
validation split, the test split is looked at once. CelebA is for non-commercial research; nothing of it is kept.

    .venv/bin/python bench/flip_celeba.py --celeba FOLDER --preset tiny --epochs 20
"""

from __future__ import annotations

import argparse
import logging
import os
import tempfile
import time
from pathlib import Path

import numpy as np
import polars as pl
from harness import write_json

from facecaption_ml.attributes.celeba import read_celeba
from facecaption_ml.captions import template_caption
from facecaption_ml.dataset.sources import sample_id
from facecaption_ml.decoding import encode_jpeg
from facecaption_ml.flip.model.presets import Preset, preset_names
from facecaption_ml.flip.training.config import TrainingConfig
from facecaption_ml.flip.training.options import TrainingOptions
from facecaption_ml.flip.training.process import train
from facecaption_ml.schemas import SCHEMAS
from facecaption_ml.storage.store import Store
from facecaption_ml.taxonomy import ATTRIBUTES, settle_conflicts

SHARD_ROWS = 1000


def write_pairs(folder: Path, side: int, store: Store) -> None:
    """The pictures as crops of ``side`` px and a template caption of each, in shards; a row's split is CelebA's own."""
    data = read_celeba(folder, (side, side))
    split_of = {int(row): split for split, rows in data.rows.items() for row in rows}
    numbers = np.arange(len(data.images))
    for start in range(0, len(numbers), SHARD_ROWS):
        rows = numbers[start : start + SHARD_ROWS]
        crops, pairs = [], []
        for row, pixels in zip(rows.tolist(), data.images.batch(rows, (side, side)), strict=True):
            held = [name for name, has in zip(ATTRIBUTES, data.labels[row], strict=True) if has]
            labels = list(settle_conflicts(held)[0])
            caption = template_caption(labels, "male" if "Male" in held else "female", seed=row)
            url = f"celeba:{row}"
            face = {
                "face_id": f"{sample_id(url)}_0",
                "url": url,
                "alt_text": "",
                "box": [0.0, 0.0, float(side), float(side)],
            }
            crops.append(
                {
                    **face,
                    "sample_id": sample_id(url),
                    "image": {"bytes": encode_jpeg(pixels), "path": None},
                    "width": side,
                    "height": side,
                    "landmarks": [[0.0, 0.0]] * 5,
                    "score": 1.0,
                    "roll_degrees": 0.0,
                }
            )
            pairs.append(
                {**face, "caption": caption, "template_caption": caption, "labels": labels, "split": split_of[row]}
            )
        shard = f"shard-{start // SHARD_ROWS:05d}"
        store.write_table("face_crops", pl.DataFrame(crops, schema=dict(SCHEMAS["face_crops"])), shard)
        store.write_table(
            "facecaption_dataset", pl.DataFrame(pairs, schema=dict(SCHEMAS["facecaption_dataset"])), shard
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--celeba", type=Path, required=True)
    parser.add_argument("--preset", default="tiny", choices=preset_names())
    parser.add_argument("--epochs", type=int, help="default: the preset's")
    parser.add_argument("--queue-size", type=int, help="default: the preset's")
    parser.add_argument("--peak-learning-rate", type=float, help="default: the preset's")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--out", type=Path, help="write the figures as JSON")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    with tempfile.TemporaryDirectory() as scratch:
        store = Store(f"{scratch}/store")
        write_pairs(arguments.celeba, max(Preset.named(arguments.preset).image.size, 64), store)
        options = TrainingOptions(
            preset=arguments.preset,
            epochs=arguments.epochs,
            queue_size=arguments.queue_size,
            peak_learning_rate=arguments.peak_learning_rate,
            threads=arguments.threads,
            log_every=200,
        )
        config = TrainingConfig(
            options=options,
            store=store.root,
            shards=tuple(store.shards("facecaption_dataset")),
            variant="flip_template",
            seed=arguments.seed,
        )
        started = time.monotonic()
        outcome = train(config, Path(scratch) / "work")
        assert outcome is not None
        found = {"seconds": time.monotonic() - started, "config": dict(outcome.config)}
    for split, recall in outcome.recalls.items():
        print(f"{split}: {recall}")
    epoch = f"epoch {outcome.best_epoch} of {config.options.epochs}"
    print(f"{arguments.preset}, {outcome.steps} steps in {found['seconds']:.0f} s, {epoch}")
    write_json(arguments.out, found)


if __name__ == "__main__":
    main()
