"""Links from assets' pages to their code: local files, or the repository on the web."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import dagster as dg

import facecaption_assets
from facecaption_assets.settings import Settings


def with_code_links(settings: Settings, assets: Sequence[dg.AssetsDefinition]) -> list[dg.AssetsDefinition]:
    """The assets, whose references to local files lead to the web where the repository's address is known.

    Dagster+ gives address and branch in ``DAGSTER_CLOUD_GIT_URL`` and ``DAGSTER_CLOUD_GIT_BRANCH``.
    """
    url = settings.deploy.code_url or os.environ.get("DAGSTER_CLOUD_GIT_URL", "")
    if not url:
        return list(assets)
    package = Path(facecaption_assets.__file__).parent
    linked = dg.link_code_references_to_git(
        assets,
        git_url=url,
        platform="gitlab" if "gitlab" in url else "github",
        git_branch=settings.deploy.code_revision or os.environ.get("DAGSTER_CLOUD_GIT_BRANCH") or "main",
        file_path_mapping=dg.AnchorBasedFilePathMapping(
            local_file_anchor=package, file_anchor_path_in_repository=package.name
        ),
    )
    return [definition for definition in linked if isinstance(definition, dg.AssetsDefinition)]
