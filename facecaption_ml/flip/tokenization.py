"""Captions to token ids: BERT's WordPiece with one more token, [ENC], that opens the multimodal mode (paper §5.1)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor

FILE: Final = "tokenizer.json"
ENC: Final = "[ENC]"
_SPECIAL: Final = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", ENC)
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
        self._pad_id: int = tokenizer.token_to_id("[PAD]")

    @property
    def vocabulary(self) -> int:
        """Number of ids, [ENC] included."""
        return int(self._tokenizer.get_vocab_size(with_added_tokens=True))

    def __call__(self, texts: Sequence[str], width: int | None = None) -> Tokens:
        """Token ids of the texts; see the class. ``width``: pad to this many tokens instead."""
        found = self._tokenizer.encode_batch(list(texts))
        longest = max((len(encoding.ids) for encoding in found), default=1)
        width = width or min(-(-longest // _ROUND_TO) * _ROUND_TO, self.max_tokens)
        ids = torch.full((len(found), width), self._pad_id, dtype=torch.int64)
        mask = torch.zeros(len(found), width, dtype=torch.bool)
        for row, encoding in enumerate(found):
            ids[row, : len(encoding.ids)] = torch.tensor(encoding.ids)
            mask[row, : len(encoding.ids)] = True
        return Tokens(ids, mask, sum(bool(encoding.overflowing) for encoding in found))

    def multimodal(self, ids: Tensor) -> Tensor:
        """The same ids with [ENC] in place of [CLS]."""
        changed = ids.clone()
        changed[:, 0] = self.enc_id
        return changed

    def save(self, folder: Path) -> None:
        self._tokenizer.save(str(folder / FILE))

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
        """A WordPiece vocabulary of at most ``vocabulary`` entries learned from ``texts`` (BERT's casing and splitting)."""
        from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors, trainers

        tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
        tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
        tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
        trainer = trainers.WordPieceTrainer(
            vocab_size=vocabulary, special_tokens=list(_SPECIAL), show_progress=False, continuing_subword_prefix="##"
        )
        tokenizer.train_from_iterator(texts, trainer)
        first, last = (("[CLS]", tokenizer.token_to_id("[CLS]")), ("[SEP]", tokenizer.token_to_id("[SEP]")))
        tokenizer.post_processor = processors.TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=[first, last])
        return cls(tokenizer, max_tokens)
