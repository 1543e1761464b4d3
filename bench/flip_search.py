"""Memory and time of a search over stored features, and of retrieval ranks, beside plain numpy with the whole matrix.

    python bench/flip_search.py [--faces 1000000] [--queries 1 100] [--pairs 20000] [--rounds 3] [--data FOLDER] [--out FILE]

1. Writes ``--faces`` random unit rows of ``--dimensions`` as a checkpoint's ``face_features`` (float16, 10,000 to a shard), as
   ``FaceFeatures.update`` leaves them.
2. Search: the ``--top`` nearest of so many queries, read from the store. ``nearest_faces``, beside the plain way: all
   features in one float32 matrix, all similarities in another, ``argpartition`` and a sort.
3. Ranks: ``--pairs`` queries against as many items, half of them hard to find. ``retrieval_ranks``, beside the plain way: one
   float32 matrix, compared with its diagonal.

Each measurement has a process of its own; the ways take turns. Time is the median of ``--rounds``, memory the highest resident
size, in which the interpreter and its libraries ("idle") are included. Both ways must find the same faces; ranks may
differ by one in a thousandth of the queries, for float32 sums cannot tell the nearest similarities apart.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
from harness import clocked, in_own_process, machine, write_json

from facecaption_ml.flip.use.face_features import FOLDER, FaceFeatures
from facecaption_ml.flip.use.search import nearest_faces
from facecaption_ml.markdown import markdown_table
from facecaption_ml.ranking import retrieval_ranks
from facecaption_ml.storage.store import Store

SHARD_ROWS = 10_000
VERSION = "random"
NAMES = {
    ("search", "ours"): "nearest_faces",
    ("search", "plain"): "numpy, whole matrix",
    ("ranks", "ours"): "retrieval_ranks",
    ("ranks", "plain"): "numpy, whole matrix",
}


def unit_rows(rows: np.ndarray) -> np.ndarray:
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def write_features(root: Path, faces: int, dimensions: int) -> None:
    store = Store(str(root))
    for number, start in enumerate(range(0, faces, SHARD_ROWS)):
        shard, rows = f"{FOLDER}/{VERSION}/shard-{number:05d}", min(SHARD_ROWS, faces - start)
        if store.exists(f"{shard}.json"):
            continue
        features = unit_rows(np.random.default_rng(number).standard_normal((rows, dimensions), np.float32))
        with store.writing_file(f"{shard}.npy") as path, path.open("wb") as file:
            np.save(file, features.astype(np.float16))
        entry = {"crops": "", "face_ids": [f"{start + i:016x}_0" for i in range(rows)], "unreadable": []}
        store.write_bytes(f"{shard}.json", json.dumps(entry).encode())


def queries(count: int, dimensions: int) -> np.ndarray:
    return unit_rows(np.random.default_rng(99).standard_normal((count, dimensions), np.float32))


def search_ours(root: Path, count: int, dimensions: int, top: int) -> list[list[str]]:
    found = nearest_faces(FaceFeatures(Store(str(root)), VERSION), queries(count, dimensions), top)
    return [[face.face_id for face in faces] for faces in found]


def search_plain(root: Path, count: int, dimensions: int, top: int) -> list[list[str]]:
    folder = root / FOLDER / VERSION
    features = np.concatenate([np.load(path).astype(np.float32) for path in sorted(folder.glob("*.npy"))])
    ids = [face_id for path in sorted(folder.glob("*.json")) for face_id in json.loads(path.read_bytes())["face_ids"]]
    similarity = queries(count, dimensions) @ features.T
    nearest = np.argpartition(similarity, -top, axis=1)[:, -top:]
    order = np.argsort(-np.take_along_axis(similarity, nearest, axis=1), axis=1)
    return [[ids[at] for at in row] for row in np.take_along_axis(nearest, order, axis=1)]


def ranked_pairs(count: int, dimensions: int) -> tuple[np.ndarray, np.ndarray]:
    draw = np.random.default_rng(7)
    items = draw.standard_normal((count, dimensions), np.float32)
    noise = draw.standard_normal((count, dimensions), np.float32) * np.where(np.arange(count) % 2, 1, 6)[:, None]
    return unit_rows(items + noise).astype(np.float32), unit_rows(items)


def ranks_ours(count: int, dimensions: int) -> list[int]:
    return retrieval_ranks(*ranked_pairs(count, dimensions)).tolist()


def ranks_plain(count: int, dimensions: int) -> list[int]:
    images, texts = ranked_pairs(count, dimensions)
    similarity = images @ texts.T
    return (similarity >= similarity.diagonal()[:, None]).sum(axis=1).tolist()


def measure_here(work: str, way: str, count: int, options: argparse.Namespace) -> dict:
    """What the timed process does."""
    calls: dict[tuple[str, str], Callable[[], list]] = {
        ("search", "ours"): lambda: search_ours(options.data, count, options.dimensions, options.top),
        ("search", "plain"): lambda: search_plain(options.data, count, options.dimensions, options.top),
        ("ranks", "ours"): lambda: ranks_ours(count, options.dimensions),
        ("ranks", "plain"): lambda: ranks_plain(count, options.dimensions),
    }
    answer, taken = clocked(calls[work, way])
    return {**taken, "answer": answer}


def measure(work: str, way: str, count: int, options: argparse.Namespace) -> dict:
    given = ["--data", options.data, "--dimensions", options.dimensions, "--top", options.top]
    return in_own_process(__file__, "--measure", work, way, count, *given)


def agree(work: str, ours: list, plain: list) -> bool:
    if work == "search":
        return ours == plain
    off = np.abs(np.subtract(ours, plain))
    return bool(off.max() <= 1 and np.mean(off > 0) <= 1e-3)


def compare(work: str, count: int, options: argparse.Namespace) -> list[dict]:
    """Both ways in turns; a record of each."""
    rounds = [{way: measure(work, way, count, options) for way in ("ours", "plain")} for _ in range(options.rounds)]
    for both in rounds:
        if not agree(work, both["ours"]["answer"], both["plain"]["answer"]):
            raise SystemExit(f"{work}, {count}: the ways do not find the same")
    records = []
    for way in ("ours", "plain"):
        runs = [both[way] for both in rounds]
        walls = [run["wall_s"] for run in runs]
        records.append(
            {
                "work": work,
                "way": way,
                "count": count,
                "wall_s": statistics.median(walls),
                "wall_s_range": [min(walls), max(walls)],
                "cpu_s": statistics.median(run["cpu_s"] for run in runs),
                "peak_mb": max(run["peak_mb"] for run in runs),
                "idle_mb": max(run["idle_mb"] for run in runs),
            }
        )
    return records


def row(record: dict, faces: int) -> list[str]:
    low, high = record["wall_s_range"]
    size = f"{record['count']:,} × {faces if record['work'] == 'search' else record['count']:,}"
    return [
        record["work"], NAMES[record["work"], record["way"]], size, f"{record['wall_s']:.2f} ({low:.2f}–{high:.2f})",
        f"{record['cpu_s']:.2f}", f"{record['peak_mb']:,.0f}", f"{record['idle_mb']:,.0f}",
    ]  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--faces", type=int, default=1_000_000, help="default 1000000")
    parser.add_argument("--dimensions", type=int, default=256, help="of a feature, default 256")
    parser.add_argument("--queries", type=int, nargs="+", default=[1, 100], help="default 1 and 100")
    parser.add_argument("--top", type=int, default=8, help="faces to find, default 8")
    parser.add_argument("--pairs", type=int, default=20_000, help="for the ranks, default 20000; 0: leave out")
    parser.add_argument("--rounds", type=int, default=3, help="default 3")
    parser.add_argument("--data", type=Path, help="folder for the made features, kept; default: a temporary one")
    parser.add_argument("--out", type=Path, help="write the figures as JSON here")
    parser.add_argument("--measure", nargs=3, metavar=("WORK", "WAY", "COUNT"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        work, way, count = options.measure
        print(json.dumps(measure_here(work, way, int(count), options)))
        return
    with tempfile.TemporaryDirectory() as temporary:
        options.data = options.data or Path(temporary)
        write_features(options.data, options.faces, options.dimensions)
        records = []
        plan = [("search", count) for count in options.queries] + ([("ranks", options.pairs)] if options.pairs else [])
        for work, count in plan:
            records += compare(work, count, options)
    heads = ("work", "way", "queries × items", "wall s (range)", "CPU s", "peak MB", "idle MB")
    print(markdown_table(heads, [row(record, options.faces) for record in records], "llrrrrr"))
    threads = os.environ.get("OMP_NUM_THREADS", "all cores")
    write_json(options.out, {"machine": {**machine(), "threads": threads}, "faces": options.faces, "runs": records})


if __name__ == "__main__":
    main()
