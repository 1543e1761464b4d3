"""``facecaption …`` as typed: within this process, or in one of its own."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from pathlib import Path
from unittest import mock

from click.testing import CliRunner

from facecaption_assets.commands.cli import main

REPOSITORY = Path(__file__).parents[2]
Done = subprocess.CompletedProcess[str]


def invoke(*arguments: str | Path, home: Path, **environment: str) -> Done:
    """Run the command here. What it sets in the environment, and where it sends the log, ends with it."""
    logger = logging.getLogger("facecaption")
    handlers, level = logger.handlers[:], logger.level
    with mock.patch.dict(os.environ, {"FACECAPTION_HOME": str(home), "FACECAPTION_THREADS": "1", **environment}):
        try:
            result = CliRunner().invoke(main, [str(argument) for argument in arguments], prog_name="facecaption")
        finally:
            logger.handlers[:] = handlers
            logger.setLevel(level)
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    return subprocess.CompletedProcess(arguments, result.exit_code, result.stdout, result.stderr)


def start(*arguments: str | Path, home: Path, **environment: str) -> Done:
    """Run the command in a process of its own, without settings but the given ones."""
    env = clean_environment(home, **environment)
    return subprocess.run(command(*arguments), capture_output=True, text=True, cwd=REPOSITORY, env=env, timeout=280)


def clean_environment(home: Path, **settings: str) -> dict[str, str]:
    clean = {name: value for name, value in os.environ.items() if not name.startswith("FACECAPTION_")}
    return {**clean, "FACECAPTION_HOME": str(home), "OMP_NUM_THREADS": "1", **settings}


def command(*arguments: str | Path) -> list[str]:
    """What starts it in a process of its own."""
    return [sys.executable, "-W", "ignore", "-m", "facecaption_assets.commands.cli", *map(str, arguments)]


def assert_one_line(done: Done, *words: str) -> None:
    """A non-zero exit, and a last line that holds every word; no traceback anywhere."""
    assert done.returncode != 0
    assert "Traceback" not in done.stderr
    last = done.stderr.strip().splitlines()[-1]
    for word in words:
        assert word in last, done.stderr
