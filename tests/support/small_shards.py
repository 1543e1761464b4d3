"""A shard asset of one row a shard, for tests of what every shard asset does."""

from __future__ import annotations

import contextlib
import errno
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import dagster as dg
import polars as pl
from dagster._core.definitions.data_version import CachingStaleStatusResolver
from dagster._core.loader import LoadingContextForTest

from facecaption_assets.factories.check import Check
from facecaption_assets.factories.shards import ShardFunction, ShardOpener, ShardResult, ShardWork, shard_asset
from facecaption_assets.machines.compute import CPU
from facecaption_assets.machines.executors import build_executor, continue_past_failed_shards
from facecaption_assets.resources.data import StoreResource
from facecaption_assets.settings import Settings, load_settings
from facecaption_ml.schemas import SCHEMAS, empty
from facecaption_ml.storage.store import Store

KEY = dg.AssetKey("template_captions")
SHARDS = ["shard-00000", "shard-00001", "shard-00002"]
RANGE = {"dagster/asset_partition_range_start": SHARDS[0], "dagster/asset_partition_range_end": SHARDS[-1]}


def rows(shard: str) -> pl.DataFrame:
    row = {"face_id": f"{shard}_0", "template_caption": "A person.", "labels": []}
    return pl.DataFrame([row], dict(SCHEMAS["template_captions"]))


def small_shard_asset(open_work: ShardOpener, settings: Settings, **checks: str) -> dg.AssetsDefinition:
    """``checks``: names to descriptions."""
    return shard_asset(
        name="template_captions", open_work=open_work, checks=checks, settings=settings, compute=CPU,
        code_version="1", reads=("seed",),
        deps=[], group="captions", kinds={"polars"}, description="under test",
    )  # fmt: skip


class Chain:
    """Three shard assets of one row, each made of the one before, in a real instance; their content is ``words``.

    ``failing`` are (asset, shard) that fail; ``computed`` what was computed, in order.
    """

    ASSETS = ("template_captions", "llm_captions", "facecaption_dataset")

    def __init__(self, folder: Path, shards: Sequence[str] = SHARDS) -> None:
        self.store, self.shards = Store(str(folder / "store")), list(shards)
        self.instance = dg.DagsterInstance.ephemeral()
        self.instance.add_dynamic_partitions("shards", self.shards)
        for shard in self.shards:
            self.store.write_table("source_manifest", empty("source_manifest"), shard)
        self.words = dict.fromkeys(self.shards, "A person.")
        self.failing: set[tuple[str, str]] = set()
        self.computed: list[tuple[str, str]] = []
        self._built: dict[str, dg.Definitions] = {}

    def definitions(self, **settings: object) -> dg.Definitions:
        """Under these settings."""
        if repr(settings) not in self._built:
            self._built[repr(settings)] = self._define(settings)
        return self._built[repr(settings)]

    def _define(self, settings: Mapping[str, object]) -> dg.Definitions:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            given = load_settings(profile="sample", **settings)
            before = [None, *self.ASSETS[:-1]]
            assets = [self._asset(*names, given) for names in zip(self.ASSETS, before, strict=True)]

            @dg.asset(deps=[self.ASSETS[-1]], code_version="1")
            def summary() -> None: ...

            executor = build_executor(given.deploy)
            store = StoreResource(root=self.store.root)
            return dg.Definitions([*assets, summary], resources={"store": store}, executor=executor)

    def _asset(self, name: str, parent: str | None, settings: Settings) -> dg.AssetsDefinition:
        @contextlib.contextmanager
        def opened(work: ShardWork) -> Iterator[ShardFunction]:
            def compute(shard: str) -> ShardResult:
                self.computed.append((name, shard))
                if (name, shard) in self.failing:
                    raise OSError(errno.ENOSPC, "the disk is full")
                text = next(work.store.read_table(parent, shard).iter_rows(named=True))[TEXTS[parent]] if parent else ""
                row = {**dict.fromkeys(SCHEMAS[name]), "face_id": f"{shard}_0", TEXTS[name]: text or self.words[shard]}
                return ShardResult(pl.DataFrame([row], dict(SCHEMAS[name])), {}, [Check("hard", True)])

            yield compute

        return shard_asset(
            name=name, open_work=opened, checks={"hard": "must hold"}, settings=settings, compute=CPU, code_version="1",
            reads=("seed",) if name == "llm_captions" else (), deps=[parent] if parent else [], group="captions",
            kinds={"polars"}, description="under test",
        )  # fmt: skip

    def run(self, *assets: str, shards: Sequence[str] | None = None, **more: Any) -> dg.ExecuteInProcessResult:
        """Assets (all by default) for a range of shards, or one where there is only one."""
        shards = self.shards if shards is None else shards
        tags = {} if "partition_key" in more else {**dict(zip(RANGE, (shards[0], shards[-1]), strict=True))}
        with warnings.catch_warnings(), continue_past_failed_shards():
            warnings.simplefilter("ignore")
            return (
                self.definitions(**more.pop("settings", {}))
                .resolve_implicit_global_asset_job_def()
                .execute_in_process(
                    instance=self.instance,
                    asset_selection=[dg.AssetKey(name) for name in assets or self.ASSETS],
                    tags=tags,
                    raise_on_error=False,
                    **more,
                )
            )

    def records(self, asset: str, shard: str) -> list[dg.AssetMaterialization]:
        """Of the shard, the latest first."""
        wanted = dg.AssetRecordsFilter(asset_key=dg.AssetKey(asset), asset_partitions=[shard])
        found = self.instance.fetch_materializations(wanted, limit=50).records
        return [record.asset_materialization for record in found if record.asset_materialization]

    def stale(self, asset: str, shard: str | None = None, **settings: object) -> list[str]:
        """Why the UI shows the asset, or its shard, as out of date."""
        graph = self.definitions(**settings).resolve_asset_graph()
        loading = CachingStaleStatusResolver(self.instance, graph, LoadingContextForTest(self.instance))
        return [cause.reason for cause in loading.get_stale_causes(dg.AssetKey(asset), shard)]


TEXTS = {"template_captions": "template_caption", "llm_captions": "caption", "facecaption_dataset": "caption"}
