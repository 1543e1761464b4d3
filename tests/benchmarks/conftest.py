"""The stores that the benchmarks' tests read from and write to."""

from __future__ import annotations

from pathlib import Path

import pytest

from facecaption_ml.storage.store import Store
from servers import s3_options


@pytest.fixture
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    """A folder; or, with the parameter "s3" (``dataset_folders.ON_BOTH``), a bucket."""
    if getattr(request, "param", "folder") == "folder":
        return Store(str(tmp_path / "data"))
    return Store(f"s3://data/{tmp_path.name}", s3_options(request.getfixturevalue("s3_server")))


@pytest.fixture
def folder(tmp_path: Path) -> Store:
    return Store(str(tmp_path / "data"))
