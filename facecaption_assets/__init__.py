"""The Dagster code location: thin assets over :mod:`facecaption_ml`."""

import warnings

from dagster import BetaWarning, PreviewWarning

# Backfill policies and partitioned checks are marked beta and preview in the release that is pinned; saying so at every
# start, several times, tells users nothing that they could act on.
for _category in (BetaWarning, PreviewWarning):
    warnings.filterwarnings("ignore", category=_category, module=r"facecaption_assets|dagster")
