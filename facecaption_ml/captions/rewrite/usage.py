"""What asking a chat model took: requests, tokens, their price, and what went wrong."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Final

from facecaption_ml.captions.backends.chat import Answer

_MOST_KINDS: Final = 50  # of errors told apart
_MILLION: Final = 1_000_000


@dataclass
class Usage:
    """Sums over the answers of a rewriting. ``kept``: answers that were there already; their tokens were paid before.

    ``errors``: what servers said, or what came of asking them, and how often.
    """

    requests: int = 0
    kept: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    kept_prompt_tokens: int = 0
    kept_completion_tokens: int = 0
    errors: Counter[str] = field(default_factory=Counter)

    def add(self, answer: Answer) -> None:
        """Count an answer that was just given, or why there is none."""
        self.requests += answer.asked
        self.prompt_tokens += answer.prompt_tokens
        self.completion_tokens += answer.completion_tokens
        if answer.asked and (answer.said or (answer.failure and answer.failure.of_server)):
            said = answer.said or answer.detail
            line = f"{answer.failure}: {said}" if said else str(answer.failure)
            self.errors[line if line in self.errors or len(self.errors) < _MOST_KINDS else "other errors"] += 1

    def add_kept(self, answer: Answer) -> None:
        """Count an answer out of the store."""
        self.kept += 1
        self.kept_prompt_tokens += answer.prompt_tokens
        self.kept_completion_tokens += answer.completion_tokens

    def add_all(self, other: Usage) -> None:
        """Count all that another one counted."""
        for name, value in vars(other).items():
            setattr(self, name, getattr(self, name) + value)

    def told(self, prices: Prices) -> str:
        """One line: ``412 answers asked for, 190,112 + 21,004 tokens, cost 0.0412``."""
        cost = prices.cost(self.prompt_tokens, self.completion_tokens)
        tokens = f"{self.prompt_tokens:,} + {self.completion_tokens:,} tokens"
        return f"{self.requests:,} answers asked for, {tokens}" + (f", cost {cost:.4f}" if prices != Prices() else "")


@dataclass(frozen=True)
class Prices:
    """Of a million tokens, in whatever currency; 0 where nothing is paid."""

    prompt: float = 0.0
    completion: float = 0.0

    def cost(self, prompt_tokens: int, completion_tokens: int) -> float:
        return (prompt_tokens * self.prompt + completion_tokens * self.completion) / _MILLION
