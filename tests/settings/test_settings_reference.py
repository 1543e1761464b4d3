"""docs/settings.md is what ``facecaption settings --markdown`` prints, and says something of every setting."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

from facecaption_assets.commands.cli import main
from facecaption_assets.settings import SETTINGS

PAGE = Path(__file__).parents[2] / "docs" / "settings.md"


def test_the_page_is_what_the_command_prints() -> None:
    result = CliRunner().invoke(main, ["settings", "--markdown"])
    assert result.exit_code == 0
    assert result.output == PAGE.read_text(encoding="utf-8"), "facecaption settings --markdown > docs/settings.md"


@pytest.mark.parametrize("name", SETTINGS)
def test_every_setting_has_a_description_and_a_line(name: str) -> None:
    setting = SETTINGS[name]
    assert (setting.info.description or "").strip()
    rows = [
        line for line in PAGE.read_text(encoding="utf-8").splitlines() if line.startswith(f"| `{setting.variable}` |")
    ]
    assert len(rows) == 1
