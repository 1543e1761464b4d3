"""The figures of the statistics: readable on a light and on a dark page, as SVG and PNG, equal bytes for equal numbers.

Backgrounds are transparent. Text and axes have the one grey that keeps a contrast of 4.5 : 1 on white as well as on black
(WCAG 2 level AA: #767676 has 4.54 and 4.62); the series' colours have a middle lightness and differ for colour-blind eyes
too (after Okabe and Ito, Color Universal Design, 2008).
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

import numpy as np

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

INK: Final = "#767676"
COLOURS: Final = ("#2b83c4", "#d1651a", "#00976d", "#b85f9a", "#a67c00", "#6b72c9")
"""Series colours in order; a seventh series begins again with dashes."""
LINES: Final = ("-", "--", ":")
_DPI: Final = 110


def new_figure(width: float = 6.0, height: float = 3.2, panels: int = 1) -> tuple[Figure, list[Axes]]:
    """A figure of ``width`` × ``height`` inches with ``panels`` axes side by side. No pyplot: no display, no global state."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    figure.patch.set_alpha(0.0)
    panes = list(np.atleast_1d(figure.subplots(1, panels)))
    for axes in panes:
        axes.patch.set_alpha(0.0)
        axes.spines[["top", "right"]].set_visible(False)
        axes.spines[["left", "bottom"]].set_color(INK)
        axes.tick_params(colors=INK, which="both", labelsize=8)
        axes.xaxis.label.set_color(INK)
        axes.yaxis.label.set_color(INK)
        axes.title.set_color(INK)
    return figure, panes


def legend(axes: Axes) -> None:
    """The series' names, in the figures' ink, without a box."""
    if axes.get_legend_handles_labels()[0]:
        axes.legend(frameon=False, labelcolor=INK, fontsize=8)


def style(series: int) -> dict[str, Any]:
    """``color`` and ``linestyle`` of the series with this number."""
    return {"color": COLOURS[series % len(COLOURS)], "linestyle": LINES[series // len(COLOURS) % len(LINES)]}


def distributions(axes: Axes, edges: Sequence[float], counts: Mapping[str, Sequence[float]], label: str) -> None:
    """One outline per series: the share of its values in each bin. ``edges`` has one value more than each series' counts.

    A series without values is named in the legend as empty, not left out.
    """
    for number, (name, series) in enumerate(counts.items()):
        total = float(np.sum(series))
        shares = np.asarray(series, float) / total if total else np.zeros(len(series))
        shown = f"{name} (n = {int(total):,})" if total else f"{name} (no values)"
        axes.stairs(shares * 100, edges, label=shown, linewidth=1.6, **style(number))
    axes.set_xlabel(label)
    axes.set_ylabel("% of values")
    axes.set_ylim(bottom=0)
    legend(axes)


def curves(axes: Axes, x: Sequence[float], series: Mapping[str, Sequence[float]], x_label: str, y_label: str) -> None:
    """One line with points per series over a common ``x``; NaN values leave gaps."""
    for number, (name, values) in enumerate(series.items()):
        axes.plot(x, values, label=name, marker="o", markersize=3, linewidth=1.6, **style(number))
    axes.set_xlabel(x_label)
    axes.set_ylabel(y_label)
    axes.set_ylim(bottom=0)
    legend(axes)


def bars(axes: Axes, values: Mapping[str, float], label: str, number_format: str = "{:,.3g}") -> None:
    """Horizontal bars, one per name, in the given order from the top, each with its number."""
    names = list(values)[::-1]
    drawn = axes.barh(names, [values[name] for name in names], color=COLOURS[0])
    axes.bar_label(drawn, [number_format.format(values[name]) for name in names], color=INK, fontsize=8, padding=3)
    axes.set_xlabel(label)
    axes.margins(x=0.12)


def png(figure: Figure) -> bytes:
    """PNG with a transparent background."""
    return _saved(figure, "png", dpi=_DPI, metadata={"Software": None})


def svg(figure: Figure) -> bytes:
    """SVG with text as text, so that it can be searched and scales."""
    return _saved(figure, "svg", metadata={"Date": None, "Creator": None})


def files(figure: Figure, name: str) -> dict[str, bytes]:
    """``NAME.svg`` and ``NAME.png`` with their bytes."""
    return {f"{name}.svg": svg(figure), f"{name}.png": png(figure)}


def _saved(figure: Figure, kind: str, **options: Any) -> bytes:
    import matplotlib as mpl

    buffer = io.BytesIO()
    figure.draw_without_rendering()  # settles the layout, so that a second drawing does not differ from the first
    # The salt makes the ids inside an SVG the same in every run.
    with mpl.rc_context({"svg.hashsalt": "facecaption", "svg.fonttype": "none"}):
        figure.savefig(buffer, format=kind, transparent=True, **options)
    return buffer.getvalue()
