"""Nucleus sampling (Holtzman et al., ICLR 2020): a draw from the least set of the likeliest tokens that reach top_p together.

A draw is that of a sorted vocabulary without the sorting: tokens are counted into bins by their logits, from the likeliest on,
and only two bins are sorted, the one in which the sum reaches top_p and the one in which the draw falls.
"""

from __future__ import annotations

import random
from typing import Final

import numpy as np

_BINS: Final = 256
_NEAR: Final = 7.0  # a token less likely than the best by more than this factor of e is hardly ever in the nucleus
_A_UNIT: Final = 8  # bins for a factor e of probability; what lies in the last bin is below exp(-31) of the likeliest


def weights_of(logits: np.ndarray, temperature: float) -> np.ndarray:
    """Unnormalised probabilities, float64; at temperature 0 so steep that only the best remains."""
    scaled = logits.astype(np.float64) / max(temperature, 1e-4)
    return np.exp(scaled - scaled.max())


def among(weights: np.ndarray, top_p: float, rng: random.Random) -> int:
    """An index into a few ``weights``, not all of them 0."""
    order = np.argsort(-weights, kind="stable")
    cumulated = np.cumsum(weights[order])
    kept = int(np.searchsorted(cumulated, top_p * cumulated[-1])) + 1
    return int(order[_place(cumulated[:kept], rng)])


def drawn(logits: np.ndarray, temperature: float, top_p: float, rng: random.Random) -> int:
    """A token of a whole vocabulary, by its ``logits`` (float32 [V])."""
    scaled = (logits - logits.max()) / np.float32(max(temperature, 1e-4))
    weights = np.exp(scaled)
    enough = top_p * float(weights.sum(dtype=np.float64))
    tokens = np.flatnonzero(scaled > -_NEAR)  # mostly few, and enough
    if weights[tokens].sum(dtype=np.float64) < enough:
        tokens = np.arange(len(scaled))
    weights = weights[tokens].astype(np.float64)
    bins = np.minimum(scaled[tokens] * -_A_UNIT, _BINS - 1).astype(np.intp)
    reached = np.cumsum(np.bincount(bins, weights, _BINS))
    kept = reached[-1]
    edge = int(np.searchsorted(reached, enough))
    if edge < _BINS - 1:
        sums = _sums(np.sort(weights[bins == edge])[::-1], reached, edge)
        kept = sums[min(int(np.searchsorted(sums, enough)), len(sums) - 1)]
    # Bins follow each other as sorted tokens do: the bin in which the draw falls is the only one to sort.
    drawn_mass = rng.random() * kept
    at = min(int(np.searchsorted(reached, drawn_mass, side="right")), edge, _BINS - 1)
    inside = np.flatnonzero(bins == at)
    inside = inside[np.argsort(-weights[inside], kind="stable")]
    place = int(np.searchsorted(_sums(weights[inside], reached, at), drawn_mass, side="right"))
    return int(tokens[inside[min(place, len(inside) - 1)]])


def _sums(sorted_weights: np.ndarray, reached: np.ndarray, at: int) -> np.ndarray:
    """The sums that a bin's tokens reach one by one, behind those of the bins before it."""
    return np.cumsum(sorted_weights) + (reached[at - 1] if at else 0.0)


def _place(cumulated: np.ndarray, rng: random.Random) -> int:
    """Where a draw falls, by cumulated weights."""
    return min(int(np.searchsorted(cumulated, rng.random() * cumulated[-1], side="right")), len(cumulated) - 1)
