"""What every asset's page says before anything has run: columns, tags, which checks hold something up, where settings are."""

from __future__ import annotations

import warnings

import dagster as dg
import pytest

from facecaption_assets.definitions import build_definitions
from facecaption_assets.factories.check import WARNINGS
from facecaption_assets.partitions import BENCHMARK_ASSETS, SHARD_ASSETS, STATISTICS_ASSETS
from facecaption_assets.settings import load_settings

WITH_TABLES = {
    "source_manifest", *SHARD_ASSETS, *STATISTICS_ASSETS, "facecaption_release", *BENCHMARK_ASSETS.values(),
    "flip_ablation", "benchmark_tables",
}  # fmt: skip


@pytest.fixture(scope="module")
def definitions() -> dg.Definitions:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return build_definitions(load_settings(profile="sample"))


@pytest.fixture(scope="module")
def specs(definitions: dg.Definitions) -> dict[str, dg.AssetSpec]:
    return {spec.key.to_user_string(): spec for spec in definitions.resolve_all_asset_specs()}


def test_every_column_of_every_table_says_what_it_holds_and_its_type_in_plain_words(
    specs: dict[str, dg.AssetSpec],
) -> None:
    described = {
        name: spec.metadata["dagster/column_schema"]
        for name, spec in specs.items()
        if "column_schema" in str(spec.metadata)
    }
    assert set(described) == WITH_TABLES
    for name, schema in described.items():
        columns = schema.schema.columns if isinstance(schema, dg.TableSchemaMetadataValue) else schema.columns
        assert columns, name
        for column in columns:
            assert column.description, f"facecaption_ml/columns.toml: {name}, {column.name}"
            assert column.description.endswith("."), f"{name}, {column.name}"
            assert not any(mark in column.type for mark in ("Struct", "List(", "Array(", "String", "{")), column.type
    attributes = {column.name: column for column in described["face_attributes"].columns}
    assert (attributes["Big_Nose"].type, attributes["labels"].type) == ("float32", "list of text")
    assert "Big Nose" in (attributes["Big_Nose"].description or "")
    crops = {column.name: column.type for column in described["face_crops"].columns}
    assert (crops["image"], crops["box"], crops["landmarks"]) == (
        "picture (bytes, path)",
        "4 × float32",
        "5 × 2 × float32",
    )


def test_every_asset_can_be_found_by_its_stage_its_machine_and_its_source(specs: dict[str, dg.AssetSpec]) -> None:
    for name, spec in specs.items():
        assert spec.tags["stage"] == spec.group_name, name
        assert spec.tags["source"] == "sample", name
    compute = {name: spec.tags["compute"] for name, spec in specs.items()}
    assert {
        compute[name] for name in ("source_manifest", "raw_images", "template_captions", "facecaption_release")
    } == {"cpu"}
    assert {compute[name] for name in ("face_crops", "llm_captions", "retrieval_benchmark")} == {"gpu"}
    assert compute["flip_checkpoint"] == "gpus"


@pytest.mark.parametrize(
    ("location", "tag"),
    [
        ("", "none"),
        ("s3://bucket/list.parquet", "s3"),
        ("S3://b/x", "s3"),
        ("/data/a.csv", "files"),
        ("~/pictures", "files"),
    ],
)
def test_the_tag_of_the_source_is_no_address(location: str, tag: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        made = build_definitions(load_settings(profile="photos", source=location))
    assert {spec.tags["source"] for spec in made.resolve_all_asset_specs()} == {tag}


def test_no_check_that_only_warns_is_said_to_block(definitions: dg.Definitions) -> None:
    specs = [spec for asset in definitions.resolve_asset_graph().assets_defs for spec in asset.check_specs]
    assert {spec.name for spec in specs} >= WARNINGS
    for spec in specs:
        assert "a warning" not in (spec.description or "")
        assert not (spec.blocking and spec.name in WARNINGS), spec.key
    assert {spec.name for spec in specs if spec.asset_key == dg.AssetKey("llm_captions") and not spec.blocking} == {
        "acceptance"
    }


def test_the_launchpad_says_what_a_run_may_be_given_and_where_thresholds_are_set(
    definitions: dg.Definitions, specs: dict[str, dg.AssetSpec]
) -> None:
    fields = definitions.resolve_assets_def("source_manifest").op.config_schema.config_type.fields  # type: ignore[union-attr]
    assert set(fields) == {"manifest", "version"}
    assert all(field.description for field in fields.values())
    assert "facecaption settings" in fields["manifest"].description
    assert "FACECAPTION_ATTRIBUTE_THRESHOLD" in (specs["face_attributes"].description or "")
    assert "FACECAPTION_MIN_FACE_SCORE" in (specs["face_crops"].description or "")
