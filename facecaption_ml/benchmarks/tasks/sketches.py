"""Sketch-less retrieval: the photo of an unfinished drawing, asked for at every stage of it (paper §5.4, Table 4, Fig. 7, 8).

Towers are frozen. A drawing's query is the sum of two unit vectors, of the sketch and of the photo's caption, each through a
new linear layer; sketches and photos share theirs (paper Figure 6d). Each way of asking has a probe of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from facecaption_ml.benchmarks.datasets.data import EpisodeData
from facecaption_ml.benchmarks.encoders.features import FeatureCache, FeatureError, Half
from facecaption_ml.benchmarks.options import ProbeProtocol
from facecaption_ml.benchmarks.result import Measurement
from facecaption_ml.benchmarks.tasks.probes import PairProbe, Trained, train_probe
from facecaption_ml.benchmarks.tasks.protocol import Measured, over_runs, result_of
from facecaption_ml.ranking import Ranks, percentile_of_ranks, reciprocal_of_ranks, retrieval_ranks

SKETCH: Final = "sketch"
TEXT: Final = "text"
BOTH: Final = "sketch + text"
_GRID: Final = tuple(share / 20 for share in range(1, 21))  # of a sketch, for the curves
_ONE_PHOTO: Final = "a gallery of one photo"


@dataclass(frozen=True)
class SplitEpisodes:
    """The drawings of a split, stage after stage: S partial sketches of P photos.

    ``sketches`` float16 [S, D]; ``photos`` float16 [P, D] and ``texts`` float16 [P, D] or None, each photo once; ``photo`` and
    ``episode`` int64 [S]; ``share`` float64 [S], how much of its drawing a sketch is: i / n for the i-th of n.
    """

    sketches: Half
    photos: Half
    texts: Half | None
    photo: npt.NDArray[np.int64]
    episode: npt.NDArray[np.int64]
    share: npt.NDArray[np.float64]
    sketch_rows: npt.NDArray[np.int64]  # in the data set
    photo_rows: npt.NDArray[np.int64]
    excluded: Mapping[str, int]

    @classmethod
    def of(cls, data: EpisodeData, cache: FeatureCache, split: str) -> SplitEpisodes:
        """Photos and sketches that do not decode are left out and counted. Raises FeatureError where nothing is left."""
        episodes = [data.episodes[row] for row in data.splits[split].tolist()]
        gallery = np.unique([episode.photo for episode in episodes])
        photos = cache.pictures(data.photos, gallery.tolist(), layers=False)
        shown = [episode for episode in episodes if photos.readable[np.searchsorted(gallery, episode.photo)]]
        rows = np.array([row for episode in shown for row in episode.sketches], np.int64)
        if not len(rows):
            raise FeatureError(f"{data.source.name}: no photo of the {split} split decodes")
        sketches = cache.pictures(data.sketches, rows.tolist(), layers=False)
        kept, place = sketches.readable, np.flatnonzero(photos.readable)
        photo = np.repeat(np.searchsorted(gallery[place], [e.photo for e in shown]), [len(e.sketches) for e in shown])
        share = np.concatenate([np.arange(1, len(e.sketches) + 1) / len(e.sketches) for e in shown])
        texts = cache.texts([data.captions[row] for row in gallery[place].tolist()]) if data.captions else None
        return cls(
            sketches=sketches.pooled[kept],
            photos=photos.pooled[place],
            texts=texts,
            photo=photo[kept],
            episode=np.repeat(np.arange(len(shown)), [len(e.sketches) for e in shown])[kept],
            share=share[kept],
            sketch_rows=rows[kept],
            photo_rows=gallery[place],
            excluded={
                "photos that did not decode": len(gallery) - len(place),
                "episodes without photo": len(episodes) - len(shown),
                "sketches that did not decode": int((~kept).sum()),
            },
        )


def measure_sketches(data: EpisodeData, cache: FeatureCache, protocol: ProbeProtocol) -> Measured:
    """m@A and m@B over all stages of all test drawings, asked with the sketch, the text, and both.

    With their course over the share of the sketch, and the ranks along one drawing.

    Raises FeatureError or ValueError with one line where nothing can be measured.
    """
    validated = bool(len(data.splits.get("validation", ())))
    train, test = SplitEpisodes.of(data, cache, "train"), SplitEpisodes.of(data, cache, "test")
    validation = SplitEpisodes.of(data, cache, "validation") if validated else None
    measured: list[Measurement] = []
    curves: dict[str, list[tuple[float, float]]] = {}
    shown: dict[str, Ranks] = {}
    for mode in [SKETCH, TEXT, BOTH] if data.captions else [SKETCH]:
        runs = []
        for run in range(protocol.runs):
            probe, _ = train_sketch_probe(train, validation, mode, protocol, run)
            runs.append(sketch_ranks(probe, test, mode))
        measured += _measurements(mode, runs, len(test.photos))
        curves |= _curves(mode, runs, test)
        shown[mode] = runs[0]
    return Measured(
        result_of(
            "sketches",
            data.source,
            cache.model,
            measurements=measured,
            baselines={"chance": _chance([m.setting for m in measured if m.metric == "m@A"], len(test.photos))},
            counts=_counts(train, validation, test),
            protocol={**protocol.describe(validated), "views": "plain", "an epoch": "every partial sketch once"},
            curves=curves,
        ),
        _figures(data, test, shown, curves, protocol.seed),
    )


def train_sketch_probe(
    train: SplitEpisodes, validation: SplitEpisodes | None, mode: str, protocol: ProbeProtocol, run: int
) -> tuple[PairProbe, Trained]:
    """Every partial sketch once an epoch, against its photo and the others of the batch; the epoch with the best m@B."""
    device, seed = torch.device(protocol.device), protocol.seed + run
    photos, photo = torch.from_numpy(train.photos).to(device), torch.from_numpy(train.photo).to(device)
    text_width = train.photos.shape[1] if train.texts is None else train.texts.shape[1]
    probe = PairProbe(train.photos.shape[1], text_width, seed).to(device)
    ask = _asking(train, mode, device)

    def loss_of(rows: Tensor, epoch: int) -> Tensor:
        return probe.loss(ask(probe, rows), probe.images(photos[photo[rows]]), photo[rows])

    def score() -> float:
        assert validation is not None
        return reciprocal_of_ranks(sketch_ranks(probe, validation, mode))

    trained = train_probe(
        probe, loss_of, len(train.sketches), protocol, seed, score if validation is not None else None
    )
    return probe, trained


def _asking(split: SplitEpisodes, mode: str, device: torch.device) -> Callable[[PairProbe, Tensor], Tensor]:
    """Gives the queries of a split, unit rows float32 [B, 256], for a probe and rows of its sketches."""
    sketches, photo = torch.from_numpy(split.sketches).to(device), torch.from_numpy(split.photo).to(device)
    texts = None if split.texts is None else torch.from_numpy(split.texts).to(device)

    def ask(probe: PairProbe, rows: Tensor) -> Tensor:
        parts = [probe.images(sketches[rows])] if mode != TEXT else []
        if mode != SKETCH:
            assert texts is not None, "asking with text needs captions"
            parts.append(probe.texts(texts[photo[rows]]))
        return F.normalize(torch.stack(parts).sum(0), dim=-1)

    return ask


@torch.inference_mode()
def sketch_ranks(probe: PairProbe, split: SplitEpisodes, mode: str) -> Ranks:
    """int64 [S]: the rank of each sketch's own photo among the split's."""
    device = probe.log_scale.device
    ask = _asking(split, mode, device)
    queries = torch.cat([ask(probe, rows) for rows in torch.arange(len(split.sketches)).split(4096)]).cpu().numpy()
    photos = probe.images(torch.from_numpy(split.photos).to(device)).cpu().numpy()
    return retrieval_ranks(queries, photos, query_groups=split.photo, gallery_groups=np.arange(len(photos)))


def course(
    ranks: Ranks, split: SplitEpisodes, gallery: int, grid: Sequence[float] = _GRID
) -> tuple[list[float], list[float]]:
    """m@A and m@B at each share of the sketch, mean over the drawings: the last stage that is no fuller than the share, and the
    first where there is none yet. m@A is NaN in a gallery of one photo."""
    reached = [
        [int(np.searchsorted(split.share[own], share + 1e-9, side="right")) for share in grid]
        for own in (split.episode == number for number in np.unique(split.episode))
    ]
    stages = np.maximum(np.array(reached) - 1, 0)
    by_episode = [ranks[split.episode == number] for number in np.unique(split.episode)]
    at = np.stack([own[stage] for own, stage in zip(by_episode, stages, strict=True)])
    percentile = ((gallery - at) / (gallery - 1)).mean(axis=0) if gallery > 1 else np.full(len(grid), np.nan)
    return percentile.tolist(), (1 / at).mean(axis=0).tolist()


def _measurements(mode: str, runs: Sequence[Ranks], gallery: int) -> list[Measurement]:
    percentiles = [percentile_of_ranks(ranks, gallery) if gallery > 1 else None for ranks in runs]
    return [
        over_runs(mode, "m@A", percentiles, _ONE_PHOTO),
        over_runs(mode, "m@B", [reciprocal_of_ranks(ranks) for ranks in runs]),
    ]


def _curves(mode: str, runs: Sequence[Ranks], test: SplitEpisodes) -> dict[str, list[tuple[float, float]]]:
    courses = [course(ranks, test, len(test.photos)) for ranks in runs]
    curves = {}
    for number, metric in enumerate(("m@A", "m@B")):
        values = np.mean([of_run[number] for of_run in courses], axis=0)
        if not np.isnan(values).any():
            curves[f"{mode}, {metric}"] = list(zip(_GRID, values.tolist(), strict=True))
    return curves


def _chance(modes: Sequence[str], gallery: int) -> list[Measurement]:
    """Every rank equally likely: m@A one half, m@B the mean of 1 / rank."""
    reciprocal = float(np.mean(1 / np.arange(1, gallery + 1)))
    half, why = (0.5, "") if gallery > 1 else (None, _ONE_PHOTO)
    return [
        measurement
        for mode in modes
        for measurement in (Measurement(mode, "m@A", half, why=why), Measurement(mode, "m@B", reciprocal))
    ]


def _counts(train: SplitEpisodes, validation: SplitEpisodes | None, test: SplitEpisodes) -> dict[str, int]:
    parts = [part for part in (train, validation, test) if part is not None]
    return {
        "training sketches": len(train.sketches),
        "training photos": len(train.photos),
        "test drawings": len(np.unique(test.episode)),
        "test sketches": len(test.sketches),
        "gallery": len(test.photos),
        **{reason: sum(part.excluded[reason] for part in parts) for reason in test.excluded},
    }


def _figures(
    data: EpisodeData,
    test: SplitEpisodes,
    ranks: Mapping[str, Ranks],
    curves: Mapping[str, Sequence[tuple[float, float]]],
    seed: int,
) -> dict[str, bytes]:
    """Figure 7, and Figure 8 for a drawing picked by the seed."""
    from facecaption_ml.benchmarks.tasks.figures import episode_strip, share_curves

    numbers = np.unique(test.episode)
    picked = int(np.random.default_rng(seed).choice(numbers))
    own = np.flatnonzero(test.episode == picked)
    stages = own[np.unique(np.linspace(0, len(own) - 1, min(6, len(own))).round().astype(int))]
    photo_row = int(test.photo_rows[test.photo[own[0]]])
    photo = data.photos.read([photo_row])[0]
    pages = data.sketches.read(test.sketch_rows[stages].tolist())
    strip = episode_strip(
        photo,
        pages,
        test.share[stages].tolist(),
        {mode: of_mode[stages].tolist() for mode, of_mode in ranks.items()},
        len(test.photos),
        data.captions[photo_row] if data.captions else "",
    )
    return {"curves.png": share_curves(curves), "drawing.png": strip}
