"""Every setting as a page of Markdown (``docs/settings.md``)."""

from __future__ import annotations

import inspect
import json
from collections.abc import Iterator
from itertools import groupby
from types import UnionType
from typing import Any, Final, Literal, Union, get_args, get_origin

from pydantic import SecretStr

from facecaption_assets.settings.everything import SETTINGS, Settings
from facecaption_assets.settings.loading import PROFILES
from facecaption_assets.settings.naming import Setting

_HEAD: Final = """# Settings

Made by `facecaption settings --markdown > docs/settings.md`; a test holds it equal to the code.

Every setting is an environment variable. Precedence: environment, then the profile (`FACECAPTION_PROFILE`, or
`facecaption --profile`), then the default. The last column says what a profile puts in the default's place.
`facecaption settings` lists the values that hold here.
"""


def settings_reference() -> str:
    """The page: a table for each group of settings."""
    return "\n".join([_HEAD, *_tables()])


def _tables() -> Iterator[str]:
    for group, members in groupby(SETTINGS.values(), key=lambda setting: setting.path[:-1][:1]):
        yield f"## {_title(group)}\n"
        yield "| setting | kind | default | what it does | profiles |"
        yield "| --- | --- | --- | --- | --- |"
        for setting in members:
            yield f"| {' | '.join(map(_cell, _row(setting)))} |"
        yield ""


def _title(group: tuple[str, ...]) -> str:
    if not group:
        return "Everywhere"
    model: Any = Settings
    for part in group:
        model = model.model_fields[part].annotation
    said = inspect.cleandoc(model.__doc__ or "").split("\n\n")[0].split(". ")[0].replace("\n", " ").rstrip(".")
    return f"{' '.join(group).capitalize()}: {said[:1].lower()}{said[1:]}" if said else group[-1].capitalize()


def _row(setting: Setting) -> tuple[str, ...]:
    profiles = [
        f"{name}: `{_shown(values[setting.name])}`" for name, values in PROFILES.items() if setting.name in values
    ]
    default = _shown(setting.info.get_default(call_default_factory=True))
    return (
        f"`{setting.variable}`",
        _kind(setting.info.annotation),
        f"`{default}`" if default else "",
        setting.info.description or "",
        ", ".join(profiles),
    )


def _kind(annotation: Any) -> str:
    origin = get_origin(annotation)
    if annotation == dict[str, Any]:
        return "JSON object"
    if origin is Literal:
        return " / ".join(str(value) or "''" for value in get_args(annotation))
    if origin in (Union, UnionType):
        return " or ".join(_kind(part) for part in get_args(annotation) if part is not type(None))
    names = {
        bool: "true / false",
        int: "whole number",
        float: "number",
        SecretStr: "secret",
        dict: "NAME=VALUE,…",
        tuple: "list",
    }
    return names.get(origin or annotation, "text")


def _shown(value: Any) -> str:
    if value is None or isinstance(value, SecretStr) or value in ((), {}):
        return ""
    return json.dumps(value) if isinstance(value, bool | tuple | list | dict) else str(value)


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")
