from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from hostile_site import Site, running_site


@pytest.fixture
def site() -> Iterator[Site]:
    with running_site() as found:
        yield found
