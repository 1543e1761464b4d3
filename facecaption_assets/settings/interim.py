"""Groups that become options classes of the library."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, Field

from facecaption_assets.settings.pipeline import FROZEN


class DownloadSettings(BaseModel):
    model_config = FROZEN
    connections: int = Field(128, ge=1)
    connections_per_host: int = Field(4, ge=1)
    connect_timeout_s: float = Field(5.0, gt=0)
    read_timeout_s: float = Field(10.0, gt=0)
    total_timeout_s: float = Field(30.0, gt=0)
    max_image_bytes: int = Field(20_000_000, ge=1)
    max_image_pixels: int = Field(100_000_000, ge=1)
    max_redirects: int = Field(5, ge=0)
    retries: int = Field(2, ge=0)
    backoff_s: float = Field(0.5, ge=0)
    user_agent_contact: str = Field("", description="URL or address of whoever runs the download, for the User-Agent")
    respect_opt_out: bool = True
    allow_private_addresses: bool = False


class DetectorSettings(BaseModel):
    model_config = FROZEN
    weights: str = Field("bundled", description="bundled, download, or a .pth file")
    network: Literal["mobile0.25", "resnet50"] = "mobile0.25"
    working_size: int = Field(640, ge=64)
    batch_size: int = Field(0, ge=0, description="pictures of one size at once; 0: 2 on a CPU, 32 on a GPU")


class CropSettings(BaseModel):
    model_config = FROZEN
    min_score: float = Field(0.98, ge=0, le=1)
    min_side: int = Field(128, ge=1, description="pixels; both sides of a face box must exceed it")
    margin: float = Field(0.3, ge=0, le=2, description="share of the box's sides added on each side")
