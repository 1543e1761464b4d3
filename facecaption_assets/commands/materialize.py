"""``facecaption materialize``: one asset, or one partition of it, from the shell."""

from __future__ import annotations

import difflib

import dagster as dg

from facecaption_assets.commands.instance import Pipeline
from facecaption_assets.definitions import build_definitions
from facecaption_assets.settings import Settings
from facecaption_ml.errors import FaceCaptionError


def run_partition(settings: Settings, asset: str, partition: str | None) -> None:
    """Materialize an asset, or one partition of it (``data|model`` for a grid).

    Raises ValueError for an asset or partition that there is not, naming those there are, UnknownShardError, or
    RunFailedError.
    """
    definition = {spec.key.to_user_string(): spec for spec in build_definitions(settings).resolve_all_asset_specs()}
    if asset not in definition:
        close = difflib.get_close_matches(asset, definition, n=1)
        meant = f"did you mean {close[0]}?" if close else f"choose among {', '.join(definition)}"
        raise FaceCaptionError(f"there is no asset {asset!r}: {meant}")
    grid = definition[asset].partitions_def
    if grid is None:
        if partition:
            raise FaceCaptionError(f"{asset} has no partitions: leave {partition!r} out")
        Pipeline(settings).run(asset)
    elif isinstance(grid, dg.DynamicPartitionsDefinition):
        pipeline = Pipeline(settings)
        if not partition:
            raise FaceCaptionError(f"{asset} is made shard by shard: name a shard, such as shard-00000")
        pipeline.check_shards([partition])
        pipeline.run(asset, first=partition)
    else:
        Pipeline(settings).run(asset, partition=_key(asset, grid, partition))


def _key(asset: str, grid: dg.PartitionsDefinition, partition: str | None) -> str:
    """A partition of an asset as Dagster wants it. Raises ValueError naming those there are."""
    keys = grid.get_partition_keys()
    if not partition or partition not in keys:
        said = f"has no partition {partition!r}: choose" if partition else "is made by partition: name one"
        raise FaceCaptionError(f"{asset} {said} among {', '.join(keys)}")
    return grid.get_partition_key_from_str(partition) if isinstance(grid, dg.MultiPartitionsDefinition) else partition
