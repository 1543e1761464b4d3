"""The options of a FLIP training: one line each with its default, bounds, description and whether it shapes the result."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Final, Literal, Optional, TypeVar

from pydantic import BaseModel, ConfigDict, Field

from facecaption_ml.flip.model.presets import FROM_SCRATCH, Preset, training_defaults

T = TypeVar("T")
# None until ``resolved`` puts the preset's own value there. Type checkers see what it is then: nothing reads it before.
if TYPE_CHECKING:
    OfPreset = Annotated[T, "resolved"]
else:
    OfPreset = Optional
_OWN: Final = "None: the preset's own"
_TOWER: Final = f"; '': the preset's own, {FROM_SCRATCH}: from scratch"
RUNTIME_ONLY: Final[dict[str, Any]] = {"runtime_only": True}
"""Marks an option that does not decide what is learned: a training may resume under another value of it."""


class TrainingOptions(BaseModel):
    """What a training is told besides its data. Options that are None or empty are taken from the preset (``presets.toml``);
    those of ``base`` are the paper's (§5.1).

    ``batch_size`` is of a process and a forward pass: the global batch is ``batch_size`` × processes, and the optimiser steps
    after ``accumulation`` of them. A new option is a line here, and one in ``presets.toml`` where presets differ in it.
    Raises pydantic's ValidationError naming an option that is unknown or out of its bounds.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    preset: str = Field("base", description="base (paper §5.1), small or tiny")
    image_init: str = Field("", description=f"hub name or folder of a ViT{_TOWER}")
    text_init: str = Field("", description=f"hub name or folder of a BERT{_TOWER}")

    epochs: OfPreset[int] = Field(None, ge=1, description=f"passes over the training pairs; {_OWN}")
    batch_size: OfPreset[int] = Field(None, ge=1, description=f"pairs of a process in a forward pass; {_OWN}")
    accumulation: int = Field(1, ge=1, description="forward passes in an optimiser step")
    queue_size: OfPreset[int] = Field(
        None, ge=0, description=f"features of each kind in the queue, a multiple of the global batch; {_OWN}"
    )
    first_learning_rate: OfPreset[float] = Field(None, ge=0, description=f"at the first step of the warm-up; {_OWN}")
    peak_learning_rate: OfPreset[float] = Field(None, ge=0, description=f"after the warm-up; {_OWN}")
    last_learning_rate: OfPreset[float] = Field(None, ge=0, description=f"at the end of the cosine; {_OWN}")
    warm_up_steps: OfPreset[int] = Field(None, ge=0, description=f"over which the learning rate rises; {_OWN}")
    weight_decay: OfPreset[float] = Field(None, ge=0, description=f"AdamW's, of matrices; {_OWN}")
    momentum: OfPreset[float] = Field(None, ge=0, le=1, description=f"of the momentum towers; {_OWN}")
    soft_targets: OfPreset[float] = Field(None, ge=0, le=1, description=f"weight of the momentum targets; {_OWN}")
    soft_target_epochs: OfPreset[float] = Field(None, ge=0, description=f"over which that weight grows; {_OWN}")
    augmentation: OfPreset[float] = Field(
        None, ge=0, le=1, description=f"share of pictures that RandAugment changes; {_OWN}"
    )
    clip_norm: float = Field(1.0, ge=0, description="largest norm of the gradient; 0: not limited")
    evaluation_pairs: int = Field(1000, ge=0, description="held-out pairs that an epoch is judged by")
    window_row_groups: int = Field(16, ge=1, description="row groups that are shuffled together in memory")
    precision: Literal["auto", "bf16", "fp16", "fp32"] = Field(
        "auto", description="number type of the matrix products; auto: bf16 where the device has it, else fp32"
    )

    compile: bool = Field(False, description="torch.compile", json_schema_extra=RUNTIME_ONLY)
    activation_checkpointing: bool = Field(
        False, description="less memory for about a third more computation", json_schema_extra=RUNTIME_ONLY
    )
    # The number of processes does decide what is learned; a checkpoint records how many there were, not this 0.
    processes: int = Field(
        0, ge=0, description="training processes; 0: one for each GPU, else one", json_schema_extra=RUNTIME_ONLY
    )
    threads: int = Field(
        0, ge=0, description="of a process on the CPU; 0: its share of those there are", json_schema_extra=RUNTIME_ONLY
    )
    loader_threads: int = Field(
        1, ge=1, description="of a process, that decode pictures", json_schema_extra=RUNTIME_ONLY
    )
    loader_process: bool = Field(
        False, description="decode in a process of its own beside each training process", json_schema_extra=RUNTIME_ONLY
    )
    checkpoint_minutes: float = Field(
        15.0, ge=0, description="between checkpoints that a training resumes from", json_schema_extra=RUNTIME_ONLY
    )
    keep_checkpoints: int = Field(2, ge=1, description="of an unfinished training", json_schema_extra=RUNTIME_ONLY)
    log_every: int = Field(20, ge=1, description="optimiser steps between lines of the log", json_schema_extra=RUNTIME_ONLY)
    fresh: bool = Field(
        False, description="forget an unfinished training instead of resuming it", json_schema_extra=RUNTIME_ONLY
    )

    def resolved(self) -> TrainingOptions:
        """The same with the preset's own values where there are none. Raises PresetError for an unknown preset."""
        preset = Preset.named(self.preset)
        own = {
            "image_init": preset.image_init or FROM_SCRATCH,
            "text_init": preset.text_init or FROM_SCRATCH,
            **training_defaults(self.preset),
        }
        missing = {name: value for name, value in own.items() if getattr(self, name) in (None, "")}
        return type(self).model_validate({**self.model_dump(), **missing})

    def reproducibility_fields(self) -> dict[str, Any]:
        """The options that decide what is learned."""
        return self.model_dump(exclude=_runtime_only())


def _runtime_only() -> set[str]:
    fields = TrainingOptions.model_fields.items()
    return {name for name, field in fields if field.json_schema_extra == RUNTIME_ONLY}
