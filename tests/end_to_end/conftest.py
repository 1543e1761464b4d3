"""The pipeline on a small sample world, run once for all workers. Who changes its results works on a copy of them."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import polars as pl
import pytest

import command_line
from facecaption_ml.storage.store import Store
from made_once import made_once

SCENES = 36
SHARDS = ["shard-00000", "shard-00001", "shard-00002"]  # of twelve scenes each

# The bundled predictor stands in for the one that the demo trains: a minute less.
SMALL_WORLD = {
    "FACECAPTION_SAMPLE_SCENES": str(SCENES),
    "FACECAPTION_SHARD_SIZE": str(SCENES // len(SHARDS)),
    "FACECAPTION_ATTRIBUTE_WEIGHTS": "bundled",
    "FACECAPTION_MIN_LABELS": "2",
    "FACECAPTION_LLM_BACKEND": "none",
    "FACECAPTION_LLM_DEMONSTRATION": "0",
    "FACECAPTION_READ_TIMEOUT_S": "2",
    "FACECAPTION_TOTAL_TIMEOUT_S": "4",
    "FACECAPTION_THREADS": "1",
}
REWRITING = {"FACECAPTION_LLM_BACKEND": "local", "FACECAPTION_LLM_ATTEMPTS": "2"}  # by the small chat model
REWRITE = f"""
from facecaption_assets.commands.instance import Pipeline
from facecaption_assets.settings import load_settings
Pipeline(load_settings()).run("llm_captions", "facecaption_dataset", first={SHARDS[0]!r}, last={SHARDS[-1]!r})
"""


class Command:
    """`facecaption` on the small world, in processes of its own."""

    folder = command_line.REPOSITORY
    shards = SHARDS
    scenes = SCENES
    rewriting = REWRITING
    words = staticmethod(command_line.command)

    def environment(self, home: Path, **settings: str) -> dict[str, str]:
        return command_line.clean_environment(home, **{**SMALL_WORLD, **settings})

    def run(self, home: Path, *arguments: str, **settings: str) -> command_line.Done:
        return command_line.start(*arguments, home=home, **{**SMALL_WORLD, **settings})

    def everything(self, home: Path, table: str) -> pl.DataFrame:
        """The rows of a table, of all shards."""
        store = Store(str(home / "store"))
        return pl.concat([store.read_table(table, shard) for shard in SHARDS])


@pytest.fixture(scope="session")
def facecaption() -> Command:
    return Command()


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory, facecaption: Command) -> Path:
    """The home of a pipeline that has run from the URLs to the release, with template captions. Only to look at."""

    def run(home: Path) -> None:
        done = facecaption.run(home, "run")
        assert done.returncode == 0, done.stderr

    return made_once(tmp_path_factory, "finished", run)


@pytest.fixture(scope="session")
def rewritten(tmp_path_factory: pytest.TempPathFactory, facecaption: Command, finished: Path) -> Path:
    """The same with its captions rewritten by the small chat model. Only to look at."""

    def rewrite(home: Path) -> None:
        shutil.copytree(finished, home, dirs_exist_ok=True)
        words, environment = [sys.executable, "-W", "ignore", "-c", REWRITE], facecaption.environment(home, **REWRITING)
        subprocess.run(words, check=True, cwd=facecaption.folder, env=environment)

    return made_once(tmp_path_factory, "rewritten", rewrite)


@pytest.fixture
def home(finished: Path, tmp_path: Path) -> Path:
    """A copy of the finished home, to go on with."""
    return shutil.copytree(finished, tmp_path / "home")
