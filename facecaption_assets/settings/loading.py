"""The one way to load settings: overrides, environment, profile (``profiles.toml``) and defaults, in that order."""

from __future__ import annotations

import difflib
import os
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from pydantic import SecretStr, ValidationError

from facecaption_assets.settings.everything import SETTINGS, Settings
from facecaption_assets.settings.naming import PREFIX, Setting
from facecaption_assets.settings.pipeline import REMOVALS
from facecaption_ml.errors import FaceCaptionError
from facecaption_ml.storage.base import normalize_scheme

PROFILES: Final[Mapping[str, Mapping[str, Any]]] = tomllib.loads(
    (Path(__file__).parent / "profiles.toml").read_text(encoding="utf-8")
)
_USER_INFO: Final = re.compile(r"//[^/@\s]+@")
_BY_PATH: Final = {setting.path: setting for setting in SETTINGS.values()}


class SettingsError(FaceCaptionError):
    """A setting is unknown or has an unusable value; the message names it."""


def load_settings(**overrides: Any) -> Settings:
    """Settings from overrides, environment, profile and defaults, in that order of precedence.

    ``overrides`` go by the settings' names (``shard_size=100``); None stands for none. Keys of S3 among the settings are
    handed on to AWS's own variables (``StorageSettings.export_credentials``). Raises SettingsError with one line that names
    the first setting that is unknown or unusable.
    """
    given = {name: value for name, value in overrides.items() if value is not None}
    _require_known(given)
    environment = _environment()
    profile = given.get("profile") or environment.get("profile") or SETTINGS["profile"].info.default
    if profile not in PROFILES:
        raise SettingsError(f"{PREFIX}PROFILE is {profile!r}: the profiles are {', '.join(PROFILES)}")
    settings = _validated({**PROFILES[profile], **environment, **given})
    if settings.release.validation_share + settings.release.test_share >= 1:
        raise SettingsError(f"{PREFIX}VALIDATION_SHARE and {PREFIX}TEST_SHARE leave nothing to train on")
    settings.storage.export_credentials()
    home = settings.home.expanduser().resolve()
    own_list = settings.release.removal_list or (str(home / REMOVALS) if (home / REMOVALS).is_file() else "")
    return settings.replaced(home=home, removal_list=own_list)


def _require_known(names: Mapping[str, Any]) -> None:
    for name in names:
        if name not in SETTINGS:
            raise SettingsError(_unknown(PREFIX + name.upper()))


def _environment() -> dict[str, str]:
    """The values of the environment by the settings' names."""
    values: dict[str, str] = {}
    for variable in sorted(os.environ):
        if variable.startswith(PREFIX):
            name = variable.removeprefix(PREFIX).lower()
            if name not in SETTINGS or variable != SETTINGS[name].variable:
                raise SettingsError(_unknown(variable))
            values[name] = os.environ[variable]
    return values


def _unknown(variable: str) -> str:
    close = difflib.get_close_matches(variable, sorted(setting.variable for setting in SETTINGS.values()), n=1)
    return f"unknown setting {variable}" + (f": did you mean {close[0]}?" if close else "")


def _validated(values: Mapping[str, Any]) -> Settings:
    nested: dict[str, Any] = {}
    for name, value in values.items():
        *groups, last = SETTINGS[name].path
        group = nested
        for part in groups:
            group = group.setdefault(part, {})
        group[last] = normalize_scheme(value) if isinstance(value, str) else value
    try:
        return Settings.model_validate(nested)
    except ValidationError as error:
        first = error.errors()[0]
        setting = _setting_at(first["loc"])
        if setting is None:
            raise SettingsError(
                f"settings of {'.'.join(map(str, first['loc']))}: {first['msg'].removeprefix('Value error, ')}"
            ) from None
        secret = setting.info.annotation is SecretStr
        shown = "…" if secret else _USER_INFO.sub("//…@", repr(first["input"]))
        raise SettingsError(f"{setting.variable} is {shown}: {first['msg'].removeprefix('Value error, ')}") from None


def _setting_at(place: tuple[int | str, ...]) -> Setting | None:
    """The setting that an error of pydantic is about; parts of a list or mapping stand behind its own path."""
    for length in range(len(place), 0, -1):
        if place[:length] in _BY_PATH:
            return _BY_PATH[tuple(map(str, place[:length]))]
    return None
