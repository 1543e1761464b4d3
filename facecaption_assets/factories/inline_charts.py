"""Charts small enough for the Dagster UI to show them at once.

The UI renders Markdown below 1,000 characters in place and puts anything longer behind a link. A chart here is an SVG of a few
hundred characters in such a value; one of many bars is longer, and still a fraction of what a picture of them takes.
"""

from __future__ import annotations

import html
import math
from collections.abc import Mapping, Sequence
from typing import Final
from urllib.parse import quote

import numpy as np

_BINS: Final = 24
_BAR, _ROW, _TEXT, _LONGEST = 9, 15, 200, 200  # px: a bar's height, a row's, the names' column, the longest bar
_WIDTH, _HEIGHT = 360, 60  # px, of a histogram
_KEPT: Final = "!$'()*+,-./:;=?@_~ "


def bars(
    shares: Mapping[str, float], alt: str, baseline: Mapping[str, float] | None = None, form: str = "{:.1%}"
) -> str:
    """Markdown: a bar for each name with its number, by default a share of 1; a tick where ``baseline`` has that name's."""
    most = max([*shares.values(), *(baseline or {}).values()], default=0) or 1
    texts, drawn, ticks = [], [], []
    for row, (name, share) in enumerate(shares.items()):
        top = row * _ROW + 3
        shown = f"{name} {form.format(share)}"
        if baseline and name in baseline:
            shown += f" ({form.format(baseline[name])})"
        texts.append(f"<text y='{top + _BAR}'>{html.escape(shown, quote=False)}</text>")
        drawn.append(f"M{_TEXT} {top}h{round(_LONGEST * share / most)}v{_BAR}H{_TEXT}")
        if baseline and name in baseline:
            ticks.append(f"M{_TEXT + round(_LONGEST * baseline[name] / most)} {top - 2}v{_BAR + 4}")
    stroke = f"<path stroke='orange' stroke-width='2' d='{''.join(ticks)}'/>" if ticks else ""
    inner = f"<path fill='steelblue' d='{''.join(drawn)}'/>{stroke}{''.join(texts)}"
    return _markdown(inner, _TEXT + _LONGEST + 4, len(shares) * _ROW + 4, alt)


def histogram(values: Sequence[float] | np.ndarray, unit: str, alt: str) -> str:
    """Markdown: how the values are spread, with the least, the median and the greatest of them below."""
    numbers = np.asarray(values, dtype=float)
    numbers = numbers[np.isfinite(numbers)]
    if not numbers.size:
        return f"no values of {alt}"
    counts, _ = np.histogram(numbers, bins=_BINS)
    step, most = _WIDTH // _BINS, max(int(counts.max()), 1)
    tops = [_HEIGHT - math.ceil((_HEIGHT - 4) * int(count) / most) for count in counts]
    outline = f"M0 {_HEIGHT}" + "".join(f"V{top}h{step}" for top in tops) + f"V{_HEIGHT}"
    ends = [float(f"{value:.3g}") for value in (numbers.min(), float(np.median(numbers)), numbers.max())]
    foot = f"{ends[0]:g} to {ends[2]:g} {unit}, median {ends[1]:g}"
    inner = f"<path fill='steelblue' d='{outline}z'/><text y='{_HEIGHT + 13}'>{html.escape(foot, quote=False)}</text>"
    return _markdown(inner, _WIDTH, _HEIGHT + 18, alt)


def _markdown(inner: str, width: int, height: int, alt: str) -> str:
    size = f"width='{width}' height='{height}'"
    opening = f"<svg xmlns='http://www.w3.org/2000/svg' {size} font-family='sans-serif' font-size='11' fill='gray'>"
    return f"![{alt}](<data:image/svg+xml,{quote(opening + inner + '</svg>', safe=_KEPT)}>)"
