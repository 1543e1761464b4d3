"""What runs by itself, and the jobs that it runs.

``definitions.py`` imports the sensors (``sensors.py``, ``alerts.py``), the schedules (``schedules.py``) and the conditions
(``conditions.py``) from their modules. No asset imports anything from here.
"""

from facecaption_assets.automation.jobs import (
    BENCHMARK_JOBS,
    FLIP_TRAINING,
    MANIFEST_INTAKE,
    RELEASE,
    SHARD_PIPELINE,
)

__all__ = [
    "BENCHMARK_JOBS",
    "FLIP_TRAINING",
    "MANIFEST_INTAKE",
    "RELEASE",
    "SHARD_PIPELINE",
]
