"""Which environment variable stands for which field of which group.

A field's variable is ``FACECAPTION_`` and the names of the groups on the way to it, but for what ``Names`` says otherwise.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

PREFIX: Final = "FACECAPTION_"
# Scheme, all before the path, path, query and fragment; an @ of a password that was not escaped stands before the path as well.
_ADDRESS: Final = re.compile(
    r"""([a-zA-Z][a-zA-Z0-9+.-]*://)([^\s/?#'",]*@[^\s/?#'",]*|[^\s/?#'",]*)([^\s?#'",]*)([?#][^\s'",]*)?"""
)


@dataclass(frozen=True)
class Names:
    """Of the variables of a group: what stands before its fields' names, and fields with a name of their own.

    ``prefix`` None: the group's own name and an underscore.
    """

    prefix: str | None = None
    own: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Setting:
    """One setting: its ``name`` (lower case, without the prefix), where its value lies, and what its field says."""

    name: str
    path: tuple[str, ...]
    info: FieldInfo

    @property
    def variable(self) -> str:
        return PREFIX + self.name.upper()

    def value(self, settings: BaseModel) -> Any:
        """Its value among given settings."""
        value: Any = settings
        for part in self.path:
            value = getattr(value, part)
        return value


def redact_addresses(value: object) -> str:
    """``value`` as text to be shown, a mapping as JSON: of every address in it, neither user and password nor query and
    fragment."""
    text = json.dumps(value, default=str) if isinstance(value, dict) else str(value)
    return _ADDRESS.sub(_shown_address, text)


def _shown_address(found: re.Match[str]) -> str:
    scheme, host, path, rest = found.groups(default="")
    _, at, host_alone = host.rpartition("@")
    return f"{scheme}{'***@' if at else ''}{host_alone}{path}{rest[:1] + '***' if rest else ''}"


def settings_of(
    model: type[BaseModel], path: tuple[str, ...] = (), prefix: str = "", own: Mapping[str, str] | None = None
) -> Iterator[Setting]:
    """Every setting of a model of nested groups, in the order of their definition."""
    for name, info in model.model_fields.items():
        flat = (own or {}).get(name, prefix + name)
        group = _group(info)
        if group is None:
            yield Setting(flat, (*path, name), info)
            continue
        given = next((entry for entry in info.metadata if isinstance(entry, Names)), Names())
        yield from settings_of(group, (*path, name), f"{flat}_" if given.prefix is None else given.prefix, given.own)


def _group(info: FieldInfo) -> type[BaseModel] | None:
    kind = info.annotation
    if get_origin(kind) is not None:
        kind = next((part for part in get_args(kind) if isinstance(part, type)), None)
    return kind if isinstance(kind, type) and issubclass(kind, BaseModel) else None
