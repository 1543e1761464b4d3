"""The Dagster code location: thin assets over :mod:`facecaption_ml`."""

import warnings

# Backfill policies and partitioned checks are marked beta and preview in the release that is pinned; saying so at every
# start, several times, tells users nothing that they could act on. By their text: Dagster takes a second to import.
warnings.filterwarnings(
    "ignore", message=r"(?s).* is currently in (beta|preview)", module=r"facecaption_assets|dagster"
)
