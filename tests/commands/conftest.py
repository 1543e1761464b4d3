"""A small data set, recorded as a pipeline would: made once, copied for each test."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from unittest import mock

import pytest

from facecaption_assets.settings import Settings
from small_dataset import make_data_set, settings_of


@pytest.fixture(scope="session")
def data_set(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("data_set")
    with mock.patch.dict(os.environ, {"DAGSTER_HOME": ""}):
        make_data_set(settings_of(home))
    return home


@pytest.fixture
def settings(data_set: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    monkeypatch.setenv("DAGSTER_HOME", "")
    shutil.copytree(data_set, tmp_path, dirs_exist_ok=True)
    return settings_of(tmp_path)
