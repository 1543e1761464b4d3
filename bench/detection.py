"""Face detection: facecaption_ml.faces against facexlib 0.3.0's ``detect_faces``, one by one, in turns in one process.

Arrays in, faces out: both get the same decoded 640×640 pictures, the same weights, the same score and overlap thresholds and
the same number of threads. Pictures are square cuts of the photographs in a folder (``--photos``), or scenes of
the sample world where there is no such folder. Each round times every contestant once; a ratio is that of one round, and the
table shows medians over the rounds. Processor time per picture stands beside, because a busy machine does not slow all
alike: facexlib's threads share every layer and wait for each other at its end, those here take pictures of their own. A load
average above the number of cores is said; ``--threads 1`` compares without any waiting.

    .venv/bin/python bench/detection.py --out detection.json
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from harness import write_json

from facecaption_ml.decoding import decode_image
from facecaption_ml.devices import has_bfloat16
from facecaption_ml.faces import FaceDetector, load_weights
from facecaption_ml.faces.network import facexlib_network
from facecaption_ml.markdown import markdown_table

SIDE = 640
MIN_SCORE = 0.5
NMS_IOU = 0.4
PHOTOS = Path(__file__).parents[1] / ".." / "shared" / "data" / "photos"
BATCH_SIZES = (1, 2, 4, 8, 16)


def square_cuts(photos: list[np.ndarray], count: int) -> list[np.ndarray]:
    """``count`` square pictures: the photographs' shorter side brought to 640 px, cut at places along the longer one."""
    generator = np.random.default_rng(0)
    cuts = []
    for i in range(count):
        photo = photos[i % len(photos)]
        height, width = photo.shape[:2]
        scale = SIDE / min(height, width)
        size = max(SIDE, round(width * scale)), max(SIDE, round(height * scale))
        resized = cv2.resize(photo, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC)
        left = int(generator.integers(size[0] - SIDE + 1))
        top = int(generator.integers((size[1] - SIDE) // 3 + 1))  # faces stand in the upper part of tall pictures
        cuts.append(np.ascontiguousarray(resized[top : top + SIDE, left : left + SIDE]))
    return cuts


def pictures(folder: Path, count: int) -> tuple[list[np.ndarray], str]:
    if folder.is_dir():
        photos = [decode_image(path.read_bytes()) for path in sorted(folder.iterdir())]
        return square_cuts(photos, count), f"{count} cuts of {len(photos)} photographs"
    from facecaption_ml.sample.scenes import draw_scene

    scenes = [draw_scene(seed).image for seed in range(count)]
    return square_cuts(scenes, count), f"{count} scenes of the sample world"


class Facexlib:
    """facexlib's own model and functions, on BGR copies made beforehand."""

    def __init__(self, weights: str, images: list[np.ndarray]) -> None:
        self.model = facexlib_network(load_weights(weights), "mobile0.25")
        self.images = [np.ascontiguousarray(image[:, :, ::-1]) for image in images]

    @torch.inference_mode()
    def one_by_one(self) -> list[np.ndarray]:
        return [self.model.detect_faces(i, conf_threshold=MIN_SCORE, nms_threshold=NMS_IOU) for i in self.images]

    @torch.inference_mode()
    def batches_of_16(self) -> list[np.ndarray]:
        rows = []
        for start in range(0, len(self.images), 16):
            frames = torch.from_numpy(np.stack(self.images[start : start + 16])).float()
            boxes, landmarks = self.model.batched_detect_faces(frames, MIN_SCORE, NMS_IOU)
            rows += [np.hstack([b.reshape(-1, 5), m.reshape(-1, 10)]) for b, m in zip(boxes, landmarks, strict=True)]
        return rows


def our_rows(detector: FaceDetector, images: list[np.ndarray]) -> list[np.ndarray]:
    """Faces in facexlib's layout: box, score, landmarks."""
    return [
        np.array([[*f.box, f.score, *f.landmarks.ravel()] for f in faces], dtype=np.float32).reshape(-1, 15)
        for faces in detector.detect(images)
    ]


def deviation(ours: list[np.ndarray], theirs: list[np.ndarray]) -> dict[str, float]:
    """How far the two differ: faces without a partner (no box within 1 px), largest difference of boxes, points and scores."""
    result = {"faces": 0.0, "unmatched": 0.0, "box_px": 0.0, "landmarks_px": 0.0, "score": 0.0}
    for mine, peer in zip(ours, theirs, strict=True):
        result["faces"] += len(peer)
        result["unmatched"] += abs(len(mine) - len(peer))
        for row in mine:
            distance = np.abs(peer[:, :4] - row[:4]).max(axis=1) if len(peer) else np.array([np.inf])
            k = int(distance.argmin())
            if distance[k] > 1:
                result["unmatched"] += 1
                continue
            result["box_px"] = max(result["box_px"], float(distance[k]))
            result["landmarks_px"] = max(result["landmarks_px"], float(np.abs(peer[k, 5:] - row[5:]).max()))
            result["score"] = max(result["score"], float(abs(peer[k, 4] - row[4])))
    return result


def timed_rounds(
    contestants: dict[str, Callable[[], Any]], images: int, rounds: int
) -> tuple[dict[str, list[float]], dict[str, list[float]]]:
    """Pictures per second, and milliseconds of processor time per picture, of each contestant in each round."""
    for run in contestants.values():
        run()
    rates: dict[str, list[float]] = {name: [] for name in contestants}
    processor: dict[str, list[float]] = {name: [] for name in contestants}
    for number in range(rounds):
        names = list(contestants) if number % 2 == 0 else list(reversed(contestants))
        for name in names:
            start, used = time.perf_counter(), time.process_time()
            contestants[name]()
            rates[name].append(images / (time.perf_counter() - start))
            processor[name].append((time.process_time() - used) * 1000 / images)
    return rates, processor


def table(rates: dict[str, list[float]], processor: dict[str, list[float]], peer: str) -> str:
    rows = []
    for name, values in rates.items():
        ratio = statistics.median(v / p for v, p in zip(values, rates[peer], strict=True))
        spread = f"{statistics.median(values):.1f} ({min(values):.1f} to {max(values):.1f})"
        rows.append((name, spread, f"{ratio:.2f}", f"{statistics.median(processor[name]):.1f}"))
    heads = ("detector", "images/s, median (min to max)", "times facexlib one by one", "processor ms per image")
    return markdown_table(heads, rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--photos", type=Path, default=PHOTOS, help="a folder of photographs")
    parser.add_argument("--weights", default="bundled", help="bundled, download or a .pth file")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--images", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--out", type=Path, help="write the figures as JSON")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    images, described = pictures(arguments.photos, arguments.images)
    facexlib = Facexlib(arguments.weights, images)
    detectors = {n: FaceDetector.load(arguments.weights, batch_size=n, min_score=MIN_SCORE) for n in BATCH_SIZES}
    peer = "facexlib detect_faces, one by one"
    contestants: dict[str, Callable[[], Any]] = {
        peer: facexlib.one_by_one,
        "facexlib, batches of 16": facexlib.batches_of_16,
    }
    for size, detector in detectors.items():
        default = ", the default" if size == 2 else ""
        contestants[f"facecaption, batch size {size}{default}"] = lambda d=detector: d.detect(images)
    rates, processor = timed_rounds(contestants, len(images), arguments.rounds)
    difference = deviation(our_rows(detectors[1], images), facexlib.one_by_one())
    where = f"{platform.machine()}, {arguments.threads} threads, torch {torch.__version__}"
    bfloat16 = "screened in bfloat16" if has_bfloat16("cpu") else "no bfloat16 instructions, not screened"
    print(f"{described} at {SIDE}×{SIDE}, {arguments.weights} weights; {where}; finest level {bfloat16}\n")
    print(table(rates, processor, peer))
    print(
        f"\nSame results: {difference['faces']:.0f} faces of facexlib's, {difference['unmatched']:.0f} unmatched; largest "
        f"difference {difference['box_px']:.2g} px of a box, {difference['landmarks_px']:.2g} px of a landmark, "
        f"{difference['score']:.2g} of a score."
    )
    load, cores = os.getloadavg()[0], os.cpu_count() or 1
    if load > cores:
        print(f"Load average {load:.1f} on {cores} cores: other programs ran too.")
    report = {"pictures": described, "machine": where, "images_per_s": rates, "processor_ms": processor}
    write_json(arguments.out, report | {"deviation": difference, "load": load})


if __name__ == "__main__":
    main()
