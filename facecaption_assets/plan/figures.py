"""The figures that a plan takes for granted: ``plan.toml``, under settings, under a file of the user's own."""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from importlib import resources
from pathlib import Path
from typing import Any

from facecaption_assets.settings import PREFIX, Settings
from facecaption_ml.errors import FaceCaptionError


class PlanError(FaceCaptionError):
    """A plan cannot be made of what it was given; the message names the option, file or key."""


@dataclass(frozen=True)
class Figure:
    """A number, what it counts, and where it comes from. ``date``: ISO 8601, "" where it is the user's own."""

    value: float
    unit: str
    date: str
    origin: str


@dataclass
class Figures:
    """Figures by name. Each that is asked for is remembered, since a plan shows what it rests on and no more."""

    currency: str
    _figures: Mapping[str, Figure]
    _asked_for: dict[str, None] = field(default_factory=dict)

    def __contains__(self, name: str) -> bool:
        return name in self._figures

    def __getitem__(self, name: str) -> float:
        value = self._figures[name].value
        self._asked_for[name] = None
        return value

    def used(self) -> dict[str, Figure]:
        """Those asked for so far, in the order in which they were first needed."""
        return {name: self._figures[name] for name in self._asked_for}


def bundled() -> dict[str, Any]:
    """``plan.toml``."""
    return tomllib.loads(resources.files("facecaption_assets.plan").joinpath("plan.toml").read_text(encoding="utf-8"))


def load_figures(settings: Settings, own: Path | None) -> Figures:
    """The bundled figures, those that ``FACECAPTION_PLAN_*`` sets, and those of the TOML file ``own`` over both.

    A file has the names of plan.toml, as tables (``[price]`` with ``cpu = 0.08``) or dotted. Raises PlanError naming file and
    key for a name there is not and for what is no number of at least 0, of machines no whole one of at least 1.
    """
    data = bundled()
    found = {
        name: Figure(entry["value"], entry["unit"], entry["date"].isoformat(), entry["origin"])
        for name, entry in data["figures"].items()
    }
    for name, figure in found.items():
        setting = f"plan_{name.replace('.', '_')}"
        value = getattr(settings, setting, None)
        if value is not None:
            found[name] = replace(figure, value=value, date="", origin=f"{PREFIX}{setting.upper()}")
    currency = data["currency"]
    if own is not None:
        given = _read(own)
        currency = str(given.pop("currency", currency))
        for name, value in _flat(given):
            found[name] = replace(
                found.get(name) or _unknown(own, name, found), value=_number(own, name, value), date="", origin=str(own)
            )
    return Figures(currency, found)


def _read(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise PlanError(f"--prices {path}: cannot be read: {error}") from error


def _flat(given: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in given.items():
        if isinstance(value, Mapping) and "value" in value:
            yield prefix + key, value["value"]
        elif isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield prefix + key, value


def _unknown(path: Path, name: str, known: Mapping[str, Figure]) -> Figure:
    close = difflib.get_close_matches(name, known, n=1)
    raise PlanError(f"--prices {path}: no figure {name!r}" + (f": did you mean {close[0]}?" if close else ""))


# What rows are divided by: nothing at all would take for ever.
_NOT_ZERO = (
    "shard.",
    "reference.",
    "factor.",
    "flip.scaling",
    "requests.part",
    "requests.row",
    "requests.pic",
)


def _number(path: Path, name: str, value: Any) -> float:
    good = isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < float("inf")
    if name.startswith("machines.") and not (good and value >= 1 and value == int(value)):
        raise PlanError(f"--prices {path}: {name} is {value!r}: it should be a whole number of at least 1")
    if not good or (value == 0 and name.startswith(_NOT_ZERO)):
        least = "above 0" if name.startswith(_NOT_ZERO) else "of at least 0"
        raise PlanError(f"--prices {path}: {name} is {value!r}: it should be a number {least}")
    return float(value)
