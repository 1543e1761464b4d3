"""What runs by itself, and the jobs that it runs.

Assets import the names here, so that this package must not import any asset; ``definitions.py`` imports the sensors
(``sensors.py``, ``alerts.py``), the schedules (``schedules.py``) and the conditions (``conditions.py``) from their modules.
"""

from facecaption_assets.automation.jobs import (
    BENCHMARK_ASSETS,
    BENCHMARK_JOBS,
    FLIP_TRAINING,
    MANIFEST_INTAKE,
    RELEASE,
    SHARD_ASSETS,
    SHARD_PIPELINE,
    STATISTICS_ASSETS,
)

__all__ = [
    "BENCHMARK_ASSETS",
    "BENCHMARK_JOBS",
    "FLIP_TRAINING",
    "MANIFEST_INTAKE",
    "RELEASE",
    "SHARD_ASSETS",
    "SHARD_PIPELINE",
    "STATISTICS_ASSETS",
]
