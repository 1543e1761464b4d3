"""The ``FACECAPTION_FLIP_*`` settings: FLIP's shape, its training, and how the training is run."""

from __future__ import annotations

from typing import Final, Literal

from pydantic import BaseModel, ConfigDict, Field

FROM_SCRATCH: Final = "none"
"""The word that stands for random weights where an empty setting stands for the preset's own."""
_OWN: Final = "None: the preset's own"


class FlipSettings(BaseModel):
    """What is None or empty is taken from the preset (``facecaption_ml/flip/presets.toml``); ``base`` is the paper's."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    preset: str = Field("base", description="base (paper §5.1), small or tiny")
    image_init: str = Field("", description="hub name or folder of a ViT; '': the preset's own, none: from scratch")
    text_init: str = Field("", description="hub name or folder of a BERT; '': the preset's own, none: from scratch")

    epochs: int | None = Field(None, ge=1, description=_OWN)
    batch_size: int | None = Field(None, ge=1, description=f"pairs of a process in a forward pass; {_OWN}")
    accumulation: int = Field(1, ge=1, description="forward passes in an optimiser step")
    queue_size: int | None = Field(None, ge=0, description=f"features of each kind in the queue; {_OWN}")
    first_learning_rate: float | None = Field(None, ge=0, description=_OWN)
    peak_learning_rate: float | None = Field(None, ge=0, description=_OWN)
    last_learning_rate: float | None = Field(None, ge=0, description=_OWN)
    warm_up_steps: int | None = Field(None, ge=0, description=_OWN)
    weight_decay: float | None = Field(None, ge=0, description=_OWN)
    momentum: float | None = Field(None, ge=0, le=1, description=f"of the momentum towers; {_OWN}")
    soft_targets: float | None = Field(None, ge=0, le=1, description=f"weight of the momentum targets; {_OWN}")
    soft_target_epochs: float | None = Field(None, ge=0, description=f"over which that weight grows; {_OWN}")
    augmentation: float | None = Field(None, ge=0, le=1, description=f"share of pictures so changed; {_OWN}")
    clip_norm: float = Field(1.0, ge=0, description="largest norm of the gradient; 0: not limited")
    evaluation_pairs: int = Field(1000, ge=0, description="held-out pairs that an epoch is judged by")

    precision: Literal["auto", "bf16", "fp16", "fp32"] = "auto"
    compile: bool = Field(False, description="torch.compile")
    activation_checkpointing: bool = Field(False, description="less memory for about a third more computation")
    processes: int = Field(0, ge=0, description="training processes; 0: one for each GPU, else one")
    threads: int = Field(0, ge=0, description="of a process on the CPU; 0: its share of FACECAPTION_THREADS")
    loader_threads: int = Field(1, ge=1, description="of a process, that decode pictures")
    loader_process: bool = Field(False, description="decode in a process of its own beside each training process")
    window_row_groups: int = Field(16, ge=1, description="row groups that are shuffled together in memory")
    checkpoint_minutes: float = Field(15.0, ge=0, description="between checkpoints that a training goes on from")
    keep_checkpoints: int = Field(2, ge=1, description="of a training under way")
    log_every: int = Field(20, ge=1, description="steps")
    fresh: bool = Field(False, description="forget an unfinished training instead of going on with it")
