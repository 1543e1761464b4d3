"""Imports go one way, and the code location loads without the heavy libraries."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[1]
LIBRARY = REPOSITORY / "facecaption_ml"
STAGES = ("images", "faces", "attributes", "captions", "flip")
ABOVE = ("sample", "benchmarks", "statistics")
CAPTIONS_ROOMS = ("template", "faithful", "guided", "backends", "rewrite")
FLIP_ROOMS = ("model", "pairs", "training", "use")


def imported(path: Path) -> set[str]:
    """Every module that a file imports, at any depth of it."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module)
            names.update(f"{node.module}.{alias.name}" for alias in node.names)
    return names


@pytest.mark.parametrize("path", sorted(LIBRARY.rglob("*.py")), ids=lambda p: p.relative_to(LIBRARY).as_posix())
def test_the_library_knows_neither_dagster_nor_the_assets(path: Path) -> None:
    names = imported(path)
    assert not [
        name for name in names if name.split(".")[0].startswith("dagster") or name.startswith("facecaption_assets")
    ]
    stage = path.relative_to(LIBRARY).parts[0]
    if stage in STAGES:
        foreign = [f"facecaption_ml.{other}" for other in (*STAGES, *ABOVE) if other != stage]
        assert not [name for name in names if any(name == f or name.startswith(f"{f}.") for f in foreign)]


def test_the_rooms_of_captions_import_to_the_left_only() -> None:
    wrong = []
    for k, room in enumerate(CAPTIONS_ROOMS):
        right = tuple(f"facecaption_ml.captions.{other}" for other in CAPTIONS_ROOMS[k + 1 :])
        for path in (LIBRARY / "captions" / room).glob("*.py"):
            wrong += [f"{path.name}: {name}" for name in imported(path) if name.startswith(right)]
    assert not wrong


def test_flips_rooms_import_only_to_the_left() -> None:
    for number, room in enumerate(FLIP_ROOMS):
        right = tuple(f"facecaption_ml.flip.{other}" for other in FLIP_ROOMS[number + 1 :])
        for path in (LIBRARY / "flip" / room).glob("*.py"):
            assert not [name for name in imported(path) if name.startswith(right)], path


def test_the_code_location_loads_without_torch_and_its_like() -> None:
    code = (
        "import sys, warnings; warnings.simplefilter('ignore'); import facecaption_assets.definitions; "
        "print(*[m for m in ('torch','torchvision','cv2','nltk','onnx','matplotlib','transformers','facexlib') "
        "if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=REPOSITORY)
    assert done.stdout.split() == []
