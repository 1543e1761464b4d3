"""One training step of FLIP: the project's against a plain one, side by side in one process.

Both train one architecture on the same batch: random pictures, captions as long as template captions, the paper's queue.
``plain`` is what one writes first: eager attention, float32, AdamW without fusing, captions padded to 65 tokens, keys and
values of cross-attention for every pair. ``project`` is ``FlipTask`` as the training runs it. ``--stages`` shows what
each change brings. Each round times every contestant once, in turns, each in a process of its own for its peak of memory;
ratios are of one round, the table shows medians. With a GPU the batch is the paper's (80) and the share of the GPU's measured
matrix rate stands beside.

    .venv/bin/python bench/flip_step.py --preset base --out flip_step.json
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import platform
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from harness import in_own_process, write_json
from torch import Tensor, nn

from facecaption_ml.devices import autocast, compute_dtype
from facecaption_ml.flip.model.flops import matrix_rate, step_flops
from facecaption_ml.flip.model.model import FlipModel
from facecaption_ml.flip.model.presets import Preset, preset_names, training_defaults
from facecaption_ml.flip.training.optimisation import parameter_groups
from facecaption_ml.flip.training.progress import memory_gib
from facecaption_ml.flip.training.task import FlipTask
from facecaption_ml.markdown import markdown_table

ENC_ID = 5


@dataclass(frozen=True)
class Way:
    """How a step is computed."""

    name: str
    attention: str = "sdpa"  # or eager
    shared_keys: bool = True  # keys and values of cross-attention once a picture
    trimmed: bool = True  # captions padded to the longest of the batch, not to 65 tokens
    fused: bool = True
    precision: str = "auto"


PLAIN = Way("plain: eager, float32, AdamW, 65 tokens", "eager", False, False, False, "fp32")
PROJECT = Way("project")
BETWEEN = (
    Way("plain + SDPA", "sdpa", False, False, False, "fp32"),
    Way("plain + SDPA + fused AdamW + autocast", "sdpa", False, False, True, "auto"),
    Way("the same + keys and values once a picture", "sdpa", True, False, True, "auto"),
)


@dataclass(frozen=True)
class Batch:
    """A step's input on the device."""

    pixels: Tensor
    ids: Tensor
    mask: Tensor
    caption_ids: Tensor


def make_batch(preset: Preset, pairs: int, device: torch.device, trimmed: bool) -> Batch:
    """Captions of 24 to 56 tokens, as template captions have (mean 31 words); pictures of noise."""
    generator = torch.Generator().manual_seed(0)
    side, longest = preset.image.size, preset.text.max_tokens
    pixels = torch.randint(0, 256, (pairs, 3, side, side), dtype=torch.uint8, generator=generator)
    lengths = torch.randint(24, 57, (pairs,), generator=generator)
    width = min(-(-int(lengths.max()) // 8) * 8, longest) if trimmed else longest
    ids = torch.randint(10, preset.text.vocabulary, (pairs, longest), generator=generator)[:, :width]
    mask = torch.arange(width) < lengths[:, None]
    return Batch(pixels.to(device), ids.to(device), mask.to(device), torch.arange(pairs, device=device))


class PlainPretraining(FlipTask):
    """The same losses with keys and values computed for every pair."""

    shares_keys = False

    def _matching(
        self, ids: Tensor, mask: Tensor, image_tokens: Tensor, image_of_text: Tensor, text_of_image: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        original = self.model.match_logits

        def repeated(ids: Tensor, mask: Tensor, tokens: Tensor, rows: Tensor | None = None) -> Tensor:
            return original(ids, mask, tokens if rows is None else tokens[rows])

        self.model.match_logits = repeated  # type: ignore[method-assign]
        try:
            return super()._matching(ids, mask, image_tokens, image_of_text, text_of_image)
        finally:
            self.model.match_logits = original  # type: ignore[method-assign]


def make_step(way: Way, preset: Preset, pairs: int, queue_size: int, device: torch.device) -> Callable[[], float]:
    """A function that does one step and returns its loss."""
    torch.manual_seed(0)
    model = FlipModel(preset, preset.text.vocabulary + 1)
    if way.attention == "eager":
        for tower in (model.image, model.text):
            tower.set_attn_implementation("eager")
    kind = FlipTask if way.shared_keys else PlainPretraining
    pretraining = kind(model, ENC_ID, queue_size, 0.995, 0).to(device).train()
    optimizer: torch.optim.Optimizer = torch.optim.AdamW(
        parameter_groups(model, 0.05), lr=1e-5, fused=way.fused, foreach=False if not way.fused else None
    )
    batch = make_batch(preset, pairs, device, way.trimmed)
    dtype = compute_dtype(way.precision, device)

    def step() -> float:
        with autocast(dtype, device):
            losses = pretraining(batch.pixels, batch.ids, batch.mask, batch.caption_ids, 0.4)
        losses.total.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        pretraining.after_step()
        return float(losses.total.detach())

    return step


def measure(way: Way, arguments: argparse.Namespace) -> dict[str, float]:
    """One contestant alone in this process: seconds a step, peak memory, losses."""
    device = torch.device(arguments.device)
    preset = Preset.named(arguments.preset)
    torch.set_num_threads(arguments.threads)
    step = make_step(way, preset, arguments.pairs, arguments.queue_size, device)
    losses = [step()]
    gc.collect()
    times = []
    for _ in range(arguments.steps):
        _wait(device)
        started = time.perf_counter()
        losses.append(step())
        _wait(device)
        times.append(time.perf_counter() - started)
    found = {"seconds": statistics.median(times), "memory_gib": memory_gib(device), "first_loss": losses[0]}
    if way == PROJECT:
        tokens = make_batch(preset, arguments.pairs, torch.device("cpu"), way.trimmed).ids.shape[1]
        rate = matrix_rate(device, compute_dtype(way.precision, device))
        found |= {"mfu": step_flops(preset, arguments.pairs, tokens) / found["seconds"] / rate, "matrix_rate": rate}
    return found


def measure_apart(way: Way, arguments: argparse.Namespace) -> dict[str, float]:
    names = ("preset", "pairs", "queue_size", "threads", "steps", "device")
    given = [f"--{name}={getattr(arguments, name)}" for name in names]
    return in_own_process(__file__, "--only", way.name, *given, OMP_WAIT_POLICY="PASSIVE")


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def table(ways: list[Way], rounds: list[dict[str, dict[str, float]]], pairs: int) -> str:
    rows = []
    for way in ways:
        rates = [pairs / found[way.name]["seconds"] for found in rounds]
        ratio = statistics.median(found[PLAIN.name]["seconds"] / found[way.name]["seconds"] for found in rounds)
        memory = max(found[way.name]["memory_gib"] for found in rounds)
        spread = f"{statistics.median(rates):.2f} ({min(rates):.2f}–{max(rates):.2f})"
        rows.append((way.name, spread, f"{ratio:.2f}", f"{memory:.1f}"))
    return markdown_table(("step", "pairs/s (min–max)", "times plain", "peak memory, GiB"), rows, "lrrr")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    cuda = torch.cuda.is_available()
    parser.add_argument("--preset", default="base", choices=preset_names())
    parser.add_argument("--device", default="cuda" if cuda else "cpu")
    parser.add_argument("--pairs", type=int, default=80 if cuda else 8)
    parser.add_argument("--queue_size", type=int, help="default: the preset's")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--steps", type=int, default=3, help="timed steps of a contestant in a round")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--stages", action="store_true", help="also what lies between plain and project")
    parser.add_argument("--only", help=argparse.SUPPRESS)
    parser.add_argument("--out", type=Path, help="write the figures as JSON")
    arguments = parser.parse_args()
    if arguments.queue_size is None:
        arguments.queue_size = training_defaults(arguments.preset)["queue_size"] // arguments.pairs * arguments.pairs
    ways = [PLAIN, *(BETWEEN if arguments.stages else ()), PROJECT]
    if arguments.only:
        print(json.dumps(measure(next(way for way in [*ways, *BETWEEN] if way.name == arguments.only), arguments)))
        return
    rounds = [{way.name: measure_apart(way, arguments) for way in ways} for _ in range(arguments.rounds)]
    project = [found[PROJECT.name] for found in rounds]
    where = f"{platform.machine()}, {arguments.device}, {arguments.threads} threads, torch {torch.__version__}"
    print(f"FLIP {arguments.preset}, {arguments.pairs} pairs, queue {arguments.queue_size}; {where}\n")
    print(table(ways, rounds, arguments.pairs))
    mfu, rate = (statistics.median(found[key] for found in project) for key in ("mfu", "matrix_rate"))
    print(f"\nproject: {mfu:.0%} of the measured matrix rate, {rate / 1e12:.2f} TFLOP/s")
    write_json(arguments.out, {"machine": where, "rounds": rounds})


if __name__ == "__main__":
    main()
