"""How faces are found and cropped. Loads neither PyTorch nor OpenCV, so that settings can be made of it."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

NetworkName = Literal["mobile0.25", "resnet50"]
Precision = Literal["float32", "float16", "bfloat16"]


class DetectorOptions(BaseModel):
    """Which RetinaFace is used, and at what size. Raises pydantic's ValidationError naming the option that is wrong."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    weights: str = Field(default="bundled", description="bundled, download, or a .pth file")
    network: NetworkName = Field(default="mobile0.25", description="backbone of RetinaFace that the weights are of")
    working_size: int = Field(
        default=0,
        ge=0,
        description="px; the longest side of a picture is reduced to it; 0: 640, and finer where min_face_side needs it",
    )
    batch_size: int = Field(default=0, ge=0, description="pictures of one size at once; 0: 2 on a CPU, 32 on a GPU")

    @field_validator("working_size")
    @classmethod
    def _large_enough(cls, size: int) -> int:
        if 0 < size < 64:
            raise ValueError("must be 0 or at least 64")
        return size


class DetectionRules(BaseModel):
    """What is looked for, and what counts as a detection. Raises pydantic's ValidationError naming the rule that is out of
    range."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    min_side: int = Field(
        default=128, ge=1, description="px; the smallest face looked for in pictures larger than the base working size"
    )
    enlarge: bool = Field(default=False, description="bring pictures that are smaller up to the working size, too")
    min_score: float = Field(default=0.5, gt=0, lt=1, description="detections at or below it are not reported")
    nms_iou: float = Field(default=0.4, gt=0, le=1, description="overlap above which the weaker of two detections goes")
    precision: Precision = Field(default="float32", description="number type of the network")


class CropRules(BaseModel):
    """Which faces are kept and how they are cropped (paper §3: 0.98 and 128 px). Raises pydantic's ValidationError naming the
    rule that is out of range."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    min_score: float = Field(default=0.98, ge=0, le=1, description="a face's score must exceed it")
    min_side: int = Field(default=128, ge=1, description="pixels; both sides of a face box must exceed it")
    margin: float = Field(default=0.3, ge=0, le=2, description="share of the box's sides added on each side")
