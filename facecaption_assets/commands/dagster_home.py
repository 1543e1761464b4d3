"""Where Dagster keeps its records for a command, and whether there are any yet."""

from __future__ import annotations

import os
from pathlib import Path

from facecaption_assets.settings import Settings

_CONFIG = "dagster.yaml"


def shared_home(settings: Settings) -> Path | None:
    """On Kubernetes the pod's own DAGSTER_HOME, which leads to the instance that all processes share; None elsewhere."""
    given = Path(os.environ.get("DAGSTER_HOME", ""))
    return given if settings.deploy.executor == "kubernetes" and (given / _CONFIG).is_file() else None


def has_instance(settings: Settings) -> bool:
    """Whether Dagster has recorded anything where ``prepare_home`` leads."""
    return ((shared_home(settings) or settings.dagster_home) / _CONFIG).is_file()
