"""What the registries say of data sets and models, and what follows from them."""

from __future__ import annotations

from pathlib import Path

import pytest

from dataset_folders import write_celeba
from facecaption_ml.benchmarks.datasets.data import LabelData, PairData
from facecaption_ml.benchmarks.datasets.registry import DATA_SETS, FOLDERS, data_sets
from facecaption_ml.benchmarks.datasets.spec import OpenOptions
from facecaption_ml.benchmarks.encoders.registry import HUB_MODELS, MODEL_TITLES, models_of
from facecaption_ml.benchmarks.options import ProbeProtocol, RetrievalProbeOptions, SharedProbeOptions
from facecaption_ml.benchmarks.report.layout import task_layouts
from facecaption_ml.benchmarks.result import TASKS
from facecaption_ml.storage.store import Store


def test_every_data_set_is_of_one_task_under_a_name_of_its_own() -> None:
    assert {spec.task for spec in DATA_SETS} == set(TASKS)
    assert len({(spec.task, spec.name) for spec in DATA_SETS}) == len(DATA_SETS)
    assert sum(len(data_sets(task)) for task in TASKS) == len(DATA_SETS)
    assert all(spec.folders or spec.name == "sample" for spec in DATA_SETS)
    assert all(not spec.folders[0].optional for spec in DATA_SETS if spec.folders)
    assert data_sets("recall") == {}


def test_tables_and_documentation_follow_from_the_registry() -> None:
    for task, layout in task_layouts().items():
        assert layout.data == {name: spec.title for name, spec in data_sets(task).items()}
    page = (Path(__file__).parents[2] / "docs" / "benchmarks.md").read_text(encoding="utf-8")
    assert not [spec.name for spec in DATA_SETS if f"`{spec.name}`" not in page]
    assert not [name for name in FOLDERS if f"`FACECAPTION_BENCHMARK_{name.upper()}`" not in page]


def test_a_model_without_layers_takes_no_part_in_the_attributes() -> None:
    assert list(MODEL_TITLES) == list(models_of("retrieval")) == list(models_of("sketches"))
    assert set(models_of("retrieval")) - set(models_of("attributes")) == {"align"}
    assert not HUB_MODELS["align"].has_layers


def test_data_sets_open_from_their_folders_by_name(tmp_path: Path) -> None:
    write_celeba(Store(str(tmp_path)), [1, 2, 3], [1, 2, 3], {1: 0, 2: 1, 3: 2})
    folders = {"celeba": Store(str(tmp_path))}
    labels = data_sets("attributes")["celeba"].open(folders, OpenOptions())
    pairs = data_sets("retrieval")["celeba_caption"].open(folders, OpenOptions(seed=3))
    assert isinstance(labels, LabelData)
    assert isinstance(pairs, PairData)
    assert (labels.source.name, pairs.source.name) == ("celeba", "celeba_caption")


@pytest.mark.parametrize("task", TASKS)
def test_the_drawn_data_sets_are_as_large_as_they_are_asked_for(tmp_path: Path, task: str) -> None:
    options = OpenOptions(sample_pictures=24, sample_drawings=16, drawn=Store(str(tmp_path)))
    data = data_sets(task)["sample"].open({}, options)
    sizes = {split: len(rows) for split, rows in data.splits.items()}
    assert sizes == (
        {"train": 8, "validation": 2, "test": 6} if task == "sketches" else {"train": 12, "validation": 3, "test": 9}
    )


def test_a_protocol_is_a_tasks_options_and_the_shared_ones() -> None:
    protocol = ProbeProtocol.of(
        RetrievalProbeOptions(epochs=3), SharedProbeOptions(runs=2, views=4), seed=9, device="cuda"
    )
    assert protocol.model_dump() == {
        "epochs": 3, "learning_rate": 4e-4, "batch_size": 256, "weight_decay": 0.05, "runs": 2, "views": 4, "seed": 9,
        "device": "cuda", "rerank": 0, "pretrained_heads": False,
    }  # fmt: skip
    for wrong in ({"epochs": 0}, {"batch_size": 1}, {"learning_rate": 0}, {"epoch": 3}):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            RetrievalProbeOptions(**wrong)  # type: ignore[arg-type]
