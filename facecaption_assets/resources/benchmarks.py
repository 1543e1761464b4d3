"""One benchmark from the settings: its data set, its model, its probes. Assets and the shell measure through ``measure``."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final, cast

from facecaption_assets.factories.progress import Progress
from facecaption_assets.partitions import BENCHMARK_ASSETS
from facecaption_assets.resources.models import load_variant
from facecaption_assets.settings import Settings
from facecaption_ml.benchmarks.datasets.data import BenchmarkDataError
from facecaption_ml.benchmarks.datasets.registry import FOLDERS, data_sets
from facecaption_ml.benchmarks.datasets.spec import OpenOptions
from facecaption_ml.benchmarks.encoders.registry import FLIP_VARIANTS, HUB_MODELS, MODEL_TITLES, models_of
from facecaption_ml.benchmarks.options import ProbeProtocol
from facecaption_ml.errors import FaceCaptionError, naming
from facecaption_ml.storage.store import Store

if TYPE_CHECKING:
    from facecaption_ml.benchmarks.datasets.data import EpisodeData, LabelData, PairData, Rgb
    from facecaption_ml.benchmarks.datasets.spec import BenchmarkData
    from facecaption_ml.benchmarks.encoders.models import FrozenModel
    from facecaption_ml.benchmarks.tasks.protocol import Measured

_PREFIX: Final = "FACECAPTION_BENCHMARK_"


class BenchmarkError(FaceCaptionError):
    """A benchmark cannot be measured; one line that names the setting or name and what to do."""


def measure(
    settings: Settings,
    store: Store,
    task: str,
    data: str,
    model: str | FrozenModel,
    *,
    seed: int | None = None,
    runs: int | None = None,
) -> Measured:
    """The benchmark ``task`` (retrieval, attributes, sketches) of a model on a data set of it.

    ``model`` is one of ``models_of(task)``, a folder with a FLIP checkpoint, or a model that is open already. Features
    that are in the store are not computed again. ``seed`` and ``runs`` take the place of the settings'. Raises
    BenchmarkError, BenchmarkDataError, FeatureError, FlipError, StoreError or WeightsNotReachable with one line.
    """
    from facecaption_ml.benchmarks.encoders.features import FeatureCache
    from facecaption_ml.benchmarks.tasks.attributes import measure_attributes
    from facecaption_ml.benchmarks.tasks.retrieval import measure_retrieval
    from facecaption_ml.benchmarks.tasks.sketches import measure_sketches

    check_names(task, data, model if isinstance(model, str) else None)
    encoder, opened = _opened(settings, store, task, data, model)
    protocol = protocol_of(settings, task, seed, runs)
    cache = FeatureCache(
        store, encoder, settings.benchmarks.encode_batch, Progress(f"{encoder.name} on {data}", "pictures")
    )
    if task == "retrieval":
        shared = data in ("celeba_caption", "sample") and bool(encoder.layer_names)  # with the attribute benchmark
        return measure_retrieval(cast("PairData", opened), cache, protocol, layers=shared)
    if task == "attributes":
        return measure_attributes(cast("LabelData", opened), cache, protocol)
    return measure_sketches(cast("EpisodeData", opened), cache, protocol)


def _opened(
    settings: Settings, store: Store, task: str, data: str, model: str | FrozenModel
) -> tuple[FrozenModel, BenchmarkData]:
    """Model and data set. Raises an error that says everything that is missing of either, not only the first."""
    missing: list[FaceCaptionError] = []
    encoder: FrozenModel | None = None
    opened: BenchmarkData | None = None
    try:
        encoder = open_model(settings, store, model) if isinstance(model, str) else model
    except FaceCaptionError as error:
        missing.append(error)
    try:
        opened = open_data(settings, task, data)
    except FaceCaptionError as error:
        missing.append(error)
    if encoder is not None and opened is not None:
        return encoder, opened
    if len(missing) == 1:
        raise missing[0]
    raise BenchmarkError("; ".join(map(str, missing))) from missing[0]


def write_measured(store: Store, measured: Measured) -> dict[str, bytes]:
    """Write a result and its figures; what was written, by its key."""
    result = measured.result
    figures = {f"{result.key}.{ending}": data for ending, data in measured.figures.items()}
    written = {f"{result.key}.json": result.as_json(), **figures}
    for key, data in written.items():
        store.write_bytes(key, data)
    return written


def result_figures(store: Store, key: str) -> dict[str, str]:
    """The keys of the figures beside the result ``key``, by what they show; not those of a model ``key.another``."""
    endings = [stored.removeprefix(f"{key}.") for stored in store.keys(f"{key}.")]
    shown = [name for name, dot, kind in (ending.partition(".") for ending in endings) if kind == "png"]
    return {name: f"{key}.{name}.png" for name in shown}


def check_names(task: str, data: str, model: str | None = None) -> None:
    """Raises BenchmarkError for a task, a data set of it or a model for it that there is not, naming those there are."""
    if task not in BENCHMARK_ASSETS:
        raise BenchmarkError(f"there is no benchmark {task!r}: choose among {', '.join(BENCHMARK_ASSETS)}")
    if data not in data_sets(task):
        raise BenchmarkError(f"{task} has no data set {data!r}: choose among {', '.join(data_sets(task))}")
    models = models_of(task)
    if model is None or model in models or (model not in HUB_MODELS and Path(model).expanduser().is_dir()):
        return
    raise BenchmarkError(
        f"{task} has no model {model!r}: choose among {', '.join(models)}, or name a FLIP checkpoint's folder"
    )


def protocol_of(settings: Settings, task: str, seed: int | None = None, runs: int | None = None) -> ProbeProtocol:
    """How the probes of a task are trained; ``seed`` and ``runs`` take the place of the settings'."""
    from facecaption_ml.devices import resolve_device

    shared = settings.benchmarks.shared
    return ProbeProtocol.of(
        settings.benchmarks.probes(task),
        shared if runs is None else shared.model_copy(update={"runs": runs}),
        seed=settings.seed if seed is None else seed,
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

        with naming(_setting_of(name)):
            return hub_models.load(name, settings.benchmarks.location(name), device)
    from facecaption_ml.benchmarks.encoders.models import FlipEncoder
    from facecaption_ml.flip import Flip

    if name in FLIP_VARIANTS:
        return FlipEncoder(load_variant(settings, store, name), name)
    flip, own = Flip.load(Path(name).expanduser(), device), Path(name).expanduser().resolve().name
    # The results of the grid's own models stay theirs.
    return FlipEncoder(flip, f"{own}-{flip.version}" if own in MODEL_TITLES else own)


def open_data(settings: Settings, task: str, data: str) -> BenchmarkData:
    """A data set of a task from the folders that the settings name. Raises BenchmarkDataError naming the setting or file."""
    spec = data_sets(task)[data]
    options = OpenOptions(
        seed=settings.seed,
        describe=describer(settings),
        sample_pictures=settings.benchmarks.sample_pictures,
        sample_drawings=settings.benchmarks.sample_drawings,
        # Kept, so that the next model need not wait for them.
        drawn=Store(str(settings.home / "cache" / "benchmark_pictures")),
    )
    needed = [
        folder.name for folder in spec.folders if not folder.optional or settings.benchmarks.location(folder.name)
    ]
    stores = _folders(settings, needed)
    with _naming_folders():
        return spec.open(stores, options)


def draw_samples(settings: Settings) -> None:
    """Draw and keep the pictures of the ``sample`` data sets, which a benchmark otherwise does when it comes to them."""
    from facecaption_ml.benchmarks.datasets.pictures import DRAWN_TOGETHER

    faces = cast("LabelData", open_data(settings, "attributes", "sample"))
    episodes = cast("EpisodeData", open_data(settings, "sketches", "sample"))
    for pictures, kind in (
        (faces.pictures, "faces"),
        (episodes.photos, "portraits"),
        (episodes.sketches, "sketches"),
    ):
        progress, count = Progress(f"drawn {kind} of the benchmarks", kind), len(pictures.names)
        for start in range(0, count, DRAWN_TOGETHER):
            pictures.read(range(start, min(start + DRAWN_TOGETHER, count)))
            progress(min(start + DRAWN_TOGETHER, count), count)


def describer(settings: Settings) -> Callable[[Rgb], str]:
    """Captions of photos as the pipeline makes them (paper §5.4): detector, bundled attribute predictor, grammar.

    A photo without a face that is found is labelled as a whole. Models are loaded with the first photo.
    """
    from facecaption_assets.resources.models import load_photo_captioner

    loaded: list[Callable[[Rgb], str]] = []

    def describe(photo: Rgb) -> str:
        if not loaded:
            loaded.append(load_photo_captioner(settings, seed=settings.seed).describe)
        return loaded[0](photo)

    return describe


def _setting_of(name: str) -> str:
    """The setting of a folder or baseline."""
    return f"{_PREFIX}{name.upper()}"


def _folders(settings: Settings, names: Sequence[str]) -> dict[str, Store]:
    """The stores of folders by name. Raises BenchmarkDataError that says all that are missing."""
    stores, missing = {}, []
    for name in names:
        try:
            stores[name] = _folder(settings, name)
        except BenchmarkDataError as error:
            missing.append(str(error))
    if missing:
        raise BenchmarkDataError("; ".join(missing))
    return stores


def _folder(settings: Settings, name: str) -> Store:
    """The folder or prefix that a setting names. Raises BenchmarkDataError where it is not set or not there."""
    given, setting = settings.benchmarks.location(name), _setting_of(name)
    if not given:
        raise BenchmarkDataError(
            f"{setting} is not set: it names the folder or s3://bucket/prefix of {FOLDERS[name].description}"
        )
    if not given.startswith("s3://") and not Path(given).expanduser().is_dir():
        raise BenchmarkDataError(f"{setting}: there is no folder {given}")
    root = given if given.startswith("s3://") else str(Path(given).expanduser())
    return Store(root, settings.storage.options)


@contextmanager
def _naming_folders() -> Iterator[None]:
    """An error of a data set gets the name of the setting that gives the folder at fault."""
    try:
        yield
    except BenchmarkDataError as error:
        if error.folder is None:
            raise
        with naming(_setting_of(error.folder)):
            raise
