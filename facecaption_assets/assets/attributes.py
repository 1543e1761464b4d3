"""The attribute predictor and the labels it gives."""

import contextlib
import hashlib
import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import dagster as dg
import numpy as np
import polars as pl

from facecaption_assets.assets import attribute_pages
from facecaption_assets.checks import tables as checks
from facecaption_assets.factories import previews, sheets
from facecaption_assets.factories.asset import configured_asset
from facecaption_assets.factories.progress import Progress
from facecaption_assets.factories.records import PREDICTOR
from facecaption_assets.factories.shards import ShardFunction, ShardResult, ShardWork, shard_asset
from facecaption_assets.machines.compute import ONE_A100
from facecaption_assets.resources.models import label_rule
from facecaption_assets.settings import Settings, SettingsError
from facecaption_ml.attributes.labels import RULE_NOTE, LabelRule
from facecaption_ml.attributes.thresholds import precision_in_words
from facecaption_ml.dataset.provenance import package_version
from facecaption_ml.errors import naming
from facecaption_ml.schemas import empty
from facecaption_ml.statistics.text import PUBLISHED_SHARES
from facecaption_ml.storage.store import Store
from facecaption_ml.taxonomy import ATTRIBUTES, CATEGORIES

if TYPE_CHECKING:
    from facecaption_ml.attributes import AttributeData
    from facecaption_ml.attributes.evaluation import Evaluation

GROUP = "attributes"
_SHEET_CROPS: Final = 8
_OF_LABELS: Final = ("min_labels", "label_precision")  # what of the settings the model itself does not depend on


def attribute_assets(settings: Settings) -> list[dg.AssetsDefinition]:
    """``attribute_model`` and ``face_attributes``."""
    return [_attribute_model(settings), _face_attributes(settings)]


def _attribute_model(settings: Settings) -> dg.AssetsDefinition:
    @configured_asset(
        settings,
        ONE_A100,
        team="models",
        code_version="1",
        reads=_model_reads(settings),
        checks=checks.ATTRIBUTE_MODEL,
        group_name=GROUP,
        kinds={"pytorch"},
    )
    def attribute_model(context: dg.AssetExecutionContext) -> dg.MaterializeResult:
        """The predictor of the 40 attributes: trained here, or a checkpoint that the settings name.

        Adaptively weighted multi-task network (He et al., ACM MM 2017), a temperature and an offset per attribute fitted on the
        validation split so that a probability means what it says, and thresholds above which each attribute's labels are right
        in a given share of the cases (FACECAPTION_LABEL_PRECISION).
        """
        return _provide_model(context, settings)

    return attribute_model


def _model_reads(settings: Settings) -> tuple[str, ...]:
    given = settings.attributes
    if given.weights:
        return ("attributes.weights",)
    training = tuple(f"attributes.{name}" for name in type(given).model_fields if name not in _OF_LABELS)
    return (*training, "seed", *(["sample.portraits"] if given.data == "sample" else []))


def _provide_model(context: dg.AssetExecutionContext, settings: Settings) -> dg.MaterializeResult:
    from facecaption_ml.attributes import AttributePredictor, checkpoint_folder
    from facecaption_ml.attributes.checkpoints import EVALUATION
    from facecaption_ml.attributes.evaluation import Evaluation

    store = context.resources.store.open()
    if settings.attributes.weights:
        with naming("FACECAPTION_ATTRIBUTE_WEIGHTS"):
            folder = checkpoint_folder(settings.attributes.weights)
            AttributePredictor.load(folder, device="cpu")  # what does not load takes no good checkpoint's place
    else:
        folder = _train(settings)
    evaluation = Evaluation.read(folder / EVALUATION)
    calibrated, (low, high) = evaluation.share_right_in_band, evaluation.band
    return dg.MaterializeResult(
        data_version=dg.DataVersion(_publish(folder, store)),
        metadata={
            "mean accuracy": round(evaluation.mean_accuracy, 4),
            "majority class": round(evaluation.majority_accuracy, 4),
            "mean AP": round(evaluation.mean_average_precision, 4),
            f"of labels above {low:g}, right": _shown(evaluation.precision_above),
            f"of labels at {low:g} to {high:g}, right": _shown(calibrated),
            "average precision of each attribute": previews.spread(
                [score.average_precision for score in evaluation.scores if score.average_precision is not None],
                "",
                "average precision of the attributes",
            ),
            "trained on": settings.attributes.weights or settings.attributes.data,
            "started from": "" if settings.attributes.weights else settings.attributes.init or "random weights",
            "version": evaluation.version,
            "the attributes that are hardest to tell": _hardest(evaluation, low),
            **attribute_pages.label_metadata(evaluation),
            "all attributes": dg.MetadataValue.path(store.uri(f"attribute_model/{EVALUATION}")),
        },
        check_results=[
            checks.beats_majority(evaluation.mean_accuracy, evaluation.majority_accuracy).result(),
            checks.calibrated(calibrated, low, high).result(),
            checks.precise_labels(evaluation.label_scores).result(),
        ],
    )


def _publish(folder: Path, store: Store) -> str:
    """Put the checkpoint's files into the store; the version of what its answers and labels depend on."""
    from facecaption_ml.attributes.checkpoints import CONFIG, LATER, NEEDED, THRESHOLDS, WEIGHTS

    content = hashlib.sha256()
    for name in (*NEEDED, *LATER):
        if not (folder / name).is_file():  # of an earlier version; what lies in the store is another checkpoint's
            store.delete(f"attribute_model/{name}")
            continue
        data = (folder / name).read_bytes()
        store.write_bytes(f"attribute_model/{name}", data)
        if name in (WEIGHTS, CONFIG, THRESHOLDS):
            content.update(data)
    return content.hexdigest()[:16]


def _hardest(evaluation: "Evaluation", low: float) -> dg.TableMetadataValue:
    scores = sorted(evaluation.scores, key=lambda score: score.average_precision or 0)[: previews.MOST_ROWS]
    return previews.rows(
        ["attribute", "positives", "accuracy", "majority", "AP", "calibration error", f"right above {low:g}"],
        [
            (s.name, s.positives, s.accuracy, s.majority, s.average_precision, s.calibration_error, s.precision_above)
            for s in scores
        ],
    )


def _train(settings: Settings) -> Path:

    if not settings.attributes.data:
        raise SettingsError(
            "no attribute model: set FACECAPTION_ATTRIBUTE_DATA to a CelebA-layout folder, or "
            "FACECAPTION_ATTRIBUTE_WEIGHTS to 'bundled' or a checkpoint folder"
        )
    from facecaption_ml.attributes import train_attributes
    from facecaption_ml.attributes.checkpoints import starting_point
    from facecaption_ml.attributes.network import Preset
    from facecaption_ml.attributes.training_state import STATE
    from facecaption_ml.devices import resolve_device

    init = None
    if settings.attributes.init:
        with naming("FACECAPTION_ATTRIBUTE_INIT"):
            init = starting_point(settings.attributes.init)
    device = resolve_device(settings.device, settings.threads)
    with naming("FACECAPTION_ATTRIBUTE_PRESET"):
        preset = Preset.named(settings.attributes.preset)
    # The training's state stays here, so that a run that was killed resumes where it stopped.
    out = settings.home / "training" / f"attributes-{settings.attributes.preset}"
    data = _labelled_data(settings, preset.input)
    with naming("FACECAPTION_ATTRIBUTE_INIT"):  # all that is left to be wrong
        train_attributes(
            data,
            preset.name,
            out,
            epochs=settings.attributes.epochs,
            seed=settings.seed,
            device=device,
            init=init,
            threshold=settings.attributes.threshold,
        )
    (out / STATE).unlink(missing_ok=True)
    return out


def _labelled_data(settings: Settings, size: tuple[int, int]) -> "AttributeData":
    if settings.attributes.data != "sample":
        from facecaption_ml.attributes import read_celeba

        return read_celeba(settings.attributes.data, size)
    from facecaption_ml.attributes import AttributeData
    from facecaption_ml.sample.labelled import labelled_portraits

    workers = settings.threads or os.cpu_count() or 1
    pixels, labels = labelled_portraits(
        settings.sample.portraits,
        settings.seed,
        workers=workers,
        on_progress=Progress("attribute_model", "labelled portraits drawn"),
    )
    return AttributeData.from_arrays(pixels, labels, f"{len(pixels)} drawn portraits of the sample world")


def _shown(value: float | None) -> float | str:
    return "undefined" if value is None else round(value, 4)


def _face_attributes(settings: Settings) -> dg.AssetsDefinition:
    return shard_asset(
        name="face_attributes",
        open_work=_open_predictor,
        deps=["face_crops", "attribute_model"],
        checks=checks.FACE_ATTRIBUTES,
        group=GROUP,
        kinds={"pytorch", "parquet"},
        description=(
            "40 calibrated probabilities of each crop and the labels that follow: "
            f"{_rule_in_words(settings)}, contradictions settled, faces with at least "
            f"{settings.attributes.min_labels} labels kept (paper §3.2: p > 0.85, more than five). "
            "Set by FACECAPTION_LABEL_PRECISION, FACECAPTION_ATTRIBUTE_THRESHOLD and FACECAPTION_MIN_LABELS."
        ),
        code_version="1",
        reads=("attributes.threshold", "attributes.label_precision", "attributes.min_labels"),
        compute=ONE_A100,
        settings=settings,
        required_resources={"predictor"},
    )


@contextlib.contextmanager
def _open_predictor(work: ShardWork) -> Iterator[ShardFunction]:
    from facecaption_ml.attributes import attribute_table

    settings = work.settings
    predictor = work.context.resources.predictor.load(work.store)
    rule = label_rule(settings, predictor)

    def label(shard: str) -> ShardResult:
        frames, outcomes = [empty("face_attributes")], Counter[str]()
        total = work.store.row_count("face_crops", shard)
        progress = Progress(f"face_attributes {shard}", "faces")
        for batch in work.store.iter_table("face_crops", shard, columns=("face_id", "image")):
            frame, counts = attribute_table(batch, predictor, rule, settings.attributes.min_labels)
            frames.append(frame)
            outcomes.update(counts)
            progress(sum(outcomes.values()), total)
        attributes = pl.concat(frames)
        dropped = {reason: count for reason, count in outcomes.items() if reason != "kept"}
        return ShardResult(
            frame=attributes,
            metadata=_label_metadata(work, shard, attributes, outcomes, predictor.version, rule),
            checks=[
                checks.conserved("faces_conserved", total, len(attributes), dropped, "crops"),
                checks.label_thresholds(attributes, rule, settings.attributes.min_labels),
                checks.no_conflicts(attributes),
                checks.unique(attributes, "face_id", "unique_faces"),
            ],
            notes={RULE_NOTE: rule.to_json()},
        )

    yield label


def _rule_in_words(settings: Settings) -> str:
    given = settings.attributes
    return (
        precision_in_words(given.label_precision) if given.label_precision else LabelRule.plain(given.threshold).words
    )


def _label_metadata(
    work: ShardWork, shard: str, attributes: pl.DataFrame, outcomes: Counter[str], version: str, rule: LabelRule
) -> dict[str, Any]:
    made_with = {
        "label rule": rule.words,
        "never labels under it": ", ".join(rule.silent) or "none",
        PREDICTOR: version,
        "facecaption": package_version(),
    }
    if not len(attributes):
        return {**previews.counts("faces", outcomes), **made_with}
    per_face = attributes["labels"].list.len().to_numpy()
    given = Counter(attributes["labels"].explode().drop_nulls().to_list())
    total = max(sum(given.values()), 1)
    shares = {name: sum(given[label] for label in group) / total for name, group in CATEGORIES.items()}
    shown = attributes.head(_SHEET_CROPS)
    crops = sheets.crops_of(work.store, shard, shown["face_id"].to_list())
    texts = [", ".join(label.replace("_", " ") for label in labels) for labels in shown["labels"]]
    return {
        "share of labels by category (in brackets and ticks: the paper's)": previews.shares(
            shares, "category shares", PUBLISHED_SHARES
        ),
        "labelled crops": sheets.crop_sheet(
            crops, texts, alt="crops with all of their labels", columns=4, lines=sheets.WHOLE
        ),
        **previews.counts("faces", outcomes),
        "mean labels per face": round(float(np.mean(per_face)), 2),
        "conflicts settled": int(attributes["dropped_conflicts"].list.len().sum()),
        "label frequencies": previews.shares(
            {name: given[name] / len(attributes) for name in ATTRIBUTES}, f"share of faces ({rule.words})"
        ),
        **previews.counts("gender", Counter(attributes["gender"].fill_null("unknown").to_list())),
        **made_with,
    }
