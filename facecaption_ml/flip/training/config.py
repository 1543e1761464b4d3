"""A training as it travels to its processes: the options, resolved, and which pairs it reads and where its checkpoint goes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from facecaption_ml.flip.errors import TrainingError
from facecaption_ml.flip.training.options import TrainingOptions
from facecaption_ml.storage.store import Store

TEXT_COLUMNS: Final[Mapping[str, str]] = {
    "flip": "caption",
    "flip_template": "template_caption",
    "flip_alt_text": "alt_text",
}
"""The variants (FLIP, FLIP*, FLIP† of the paper) and the column of ``facecaption_dataset`` that each reads."""
CHECKPOINTS: Final = "flip_checkpoint"
"""Where checkpoints lie in the store, a folder for each variant."""


class TrainingConfig(BaseModel):
    """One training. ``options`` are completed from their preset on construction.

    ``store`` and ``storage_options`` say where pairs come from and checkpoints go (credentials stay in the environment),
    ``shards`` which shards are read, ``key_prefix`` where in the store the checkpoint lies if not at the variant's own.
    ``versions`` go into its record. ``max_steps`` ends a run early, 0 does not.
    Raises TrainingError for an unknown variant, PresetError for an unknown preset.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    options: TrainingOptions
    store: str
    shards: tuple[str, ...]
    variant: str
    storage_options: dict[str, str] = Field(default_factory=dict)
    seed: int = Field(default=0, ge=0)
    device: str = "auto"
    max_steps: int = Field(default=0, ge=0)
    key_prefix: str = ""
    versions: dict[str, str] = Field(default_factory=dict)

    @field_validator("options")
    @classmethod
    def _resolved(cls, options: TrainingOptions) -> TrainingOptions:
        return options.resolved()

    @field_validator("variant")
    @classmethod
    def _known(cls, variant: str) -> str:
        if variant not in TEXT_COLUMNS:
            raise TrainingError(f"variant {variant!r}: there are {', '.join(TEXT_COLUMNS)}", "variant")
        return variant

    @property
    def text_column(self) -> str:
        return TEXT_COLUMNS[self.variant]

    @property
    def prefix(self) -> str:
        """Where the checkpoint lies in the store."""
        return self.key_prefix or f"{CHECKPOINTS}/{self.variant}"

    def open_store(self) -> Store:
        return Store(self.store, self.storage_options)

    def to_json(self) -> str:
        return self.model_dump_json(indent=1)

    @classmethod
    def from_json(cls, text: str) -> TrainingConfig:
        """From what ``to_json`` gave. Raises TrainingError naming a field that is missing, unknown or out of its bounds."""
        try:
            return cls.model_validate_json(text)
        except ValidationError as error:
            raise TrainingError(f"training configuration: {first_fault(error)}") from None

    def reproducibility_fields(self) -> dict[str, Any]:
        """What decides the weights, by name: a checkpoint is resumed only under the same."""
        own = {"shards": list(self.shards), "variant": self.variant, "seed": self.seed}
        return {**self.options.reproducibility_fields(), **own}


def first_fault(error: ValidationError) -> str:
    """One line of the first field that is wrong: ``queue_size is -3: Input should be greater than or equal to 0``."""
    first = error.errors()[0]
    name = str(first["loc"][-1]) if first["loc"] else "it"
    return (
        f"{name}: {first['msg']}"
        if first["type"] in ("missing", "extra_forbidden")
        else (f"{name} is {first['input']!r}: {first['msg']}")
    )
