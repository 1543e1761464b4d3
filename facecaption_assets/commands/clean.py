"""``facecaption clean``: what takes part in nothing is deleted."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import click
import dagster as dg

from facecaption_assets.commands.dagster_home import has_instance
from facecaption_assets.commands.dead_runs import IN_PROGRESS, fail_dead_runs
from facecaption_assets.commands.instance import prepare_home
from facecaption_assets.settings import Settings
from facecaption_ml.dataset.leftovers import leftovers, stale_writes
from facecaption_ml.errors import FaceCaptionError

_EXAMPLES: Final = 3


def clean(settings: Settings, *, dry_run: bool) -> None:
    """Delete leftovers and print how many and how large they were; with ``dry_run`` only print.

    Raises FaceCaptionError while a run is in progress, since it may be writing what looks left over, and StoreError where there
    is no manifest.
    """
    running = runs_in_progress(settings)
    if running and not dry_run:
        raise FaceCaptionError(
            f"{len(running)} run(s) are in progress ({', '.join(run[:8] for run in running[:_EXAMPLES])}): nothing is deleted; "
            "run this again when they are over (`facecaption ui` shows and ends them)"
        )
    store = settings.open_store()
    number = size = 0
    for kind in leftovers(store):
        _say(kind.what, list(kind.sizes), kind.bytes)
        number, size = number + len(kind.sizes), size + kind.bytes
        for key in () if dry_run else kind.sizes:
            store.delete(key)
    folders = [settings.home / "cache", *([] if store.root.startswith("s3://") else [Path(store.root)])]
    stale = {path: bytes_ for folder in folders for path, bytes_ in stale_writes(folder)}
    _say("unfinished writes of killed processes", [str(path) for path in stale], sum(stale.values()))
    number, size = number + len(stale), size + sum(stale.values())
    for path in () if dry_run else stale:
        path.unlink(missing_ok=True)
    would = "would be deleted (dry run)" if dry_run else "deleted"
    click.echo(f"{number:,} file(s), {_megabytes(size)}, {would} under {store.root}")


def runs_in_progress(settings: Settings) -> list[str]:
    """The ids of runs that may write into the store; none where there is no Dagster instance yet.

    Runs whose process has ended are marked failed first, as at every start.
    """
    if not has_instance(settings):
        return []
    home = prepare_home(settings)
    with dg.DagsterInstance.get() as instance:
        fail_dead_runs(instance, home)
        return list(instance.get_run_ids(dg.RunsFilter(statuses=IN_PROGRESS)))


def _say(what: str, names: list[str], size: int) -> None:
    shown = ", ".join(names[:_EXAMPLES]) + (", …" if len(names) > _EXAMPLES else "")
    click.echo(f"{what}: {len(names):,}" + (f", {_megabytes(size)} ({shown})" if names else ""))


def _megabytes(size: int) -> str:
    return f"{size / 1e6:,.1f} MB" if size >= 100_000 else f"{size:,} bytes"
