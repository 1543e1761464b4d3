"""The ``FACECAPTION_*`` settings: typed groups, profiles, and the one way to load them."""

from facecaption_assets.settings.everything import SETTINGS, Settings
from facecaption_assets.settings.loading import PROFILES, SettingsError, load_settings
from facecaption_assets.settings.naming import PREFIX
from facecaption_assets.settings.pipeline import REMOVALS, THIS_DATA_SET

__all__ = ["PREFIX", "PROFILES", "REMOVALS", "SETTINGS", "THIS_DATA_SET", "Settings", "SettingsError", "load_settings"]
