"""What a caption rewriter asks of a chat model, whatever runs it: in this process, behind an endpoint, or vLLM offline."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Protocol

from facecaption_ml.errors import FaceCaptionError

if TYPE_CHECKING:
    from facecaption_ml.captions.guided.constraint import Constraint, Encode, PunctuationTokens


class ChatModelError(FaceCaptionError):
    """No request can be answered: a wrong model name, a refused key, a missing package.

    ``option``: the field of ``ChatOptions`` at fault, where it is one.
    """

    def __init__(self, message: str, option: str | None = None) -> None:
        super().__init__(message)
        self.option = option


class Failure(StrEnum):
    """Why one request has no text. None of them ends a run."""

    UNREACHABLE = "endpoint unreachable"
    TIMEOUT = "endpoint too slow"
    RATE_LIMITED = "rate limit"
    SERVER_ERROR = "endpoint error"
    MALFORMED = "malformed answer"
    EMPTY = "empty answer"
    REFUSED = "refusal"
    TRUNCATED = "cut off"
    DEAD_END = "dead end"  # guided decoding found no word that may follow


@dataclass(frozen=True)
class ChatRequest:
    """One question. ``messages``: (role, content) pairs, roles system, user and assistant; the last one is the user's.

    ``seed`` (0 ≤ seed < 2⁶³) alone decides what is sampled: equal requests get equal answers from the same model where the
    backend can promise it (in process it does; an endpoint may not). ``constraint``: makes the constraint of guided decoding;
    backends without support for it do without.
    """

    messages: tuple[tuple[str, str], ...]
    seed: int
    constraint: Callable[[Encode, PunctuationTokens], Constraint] | None = field(default=None, compare=False)


@dataclass(frozen=True)
class Answer:
    """The text, stripped, or why there is none.

    ``fluency``: the mean log-probability of the text's tokens under the model (≤ 0), where the backend knows it.
    """

    text: str | None = None
    failure: Failure | None = None
    detail: str = ""
    fluency: float | None = None


@dataclass(frozen=True)
class Sampling:
    """How texts are drawn; part of the key under which answers are kept.

    ``temperature`` 0 is greedy; ``top_p`` in (0, 1]; ``max_new_tokens`` per answer.
    """

    temperature: float = 0.7
    top_p: float = 0.9
    max_new_tokens: int = 120


class ChatModel(Protocol):
    """A backend; ``registry`` says how to add one.

    ``model_id`` names model and weights; it is part of the cache key and of every row's lineage. ``supports_constraints``:
    whether it sees the model's probabilities, which guided decoding needs.
    """

    model_id: str
    supports_constraints: bool

    def answer(self, requests: Sequence[ChatRequest], sampling: Sampling) -> list[Answer]:
        """An answer for each request, in their order. Raises ChatModelError where no request at all can be answered."""
        ...

    def close(self) -> None:
        """Let go of the model or the connections."""
        ...
