"""What must hold of a FLIP checkpoint. Each function returns one check."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from facecaption_assets.factories.check import Check

if TYPE_CHECKING:
    from facecaption_ml.flip import Flip

FLIP_CHECKPOINT: Final[Mapping[str, str]] = {
    "held_out_above_chance": (
        "R@10 on validation pairs, the mean of both directions, is at least twice that of a random order; "
        "where that is more than half-way from it to 1, half-way is asked."
    ),
    "loads": "The files in the store make a model whose features of a picture and of a caption are unit rows.",
    "pairs_conserved": "Pairs of the training split + what was excluded, by reason = rows of the shards.",
}
_TOLERANCE: Final = 1e-3


def held_out_above_chance(held_out: Mapping[str, Mapping[str, Any]]) -> Check:
    """``held_out``: split → what ``HeldOutRecall.as_dict`` gives. Passes where nothing is held out, and says so."""
    name = "held_out_above_chance"
    recall = held_out.get("validation")
    if recall is None or recall["chance"][-1] >= 1:
        why = "no validation pairs" if recall is None else f"only {recall['pairs']} validation pairs"
        return Check(name, True, {"not evaluated": why}, found=f"not evaluated: {why}")
    reached = (recall["image_to_text"][-1] + recall["text_to_image"][-1]) / 2
    chance = recall["chance"][-1]
    asked = min(2 * chance, (1 + chance) / 2)
    metadata = {"R@10": reached, "chance": chance, "asked": asked, "pairs": recall["pairs"]}
    side = "at or above" if reached >= asked else "under"
    found = f"R@10 is {reached:.1%} on {recall['pairs']:,} validation pairs, {side} the {asked:.1%} asked; chance {chance:.1%}"
    return Check(name, bool(reached >= asked), metadata, found=found)


def loads(flip: Flip, texts: Sequence[str]) -> Check:
    """``flip`` as read back from the store; it encodes noise and ``texts``."""
    side = flip.preset.image.size
    noise = np.random.default_rng(0).integers(0, 256, (2, side, side, 3), np.uint8)
    rows = np.concatenate([flip.encode_images(list(noise)), flip.encode_texts(list(texts))])
    lengths = np.linalg.norm(rows, axis=1)
    passed = rows.shape == (2 + len(texts), flip.preset.projection) and np.allclose(lengths, 1, atol=_TOLERANCE)
    metadata = {"version": flip.version, "rows": list(rows.shape), "lengths": [float(x) for x in lengths]}
    found = f"the store's model {flip.version} encodes 2 pictures and {len(texts)} captions " + (
        "as unit rows" if passed else f"as rows {rows.shape} of lengths {lengths.min():.3f} to {lengths.max():.3f}"
    )
    return Check("loads", bool(passed), metadata, found=found)


def pairs_conserved(pairs: int, excluded: Mapping[str, int], rows: int) -> Check:
    """``rows``: of ``facecaption_dataset``, in the shards that have crops."""
    counted = {reason: count for reason, count in excluded.items() if reason != "shards_missing"}
    holds = pairs + sum(counted.values()) == rows
    excluded_rows = sum(counted.values())
    equals = "=" if holds else "≠"
    found = f"{rows:,} rows {equals} {pairs:,} pairs of the training split + {excluded_rows:,} left out by reason"
    return Check("pairs_conserved", holds, {"rows": rows, "pairs": pairs, **counted}, found=found)
