"""The benchmarks and their tables as assets: grids, what a partition is recorded with, backfills, and what gets worse."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import dagster as dg
import numpy as np
import pytest

from asset_runs import Outcome, run_asset
from dataset_folders import write_celeba
from facecaption_assets.checks import benchmarks as checks
from facecaption_assets.commands.instance import Pipeline, RunFailedError
from facecaption_assets.definitions import build_definitions
from facecaption_assets.factories.previews import MOST_PICTURE_BYTES
from facecaption_assets.partitions import BENCHMARK_ASSETS, BENCHMARK_GRIDS
from facecaption_assets.resources.benchmarks import BenchmarkError, describer, measure, open_data
from facecaption_assets.settings import Settings, load_settings
from facecaption_ml.benchmarks.datasets.data import BenchmarkDataError, EpisodeData
from facecaption_ml.benchmarks.datasets.registry import FOLDERS
from facecaption_ml.benchmarks.encoders.registry import HUB_MODELS
from facecaption_ml.benchmarks.result import BenchmarkResult, Measurement
from facecaption_ml.decoding import decode_image, encode_jpeg
from facecaption_ml.sample.portraits import draw_portrait
from facecaption_ml.storage.store import Store
from tiny_checkpoints import save_clip
from untrained_flip import save_flip

REPOSITORY = Path(__file__).parents[2]
QUICK: dict[str, Any] = {
    "benchmark_sample_pictures": 40,
    "benchmark_sample_drawings": 12,
    "benchmark_runs": 2,
    "benchmark_retrieval_epochs": 2,
    "benchmark_attribute_epochs": 2,
    "benchmark_sketch_epochs": 2,
    "benchmark_retrieval_batch": 16,
    "threads": 1,
}


class Place:
    """A folder with a home and a store, in which an untrained FLIP stands for a checkpoint."""

    def __init__(self, folder: Path) -> None:
        self.home, self.store = folder / "home", Store(str(folder / "store"))
        save_flip(folder / "store" / "flip_checkpoint" / "flip")

    def settings(self, **given: Any) -> Settings:
        return load_settings(profile="sample", home=self.home, store=self.store.root, **{**QUICK, **given})

    def result(self, key: str) -> BenchmarkResult:
        return BenchmarkResult.from_json(self.store.read_bytes(f"benchmarks/{key}.json"))

    def materialize(self, asset: str, key: str | None = None, **given: Any) -> Outcome:
        return run_asset(build_definitions(self.settings(**given)), asset, key)

    def features(self) -> dict[str, int]:
        """When each object of the feature cache was written."""
        root = Path(self.store.root)
        found = (root / "benchmark_features").rglob("*.npz")
        return {str(path.relative_to(root)): path.stat().st_mtime_ns for path in found}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Place:
    return Place(tmp_path_factory.mktemp("benchmarks"))


@pytest.fixture(scope="module")
def measured(place: Place) -> dict[str, Outcome]:
    """Every task of the untrained FLIP on the drawn data sets."""
    found = {task: place.materialize(asset, "sample|flip") for task, asset in BENCHMARK_ASSETS.items()}
    assert {task: outcome.failure for task, outcome in found.items()} == dict.fromkeys(BENCHMARK_ASSETS, "")
    return found


def rows(table: Any) -> list[dict[str, Any]]:
    return [dict(record.data) for record in table.records]


def test_the_grids_are_models_times_data_sets_without_align_where_layers_are_probed() -> None:
    everyone = ["flip", "flip_template", "flip_alt_text", "clip", "blip", "align"]
    models = {"retrieval": everyone, "attributes": everyone[:-1], "sketches": everyone}
    data = {
        "retrieval": ["celeba_caption", "mm_celeba_hq", "sample"],
        "attributes": ["celeba", "lfwa", "sample"],
        "sketches": ["fs2k_sde1", "fs2k_sde2", "user_sde", "photos", "sample"],
    }
    for task in BENCHMARK_ASSETS:
        expected = {f"{of}|{model}" for of in data[task] for model in models[task]}
        assert set(BENCHMARK_GRIDS[task].get_partition_keys()) == expected


def test_every_folder_and_baseline_has_a_setting(place: Place) -> None:
    settings = place.settings()
    location = settings.benchmarks.location
    assert {location(name) for name in FOLDERS} == {""}
    assert [location(name) for name in HUB_MODELS] == [spec.checkpoint for spec in HUB_MODELS.values()]


@pytest.mark.slow
def test_what_a_retrieval_partition_is_recorded_with(place: Place, measured: dict[str, Outcome]) -> None:
    found, result = measured["retrieval"].metadata, place.result("retrieval/sample/flip")
    for way in ("text → image", "image → text"):
        for k in (1, 5, 10):
            (value,) = [m.value for m in result.measurements if (m.setting, m.metric) == (way, f"R@{k}")]
            assert value is not None
            assert found[f"{way} R@{k}"] == pytest.approx(100 * value, abs=0.005)
    table = rows(found["numbers"])
    assert {row["of"] for row in table if row["setting"]} == {
        "flip",
        "chance",
    }  # the last row says how many more there are
    (first,) = [row for row in table if (row["of"], row["setting"], row["metric"]) == ("chance", "text → image", "R@5")]
    assert first["percent"] == "33.33"  # 5 of 15 pictures
    assert (found["training pictures"], found["validation pictures"], found["test pictures"]) == (20, 5, 15)
    assert {row["what"]: row["how"] for row in rows(found["protocol"])}["runs"] == "2"
    assert {row["of"] for row in rows(found["versions"])} == {"data", "model", "code"}
    assert "drawn people" in found["notes"]
    assert found["minutes"] >= 0
    assert found["dagster/uri"] == place.store.uri("benchmarks/retrieval/sample/flip.json")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("task", "number", "pictures"),
    [("attributes", "1 % accuracy", ["layers"]), ("sketches", "sketch + text m@A", ["curves", "drawing"])],
)
def test_pictures_lie_beside_a_result_and_in_its_record(
    place: Place, measured: dict[str, Outcome], task: str, number: str, pictures: list[str]
) -> None:
    found = measured[task].metadata
    assert 0 <= found[number] <= 100
    for name in pictures:
        assert re.search(r"\(data:image/(png|jpeg);base64,", found[name])
        assert len(found[name]) < 4 / 3 * MOST_PICTURE_BYTES + 200  # the event log keeps it
        assert place.store.read_bytes(f"benchmarks/{task}/sample/flip.{name}.png").startswith(b"\x89PNG")


def test_the_checks_of_a_partition(measured: dict[str, Outcome]) -> None:
    for outcome in measured.values():
        assert set(outcome.checks) == set(checks.RESULT)
        assert outcome.checks["stored"].passed
        for name in ("above_baselines", "defined"):
            assert outcome.checks[name].severity == dg.AssetCheckSeverity.WARN
    defined = measured["attributes"].checks["defined"]
    assert defined.passed == (defined.metadata["count"].value == 0)


@pytest.mark.slow
def test_materializing_again_encodes_nothing_and_gives_the_same_version(
    place: Place, measured: dict[str, Outcome]
) -> None:
    before, kept = place.features(), place.home / "cache" / "benchmark_pictures"
    shutil.rmtree(kept)  # whatever looks at a picture would have it drawn again
    for task in ("retrieval", "attributes"):
        again = place.materialize(BENCHMARK_ASSETS[task], "sample|flip")
        assert again.data_version == measured[task].data_version != ""
    assert place.features() == before
    assert not kept.exists()
    other = place.materialize("retrieval_benchmark", "sample|flip", benchmark_retrieval_epochs=3)
    assert other.data_version != measured["retrieval"].data_version


def test_a_baseline_by_its_folder_is_a_partition_like_any_other(place: Place, tmp_path: Path) -> None:
    folder = save_clip(tmp_path / "clip")
    found = place.materialize("attribute_benchmark", "sample|clip", benchmark_clip=str(folder))
    assert found.failure == ""
    assert place.result("attributes/sample/clip").model == "clip"
    assert "100 % accuracy" in found.metadata


@pytest.mark.slow
def test_celeba_through_the_settings(place: Place, tmp_path: Path) -> None:
    numbers = range(1, 13)
    splits = {n: 0 if n < 7 else 1 if n < 9 else 2 for n in numbers}
    write_celeba(Store(str(tmp_path / "celeba")), numbers, numbers, splits)
    given = {"benchmark_celeba": str(tmp_path / "celeba")}
    labels = place.materialize("attribute_benchmark", "celeba|flip", **given)
    assert labels.failure == ""
    assert (labels.metadata["training pictures"], labels.metadata["test pictures"]) == (6, 4)
    pairs = place.materialize("retrieval_benchmark", "celeba_caption|flip", **given)
    assert pairs.failure == ""
    assert "Captions were generated from the true labels" in pairs.metadata["notes"]
    assert not pairs.checks["defined"].passed  # four pictures have no R@5
    assert "a gallery of 4" in pairs.checks["defined"].metadata["lines"].value[0]

    (tmp_path / "captions").mkdir()
    with pytest.raises(BenchmarkDataError, match=r"^FACECAPTION_BENCHMARK_CELEBA_CAPTIONS: "):
        open_data(
            place.settings(**given, benchmark_celeba_captions=str(tmp_path / "captions")), "retrieval", "celeba_caption"
        )


@pytest.mark.slow
def test_a_backfill_measures_what_can_be_measured_and_names_what_is_missing(place: Place, tmp_path: Path) -> None:
    given = {**QUICK, "profile": "sample", "home": place.home, "store": place.store.root}
    environment = {f"FACECAPTION_{name.upper()}": str(value) for name, value in given.items()}
    keys = ["sample|clip", "celeba|flip", "sample|flip", "sample|flip_template"]
    script, out = REPOSITORY / "tests" / "support" / "backfill_process.py", tmp_path / "ended.json"
    done = subprocess.run(
        [sys.executable, "-W", "ignore", script, out, "attribute_benchmark", *keys],
        capture_output=True,
        text=True,
        cwd=REPOSITORY,
        env={
            **os.environ,
            **environment,
            "HF_HUB_OFFLINE": "1",
            "HF_HOME": str(place.home),
            "PYTHONPATH": str(REPOSITORY),
        },
        timeout=200,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads(out.read_text())
    assert found["errors"] == []
    ended = found["partitions"]
    assert set(ended) == set(keys)
    assert ended["sample|flip"] == "SUCCESS"
    for key, words in {
        "sample|clip": ["FACECAPTION_BENCHMARK_CLIP", "openai/clip-vit-base-patch16"],
        "celeba|flip": ["FACECAPTION_BENCHMARK_CELEBA is not set", "folder or s3://bucket/prefix"],
        "sample|flip_template": ["no checkpoint of variant 'flip_template'", "materialize 'flip_checkpoint' first"],
    }.items():
        assert ended[key].startswith("FAILURE: ")
        assert "\n" not in ended[key]
        for word in words:
            assert word in ended[key]
    assert found["status"] == "COMPLETED_FAILED"


def test_tables_before_anything_was_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path / "dagster"))
    with pytest.raises(RunFailedError, match=r"^no benchmark has been measured yet: materialize retrieval_benchmark, "):
        Pipeline(Place(tmp_path).settings()).run("benchmark_tables")


def test_tables_of_what_was_measured(place: Place, measured: dict[str, Outcome]) -> None:
    found = place.materialize("benchmark_tables")
    assert found.failure == ""
    page, text = (place.store.read_bytes(f"benchmarks/tables/{name}").decode() for name in ("index.html", "tables.md"))
    assert page.count("data:image/png;base64,") >= 3
    assert "sketches, flip on sample: drawing" in page
    assert '<span class="badge published">' in page
    assert '<tr class="measured">' in page
    for document in (page, text):
        assert "published" in document.lower()
        assert "FLIP" in document
    assert found.metadata["results"] >= 3
    shown = {name: value for name, value in found.metadata.items() if str(value).startswith("### ")}
    assert "\n".join(shown.values()) == text
    assert all(value.startswith(f"### {name}") and value.count("### ") == 1 for name, value in shown.items())
    assert "Text–image retrieval (Table 2): Drawn sample" in shown
    for name, value in shown.items():  # what the UI's Markdown leaves out or cuts off
        assert not re.search(r"<\w+>", value), name
    headlines = rows(found.metadata["first number of each result"])
    assert {(row["task"], row["data set"], row["model"]) for row in headlines} >= {
        (task, "sample", "flip") for task in BENCHMARK_ASSETS
    }


@pytest.mark.slow
def test_a_number_that_fell_is_a_warning_that_names_it(tmp_path: Path) -> None:
    place = Place(tmp_path)
    key = "benchmarks/retrieval/sample/flip.json"
    good = BenchmarkResult("retrieval", "flip", "sample", [Measurement("text → image", "R@5", 0.5, 0.01, 3)], {})
    good.write(place.store)
    first = place.materialize("benchmark_tables").checks["no_regression"]
    assert (first.passed, first.metadata["compared with"].value) == (True, "nothing: these are the first tables")
    assert place.materialize("benchmark_tables").checks["no_regression"].passed

    worse = replace(good, measurements=[replace(good.measurements[0], value=0.3)])
    place.store.write_bytes(key, worse.as_json())
    fallen = place.materialize("benchmark_tables")
    check = fallen.checks["no_regression"]
    assert (fallen.failure, check.passed, check.severity) == ("", False, dg.AssetCheckSeverity.WARN)
    (line,) = check.metadata["lines"].value
    assert line.startswith("retrieval, sample, flip, text → image, R@5: 50.00 before, 30.00 now")

    place.store.write_bytes("benchmarks/tables/results.json", b"{}")
    damaged = place.materialize("benchmark_tables").checks["no_regression"]
    assert damaged.passed
    assert "results.json: this is no snapshot" in str(damaged.metadata["compared with"].value)


def test_pictures_of_a_model_whose_name_begins_with_anothers_stay_its_own(tmp_path: Path) -> None:
    place = Place(tmp_path)
    for model, level in (("flip", 0.5), ("flip.v2", 0.4)):
        BenchmarkResult("retrieval", model, "sample", [Measurement("text → image", "R@5", level)], {}).write(
            place.store
        )
    place.store.write_bytes("benchmarks/retrieval/sample/flip.v2.curves.png", b"\x89PNG\r\n\x1a\n")
    assert place.materialize("benchmark_tables").failure == ""
    page = place.store.read_bytes("benchmarks/tables/index.html").decode()
    assert "retrieval, flip.v2 on sample: curves" in page
    assert "retrieval, flip on sample: curves" not in page


@pytest.mark.parametrize(
    ("value", "floor", "passed"), [(0.6, 0.5, True), (0.5, 0.5, False), (1.0, 1.0, True), (None, 0.5, True)]
)
def test_above_baselines(value: float | None, floor: float, passed: bool) -> None:
    found = [Measurement("text → image", "R@5", value, why="" if value is not None else "a gallery of 3")]
    chance = {"chance": [Measurement("text → image", "R@5", floor)]}
    check = checks.above_baselines([BenchmarkResult("retrieval", "flip", "sample", found, chance)])
    assert (check.passed, check.blocks) == (passed, False)


def test_names_that_there_are_not_are_answered_with_those_there_are(place: Place, tmp_path: Path) -> None:
    settings = place.settings()
    for arguments, words in {
        "recall sample flip": "no benchmark 'recall': choose among retrieval, attributes, sketches",
        "retrieval celeba flip": "no data set 'celeba': choose among celeba_caption, mm_celeba_hq, sample",
        "attributes sample align": "no model 'align': choose among flip, flip_template, flip_alt_text, clip, blip,",
        "sketches sample flop": "no model 'flop': choose among .*, or name a FLIP checkpoint's folder",
    }.items():
        with pytest.raises(BenchmarkError, match=words):
            measure(settings, place.store, *arguments.split())
    with pytest.raises(BenchmarkDataError, match=r"FACECAPTION_BENCHMARK_LFWA: there is no folder .*/gone"):
        measure(place.settings(benchmark_lfwa=str(tmp_path / "gone")), place.store, "attributes", "lfwa", "flip")


@pytest.mark.slow
def test_a_photo_is_described_whether_or_not_it_has_a_face(place: Place, photos: Path) -> None:
    describe = describer(place.settings())
    obama = decode_image((photos / "obama.jpg").read_bytes())
    assert describe(obama) == describe(obama)
    assert re.search(r"\b(man|he|his|male)\b", describe(obama).lower())
    grey = np.full((96, 128, 3), 127, np.uint8)
    assert describe(grey).endswith(".")


@pytest.mark.slow
def test_any_photos_become_episodes_with_captions(place: Place, tmp_path: Path) -> None:
    for number, labels in enumerate((["Male", "Smiling"], ["Young", "Bangs"], ["Eyeglasses", "Male"])):
        portrait = draw_portrait(frozenset(labels), number, 160).image
        (tmp_path / f"{number}.jpg").write_bytes(encode_jpeg(portrait))
    data = open_data(place.settings(benchmark_photos=str(tmp_path)), "sketches", "photos")
    assert isinstance(data, EpisodeData)
    assert {split: len(found) for split, found in data.splits.items()} == {"train": 1, "validation": 1, "test": 1}
    assert len(data.captions) == 3
    assert all(caption.endswith(".") for caption in data.captions)
    found = place.materialize("sketch_benchmark", "photos|flip", benchmark_photos=str(tmp_path))
    assert found.failure == ""
    assert "edges of the photos" in found.metadata["notes"]


def test_a_partition_that_cannot_be_measured_says_first_all_that_is_missing(place: Place, tmp_path: Path) -> None:
    """In the run's and the step's failure, and on the partition's page."""
    definitions = build_definitions(place.settings(benchmark_clip=str(tmp_path / "no_such_folder")))
    key = BENCHMARK_GRIDS["retrieval"].get_partition_key_from_str("celeba_caption|clip")
    with warnings.catch_warnings(), dg.DagsterInstance.ephemeral() as instance:
        warnings.simplefilter("ignore")
        done = definitions.resolve_implicit_global_asset_job_def().execute_in_process(
            instance=instance,
            asset_selection=[dg.AssetKey("retrieval_benchmark")],
            partition_key=key,
            raise_on_error=False,
        )
        asset = dg.AssetRecordsFilter(dg.AssetKey("retrieval_benchmark"), asset_partitions=[key])
        (seen,) = instance.fetch_observations(asset, limit=5).records
    (failed,) = [event for event in done.all_events if event.is_step_failure]
    run_failed = done.get_run_failure_event()
    reason = failed.step_failure_data.user_failure_data.description
    assert "FACECAPTION_BENCHMARK_CLIP" in reason
    assert "FACECAPTION_BENCHMARK_CELEBA is not set" in reason
    for error in (failed.step_failure_data.error, run_failed.job_failure_data.error):
        assert error.message.splitlines()[0].removeprefix("dagster._core.definitions.events.Failure: ") == reason
    assert seen.asset_observation.metadata["failure"].value == reason
    assert seen.partition_key == key


def test_several_folders_that_are_missing_are_all_named(tmp_path: Path) -> None:
    settings = load_settings(profile="photos", home=tmp_path, benchmark_fs2k=str(tmp_path / "gone"))
    with pytest.raises(BenchmarkDataError) as error:
        open_data(settings, "sketches", "fs2k_sde1")
    assert "FACECAPTION_BENCHMARK_FS2K_SDE is not set" in str(error.value)
    assert f"FACECAPTION_BENCHMARK_FS2K: there is no folder {tmp_path / 'gone'}" in str(error.value)
