"""What tests share: real photographs where they are at hand, a real S3 server, hypothesis' profiles, who gets which worker."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from examples import register_profiles
from scheduling import FileScheduling
from seaweedfs import seaweedfs, seaweedfs_program

register_profiles()
os.environ.setdefault("DAGSTER_DISABLE_TELEMETRY", "1")
# A worker for each core, and so one thread in each; where a test has more, those that spin while they wait would stop others.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
REPOSITORY = Path(__file__).parents[1]
# Child processes of tests find the support modules as well.
os.environ["PYTHONPATH"] = os.pathsep.join(
    filter(None, (str(REPOSITORY / "tests" / "support"), os.environ.get("PYTHONPATH")))
)
SHARED_DATA = REPOSITORY.parent / "shared" / "data"


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> FileScheduling | None:
    return FileScheduling(config, log) if config.getvalue("dist") == "loadfile" else None


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Marks what needs the S3 server. tests/end_to_end comes first, because it takes longest."""
    items.sort(key=lambda item: item.path.parent.name != "end_to_end")
    for item in items:
        parameters = item.callspec.params.values() if hasattr(item, "callspec") else ()
        if "s3_server" in getattr(item, "fixturenames", ()) or "s3" in parameters:
            item.add_marker(pytest.mark.s3)


@pytest.fixture(autouse=True)
def _no_settings_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.startswith("FACECAPTION_"):
            monkeypatch.delenv(name)


@pytest.fixture(scope="session")
def photos() -> Path:
    """The folder of real photographs."""
    folder = SHARED_DATA / "photos"
    if not folder.is_dir():
        pytest.skip("the shared photographs are not at hand")
    return folder


@pytest.fixture(scope="session")
def s3_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """A real S3 server on the loopback address; gives the environment that reaches its bucket ``data``."""
    program = seaweedfs_program()
    if program is None:
        pytest.skip("the SeaweedFS binary is not installed")
    with seaweedfs(program, tmp_path_factory.mktemp("weed")) as server:
        yield server
