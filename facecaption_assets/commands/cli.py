"""``facecaption …`` for people who do not open the UI."""

from __future__ import annotations

import logging
import os
import select
import sys
import tempfile
import threading
import traceback
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

import click

from facecaption_assets.machines.storage_errors import describe_storage
from facecaption_assets.settings import PREFIX, SETTINGS, Settings, SettingsError, load_settings
from facecaption_assets.settings.naming import redact_addresses
from facecaption_ml.errors import describe, is_mendable
from facecaption_ml.processes import interrupts

_READER_GONE = 128 + 13
"""Exit status where the reader of standard output has gone: a shell's for a program that SIGPIPE (13) ended."""


class _OneLineErrors(click.Group):
    """Ends with one line and exit status 1 where a command fails.

    A fault that is not the user's keeps its traceback: in the file that the line names, or on the terminal with ``--debug``.
    """

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except (click.exceptions.Exit, click.ClickException, click.Abort):
            raise
        except Exception as error:
            if isinstance(error, BrokenPipeError) and _nobody_reads_on():
                ctx.exit(_READER_GONE)
            interrupts.halt_if_ending()
            if ctx.params.get("debug"):
                raise
            raise _OneLine(error) from error

    def main(self, *args: Any, **extra: Any) -> Any:
        """As a program, signals end it with one line (``interrupts``) even where it was started without ``__main__``."""
        if interrupts.is_running() or threading.current_thread() is not threading.main_thread() or "args" in extra:
            return super().main(*args, **extra)
        return interrupts.run(lambda: super(_OneLineErrors, self).main(*args, **extra))


class _OneLine(click.ClickException):
    """An error's line and, where the error has one, its own exit status."""

    def __init__(self, error: Exception) -> None:
        line = describe_storage(error)
        if line is None:
            line = describe(error)
            if not is_mendable(error):
                line += f"; the traceback is in {_keep_traceback(error)}"
        super().__init__(line)
        self.exit_code = getattr(error, "exit_status", 1)  # type: ignore[misc]


def _nobody_reads_on() -> bool:
    """Whether it was standard output that broke, as in ``facecaption … | head``; then what is left goes nowhere, silently."""
    broken = select.poll()
    broken.register(sys.stdout.fileno(), select.POLLERR)
    if not broken.poll(0):
        return False
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.stdout.fileno())  # else the interpreter complains of it once more when it ends
    os.close(nowhere)
    return True


def _keep_traceback(error: Exception) -> Path:
    """The file that the traceback of an internal error was added to."""
    home = Path(os.environ.get(f"{PREFIX}HOME", ".facecaption"))
    path = (home if os.access(home, os.W_OK) else Path(tempfile.gettempdir())) / "errors.log"
    with path.open("a", encoding="utf-8") as file:
        file.write(f"{datetime.now(UTC).isoformat(timespec='seconds')}\n")
        file.writelines(traceback.format_exception(error))
    return path


@click.group(cls=_OneLineErrors, context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--debug", is_flag=True, help="Show the traceback of an error.")
@click.option(
    "--profile", default=None, help="production, sample or photos; default: FACECAPTION_PROFILE, else sample."
)
@click.pass_context
def main(ctx: click.Context, debug: bool, profile: str | None) -> None:
    """From a list of image URLs to a face–caption data set.

    Settings are FACECAPTION_* environment variables: see `facecaption settings`.
    """
    # Threads that spin while they wait are a little faster on an idle machine, and many times slower beside other work.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(message)s"))
    logger = logging.getLogger("facecaption")
    logger.setLevel(logging.INFO)
    logger.handlers[:] = [handler]
    if profile:
        os.environ[f"{PREFIX}PROFILE"] = profile


@main.command()
def demo() -> None:
    """Run the whole pipeline on the sample world."""
    from facecaption_assets.commands.run import run_demo

    run_demo(_settings_of_demo())


@main.command()
@click.option("--first", help="First shard; default: the first registered.")
@click.option("--last", help="Last shard; default: the last registered, or FIRST alone where that is given.")
@click.option("--skip-source", is_flag=True, help="Keep the registered shards and the attribute model there is.")
@click.option(
    "--refetch", "refetched", multiple=True, metavar="STATUS", help="Fetch rows again that ended so, such as timeout."
)
def run(first: str | None, last: str | None, skip_source: bool, refetched: tuple[str, ...]) -> None:
    """Run the pipeline on FACECAPTION_SOURCE, from the URLs to the packed release."""
    from facecaption_assets.commands.run import run_pipeline
    from facecaption_ml.images import fetch_status

    refetch = [fetch_status(name, "--refetch") for name in refetched]
    run_pipeline(load_settings(), first, last, skip_source, refetch=refetch)


@main.command()
@click.option("--host", default="127.0.0.1", show_default=True)
@click.option("--port", default=3000, show_default=True, type=click.IntRange(1, 65535))
def ui(host: str, port: int) -> None:
    """Open the Dagster UI, with the daemon that backfills and schedules need."""
    from facecaption_assets.commands.ui import run_ui

    run_ui(load_settings(), host, port)


@main.command()
@click.option("--shard", "shards", multiple=True, help="Only these shards.")
def status(shards: tuple[str, ...]) -> None:
    """What each stage has left of each shard, and over all."""
    from facecaption_assets.commands.status import show_status

    show_status(load_settings(), shards)


@main.command()
@click.argument("photos", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="One line of JSON per photo.")
@click.option("--sheet", type=click.Path(path_type=Path), help="Also write a picture of all faces with their captions.")
@click.option("--min-score", default=0.9, show_default=True, help="Faces must score above this.")
@click.option(
    "--weights",
    default="",
    help="Detector: bundled, download or a .pth file; default: as the FACECAPTION_DETECTOR_* settings say.",
)
@click.option(
    "--attributes",
    default="",
    help="Attribute predictor: bundled or a folder; default: FACECAPTION_ATTRIBUTE_WEIGHTS, else bundled.",
)
@click.option("--seed", default=0, show_default=True)
def caption(
    photos: tuple[Path, ...],
    as_json: bool,
    sheet: Path | None,
    min_score: float,
    weights: str,
    attributes: str,
    seed: int,
) -> None:
    """Faces, attributes and a caption for each, of your own PHOTOS (files, or folders of them)."""
    from facecaption_assets.commands.caption import caption_photos

    if not caption_photos(photos, as_json, sheet, min_score, weights, attributes, seed):
        sys.exit(1)


@main.command()
@click.argument("text")
@click.option("--top", default=8, show_default=True, type=click.IntRange(1), help="How many faces.")
@click.option(
    "--in",
    "where",
    type=click.Path(path_type=Path, file_okay=False),
    help="A folder of photographs, or another home of this project; default: the data set.",
)
@click.option(
    "--by",
    default="auto",
    show_default=True,
    type=click.Choice(["auto", "labels", "flip", "both"]),
    help="Labels that TEXT names, FLIP, or both; auto: the best by measurement, FLIP where TEXT names no label.",
)
@click.option(
    "--variant",
    default="auto",
    show_default=True,
    type=click.Choice(["auto", "bundled", "flip", "flip_template", "flip_alt_text"]),
    help="Which checkpoint: the bundled one, or one of the data set, by what it learned from; auto: flip, else bundled.",
)
@click.option(
    "--out",
    default="search.jpg",
    show_default=True,
    type=click.Path(path_type=Path, dir_okay=False),
    help="Picture of the faces found.",
)
@click.option("--json", "as_json", is_flag=True, help="One line of JSON.")
def search(text: str, top: int, where: Path | None, by: Any, variant: str, out: Path, as_json: bool) -> None:
    """The faces that fit the description TEXT best, of the data set or of your own photographs."""
    from facecaption_assets.commands.search import search_faces

    search_faces(load_settings(), text, top, variant, out, as_json, where, by)


@main.command()
@click.option("--task", required=True, type=click.Choice(["retrieval", "attributes", "sketches"]))
@click.option(
    "--model", default="flip", show_default=True, help="A variant, clip, blip, align, or a FLIP checkpoint's folder."
)
@click.option("--data", default="sample", show_default=True, help="A data set of the task; a wrong name lists them.")
def benchmark(task: str, model: str, data: str) -> None:
    """Measure one benchmark of the paper; the table stands beside the published numbers.

    Where data sets and baselines are, say the FACECAPTION_BENCHMARK_* settings.
    """
    from facecaption_assets.commands.benchmark import run_benchmark

    run_benchmark(load_settings(), task, model, data)


@main.command()
@click.option("--seeds", default=3, show_default=True, type=click.IntRange(1, 3), help="Trainings of each variant.")
@click.option("--at-once", type=click.IntRange(1), help="Trainings side by side; default: as many as cores allow.")
def ablation(seeds: int, at_once: int | None) -> None:
    """Train FLIP, FLIP* and FLIP† with several seeds on the finished shards, and compare them."""
    from facecaption_assets.commands.benchmark import run_ablation
    from facecaption_assets.partitions import SEEDS

    run_ablation(load_settings(), SEEDS[:seeds], at_once)


@main.command()
@click.argument("asset")
@click.argument("partition", required=False)
def materialize(asset: str, partition: str | None) -> None:
    """Materialize one ASSET, or one PARTITION of it, recorded as the UI would: `materialize flip_ablation '0|flip'`."""
    from facecaption_assets.commands.materialize import run_partition

    run_partition(load_settings(), asset, partition)


@main.command()
@click.option("--urls", required=True, help="How many images, such as 50_000_000.")
@click.option(
    "--yields",
    type=click.Choice(["measured", "paper"]),
    help="Whose shares come through the stages; default: as measured here, else the paper's.",
)
@click.option("--flip-variants", default=3, show_default=True, type=click.IntRange(0, 3), help="FLIP trainings.")
@click.option("--as-measured", is_flag=True, help="Take a CPU's speed for a GPU stage's too.")
@click.option("--prices", type=click.Path(path_type=Path, dir_okay=False), help="TOML file of your own rates.")
@click.option("--json", "as_json", is_flag=True, help="One line of JSON.")
@click.option("--out", type=click.Path(path_type=Path, dir_okay=False), help="Write it to this Markdown file.")
def plan(
    urls: str,
    yields: Literal["measured", "paper"] | None,
    flip_variants: int,
    as_measured: bool,
    prices: Path | None,
    as_json: bool,
    out: Path | None,
) -> None:
    """Time, GPU hours, storage, requests and cost of a data set, stage by stage, with every assumption."""
    from facecaption_assets.commands.plan import read_count, show_plan
    from facecaption_assets.plan.planning import Request

    request = Request(read_count(urls), yields, flip_variants, as_measured)
    show_plan(load_settings(), request, prices, as_json, out)


@main.command()
@click.argument("face_id")
@click.option("--json", "as_json", is_flag=True, help="One line of JSON for each face.")
def trace(face_id: str, as_json: bool) -> None:
    """A face back to its URL: every table's row, and the run and versions that made it. A sample id gives all its faces."""
    from facecaption_assets.commands.trace import trace_face

    trace_face(load_settings(), face_id, as_json)


@main.command()
@click.option("--url", "urls", multiple=True, help="Of a picture.")
@click.option("--host", "hosts", multiple=True, help="With its subdomains, such as example.org.")
@click.option("--face-id", "face_ids", multiple=True, help="One face of a picture.")
@click.option("--sample-id", "sample_ids", multiple=True, help="A picture, by its id.")
@click.option("--sha256", "hashes", multiple=True, help="An image file, wherever it lies.")
@click.option("--reason", default="no reason given", help="Kept in the list, beside the date.")
@click.option("--dry-run", is_flag=True, help="Show what it touches, record nothing.")
def remove(
    urls: tuple[str, ...],
    hosts: tuple[str, ...],
    face_ids: tuple[str, ...],
    sample_ids: tuple[str, ...],
    hashes: tuple[str, ...],
    reason: str,
    dry_run: bool,
) -> None:
    """Record a removal, take out what needs no rebuild, and show what holds the rest. Every option may be repeated."""
    from facecaption_assets.commands.remove import remove as record
    from facecaption_assets.commands.remove import requested

    lines = requested(urls, hosts, face_ids, sample_ids, hashes)
    record(load_settings(), lines, reason, dry_run)


@main.command()
@click.option("--dry-run", is_flag=True, help="Show what would be deleted, delete nothing.")
def clean(dry_run: bool) -> None:
    """Delete the tables of shards that left the source, unfinished tries of finished shards, and stale temporary files."""
    from facecaption_assets.commands.clean import clean as delete

    delete(load_settings(), dry_run=dry_run)


@main.command()
@click.option(
    "--markdown", is_flag=True, help="The page docs/settings.md instead: defaults and profiles of all settings."
)
def settings(markdown: bool) -> None:
    """Every setting, its value here, and what it is for."""
    if markdown:
        from facecaption_assets.settings.reference import settings_reference

        click.echo(settings_reference(), nl=False)
        return
    values = load_settings()
    for setting in SETTINGS.values():
        click.echo(f"{setting.variable}={redact_addresses(setting.value(values))}   # {setting.info.description}")


def _settings_of_demo() -> Settings:
    settings = load_settings(profile="sample")
    if settings.source.location != "sample":
        raise SettingsError(f"the demo runs on the sample world: unset {PREFIX}SOURCE, or use `facecaption run`")
    return settings


if __name__ == "__main__":
    main()
