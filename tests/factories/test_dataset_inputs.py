"""What is made of all shards knows of which, where they are a mixture, and which have changed since."""

from __future__ import annotations

from pathlib import Path

import dagster as dg

from facecaption_assets.factories.dataset_inputs import DatasetInputs, newer_shards
from facecaption_assets.partitions import SHARD_ASSETS
from facecaption_ml.schemas import DATASET, SCHEMAS, empty
from facecaption_ml.storage.store import Store

S = ["shard-00000", "shard-00001", "shard-00002"]


def make(instance: dg.DagsterInstance, asset: str, shard: str, code: str, content: str) -> None:
    tags = {"dagster/code_version": code, "dagster/data_version": content}
    instance.report_runless_asset_event(dg.AssetMaterialization(asset, partition=shard, tags=tags))


def test_shards_of_two_settings_are_counted_and_warned_of() -> None:
    with dg.DagsterInstance.ephemeral() as instance:
        for asset in SHARD_ASSETS:
            for shard in S:
                make(instance, asset, shard, "1.aaaaaa", "a")
        assert DatasetInputs.of(instance, S).check().passed
        make(instance, "face_attributes", S[1], "1.bbbbbb", "b")
        mixed = DatasetInputs.of(instance, S)
        check = mixed.check()
        assert (check.passed, check.blocks) == (False, False)
        assert check.found == "shards of other settings or code than the last ones made: 2 of face_attributes"
        assert mixed.metadata == {"shards made under other settings": 2}
        assert DatasetInputs.of(instance, S[1:2]).check().passed  # a shard that takes no part does not count


def test_shards_that_have_changed_since_are_named(tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    with dg.DagsterInstance.ephemeral() as instance:
        for shard in S[:2]:
            store.write_table(DATASET, empty(DATASET), shard)
            make(instance, DATASET, shard, "1", "a")
        assert newer_shards(instance, store, "facecaption_release") is None
        DatasetInputs.of(instance, S).write(store, "facecaption_release")
        assert newer_shards(instance, store, "facecaption_release") == []
        make(instance, DATASET, S[0], "2", "a")  # made again, with the same content
        assert newer_shards(instance, store, "facecaption_release") == []
        make(instance, DATASET, S[1], "2", "b")
        store.write_table(DATASET, empty(DATASET), S[2])
        make(instance, DATASET, S[2], "2", "c")
        assert newer_shards(instance, store, "facecaption_release") == [S[1], S[2]]
        store.delete(store.table_key(DATASET, S[0]))  # a shard that left is a change too
        assert newer_shards(instance, store, "facecaption_release") == S


def test_the_columns_left_out_of_a_version_are_columns_of_the_table() -> None:
    from facecaption_ml.storage.content import NOT_CONTENT

    assert all(columns <= set(SCHEMAS[table]) for table, columns in NOT_CONTENT.items())
