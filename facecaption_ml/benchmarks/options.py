"""How the probes of each task are trained: options with the paper's values (§5.2–5.4), without any heavy library."""

from __future__ import annotations

from typing import Final

from pydantic import BaseModel, ConfigDict, Field

_FROZEN: Final = ConfigDict(frozen=True, extra="forbid")


class ProbeOptions(BaseModel):
    """The options of one task's probes. The paper gives epochs and rates, not the batch size."""

    model_config = _FROZEN

    epochs: int = Field(ge=1, description="epochs of a probe's training")
    learning_rate: float = Field(gt=0, description="AdamW's rate at the start; it falls to 0 on a cosine")
    batch_size: int = Field(default=256, ge=1, description="rows in a step of a probe's training")


class RetrievalProbeOptions(ProbeOptions):
    """Text-image retrieval (§5.2). A batch of one has nothing to contrast with."""

    epochs: int = Field(default=20, ge=1, description="epochs of a retrieval probe's training")
    learning_rate: float = Field(default=4e-4, gt=0, description="AdamW's rate of a retrieval probe at the start")
    batch_size: int = Field(default=256, ge=2, description="pairs in a step of a retrieval probe's training")
    rerank: int = Field(
        default=0, ge=0, description="best candidates that FLIP's matching head orders anew (the authors: 256); 0: none"
    )
    pretrained_heads: bool = Field(
        default=False, description="a FLIP's probe starts from its own projections, as the authors' code does"
    )


class AttributeProbeOptions(ProbeOptions):
    """Facial attributes (§5.3)."""

    epochs: int = Field(default=100, ge=1, description="epochs of an attribute probe's training")
    learning_rate: float = Field(default=0.3, gt=0, description="AdamW's rate of an attribute probe at the start")
    batch_size: int = Field(default=256, ge=1, description="pictures in a step of an attribute probe's training")


class SketchProbeOptions(ProbeOptions):
    """Sketch-less retrieval (§5.4). A batch of one has nothing to contrast with."""

    epochs: int = Field(default=100, ge=1, description="epochs of a sketch probe's training")
    learning_rate: float = Field(default=1e-6, gt=0, description="AdamW's rate of a sketch probe at the start")
    batch_size: int = Field(default=256, ge=2, description="sketches in a step of a sketch probe's training")


class SharedProbeOptions(BaseModel):
    """What the probes of all tasks have in common."""

    model_config = _FROZEN

    weight_decay: float = Field(default=0.05, ge=0, description="AdamW's weight decay of every probe")
    runs: int = Field(default=3, ge=1, description="probes with other seeds behind each number")
    views: int = Field(default=1, ge=1, description="1: the plain picture; more: that many random views of each, kept")


class ProbeProtocol(ProbeOptions, SharedProbeOptions):
    """Everything that a task's probes are trained with.

    ``views`` 1: every epoch sees the plain picture; V > 1: epoch e sees random view e mod V, where the authors draw anew in
    every epoch. ``runs`` probes are trained on ``device`` with the seeds ``seed``, ``seed`` + 1, …
    """

    rerank: int = Field(default=0, ge=0, description="see RetrievalProbeOptions")
    pretrained_heads: bool = Field(default=False, description="see RetrievalProbeOptions")
    seed: int = Field(default=0, description="the first probe's seed; each further one has the next")
    device: str = Field(default="cpu", description="torch device that the probes are trained on")

    @classmethod
    def of(
        cls, task: ProbeOptions, shared: SharedProbeOptions | None = None, *, seed: int = 0, device: str = "cpu"
    ) -> ProbeProtocol:
        """The protocol of a task's options and the shared ones."""
        return cls(**task.model_dump(), **(shared or SharedProbeOptions()).model_dump(), seed=seed, device=device)

    def describe(self, validated: bool) -> dict[str, str]:
        """For the record of a result. ``validated``: an epoch was chosen on a validation split."""
        views = (
            "plain" if self.views == 1 else f"{self.views} random views, one an epoch; plain for validation and test"
        )
        return {
            "epochs": str(self.epochs),
            "learning rate": f"{self.learning_rate:g}, cosine to 0",
            "weight decay": f"{self.weight_decay:g}",
            "batch size": str(self.batch_size),
            "runs": str(self.runs),
            "first seed": str(self.seed),
            "views": views,
            "epoch": "best on the validation split" if validated else "last (the data set has no validation split)",
        }


RETRIEVAL: Final = ProbeProtocol.of(RetrievalProbeOptions())
ATTRIBUTES: Final = ProbeProtocol.of(AttributeProbeOptions())
SKETCHES: Final = ProbeProtocol.of(SketchProbeOptions())
"""The protocols of the paper."""
