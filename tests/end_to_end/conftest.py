"""The pipeline on a small sample world, run once for the tests that look at its results."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import ClassVar

import pytest

from facecaption_ml.storage.store import Store

REPOSITORY = Path(__file__).parents[2]

# Three shards of 16 scenes. The bundled predictor stands in for the one that the demo trains: a minute less.
SMALL_WORLD = {
    "FACECAPTION_SAMPLE_SCENES": "48",
    "FACECAPTION_SHARD_SIZE": "16",
    "FACECAPTION_ATTRIBUTE_WEIGHTS": "bundled",
    "FACECAPTION_MIN_LABELS": "2",
    "FACECAPTION_LLM_BACKEND": "none",
    "FACECAPTION_READ_TIMEOUT_S": "2",
    "FACECAPTION_TOTAL_TIMEOUT_S": "4",
    "OMP_NUM_THREADS": "1",
    "FACECAPTION_THREADS": "1",
}


class Command:
    """`facecaption` on the small world, in processes of its own."""

    folder = REPOSITORY
    rewriting: ClassVar = {
        "FACECAPTION_LLM_BACKEND": "local",
        "FACECAPTION_LLM_ATTEMPTS": "2",
    }  # by the small chat model

    def environment(self, home: Path, **settings: str) -> dict[str, str]:
        clean = {name: value for name, value in os.environ.items() if not name.startswith("FACECAPTION_")}
        return {**clean, **SMALL_WORLD, "FACECAPTION_HOME": str(home), **settings}

    def words(self, *arguments: str) -> list[str]:
        return [sys.executable, "-W", "ignore", "-m", "facecaption_assets.commands.cli", *arguments]

    def run(self, home: Path, *arguments: str, **settings: str) -> subprocess.CompletedProcess[str]:
        environment = self.environment(home, **settings)
        return subprocess.run(
            self.words(*arguments), capture_output=True, text=True, cwd=self.folder, env=environment, timeout=280
        )


@pytest.fixture(scope="session")
def facecaption() -> Command:
    return Command()


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory, facecaption: Command) -> Path:
    """The home of a pipeline that has run from the URLs to the release, its captions rewritten by the small chat model."""
    home = tmp_path_factory.mktemp("finished")
    done = facecaption.run(home, "run", **facecaption.rewriting)
    assert done.returncode == 0, done.stderr
    return home


@pytest.fixture
def store(finished: Path) -> Store:
    return Store(str(finished / "store"))
