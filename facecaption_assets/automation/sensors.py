"""The sensor that turns manifests in the inbox into shards, and the shards into runs.

It asks for one run of ``source_manifest`` at a time, each with one manifest, and for the runs of its shards when the store's
ledger (``facecaption_ml.dataset.manifests``) says that they are there. The ledger, not the cursor, knows what was ingested:
the cursor holds what waits to be, and a sensor without one does nothing twice.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Final

import dagster as dg

from facecaption_assets.automation.jobs import MANIFEST_INTAKE, SHARD_PIPELINE, sensor_status
from facecaption_assets.automation.nightly_backfill import UNFINISHED
from facecaption_assets.automation.ranges import range_request
from facecaption_assets.partitions import chunks
from facecaption_assets.settings import PREFIX, Settings
from facecaption_ml.dataset.manifests import Ledger, Manifest, list_manifests
from facecaption_ml.errors import naming

SOURCE: Final = dg.AssetKey("source_manifest")
MANIFEST_TAG: Final = "facecaption/manifest"
"""The tag of a run that ingests a manifest: the manifest's id."""
_MOST_WAITING: Final = 2_000  # manifests that the cursor remembers; further ones wait until those are done
_INTERVAL_S: Final = 60


@dataclass(frozen=True)
class Cursor:
    """``waiting`` maps manifests not ingested to the state they were seen in; ``asked`` are ids that runs were asked for."""

    waiting: dict[str, str] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)

    @classmethod
    def read(cls, text: str | None) -> Cursor:
        """Anything that is no cursor of this sensor counts as none."""
        try:
            stored = json.loads(text or "{}")
            return cls(dict(stored["waiting"]), list(stored["asked"]))
        except (ValueError, KeyError, TypeError):
            return cls()

    def text(self) -> str:
        return json.dumps(asdict(self))


def new_manifests_sensor(settings: Settings) -> dg.SensorDefinition:
    """``new_manifests``, on from the start where ``automation`` is set."""

    @dg.sensor(
        name="new_manifests",
        jobs=[MANIFEST_INTAKE, SHARD_PIPELINE],
        minimum_interval_seconds=_INTERVAL_S,
        default_status=sensor_status(settings),
        description=(
            f"Manifests under FACECAPTION_MANIFEST_INBOX ({settings.automation.manifest_inbox or 'not set'}) become shards "
            f"after the last one, and their shards runs of {settings.source.shards_per_run}."
        ),
    )
    def new_manifests(context: dg.SensorEvaluationContext) -> dg.SensorResult:
        if not settings.automation.manifest_inbox:
            return dg.SensorResult(skip_reason="FACECAPTION_MANIFEST_INBOX is not set: there is nothing to watch")
        ledger = Ledger.read(settings.open_store())
        cursor = Cursor.read(context.cursor)
        with naming(f"{PREFIX}MANIFEST_INBOX"):
            manifests = list_manifests(settings.automation.manifest_inbox, settings.storage.options)
        new = [manifest for manifest in manifests if not ledger.find(manifest)][:_MOST_WAITING]
        done = [entry for entry in ledger.manifests if entry.id in cursor.asked]
        requests = [
            range_request(names[0], names[-1], f"{entry.id}:{names[0]}...{names[-1]}", "new")
            for entry in done
            for names in chunks(entry.names, settings.source.shards_per_run)
        ]
        stable = [manifest for manifest in new if cursor.waiting.get(manifest.location) == manifest.version]
        run, blocked = _next_run(context, stable, settings.automation.manifest_attempts)
        if run:
            requests.append(run)
        asked = {*cursor.asked, *([run.tags[MANIFEST_TAG]] if run else [])} - {entry.id for entry in done}
        waiting = {manifest.location: manifest.version for manifest in new}
        kept = sorted(asked & {manifest.id for manifest in new})
        line = f"{len(manifests):,} manifests, {len(new):,} not ingested" + (f"; {blocked}" if blocked else "")
        cursor = Cursor(waiting, kept)
        if requests:
            context.log.info("%s; %d runs asked for, the first: %s", line, len(requests), requests[0].run_key)
        return dg.SensorResult(requests, skip_reason=None if requests else line, cursor=cursor.text())

    return new_manifests


def _next_run(
    context: dg.SensorEvaluationContext, stable: Sequence[Manifest], attempts: int
) -> tuple[dg.RunRequest | None, str]:
    """A run for the first manifest that has not failed too often, and what blocks others, in words."""
    if not stable:
        return None, ""
    instance = context.instance
    for run in instance.get_runs(dg.RunsFilter(statuses=UNFINISHED)):
        if run.job_name == MANIFEST_INTAKE.name or SOURCE in (run.asset_selection or ()):
            return None, f"run {run.run_id} of source_manifest comes first"
    left_alone = []
    for manifest in stable:
        tried = len(instance.get_runs(dg.RunsFilter(tags={MANIFEST_TAG: manifest.id}), limit=attempts))
        if tried < attempts:
            config = {"manifest": manifest.location, "version": manifest.version}
            request = dg.RunRequest(
                run_key=f"{manifest.id}:{tried}",
                job_name=MANIFEST_INTAKE.name,
                run_config={"ops": {"source_manifest": {"config": config}}},
                tags={MANIFEST_TAG: manifest.id},
            )
            return request, ""
        left_alone.append(manifest.location)
    context.log.warning("left alone after %d failed runs: %s", attempts, ", ".join(left_alone[:5]))
    return None, f"{len(left_alone)} left alone after {attempts} failed runs, such as {left_alone[0]}"
