"""``facecaption status``: rows left at each stage, per shard and over all, and what is out of date."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta

import click

from facecaption_assets.commands.dagster_home import has_instance
from facecaption_assets.partitions import SHARD_ASSETS, STATISTICS_ASSETS
from facecaption_assets.settings import Settings
from facecaption_ml.benchmarks.encoders.registry import FLIP_VARIANTS
from facecaption_ml.dataset.funnel import STAGES, shard_counts
from facecaption_ml.schemas import SOURCE
from facecaption_ml.storage.store import Store, StoreError

_SHOWN = 40


def show_status(settings: Settings, only: Sequence[str]) -> None:
    """Print the funnel. Raises StoreError where there is no manifest yet or a named shard is not in it."""
    store = settings.open_store()
    known = store.shards("source_manifest")
    if not known:
        raise StoreError(f"no shards under {store.root}: materialize source_manifest first (`facecaption run`)")
    for name in only:
        if name not in known:
            raise StoreError(f"there is no shard {name!r}: they run from {known[0]} to {known[-1]}")
    shards = list(only) or known
    labels = [label for _, label in STAGES]
    width = max(len(label) for label in labels)
    totals = dict.fromkeys((table for table, _ in STAGES), 0)
    missing = dict.fromkeys((table for table, _ in STAGES), 0)
    per_shard: list[tuple[str, dict[str, int | None]]] = []
    for shard in shards:
        counts = shard_counts(store, shard)
        per_shard.append((shard, counts))
        for table, count in counts.items():
            totals[table] += count or 0
            missing[table] += count is None
    click.echo(f"{'stage':<{width}}  {'rows':>12}  of URLs  shards")
    start = max(totals["source_manifest"], 1)
    for table, label in STAGES:
        done = f"{len(shards) - missing[table]} of {len(shards)}"
        click.echo(f"{label:<{width}}  {totals[table]:>12,}  {totals[table] / start:>7.1%}  {done}")
    click.echo()
    click.echo(f"{'shard':<14}" + "".join(f"{table:>21}" for table, _ in STAGES))
    for shard, counts in per_shard[:_SHOWN]:
        cells = ("–" if count is None else f"{count:,}" for count in counts.values())
        click.echo(f"{shard:<14}" + "".join(f"{cell:>21}" for cell in cells))
    if len(per_shard) > _SHOWN:
        click.echo(f"… and {len(per_shard) - _SHOWN} more; name one with --shard")
    for line in out_of_date(settings, store):
        click.echo(f"\n{line}")


def out_of_date(settings: Settings, store: Store) -> Iterator[str]:
    """A line for each asset with shards that want making again, and for each over all shards that some have changed since.

    Nothing where Dagster has recorded nothing here.
    """
    if not has_instance(settings):
        return
    import dagster as dg

    from facecaption_assets.automation.nightly_backfill import find_backlog, stored_shards
    from facecaption_assets.commands.instance import prepare_home
    from facecaption_assets.definitions import build_definitions
    from facecaption_assets.factories.dataset_inputs import newer_shards

    prepare_home(settings)
    instance, nightly = dg.DagsterInstance.get(), settings.automation
    repository = build_definitions(settings).get_repository_def()
    tables, memory = stored_shards(store), timedelta(days=nightly.nightly_days)
    backlog = find_backlog(instance, repository, datetime.now(UTC), nightly.nightly_attempts, memory, tables)
    stale = Counter(SHARD_ASSETS[task.stage] for task in backlog.tasks if task.reason == "stale")
    for asset, count in stale.items():
        yield f"out of date from {asset} on: {count:,} of {len(tables[SOURCE]):,} shards (other settings, code or inputs)"
    for asset in (*STATISTICS_ASSETS, "facecaption_release", *(f"flip_checkpoint/{name}" for name in FLIP_VARIANTS)):
        newer = newer_shards(instance, store, asset)
        if newer:
            yield f"{asset}: {len(newer):,} shards have other content than it was made of: {', '.join(newer[:3])}" + (
                ", …" if len(newer) > 3 else ""
            )
