"""FLIP, FLIP* and FLIP† on the sample world: the same pictures, epochs and seeds, three kinds of text (as in Table 2).

Takes the store of a finished pipeline (``make demo`` leaves one), trains every variant with several seeds, and judges all of
them by the same held-out captions: the test split, looked at once by each run; its epoch is chosen on the validation split.
Prints the mean and the standard deviation over the seeds. Runs go two at a time, a thread each.

    .venv/bin/python bench/flip_variants.py --store .facecaption/store --out flip_variants.json
"""

from __future__ import annotations

import argparse
import json
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from harness import write_json

from facecaption_ml.flip.model.presets import preset_names
from facecaption_ml.flip.training.config import TEXT_COLUMNS, TrainingConfig
from facecaption_ml.flip.training.options import TrainingOptions
from facecaption_ml.markdown import markdown_table
from facecaption_ml.storage.store import Store

KS = (1, 5, 10)


def run(store: Path, variant: str, seed: int, arguments: argparse.Namespace, scratch: Path) -> dict[str, Any]:
    """One training in its own process and its own copy of the tables; the checkpoint's config.json."""
    home = scratch / f"{variant}-{seed}"
    for table in ("face_crops", "facecaption_dataset"):
        shutil.copytree(store / table, home / "store" / table)
    config = TrainingConfig(
        options=TrainingOptions(preset=arguments.preset, epochs=arguments.epochs, threads=1, log_every=1000),
        store=str(home / "store"),
        shards=tuple(Store(str(store)).shards("facecaption_dataset")),
        variant=variant,
        seed=seed,
    )
    (home / "config.json").write_text(config.to_json())
    command = [sys.executable, "-m", "facecaption_ml.flip.training.process", "--config", str(home / "config.json")]
    started = time.monotonic()
    done = subprocess.run([*command, "--work", str(home / "work")], capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{variant}, seed {seed}: {done.stderr.splitlines()[-1]}")
    found: dict[str, Any] = json.loads((home / "store" / config.prefix / "config.json").read_text())
    found["seconds"] = time.monotonic() - started
    shutil.rmtree(home)
    print(f"{variant}, seed {seed}: {found['steps']} steps in {found['seconds']:.0f} s", file=sys.stderr, flush=True)
    return found


def recalls(config: dict[str, Any]) -> list[float]:
    """R@1, R@5, R@10 on the test split, the mean of both directions, in percent."""
    test = config["held_out"]["test"]
    return [50 * (a + b) for a, b in zip(test["image_to_text"], test["text_to_image"], strict=True)]


def table(found: dict[str, list[dict[str, Any]]]) -> str:
    rows = []
    for variant, configs in found.items():
        columns = list(zip(*map(recalls, configs), strict=True))
        shares = [f"{statistics.mean(c):.1f} ± {statistics.stdev(c) if len(c) > 1 else 0:.1f}" for c in columns]
        sizes = [str(configs[0][name]) for name in ("pairs", "steps")]
        rows.append([f"`{variant}`", TEXT_COLUMNS[variant], *sizes, *shares])
    chance = next(iter(found.values()))[0]["held_out"]["test"]["chance"]
    rows.append(["chance", "", "", "", *(f"{100 * value:.1f}" for value in chance)])
    return markdown_table(("variant", "learns from", "pairs", "steps", "R@1", "R@5", "R@10"), rows, "llrrrrr")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--store", type=Path, default=Path(".facecaption/store"))
    parser.add_argument("--preset", default="tiny", choices=preset_names())
    parser.add_argument("--epochs", type=int, help="default: the preset's")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--parallel", type=int, default=2, help="trainings at a time, a thread each")
    parser.add_argument("--out", type=Path, help="write the figures as JSON")
    arguments = parser.parse_args()
    if not Store(str(arguments.store)).shards("facecaption_dataset"):
        parser.error(f"{arguments.store} holds no facecaption_dataset: run `make demo` first, or name a store")
    jobs = [(variant, seed) for seed in range(arguments.seeds) for variant in TEXT_COLUMNS]
    with tempfile.TemporaryDirectory() as scratch, ThreadPoolExecutor(arguments.parallel) as pool:
        done = list(pool.map(lambda job: run(arguments.store, *job, arguments, Path(scratch)), jobs))
    found = {v: [config for (variant, _), config in zip(jobs, done, strict=True) if variant == v] for v in TEXT_COLUMNS}
    test = done[0]["held_out"]["test"]["pairs"]
    where = f"{test} test pairs, {platform.machine()}"
    print(f"{arguments.preset}, {arguments.seeds} seeds, {where}; percent, mean ± standard deviation\n")
    print(table(found))
    kept = ("held_out", "steps", "pairs", "best_epoch", "data_version", "version", "seconds")
    write_json(arguments.out, {v: [{name: config[name] for name in kept} for config in found[v]] for v in found})


if __name__ == "__main__":
    main()
