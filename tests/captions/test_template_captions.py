"""Every caption of every consistent label set is faithful, complete and good English."""

from __future__ import annotations

import random
import re
from collections import Counter

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from examples import examples
from facecaption_ml import schemas
from facecaption_ml.captions import (
    CaptionGrammar,
    caption_seed,
    caption_table,
    check_faithful,
    find_attributes,
    template_caption,
)
from facecaption_ml.taxonomy import ATTRIBUTES, FEMALE, settle_conflicts

OTHERS = [name for name in ATTRIBUTES if name != "Male"]
GENDERS = ("male", "female", None)


def settled(labels, gender):
    """Consistent labels of that gender, Male and FEMALE among them."""
    known = {"male": ["Male"], "female": [FEMALE], None: []}[gender]
    return settle_conflicts([*labels, *known])[0]


def given_labels(labels):
    return [name for name in labels if name != FEMALE]


@pytest.fixture(scope="module")
def random_captions():
    """(labels with gender, gender, caption) of 1,000 random label sets."""
    draw = random.Random(7)
    rows = []
    for seed in range(1000):
        gender = draw.choice(GENDERS)
        labels = settled(draw.sample(OTHERS, draw.randint(0, 12)), gender)
        rows.append((labels, gender, template_caption(given_labels(labels), gender, seed)))
    return rows


def assert_good_english(caption, gender):
    assert "  " not in caption
    assert caption == caption.strip()
    assert not re.search(r" [,.]|[,.]{2}|%|a\(n\)", caption), caption
    assert not re.search(r"\b[Aa] [aeio]|\b[Aa]n [^aeio8]", caption), caption
    assert caption.endswith(".")
    for sentence in caption[:-1].split(". "):
        assert sentence[0].isupper(), caption
    low = caption.lower()
    assert not re.search(r"\bthey (has|is|wears)\b|\b(he|she|the (man|woman|person)) (have|are|wear)\b", low), caption
    assert not re.search(r"\band (have|are)\b", low) or re.search(r"\bthey (have|are|wear|sport)\b", low), caption
    assert not re.search(r"\bthey\b[^.]*\band (has|is)\b", low), caption
    pronouns = set(re.findall(r"\b(he|his|she|her|they|their)\b", low))
    assert pronouns <= {"male": {"he", "his"}, "female": {"she", "her"}, None: {"they", "their"}}[gender], caption
    nouns = set(re.findall(r"\b(man|gentleman|woman|lady|person)\b", low))
    assert nouns <= {"male": {"man", "gentleman"}, "female": {"woman", "lady"}, None: {"person"}}[gender], caption
    assert nouns


def said(labels):
    """The labels that a caption says: a woman's No_Beard goes without saying."""
    return [name for name in labels if not (name == "No_Beard" and FEMALE in labels)]


def assert_right(labels, gender, caption):
    assert check_faithful(caption, given_labels(labels), gender).faithful, (
        caption,
        labels,
        check_faithful(caption, given_labels(labels), gender),
    )
    asserted, denied = find_attributes(caption)
    assert sorted(asserted) == sorted(said(labels)), caption
    assert not denied, caption
    assert_good_english(caption, gender)


@pytest.mark.slow
@examples(1500)
@given(st.sets(st.sampled_from(OTHERS), max_size=20), st.sampled_from(GENDERS), st.integers(0, 2**64 - 1))
def test_every_consistent_label_set_gets_a_faithful_caption(chosen, gender, seed):
    labels = settled(chosen, gender)
    assert_right(labels, gender, template_caption(given_labels(labels), gender, seed))


@pytest.mark.parametrize("gender", GENDERS)
def test_every_single_label_in_many_wordings(gender):
    for name in [None, *OTHERS]:
        labels = settled([name] if name else [], gender)
        for seed in range(25):
            assert_right(labels, gender, template_caption(given_labels(labels), gender, seed))


@pytest.mark.parametrize("gender", GENDERS)
def test_every_pair_of_labels(gender):
    for i, first in enumerate(OTHERS):
        for j, second in enumerate(OTHERS[:i]):
            labels = settled([first, second], gender)
            assert_right(labels, gender, template_caption(given_labels(labels), gender, i * 100 + j))


@pytest.mark.slow
def test_no_label_is_said_twice(random_captions):
    words = (
        r"glasses|hat|lipstick|earrings|necklace|makeup|goatee|smil\w+|bangs|fringe|double chin|bald|cheekbones|young"
    )
    for _, _, caption in random_captions:
        counts = Counter(re.findall(rf"\b({words})\b", caption.lower()))
        assert not [w for w, n in counts.items() if n > 1], caption


def test_captions_vary(random_captions):
    captions = [caption for _, _, caption in random_captions]
    assert len(set(captions)) >= 900
    same = {
        template_caption(["Wavy_Hair", "Smiling", "Young", "Eyeglasses", "Big_Nose"], "female", s) for s in range(200)
    }
    assert len(same) >= 100
    lengths = [len(c.split()) for labels, _, c in random_captions if 8 <= len(labels) <= 12]
    assert 20 <= sum(lengths) / len(lengths) <= 40


@pytest.mark.parametrize("name", [n for n in OTHERS if n != "Sideburns"])
def test_each_attribute_has_several_wordings(name):
    """Texts of one label, the subject and the frame taken away as far as the same words go."""
    texts = {template_caption([name], gender, seed) for gender in GENDERS for seed in range(60)}
    assert len(texts) >= 12


def test_several_sentences_with_different_attributes(random_captions):
    for labels, _, caption in random_captions:
        if len(said(labels)) >= 8:
            sentences = caption[:-1].split(". ")
            assert len(sentences) >= 2, caption
            told = [set(find_attributes(s + ".")[0]) - {"Male", FEMALE} for s in sentences]
            assert sum(map(len, told)) == len(set(said(labels)) - {"Male", FEMALE}), caption


@pytest.mark.slow
@examples(300)
@given(
    st.sets(st.sampled_from(OTHERS), min_size=1, max_size=14),
    st.sampled_from(GENDERS),
    st.integers(0, 10**6),
    st.data(),
)
def test_the_check_notices_another_label_set(chosen, gender, seed, data):
    labels = given_labels(settled(chosen, gender))
    rest = [name for name in labels if name != "Male"]
    if gender == "female":
        rest = [name for name in rest if name != "No_Beard"]
    caption = template_caption(labels, gender, seed)
    dropped = data.draw(st.sampled_from(rest)) if rest else None
    if dropped:
        fewer = [name for name in labels if name != dropped]
        assert dropped in check_faithful(caption, fewer, gender).invented
    added = data.draw(st.sampled_from(OTHERS))
    more = given_labels(settled([*labels, added], gender))
    if set(more) > set(labels) and not (gender == "female" and added == "No_Beard"):
        assert added in check_faithful(caption, more, gender).missing
    other = None if gender else "female"
    if gender == "female" and "No_Beard" in labels:
        labels.remove("No_Beard")
    plain = [name for name in labels if name != "Male"]
    assert not check_faithful(caption, plain, other).faithful


def test_order_repetition_and_conflicts_do_not_matter():
    labels = ["Wavy_Hair", "Smiling", "Young", "Big_Nose", "Male"]
    want = template_caption(labels, "male", 5)
    assert template_caption([*reversed(labels), "Young"], None, 5) == want
    assert template_caption([*labels[:-1], "Straight_Hair"], "male", 5) == want  # wavy is settled to hold


def test_wrong_labels_are_named():
    with pytest.raises(ValueError, match="'Red_Hair'"):
        template_caption(["Red_Hair"], None, 0)
    with pytest.raises(ValueError, match=r"'female'.*'Male'"):
        template_caption(["Male"], "female", 0)
    with pytest.raises(ValueError, match="'other'"):
        template_caption([], "other", 0)


@pytest.mark.slow
def test_captions_do_not_depend_on_what_was_captioned_before():
    sets = [(settled(random.Random(i).sample(OTHERS, 8), GENDERS[i % 3]), GENDERS[i % 3]) for i in range(60)]
    warm, again = CaptionGrammar.load(), CaptionGrammar.load("bundled")
    one = [warm.caption(given_labels(labels), gender, i) for i, (labels, gender) in enumerate(sets)]
    other = [again.caption(given_labels(labels), gender, i) for i, (labels, gender) in reversed(list(enumerate(sets)))]
    assert one == other[::-1]


def test_seed_is_stable_and_depends_on_everything():
    assert caption_seed("0123456789abcdef_0", "v1", 0) == 4562640497655965982
    seeds = {caption_seed(f, v, s) for f in ("a_0", "a_1") for v in ("v1", "v2") for s in (0, 1)}
    assert len(seeds) == 8
    assert all(0 <= s < 2**64 for s in seeds)


def attribute_rows(n):
    draw = random.Random(3)
    rows = []
    for i in range(n):
        gender = GENDERS[i % 3]
        labels = given_labels(settled(draw.sample(OTHERS, draw.randint(0, 10)), gender))
        rows.append({"face_id": f"{i:016x}_0", **dict.fromkeys(ATTRIBUTES, 0.5), "gender": gender, "labels": labels,
                     "dropped_conflicts": []})  # fmt: skip
    return pl.DataFrame(rows, schema=dict(schemas.SCHEMAS["face_attributes"]))


@pytest.mark.slow
def test_caption_table_is_the_same_in_any_order_and_shard():
    frame, grammar, seen = attribute_rows(2500), CaptionGrammar.load(), []
    table = caption_table(frame, grammar, 11, on_progress=lambda *counts: seen.append(counts))
    assert seen == [(1000, 2500), (2000, 2500), (2500, 2500)]
    assert schemas.conform(table, "template_captions").height == 2500
    assert table["face_id"].equals(frame["face_id"])
    shuffled = caption_table(frame.sample(fraction=1, shuffle=True, seed=1)[:700], CaptionGrammar.load(), 11)
    both = shuffled.join(table, on="face_id", suffix="_all")
    assert both.height == 700
    assert both["template_caption"].equals(both["template_caption_all"], check_names=False)
    assert caption_table(schemas.empty("face_attributes"), grammar, 11).height == 0


def test_caption_table_names_the_bad_face():
    frame = attribute_rows(3).with_columns(labels=pl.Series([["Young"], ["Red_Hair"], []]))
    with pytest.raises(ValueError, match=r"0001_0.*Red_Hair"):
        caption_table(frame, CaptionGrammar.load(), 0)
