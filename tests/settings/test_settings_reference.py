"""docs/settings.md is what ``facecaption settings --markdown`` prints, and says something of every setting."""

from __future__ import annotations

import re
from pathlib import Path

from click.testing import CliRunner

from facecaption_assets.commands.cli import main
from facecaption_assets.settings import SETTINGS

PAGE = Path(__file__).parents[2] / "docs" / "settings.md"


def test_the_page_is_what_the_command_prints() -> None:
    result = CliRunner().invoke(main, ["settings", "--markdown"])
    assert result.exit_code == 0
    assert result.output == PAGE.read_text(encoding="utf-8"), "facecaption settings --markdown > docs/settings.md"


def test_every_setting_has_one_line() -> None:
    named = re.findall(r"^\| `(FACECAPTION_\w+)` \|", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    assert sorted(named) == sorted(setting.variable for setting in SETTINGS.values())
