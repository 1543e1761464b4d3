"""What a chat model's completion amounts to: a text, or one of the ways of not being one."""

from __future__ import annotations

import json
import re

from facecaption_ml.captions.backends.chat import Answer, Failure

# A caption describes a face in the third person, so a first person that declines at the start, or a model that speaks of
# itself anywhere, is a refusal.
_DECLINES = re.compile(
    r"""^\W*(
        (i\s+am|i'm)\s+((really|very|so|truly|deeply)\s+)?sorry\b
      | (sorry|apologies)\b[\s,.:;!-]+(but\s+)?(i|as)\b
      | (i\s+apologi[sz]e|my\s+apologies)\b
      | (unfortunately,?\s+)?i\s*(can't|can\s*not|could\s+not|couldn't|won't|will\s+not)\b
      | (unfortunately,?\s+)?(i\s+am|i'm)\s+(unable|not\s+able|not\s+allowed|not\s+comfortable)\b
      | i\s+(must|have\s+to)\s+(decline|refuse)\b
    )""",
    re.IGNORECASE | re.VERBOSE,
)
_SPEAKS_OF_ITSELF = re.compile(
    r"\bas\s+an?\s+(ai\b|artificial\s+intelligence|(large\s+)?language\s+model)", re.IGNORECASE
)


def is_refusal(text: str) -> bool:
    """Whether a text declines the task instead of doing it, by the usual English phrases."""
    plain = text.replace("\N{RIGHT SINGLE QUOTATION MARK}", "'")
    return bool(_DECLINES.search(plain) or _SPEAKS_OF_ITSELF.search(plain))


def read_completion(text: str | None, finish_reason: str | None, refusal: str | None = None) -> Answer:
    """The Answer for one completion.

    ``finish_reason`` and ``refusal`` are the fields of the OpenAI chat API: "length" means that the token limit cut the
    text off, "content_filter" that a filter withheld it. Nothing is kept of a text that is cut off.
    """
    stripped = (text or "").strip()
    if refusal or finish_reason == "content_filter" or is_refusal(stripped):
        return Answer(failure=Failure.REFUSED, detail=(refusal or stripped or "content filter")[:200])
    if finish_reason == "length":
        return Answer(failure=Failure.TRUNCATED, detail="the answer reached max_new_tokens")
    if not stripped:
        return Answer(failure=Failure.EMPTY, detail=f"finish_reason {finish_reason}")
    return Answer(text=stripped)


def read_body(body: bytes) -> Answer:
    """The Answer in the body of a chat completion (the OpenAI API's object), whatever the body really is."""
    try:
        parsed = json.loads(body)
        choice = parsed["choices"][0]
        message, finish_reason = choice["message"], choice.get("finish_reason")
        text, refusal = message.get("content"), message.get("refusal")
        for value in (text, refusal, finish_reason):
            if not (value is None or isinstance(value, str)):
                raise TypeError(f"a {type(value).__name__} instead of text")
        (text or "").encode()  # half a surrogate pair, which JSON can spell, fits in no table
    except (ValueError, KeyError, IndexError, TypeError, AttributeError, RecursionError) as error:
        start = body[:100].decode("utf-8", "replace")
        return Answer(failure=Failure.MALFORMED, detail=f"{type(error).__name__} {error} in {start!r}")
    return read_completion(text, finish_reason, refusal)
