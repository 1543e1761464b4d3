"""The code location as users meet it: the asset graph, its labels, and what each asset asks of a machine."""

from __future__ import annotations

import json
import subprocess
import sys
import warnings
from pathlib import Path

import dagster as dg
import pytest

from facecaption_assets.partitions import (
    ABLATION,
    BENCHMARK_ASSETS,
    BENCHMARK_GRIDS,
    SHARD_ASSETS,
    SHARDS,
    STATISTICS_ASSETS,
    VARIANTS,
)

REPOSITORY = Path(__file__).parents[1]

GRAPH = {
    "source_manifest": set(),
    "raw_images": {"source_manifest"},
    "face_crops": {"raw_images"},
    "attribute_model": set(),
    "face_attributes": {"face_crops", "attribute_model"},
    "template_captions": {"face_attributes"},
    "llm_captions": {"template_captions"},
    "rewriting_demonstration": {"template_captions"},
    "facecaption_dataset": {"raw_images", "face_crops", "face_attributes", "template_captions", "llm_captions"},
    "dataset_comparison": {"facecaption_dataset"},
    "text_statistics": {"facecaption_dataset"},
    "image_quality": {"facecaption_dataset", "face_crops"},
    "image_text_matching": {"facecaption_dataset", "face_crops"},
    "facecaption_release": {"facecaption_dataset", "raw_images", *STATISTICS_ASSETS},
    "flip_checkpoint": {"facecaption_dataset", "face_crops"},
    **{asset: {"flip_checkpoint"} for asset in BENCHMARK_ASSETS.values()},
    "flip_ablation": {"facecaption_dataset", "face_crops"},
    "benchmark_tables": {*BENCHMARK_ASSETS.values(), "flip_ablation"},
}


@pytest.fixture(scope="module")
def definitions() -> dg.Definitions:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from facecaption_assets.definitions import defs
    return defs


def specs(definitions: dg.Definitions) -> dict[str, dg.AssetSpec]:
    return {spec.key.to_user_string(): spec for spec in definitions.resolve_all_asset_specs()}


def test_the_lineage(definitions: dg.Definitions) -> None:
    found = {name: {dep.asset_key.to_user_string() for dep in spec.deps} for name, spec in specs(definitions).items()}
    assert found == GRAPH


def test_how_assets_are_partitioned(definitions: dg.Definitions) -> None:
    partitions = {name: spec.partitions_def for name, spec in specs(definitions).items() if spec.partitions_def}
    assert partitions == {
        **dict.fromkeys(SHARD_ASSETS, SHARDS),
        "flip_checkpoint": VARIANTS,
        **{asset: BENCHMARK_GRIDS[task] for task, asset in BENCHMARK_ASSETS.items()},
        "flip_ablation": ABLATION,
    }


@pytest.mark.parametrize("asset", [*BENCHMARK_ASSETS.values(), "flip_ablation", "flip_checkpoint"])
def test_a_partition_depends_on_partitions_that_there_are(definitions: dg.Definitions, asset: str) -> None:
    graph = definitions.resolve_asset_graph()
    node = graph.get(dg.AssetKey(asset))
    assert node.partitions_def
    for parent in node.parent_keys:
        mapping = graph.get_partition_mapping(node.key, parent)
        assert mapping == dg.AllPartitionMapping(), parent  # Dagster's own guess, equal keys, makes a backfill fail


def test_the_benchmarks_and_the_ablation_have_jobs(definitions: dg.Definitions) -> None:
    for job, asset in {
        **{f"benchmark_{task}": asset for task, asset in BENCHMARK_ASSETS.items()},
        "ablation": "flip_ablation",
        "benchmark_report": "benchmark_tables",
    }.items():
        found = definitions.resolve_job_def(job)
        assert [key.to_user_string() for key in found.asset_layer.selected_asset_keys] == [asset]
        assert found.partitions_def == specs(definitions)[asset].partitions_def


def test_flip_has_a_job_that_takes_a_variant(definitions: dg.Definitions) -> None:
    job = definitions.resolve_job_def("flip_training")
    assert job.partitions_def == VARIANTS
    assert [key.to_user_string() for key in job.asset_layer.selected_asset_keys] == ["flip_checkpoint"]


def test_every_asset_says_what_it_is(definitions: dg.Definitions) -> None:
    for name, spec in specs(definitions).items():
        assert spec.description, name
        assert spec.group_name not in (None, "default"), name
        assert spec.owners, name
        assert spec.kinds, name
        assert spec.code_version, name


def test_every_assets_page_leads_to_its_file(definitions: dg.Definitions) -> None:
    for name, spec in specs(definitions).items():
        (reference,) = spec.metadata["dagster/code_references"].code_references
        assert isinstance(reference, dg.LocalFileCodeReference), name
        path = Path(reference.file_path)
        assert path.parent == REPOSITORY / "facecaption_assets" / "assets", name
        assert reference.line_number
        line = path.read_text(encoding="utf-8").splitlines()[reference.line_number - 1]
        assert line.lstrip().startswith(("def ", "@")), (name, line)


def test_pages_lead_to_the_repository_where_its_address_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    from facecaption_assets.definitions import build_definitions
    from facecaption_assets.settings import load_settings

    settings = load_settings(code_url="https://git.example.org/faces", code_revision="v1")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = specs(build_definitions(settings))
    (reference,) = found["face_crops"].metadata["dagster/code_references"].code_references
    assert reference.url.startswith("https://git.example.org/faces/")
    assert "/v1/facecaption_assets/assets/faces.py#L" in reference.url


def test_gpu_work_is_tagged_for_a100_nodes(definitions: dg.Definitions) -> None:
    statistics = ("image_quality", "image_text_matching")
    for name in ("face_crops", "face_attributes", "attribute_model", *statistics, *BENCHMARK_ASSETS.values()):
        tags = definitions.get_assets_def(name).op.tags
        config = tags["dagster-k8s/config"]
        text = config if isinstance(config, str) else str(config)
        assert "nvidia.com/gpu" in text, name
        assert "A100" in text, name


@pytest.mark.parametrize("asset", ["flip_checkpoint", "flip_ablation"])
def test_flip_is_trained_on_eight_a100_with_shared_memory_and_time_to_stop(
    definitions: dg.Definitions, asset: str
) -> None:
    from facecaption_assets.definitions import build_definitions
    from facecaption_assets.settings import load_settings
    from facecaption_assets.training.launch import STOP_SECONDS

    op = definitions.get_assets_def(asset).op
    config = op.tags["dagster-k8s/config"]
    config = json.loads(config) if isinstance(config, str) else config
    container, pod = config["container_config"], config["pod_spec_config"]
    assert op.pool == "training", "on a laptop, which has no A100"
    on_kubernetes = build_definitions(load_settings(executor="kubernetes")).get_assets_def(asset).op
    assert on_kubernetes.pool == "a100x8"
    assert container["resources"]["limits"]["nvidia.com/gpu"] == "8"
    assert container["resources"]["requests"] == container["resources"]["limits"]
    (mount,), (volume,) = container["volume_mounts"], pod["volumes"]
    assert (mount["name"], mount["mount_path"]) == (volume["name"], "/dev/shm")
    assert volume["empty_dir"] == {"medium": "Memory", "size_limit": "64Gi"}
    assert "A100" in pod["node_selector"]["nvidia.com/gpu.product"]
    assert pod["tolerations"][0]["key"] == "nvidia.com/gpu"
    assert pod["termination_grace_period_seconds"] > STOP_SECONDS


def test_every_table_has_checks(definitions: dg.Definitions) -> None:
    checked = {key.asset_key.to_user_string() for key in definitions.resolve_asset_graph().asset_check_keys}
    assert checked == set(GRAPH)


def test_a_wrong_profile_stops_the_code_location_with_one_line() -> None:
    code = "import facecaption_assets.definitions"
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code],
        capture_output=True,
        text=True,
        cwd=REPOSITORY,
        env={"FACECAPTION_PROFILE": "laptop", "PATH": ""},
    )
    assert done.returncode == 1
    assert "FACECAPTION_PROFILE is 'laptop': the profiles are" in done.stderr.splitlines()[-1]


def test_dagster_cloud_yaml_names_the_code_location() -> None:
    from dagster_cloud_cli.config.models import load_dagster_cloud_yaml

    config = load_dagster_cloud_yaml((REPOSITORY / "dagster_cloud.yaml").read_text())
    (location,) = config.locations
    assert location.code_source.module_name == "facecaption_assets.definitions"
