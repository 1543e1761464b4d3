"""The ``FACECAPTION_BENCHMARK_*`` settings: where the benchmarks' data and models are, and how the probes are trained."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field

_FOLDER = "folder or s3://bucket/prefix"


class BenchmarkSettings(BaseModel):
    """The probes' defaults are the paper's (§5.2–5.4) where it gives one."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    celeba: str = Field("", description=f"{_FOLDER} of CelebA: pictures, list_attr_celeba, list_eval_partition")
    celeba_captions: str = Field(
        "", description=f"{_FOLDER} of CelebA-Caption's annotation files; '': captions from CelebA's true labels"
    )
    mm_celeba: str = Field("", description=f"{_FOLDER} of MM-CelebA-HQ: pictures, ten captions each, split")
    lfwa: str = Field("", description=f"{_FOLDER} of LFWA: lfw/ and its 40 attributes")
    fs2k: str = Field("", description=f"{_FOLDER} of FS2K, whose photos FS2K-SDE's and User-SDE's drawings show")
    fs2k_sde: str = Field("", description=f"{_FOLDER} of FS2K-SDE: dataset1/ and dataset2/")
    user_sde: str = Field("", description=f"{_FOLDER} of User-SDE: drawings by painters")
    photos: str = Field("", description=f"{_FOLDER} of any photos, to be turned into sketches by their contours")

    sample_pictures: int = Field(850, ge=20, description="drawn faces of the data set 'sample'")
    sample_drawings: int = Field(160, ge=10, description="drawn episodes of the data set 'sample'")

    clip: str = Field("openai/clip-vit-base-patch16", description="CLIP by folder or hub name")
    blip: str = Field("Salesforce/blip-itm-base-coco", description="BLIP by folder or hub name")
    align: str = Field("kakaobrain/align-base", description="ALIGN by folder or hub name")

    runs: int = Field(3, ge=1, description="probes with other seeds behind each number")
    views: int = Field(1, ge=1, description="1: the plain picture; more: that many random views of each, kept")
    encode_batch: int = Field(32, ge=1, description="pictures that a model encodes at once")
    retrieval_epochs: int = Field(20, ge=1)
    retrieval_learning_rate: float = Field(4e-4, gt=0)
    retrieval_batch: int = Field(256, ge=2)
    attribute_epochs: int = Field(100, ge=1)
    attribute_learning_rate: float = Field(0.3, gt=0)
    attribute_batch: int = Field(256, ge=1)
    sketch_epochs: int = Field(100, ge=1)
    sketch_learning_rate: float = Field(1e-6, gt=0)
    sketch_batch: int = Field(256, ge=2)
    weight_decay: float = Field(0.05, ge=0)
    regression_tolerance: float = Field(
        0.02,
        ge=0,
        le=1,
        description="a share of 1: a number that falls by more, and by more than its spread, is a warning",
    )
