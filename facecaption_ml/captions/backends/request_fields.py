"""What a request to an endpoint says beside model and messages, and what is left out where a server refuses a field."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Collection
from typing import Any, Final

from facecaption_ml.captions.backends.chat import Sampling

# Servers keep seeds in 32 bits (llama.cpp, where all ones mean "random") or in a double's 53; 31 bits mean the same to all.
_SEED_RANGE: Final = 2**31 - 1
_LIMITS: Final = ("max_tokens", "max_completion_tokens")
# In this order: a server that takes temperature or top_p, but not both, names both.
_LEFT_OUT: Final = ("top_p", "temperature", "seed")
_NOT_KNOWN: Final = re.compile(
    r"not supported|unsupported|(?:does not|doesn't|cannot) support|unknown|unrecogni[sz]ed|unexpected|not permitted"
    r"|not allowed|extra (?:inputs|fields)|only the default|deprecated|cannot both|not available|use 'max_completion_tokens'",
    re.IGNORECASE,
)
RESERVED: Final = ("model", "messages", "stream", "n")
"""Fields that no extra body may set: the reader of the answers relies on them."""
_log = logging.getLogger("facecaption")


def checked_extra_body(value: Any) -> dict[str, Any]:
    """An extra body, given as a JSON text or as a mapping. Raises ValueError with one line that says what is wrong."""
    if isinstance(value, str):
        try:
            value = json.loads(value or "{}", parse_constant=_no_number)
        except json.JSONDecodeError as error:
            raise ValueError(f"not JSON: {error}") from None
        except RecursionError:
            raise ValueError("nested too deeply") from None
    if not isinstance(value, dict):
        raise ValueError('it should be a JSON object such as {"chat_template_kwargs": {"enable_thinking": false}}')
    taken = [name for name in RESERVED if name in value]
    if taken:
        raise ValueError(f"{taken[0]!r} cannot be set here; the fields {', '.join(RESERVED)} are the request's own")
    return value


def _no_number(name: str) -> float:
    raise ValueError(f"{name} is no number of JSON")


class RequestFields:
    """The fields of requests to one endpoint; learns from refusals which of them its server does not know.

    The documented cases: 400 for ``max_tokens`` where only ``max_completion_tokens`` is known (OpenAI's reasoning models, and
    the other way round), for a ``temperature`` or ``top_p`` other than the default, for ``seed`` (Mistral, some gateways).
    """

    def __init__(self) -> None:
        self.limit = _LIMITS[0]
        self.left_out: set[str] = set()
        self._limits_refused: set[str] = set()

    def of(self, sampling: Sampling, seed: int) -> dict[str, Any]:
        """The fields of one request. Those of the extra body win; null there leaves a field out."""
        fields: dict[str, Any] = {
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
            self.limit: sampling.max_new_tokens,
            "seed": seed % _SEED_RANGE,
        }
        extra = json.loads(sampling.extra_body)
        if any(name in extra for name in _LIMITS):
            del fields[self.limit]
        fields = {name: value for name, value in fields.items() if name not in self.left_out} | extra
        return {name: value for name, value in fields.items() if value is not None}

    def learn(self, sent: Collection[str], sampling: Sampling, status: int, code: str | None, said: str) -> bool:
        """Whether a refusal is about a field that the next request will not have; ``sent``: those that this one had."""
        if status not in (400, 422):
            return False
        own = set(sent) - set(json.loads(sampling.extra_body))
        named = [
            name for name in (*_LIMITS, *_LEFT_OUT) if name in own and re.search(rf"\b{name}\b", said, re.IGNORECASE)
        ]
        if not ((code or "").startswith("unsupported") or _NOT_KNOWN.search(said)):
            named = [name for name in named if name == "seed"]  # nothing is wrong with its value
        if not named:
            return False
        return self._rename(named[0], said) if named[0] in _LIMITS else self._leave_out(named[0], said)

    def _rename(self, name: str, said: str) -> bool:
        if name == self.limit:
            self._limits_refused.add(name)
            other = _LIMITS[1 - _LIMITS.index(name)]
            if other in self._limits_refused:
                return False
            self.limit = other
            _log.warning("the endpoint does not take %s, so %s is sent: %s", name, other, said)
        return True

    def _leave_out(self, name: str, said: str) -> bool:
        if name not in self.left_out:
            self.left_out.add(name)
            _log.warning("the endpoint does not take %s, so it is left out: %s", name, said)
        return True
