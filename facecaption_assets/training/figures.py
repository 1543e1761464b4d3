"""Figures of a FLIP training: its curves, and held-out captions with the faces nearest to them."""

from __future__ import annotations

import io
import textwrap
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from facecaption_ml import figures

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from facecaption_ml.flip.use.retrievals import NearFace, Retrievals

_POINTS: Final = 300  # of a curve; longer logs are averaged
_CELL_PX: Final = 128
_CELL: Final = 1.05  # inches
_TEXT: Final = 3.3
_CAPTION_WIDTH: Final = 50  # characters
_CAPTION_LINES: Final = 9
_FRAME: Final = figures.COLOURS[2]
_CHANCE: Final = {"color": figures.INK, "linestyle": "--"}


def training_curves(log: Sequence[Mapping[str, Any]]) -> Figure:
    """Losses, learning rate and held-out R@10 over the steps, from the records of ``log.jsonl``."""
    steps = [record for record in log if record["kind"] == "step"]
    epochs = [record for record in log if record["kind"] == "epoch" and "chance_r10" in record]
    figure, (losses, rates, recalls) = figures.new_figure(10.0, 2.9, panels=3)
    _line(losses, *_thinned(steps, "contrastive_loss"), "contrastive", figures.style(0))
    _line(losses, *_thinned(steps, "matching_loss"), "matching", figures.style(1))
    _line(rates, *_thinned(steps, "learning_rate"), None, figures.style(0))
    for name, style in {
        "image_to_text": figures.style(0),
        "text_to_image": figures.style(1),
        "chance": _CHANCE,
    }.items():
        values = [100 * record[f"{name}_r10"] for record in epochs]
        _line(recalls, [record["step"] for record in epochs], values, name.replace("_to_", " → "), style)
    for axes, title in ((losses, "loss"), (rates, "learning rate"), (recalls, "R@10 on validation pairs, %")):
        axes.set_title(title, fontsize=9)
        axes.set_xlabel("optimiser step", fontsize=8)
        axes.set_xlim(left=0)
        axes.set_ylim(bottom=0)
        axes.yaxis.get_offset_text().set(color=figures.INK, fontsize=8)
        figures.legend(axes)
    if not epochs:
        recalls.text(0.5, 0.5, "no validation pairs", color=figures.INK, ha="center", transform=recalls.transAxes)
    return figure


def _thinned(records: Sequence[Mapping[str, Any]], key: str) -> tuple[list[float], list[float]]:
    """Steps and values, averaged over neighbours where there are more than a curve can show."""
    points = np.array([(record["step"], record[key]) for record in records], float).reshape(-1, 2)
    parts = np.array_split(points, min(_POINTS, len(points))) if len(points) else []
    means = np.array([part.mean(axis=0) for part in parts]).reshape(-1, 2)
    return means[:, 0].tolist(), means[:, 1].tolist()


def _line(axes: Axes, x: Sequence[float], y: Sequence[float], label: str | None, style: Mapping[str, Any]) -> None:
    marker = "o" if len(x) < 2 else None  # a line of one point shows nothing
    axes.plot(x, y, label=label, linewidth=1.5, marker=marker, markersize=3, **style)


def retrieval_figure(retrievals: Retrievals) -> Figure:
    """A row for each caption: its words, its own face, and the nearest faces, its own framed among them."""
    from matplotlib.figure import Figure

    across = max(len(row.nearest) for row in retrievals.shown)
    width, height = _TEXT + (1 + across) * _CELL + 0.2, 0.3 + len(retrievals.shown) * (_CELL + 0.3)
    figure = Figure(figsize=(width, height))
    figure.patch.set_alpha(0.0)
    grid = figure.add_gridspec(
        len(retrievals.shown),
        3 + across,
        width_ratios=[_TEXT, _CELL, 0.2, *[_CELL] * across],
        left=0.01,
        right=0.99,
        bottom=0.3 / height,
        top=1 - 0.3 / height,
        wspace=0.06,
        hspace=0.28,
    )
    for number, row in enumerate(retrievals.shown):
        words = figure.add_subplot(grid[number, 0])
        words.axis("off")
        lines = textwrap.wrap(row.caption, _CAPTION_WIDTH, max_lines=_CAPTION_LINES, placeholder=" …")
        words.text(
            0, 0.5, "\n".join(lines), color=figures.INK, fontsize=8, va="center", linespacing=1.25, parse_math=False
        )
        own = figure.add_subplot(grid[number, 1])
        _face(own, row.own, f"rank {row.rank:,}", framed=False)
        others = [figure.add_subplot(grid[number, 3 + place]) for place in range(len(row.nearest))]
        for axes, face in zip(others, row.nearest, strict=True):
            _face(axes, face, f"{face.similarity:.2f}", framed=face.own)
        if number == 0:
            words.set_title("caption, drawn at random", fontsize=8, color=figures.INK, loc="left")
            own.set_title("its own face", fontsize=8, color=figures.INK)
            nearest = f"nearest of {retrievals.searched:,} test faces, its own framed"
            others[0].set_title(nearest, fontsize=8, color=figures.INK, loc="left")
    return figure


def _face(axes: Axes, face: NearFace, label: str, framed: bool) -> None:
    import cv2

    from facecaption_ml.decoding import as_rgb

    image = as_rgb(face.image)
    scale = _CELL_PX / max(image.shape[:2])
    size = (max(1, round(image.shape[1] * scale)), max(1, round(image.shape[0] * scale)))
    axes.imshow(cv2.resize(image, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC))
    axes.set_anchor("N")  # all at the same height, whatever their proportions
    axes.set_xticks([])
    axes.set_yticks([])
    axes.set_xlabel(
        label, fontsize=8, color=_FRAME if framed else figures.INK, fontweight="bold" if framed else None, labelpad=2
    )
    for spine in axes.spines.values():
        spine.set_visible(framed)
        spine.set(color=_FRAME, linewidth=3)


def on_white(png: bytes) -> np.ndarray:
    """A picture with a transparent background as RGB uint8 [H, W, 3], for encoders that have no transparency."""
    from PIL import Image

    picture = Image.open(io.BytesIO(png)).convert("RGBA")
    white = Image.new("RGBA", picture.size, "white")
    return np.asarray(Image.alpha_composite(white, picture).convert("RGB"))
