"""The ``FACECAPTION_BENCHMARK_*`` settings: where the benchmarks' data and models are, and how the probes are trained."""

from __future__ import annotations

from pydantic import Field
from pydantic_settings import BaseSettings

_FOLDER = "folder or s3://bucket/prefix"


class BenchmarkSettings(BaseSettings):
    """The probes' defaults are the paper's (§5.2–5.4) where it gives one."""

    benchmark_celeba: str = Field(
        "", description=f"{_FOLDER} of CelebA: pictures, list_attr_celeba, list_eval_partition"
    )
    benchmark_celeba_captions: str = Field(
        "", description=f"{_FOLDER} of CelebA-Caption's annotation files; '': captions from CelebA's true labels"
    )
    benchmark_mm_celeba: str = Field("", description=f"{_FOLDER} of MM-CelebA-HQ: pictures, ten captions each, split")
    benchmark_lfwa: str = Field("", description=f"{_FOLDER} of LFWA: lfw/ and its 40 attributes")
    benchmark_fs2k: str = Field(
        "", description=f"{_FOLDER} of FS2K, whose photos FS2K-SDE's and User-SDE's drawings show"
    )
    benchmark_fs2k_sde: str = Field("", description=f"{_FOLDER} of FS2K-SDE: dataset1/ and dataset2/")
    benchmark_user_sde: str = Field("", description=f"{_FOLDER} of User-SDE: drawings by painters")
    benchmark_photos: str = Field(
        "", description=f"{_FOLDER} of any photos, to be turned into sketches by their contours"
    )

    benchmark_sample_pictures: int = Field(850, ge=20, description="drawn faces of the data set 'sample'")
    benchmark_sample_drawings: int = Field(160, ge=10, description="drawn episodes of the data set 'sample'")

    benchmark_clip: str = Field("openai/clip-vit-base-patch16", description="CLIP by folder or hub name")
    benchmark_blip: str = Field("Salesforce/blip-itm-base-coco", description="BLIP by folder or hub name")
    benchmark_align: str = Field("kakaobrain/align-base", description="ALIGN by folder or hub name")

    benchmark_runs: int = Field(3, ge=1, description="probes with other seeds behind each number")
    benchmark_views: int = Field(
        1, ge=1, description="1: the plain picture; more: that many random views of each, kept"
    )
    benchmark_encode_batch: int = Field(32, ge=1, description="pictures that a model encodes at once")
    benchmark_retrieval_epochs: int = Field(20, ge=1)
    benchmark_retrieval_learning_rate: float = Field(4e-4, gt=0)
    benchmark_retrieval_batch: int = Field(256, ge=2)
    benchmark_attribute_epochs: int = Field(100, ge=1)
    benchmark_attribute_learning_rate: float = Field(0.3, gt=0)
    benchmark_attribute_batch: int = Field(256, ge=1)
    benchmark_sketch_epochs: int = Field(100, ge=1)
    benchmark_sketch_learning_rate: float = Field(1e-6, gt=0)
    benchmark_sketch_batch: int = Field(256, ge=2)
    benchmark_weight_decay: float = Field(0.05, ge=0)
    benchmark_regression_tolerance: float = Field(
        0.02,
        ge=0,
        le=1,
        description="a share of 1: a number that falls by more, and by more than its spread, is a warning",
    )
