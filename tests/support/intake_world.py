"""A small source, its store and a folder of further manifests, for tests of how lists become shards."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path

import dagster as dg
import polars as pl

from facecaption_assets.definitions import build_definitions
from facecaption_assets.settings import Settings, load_settings
from facecaption_ml.storage.store import Store


class World:
    """A source of three rows and a store, with shards of two rows."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.inbox = folder / "inbox"
        self.inbox.mkdir(exist_ok=True)
        self.settings = self.with_source("a", "b", "c")
        self.store = Store(self.settings.store_root)
        self.instance = dg.DagsterInstance.ephemeral()

    def with_source(self, *names: str) -> Settings:
        table(self.folder / "source.csv", names)
        return load_settings(
            profile="photos",
            home=self.folder / "home",
            source=str(self.folder / "source.csv"),
            manifest_inbox=str(self.inbox),
            shard_size=2,
        )

    def manifest(self, name: str, names: Sequence[str]) -> str:
        return str(table(self.inbox / name, names))

    def run(self, manifest: str = "", version: str = "") -> dg.ExecuteInProcessResult:
        given = {"manifest": manifest, "version": version}
        config = {"ops": {"source_manifest": {"config": given}}} if manifest else {}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            job = build_definitions(self.settings).resolve_job_def("manifest_intake")
            return job.execute_in_process(instance=self.instance, run_config=config, raise_on_error=False)

    def urls(self) -> dict[str, list[str]]:
        """The last part of the URLs of each shard; a star stands behind those that are marked as repeated."""
        found = {}
        for shard in self.store.shards("source_manifest"):
            rows = self.store.read_table("source_manifest", shard).select("url", "duplicate_url").iter_rows()
            found[shard] = [url.rpartition("/")[2] + ("*" if repeated else "") for url, repeated in rows]
        return found

    def registered(self) -> list[str]:
        return list(self.instance.get_dynamic_partitions("shards"))


def table(path: Path, names: Sequence[str]) -> Path:
    pl.DataFrame({"URL": [f"http://pictures.test/{name}" for name in names]}).write_csv(path)
    return path
