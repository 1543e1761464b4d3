"""Which errors of an endpoint end the asking: those that every further request would get as well."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from facecaption_ml.captions.backends.chat import Answer, ChatModelError, Failure

_LETTERS_COMPARED: Final = 60
_PASSING: Final = frozenset({408, 409, 425, 429})


@dataclass(frozen=True)
class HttpError:
    """An answer with a status other than 2xx. ``said``: the server's words, one line without secrets."""

    status: int
    code: str | None
    said: str

    @property
    def words(self) -> str:
        return f"{self.status} {self.said}".strip()

    @property
    def kind(self) -> tuple[int, str | None, str]:
        """Equal for errors that differ in numbers and identifiers only."""
        words = " ".join(word for word in self.said.lower().split() if word.strip("'\"`.,:;()").isalpha())
        return self.status, self.code, words[:_LETTERS_COMPARED]

    @property
    def answer(self) -> Answer:
        """What it means for its own row."""
        if self.code in ("content_filter", "content_policy_violation"):
            return Answer(failure=Failure.REFUSED, detail=self.said, said=self.said)
        failure = Failure.RATE_LIMITED if self.status == 429 else Failure.SERVER_ERROR
        return Answer(failure=failure, detail=self.words, said=self.words)

    @property
    def blames_the_request(self) -> bool:
        """A client error (4xx) that neither passes by itself nor is about the words of this one request."""
        return 400 <= self.status < 500 and self.status not in _PASSING and self.answer.failure is Failure.SERVER_ERROR


@dataclass
class ClientErrors:
    """Client errors of one kind in a row; ``most``: how many of them end the asking."""

    most: int
    _kind: tuple[int, str | None, str] | None = field(default=None, init=False)
    _count: int = field(default=0, init=False)

    def good_answer(self) -> None:
        self._count = 0

    def ends_asking(self, error: HttpError) -> bool:
        """Counts an error; whether it is one too many."""
        if not error.blames_the_request:
            return False
        self._count = self._count + 1 if error.kind == self._kind else 1
        self._kind = error.kind
        return self._count >= self.most


def wrong_option(error: HttpError, base_url: str, model: str) -> ChatModelError | None:
    """The error of an option that makes every request fail; None where the next request may be answered."""
    status, code, said = error.status, error.code, error.said
    if status in (401, 403):
        return ChatModelError(f"the key was refused by {base_url}: {error.words}", option="api_key")
    if status == 404 or code == "model_not_found":
        wrong = f"model {model!r} or endpoint {base_url} is wrong: {error.words}"
        return ChatModelError(wrong, option="model" if code == "model_not_found" else "endpoint")
    if code == "insufficient_quota":
        return ChatModelError(f"the quota of the key is used up at {base_url}: {said}", option="api_key")
    if 300 <= status < 400:
        return ChatModelError(f"{base_url} leads to {said}: set the final address", option="endpoint")
    return None


def same_every_time(error: HttpError, base_url: str, times: int) -> ChatModelError:
    """The error of an endpoint that refuses whatever it is asked."""
    option = "api_key" if error.status == 402 else "extra_body" if "chat_template_kwargs" in error.said else None
    return ChatModelError(
        f"{base_url} refused {times} requests in a row alike, so no more are sent: {error.words}", option
    )
