"""How a list of images is read and cut into shards."""

from __future__ import annotations

import json
from typing import Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

_FROZEN: Final = ConfigDict(frozen=True, extra="forbid")


class SourceColumns(BaseModel):
    """Names of a list's columns; only ``url`` must exist. The defaults are LAION's. Case and blanks around a name do not count
    where no column has it exactly."""

    model_config = _FROZEN

    url: str = Field(default="URL", description="column of the image's URL")
    text: str = Field(default="TEXT", description="column of the alt text")
    width: str = Field(default="WIDTH", description="column of the width in pixels, as the list says")
    height: str = Field(default="HEIGHT", description="column of the height in pixels, as the list says")
    nsfw: str = Field(default="NSFW", description="column that says whether an image is safe to look at")
    file: str = Field(
        default="file_name", description="column of a picture's path from its table's folder, as in an imagefolder"
    )


class SourceRules(BaseModel):
    """How files are read where their names do not say it."""

    model_config = _FROZEN

    kind: Literal["auto", "tables", "pictures"] = Field(
        default="auto",
        description="what a folder with both holds; auto: a table that names its pictures, else an error",
    )
    tsv_quoting: bool = Field(
        default=False, description="whether quotes enclose fields of a .tsv, as they do in a .csv"
    )


class ShardRules(BaseModel):
    """Rows in a shard, and which rows of a list are dropped as NSFW (see ``build_shards``)."""

    model_config = _FROZEN

    shard_size: int = Field(default=10_000, ge=1, le=1_000_000, description="source rows in a shard")
    allow_nsfw: bool = Field(default=False, description="keep rows that the NSFW column excludes")
    nsfw_values: tuple[str, ...] = Field(
        default=("NSFW",), description="words of the NSFW column that exclude a row, as a JSON list"
    )

    @field_validator("nsfw_values", mode="before")
    @classmethod
    def _read_list(cls, value: Any) -> Any:
        if not isinstance(value, str):
            return value
        try:
            return json.loads(value)
        except json.JSONDecodeError:
            raise ValueError('should be a JSON list of words such as ["NSFW", "UNSURE"]') from None
