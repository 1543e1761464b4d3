"""The caption grammar: a text file of weighted productions, loaded once, sampled for any set of labels."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Final

from facecaption_ml.captions.labels import label_bits
from facecaption_ml.captions.template.constructions import Constructions
from facecaption_ml.captions.template.fitting import Fitting
from facecaption_ml.captions.template.phrases import Kept, PhraseBook
from facecaption_ml.captions.template.planner import Planner
from facecaption_ml.captions.template.productions import GrammarError, Rules, read_rules
from facecaption_ml.captions.template.sampler import Sampler
from facecaption_ml.captions.template.style import bundled_style
from facecaption_ml.captions.template.written_out import Written, written
from facecaption_ml.taxonomy import Gender

BUNDLED: Final = Path(__file__).with_name("face.pcfg")

__all__ = ["BUNDLED", "CaptionGrammar", "GrammarError", "bundled_grammar"]


class CaptionGrammar:
    """A probabilistic context-free grammar for face captions (paper §3.3); make one with :meth:`load`.

    ``version`` is 12 hex digits of the SHA-256 of the grammar text and the style's (``style.toml``). Loading takes a moment
    (nltk), and the first captions are slower because a grammar keeps what it works out for parts of label sets: load one and
    use it for many captions.
    """

    def __init__(self, text: str, source: str) -> None:
        self._style = bundled_style()
        self.version: str = hashlib.sha256(f"{text}\n{self._style.text}".encode()).hexdigest()[:12]
        self._rules: Rules = read_rules(text, source)
        self._guarded: int = self._rules.guarded
        self._planner = Planner(self._style)
        self._kept = Kept()
        self._constructions: dict[Written, Constructions] = {}
        self._samplers: dict[int, Sampler] = {}

    @classmethod
    def load(cls, path: str | Path = "bundled") -> CaptionGrammar:
        """Read and validate a grammar file; "bundled" is the one that comes with the package.

        Raises GrammarError in one line that names the file, the line and the production.
        """
        file = BUNDLED if path == "bundled" else Path(path)
        try:
            text = file.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise GrammarError(f"{file}: cannot read the grammar: {error}") from error
        return cls(text, str(file))

    def caption(self, labels: Sequence[str], gender: Gender | None, seed: int) -> str:
        """Several short sentences that assert each label once, and the gender where it is known.

        ``labels`` are names of ``taxonomy.ATTRIBUTES`` in any order; contradictions among them are settled first
        (``taxonomy.settle_conflicts``). The text depends on the settled labels, this grammar and ``seed`` alone.
        Raises ValueError for an unknown label, and for gender "female" beside the label Male.
        """
        bits = label_bits(labels, gender)
        known = bits & self._guarded
        sampler = self._samplers.get(known)
        if sampler is None:
            sampler = self._samplers[known] = self._sampler(known)
        return sampler.caption(bits, seed)

    def _sampler(self, known: int) -> Sampler:
        """For label sets that have these (bits) of the labels that guards ask about."""
        book = PhraseBook(self._rules, known, self._kept)
        texts = written(self._rules, book)
        if texts not in self._constructions:
            self._constructions[texts] = Constructions(texts, self._style)
        constructions = self._constructions[texts]
        return Sampler(self._style, self._planner, constructions, Fitting(self._rules, book, constructions))


@cache
def bundled_grammar() -> CaptionGrammar:
    """The bundled grammar, loaded at first use."""
    return CaptionGrammar.load("bundled")
