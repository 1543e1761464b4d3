"""How many examples hypothesis tries: each test says what is thorough enough for it, the profile of the run scales that.

``pytest --hypothesis-profile=quick`` (`make test`), default (`make test-all`) or thorough (`make test-production`).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from hypothesis import settings

QUICK = 20  # of any test, in the profile of that name
THOROUGH = 5  # times as many as in the default profile


def register_profiles() -> None:
    """Called once, before any test is collected: the number of a test is fixed when its module is imported."""
    for name in ("quick", "default", "thorough"):
        # Examples share the machine with other workers: how long one takes says nothing.
        settings.register_profile(name, deadline=None, max_examples=scaled(100, name))
    settings.load_profile("default")


def scaled(count: int, profile: str) -> int:
    """What ``count`` examples of the default profile are in another one."""
    return {"quick": min(count, QUICK), "thorough": THOROUGH * count}.get(profile, count)


def examples(count: int) -> Callable[[Any], Any]:
    """As hypothesis' ``settings(max_examples=count)``, but scaled by the profile."""
    return settings(max_examples=scaled(count, settings.get_current_profile_name()))
