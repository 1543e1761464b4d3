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

    ``option``: the field of ``ChatOptions`` at fault, where it is one. ``answers``: those that came before it, None for each
    request without one, so that what was paid for can be kept.
    """

    def __init__(self, message: str, option: str | None = None) -> None:
        super().__init__(message)
        self.option = option
        self.answers: Sequence[Answer | None] = ()


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
    THINKING = "thinking cut off"  # nothing but reasoning within the limit
    DEAD_END = "dead end"  # guided decoding found no word that may follow

    @property
    def of_server(self) -> bool:
        """Whether the server failed, not the model: asking again later may bring an answer."""
        return self in (
            Failure.UNREACHABLE, Failure.TIMEOUT, Failure.RATE_LIMITED, Failure.SERVER_ERROR, Failure.MALFORMED,
        )  # fmt: skip


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

    ``fluency``: the mean log-probability of the text's tokens under the model (≤ 0), where the backend knows it. ``said``: the
    server's own words about an error, one line without secrets. ``asked``: whether a request was made for it.
    ``prompt_tokens``, ``completion_tokens``: as the backend counted them, 0 where it does not count.
    """

    text: str | None = None
    failure: Failure | None = None
    detail: str = ""
    fluency: float | None = None
    said: str = field(default="", compare=False)
    asked: bool = field(default=True, compare=False)
    prompt_tokens: int = field(default=0, compare=False)
    completion_tokens: int = field(default=0, compare=False)

    @property
    def reason(self) -> str:
        """Why there is no text, with the server's words where it said any; "" where there is one."""
        if self.failure is None:
            return ""
        return f"{self.failure}: {self.said}" if self.said else str(self.failure)


@dataclass(frozen=True)
class Sampling:
    """How texts are drawn; part of the key under which answers are kept.

    ``temperature`` 0 is greedy; ``top_p`` in (0, 1]; ``max_new_tokens`` per answer, its thinking included. ``extra_body``: what
    else a request to an endpoint says, as a JSON object; other backends do without.
    """

    temperature: float = 0.7
    top_p: float = 0.9
    max_new_tokens: int = 120
    extra_body: str = "{}"


class ChatModel(Protocol):
    """A backend; ``registry`` says how to add one.

    ``model_id`` names model and weights; it is part of the cache key and of every row's lineage. ``supports_constraints``:
    whether it sees the model's probabilities, which guided decoding needs. ``batched``: whether the other requests of a batch
    can change an answer in its last bits; those of one batch are then asked together, or not at all.
    """

    model_id: str
    supports_constraints: bool
    batched: bool

    def answer(self, requests: Sequence[ChatRequest], sampling: Sampling) -> list[Answer]:
        """An answer for each request, in their order. Raises ChatModelError where no (further) request can be answered."""
        ...

    def close(self) -> None:
        """Let go of the model or the connections."""
        ...
