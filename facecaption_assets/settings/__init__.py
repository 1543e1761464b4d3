"""The ``FACECAPTION_*`` settings: typed groups, profiles, and the one way to load them."""

from facecaption_assets.settings.everything import (
    PREFIX,
    REMOVALS,
    THIS_DATA_SET,
    Settings,
    SettingsError,
    load_settings,
    named_folders,
)

__all__ = ["PREFIX", "REMOVALS", "THIS_DATA_SET", "Settings", "SettingsError", "load_settings", "named_folders"]
