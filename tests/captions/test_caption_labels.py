"""Which labels a caption says: those kept out of captions stay in the columns, and a text that says one invents it."""

from __future__ import annotations

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from facecaption_assets.settings import load_settings
from facecaption_assets.settings.loading import SettingsError
from facecaption_ml.captions import CaptionGrammar, caption_table, check_faithful, face_caption, find_attributes
from facecaption_ml.captions.labels import BIT, FEMALE_BIT, captioned_labels, label_bits, names_of, said_bits
from facecaption_ml.schemas import SCHEMAS
from facecaption_ml.taxonomy import ATTRIBUTES, FEMALE, settle_conflicts

GRAMMAR = CaptionGrammar.load()
GENDERS = st.sampled_from(["male", "female", None])


def consistent(names: set[str], gender: str | None) -> tuple[tuple[str, ...], str | None]:
    known = {"male": ["Male"], "female": [FEMALE], None: []}[gender]
    kept = settle_conflicts([*(names - {"Male"}), *known])[0]
    return tuple(name for name in kept if name != FEMALE), gender


def attribute_row(labels: tuple[str, ...], gender: str | None) -> pl.DataFrame:
    values = {name: [0.9 if name in labels else 0.1] for name in ATTRIBUTES}
    row = {"face_id": ["0123456789abcdef_0"], **values, "gender": [gender], "labels": [list(labels)]}
    return pl.DataFrame({**row, "dropped_conflicts": [[]]}, schema=dict(SCHEMAS["face_attributes"]))


@given(st.sets(st.sampled_from(ATTRIBUTES), max_size=12), GENDERS, st.sets(st.sampled_from(ATTRIBUTES), max_size=6))
def test_a_caption_says_the_labels_that_are_not_kept_out_and_nothing_else(names, gender, excluded) -> None:
    labels, gender = consistent(names, gender)
    row = caption_table(attribute_row(labels, gender), GRAMMAR, 3, excluded=excluded).row(0, named=True)
    assert not set(row["labels"]) & excluded
    assert check_faithful(row["template_caption"], row["labels"], row["gender"]).faithful
    said = set(find_attributes(row["template_caption"])[0])
    assert not said & excluded
    if "Male" in excluded:
        assert row["gender"] is None
        assert FEMALE not in said
    assert row["template_caption"] == face_caption(GRAMMAR, "0123456789abcdef_0", labels, gender, 3, excluded)


def test_a_text_that_says_a_label_kept_out_of_captions_invents_it() -> None:
    labels, gender = captioned_labels(("Attractive", "Male", "Smiling"), "male", ("Attractive",))
    assert check_faithful("The man is smiling.", labels, gender).faithful
    assert check_faithful("The attractive man is smiling.", labels, gender).invented == ("Attractive",)
    labels, gender = captioned_labels(("Attractive", "Male", "Smiling"), "male", ("Male",))
    assert check_faithful("The attractive man is smiling.", labels, gender).invented == ("Male",)


@pytest.mark.parametrize("gender", ["male", "female", None])
def test_with_everything_kept_out_a_caption_still_speaks_of_a_person(gender) -> None:
    labels, _ = consistent({"Smiling", "No_Beard", "Young"}, gender)
    row = caption_table(attribute_row(labels, gender), GRAMMAR, 0, excluded=ATTRIBUTES).row(0, named=True)
    assert (row["labels"], row["gender"]) == ([], None)
    assert find_attributes(row["template_caption"]) == ((), ())
    assert "person" in row["template_caption"]


def test_what_a_gender_implies_goes_without_saying_and_goes_with_the_gender() -> None:
    woman = label_bits(["No_Beard", "Smiling"], "female")
    assert names_of(said_bits(woman)) == ("Smiling", FEMALE)
    assert said_bits(woman & ~FEMALE_BIT) & BIT["No_Beard"]
    assert said_bits(label_bits(["No_Beard"], "male")) & BIT["No_Beard"]
    assert captioned_labels(["No_Beard", "Smiling"], "female", ["Male"]) == (("Smiling",), None)
    assert captioned_labels(["Male", "No_Beard"], "male", ["Male"]) == (("No_Beard",), None)


@pytest.mark.parametrize(
    ("given_names", "line"),
    [
        ("Chubby,Atractive", "no attribute 'Atractive': did you mean Attractive?"),
        ("chubby", "no attribute 'chubby': did you mean Chubby?"),
        ("Female", "no attribute 'Female': Male stands for the gender, whichever it is"),
        ("zzz", "no attribute 'zzz': the names are CelebA's, such as Attractive"),
    ],
)
def test_a_name_that_is_no_attribute_is_an_error_that_names_the_nearest(monkeypatch, given_names, line) -> None:
    monkeypatch.setenv("FACECAPTION_CAPTION_EXCLUDE", given_names)
    with pytest.raises(SettingsError) as error:
        load_settings()
    assert str(error.value) == f"FACECAPTION_CAPTION_EXCLUDE is {given_names!r}: {line}"


def test_names_may_stand_in_any_order_and_twice(monkeypatch) -> None:
    monkeypatch.setenv("FACECAPTION_CAPTION_EXCLUDE", " Chubby, Attractive,Chubby,")
    assert load_settings().captions.exclude == ("Attractive", "Chubby")
    monkeypatch.setenv("FACECAPTION_CAPTION_EXCLUDE", "")
    assert load_settings().captions.exclude == ()
