"""What every asset of this project has: owner, machine, pool, retries, final errors, checks, a link to its code."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any, Final

import dagster as dg

from facecaption_assets.factories import code_versions
from facecaption_assets.machines.compute import Compute
from facecaption_assets.machines.retries import no_retry_on_user_error, retry_policy
from facecaption_assets.settings import Settings
from facecaption_assets.settings.deploy import DeploySettings
from facecaption_ml.schemas import SCHEMAS

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
    blocking: bool = False,
    **given: Any,
) -> Callable[[Callable[..., Any]], dg.AssetsDefinition]:
    """Makes an asset of a function; ``given`` goes to ``dg.asset`` as it is.

    ``compute``: the machine of its steps, before the settings are applied. ``code_version`` is its own number; the settings
    and groups of settings that ``reads`` names and the ``files`` are added to it (``code_versions``). ``checks``: names to
    descriptions. ``retries`` gives the policy, if not that of most assets. ``defined_by``: the function whose file the asset's page leads to, if not
    the decorated one. ``table``: whose columns the page shows. The store is always among the resources.
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
            columns = [dg.TableColumn(column, str(dtype)) for column, dtype in SCHEMAS[table].items()]
            metadata["dagster/column_schema"] = dg.TableSchema(columns)
        return dg.asset(
            **given,
            owners=[f"team:{team}"],
            code_version=version,
            pool=machine.pool,
            op_tags=machine.op_tags,
            retry_policy=retries(settings.deploy),
            required_resource_keys={"store", *resources},
            check_specs=[
                dg.AssetCheckSpec(check, asset=name, description=text, partitions_def=partitions, blocking=blocking)
                for check, text in checks.items()
            ],
            metadata=metadata,
        )(no_retry_on_user_error(settings.deploy)(_saying_its_settings(function, line)))

    return decorate


def _saying_its_settings(function: Callable[..., Any], line: str) -> Callable[..., Any]:
    """What the function returns says under which settings it was made; generators say it themselves, of each partition."""
    if inspect.isgeneratorfunction(function):
        return function

    @functools.wraps(function)
    def decorated(*args: Any, **kwargs: Any) -> dg.MaterializeResult:
        result = function(*args, **kwargs)
        return result._replace(metadata={**(result.metadata or {}), SETTINGS_USED: line})

    return decorated


def _code_reference(function: Callable[..., Any]) -> dg.CodeReferencesMetadataValue:
    code = inspect.unwrap(function).__code__
    path = Path(code.co_filename).resolve()
    reference = dg.LocalFileCodeReference(
        file_path=str(path), line_number=code.co_firstlineno, label=f"{path.parent.name}/{path.name}"
    )
    return dg.CodeReferencesMetadataValue(code_references=[reference])
