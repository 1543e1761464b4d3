"""The settings of the pipeline's stages that no options class of the library holds."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any, Final

from pydantic import BaseModel, ConfigDict, Field, field_validator

from facecaption_assets.settings.naming import Names
from facecaption_ml.attributes.labels import PAPER_THRESHOLD
from facecaption_ml.attributes.thresholds import LEAST_PRECISION, MOST_PRECISION
from facecaption_ml.captions.labels import known_attributes
from facecaption_ml.dataset.options import ShardRules, SourceColumns, SourceRules

REMOVALS: Final = "removals.txt"
"""The removal list in HOME that counts where no other is named."""
THIS_DATA_SET: Final = "This data set"
"""The name of the data set among those that statistics compare it with."""
FROZEN: Final = ConfigDict(frozen=True, extra="forbid")


class SourceSettings(BaseModel):
    """Where the images come from, and how they are cut into shards."""

    model_config = FROZEN

    location: str = Field(
        "", description="table file, folder or s3:// address of the images; 'sample': the sample world"
    )
    columns: Annotated[SourceColumns, Names("", {name: f"{name}_column" for name in SourceColumns.model_fields})] = (
        SourceColumns()
    )
    rules: Annotated[SourceRules, Names("source_")] = SourceRules()
    shards: Annotated[ShardRules, Names("")] = ShardRules()
    shards_per_run: int = Field(1, ge=1, description="shards that one run of a backfill takes")
    deny_list: str = Field("", description="file or s3://BUCKET/KEY of what is never downloaded")
    success_floor: float = Field(0.3, ge=0, le=1, description="a shard with a lower share of good images is not done")


class AttributeSettings(BaseModel):
    """Which network labels faces, how it is trained, and when a label holds."""

    model_config = FROZEN

    weights: str = Field("", description="bundled or a checkpoint folder; default: train on attribute_data")
    data: str = Field("", description="CelebA-layout folder, or 'sample' for drawn portraits")
    preset: str = Field(
        "resnet50", description="shape of the network and its training: resnet50, face_resnet, tiny or micro"
    )
    init: str = Field(
        "",
        description="what the training fine-tunes: a checkpoint folder, or face_resnet.safetensors; '': random weights",
    )
    epochs: int = Field(0, ge=0, description="0: the preset's own number")
    threshold: float = Field(
        PAPER_THRESHOLD, gt=0.5, lt=1, description="a label is valid above this probability, where label_precision is 0"
    )
    label_precision: float = Field(
        0.0,
        description=(
            "share of an attribute's labels that should be right, 0.5 to 0.99: each then has a threshold of its own from the "
            "checkpoint; 0 or none: attribute_threshold for all"
        ),
    )
    min_labels: int = Field(6, ge=1, description="fewest valid labels of a kept face (the paper: more than five)")

    @field_validator("label_precision", mode="before")
    @classmethod
    def _read_none(cls, value: Any) -> Any:
        return 0.0 if value is None or (isinstance(value, str) and value.strip().lower() in ("", "none")) else value

    @field_validator("label_precision")
    @classmethod
    def _within(cls, value: float) -> float:
        if value and not LEAST_PRECISION <= value <= MOST_PRECISION:
            raise ValueError(
                f"should be {LEAST_PRECISION} to {MOST_PRECISION}, or 0 for the one threshold of attribute_threshold"
            )
        return value


class CaptionSettings(BaseModel):
    """How template captions are written."""

    model_config = FROZEN

    grammar: str = Field("bundled", description="bundled or a grammar file")
    exclude: tuple[str, ...] = Field(
        (),
        description="labels that no caption says, as CelebA's names with commas: Attractive,Chubby; columns keep them",
    )

    @field_validator("exclude", mode="before")
    @classmethod
    def _read_names(cls, value: Any) -> Any:
        given = value.split(",") if isinstance(value, str) else value
        return known_attributes(filter(None, (str(name).strip() for name in given)))


class ReleaseSettings(BaseModel):
    """What is released, what is taken out, and how it is split."""

    model_config = FROZEN

    images: bool = Field(False, description="put the crops' pixels into the release")
    removal_list: str = Field(
        "",
        description=f"file or s3://BUCKET/KEY of URLs, hosts, ids and hashes to leave out; '': HOME/{REMOVALS}, if there",
    )
    validation_share: float = Field(0.05, ge=0, lt=1, description="of the released pairs")
    test_share: float = Field(0.05, ge=0, lt=1, description="of the released pairs")


class StatisticsSettings(BaseModel):
    """Which models judge the data set, on how many rows, and what it is compared with."""

    model_config = FROZEN

    clip: str = Field("", description="CLIP checkpoint of image_quality: folder or hub name; '': BRISQUE alone")
    itm_model: str = Field(
        "", description="BLIP by folder or hub name, or flip_checkpoint/VARIANT; '': no image_text_matching"
    )
    quality_folders: dict[str, Path] = Field(
        default_factory=dict, description="folders of pictures to compare with: NAME=PATH,NAME=PATH or a JSON object"
    )
    quality_sample: int = Field(50_000, ge=1, description="pictures that image_quality scores of each data set")
    matching_sample: int = Field(10_000, ge=1, description="faces that image_text_matching scores, held in memory")

    @field_validator("quality_folders", mode="before")
    @classmethod
    def _read_folders(cls, value: Any) -> Any:
        return named_folders(value) if isinstance(value, str | list) else value


class SampleSettings(BaseModel):
    """The size of the sample world."""

    model_config = FROZEN

    scenes: int = Field(600, ge=1, description="drawn scenes behind the sample world's URLs")
    portraits: int = Field(2500, ge=100, description="labelled portraits for the attribute model")


def named_folders(value: str | list[str]) -> dict[str, str]:
    """``NAME=PATH,…``, a JSON object or a JSON list, as a mapping; a path without a name gets its last part as one.

    Raises ValueError for a name that occurs twice or that stands for the data set itself.
    """
    given = json.loads(value) if isinstance(value, str) and value.lstrip().startswith(("{", "[")) else value
    if isinstance(given, dict):
        pairs = list(given.items())
    else:
        parts = [part.strip() for part in (given.split(",") if isinstance(given, str) else given)]
        cut = [part.partition("=") for part in parts if part]
        pairs = [(name.strip(), path.strip()) if equals else (Path(name).name, name) for name, equals, path in cut]
    names = [name for name, _ in pairs]
    if not all(name and path for name, path in pairs) or len(set(names)) < len(names) or THIS_DATA_SET in names:
        raise ValueError(f"each folder should be NAME=PATH with a name of its own, other than {THIS_DATA_SET!r}")
    return dict(pairs)
