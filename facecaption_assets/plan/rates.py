"""The rates that a plan takes for granted: ``plan.toml``, under settings, under a file of the user's own."""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
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
    """A number, what it counts, and where it comes from. ``date``: ISO 8601, "" where it is the user's own."""

    value: float
    unit: str
    origin: str
    date: str = ""


@dataclass
class Rates:
    """Rates by name. Each that is looked up is remembered, since a plan shows what it rests on and no more."""

    currency: str
    by_name: Mapping[str, Rate]
    _used: set[str] = field(default_factory=set)

    def __getitem__(self, name: str) -> float:
        self._used.add(name)
        return self.by_name[name].value

    def get(self, name: str) -> float | None:
        """None where there is none."""
        return self[name] if name in self.by_name else None

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
    data = bundled()
    rates = {name: Rate(**entry, date=data["date"].isoformat()) for name, entry in data["rates"].items()}
    for name, rate in rates.items():
        setting = name.replace(".", "_")
        value = getattr(settings.plan, setting, None)
        if value is not None:
            rates[name] = replace(rate, value=value, date="", origin=f"{PREFIX}PLAN_{setting.upper()}")
    given = {} if own is None else _read(own)
    currency = str(given.pop("currency", data["currency"]))
    for name, value in _flat(given):
        if name not in rates:
            close = difflib.get_close_matches(name, rates, n=1)
            raise PlanError(f"--prices {own}: no rate {name!r}" + (f": did you mean {close[0]}?" if close else ""))
        rates[name] = replace(rates[name], value=_number(own, name, value), date="", origin=str(own))
    return Rates(currency, rates)


def _read(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise PlanError(f"--prices {path}: cannot be read: {error}") from error


def _flat(given: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in given.items():
        if isinstance(value, Mapping) and "value" not in value:
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield prefix + key, value["value"] if isinstance(value, Mapping) else value


def _number(path: Path | None, name: str, value: Any) -> float:
    is_number = isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < float("inf")
    wanted = "number above 0"
    if name.startswith("machines."):
        wanted, is_number = "whole number of at least 1", is_number and value == int(value)
    elif name.startswith(_MAY_BE_ZERO):
        wanted = "number of at least 0"
    if not is_number or (value == 0 and not name.startswith(_MAY_BE_ZERO)):
        raise PlanError(f"--prices {path}: {name} is {value!r}: it should be a {wanted}")
    return float(value)
