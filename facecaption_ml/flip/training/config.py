"""What a training run is told, in one record that travels as JSON to every process."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from facecaption_ml.devices import PRECISIONS
from facecaption_ml.errors import FaceCaptionError
from facecaption_ml.flip.model.presets import Preset, training_defaults
from facecaption_ml.storage.store import Store

SETTING_PREFIX: Final = "FACECAPTION_FLIP_"
TEXT_COLUMNS: Final[Mapping[str, str]] = {
    "flip": "caption",
    "flip_template": "template_caption",
    "flip_alt_text": "alt_text",
}
"""The variants (FLIP, FLIP*, FLIP† of the paper) and the column of ``facecaption_dataset`` that each reads."""
CHECKPOINTS: Final = "flip_checkpoint"
"""Where checkpoints lie in the store, a folder for each variant."""


class TrainingError(FaceCaptionError):
    """Training cannot start or go on; one line that names the setting, file or step and what to do."""


@dataclass(frozen=True)
class TrainingConfig:
    """All settings of a run. ``of_preset`` fills what a preset has a default for (the paper's in ``base``).

    ``store`` and ``storage_options`` say where pairs come from and checkpoints go (credentials stay in the environment),
    ``place`` where the checkpoint lies in the store if not at the variant's own, ``shards`` which shards are read.
    ``batch_size`` is for a process and a forward pass; the global batch is ``batch_size`` × processes, the optimiser steps
    after ``accumulation`` of them. ``max_steps`` ends a run early, 0 does not; ``fresh`` forgets an unfinished training instead
    of going on with it.
    Raises TrainingError naming the setting for values that cannot be.
    """

    store: str
    shards: tuple[str, ...]
    variant: str
    preset: str
    epochs: int
    batch_size: int
    queue_size: int
    first_learning_rate: float
    peak_learning_rate: float
    last_learning_rate: float
    warm_up_steps: int
    weight_decay: float
    momentum: float
    soft_targets: float
    soft_target_epochs: float
    augmentation: float
    storage_options: Mapping[str, str] = field(default_factory=dict)
    image_init: str = ""
    text_init: str = ""
    seed: int = 0
    accumulation: int = 1
    clip_norm: float = 1.0
    precision: str = "auto"
    device: str = "auto"
    threads: int = 0
    compile: bool = False
    activation_checkpointing: bool = False
    loader_threads: int = 1
    loader_process: bool = False
    window_row_groups: int = 16
    evaluation_pairs: int = 1000
    checkpoint_minutes: float = 15.0
    keep_checkpoints: int = 2
    log_every: int = 20
    max_steps: int = 0
    fresh: bool = False
    place: str = ""
    versions: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.variant not in TEXT_COLUMNS:
            raise TrainingError(f"variant {self.variant!r}: there are {', '.join(TEXT_COLUMNS)}")
        if self.precision not in PRECISIONS:
            raise TrainingError(
                f"{SETTING_PREFIX}PRECISION is {self.precision!r}: choose among {', '.join(PRECISIONS)}"
            )
        for name, least in _LEAST.items():
            if not least <= getattr(self, name) < math.inf:  # NaN is refused too
                raise TrainingError(
                    f"{SETTING_PREFIX}{name.upper()} is {getattr(self, name)}: it must be at least {least}"
                )
        for name in ("momentum", "soft_targets", "augmentation"):
            if not 0 <= getattr(self, name) <= 1:
                raise TrainingError(f"{SETTING_PREFIX}{name.upper()} is {getattr(self, name)}: it lies between 0 and 1")

    @classmethod
    def of_preset(cls, preset: str, **given: Any) -> TrainingConfig:
        """The preset's defaults, overridden by what is given and not None. Raises PresetError or TrainingError."""
        shape = Preset.named(preset)
        defaults = {
            "preset": preset,
            "image_init": shape.image_init,
            "text_init": shape.text_init,
            **training_defaults(preset),
        }
        return cls(**{**defaults, **{name: value for name, value in given.items() if value is not None}})

    @property
    def text_column(self) -> str:
        return TEXT_COLUMNS[self.variant]

    @property
    def prefix(self) -> str:
        """Where the checkpoint lies in the store."""
        return self.place or f"{CHECKPOINTS}/{self.variant}"

    def open_store(self) -> Store:
        return Store(self.store, dict(self.storage_options))

    def to_json(self) -> str:
        return json.dumps(dataclasses.asdict(self), indent=1)

    @classmethod
    def from_json(cls, text: str) -> TrainingConfig:
        """From what ``to_json`` gave. Raises TrainingError naming a field that is missing or unknown."""
        given = json.loads(text)
        try:
            return cls(**{**given, "shards": tuple(given["shards"])})
        except (TypeError, KeyError) as error:
            raise TrainingError(f"training configuration: {error}") from None

    def science(self) -> dict[str, Any]:
        """The settings that decide what is learned: a checkpoint goes on only under the same."""
        return {name: value for name, value in dataclasses.asdict(self).items() if name not in _INCIDENTAL}


_LEAST: Final[Mapping[str, float]] = {
    "epochs": 1,
    "batch_size": 1,
    "queue_size": 0,
    "first_learning_rate": 0,
    "peak_learning_rate": 0,
    "last_learning_rate": 0,
    "warm_up_steps": 0,
    "weight_decay": 0,
    "soft_target_epochs": 0,
    "accumulation": 1,
    "clip_norm": 0,
    "threads": 0,
    "loader_threads": 1,
    "window_row_groups": 1,
    "evaluation_pairs": 0,
    "checkpoint_minutes": 0,
    "keep_checkpoints": 1,
    "log_every": 1,
    "max_steps": 0,
}
_INCIDENTAL: Final = frozenset(
    {
        "store",
        "storage_options",
        "device",
        "threads",
        "compile",
        "activation_checkpointing",
        "loader_threads",
        "loader_process",
        "checkpoint_minutes",
        "keep_checkpoints",
        "log_every",
        "max_steps",
        "fresh",
        "place",
        "versions",
    }
)
