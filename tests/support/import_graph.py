"""Which modules of the two packages import which, read from their source: at any depth of a file, within functions too."""

from __future__ import annotations

import ast
import graphlib
from collections.abc import Iterable, Iterator
from pathlib import Path

REPOSITORY = Path(__file__).parents[2]
PACKAGES = ("facecaption_ml", "facecaption_assets")
Graph = dict[str, set[str]]


def read_graph() -> Graph:
    """Module → the modules of the packages, and the top-level packages of others, that it imports."""
    files = {_name(path): path for package in PACKAGES for path in (REPOSITORY / package).rglob("*.py")}
    return {name: set(_imported(name, path, files)) - {name} for name, path in sorted(files.items())}


def _name(path: Path) -> str:
    return ".".join(path.relative_to(REPOSITORY).with_suffix("").parts).removesuffix(".__init__")


def _imported(module: str, path: Path, known: Iterable[str]) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module}: imports are absolute"
            # ``from package import name`` imports the module of that name where there is one, else from the package.
            full = [f"{node.module}.{alias.name}" for alias in node.names]
            names = [name if name in known else str(node.module) for name in full]
        else:
            continue
        yield from (name if name in known else name.partition(".")[0] for name in names)


def within(module: str, *packages: str) -> bool:
    """Whether it is one of the packages or inside one."""
    return any(module == package or module.startswith(f"{package}.") for package in packages)


def edges(graph: Graph) -> Iterator[tuple[str, str]]:
    for module, imported in graph.items():
        yield from ((module, name) for name in sorted(imported))


def against_the_order(graph: Graph, package: str, rooms: Iterable[str]) -> list[str]:
    """The imports among a package's rooms that lead to one further right than the importer's own."""
    rank = {f"{package}.{room}": place for place, room in enumerate(rooms)}

    def place(module: str) -> int | None:
        return rank.get(".".join(module.split(".")[: package.count(".") + 2]))

    wrong = []
    for module, name in edges(graph):
        own, other = place(module), place(name)
        if own is not None and other is not None and other > own:
            wrong.append(f"{module} imports {name}")
    return wrong


def circles(graph: Graph) -> list[list[str]]:
    """The first circle of imports, if there is one."""
    try:
        graphlib.TopologicalSorter(graph).prepare()
    except graphlib.CycleError as error:
        return [error.args[1]]
    return []
