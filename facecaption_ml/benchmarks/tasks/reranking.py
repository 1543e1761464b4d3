"""Retrieval by two looks, as FLIP's authors measure it: the best K by similarity, ordered anew by the matching head.

A candidate's score is then the matching head's logit plus its similarity (ALBEF and BLIP score so too); what is not among the
K stands below all of them, in the order that it had.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from facecaption_ml.benchmarks.datasets.data import Pictures
from facecaption_ml.benchmarks.encoders.models import FlipEncoder
from facecaption_ml.ranking import Ranks, ranks

_QUERIES_AT_ONCE: Final = 64
_PAIRS_AT_ONCE: Final = 256
Floats = npt.NDArray[np.float32]


class PairScores:
    """The matching logits of test pictures and captions. Holds the tokens of all pictures, in half precision."""

    def __init__(
        self, model: FlipEncoder, pictures: Pictures, rows: Sequence[int], texts: Sequence[str], batch: int
    ) -> None:
        """``rows`` are pictures that decode, ``texts`` all captions; ``batch`` pictures are encoded at once."""
        self._model, self._texts = model, texts
        parts = []
        for start in range(0, len(rows), batch):
            read = pictures.read(rows[start : start + batch])
            parts.append(model.picture_tokens([image for image in read if image is not None]))
        self._tokens: Tensor = torch.cat(parts)

    def of(self, images: npt.NDArray[np.int64], texts: npt.NDArray[np.int64]) -> Floats:
        """float32 [N], of N pairs of a picture and a caption by their places: the logit that they belong together."""
        return self._logits(images, texts)[:, 1]

    def odds(self, images: npt.NDArray[np.int64], texts: npt.NDArray[np.int64]) -> Floats:
        """float32 [N]: the same less the logit that they do not, which orders pairs as the probability does."""
        logits = self._logits(images, texts)
        return logits[:, 1] - logits[:, 0]

    def _logits(self, images: npt.NDArray[np.int64], texts: npt.NDArray[np.int64]) -> Floats:
        found = np.empty((len(texts), 2), np.float32)
        for start in range(0, len(texts), _PAIRS_AT_ONCE):
            part = slice(start, start + _PAIRS_AT_ONCE)
            own = [self._texts[at] for at in texts[part].tolist()]
            found[part] = self._model.match(own, self._tokens[torch.from_numpy(images[part])])
        return found


def reranked(
    queries: Floats,
    gallery: Floats,
    k: int,
    score: Callable[[npt.NDArray[np.int64], npt.NDArray[np.int64]], Floats],
    query_groups: npt.NDArray[np.int64],
    gallery_groups: npt.NDArray[np.int64],
) -> Ranks:
    """int64 [Q]: the ranks of ``queries`` [Q, D] in a ``gallery`` [M, D], unit rows, after the second look.

    ``score(query places, gallery places)`` gives the logits of pairs. The best ``k`` of a query are those of its largest
    similarities, of equals the first.
    """
    found = np.empty(len(queries), np.int64)
    k = min(k, len(gallery))
    for start in range(0, len(queries), _QUERIES_AT_ONCE):
        rows = np.arange(start, min(start + _QUERIES_AT_ONCE, len(queries)))
        similarity = (queries[rows].astype(np.float64) @ gallery.astype(np.float64).T).astype(np.float32)
        best = np.argsort(-similarity, axis=1, kind="stable")[:, :k]
        logits = score(np.repeat(rows, k), best.ravel()).reshape(best.shape)
        second = logits + np.take_along_axis(similarity, best, axis=1)
        # all others keep their order below the lowest of the best
        np.put_along_axis(similarity, best, second - second.min() + similarity.max() + 1, axis=1)
        found[rows] = ranks(similarity, query_groups=query_groups[rows], gallery_groups=gallery_groups)
    return found
