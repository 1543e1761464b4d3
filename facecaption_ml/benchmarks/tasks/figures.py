"""What a person looks at of a benchmark: learned layer weights, Figure 7's curves, a drawing with its ranks (Figure 8)."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Final

import numpy as np
import numpy.typing as npt

from facecaption_ml import figures
from facecaption_ml.benchmarks.datasets.data import Rgb

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_CELL: Final = 1.5  # inches
_POOLS: Final = 3  # [CLS], mean, max


def layer_weights(names: Sequence[str], weights: npt.NDArray[np.float32]) -> bytes:
    """PNG: the weight of each of V vectors, mean over runs [R, V] with the runs' standard deviation, grouped by layer."""
    drawn, (axes,) = figures.new_figure(6.0, 2.8)
    means, spreads = weights.mean(axis=0), weights.std(axis=0)
    layers = list(dict.fromkeys(name.rsplit(" ", 1)[0] for name in names))
    for pool in range(_POOLS):
        at = np.arange(len(layers)) + 0.26 * (pool - 1)
        label = names[pool].rsplit(" ", 1)[1]
        axes.bar(
            at,
            means[pool::_POOLS],
            0.24,
            yerr=spreads[pool::_POOLS],
            label=label,
            color=figures.COLOURS[pool],
            ecolor=figures.INK,
        )
    axes.axhline(0, color=figures.INK, linewidth=0.8)
    axes.set_xticks(range(len(layers)), layers)
    axes.set_ylabel("learned weight")
    figures.legend(axes)
    return figures.png(drawn)


def share_curves(curves: Mapping[str, Sequence[tuple[float, float]]]) -> bytes:
    """PNG, Figure 7: m@A and m@B over the share of the sketch, a line for each way of asking.

    ``curves`` maps "<way of asking>, <metric>" to points (share of the sketch, value), both shares of 1.
    """
    drawn, panes = figures.new_figure(8.5, 2.9, panels=2)
    for axes, metric in zip(panes, ("m@A", "m@B"), strict=True):
        own = {name.removesuffix(f", {metric}"): points for name, points in curves.items() if name.endswith(metric)}
        shares = [100 * x for x, _ in next(iter(own.values()), [])]
        lines = {name: [100 * y for _, y in points] for name, points in own.items()}
        figures.curves(axes, shares, lines, "% of the sketch", f"{metric}, %")
        axes.set_ylim(0, 102)
        if not own:
            axes.text(0.5, 0.5, "not defined", color=figures.INK, ha="center", transform=axes.transAxes)
    return figures.png(drawn)


def episode_strip(
    photo: Rgb | None,
    pages: Sequence[Rgb | None],
    shares: Sequence[float],
    ranks: Mapping[str, Sequence[int]],
    gallery: int,
    caption: str,
) -> bytes:
    """PNG, Figure 8: the stages of one drawing, below them its photo's rank under each way of asking, at the end the photo."""
    from matplotlib.figure import Figure

    across = len(pages) + 1
    drawn = Figure(figsize=(_CELL * across + 0.2, _CELL + 0.42 + 0.22 * len(ranks) + (0.35 if caption else 0)))
    drawn.patch.set_alpha(0.0)
    panes = drawn.subplots(1, across)
    for axes, page, share, place in zip(panes, pages, shares, range(len(pages)), strict=False):
        _show(axes, page)
        axes.set_title(f"{100 * share:.0f} %", fontsize=8, color=figures.INK)
        for number, (mode, of_mode) in enumerate(ranks.items()):
            text = f"{mode}: {of_mode[place]}" if place == 0 else str(of_mode[place])
            look = {"ha": "center", "va": "top", "fontsize": 8, "color": figures.COLOURS[number]}
            axes.text(0.5, -0.1 - 0.15 * number, text, transform=axes.transAxes, **look)
    _show(panes[-1], photo)
    panes[-1].set_title(f"its photo, of {gallery:,}", fontsize=8, color=figures.INK)
    if caption:
        drawn.text(
            0.5, 0.02, "\n".join(textwrap.wrap(caption, 24 * across, max_lines=2, placeholder=" …")),
            ha="center", fontsize=8, color=figures.INK, parse_math=False,
        )  # fmt: skip
    height = drawn.get_figheight()
    low = (0.22 * len(ranks) + 0.12 + (0.35 if caption else 0)) / height
    drawn.subplots_adjust(left=0.01, right=0.99, top=1 - 0.22 / height, bottom=low, wspace=0.06)
    return figures.png(drawn)


def _show(axes: Axes, image: Rgb | None) -> None:
    axes.axis("off")
    if image is not None:
        axes.imshow(image)
        axes.set_aspect("equal")
    else:
        axes.text(0.5, 0.5, "does not decode", ha="center", color=figures.INK, fontsize=8, transform=axes.transAxes)
