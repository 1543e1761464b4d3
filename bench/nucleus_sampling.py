"""What drawing a token without guidance costs: this project's nucleus sampling against one that sorts what may matter.

    python bench/nucleus_sampling.py [--draws 40] [--out FILE.json]

Milliseconds of processor time a row and token, medians with their range, for the vocabularies of SmolLM2 (49,152), Qwen2.5
(151,936) and Gemma 3 (262,144) at temperature 0.7 and top_p 0.9. Logits are normal with standard deviations of 1 (flat: a model
that knows nothing), 2.5 and 6 (peaked: most tokens of a fluent text).

Beside it, as it was before: probabilities in float64, everything above half of what top_p can leave out is sorted.
"""

from __future__ import annotations

import argparse
import random
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from harness import machine, write_json

from facecaption_ml.captions.backends import nucleus

TEMPERATURE, TOP_P = 0.7, 0.9
VOCABULARIES = (49_152, 151_936, 262_144)
DEVIATIONS = (1.0, 2.5, 6.0)


def sorting(logits: np.ndarray, rng: random.Random) -> int:
    """A draw that sorts every token that could be in the nucleus."""
    weights = nucleus.weights_of(logits, TEMPERATURE)
    likely = np.flatnonzero(weights > (1 - TOP_P) / 2 * weights.sum() / len(weights))
    order = likely[np.argsort(-weights[likely], kind="stable")]
    cumulated = np.cumsum(weights[order])
    kept = cumulated[: int(np.searchsorted(cumulated, TOP_P * weights.sum())) + 1]
    return int(order[min(int(np.searchsorted(kept, rng.random() * kept[-1], side="right")), len(kept) - 1)])


def binning(logits: np.ndarray, rng: random.Random) -> int:
    """A draw of this project."""
    return nucleus.drawn(logits, TEMPERATURE, TOP_P, rng)


def milliseconds(draw: Callable[[np.ndarray, random.Random], int], rows: list[np.ndarray]) -> dict[str, float]:
    """Median and range over the rows."""
    rng, times = random.Random(0), []
    for row in rows:
        started = time.process_time()
        draw(row, rng)
        times.append(1000 * (time.process_time() - started))
    return {"median": statistics.median(times), "least": min(times), "most": max(times)}


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--draws", type=int, default=40)
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    measured = []
    for size in VOCABULARIES:
        for deviation in DEVIATIONS:
            generator = np.random.default_rng(0)
            rows = [
                (deviation * generator.standard_normal(size)).astype(np.float32) for _ in range(min(given.draws, 40))
            ]
            found = {"ours": milliseconds(binning, rows), "sorting": milliseconds(sorting, rows)}
            measured.append({"vocabulary": size, "deviation": deviation, **found})
            told = "  ".join(
                f"{name} {ms['median']:.2f} ({ms['least']:.2f}-{ms['most']:.2f}) ms" for name, ms in found.items()
            )
            print(f"{size:7,} tokens, deviation {deviation}: {told}")
    if given.out:
        write_json(given.out, {"machine": machine(), "rows": measured})


if __name__ == "__main__":
    main()
