"""The options of a FLIP training: one line each with its default, bounds, description and whether it shapes the result."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Final, Literal, Optional, TypeVar

from pydantic import BaseModel, ConfigDict, Field

from facecaption_ml.flip.errors import TrainingError
from facecaption_ml.flip.model.presets import FROM_SCRATCH, Preset, training_defaults

T = TypeVar("T")
# None until ``resolved`` puts the preset's own value there. Type checkers see what it is then: nothing reads it before.
if TYPE_CHECKING:
    OfPreset = Annotated[T, "resolved"]
else:
    OfPreset = Optional
RUNTIME_ONLY: Final[dict[str, Any]] = {"runtime_only": True}
"""Marks an option that does not decide what is learned: a training may resume under another value of it."""


def _of_preset(description: str, ge: float, le: float | None = None) -> Any:
    return Field(default=None, ge=ge, le=le, description=f"{description}; None: the preset's own")


def _tower(kind: str) -> Any:
    return Field(
        default="",
        description=f"{kind}: hub name, folder or file; '': the preset's own, {FROM_SCRATCH}: from scratch",
    )


def _runtime(default: Any, description: str, ge: float | None = None) -> Any:
    return Field(default=default, ge=ge, description=description, json_schema_extra=RUNTIME_ONLY)


class TrainingOptions(BaseModel):
    """How FLIP is trained. Options that are None or empty are taken from the preset (``presets.toml``); those of
    ``base`` are the paper's (§5.1).

    ``batch_size`` is of a process and a forward pass: the global batch is ``batch_size`` × processes, and the optimiser steps
    after ``accumulation`` of them. A new option is a line here, and one in ``presets.toml`` where presets differ in it.
    Raises pydantic's ValidationError naming an option that is unknown or out of its bounds.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    preset: str = Field(default="base", description="base (paper §5.1), small, tiny or photos")
    init: str = Field(
        default="",
        description=(
            "FLIP checkpoint (bundled: the package's), BLIP or file of FLIP's authors that the whole model starts from; "
            "'': the towers' own"
        ),
    )
    image_init: str = _tower("a bundled tower (drawn, faces), or a ViT, CLIP, BLIP or FLIP checkpoint")
    text_init: str = _tower("a BERT, BLIP or FLIP checkpoint (bundled: the package's)")

    epochs: OfPreset[int] = _of_preset("passes over the training pairs", ge=1)
    batch_size: OfPreset[int] = _of_preset("pairs of a process in a forward pass", ge=1)
    accumulation: int = Field(default=1, ge=1, description="forward passes in an optimiser step")
    queue_size: OfPreset[int] = _of_preset("features of each kind in the queue, a multiple of the global batch", ge=0)
    first_learning_rate: OfPreset[float] = _of_preset("learning rate at the start of the warm-up", ge=0)
    peak_learning_rate: OfPreset[float] = _of_preset("learning rate after the warm-up", ge=0)
    last_learning_rate: OfPreset[float] = _of_preset("learning rate at the end of the cosine", ge=0)
    warm_up_steps: OfPreset[int] = _of_preset(
        "optimiser steps over which the learning rate rises, a tenth of all at most", ge=0
    )
    weight_decay: OfPreset[float] = _of_preset("AdamW's, of matrices", ge=0)
    momentum: OfPreset[float] = _of_preset("of the momentum towers", ge=0, le=1)
    soft_targets: OfPreset[float] = _of_preset("weight of the momentum targets", ge=0, le=1)
    soft_target_epochs: OfPreset[float] = _of_preset("epochs over which that weight grows", ge=0)
    crop_area: OfPreset[float] = _of_preset(
        "smallest share of a picture in a random crop; 1: shifts of a few pixels in its place", ge=0.1, le=1
    )
    augmentation: OfPreset[float] = _of_preset("share of pictures that RandAugment changes", ge=0, le=1)
    clip_norm: float = Field(default=1.0, ge=0, description="largest norm of the gradient; 0: not limited")
    evaluation_pairs: int = Field(default=1000, ge=0, description="held-out pairs that an epoch is judged by")
    window_row_groups: int = Field(default=16, ge=1, description="row groups that are shuffled together in memory")
    precision: Literal["auto", "bf16", "fp16", "fp32"] = Field(
        default="auto", description="number type of the matrix products; auto: bf16 where the device has it, else fp32"
    )

    compile: bool = _runtime(False, "torch.compile")
    activation_checkpointing: bool = _runtime(False, "less memory for about a third more computation")
    # How many processes there are does decide what is learned: a checkpoint records that number, not this 0.
    processes: int = _runtime(0, "training processes; 0: one for each GPU, else one", ge=0)
    threads: int = _runtime(0, "of a process on the CPU; 0: its share of those there are", ge=0)
    loader_threads: int = _runtime(1, "of a process, that decode pictures", ge=1)
    loader_process: bool = _runtime(False, "decode in a process of its own beside each training process")
    checkpoint_minutes: float = _runtime(15.0, "between checkpoints that a training resumes from", ge=0)
    keep_checkpoints: int = _runtime(2, "of an unfinished training", ge=1)
    log_every: int = _runtime(20, "optimiser steps between lines of the log", ge=1)
    fresh: bool = _runtime(False, "forget an unfinished training instead of resuming it")

    def resolved(self) -> TrainingOptions:
        """The same with the preset's own values where there are none.

        Raises PresetError for an unknown preset, and TrainingError where ``init`` stands beside a tower's.
        """
        preset = Preset.named(self.preset)
        own = training_defaults(self.preset)
        if not self.init:
            own |= {"image_init": preset.image_init or FROM_SCRATCH, "text_init": preset.text_init or FROM_SCRATCH}
        for tower in ("image_init", "text_init"):
            if self.init and getattr(self, tower):
                raise TrainingError(
                    f"init is {self.init}, of which both towers are taken: leave {tower} empty", "init", tower
                )
        missing = {name: value for name, value in own.items() if getattr(self, name) in (None, "")}
        return type(self).model_validate({**self.model_dump(), **missing})

    def reproducibility_fields(self) -> dict[str, Any]:
        """The options that decide what is learned."""
        return self.model_dump(exclude=_runtime_only())


def _runtime_only() -> set[str]:
    fields = TrainingOptions.model_fields.items()
    return {name for name, field in fields if field.json_schema_extra == RUNTIME_ONLY}
