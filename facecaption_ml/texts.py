"""Texts from outside (URLs, names, answers of servers) made fit for one line of a message, a log or a table."""

from __future__ import annotations

import re
from typing import Final

LINE: Final = 120
"""Characters of a line, where nothing else is said."""
_DATA_URL: Final = re.compile(r"data:([\w./+-]{0,40})[;,]", re.IGNORECASE)


def shortened(text: str, most: int = LINE) -> str:
    """A text on one line, cut to ``most`` characters; of a ``data:`` URL no more than its kind and how long it is."""
    line = " ".join(text.split())
    data = _DATA_URL.match(line)
    if data:
        line = f"data:{data[1]},… ({len(line):,} characters)"
    return line if len(line) <= most else f"{line[: most - 1]}…"
