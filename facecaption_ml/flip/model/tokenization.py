"""Captions to token ids: BERT's WordPiece with one more token, [ENC], that opens the multimodal mode (paper §5.1)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor

from facecaption_ml.flip.model.files import TOKENIZER

ENC: Final = "[ENC]"
_UNKNOWN: Final = "[UNK]"
_SPECIAL: Final = ("[PAD]", _UNKNOWN, "[CLS]", "[SEP]", "[MASK]", ENC)
_CONTINUING: Final = "##"  # opens the pieces inside a word
_LETTERS: Final = 1000  # characters of a learned vocabulary at most; alt texts come in every script
_ROUND_TO: Final = 8  # lengths of batches, for tensor cores and fewer shapes


@dataclass(frozen=True)
class Tokens:
    """Ids int64 [B, L], mask bool [B, L] (true: a token), and how many texts were cut."""

    ids: Tensor
    mask: Tensor
    truncated: int

    def to(self, device: torch.device | str) -> Tokens:
        return Tokens(self.ids.to(device, non_blocking=True), self.mask.to(device, non_blocking=True), self.truncated)


class CaptionTokenizer:
    """Texts as [CLS] … [SEP], at most ``max_tokens`` of them; longer texts lose their end and are counted.

    A batch is as wide as its longest text, rounded up to eight tokens, not always 65: padding is masked either way.
    """

    def __init__(self, tokenizer: Any, max_tokens: int) -> None:
        """``tokenizer``: a ``tokenizers.Tokenizer`` with BERT's special tokens. Raises ValueError where one is missing."""
        self._tokenizer, self.max_tokens = tokenizer, max_tokens
        tokenizer.no_padding()
        tokenizer.enable_truncation(max_tokens)
        if tokenizer.token_to_id(ENC) is None:
            tokenizer.add_special_tokens([ENC])
        for token in _SPECIAL:
            if tokenizer.token_to_id(token) is None:
                raise ValueError(f"the tokenizer has no {token} token, so it is not BERT's")
        self.enc_id: int = tokenizer.token_to_id(ENC)
        self.cls_id: int = tokenizer.token_to_id("[CLS]")
        self._pad_id: int = tokenizer.token_to_id("[PAD]")

    @property
    def vocabulary(self) -> int:
        """Number of ids, [ENC] included."""
        return int(self._tokenizer.get_vocab_size(with_added_tokens=True))

    @property
    def has_words(self) -> bool:
        """Whether there are more than the special tokens."""
        return self.vocabulary > len(_SPECIAL)

    def __call__(self, texts: Sequence[str], width: int | None = None) -> Tokens:
        """Token ids of the texts; see the class. ``width``: pad to this many tokens instead."""
        encodings = self._tokenizer.encode_batch(list(texts))
        longest = max((len(encoding.ids) for encoding in encodings), default=1)
        width = width or min(-(-longest // _ROUND_TO) * _ROUND_TO, self.max_tokens)
        ids = torch.full((len(encodings), width), self._pad_id, dtype=torch.int64)
        mask = torch.zeros(len(encodings), width, dtype=torch.bool)
        for row, encoding in enumerate(encodings):
            ids[row, : len(encoding.ids)] = torch.tensor(encoding.ids)
            mask[row, : len(encoding.ids)] = True
        return Tokens(ids, mask, sum(bool(encoding.overflowing) for encoding in encodings))

    def multimodal(self, ids: Tensor) -> Tensor:
        """The same ids with [ENC] in place of [CLS]."""
        changed = ids.clone()
        changed[:, 0] = self.enc_id
        return changed

    def save(self, folder: Path) -> None:
        self._tokenizer.save(str(folder / TOKENIZER))

    def to_json(self) -> str:
        return str(self._tokenizer.to_str())

    @classmethod
    def from_json(cls, text: str, max_tokens: int) -> CaptionTokenizer:
        """From what ``to_json`` gave."""
        from tokenizers import Tokenizer

        return cls(Tokenizer.from_str(text), max_tokens)

    @classmethod
    def from_file(cls, path: Path, max_tokens: int) -> CaptionTokenizer:
        """From what ``save`` wrote. Raises ValueError naming the file where it cannot be read."""
        from tokenizers import Tokenizer

        try:
            return cls(Tokenizer.from_file(str(path)), max_tokens)
        except Exception as error:  # the reader's errors have no type of their own
            raise ValueError(f"{path}: {str(error).splitlines()[0]}") from error

    @classmethod
    def trained(cls, texts: Iterable[str], vocabulary: int, max_tokens: int) -> CaptionTokenizer:
        """A WordPiece vocabulary of at most ``vocabulary`` entries learned from ``texts`` (BERT's casing and splitting).

        Equal texts give an equal vocabulary with equal ids, in every process.
        """
        from tokenizers import models, trainers

        known = list(texts)
        letters, continuing = _alphabet(known, min(_LETTERS, vocabulary // 3))
        learner = _wordpiece(models.WordPiece(unk_token=_UNKNOWN))
        trainer = trainers.WordPieceTrainer(
            vocab_size=vocabulary,
            # The trainer numbers the pieces inside words in the order of a hash table, another one in each run, and so
            # breaks ties between merges differently each time. Named here, they have their numbers already.
            special_tokens=[*_SPECIAL, *continuing],
            initial_alphabet=letters,
            limit_alphabet=len(letters),
            show_progress=False,
            continuing_subword_prefix=_CONTINUING,
        )
        learner.train_from_iterator(known, trainer)
        # a new tokenizer, in which only the special tokens are special
        return cls(_wordpiece(models.WordPiece(learner.get_vocab(), unk_token=_UNKNOWN)), max_tokens)


def _wordpiece(model: Any) -> Any:
    """A ``tokenizers.Tokenizer`` of a WordPiece ``model``, with the steps before and after it that BERT has."""
    from tokenizers import Tokenizer, normalizers, pre_tokenizers, processors

    tokenizer = Tokenizer(model)
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    if tokenizer.token_to_id("[CLS]") is not None:
        tokenizer.add_special_tokens(list(_SPECIAL))
        ends = [(token, tokenizer.token_to_id(token)) for token in ("[CLS]", "[SEP]")]
        tokenizer.post_processor = processors.TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=ends)
    return tokenizer


def _alphabet(texts: Iterable[str], limit: int) -> tuple[list[str], list[str]]:
    """The ``limit`` most frequent characters of the texts, and those that occur inside words, as pieces; both sorted."""
    from tokenizers import normalizers, pre_tokenizers

    normalizer, splitter = normalizers.BertNormalizer(lowercase=True), pre_tokenizers.BertPreTokenizer()
    words: Counter[str] = Counter()
    for text in texts:
        words.update(normalizer.normalize_str(text).split())
    counts: Counter[str] = Counter()
    inside: set[str] = set()
    for word, times in words.items():
        for part, _ in splitter.pre_tokenize_str(word):
            inside.update(part[1:])
            for letter in part:
                counts[letter] += times
    letters = sorted(sorted(counts, key=lambda letter: (-counts[letter], letter))[:limit])
    return letters, [_CONTINUING + letter for letter in letters if letter in inside]
