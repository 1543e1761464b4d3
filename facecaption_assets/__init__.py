"""The Dagster code location: thin assets over :mod:`facecaption_ml`."""
