"""What the finished pipeline left for the UI's pages: sentences in checks, figures first, and little in the event log."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest
from dagster._serdes import serialize_value

from facecaption_assets.factories.check import WARNINGS
from facecaption_assets.factories.previews import MOST_PICTURE_BYTES, MOST_ROWS
from facecaption_assets.partitions import SHARD_ASSETS, STATISTICS_ASSETS

pytestmark = pytest.mark.slow  # a run of every asset comes first

MOST_BYTES = 40_000
"""Of a materialization's metadata, without its pictures."""
SHEETS = {
    "raw_images": "pictures",
    "face_crops": "crops",
    "face_attributes": "labelled crops",
    "facecaption_dataset": "faces and captions",
    "facecaption_release": "faces and captions",
}
MADE = ("source_manifest", "attribute_model", *SHARD_ASSETS, *STATISTICS_ASSETS, "facecaption_release")


@pytest.fixture(scope="module")
def instance(finished: Path) -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.from_config(str(finished / "dagster")) as instance:
        yield instance


@pytest.fixture(scope="module")
def materialized(instance: dg.DagsterInstance) -> dict[str, list[dg.AssetMaterialization]]:
    """Every materialization of every asset of the pipeline."""
    found = {}
    for name in MADE:
        records = instance.fetch_materializations(dg.AssetKey(name), limit=50).records
        found[name] = [record.asset_materialization for record in records if record.asset_materialization]
        assert found[name], name
    return found


def shown(materialization: dg.AssetMaterialization) -> dict[str, dg.MetadataValue]:
    """What the overview's table of metadata has, in its order."""
    return {name: value for name, value in materialization.metadata.items() if not name.startswith("dagster/")}


def is_picture(value: object) -> bool:
    return isinstance(value, dg.MarkdownMetadataValue) and (value.md_str or "").startswith("![")


def test_every_check_result_is_a_sentence_with_what_was_found(instance: dg.DagsterInstance) -> None:
    entries = [
        entry
        for run in instance.get_runs()
        for entry in instance.all_logs(run.run_id, of_type=dg.DagsterEventType.ASSET_CHECK_EVALUATION)
    ]
    evaluations = [entry.get_dagster_event().asset_check_evaluation_data for entry in entries]
    assert {evaluation.asset_key.to_user_string() for evaluation in evaluations} >= set(MADE)
    for evaluation in evaluations:
        what = f"{evaluation.asset_key.to_user_string()} {evaluation.check_name}: {evaluation.description}"
        assert len((evaluation.description or "").split()) >= 4, what
        assert (evaluation.severity == dg.AssetCheckSeverity.WARN) == (evaluation.check_name in WARNINGS), what


def test_a_figure_stands_first_wherever_an_asset_has_one(
    materialized: dict[str, list[dg.AssetMaterialization]],
) -> None:
    for name, events in materialized.items():
        for event in events:
            values = list(shown(event).values())
            if any(map(is_picture, values)):
                assert any(map(is_picture, values[:6])), name
    for name in (*SHARD_ASSETS, "facecaption_release", "text_statistics", "dataset_comparison"):
        first = next(iter(shown(materialized[name][0]).values()))
        # Where no language model is asked, there is nothing to draw of its answers.
        assert is_picture(first) or (name == "llm_captions" and first.value == "no language model was asked"), name


def test_no_table_is_longer_than_a_dozen_rows(materialized: dict[str, list[dg.AssetMaterialization]]) -> None:
    tables = [
        (name, label, value)
        for name, events in materialized.items()
        for event in events
        for label, value in event.metadata.items()
        if isinstance(value, dg.TableMetadataValue)
    ]
    assert tables
    for name, label, table in tables:
        assert len(table.records) <= MOST_ROWS, (name, label)
        texts = [str(cell) for record in table.records for cell in record.data.values()]
        assert max(map(len, texts), default=0) <= 120, (name, label)


def test_a_shard_leaves_little_in_the_event_log(materialized: dict[str, list[dg.AssetMaterialization]]) -> None:
    for name, events in materialized.items():
        for event in events:
            sizes = {label: len(serialize_value(value)) for label, value in event.metadata.items()}
            pictures = {label: size for label, size in sizes.items() if is_picture(event.metadata[label])}
            if name in SHARD_ASSETS:
                assert len(serialize_value(event)) < MOST_BYTES, (name, sizes)
            else:
                assert sum(sizes.values()) - sum(pictures.values()) < MOST_BYTES, (name, sizes)
                assert max(pictures.values(), default=0) < 4 / 3 * MOST_PICTURE_BYTES + 1000, (name, pictures)


@pytest.mark.parametrize(("asset", "sheet"), SHEETS.items())
def test_there_is_a_sheet_of_pictures_to_look_at(
    materialized: dict[str, list[dg.AssetMaterialization]], asset: str, sheet: str
) -> None:
    value = materialized[asset][0].metadata[sheet].value
    assert isinstance(value, str)
    assert "data:image/webp;base64," in value


def test_the_pages_lead_to_the_trace_of_a_face(materialized: dict[str, list[dg.AssetMaterialization]]) -> None:
    way = materialized["facecaption_dataset"][0].metadata["where a row comes from"].value
    assert str(way).startswith("facecaption trace ")
    assert json.dumps(way)
