"""Captions to ids: what BERT's own tokenizer says, plus [ENC]; a learned vocabulary is the same in every process."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from examples import examples
from facecaption_ml.flip.model.files import TOKENIZER
from facecaption_ml.flip.model.tokenization import ENC, CaptionTokenizer

CAPTIONS = [
    "A young woman with blond hair smiles.",
    "The man has a goatee and wears eyeglasses.",
    "An old man with gray hair, bushy eyebrows and a double chin.",
    "She is wearing earrings, a necklace and heavy makeup.",
    "A bald person with a big nose and high cheekbones.",
]
TRAINED = CaptionTokenizer.trained(CAPTIONS, 200, 16).to_json()
SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", ENC)
WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "woman", "smil", "##ing", "##es", "with", "hat", ".", ","]


@pytest.fixture(scope="module")
def tokenizer() -> CaptionTokenizer:
    return CaptionTokenizer.from_json(TRAINED, 16)


@pytest.fixture(scope="module")
def bert() -> CaptionTokenizer:
    """BERT's own, of a tiny vocabulary without [ENC]."""
    from transformers import BertTokenizer

    tokens = {token: at for at, token in enumerate(WORDS)}
    return CaptionTokenizer(BertTokenizer(vocab=tokens).backend_tokenizer, 8)


def token_ids(tokenizer: CaptionTokenizer) -> dict[str, int]:
    return dict(json.loads(tokenizer.to_json())["model"]["vocab"])


# -- texts to ids ----------------------------------------------------------------------------------------------------


def test_a_caption_becomes_cls_pieces_sep(bert: CaptionTokenizer) -> None:
    tokens = bert(["A Woman, smiling.", "hat"])
    cls, sep, pad = WORDS.index("[CLS]"), WORDS.index("[SEP]"), WORDS.index("[PAD]")
    pieces = [WORDS.index(word) for word in ("a", "woman", ",", "smil", "##ing", ".")]
    assert tokens.ids.tolist() == [[cls, *pieces, sep], [cls, WORDS.index("hat"), sep, *[pad] * 5]]
    assert tokens.mask.tolist() == [[True] * 8, [True] * 3 + [False] * 5]
    assert tokens.ids.dtype is torch.int64
    assert tokens.mask.dtype is torch.bool
    assert tokens.truncated == 0


def test_enc_is_one_more_token_and_takes_the_place_of_cls(bert: CaptionTokenizer) -> None:
    assert bert.enc_id == len(WORDS)
    assert bert.vocabulary == len(WORDS) + 1
    ids = bert(["a woman", "a hat with a woman"]).ids
    before = ids.clone()
    changed = bert.multimodal(ids)
    assert changed[:, 0].tolist() == [bert.enc_id] * 2
    assert torch.equal(changed[:, 1:], ids[:, 1:])
    assert torch.equal(ids, before)


def test_unknown_letters_are_unknown_not_an_error(bert: CaptionTokenizer) -> None:
    assert bert(["猫 a"]).ids[0, :4].tolist() == [WORDS.index(word) for word in ("[CLS]", "[UNK]", "a", "[SEP]")]


def test_texts_that_are_cut_are_counted_and_still_end_with_sep(bert: CaptionTokenizer) -> None:
    six, seven = " ".join(["hat"] * 6), " ".join(["hat"] * 7)  # with [CLS] and [SEP], 8 and 9 tokens
    assert bert([six]).truncated == 0
    tokens = bert([seven, "a hat", " ".join(["woman"] * 300)])
    assert tokens.truncated == 2
    assert tokens.ids.shape == (3, 8)
    assert tokens.ids[:, -1].tolist() == [WORDS.index("[SEP]"), WORDS.index("[PAD]"), WORDS.index("[SEP]")]


@examples(60)
@given(st.lists(st.text(max_size=60), max_size=6))
def test_any_texts_make_rows_as_wide_as_the_longest_in_eights(texts: list[str]) -> None:
    tokenizer = CaptionTokenizer.from_json(TRAINED, 16)
    tokens = tokenizer(texts)
    lengths = tokens.mask.sum(1)
    width = tokens.ids.shape[1]
    assert tokens.ids.shape == tokens.mask.shape == (len(texts), width)
    assert width in (8, 16)
    assert width - 8 < int(lengths.max() if texts else 1) <= width
    assert bool((lengths >= 2).all())  # [CLS] and [SEP] even without a word
    assert bool((tokens.mask == (torch.arange(width) < lengths[:, None])).all())  # tokens first, then padding
    assert int(tokens.ids.min() if texts else 0) >= 0
    assert int(tokens.ids.max() if texts else 0) < tokenizer.vocabulary
    alone = [tokenizer([text]) for text in texts]
    assert sum(one.truncated for one in alone) == tokens.truncated
    for row, one in enumerate(alone):
        assert one.ids[0, one.mask[0]].tolist() == tokens.ids[row, tokens.mask[row]].tolist()


def test_a_batch_can_be_given_a_width(tokenizer: CaptionTokenizer) -> None:
    narrow, wide = tokenizer(["a man"]), tokenizer(["a man"], 16)
    assert narrow.ids.shape == (1, 8)
    assert wide.ids.shape == (1, 16)
    assert torch.equal(wide.ids[:, :8], narrow.ids)
    assert int(wide.mask.sum()) == int(narrow.mask.sum())


def test_the_papers_captions_have_at_most_65_tokens() -> None:
    long = CaptionTokenizer.trained(CAPTIONS, 200, 65)(["a man " * 100])
    assert long.ids.shape == (1, 65)  # no round number: the paper's
    assert long.truncated == 1


# -- learned vocabularies --------------------------------------------------------------------------------------------


def test_a_learned_vocabulary_begins_with_the_special_tokens(tokenizer: CaptionTokenizer) -> None:
    ids = token_ids(tokenizer)
    assert [ids[token] for token in SPECIAL] == list(range(len(SPECIAL)))
    assert tokenizer.enc_id == ids[ENC]
    assert tokenizer.vocabulary == len(ids) <= 200
    assert sorted(ids.values()) == list(range(len(ids)))


def test_frequent_words_are_one_token_and_new_words_come_in_pieces(tokenizer: CaptionTokenizer) -> None:
    assert int(tokenizer(["a man with hair"]).mask.sum()) == 4 + 2
    ids = tokenizer(["smilewoman"]).ids[0]
    assert ids.tolist().count(token_ids(tokenizer)["[UNK]"]) == 0


def test_case_and_accents_do_not_matter(tokenizer: CaptionTokenizer) -> None:
    assert torch.equal(tokenizer(["A WOMAN with haír"]).ids, tokenizer(["a woman with hair"]).ids)


def test_two_number_signs_in_a_text_are_no_special_token(tokenizer: CaptionTokenizer) -> None:
    """Pieces inside words begin with ##; a text with such letters is a text."""
    ids = token_ids(tokenizer)
    assert "##a" in ids
    assert ids["##a"] not in tokenizer(["x ##a"]).ids[0].tolist()


def test_a_rare_script_does_not_crowd_out_the_words() -> None:
    rare = ["".join(chr(0x4E00 + 40 * row + column) for column in range(40)) for row in range(25)]
    tokenizer = CaptionTokenizer.trained(CAPTIONS * 50 + rare, 300, 16)
    assert tokenizer.vocabulary <= 300
    assert int(tokenizer(["a man with hair"]).mask.sum()) == 4 + 2


@pytest.mark.parametrize("texts", [[], ["", "  "]])
def test_without_words_there_are_the_special_tokens(texts: list[str]) -> None:
    tokenizer = CaptionTokenizer.trained(texts, 100, 8)
    assert tokenizer.vocabulary == len(SPECIAL)
    assert tokenizer(["a man"]).ids[0, :4].tolist() == [2, 1, 1, 3]


@pytest.mark.processes
def test_a_learned_vocabulary_is_the_same_in_every_process() -> None:
    """The trainer of the library numbers its alphabet in the order of a hash table, which differs between runs."""
    texts = CAPTIONS + [f"{word} {word[::-1]}" for caption in CAPTIONS for word in caption.lower().split()]
    program = (
        "import sys; from facecaption_ml.flip.model.tokenization import CaptionTokenizer as T;"
        "sys.stdout.write(T.trained(sys.stdin.read().splitlines(), 150, 16).to_json())"
    )
    here = {CaptionTokenizer.trained(texts, 150, 16).to_json() for _ in range(4)}
    environment = {**os.environ, "PYTHONHASHSEED": "7", "RAYON_NUM_THREADS": "3"}
    there = subprocess.run(
        [sys.executable, "-c", program],
        input="\n".join(texts),
        capture_output=True,
        text=True,
        check=True,
        env=environment,
        cwd=Path(__file__).parents[2],
        timeout=120,
    ).stdout
    assert here == {there}


# -- files -----------------------------------------------------------------------------------------------------------


def test_a_tokenizer_comes_back_from_its_file_and_its_json(tokenizer: CaptionTokenizer, tmp_path: Path) -> None:
    tokenizer.save(tmp_path)
    for again in (
        CaptionTokenizer.from_file(tmp_path / TOKENIZER, 16),
        CaptionTokenizer.from_json(tokenizer.to_json(), 16),
    ):
        assert again.to_json() == tokenizer.to_json()
        assert (again.enc_id, again.vocabulary) == (tokenizer.enc_id, tokenizer.vocabulary)
        texts = [*CAPTIONS, "an entirely new caption of a rather long kind that is cut at its end, is it not"]
        found, expected = again(texts), tokenizer(texts)
        assert torch.equal(found.ids, expected.ids)
        assert torch.equal(found.mask, expected.mask)
        assert found.truncated == expected.truncated > 0


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    for content in (None, "{", '{"version": "1.0"}'):
        path = tmp_path / TOKENIZER
        if content is not None:
            path.write_text(content)
        with pytest.raises(ValueError, match=TOKENIZER) as refusal:
            CaptionTokenizer.from_file(path, 16)
        assert "\n" not in str(refusal.value)


def test_a_tokenizer_that_is_not_berts_is_refused() -> None:
    from tokenizers import Tokenizer, models

    with pytest.raises(ValueError, match=r"no \[CLS\] token, so it is not BERT's"):
        CaptionTokenizer(Tokenizer(models.WordPiece({"[PAD]": 0, "[UNK]": 1}, unk_token="[UNK]")), 16)
