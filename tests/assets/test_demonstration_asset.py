"""``rewriting_demonstration``: rewrites beside their templates, and no trace of them in the data set."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import dagster as dg
import pytest

from captioned_shards import captioned_pipeline
from facecaption_assets.commands.instance import Pipeline, RunFailedError
from facecaption_assets.partitions import DEMONSTRATION
from facecaption_ml.schemas import empty
from facecaption_ml.storage.store import Store
from tiny_chat_models import save_tiny

SHARD_NAMES = ["shard-00000", "shard-00001"]


def pipeline(home: Path, monkeypatch: pytest.MonkeyPatch, **settings: object) -> tuple[Pipeline, Store]:
    """Of two shards the second has faces."""
    faces = dict(zip(SHARD_NAMES, (0, 6), strict=True))
    return captioned_pipeline(home, monkeypatch, faces, device="cpu", threads=1, **settings)


def metadata(made: Pipeline) -> Mapping[str, dg.MetadataValue]:  # type: ignore[type-arg]
    event = made.instance.get_latest_materialization_event(dg.AssetKey(DEMONSTRATION))
    assert event
    assert event.asset_materialization
    return event.asset_materialization.metadata


@pytest.mark.slow
def test_it_shows_rewrites_of_the_first_captions_and_writes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    pytest.importorskip("transformers", reason="the llm extra is not installed")
    caplog.set_level("INFO", logger="facecaption")
    folder = save_tiny(tmp_path / "tiny")
    shown = {"llm_backend": "none", "llm_demonstration": 4, "llm_model": str(folder), "llm_attempts": 1}
    made, store = pipeline(tmp_path, monkeypatch, **shown)
    before = sorted(store.keys(""))
    made.run(DEMONSTRATION)
    assert sorted(store.keys("")) == before
    told = str(metadata(made)["demonstration"].value)
    assert "It is a demonstration" in told
    assert "the data set keeps the templates" in told
    rewritten = [line.split(" | ") for line in told.splitlines() if line.startswith("| ")][2:]
    assert len(rewritten) == metadata(made)["rewritten"].value
    assert rewritten
    templates = set(store.read_table("template_captions", SHARD_NAMES[1])["template_caption"])
    assert {template.removeprefix("| ") for template, _ in rewritten} <= templates
    assert "  rewrite   " in caplog.text


@pytest.mark.slow
@pytest.mark.parametrize("settings", [{"llm_demonstration": 0}, {"llm_backend": "local", "llm_demonstration": 4}])
def test_where_none_is_wanted_it_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, settings: dict[str, object]
) -> None:
    made, _ = pipeline(tmp_path, monkeypatch, **settings)
    made.run(DEMONSTRATION)
    assert str(metadata(made)["demonstration"].value).startswith("not wanted: FACECAPTION_LLM_DEMONSTRATION is 0, or ")


@pytest.mark.slow
def test_without_its_model_it_fails_with_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shown = {"llm_backend": "none", "llm_demonstration": 4, "llm_model": "no/where.gguf"}
    made, _ = pipeline(tmp_path, monkeypatch, **shown)
    with pytest.raises(RunFailedError, match="FACECAPTION_LLM_MODEL: "):
        made.run(DEMONSTRATION)


@pytest.mark.slow
def test_without_captions_it_says_what_to_materialize(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = save_tiny(tmp_path / "tiny")
    made, store = pipeline(tmp_path, monkeypatch, llm_backend="none", llm_demonstration=4, llm_model=str(folder))
    store.write_table("template_captions", empty("template_captions"), SHARD_NAMES[1])
    with pytest.raises(RunFailedError, match="materialize template_captions first"):
        made.run(DEMONSTRATION)
