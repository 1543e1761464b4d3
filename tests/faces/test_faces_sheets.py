"""Sheets of crops and pictures with faces drawn in."""

from __future__ import annotations

import numpy as np
import pytest

from facecaption_ml.faces import Face, contact_sheet, draw_faces

COLOURS = [(200, 30, 30), (30, 200, 30), (30, 30, 200), (200, 200, 30), (30, 200, 200)]


def plain(colour: tuple[int, int, int], height: int, width: int) -> np.ndarray:
    return np.full((height, width, 3), colour, dtype=np.uint8)


def test_every_picture_is_on_the_sheet_in_order() -> None:
    pictures = [
        plain(c, h, w) for c, (h, w) in zip(COLOURS, [(90, 90), (300, 100), (20, 80), (5, 5), (64, 64)], strict=True)
    ]
    sheet = contact_sheet(pictures, columns=2, cell=64)
    assert sheet.dtype == np.uint8
    assert sheet.shape == (6 + 3 * 70, 6 + 2 * 70, 3)
    for i, colour in enumerate(COLOURS):
        centre = sheet[6 + i // 2 * 70 + 32, 6 + i % 2 * 70 + 32]
        assert np.abs(centre.astype(int) - colour).max() <= 1


def test_proportions_are_kept() -> None:
    sheet = contact_sheet([plain((0, 0, 0), 100, 50)], columns=1, cell=100)
    black = np.argwhere((sheet == 0).all(axis=2))
    height, width = black.max(axis=0) - black.min(axis=0) + 1
    assert (height, width) == (100, 50)


def test_captions_stand_below_and_stay_in_their_cell() -> None:
    pictures = [plain((255, 255, 255), 50, 50)] * 2
    long = "a smiling woman with wavy brown hair and a necklace, photographed at the sea " * 3
    sheet = contact_sheet(pictures, [long, ""], columns=2, cell=100)
    below = sheet[6 + 100 :]
    dark = np.argwhere(below.max(axis=2) < 128)
    assert len(dark) > 50
    assert dark[:, 1].max() < 6 + 100 + 6  # the second picture's caption is empty, and nothing spills into it
    plain_sheet = contact_sheet(pictures, columns=2, cell=100)
    assert sheet.shape[0] > plain_sheet.shape[0]


def test_words_longer_than_a_cell_are_cut() -> None:
    sheet = contact_sheet([plain((255, 255, 255), 50, 50)] * 2, ["x" * 500, ""], columns=2, cell=100)
    assert np.argwhere(sheet[106:].max(axis=2) < 128)[:, 1].max() < 112


def test_no_pictures_and_bad_arguments() -> None:
    assert contact_sheet([], cell=32).shape == (44, 44, 3)
    with pytest.raises(ValueError, match="captions: 1 for 0 images"):
        contact_sheet([], ["one"])
    with pytest.raises(ValueError, match="columns"):
        contact_sheet([], columns=0)


def test_faces_are_drawn_where_they_are() -> None:
    image = plain((0, 0, 0), 200, 300)
    landmarks = np.array([[120, 80], [180, 80], [150, 110], [125, 140], [175, 140]], dtype=np.float32)
    drawn = draw_faces(image, [Face((100, 50, 200, 170), landmarks, 0.991)])
    assert drawn.shape == image.shape
    assert not image.any()  # the input is untouched
    for x, y in landmarks.astype(int):
        assert drawn[y, x].max() > 200
    assert drawn[170, 150].max() > 150
    assert drawn[100, 100].max() > 150
    assert drawn[30:50, 100:140].any()  # the score's plate above the corner
    assert not drawn[180:, :].any()


def test_boxes_beyond_the_picture_do_no_harm() -> None:
    landmarks = np.full((5, 2), -50, dtype=np.float32)
    faces = [Face((-100, -100, 500, 500), landmarks, 1.0), Face((290, 190, 300, 200), landmarks, 0.5)]
    assert draw_faces(plain((9, 9, 9), 200, 300), faces).shape == (200, 300, 3)


def test_a_sheet_has_the_room_that_its_longest_text_needs_and_no_more() -> None:
    pictures = [plain((255, 255, 255), 50, 50)] * 3
    labels = ", ".join(["Wearing Necklace", "Mouth Slightly Open", "High Cheekbones"] * 4)

    def height(text: str, lines: int | None) -> int:
        return contact_sheet(pictures, [text, "short", ""], columns=3, cell=220, caption_lines=lines).shape[0]

    assert height("short", 18) == height("", 18) < height(labels, 18)
    assert height(labels, 18) == height(labels, 30)  # all of it is there
    assert height(labels, 3) < height(labels, 18)
    assert height(labels, None) == height(labels, 18)
    assert height(labels * 4, None) > height(labels * 4, 18)  # a caption of any length, whole
