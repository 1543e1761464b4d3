"""``facecaption plan``: what a data set of a given size takes in time, machines, storage, requests and money."""

from __future__ import annotations

from pathlib import Path

import click
import dagster as dg

from facecaption_assets.commands.instance import prepare_home
from facecaption_assets.plan.planning import Request, make_plan
from facecaption_assets.plan.rates import PlanError, load_rates
from facecaption_assets.plan.report import as_json, as_markdown
from facecaption_assets.settings import Settings
from facecaption_ml.storage.local_files import write_file


def read_count(text: str) -> int:
    """A count such as ``50_000_000`` or ``50,000,000``. Raises PlanError for anything that is not at least 1."""
    digits = text.strip().replace("_", "").replace(",", "")
    if not (digits.isascii() and digits.isdigit() and int(digits)):
        raise PlanError(f"--urls {text!r}: it should be a number of at least 1, such as 50_000_000")
    return int(digits)


def show_plan(settings: Settings, request: Request, prices: Path | None, as_record: bool, out: Path | None) -> None:
    """Print the plan, or write it to ``out`` as Markdown. Raises PlanError, StoreError or OSError with one line."""
    rates = load_rates(settings, prices)
    if out is not None and not out.parent.is_dir():
        raise PlanError(f"--out {out}: there is no folder {out.parent}")
    prepare_home(settings)
    store = settings.open_store()
    with dg.DagsterInstance.get() as instance:
        plan = make_plan(request, settings, store, instance, rates)
    if out is not None:
        write_file(out, f"{as_markdown(plan)}\n")
        click.echo(f"the plan is in {out}", err=True)
    if as_record or out is None:
        click.echo(as_json(plan) if as_record else as_markdown(plan))
