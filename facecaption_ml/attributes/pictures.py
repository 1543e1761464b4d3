"""What the scores of a predictor look like: how reliable its probabilities are, and how precise its labels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from facecaption_ml import figures
from facecaption_ml.attributes.evaluation import Evaluation
from facecaption_ml.attributes.label_scores import LabelScore

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def reliability_diagram(scores: Evaluation) -> Figure:
    """What the probabilities claim against what is true (left), and how many answers there are of each (right)."""
    figure, (claimed, counts) = figures.new_figure(7.2, 3.2, panels=2)
    bins = [found for found in scores.reliability if found.answers]
    claimed.plot([0, 1], [0, 1], color=figures.INK, linewidth=1, linestyle=":", label="calibrated")
    claimed.plot(
        [found.claimed or 0.0 for found in bins],
        [found.right or 0.0 for found in bins],
        marker="o",
        markersize=4,
        color=figures.COLOURS[0],
        label="all attributes",
    )
    claimed.axvline(scores.threshold, color=figures.COLOURS[1], linewidth=1, label=f"p = {scores.threshold:g}")
    claimed.set_xlabel("probability of the attribute")
    claimed.set_ylabel("share of faces that have it")
    claimed.set_xlim(0, 1)
    claimed.set_ylim(0, 1)
    figures.legend(claimed)
    edges = [found.low for found in scores.reliability] + [1.0]
    counts.stairs([found.answers for found in scores.reliability], edges, fill=True, color=figures.COLOURS[0])
    counts.set_yscale("log")
    counts.set_xlabel("probability of the attribute")
    counts.set_ylabel("answers")
    counts.set_xlim(0, 1)
    return figure


def precision_by_attribute(labels: Sequence[LabelScore]) -> Figure:
    """Of each attribute's labels the share that is right, with the interval of its count (95 %, Wilson), for two rules at most.

    Attributes without a label have no mark; the numbers are how many labels there are.
    """
    shown = labels[:2]
    names = sorted(shown[0].asserted, key=lambda name: -max(score.asserted[name][0] for score in shown))
    figure, panes = figures.new_figure(4.2 * len(shown) + 1.4, 8.2, panels=len(shown))
    for number, (axes, score) in enumerate(zip(panes, shown, strict=True)):
        _draw_precision(axes, score, names, with_names=number == 0)
    return figure


def _draw_precision(axes: Axes, score: LabelScore, names: Sequence[str], *, with_names: bool) -> None:
    for row, name in enumerate(names):
        count, right = score.asserted[name]
        if count:
            low, high = wilson_interval(right, count)
            axes.plot([low, high], [row, row], color=figures.INK, linewidth=1)
            axes.plot([right / count], [row], marker="o", markersize=4, color=figures.COLOURS[0], clip_on=False)
        axes.text(1.02, row, f"{count:,}", fontsize=7, color=figures.INK, va="center", clip_on=False)
    axes.axvline(score.target or 1.0, color=figures.COLOURS[1], linewidth=1, alpha=1.0 if score.target else 0.0)
    axes.set_yticks(range(len(names)), [name.replace("_", " ") for name in names] if with_names else [""] * len(names))
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.set_xlim(0.0, 1.0)
    axes.set_xlabel("share of its labels that is right")
    axes.set_title(score.rule, fontsize=8)


def wilson_interval(right: int, count: int, z: float = 1.96) -> tuple[float, float]:
    """Wilson's interval of a share (JASA 1927); ``count`` is at least 1."""
    share, spread = right / count, z * z / count
    middle = (share + spread / 2) / (1 + spread)
    half = z / (1 + spread) * (share * (1 - share) / count + spread / (4 * count)) ** 0.5
    return middle - half, middle + half
