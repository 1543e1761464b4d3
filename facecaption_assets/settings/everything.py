"""The ``FACECAPTION_*`` environment as one typed object; profiles overlay the defaults (``profiles.toml``)."""

from __future__ import annotations

import difflib
import json
import os
import re
import tomllib
from pathlib import Path
from typing import Annotated, Any, Final, Literal

from pydantic import Field, SecretStr, ValidationError, field_validator
from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings, NoDecode, PydanticBaseSettingsSource, SettingsConfigDict

from facecaption_assets.settings.automation import AutomationSettings
from facecaption_assets.settings.benchmarks import BenchmarkSettings
from facecaption_assets.settings.deploy import DeploySettings
from facecaption_assets.settings.flip import FlipSettings
from facecaption_assets.settings.plan import PlanSettings
from facecaption_assets.settings.storage import StorageSettings
from facecaption_ml.errors import FaceCaptionError

PREFIX: Final = "FACECAPTION_"
_USER_INFO: Final = re.compile(r"//[^/@\s]+@")
REMOVALS: Final = "removals.txt"
"""The removal list in HOME that counts where no other is named."""
THIS_DATA_SET: Final = "This data set"
"""The name of the data set among those that statistics compare it with."""
_PROFILES: Final = tomllib.loads((Path(__file__).parent / "profiles.toml").read_text(encoding="utf-8"))


class SettingsError(FaceCaptionError):
    """A setting is unknown or has an unusable value; the message names it."""


class DataSetSettings(BaseSettings):
    """Where everything lies, and how the data set is made and measured."""

    profile: str = Field("sample", description="production, sample or photos: which overlay of profiles.toml applies")
    home: Path = Field(Path(".facecaption"), description="folder of everything this project writes on this machine")
    device: Literal["auto", "cpu", "cuda"] = "auto"
    threads: int = Field(0, ge=0, description="threads for models on the CPU; 0: all cores")

    source: str = Field("", description="table file, folder or s3:// address of the images; 'sample': the sample world")
    url_column: str = "URL"
    text_column: str = "TEXT"
    width_column: str = "WIDTH"
    height_column: str = "HEIGHT"
    nsfw_column: str = "NSFW"
    nsfw_values: list[str] = Field(["NSFW"], description="words of the NSFW column that exclude a row")
    allow_nsfw: bool = False
    shard_size: int = Field(10_000, ge=1, le=1_000_000, description="source rows in a shard")
    shards_per_run: int = Field(1, ge=1, description="shards that one run of a backfill takes")

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
    deny_list: str = Field("", description="file or s3://BUCKET/KEY of what is never downloaded")
    success_floor: float = Field(0.3, ge=0, le=1, description="a shard with a lower share of good images is not done")

    detector_weights: str = Field("bundled", description="bundled, download, or a .pth file")
    detector_network: Literal["mobile0.25", "resnet50"] = "mobile0.25"
    detector_working_size: int = Field(640, ge=64)
    detector_batch_size: int = Field(0, ge=0, description="pictures of one size at once; 0: 2 on a CPU, 32 on a GPU")
    min_face_score: float = Field(0.98, ge=0, le=1)
    min_face_side: int = Field(128, ge=1, description="pixels; both sides of a face box must exceed it")
    crop_margin: float = Field(0.3, ge=0, le=2, description="share of the box's sides added on each side")

    attribute_weights: str = Field("", description="bundled or a checkpoint folder; default: train on attribute_data")
    attribute_data: str = Field("", description="CelebA-layout folder, or 'sample' for drawn portraits")
    attribute_preset: str = "resnet50"
    attribute_init: str = Field("", description="checkpoint folder that the training fine-tunes; '': random weights")
    attribute_epochs: int = Field(0, ge=0, description="0: the preset's own number")
    attribute_threshold: float = Field(0.85, gt=0.5, lt=1)
    min_labels: int = Field(6, ge=1, description="fewest valid labels of a kept face (more than five)")

    grammar: str = Field("bundled", description="bundled or a grammar file")
    seed: int = Field(0, ge=0)

    llm_backend: Literal["local", "endpoint", "vllm", "none"] = Field(
        "local", description="who rewrites captions: transformers here, an OpenAI-compatible endpoint, vLLM, nobody"
    )
    llm_model: str = Field(
        "Qwen/Qwen2.5-7B-Instruct",
        description="hub name, folder, GGUF file, the endpoint's name, or smollm2-135m-instruct",
    )
    llm_endpoint: str = Field("", description="address that ends in /v1, for the backend 'endpoint'")
    llm_api_key: SecretStr = Field(SecretStr(""), description="key of the endpoint")
    llm_prompt: str = Field("bundled", description="bundled or a file like rewriting.toml")
    llm_guided: bool = Field(False, description="guided decoding, which small models need; backend 'local' only")
    llm_attempts: int = Field(4, ge=1, description="seeds tried for a caption before its template caption is kept")
    llm_temperature: float = Field(0.7, ge=0)
    llm_top_p: float = Field(0.9, gt=0, le=1)
    llm_max_new_tokens: int = Field(120, ge=1)
    llm_least_fluency: float = Field(
        -1.2, le=0, description="guided decoding: lowest mean log-probability of a token of a caption"
    )
    llm_batch_size: int = Field(64, ge=1, description="captions that the model writes at once")
    llm_concurrency: int = Field(16, ge=1, description="requests in flight at the endpoint")
    llm_timeout_s: float = Field(60.0, gt=0, description="of one request to the endpoint")
    llm_acceptance_floor: float = Field(
        0.5, ge=0, le=1, description="a lower share of LLM captions in a shard is a warning"
    )

    release_images: bool = Field(False, description="put the crops' pixels into the release")
    removal_list: str = Field(
        "",
        description=f"file or s3://BUCKET/KEY of URLs, hosts, ids and hashes to leave out; '': HOME/{REMOVALS}, if there",
    )
    validation_share: float = Field(0.05, ge=0, lt=1)
    test_share: float = Field(0.05, ge=0, lt=1)

    clip: str = Field("", description="CLIP checkpoint of image_quality: folder or hub name; '': BRISQUE alone")
    itm_model: str = Field(
        "", description="BLIP by folder or hub name, or flip_checkpoint/VARIANT; '': no image_text_matching"
    )
    quality_folders: Annotated[dict[str, Path], NoDecode] = Field(
        default_factory=dict, description="folders of pictures to compare with: NAME=PATH,NAME=PATH or a JSON object"
    )
    quality_sample: int = Field(50_000, ge=1, description="pictures that image_quality scores of each data set")
    matching_sample: int = Field(10_000, ge=1, description="faces that image_text_matching scores, held in memory")

    sample_scenes: int = Field(600, ge=1)
    sample_portraits: int = Field(2500, ge=100, description="labelled portraits for the attribute model")

    @field_validator("quality_folders", mode="before")
    @classmethod
    def _read_folders(cls, value: Any) -> Any:
        return named_folders(value) if isinstance(value, str | list) else value


class Settings(
    AutomationSettings, DeploySettings, BenchmarkSettings, FlipSettings, PlanSettings, StorageSettings, DataSetSettings
):
    """Every setting of the pipeline, with the paper's value as the default where the paper gives one."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, extra="forbid", frozen=True)

    @property
    def dagster_home(self) -> Path:
        return self.home / "dagster"

    @property
    def store_root(self) -> str:
        return self.store or str(self.home / "store")

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        return init_settings, env_settings, _ProfileSource(settings_cls, init_settings)


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


class _ProfileSource(PydanticBaseSettingsSource):
    """The values of the chosen profile, below the environment and above the defaults."""

    def __init__(self, settings_cls: type[BaseSettings], init: PydanticBaseSettingsSource) -> None:
        super().__init__(settings_cls)
        self._init = init

    def get_field_value(self, field: FieldInfo, field_name: str) -> tuple[Any, str, bool]:
        return None, field_name, False

    def __call__(self) -> dict[str, Any]:
        default = Settings.model_fields["profile"].default
        profile = self._init().get("profile") or os.environ.get(f"{PREFIX}PROFILE") or default
        if profile not in _PROFILES:
            raise SettingsError(f"{PREFIX}PROFILE is {profile!r}: the profiles are {', '.join(_PROFILES)}")
        return dict(_PROFILES[profile])


def load_settings(**overrides: Any) -> Settings:
    """Settings from overrides, environment, profile and defaults, in that order of precedence.

    Keys of S3 among them are handed on to AWS's own variables (``StorageSettings.export_credentials``). Raises SettingsError
    with one line that names the first setting that is unknown or unusable.
    """
    known = {PREFIX + name.upper() for name in Settings.model_fields}
    for name in sorted(os.environ):
        if name.startswith(PREFIX) and name not in known:
            close = difflib.get_close_matches(name, sorted(known), n=1)
            raise SettingsError(f"unknown setting {name}" + (f": did you mean {close[0]}?" if close else ""))
    try:
        settings = Settings(**{key: value for key, value in overrides.items() if value is not None})
    except SettingsError:
        raise
    except ValidationError as error:
        first = error.errors()[0]
        name = PREFIX + "_".join(str(part) for part in first["loc"]).upper()
        shown = _USER_INFO.sub("//…@", repr(first["input"]))
        raise SettingsError(f"{name} is {shown}: {first['msg']}") from None
    except Exception as error:  # pydantic-settings wraps unreadable list values in an error of its own
        raise SettingsError(str(error).splitlines()[0]) from None
    if settings.validation_share + settings.test_share >= 1:
        raise SettingsError(f"{PREFIX}VALIDATION_SHARE and {PREFIX}TEST_SHARE leave nothing to train on")
    settings.export_credentials()
    home = settings.home.expanduser().resolve()
    own_list = "" if settings.removal_list or not (home / REMOVALS).is_file() else str(home / REMOVALS)
    return settings.model_copy(update={"home": home, "removal_list": settings.removal_list or own_list})
