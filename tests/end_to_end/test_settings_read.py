"""What assets look at among the settings while they run, on a small sample world, is what they say that they read."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from facecaption_assets.commands.instance import Pipeline
from facecaption_assets.factories.code_versions import is_operational
from facecaption_assets.partitions import SHARD_ASSETS, STATISTICS_ASSETS
from facecaption_assets.settings import SETTINGS, Settings, load_settings
from settings_read import READ, VLLM

pytestmark = pytest.mark.slow
NOT_OF_THE_RESULT = {"source"}  # whether it is the sample world, which decides where pictures are fetched from


def _groups(model: BaseModel, path: tuple[str, ...] = ()) -> Iterator[tuple[type[BaseModel], tuple[str, ...]]]:
    yield type(model), path
    for name in type(model).model_fields:
        value = getattr(model, name)
        if isinstance(value, BaseModel):
            yield from _groups(value, (*path, name))


@pytest.fixture
def looked_at(monkeypatch: pytest.MonkeyPatch) -> Callable[[], set[str]]:
    """The settings that were looked at since the last call; a group is known by its class, however it was passed on."""
    paths, names = dict(_groups(Settings())), {setting.path: name for name, setting in SETTINGS.items()}
    seen: set[str] = set()

    def noting(self: BaseModel, name: str) -> Any:
        found = names.get((*paths.get(type(self), ("?",)), name))
        if found:
            seen.add(found)
        return object.__getattribute__(self, name)

    for group in paths:
        monkeypatch.setattr(group, "__getattribute__", noting, raising=False)

    def since() -> set[str]:
        found = set(seen)
        seen.clear()
        return found

    return since


def test_what_is_looked_at_is_declared(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, looked_at: Callable[[], set[str]]
) -> None:
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path))
    monkeypatch.setenv("DAGSTER_DISABLE_TELEMETRY", "1")
    settings = load_settings(
        profile="sample", home=str(tmp_path), sample_scenes=8, shard_size=8, attribute_weights="bundled", min_labels=2,
        llm_backend="none", llm_demonstration=0, read_timeout_s=2.0, total_timeout_s=4.0, threads=1,
    )  # fmt: skip
    pipeline = Pipeline(settings)
    looked_at()
    undeclared, unused = {}, {}
    for asset in ("source_manifest", "attribute_model", *SHARD_ASSETS, *STATISTICS_ASSETS, "facecaption_release"):
        pipeline.run(asset, first="shard-00000" if asset in SHARD_ASSETS else None)
        result = {name for name in looked_at() if not is_operational(SETTINGS[name])} - NOT_OF_THE_RESULT
        undeclared[asset] = result - READ[asset] - (VLLM if asset == "llm_captions" else set())
        unused[asset] = not result
    assert not {asset: names for asset, names in undeclared.items() if names}
    assert sum(unused.values()) <= 2, unused
