"""One benchmark from the settings: its data set, its model, its probes. Assets and the shell measure through ``measure``."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypeVar

from facecaption_assets.factories.progress import Progress
from facecaption_assets.partitions import BENCHMARK_DATA, HUB_MODELS, VARIANTS, benchmark_models
from facecaption_assets.resources.models import load_variant
from facecaption_assets.settings import Settings
from facecaption_ml.errors import FaceCaptionError
from facecaption_ml.storage.store import Store

if TYPE_CHECKING:
    from facecaption_ml.benchmarks.datasets.data import EpisodeData, LabelData, PairData, Rgb
    from facecaption_ml.benchmarks.encoders.models import FrozenModel
    from facecaption_ml.benchmarks.tasks.protocol import Measured, ProbeProtocol

_PREFIX: Final = "FACECAPTION_BENCHMARK_"
D = TypeVar("D", "PairData", "LabelData")


class BenchmarkError(FaceCaptionError):
    """A benchmark cannot be measured; one line that names the setting or name and what to do."""


def measure(
    settings: Settings, store: Store, task: str, data: str, model: str | FrozenModel, seed: int | None = None
) -> Measured:
    """The benchmark ``task`` (retrieval, attributes, sketches) of a model on a data set of it.

    ``model`` is one of ``benchmark_models(task)``, a folder with a FLIP checkpoint, or a model that is open already. Features
    that are in the store are not computed again. Raises BenchmarkError, BenchmarkDataError, FeatureError, FlipError,
    StoreError or WeightsNotReachable with one line.
    """
    from facecaption_ml.benchmarks.encoders.features import FeatureCache
    from facecaption_ml.benchmarks.tasks.attributes import measure_attributes
    from facecaption_ml.benchmarks.tasks.retrieval import measure_retrieval
    from facecaption_ml.benchmarks.tasks.sketches import measure_sketches

    check_names(task, data, model if isinstance(model, str) else None)
    opened = open_model(settings, store, model) if isinstance(model, str) else model
    protocol = protocol_of(settings, task, seed)
    cache = FeatureCache(
        store, opened, settings.benchmark_encode_batch, Progress(f"{opened.name} on {data}", "pictures")
    )
    if task == "retrieval":
        shared = data in ("celeba_caption", "sample") and bool(opened.layer_names)  # with the attribute benchmark
        return measure_retrieval(open_pairs(settings, data), cache, protocol, layers=shared)
    if task == "attributes":
        return measure_attributes(open_labels(settings, data), cache, protocol)
    return measure_sketches(open_episodes(settings, data), cache, protocol)


def write_measured(store: Store, measured: Measured) -> dict[str, bytes]:
    """Write a result and its pictures; what was written, by its key."""
    result = measured.result
    pictures = {f"{result.key}.{ending}": data for ending, data in measured.pictures.items()}
    written = {f"{result.key}.json": result.as_json(), **pictures}
    for key, data in written.items():
        store.write_bytes(key, data)
    return written


def result_pictures(store: Store, key: str) -> dict[str, str]:
    """The keys of the pictures beside the result ``key``, by what they show; not those of a model ``key.another``."""
    endings = [found.removeprefix(f"{key}.") for found in store.keys(f"{key}.")]
    shown = [name for name, dot, kind in (ending.partition(".") for ending in endings) if kind == "png"]
    return {name: f"{key}.{name}.png" for name in shown}


def check_names(task: str, data: str, model: str | None = None) -> None:
    """Raises BenchmarkError for a task, a data set of it or a model for it that there is not, naming those there are."""
    if task not in BENCHMARK_DATA:
        raise BenchmarkError(f"there is no benchmark {task!r}: choose among {', '.join(BENCHMARK_DATA)}")
    if data not in BENCHMARK_DATA[task]:
        raise BenchmarkError(f"{task} has no data set {data!r}: choose among {', '.join(BENCHMARK_DATA[task])}")
    models = benchmark_models(task)
    if model is None or model in models or (model not in HUB_MODELS and Path(model).expanduser().is_dir()):
        return
    raise BenchmarkError(
        f"{task} has no model {model!r}: choose among {', '.join(models)}, or name a FLIP checkpoint's folder"
    )


def protocol_of(settings: Settings, task: str, seed: int | None = None) -> ProbeProtocol:
    """How the probes of a task are trained; ``seed`` takes the place of the pipeline's."""
    from facecaption_ml.benchmarks.tasks.protocol import ProbeProtocol
    from facecaption_ml.devices import resolve_device

    name = {"retrieval": "retrieval", "attributes": "attribute", "sketches": "sketch"}[task]
    return ProbeProtocol(
        epochs=getattr(settings, f"benchmark_{name}_epochs"),
        learning_rate=getattr(settings, f"benchmark_{name}_learning_rate"),
        batch_size=getattr(settings, f"benchmark_{name}_batch"),
        weight_decay=settings.benchmark_weight_decay,
        runs=settings.benchmark_runs,
        seed=settings.seed if seed is None else seed,
        views=settings.benchmark_views,
        device=resolve_device(settings.device, settings.threads),
    )


def open_model(settings: Settings, store: Store, name: str) -> FrozenModel:
    """A FLIP variant from the store, a baseline by its setting, or a folder with a FLIP checkpoint, under the folder's name.

    Raises FlipError, StoreError or WeightsNotReachable where its weights cannot be had.
    """
    from facecaption_ml.devices import resolve_device

    device = resolve_device(settings.device, settings.threads)
    if name in HUB_MODELS:
        from facecaption_ml.benchmarks.encoders import hub_models

        setting = f"{_PREFIX}{name.upper()}"
        return hub_models.load(name, getattr(settings, f"benchmark_{name}"), setting, device)
    from facecaption_ml.benchmarks.encoders.models import FlipEncoder
    from facecaption_ml.flip import Flip

    if name in VARIANTS.get_partition_keys():
        return FlipEncoder(load_variant(settings, store, name), name)
    flip, own = Flip.load(Path(name).expanduser(), device), Path(name).expanduser().resolve().name
    # The results of the grid's own models stay theirs.
    return FlipEncoder(flip, f"{own}-{flip.version}" if own in {*VARIANTS.get_partition_keys(), *HUB_MODELS} else own)


def open_pairs(settings: Settings, data: str) -> PairData:
    """A retrieval data set. Raises BenchmarkDataError naming the setting or file."""
    from facecaption_ml.benchmarks.datasets import celeba_caption, mm_celeba_hq, sample

    if data == "celeba_caption":
        place = _folder(settings, "celeba")
        captions = _folder(settings, "celeba_captions") if settings.benchmark_celeba_captions else None
        return celeba_caption.read_celeba_captions(
            place, f"{_PREFIX}CELEBA", captions, settings.seed, captions_setting=f"{_PREFIX}CELEBA_CAPTIONS"
        )
    if data == "mm_celeba_hq":
        return mm_celeba_hq.read_mm_celeba_hq(_folder(settings, "mm_celeba"), f"{_PREFIX}MM_CELEBA")
    return _drawn_once(settings, sample.sample_pairs(settings.seed, _shares(settings.benchmark_sample_pictures)))


def open_labels(settings: Settings, data: str) -> LabelData:
    """An attribute data set. Raises BenchmarkDataError naming the setting or file."""
    from facecaption_ml.benchmarks.datasets import celeba, lfwa, sample

    if data == "celeba":
        return celeba.read_celeba_labels(_folder(settings, "celeba"), f"{_PREFIX}CELEBA")
    if data == "lfwa":
        return lfwa.read_lfwa(_folder(settings, "lfwa"), f"{_PREFIX}LFWA")
    return _drawn_once(settings, sample.sample_labels_data(settings.seed, _shares(settings.benchmark_sample_pictures)))


def open_episodes(settings: Settings, data: str) -> EpisodeData:
    """A sketch data set. Raises BenchmarkDataError naming the setting or file."""
    from facecaption_ml.benchmarks.datasets import fs2k_sde, photo_episodes, sample
    from facecaption_ml.benchmarks.datasets.pictures import KeptPictures

    if data == "sample":
        drawings = sample.sample_episodes(settings.seed, _shares(settings.benchmark_sample_drawings))
        kept = _kept_pictures(settings)
        return dataclasses.replace(
            drawings, photos=KeptPictures(drawings.photos, kept), sketches=KeptPictures(drawings.sketches, kept)
        )
    describe = describer(settings)
    if data == "photos":
        folder = _folder(settings, "photos")
        return photo_episodes.photo_episodes(folder, f"{_PREFIX}PHOTOS", describe, seed=settings.seed)
    photos, photos_setting = _folder(settings, "fs2k"), f"{_PREFIX}FS2K"
    number = 2 if data == "fs2k_sde2" else 1
    drawn = fs2k_sde.read_fs2k_sde(
        _folder(settings, "fs2k_sde"), f"{_PREFIX}FS2K_SDE", number, photos, photos_setting, describe
    )
    if data != "user_sde":
        return drawn
    own = _folder(settings, "user_sde")
    return fs2k_sde.read_user_sde(own, f"{_PREFIX}USER_SDE", drawn, photos, photos_setting, describe)


def draw_samples(settings: Settings) -> None:
    """Draw and keep the pictures of the ``sample`` data sets, which a benchmark otherwise does when it comes to them."""
    from facecaption_ml.benchmarks.datasets.pictures import DRAWN_TOGETHER

    drawn, episodes = open_labels(settings, "sample"), open_episodes(settings, "sample")
    for pictures, what in (
        (drawn.pictures, "faces"),
        (episodes.photos, "portraits"),
        (episodes.sketches, "sketches"),
    ):
        progress, count = Progress(f"drawn {what} of the benchmarks", what), len(pictures.names)
        for start in range(0, count, DRAWN_TOGETHER):
            pictures.read(range(start, min(start + DRAWN_TOGETHER, count)))
            progress(min(start + DRAWN_TOGETHER, count), count)


def _drawn_once(settings: Settings, data: D) -> D:
    from facecaption_ml.benchmarks.datasets.pictures import KeptPictures

    return dataclasses.replace(data, pictures=KeptPictures(data.pictures, _kept_pictures(settings)))


def _kept_pictures(settings: Settings) -> Store:
    """Where drawn pictures are kept, so that the next model need not wait for them."""
    return Store(str(settings.home / "cache" / "benchmark_pictures"))


def _shares(count: int) -> tuple[int, int, int]:
    """Of ``count``: for training, validation (an eighth) and test (three eighths)."""
    validation, test = max(1, count // 8), max(1, 3 * count // 8)
    return count - validation - test, validation, test


def describer(settings: Settings) -> Callable[[Rgb], str]:
    """Captions of photos as the pipeline makes them (paper §5.4): detector, bundled attribute predictor, grammar.

    A photo without a face that is found is labelled as a whole. Models are loaded with the first photo.
    """
    from facecaption_assets.resources.models import load_photo_captioner

    found: list[Callable[[Rgb], str]] = []

    def describe(photo: Rgb) -> str:
        if not found:
            found.append(load_photo_captioner(settings, seed=settings.seed).describe)
        return found[0](photo)

    return describe


def _folder(settings: Settings, name: str) -> Store:
    """The folder or prefix that a setting names. Raises BenchmarkDataError where it is not set or not there."""
    from facecaption_ml.benchmarks.datasets.data import BenchmarkDataError

    given, setting = getattr(settings, f"benchmark_{name}"), f"{_PREFIX}{name.upper()}"
    if not given:
        what = type(settings).model_fields[f"benchmark_{name}"].description
        raise BenchmarkDataError(f"{setting} is not set: it names the {what}")
    if not given.startswith("s3://") and not Path(given).expanduser().is_dir():
        raise BenchmarkDataError(f"{setting}: there is no folder {given}")
    root = given if given.startswith("s3://") else str(Path(given).expanduser())
    return Store(root, settings.storage_options)
