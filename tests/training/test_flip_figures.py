"""The figures of a training: what is on them."""

from __future__ import annotations

import numpy as np
import pytest

from facecaption_assets.training.figures import on_white, retrieval_figure, training_curves
from facecaption_ml import figures
from facecaption_ml.decoding import encode_jpeg
from facecaption_ml.flip.use.retrievals import NearFace, Retrieval, Retrievals

STEP = {"kind": "step", "contrastive_loss": 3.0, "matching_loss": 0.6, "learning_rate": 1e-4}
EPOCH = {"kind": "epoch", "image_to_text_r10": 0.4, "text_to_image_r10": 0.5, "chance_r10": 0.1}


def face(value: int, own: bool = False) -> NearFace:
    return NearFace(encode_jpeg(np.full((40, 30, 3), value, np.uint8)), 0.5, own)


def test_curves_show_every_series_and_long_logs_are_averaged() -> None:
    log = [{**STEP, "step": step, "contrastive_loss": 2.0 + 2 * (step % 2)} for step in range(1, 1201)]
    log += [{**EPOCH, "step": 600}, {**EPOCH, "step": 1200}]
    losses, rates, recalls = training_curves(log).axes
    (contrastive, matching), (rate,) = losses.lines, rates.lines
    assert (contrastive.get_label(), matching.get_label()) == ("contrastive", "matching")
    assert len(contrastive.get_ydata()) == len(rate.get_ydata()) == 300
    assert np.allclose(contrastive.get_ydata(), 3.0)
    assert [line.get_ydata()[0] for line in recalls.lines] == [40.0, 50.0, 10.0]


def test_curves_of_a_training_without_held_out_pairs() -> None:
    drawn = training_curves([{**STEP, "step": 1}, {"kind": "epoch", "step": 1, "epoch": 1}])
    assert "no validation pairs" in figures.svg(drawn).decode()


def test_the_own_face_is_framed_among_the_nearest() -> None:
    rows = [
        Retrieval("A smiling woman. " * 60, face(90, True), 2, [face(10), face(90, True), face(200)]),
        Retrieval("A man.", face(30, True), 17, [face(10), face(90), face(200)]),
    ]
    drawn = retrieval_figure(Retrievals(rows, 1234))
    framed = [axes.get_xlabel() for axes in drawn.axes if axes.images and axes.spines["left"].get_visible()]
    assert framed == ["0.50"]
    text = figures.svg(drawn).decode()
    for words in ("rank 2", "rank 17", "nearest of 1,234 test faces", "A smiling woman", " …"):
        assert words in text
    picture = on_white(figures.png(drawn))
    assert picture.dtype == np.uint8
    assert (picture[0, 0] == 255).all()


@pytest.mark.slow
def test_a_caption_with_dollar_signs_is_drawn_as_it_is() -> None:
    for caption in ("He paid $5 and got $3 back", r"a $\frac{1}{0$ of $\nothing$ man"):
        rows = [Retrieval(caption, face(90, True), 1, [face(90, True)])]
        assert caption in figures.svg(retrieval_figure(Retrievals(rows, 3))).decode()
