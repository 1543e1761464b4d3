"""What every asset of this project has: owner, machine, pool, retries, final errors, checks, a link to its code."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any, Final

import dagster as dg

from facecaption_assets.factories import code_versions
from facecaption_assets.factories.check import WARNINGS
from facecaption_assets.factories.records import FAILURE
from facecaption_assets.machines.compute import Compute
from facecaption_assets.machines.retries import no_retry_on_user_error, retry_policy
from facecaption_assets.settings import Settings
from facecaption_assets.settings.deploy import DeploySettings
from facecaption_ml.columns import described_columns
from facecaption_ml.schemas import Schema

SETTINGS_USED: Final = "settings"
"""The metadata of a materialization that says under which settings it was made."""


def configured_asset(
    settings: Settings,
    compute: Compute,
    *,
    team: str,
    code_version: str,
    reads: Collection[str],
    files: Collection[Path] = (),
    checks: Mapping[str, str],
    resources: Collection[str] = (),
    retries: Callable[[DeploySettings], dg.RetryPolicy | None] = retry_policy,
    defined_by: Callable[..., Any] | None = None,
    table: str | None = None,
    schema: Schema | None = None,
    blocking: bool = False,
    **given: Any,
) -> Callable[[Callable[..., Any]], dg.AssetsDefinition]:
    """Makes an asset of a function; ``given`` goes to ``dg.asset`` as it is.

    ``compute``: the machine of its steps, before the settings are applied. ``code_version`` is its own number; the settings
    and groups of settings that ``reads`` names and the ``files`` are added to it (``code_versions``). ``checks``: names to
    descriptions. ``retries`` gives the policy, if not that of most assets. ``defined_by``: the function whose file the
    asset's page leads to, if not the decorated one. ``table``: whose columns the page shows; ``schema``: of one that is not
    in ``SCHEMAS``. The store is always among the resources. Tags say the stage, what computes it, and where the pictures
    come from.
    """
    machine = compute.under(settings.deploy)
    version = code_versions.code_version(settings, code_version, reads, files)
    line = code_versions.settings_line(settings, reads)

    def decorate(function: Callable[..., Any]) -> dg.AssetsDefinition:
        name = given.get("name") or function.__name__
        partitions = given.get("partitions_def") if blocking else None
        metadata: dict[str, Any] = {
            "dagster/code_references": _code_reference(defined_by or function),
            **code_versions.shown_settings(settings, reads),
        }
        if table:
            metadata["dagster/column_schema"] = column_schema(table, schema)
        return dg.asset(
            **given,
            owners=[f"team:{team}"],
            code_version=version,
            pool=machine.pool,
            op_tags=machine.op_tags,
            retry_policy=retries(settings.deploy),
            required_resource_keys={"store", *resources},
            check_specs=[
                dg.AssetCheckSpec(
                    check,
                    asset=name,
                    description=text,
                    partitions_def=partitions,
                    blocking=blocking and check not in WARNINGS,
                )
                for check, text in checks.items()
            ],
            metadata=metadata,
            tags={
                "stage": str(given.get("group_name", "none")),
                "compute": "cpu" if not machine.gpus else "gpu" if machine.gpus == 1 else "gpus",
                "source": _kind_of_source(settings.source.location),
            },
        )(_recorded(name, no_retry_on_user_error(settings.deploy, retries)(_with_its_settings(function, line))))

    return decorate


def _with_its_settings(function: Callable[..., Any], line: str) -> Callable[..., Any]:
    """What the function returns says under which settings it was made; generators say it themselves, of each partition."""
    if inspect.isgeneratorfunction(function):
        return function

    @functools.wraps(function)
    def decorated(*args: Any, **kwargs: Any) -> dg.MaterializeResult:
        result = function(*args, **kwargs)
        return result._replace(metadata={**(result.metadata or {}), SETTINGS_USED: line})

    return decorated


def _recorded(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    """The function, whose failure is recorded with its reason on the page of the partition that it was for.

    Generators, as those of shards, record their failures themselves, one by one.
    """
    if inspect.isgeneratorfunction(function):
        return function

    @functools.wraps(function)
    def recorded(context: dg.AssetExecutionContext, *args: Any, **kwargs: Any) -> Any:
        try:
            return function(context, *args, **kwargs)
        except dg.Failure as failure:
            partition = context.partition_key if context.has_partition_key else None
            reason = failure.description or "the step failed"
            context.log_event(
                dg.AssetObservation(
                    name, partition=partition, description=f"FAILED: {reason}", metadata={FAILURE: reason}
                )
            )
            raise

    return recorded


def _kind_of_source(location: str) -> str:
    """Of the tag ``source``: ``sample``, ``s3``, ``files`` of this machine, or ``none`` where it is not set."""
    if location in ("", "sample"):
        return location or "none"
    return "s3" if location.lower().startswith("s3://") else "files"


def column_schema(table: str, schema: Schema | None = None) -> dg.TableSchema:
    """The columns of a table with their types in plain words and what they hold."""
    columns = described_columns(table, schema)
    return dg.TableSchema([dg.TableColumn(column.name, column.kind, column.text) for column in columns])


def _code_reference(function: Callable[..., Any]) -> dg.CodeReferencesMetadataValue:
    code = inspect.unwrap(function).__code__
    path = Path(code.co_filename).resolve()
    reference = dg.LocalFileCodeReference(
        file_path=str(path), line_number=code.co_firstlineno, label=f"{path.parent.name}/{path.name}"
    )
    return dg.CodeReferencesMetadataValue(code_references=[reference])
