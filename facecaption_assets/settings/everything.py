"""All settings as one object of typed groups. Where the library has an options class, that class is the group."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal

from pydantic import BaseModel, Field

from facecaption_assets.settings.automation import AutomationSettings
from facecaption_assets.settings.benchmarks import BenchmarkSettings
from facecaption_assets.settings.deploy import DeploySettings
from facecaption_assets.settings.naming import Names, Setting, settings_of
from facecaption_assets.settings.pipeline import (
    FROZEN,
    REMOVALS,
    AttributeSettings,
    CaptionSettings,
    ReleaseSettings,
    SampleSettings,
    SourceSettings,
    StatisticsSettings,
)
from facecaption_assets.settings.plan import PlanSettings
from facecaption_assets.settings.storage import StorageSettings
from facecaption_ml.captions.rewrite.options import RewritingOptions
from facecaption_ml.faces.options import CropRules, DetectorOptions
from facecaption_ml.flip.training.options import TrainingOptions
from facecaption_ml.images.policy import DownloadPolicy

if TYPE_CHECKING:
    from facecaption_ml.storage.store import Store


class Settings(BaseModel):
    """Every setting of the pipeline, with the paper's value as the default where the paper gives one."""

    model_config = FROZEN

    profile: str = Field("sample", description="production, sample or photos: which overlay of profiles.toml applies")
    home: Path = Field(Path(".facecaption"), description="folder of everything this project writes on this machine")
    device: Literal["auto", "cpu", "cuda"] = Field(
        "auto", description="where models run; auto: a GPU where there is one"
    )
    threads: int = Field(0, ge=0, description="threads for models on the CPU; 0: all cores")
    seed: int = Field(0, ge=0, description="of captions, trainings, samples and the sample world")

    storage: Annotated[StorageSettings, Names("")] = StorageSettings()
    source: Annotated[SourceSettings, Names("", {"location": "source"})] = SourceSettings()
    download: Annotated[DownloadPolicy, Names("")] = DownloadPolicy()
    detector: DetectorOptions = DetectorOptions()
    crops: Annotated[
        CropRules, Names("", {"min_score": "min_face_score", "min_side": "min_face_side", "margin": "crop_margin"})
    ] = CropRules()
    attributes: Annotated[
        AttributeSettings, Names("attribute_", {"label_precision": "label_precision", "min_labels": "min_labels"})
    ] = AttributeSettings()
    captions: Annotated[CaptionSettings, Names("", {"exclude": "caption_exclude"})] = CaptionSettings()
    llm: Annotated[RewritingOptions, Names("llm_", {"vllm": "vllm"})] = RewritingOptions()
    release: Annotated[ReleaseSettings, Names("", {"images": "release_images"})] = ReleaseSettings()
    statistics: Annotated[StatisticsSettings, Names("")] = StatisticsSettings()
    flip: TrainingOptions = TrainingOptions()
    benchmarks: Annotated[BenchmarkSettings, Names("benchmark_")] = BenchmarkSettings()
    sample: SampleSettings = SampleSettings()
    automation: Annotated[AutomationSettings, Names("", {"enabled": "automation"})] = AutomationSettings()
    deploy: Annotated[DeploySettings, Names("")] = DeploySettings()
    plan: PlanSettings = PlanSettings()

    @property
    def dagster_home(self) -> Path:
        return self.home / "dagster"

    @property
    def store_root(self) -> str:
        return self.storage.store or str(self.home / "store")

    @property
    def removals_address(self) -> str:
        """Where the removal list is now: as set, else HOME's own, which a first request may just have made; "" without one."""
        own = self.home / REMOVALS
        return self.release.removal_list or (str(own) if own.is_file() else "")

    def open_store(self) -> Store:
        """The store of tables and checkpoints."""
        from facecaption_ml.storage.store import Store

        return Store(self.store_root, self.storage.options)

    def replaced(self, **values: Any) -> Settings:
        """A copy with other values, by the settings' names, unchecked. Raises KeyError for a name there is not."""
        changed = self
        for name, value in values.items():
            changed = _with_value(changed, SETTINGS[name].path, value)
        return changed


SETTINGS: Final[dict[str, Setting]] = {setting.name: setting for setting in settings_of(Settings)}
"""Every setting by its name, in the order of the groups."""


def _with_value(model: Any, path: tuple[str, ...], value: Any) -> Any:
    head, *rest = path
    return model.model_copy(update={head: _with_value(getattr(model, head), tuple(rest), value) if rest else value})
