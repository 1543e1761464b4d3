"""Probes on frozen features: computed once and kept, against the slow way that encodes every picture again in every epoch.

Two parts, both sides of each in one run:

* ``--preset base`` (default): time. The slow way is a plain one: eager attention, float32, one epoch timed and multiplied by
  the epochs (a whole one would take hours). Ours is run whole: encode once, keep, train every epoch.
* ``--verify``: with the tiny preset both ways are trained whole, and their test numbers stand side by side.

Pictures and captions are drawn (``facecaption_ml.benchmarks.datasets.sample``); weights are random: neither changes the work.

    .venv/bin/python bench/benchmark_probes.py --pictures 64 --out benchmark_probes.json
"""

from __future__ import annotations

import argparse
import dataclasses
import itertools
import json
import os
import platform
import statistics
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from harness import write_json

from facecaption_ml.benchmarks.datasets.data import LabelData, PairData
from facecaption_ml.benchmarks.datasets.pictures import StoredPictures
from facecaption_ml.benchmarks.datasets.sample import sample_labels_data, sample_pairs
from facecaption_ml.benchmarks.encoders.features import FeatureCache
from facecaption_ml.benchmarks.encoders.models import FlipEncoder, ImageFeatures
from facecaption_ml.benchmarks.options import ATTRIBUTES, RETRIEVAL, ProbeProtocol
from facecaption_ml.benchmarks.tasks import attributes, retrieval
from facecaption_ml.benchmarks.tasks.probes import AttributeProbe, PairProbe, normed, train_probe
from facecaption_ml.flip import Flip
from facecaption_ml.flip.model.model import FlipModel
from facecaption_ml.flip.model.presets import Preset
from facecaption_ml.flip.model.tokenization import CaptionTokenizer
from facecaption_ml.markdown import markdown_table
from facecaption_ml.storage.store import Store

Numbers = dict[str, Any]


def random_flip(preset: str, texts: list[str], precision: str, eager: bool, device: str = "cpu") -> FlipEncoder:
    shape = Preset.named(preset)
    tokenizer = CaptionTokenizer.trained(texts, shape.text.vocabulary, shape.text.max_tokens)
    torch.manual_seed(0)
    model = FlipModel(shape, tokenizer.vocabulary)
    if eager:
        model.image.set_attn_implementation("eager")
        model.text.set_attn_implementation("eager")
    return FlipEncoder(Flip(model, tokenizer, {"version": "random"}, device, precision), preset)


def encoded_anew(model: FlipEncoder, data: LabelData | PairData, batch: torch.Tensor) -> ImageFeatures:
    """The slow way: the model runs on every batch of every epoch."""
    images = data.pictures.read(data.splits["train"][batch.numpy()].tolist())
    return model.encode_images([image for image in images if image is not None])


def slow_attribute_losses(model: FlipEncoder, data: LabelData, protocol: ProbeProtocol, epochs: int) -> AttributeProbe:
    """The attribute probe with every batch encoded as it comes, float32 throughout."""
    rows = data.splits["train"]
    target = torch.from_numpy(data.labels[rows]).float()
    width = model._flip.preset.image.width
    probe = AttributeProbe(len(model.layer_names), width, target.shape[1], protocol.seed)

    def loss_of(batch: torch.Tensor, epoch: int) -> torch.Tensor:
        layers = encoded_anew(model, data, batch).layers
        assert layers is not None
        vectors = F.layer_norm(torch.from_numpy(layers), (width,))
        return F.binary_cross_entropy_with_logits(probe(vectors), target[batch])

    train_probe(probe, loss_of, len(rows), protocol.model_copy(update={"epochs": epochs}), protocol.seed)
    return probe


def slow_retrieval(model: FlipEncoder, data: PairData, protocol: ProbeProtocol, epochs: int) -> PairProbe:
    """The retrieval probe with every batch of pictures and captions encoded as it comes."""
    rows = data.splits["train"]
    captions = [data.captions[row][0] for row in rows]
    numbers = {text: number for number, text in enumerate(dict.fromkeys(captions))}
    ids = torch.tensor([numbers[text] for text in captions])
    width = model._flip.preset.image.width
    probe = PairProbe(width, width, protocol.seed)

    def loss_of(batch: torch.Tensor, epoch: int) -> torch.Tensor:
        images = probe.images(torch.from_numpy(encoded_anew(model, data, batch).pooled))
        texts = probe.texts(torch.from_numpy(model.encode_texts([captions[row] for row in batch.tolist()])))
        return probe.loss(images, texts, ids[batch])

    train_probe(probe, loss_of, len(rows), protocol.model_copy(update={"epochs": epochs}), protocol.seed)
    return probe


def ours_attributes(cache: FeatureCache, data: LabelData, protocol: ProbeProtocol) -> AttributeProbe:
    found = cache.pictures(data.pictures, data.splits["train"].tolist(), layers=True)
    views = [attributes.normed_layers(found).to(protocol.device)]
    labels = data.labels[data.splits["train"]]
    return attributes.train_attribute_probe(views, labels, np.arange(len(labels)), None, protocol, 0)[0]


def ours_retrieval(cache: FeatureCache, data: PairData, protocol: ProbeProtocol) -> PairProbe:
    train = retrieval.SplitPairs.of(data, cache, "train", layers=True)
    return retrieval.train_retrieval_probe(train, None, protocol, 0)[0]


def drawn_data(counts: tuple[int, int, int], folder: Store) -> tuple[LabelData, PairData]:
    """The drawn data of both tasks, as JPEG files: drawing is in nobody's time, reading and decoding in both sides'."""
    labels, pairs = sample_labels_data(0, counts), sample_pairs(0, counts)
    keys, sizes = [], []
    with ProcessPoolExecutor(os.cpu_count()) as pool:
        rows = range(len(labels.pictures.names))
        work = pool.map(drawn_jpegs, [(counts, rows[start : start + 16]) for start in rows[::16]])
        for data in itertools.chain.from_iterable(work):
            keys.append(f"{sum(counts)}/{len(keys):06d}.jpg")
            sizes.append(len(data))
            folder.write_bytes(keys[-1], data)
    pictures = StoredPictures(folder, keys, sizes)
    return dataclasses.replace(labels, pictures=pictures), dataclasses.replace(pairs, pictures=pictures)


def drawn_jpegs(work: tuple[tuple[int, int, int], range]) -> list[bytes]:
    counts, rows = work
    images = sample_labels_data(0, counts).pictures.read(rows)
    return [cv2.imencode(".jpg", image[:, :, ::-1])[1].tobytes() for image in images if image is not None]


def time_both(preset: str, labels: LabelData, pairs: PairData, rounds: int, device: str) -> Numbers:
    texts = [captions[0] for captions in pairs.captions]
    plain, fast = random_flip(preset, texts, "fp32", True, device), random_flip(preset, texts, "auto", False, device)
    batch = 16 if device == "cpu" else 256
    found: Numbers = {"precision of ours": str(fast._flip.dtype).removeprefix("torch.")}
    for task, protocol, slow, ours, data in (
        ("retrieval", RETRIEVAL, slow_retrieval, ours_retrieval, pairs),
        ("attributes", ATTRIBUTES, slow_attribute_losses, ours_attributes, labels),
    ):
        epochs = protocol.epochs
        once = ProbeProtocol(epochs=epochs, learning_rate=protocol.learning_rate, batch_size=batch, device=device)
        if device != "cpu":  # kernels are loaded before the clock runs
            slow(plain, data, once, 1)  # type: ignore[operator]
            slow(fast, data, once, 1)  # type: ignore[operator]
        slow_s, ours_s = [], []
        for _ in range(rounds):
            started = time.perf_counter()
            slow(plain, data, once, 1)  # type: ignore[operator]
            slow_s.append((time.perf_counter() - started) * epochs)
            with tempfile.TemporaryDirectory() as folder:
                cache = FeatureCache(Store(folder), fast, 2 * batch)
                started = time.perf_counter()
                ours(cache, data, once)  # type: ignore[operator]
                ours_s.append(time.perf_counter() - started)
        found[task] = {
            "epochs": epochs,
            "pictures": len(data.splits["train"]),
            "slow_s": statistics.median(slow_s),
            "ours_s": statistics.median(ours_s),
            "ratio": statistics.median(a / b for a, b in zip(slow_s, ours_s, strict=True)),
            "ratios": [round(a / b, 1) for a, b in zip(slow_s, ours_s, strict=True)],
        }
    return found


@torch.inference_mode()
def verify(labels: LabelData, pairs: PairData) -> Numbers:
    """Both ways trained whole with the tiny preset; their numbers on the test split."""
    texts = [captions[0] for captions in pairs.captions]
    model = random_flip("tiny", texts, "fp32", False)
    with tempfile.TemporaryDirectory() as folder, torch.inference_mode(False), torch.enable_grad():
        cache = FeatureCache(Store(folder), model)
        once = ProbeProtocol(epochs=ATTRIBUTES.epochs, learning_rate=ATTRIBUTES.learning_rate, batch_size=64)
        slow, ours = slow_attribute_losses(model, labels, once, once.epochs), ours_attributes(cache, labels, once)
        test = labels.splits["test"]
        vectors = normed(torch.from_numpy(cache.pictures(labels.pictures, test.tolist(), layers=True).layers))  # type: ignore[arg-type]
        truth, names = labels.labels[test], ("accuracy", "average precision")
        found: Numbers = {
            "attributes": {
                name: dict(zip(names, attributes.scores(probe, vectors, truth), strict=True))
                for name, probe in (("slow", slow), ("ours", ours))
            }
        }
        once = ProbeProtocol(epochs=RETRIEVAL.epochs, learning_rate=RETRIEVAL.learning_rate, batch_size=32)
        held = retrieval.SplitPairs.of(pairs, cache, "test", layers=True)
        found["retrieval"] = {
            name: float(np.mean([np.mean(ranks <= 10) for ranks in retrieval.pair_ranks(p, held)]))
            for name, p in (
                ("slow", slow_retrieval(model, pairs, once, once.epochs)),
                ("ours", ours_retrieval(cache, pairs, once)),
            )
        }
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--preset", default="base")
    parser.add_argument("--pictures", type=int, default=64, help="for training")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    parser.add_argument("--verify", action="store_true", help="also train both ways whole with the tiny preset")
    parser.add_argument("--out", type=Path, help="write the figures as JSON")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    with tempfile.TemporaryDirectory() as drawn:
        kept = Store(drawn)
        data = drawn_data((arguments.pictures, 0, 2), kept)
        found = time_both(arguments.preset, *data, arguments.rounds, arguments.device)
        if arguments.verify:
            found["same numbers, tiny preset"] = verify(*drawn_data((192, 0, 96), kept))
    where = torch.cuda.get_device_name() if arguments.device == "cuda" else platform.machine()
    print(f"{arguments.preset}, {where}, {arguments.threads} threads, ours in {found['precision of ours']}\n")
    rows = [
        [
            task, str(row["epochs"]), str(row["pictures"]), f"{row['slow_s']:,.0f}", f"{row['ours_s']:.1f}",
            f"{row['ratio']:.0f} ({', '.join(map(str, row['ratios']))})",
        ]
        for task, row in ((task, found[task]) for task in ("retrieval", "attributes"))
    ]  # fmt: skip
    print(markdown_table(("probe", "epochs", "pictures", "slow way, s", "ours, s", "ratio"), rows, "lrrrrr"))
    if arguments.verify:
        print(json.dumps(found["same numbers, tiny preset"], indent=1))
    write_json(arguments.out, found)


if __name__ == "__main__":
    main()
