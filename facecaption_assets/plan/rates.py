"""The rates that a plan takes for granted: ``plan.toml``, under settings, under a file of the user's own."""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any, Final

from facecaption_assets.settings import PREFIX, Settings
from facecaption_ml.errors import FaceCaptionError

_MAY_BE_ZERO: Final = ("price.", "storage.", "flip.epochs", "flip.bytes", "requests.write", "requests.open")


class PlanError(FaceCaptionError):
    """A plan cannot be made of what it was given; the message names the option, file or key."""


@dataclass(frozen=True)
class Rate:
    """A number, what it counts, and where it comes from."""

    value: float
    unit: str
    origin: str


@dataclass
class Rates:
    """Rates by name. Each that is looked up is remembered, since a plan shows what it rests on and no more."""

    currency: str
    by_name: Mapping[str, Rate]
    _used: set[str] = field(default_factory=set)

    def __getitem__(self, name: str) -> float:
        self._used.add(name)
        return self.by_name[name].value

    def used(self) -> dict[str, Rate]:
        """Those looked up so far, in the order of ``plan.toml``."""
        return {name: rate for name, rate in self.by_name.items() if name in self._used}


def bundled() -> dict[str, Any]:
    """``plan.toml``."""
    return tomllib.loads(resources.files("facecaption_assets.plan").joinpath("plan.toml").read_text(encoding="utf-8"))


def load_rates(settings: Settings, own: Path | None) -> Rates:
    """The bundled rates, those that ``FACECAPTION_PLAN_*`` sets, and those of the TOML file ``own`` over both.

    A file has the names of plan.toml, as tables (``[price]`` with ``cpu = 0.08``) or dotted. Raises PlanError naming file and
    key for an unknown name and for what is no number above 0 (prices and counts may be 0, machines are whole).
    """
    data, given = bundled(), dict[str, Any]()
    rates = {
        name: Rate(entry["value"], entry["unit"], f"{entry['origin']}, {data['date']}")
        for name, entry in data["rates"].items()
    }
    for setting, value in settings.plan.model_dump(exclude_none=True).items():
        name = setting.replace("_", ".", 1)
        rates[name] = Rate(value, rates[name].unit, f"{PREFIX}PLAN_{setting.upper()}")
    if own is not None:
        try:
            given = tomllib.loads(own.read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
            raise PlanError(f"--prices {own}: cannot be read: {error}") from error
    currency = str(given.pop("currency", data["currency"]))
    for name, value in _flat(given):
        if name not in rates:
            close = difflib.get_close_matches(name, rates, n=1)
            raise PlanError(f"--prices {own}: no rate {name!r}" + (f": did you mean {close[0]}?" if close else ""))
        if (wanted := _expected(name, value)) is not None:
            raise PlanError(f"--prices {own}: {name} is {value!r}: it should be a {wanted}")
        rates[name] = Rate(float(value), rates[name].unit, str(own))
    return Rates(currency, rates)


def _flat(given: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in given.items():
        if isinstance(value, Mapping) and "value" not in value:
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield prefix + key, value["value"] if isinstance(value, Mapping) else value


def _expected(name: str, value: Any) -> str | None:
    """The kind of number that a rate should be, None where ``value`` is of that kind."""
    is_number = type(value) in (int, float) and 0 <= value < float("inf")
    if name.startswith("machines."):
        return None if is_number and value >= 1 and value == int(value) else "whole number of at least 1"
    if name.startswith(_MAY_BE_ZERO):
        return None if is_number else "number of at least 0"
    return None if is_number and value > 0 else "number above 0"
