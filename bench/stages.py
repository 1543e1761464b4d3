"""What one device gives each model stage of the pipeline: batched as the pipeline does it, beside one by one, in one run.

Detection: RetinaFace on 640×640 pictures. Attributes: the ``resnet50`` preset on face crops, mirror image included,
and the bundled predictor. Captions: a chat model in the shape of Qwen2.5-7B with random weights, whose speed is that of the
real one; prompts of 250 tokens, answers of 60. Decoding of JPEG files is not in these figures: it is the processor's work and
has a line of its own.
``facecaption plan`` takes such figures where an installation has measured none on a GPU.

    .venv/bin/python bench/stages.py --device cuda --out stages.json
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

from facecaption_ml.attributes.calibration import Calibration
from facecaption_ml.attributes.network import AttributeNetwork, Preset
from facecaption_ml.attributes.prediction import AttributePredictor
from facecaption_ml.decoding import decode_image
from facecaption_ml.faces import FaceDetector
from facecaption_ml.markdown import markdown_table
from facecaption_ml.taxonomy import ATTRIBUTES

PROMPT_TOKENS, ANSWER_TOKENS = 250, 60
QWEN_7B: dict[str, Any] = {
    "vocab_size": 152_064,
    "hidden_size": 3_584,
    "intermediate_size": 18_944,
    "num_hidden_layers": 28,
    "num_attention_heads": 28,
    "num_key_value_heads": 4,
}
Work = tuple[Callable[[], object], int]  # what to run, and the rows it does


def pictures(count: int, side: int) -> list[np.ndarray]:
    """Drawn scenes, brought to ``side`` × ``side``; a few, repeated."""
    from facecaption_ml.sample.scenes import draw_scene

    drawn = [cv2.resize(draw_scene(seed).image, (side, side), interpolation=cv2.INTER_AREA) for seed in range(16)]
    return [drawn[i % len(drawn)] for i in range(count)]


def detection(device: str, count: int) -> tuple[Work, Work]:
    detector, images = FaceDetector.load(device=device), pictures(count, 640)
    few = images[: max(8, count // 16)]
    return (lambda: detector.detect(images), count), (lambda: [detector.detect([image]) for image in few], len(few))


def attributes(device: str, count: int) -> tuple[Work, Work]:
    preset = Preset.named("resnet50")
    calibration = Calibration(np.ones(len(ATTRIBUTES)), np.zeros(len(ATTRIBUTES)))
    predictor = AttributePredictor(AttributeNetwork(preset), preset, calibration, "random", device)
    crops = pictures(count, 256)
    few = crops[: max(8, count // 16)]
    return (lambda: predictor.predict(crops, 256), count), (lambda: [predictor.predict([c]) for c in few], len(few))


def bundled_attributes(device: str, count: int) -> tuple[Work, Work]:
    predictor = AttributePredictor.load("bundled", device)
    crops = pictures(count, 256)
    few = crops[: max(8, count // 16)]
    return (lambda: predictor.predict(crops), count), (lambda: [predictor.predict([c]) for c in few], len(few))


def captions(device: str, count: int) -> tuple[Work, Work]:
    from transformers import AutoModelForCausalLM, Qwen2Config

    torch.manual_seed(0)
    with torch.device(device):
        model = AutoModelForCausalLM.from_config(Qwen2Config(**QWEN_7B), dtype=torch.bfloat16).eval()
    ids = torch.randint(1000, 100_000, (count, PROMPT_TOKENS), device=device)

    @torch.inference_mode()
    def answer(prompts: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = model.generate(
            prompts, max_new_tokens=ANSWER_TOKENS, min_new_tokens=ANSWER_TOKENS, do_sample=True, pad_token_id=0
        )
        return found

    return (lambda: answer(ids), count), (lambda: answer(ids[:1]), 1)


def decoding(_: str, count: int) -> tuple[Work, Work]:
    data = [cv2.imencode(".jpg", image)[1].tobytes() for image in pictures(16, 640)]
    return (lambda: [decode_image(data[i % 16]) for i in range(count)], count), (lambda: decode_image(data[0]), 1)


STAGES = {
    "detection": detection,
    "attributes": attributes,
    "attributes, bundled": bundled_attributes,
    "captions": captions,
    "decoding, one core": decoding,
}


def rate(work: Work, device: str, rounds: int) -> list[float]:
    run, rows = work
    rates = []
    for _ in range(rounds + 1):
        started = time.perf_counter()
        run()
        if device == "cuda":
            torch.cuda.synchronize()
        rates.append(rows / (time.perf_counter() - started))
    return rates[1:]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu", choices=("cpu", "cuda"))
    parser.add_argument("--stages", nargs="+", choices=list(STAGES), default=list(STAGES))
    parser.add_argument("--pictures", type=int, default=1024)
    parser.add_argument("--prompts", type=int, default=256)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--out", type=Path, help="write the figures as JSON")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    name = torch.cuda.get_device_name() if arguments.device == "cuda" else platform.machine()
    print(f"{name}, {arguments.threads} threads\n")
    rows = []
    found: dict[str, object] = {"device": name}
    for stage in arguments.stages:
        batched, single = STAGES[stage](
            arguments.device, arguments.prompts if stage == "captions" else arguments.pictures
        )
        ours, plain = (rate(work, arguments.device, arguments.rounds) for work in (batched, single))
        middle, beside = statistics.median(ours), statistics.median(plain)
        found[stage] = {"rows_per_s": middle, "all": ours, "one_by_one": beside}
        spread = f"{middle:,.1f} ({min(ours):,.1f} to {max(ours):,.1f})"
        rows.append((stage, spread, f"{beside:,.1f}", f"{middle / beside:.1f}"))
    print(markdown_table(("stage", "batched, rows/s (min to max)", "one by one", "ratio"), rows, "lrrr"))
    write_json(arguments.out, found)


if __name__ == "__main__":
    main()
