"""What takes long to make and is only looked at: made by one of the workers, and there for all of them."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable
from pathlib import Path

import pytest


def made_once(factory: pytest.TempPathFactory, name: str, make: Callable[[Path], object]) -> Path:
    """The folder ``name`` that ``make`` fills. Who asks while another worker makes it waits.

    Where ``make`` fails, the next who asks tries it again with an empty folder of another name.
    """
    base = factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        base = base.parent  # a worker's own folder is in the session's
    with (base / f"{name}.made").open("a+") as record:
        fcntl.flock(record, fcntl.LOCK_EX)
        record.seek(0)
        made = record.read()
        if not made:
            folder = factory.mktemp(name)
            make(folder)
            made = str(folder)
            record.write(made)
        return Path(made)
