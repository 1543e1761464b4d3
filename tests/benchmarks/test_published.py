"""The paper's numbers as they are kept, against some of them typed again from its Tables 2, 3 and 4."""

from __future__ import annotations

import pytest

from facecaption_ml.benchmarks.report.layout import own_data, task_layouts
from facecaption_ml.benchmarks.report.published import PublishedError, published, published_table, read_published

TABLE_2_CELEBA_CAPTION = {  # text → image R@5, R@10, image → text R@5, R@10
    "ALIGN": (6.99, 11.09, 5.08, 8.65),
    "CLIP": (21.42, 30.3, 26.52, 37.22),
    "FLIP*": (38.62, 48.28, 38.14, 48.9),
    "FLIP (ours)": (50.04, 62.04, 50.96, 62.98),
}
TABLE_3_CELEBA = {  # 1 %, 2 %, 10 %, 100 %; None where the paper has no number
    "BEIT": (85.64, None, 88.74, 89.71),
    "CLIP": (89.09, None, 90.47, 90.86),
    "SlimCNN": (80.96, 82.32, None, 91.24),
    "FLIP†-based": (88.05, None, 90.74, 91.32),
    "FLIP-based (ours)": (91.52, 91.74, None, 92.27),
}


def numbers(task: str, data: str, name: str) -> dict[tuple[str, str], float]:
    """A row's numbers in percent, by setting and metric."""
    row = next(row for row in published(task, data) if row.name == name)
    return {(m.setting, m.metric): round(100 * (m.value or 0), 2) for m in row.measurements}


@pytest.mark.parametrize("name", TABLE_2_CELEBA_CAPTION)
def test_retrieval_rows_are_those_of_table_2(name: str) -> None:
    columns = [(way, f"R@{k}") for way in ("text → image", "image → text") for k in (5, 10)]
    assert numbers("retrieval", "celeba_caption", name) == dict(zip(columns, TABLE_2_CELEBA_CAPTION[name], strict=True))


@pytest.mark.parametrize("name", TABLE_3_CELEBA)
def test_a_slash_in_table_3_tells_10_percent_from_2(name: str) -> None:
    columns = [(share, "accuracy") for share in ("1 %", "2 %", "10 %", "100 %")]
    typed = {c: value for c, value in zip(columns, TABLE_3_CELEBA[name], strict=True) if value is not None}
    assert numbers("attributes", "celeba", name) == typed


def test_some_numbers_of_the_other_columns_and_of_table_4() -> None:
    mm_celeba = numbers("retrieval", "mm_celeba_hq", "FLIP†")
    assert (mm_celeba["text → image", "R@5"], mm_celeba["image → text", "R@10"]) == (9.75, 12.25)
    lfwa = numbers("attributes", "lfwa", "FLIP-based (ours)")
    assert lfwa == {("10 %", "accuracy"): 82.6, ("50 %", "accuracy"): 89.87, ("100 %", "accuracy"): 98.04}
    assert numbers("sketches", "fs2k_sde1", "SLFIR") == {("sketch", "m@A"): 96.22, ("sketch", "m@B"): 45.48}
    both = {("sketch + text", "m@A"): 97.34, ("sketch + text", "m@B"): 62.52}
    assert numbers("sketches", "user_sde", "FLIP-based (ours)") == both


def test_a_dash_of_the_paper_is_no_number() -> None:
    assert [row.name for row in published("sketches", "user_sde")] == [
        "B1", "SLFIR", "BLIP-based", "CLIP-based", "FLIP†-based", "FLIP-based (ours)",
    ]  # fmt: skip


def test_rows_know_the_model_they_are_of() -> None:
    models = {row.printed: row.model for row in published("retrieval", "celeba_caption")}
    assert models == {
        "ALIGN [39]": "align",
        "BLIP [38]": "blip",
        "CLIP [52]": "clip",
        "FLIP*": "flip_template",
        "FLIP†": "flip_alt_text",
        "FLIP (ours)": "flip",
    }
    assert [row.model for row in published("sketches", "fs2k_sde1")] == [
        None, None, None, None, "blip", "clip", "flip_alt_text", "flip",
    ]  # fmt: skip
    assert {row.model for row in published("attributes", "lfwa")} == {None, "clip", "flip_alt_text", "flip"}


def test_nothing_is_published_on_data_made_here() -> None:
    assert set(own_data()) == {"sample", "photos"}
    for task in task_layouts():
        assert published(task, "sample") == published(task, "photos") == []


def test_every_table_says_how_the_epoch_was_chosen_and_lfwa_what_it_was_trained_on() -> None:
    for task in task_layouts():
        (said,) = [text for text in published_table(task).remarks if "epoch that scores best on the test data" in text]
        assert "CelebA" in said
    of_lfwa = [note.text for note in published_table("attributes").notes if "lfwa" in note.data]
    assert any("trains LFWA on its test split" in text for text in of_lfwa)


def test_another_task_is_named() -> None:
    with pytest.raises(ValueError, match=r"'recognition'.*retrieval, attributes, sketches"):
        published("recognition", "celeba")


GOOD = """
source = "a paper"
[retrieval]
table = "Table 9"
columns = [["celeba_caption", "text → image", "R@5"], ["mm_celeba_hq", "text → image", "R@5"]]
rows = [{ row = "CLIP [1]", model = "clip", values = [10, "–"] }, { row = "Other", values = [0.5, 100] }]
[[retrieval.notes]]
rows = ["Other"]
text = "of another paper"
"""


def test_a_file_like_it_is_read() -> None:
    table = read_published(GOOD)["retrieval"]
    names = {data: [row.name for row in rows] for data, rows in table.data.items()}
    assert names == {"celeba_caption": ["CLIP", "Other"], "mm_celeba_hq": ["Other"]}
    assert table.data["celeba_caption"][1].measurements[0].value == 0.005


@pytest.mark.parametrize(
    ("was", "now", "words"),
    [
        ("[retrieval]\n", "[recognition]\n", ["recognition", "no such task"]),
        ('["mm_celeba_hq"', '["flickr"', ["retrieval", "'CLIP [1]'", "'flickr'"]),
        ('["mm_celeba_hq"', '["sample"', ["'sample'"]),
        ('["mm_celeba_hq"', '["celeba_caption"', ["celeba_caption", "two columns"]),
        ('"text → image", "R@5"], ["mm', '"text to image", "R@5"], ["mm', ["setting 'text to image'"]),
        ('"text → image", "R@5"], ["mm', '"R@5"], ["mm', ["'CLIP [1]'", "setting"]),
        ('"R@5"]]', '"R@3"]]', ["metric 'R@3'"]),
        ('"clip"', '"klip"', ["'CLIP [1]'", "model 'klip'"]),
        ("[0.5, 100]", "[0.5]", ["'Other'", "1 values for 2 columns"]),
        ("[0.5, 100]", "[0.5, 100.5]", ["'Other'", "mm_celeba_hq", "100.5"]),
        ("[0.5, 100]", '[0.5, "-"]', ["'Other'", "'-'"]),
        ("[0.5, 100]", "[nan, 1]", ["'Other'", "nan"]),
        ('"Other", values', '"CLIP [1]", values', ["'CLIP [1]' stands twice"]),
        ('rows = ["Other"]', 'rows = ["Others"]', ["'Others'"]),
        ('rows = ["Other"]', 'data = ["celeba"]', ["'celeba'"]),
        ('rows = ["Other"]', 'settings = ["text → image"]', ["of another paper"]),
    ],
)
def test_what_is_wrong_in_the_file_is_named(was: str, now: str, words: list[str]) -> None:
    assert GOOD.count(was) == 1
    with pytest.raises(PublishedError) as error:
        read_published(GOOD.replace(was, now))
    assert "\n" not in str(error.value)
    for word in words:
        assert word in str(error.value)
