"""The ``FACECAPTION_BENCHMARK_*`` settings: where the benchmarks' data and models are, and how the probes are trained.

Folders and baselines follow from the library's registries: a data set that is added there has its setting.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

from pydantic import BaseModel, Field, create_model

from facecaption_assets.settings.naming import Names
from facecaption_assets.settings.pipeline import FROZEN
from facecaption_ml.benchmarks.datasets.registry import FOLDERS
from facecaption_ml.benchmarks.encoders.registry import HUB_MODELS
from facecaption_ml.benchmarks.options import (
    AttributeProbeOptions,
    ProbeOptions,
    RetrievalProbeOptions,
    SharedProbeOptions,
    SketchProbeOptions,
)


class _Locations(BaseModel):
    """Where something lies, by its name in a registry."""

    model_config = FROZEN


def _locations(name: str, fields: dict[str, tuple[str, str]]) -> type[_Locations]:
    """A group with a text field for each name; ``fields`` maps names to default and description."""
    given: dict[str, Any] = {
        field: (str, Field(default, description=description)) for field, (default, description) in fields.items()
    }
    return create_model(name, __base__=_Locations, **given)


if TYPE_CHECKING:  # their fields are the registries' entries, which type checkers cannot know

    class Folders(_Locations): ...

    class Baselines(_Locations): ...

else:
    Folders = _locations(
        "Folders", {name: ("", f"folder or s3://bucket/prefix of {spec.description}") for name, spec in FOLDERS.items()}
    )
    Baselines = _locations(
        "Baselines",
        {name: (spec.checkpoint, f"{spec.title} by folder or hub name") for name, spec in HUB_MODELS.items()},
    )


class BenchmarkSettings(BaseModel):
    """The benchmarks of the paper. The probes' defaults are the paper's (§5.2–5.4) where it gives one."""

    model_config = FROZEN

    folders: Annotated[Folders, Names("benchmark_")] = Folders()
    baselines: Annotated[Baselines, Names("benchmark_")] = Baselines()
    retrieval: Annotated[
        RetrievalProbeOptions, Names("benchmark_retrieval_", {"batch_size": "benchmark_retrieval_batch"})
    ] = RetrievalProbeOptions()
    attributes: Annotated[
        AttributeProbeOptions, Names("benchmark_attribute_", {"batch_size": "benchmark_attribute_batch"})
    ] = AttributeProbeOptions()
    sketches: Annotated[SketchProbeOptions, Names("benchmark_sketch_", {"batch_size": "benchmark_sketch_batch"})] = (
        SketchProbeOptions()
    )
    shared: Annotated[SharedProbeOptions, Names("benchmark_")] = SharedProbeOptions()

    sample_pictures: int = Field(850, ge=20, description="drawn faces of the data set 'sample'")
    sample_drawings: int = Field(160, ge=10, description="drawn episodes of the data set 'sample'")
    encode_batch: int = Field(32, ge=1, description="pictures that a model encodes at once")
    regression_tolerance: float = Field(
        0.02,
        ge=0,
        le=1,
        description="a share of 1: a number that falls by more, and by more than its spread, is a warning",
    )

    def probes(self, task: str) -> ProbeOptions:
        """How the probes of a task are trained."""
        options: ProbeOptions = getattr(self, task)
        return options

    def location(self, name: str) -> str:
        """Where a folder of the data sets is, or a baseline's checkpoint; '' where none is given."""
        return str(getattr(self.folders if name in FOLDERS else self.baselines, name))
