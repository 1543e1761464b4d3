"""A pipeline with template captions of drawn faces, for the assets that are made of them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from drawn_pairs import face, table
from facecaption_assets.commands.instance import Pipeline
from facecaption_assets.partitions import SHARDS
from facecaption_assets.settings import load_settings
from facecaption_ml.schemas import empty
from facecaption_ml.storage.store import Store

CAPTIONS = "template_captions"


def captioned_pipeline(
    home: Path, monkeypatch: pytest.MonkeyPatch, faces: Mapping[str, int], **settings: object
) -> tuple[Pipeline, Store]:
    """``faces``: shard → how many it has; and the pipeline's store."""
    monkeypatch.setenv("DAGSTER_HOME", str(home / "dagster"))
    loaded = load_settings(home=home, **settings)
    made = Pipeline(loaded)
    assert SHARDS.name
    made.instance.add_dynamic_partitions(SHARDS.name, list(faces))
    store = Store(loaded.store_root)
    for shard, count in faces.items():
        store.write_table(
            CAPTIONS, table(CAPTIONS, [face(k) for k in range(count)]) if count else empty(CAPTIONS), shard
        )
    return made, store
