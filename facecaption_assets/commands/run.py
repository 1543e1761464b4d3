"""The pipeline from the shell: the demo on the sample world, and the same stages on a user's own source."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

import click

from facecaption_assets.assets.release import PIXELS_SETTING
from facecaption_assets.commands.instance import Pipeline, RunFailedError
from facecaption_assets.commands.stages import attempt, run_benchmarks, run_in_background, stage
from facecaption_assets.commands.status import show_status
from facecaption_assets.partitions import DEMONSTRATION, REFETCH_TAG, SHARD_ASSETS, STATISTICS_ASSETS
from facecaption_assets.settings import Settings
from facecaption_ml.dataset.release import require_one_form
from facecaption_ml.dataset.release_files import PREFIX
from facecaption_ml.errors import naming
from facecaption_ml.schemas import DATASET
from facecaption_ml.storage.local_files import write_file
from facecaption_ml.storage.store import Store


def run_demo(settings: Settings) -> None:
    """Every asset on the sample world, then where to look."""
    click.echo(
        f"FaceCaption demo: {settings.sample.scenes} drawn scenes behind a loopback web server, "
        f"{settings.sample.portraits} labelled portraits. Everything goes to {settings.home}",
        err=True,
    )
    run_pipeline(settings, None, None, skip_source=False, variant="flip")


def run_pipeline(
    settings: Settings,
    first: str | None,
    last: str | None,
    skip_source: bool,
    variant: str | None = None,
    refetch: Sequence[str] = (),
) -> None:
    """Source, attribute model, all shard assets, FLIP and its benchmarks where a ``variant`` is named, statistics, release.

    ``refetch``: statuses of rows that are fetched again. Raises RunFailedError or UnknownShardError. What fails after the
    shards does not keep the release from being packed; the first such error is raised at the end.
    """
    started = time.monotonic()
    pipeline = Pipeline(settings, {REFETCH_TAG: ",".join(refetch)} if refetch else {})
    if not skip_source:
        stage(pipeline, "the list of images", "source_manifest")
    shards = pipeline.shards()
    pipeline.check_shards([name for name in (first, last) if name])
    if not shards:
        pipeline.check_shards(["shard-00000"])
    begin, end = first or shards[0], last or (first or shards[-1])
    _require_one_form(settings, [shard for shard in shards if not begin <= shard <= end])
    predictor = settings.open_store().exists("attribute_model/config.json")
    failed: list[RunFailedError | None] = []
    if variant:
        failed += _demonstrate(pipeline, begin, end, variant)
    else:
        if not (skip_source and predictor):
            stage(pipeline, "the attribute predictor", "attribute_model")
        stage(pipeline, f"shards {begin} to {end}", *SHARD_ASSETS, first=begin, last=end)
        failed.append(run_statistics(pipeline))
    stage(pipeline, "the release", "facecaption_release")
    minutes, seconds = divmod(round(time.monotonic() - started), 60)
    click.echo(f"\nDone in {minutes} min {seconds} s.\n", err=True)
    show_status(settings, ())
    _where_to_look(settings, _write_sheet(settings, shards), variant)
    for error in filter(None, failed):
        raise error


def _require_one_form(settings: Settings, kept: Sequence[str]) -> None:
    """Before the work: the shards that are not rebuilt go into the same release. Raises ReleaseError naming one that cannot."""
    store = settings.open_store()
    with naming(PIXELS_SETTING):
        require_one_form(store, [shard for shard in kept if store.has_table(DATASET, shard)], settings.release.images)


def _demonstrate(pipeline: Pipeline, begin: str, end: str, variant: str) -> list[RunFailedError | None]:
    """The demo's order: what keeps one core busy runs in the background. Failures after the shards are returned.

    Raises RunFailedError where the attribute predictor or a shard fails.
    """
    from facecaption_assets.resources.benchmarks import draw_samples

    on_pictures = ("raw_images", "face_crops")
    with run_in_background(pipeline, "the attribute predictor", "attribute_model") as predictor:
        stage(pipeline, f"pictures and faces of {begin} to {end}", *on_pictures, first=begin, last=end)
    if predictor.error:
        raise predictor.error
    rest = [asset for asset in SHARD_ASSETS if asset not in on_pictures]
    stage(pipeline, f"attributes, captions and pairs of {begin} to {end}", *rest, first=begin, last=end)
    with run_in_background(pipeline, f"FLIP ({pipeline.settings.flip.preset})", "flip_checkpoint", variant) as training:
        draw_samples(pipeline.settings)
        statistics = run_statistics(pipeline)
        if pipeline.settings.llm.demonstration:  # whose failure is told, and costs nothing but itself
            attempt(pipeline, "what a small model makes of some captions", DEMONSTRATION)
    return [statistics, training.error, *([] if training.error else run_benchmarks(pipeline, [variant]))]


def run_statistics(pipeline: Pipeline) -> RunFailedError | None:
    """The statistics of every finished shard. A failure is printed and returned, for the caller to raise at its end."""
    return attempt(pipeline, "the statistics", *STATISTICS_ASSETS)


def _where_to_look(settings: Settings, sheet: Path | None, variant: str | None) -> None:
    store = settings.store_root
    checkpoint = f"flip_checkpoint/{variant}"
    trained = variant and Store(store, settings.storage.options).exists(f"{checkpoint}/config.json")
    click.echo("\nWhere to look:")
    if sheet:
        click.echo(f"  faces and captions   {sheet}")
    released = any(settings.open_store().keys(f"{PREFIX}/data/"))
    use = (
        "datasets.load_dataset opens it; README.md is its card"
        if released
        else "no pair was made; README.md says at which stage. Faces with too few labels: lower FACECAPTION_MIN_LABELS, "
        "or FACECAPTION_LABEL_PRECISION"
    )
    click.echo(f"  released data set    {store}/release   ({use})")
    click.echo(f"  statistics           {store}/statistics   (figures as SVG and PNG, numbers as Parquet and JSON)")
    if trained:
        click.echo(f"  FLIP                 {store}/{checkpoint}   (MODEL_CARD.md, curves.png, retrievals.png)")
        click.echo(f"  benchmark tables     {store}/benchmarks/tables/index.html")
    click.echo(f"  tables by shard      {store}/<table>/<shard>.parquet")
    click.echo("  runs, lineage        make ui   (or: facecaption ui)")
    click.echo("  your own pictures    .venv/bin/facecaption caption PHOTO…")
    if trained:
        click.echo('  find faces by words  .venv/bin/facecaption search "a smiling woman with blond hair and glasses"')


def _write_sheet(settings: Settings, shards: Sequence[str]) -> Path | None:
    """A picture of the first captioned faces, in HOME. None where no face was captioned."""
    from facecaption_ml.decoding import decode_image, encode_jpeg
    from facecaption_ml.faces import contact_sheet

    store = settings.open_store()
    for shard in shards:
        if not store.has_table(DATASET, shard):
            continue
        released = store.read_table(DATASET, shard, columns=["face_id", "caption"]).head(12)
        crops = store.read_table("face_crops", shard, columns=["face_id", "image"])
        rows = released.join(crops, on="face_id", how="inner", maintain_order="left")
        if len(rows):
            pictures = [decode_image(data) for data in rows["image"].struct.field("bytes")]
            path = settings.home / "faces_and_captions.jpg"
            sheet = contact_sheet(pictures, rows["caption"].to_list(), columns=4, cell=260, caption_lines=None)
            write_file(path, encode_jpeg(sheet))
            return path
    return None
