"""A checkpoint's retrievals: held-out captions with the faces nearest to them, for people to look at."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from facecaption_ml.decoding import UndecodableImage, as_rgb
from facecaption_ml.flip.pairs.index import PairIndex, PairSource
from facecaption_ml.flip.pairs.reader import Pair, PairReader, caption_id
from facecaption_ml.flip.use.encoding import Flip
from facecaption_ml.ranking import retrieval_ranks

_SHARDS_STREAM: Final = 0x6710
_QUERIES_STREAM: Final = 0x6711
_BATCH: Final = 32


@dataclass(frozen=True)
class NearFace:
    """An encoded crop near a caption; ``own`` where the caption is its own, or one with the same words."""

    image: bytes
    similarity: float
    own: bool


@dataclass(frozen=True)
class Retrieval:
    """A caption, the crop it was written for, and the ``nearest`` crops, nearest first.

    ``rank``: of the best face with this caption among all that were searched, 1 the best.
    """

    caption: str
    own: NearFace
    rank: int
    nearest: list[NearFace]


@dataclass(frozen=True)
class Retrievals:
    """Some retrievals among ``searched`` faces."""

    shown: list[Retrieval]
    searched: int


def held_out_retrievals(
    flip: Flip, source: PairSource, *, seed: int = 0, pairs: int = 1000, queries: int = 6, nearest: int = 6
) -> Retrievals:
    """The faces ``nearest`` to ``queries`` different captions, among at most ``pairs`` pairs of the source.

    Shards and captions are drawn with the seed, not chosen by how well they do. Pictures that do not decode are excluded.
    Raises StoreError naming a shard that cannot be read.
    """
    paired, images = _encoded(flip, source, seed, pairs)
    ids = np.array([caption_id(pair.text) for pair in paired], np.int64)
    firsts: dict[int, int] = {}  # of each caption
    for place in np.random.default_rng((_QUERIES_STREAM, seed)).permutation(len(paired)).tolist():
        firsts.setdefault(int(ids[place]), place)
    queried = list(firsts.values())[:queries]
    if not queried:
        return Retrievals([], len(paired))
    texts = flip.encode_texts([paired[place].text for place in queried])
    ranks = retrieval_ranks(texts, images, query_groups=ids[queried], gallery_groups=ids)
    similarities = texts @ images.T
    shown = []
    for place, row, rank in zip(queried, similarities, ranks.tolist(), strict=True):

        def near(other: int, row: np.ndarray = row, place: int = place) -> NearFace:
            return NearFace(paired[other].data, float(row[other]), bool(ids[other] == ids[place]))

        order = np.argsort(-row, kind="stable")[:nearest].tolist()
        shown.append(Retrieval(paired[place].text, near(place), rank, [near(other) for other in order]))
    return Retrievals(shown, len(paired))


def _encoded(flip: Flip, source: PairSource, seed: int, most: int) -> tuple[list[Pair], npt.NDArray[np.float32]]:
    """Pairs whose pictures decode, and the pictures' features [N, D]."""
    paired: list[Pair] = []
    features = [flip.encode_images([])]
    for pairs in _chunks(source, seed, most):
        images, kept = [], []
        for pair in pairs:
            try:
                images.append(as_rgb(pair.data))
            except UndecodableImage:
                continue
            kept.append(pair)
        paired += kept
        features.append(flip.encode_images(images))
    return paired, np.concatenate(features)


def _chunks(source: PairSource, seed: int, most: int) -> Iterator[list[Pair]]:
    """At most ``most`` pairs, of shard after shard in an order drawn with the seed, so that few shards are read."""
    left = most
    for number in np.random.default_rng((_SHARDS_STREAM, seed)).permutation(len(source.shards)).tolist():
        index = PairIndex.build(dataclasses.replace(source, shards=(source.shards[number],)))
        reader, wanted = PairReader(index), min(left, len(index))
        for start in range(0, wanted, _BATCH):
            yield reader.read(np.arange(start, min(start + _BATCH, wanted)))
        left -= wanted
        if not left:
            return
