"""Imports go one way, the public names are there, and the code location loads without the heavy libraries."""

from __future__ import annotations

import importlib
import subprocess
import sys

import pytest

from import_graph import REPOSITORY, Graph, against_the_order, circles, edges, read_graph, within

STAGES = ("images", "faces", "attributes", "captions", "flip")
ABOVE = ("sample", "benchmarks", "statistics", "search")
# Rooms of each package, in order: a module imports from its own room and from those to the left of it.
ROOMS = {
    "facecaption_ml.captions": ("template", "faithful", "guided", "backends", "rewrite"),
    "facecaption_ml.flip": ("model", "pairs", "training", "use"),
    "facecaption_ml.benchmarks": ("datasets", "encoders", "tasks", "report"),
    "facecaption_assets": (
        "settings", "machines", "partitions", "factories", "checks", "training", "resources", "assets", "automation",
        "definitions", "plan", "commands",
    ),
}  # fmt: skip
HEAVY = (
    "torch",
    "torchvision",
    "cv2",
    "nltk",
    "onnx",
    "matplotlib",
    "transformers",
    "facexlib",
    "facecaption_ml.sample",
)
PUBLIC = {
    "facecaption_ml.faces": ("FaceDetector.load", "FaceDetector.detect"),
    "facecaption_ml.attributes": ("ATTRIBUTES", "AttributePredictor.load", "AttributePredictor.predict"),
    "facecaption_ml.captions": ("template_caption", "check_faithful", "judge_rewrite"),
    "facecaption_ml.flip": ("Flip.load", "Flip.encode_images", "Flip.encode_texts", "Flip.match"),
    "facecaption_ml.benchmarks": ("recall_at_k", "rank_percentile", "reciprocal_rank"),
}


@pytest.fixture(scope="module")
def graph() -> Graph:
    return read_graph()


def test_the_library_knows_neither_dagster_nor_the_code_location(graph: Graph) -> None:
    wrong = [
        f"{module} imports {name}"
        for module, name in edges(graph)
        if within(module, "facecaption_ml") and (name.startswith("dagster") or within(name, "facecaption_assets"))
    ]
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_knows_no_other_nor_what_is_above_them(graph: Graph, stage: str) -> None:
    foreign = [f"facecaption_ml.{other}" for other in (*STAGES, *ABOVE) if other != stage]
    wrong = [
        f"{module} imports {name}"
        for module, name in edges(graph)
        if within(module, f"facecaption_ml.{stage}") and within(name, *foreign)
    ]
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("package", ROOMS)
def test_a_room_imports_only_from_rooms_to_the_left(graph: Graph, package: str) -> None:
    wrong = against_the_order(graph, package, ROOMS[package])
    assert not wrong, "\n".join(wrong)


def test_every_module_of_the_code_location_is_in_a_room_and_two_at_most_lie_loose(graph: Graph) -> None:
    own = [module.split(".")[1:] for module in graph if module.startswith("facecaption_assets.")]
    assert {parts[0] for parts in own} <= set(ROOMS["facecaption_assets"])
    loose = {parts[0] for parts in own if len(parts) == 1} - {parts[0] for parts in own if len(parts) > 1}
    assert len(loose) <= 2, loose


def test_files_of_assets_know_each_other_only_through_a_module_without_assets(graph: Graph) -> None:
    """A file that defines assets (it uses the factories or Dagster's decorators) imports no other one that does."""
    factories = ("facecaption_assets.factories.shards", "facecaption_assets.factories.whole_dataset")
    rooms = [module for module in graph if module.startswith("facecaption_assets.assets.")]
    defining = {module for module in rooms if "dagster" in graph[module] or graph[module] & set(factories)}
    assert defining
    wrong = [f"{module} imports {name}" for module in sorted(defining) for name in sorted(graph[module] & defining)]
    assert not wrong, "\n".join(wrong)


def test_no_modules_import_each_other_in_a_circle(graph: Graph) -> None:
    together = circles(graph)
    assert not together, "\n".join(" ↔ ".join(circle) for circle in together)


@pytest.mark.parametrize("module", PUBLIC)
def test_the_public_names_can_be_imported(module: str) -> None:
    loaded = importlib.import_module(module)
    for path in PUBLIC[module]:
        value = loaded
        for name in path.split("."):
            value = getattr(value, name)


def test_the_code_location_loads_without_torch_and_its_like() -> None:
    code = (
        "import sys, warnings; warnings.simplefilter('ignore'); import facecaption_assets.definitions; "
        f"print(*[m for m in {HEAVY} if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=REPOSITORY)
    assert done.stdout.split() == []
