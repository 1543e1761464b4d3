"""``attribute_model`` and ``face_attributes`` as assets: labels under one threshold, and under those for a precision."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import polars as pl
import pytest

from drawn_pairs import face, table
from facecaption_assets.checks import tables as checks
from facecaption_assets.commands.instance import Pipeline, RunFailedError
from facecaption_assets.partitions import SHARDS
from facecaption_assets.settings import SettingsError, load_settings
from facecaption_ml.attributes import AttributePredictor, LabelRule, checkpoint_folder
from facecaption_ml.attributes.checkpoints import LATER, NEEDED
from facecaption_ml.dataset.label_rules import in_words, label_rules
from facecaption_ml.storage.store import Store
from facecaption_ml.taxonomy import ATTRIBUTES, FEMALE, NAMES

SHARD = "shard-00000"
PRECISE = "per-attribute thresholds for a precision of 0.9"


def pipeline(home: Path, monkeypatch: pytest.MonkeyPatch, **settings: object) -> tuple[Pipeline, Store]:
    monkeypatch.setenv("DAGSTER_HOME", str(home / "dagster"))
    loaded = load_settings(home=home, profile="photos", source=str(home), min_labels=1, **settings)
    made = Pipeline(loaded)
    assert SHARDS.name
    made.instance.add_dynamic_partitions(SHARDS.name, [SHARD])
    store = Store(loaded.store_root)
    store.write_table("face_crops", table("face_crops", [face(k, 112) for k in range(12)]), SHARD)
    return made, store


def metadata(made: Pipeline, asset: str) -> dict[str, object]:
    event = made.instance.get_latest_materialization_event(next(key for key in _keys(asset)))
    assert event
    assert event.asset_materialization
    return {name: value.value for name, value in event.asset_materialization.metadata.items()}


def _keys(asset: str) -> list[object]:
    import dagster as dg

    return [dg.AssetKey(asset)]


@pytest.mark.models
@pytest.mark.parametrize(("given", "words"), [({}, PRECISE), ({"label_precision": 0}, "p > 0.85")])
def test_labels_follow_the_rule_of_the_settings_and_the_table_says_which(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, given: dict[str, object], words: str
) -> None:
    made, store = pipeline(tmp_path, monkeypatch, **given)
    made.run("attribute_model")
    made.run("face_attributes", first=SHARD, last=SHARD)
    found = store.read_table("face_attributes", SHARD)
    predictor = AttributePredictor.load("bundled")
    precision = 0.9 if words == PRECISE else None
    assert len(found)
    assert found["labels"].to_list() == predictor.labels(found.select(ATTRIBUTES).to_numpy(), precision=precision)
    rule = LabelRule.from_json(store.table_notes("face_attributes", SHARD)["label_rule"])
    assert rule == predictor.rule(precision or 0)
    assert metadata(made, "face_attributes")["label rule"] == words
    assert in_words(label_rules(store, [SHARD])) == words
    shown = metadata(made, "attribute_model")
    assert {"reliability of the probabilities", "precision by attribute"} <= set(shown)
    assert all((tmp_path / "store" / "attribute_model" / name).is_file() for name in (*NEEDED, *LATER))


@pytest.mark.models
def test_an_earlier_checkpoint_has_no_thresholds_and_the_line_names_the_setting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = tmp_path / "old"
    old.mkdir()
    for name in NEEDED:
        shutil.copy(checkpoint_folder("bundled") / name, old)
    made, store = pipeline(tmp_path, monkeypatch, attribute_weights=str(old))
    store.write_bytes("attribute_model/thresholds.json", b"of the checkpoint before")
    made.run("attribute_model")
    assert not store.exists("attribute_model/thresholds.json")
    with pytest.raises(RunFailedError, match=re.escape("FACECAPTION_LABEL_PRECISION")) as caught:
        made.run("face_attributes", first=SHARD, last=SHARD)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("given", "value"), [("none", 0.0), ("", 0.0), ("0", 0.0), ("0.5", 0.5), ("0.99", 0.99)])
def test_no_precision_can_be_asked_for_in_words(monkeypatch: pytest.MonkeyPatch, given: str, value: float) -> None:
    monkeypatch.setenv("FACECAPTION_LABEL_PRECISION", given)
    assert load_settings(profile="photos").attributes.label_precision == value


@pytest.mark.parametrize("given", ["0.4", "1", "90", "high"])
def test_a_precision_that_cannot_be_had_names_the_setting(monkeypatch: pytest.MonkeyPatch, given: str) -> None:
    monkeypatch.setenv("FACECAPTION_LABEL_PRECISION", given)
    with pytest.raises(SettingsError, match=r"^FACECAPTION_LABEL_PRECISION is"):
        load_settings(profile="photos")


def test_the_profiles_say_which_rule_is_theirs() -> None:
    found = {name: load_settings(profile=name).attributes for name in ("production", "sample", "photos")}
    assert {name: (group.threshold, group.label_precision) for name, group in found.items()} == {
        "production": (0.85, 0.0),
        "sample": (0.85, 0.0),
        "photos": (0.85, 0.9),
    }


def test_the_check_recounts_each_row_under_its_rule() -> None:
    limits = dict.fromkeys(NAMES, 0.9) | {"Bald": 0.7, FEMALE: 0.8}
    rule = LabelRule("made", limits, 0.9)
    row = dict.fromkeys(ATTRIBUTES, 0.1) | {"Bald": 0.75, "Young": 0.95, "Male": 0.15}
    rows = [
        row | {"face_id": "right", "labels": ["Bald", "Young"], "gender": "female"},
        row | {"face_id": "low", "labels": ["Bald", "Smiling"], "gender": "female"},
        row | {"face_id": "few", "labels": ["Bald"], "gender": None},
    ]
    frame = pl.DataFrame(rows)
    assert checks.label_thresholds(frame.head(1), rule, 3).passed
    assert not checks.label_thresholds(frame.head(1), LabelRule.plain(), 3).passed
    assert checks.label_thresholds(frame, rule, 3).metadata["examples"] == ["low", "few"]


@pytest.mark.slow
def test_a_damaged_checkpoint_is_refused_and_the_one_in_the_store_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made, store = pipeline(tmp_path, monkeypatch, attribute_weights="bundled")
    made.run("attribute_model")
    good = store.read_bytes("attribute_model/attributes.safetensors")
    damaged = tmp_path / "damaged"
    shutil.copytree(checkpoint_folder("bundled"), damaged)
    (damaged / "attributes.safetensors").write_bytes(good[:100_000])
    again, store = pipeline(tmp_path, monkeypatch, attribute_weights=str(damaged))
    with pytest.raises(RunFailedError, match=r"FACECAPTION_ATTRIBUTE_WEIGHTS.*damaged.*does not fit"):
        again.run("attribute_model")
    assert store.read_bytes("attribute_model/attributes.safetensors") == good
