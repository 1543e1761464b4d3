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
    """No request can be answered: a wrong model name, a refused key, a missing package. The message names the setting."""


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
    DEAD_END = "dead end"  # guided decoding found no word to go on with


@dataclass(frozen=True)
class ChatRequest:
    """One question. ``messages``: (role, content) pairs, roles system, user and assistant; the last one is the user's.

    ``seed`` (0 ≤ seed < 2⁶³) alone decides what is sampled: equal requests get equal answers from the same model where the
    backend can promise it (in process it does; an endpoint may not). ``constraint``: makes the constraint of guided decoding, for
    backends that see the model's probabilities; the others do without.
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
    """How texts are drawn. ``temperature`` 0 is greedy; ``top_p`` in (0, 1]; ``max_new_tokens`` per answer."""

    temperature: float = 0.7
    top_p: float = 0.95
    max_new_tokens: int = 96


class ChatModel(Protocol):
    """A backend. ``model_id`` names model and weights; it is part of the cache key and of every row's lineage."""

    model_id: str

    def answer(
        self,
        requests: Sequence[ChatRequest],
        sampling: Sampling,
        on_answer: Callable[[int, Answer], None] | None = None,
    ) -> list[Answer]:
        """An answer for each request, in their order; ``on_answer(index, answer)`` as soon as each is there.

        Raises ChatModelError where no request at all can be answered.
        """
        ...

    def close(self) -> None:
        """Let go of the model or the connections."""
        ...
