"""What a chat model says, apart from what it thinks aloud and from the marks of its chat template (``marks.toml``)."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final

_MARKS: Final[dict[str, Any]] = tomllib.loads(Path(__file__).with_name("marks.toml").read_text(encoding="utf-8"))


def _any_of(texts: Iterable[str]) -> str:
    return "|".join(re.escape(text) for text in sorted(texts, key=len, reverse=True))


_TAGS: Final = rf"(?:\w+:)?(?:{_any_of(_MARKS['thinking']['tags'])})"
_THINKING: Final = re.compile(
    rf"(?P<open><\s*{_TAGS}\s*>|{_any_of(begin for begin, _ in _MARKS['thinking']['pairs'])})"
    rf"|(?P<close><\s*/\s*{_TAGS}\s*>|{_any_of(end for _, end in _MARKS['thinking']['pairs'])})",
    re.IGNORECASE,
)
# The channels of gpt-oss ("harmony"), as tokens and as what is left of them where a server drops the tokens.
_FINAL_CHANNEL: Final = re.compile(
    r".*(?:<\|channel\|>\s*final\b[^<]*<\|message\|>|assistant\s*final(?=[A-Z\"'*{]))", re.DOTALL
)
_OTHER_CHANNEL: Final = re.compile(
    r"\s*(?:<\|start\|>\s*assistant\s*)?(?:<\|channel\|>\s*\w+|(?:analysis|commentary)(?=[A-Z]))"
)
_ENDS: Final = re.compile(_any_of(_MARKS["turn"]["ends"]), re.IGNORECASE)
_OWN: Final = _any_of(_MARKS["turn"]["own"])
# A name of whose turn it is goes with the mark before it.
_STARTS: Final = re.compile(rf"(?:{_any_of(_MARKS['turn']['starts'])})(?:\s*(?:{_OWN})\b)?", re.IGNORECASE)
_OWN_LINE: Final = re.compile(rf"\s*(?:{_OWN})\s*:?\s*\n", re.IGNORECASE)
_OTHERS_TURN: Final = re.compile(
    rf"\n[ \t]*(?:{_any_of(_MARKS['turn']['others'])})[ \t]*(?::|\n|$).*", re.DOTALL | re.IGNORECASE
)


def spoken(text: str) -> str | None:
    """The text without its thinking and without marks of a chat template, stripped; None where the thinking has no end.

    A closing tag alone ends thinking that the prompt began. Several blocks, nested ones and empty ones go alike. Of a model
    that goes on with turns of others only its own first turn counts.
    """
    final = _FINAL_CHANNEL.match(text)
    if final:
        text = text[final.end() :]
    elif _OTHER_CHANNEL.match(text):
        return None
    kept = _without_thinking(text)
    return None if kept is None else _without_marks(kept)


def _without_thinking(text: str) -> str | None:
    parts: list[str] = []
    depth, start = 0, 0
    for tag in _THINKING.finditer(text):
        if tag["open"]:
            if depth == 0:
                parts.append(text[start : tag.start()])
            depth += 1
        else:
            if depth == 0:
                parts.clear()  # all before it was thinking
            depth = max(depth - 1, 0)
            start = tag.end()
    if depth:
        return None
    return "\n".join([*parts, text[start:]]).strip()


def _without_marks(text: str) -> str:
    before = None
    while before != text:  # marks stand behind one another
        before = text
        for mark in (_STARTS, _ENDS, _OWN_LINE):
            found = mark.match(text)
            text = text[found.end() :].lstrip() if found else text
    end = _ENDS.search(text)
    text = text[: end.start()] if end else text
    text = _OTHERS_TURN.sub("", text)
    return _STARTS.sub(" ", text).strip()
