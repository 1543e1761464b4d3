"""Fences, JSON, markup and quotes around the text of an answer: what stands in them is taken out, or a reason given."""

from __future__ import annotations

import html
import json
import re
import tomllib
import unicodedata
from collections.abc import Iterator
from enum import StrEnum
from pathlib import Path
from typing import Any, Final

WORDS: Final[dict[str, Any]] = tomllib.loads(Path(__file__).with_name("answers.toml").read_text(encoding="utf-8"))

_FENCE: Final = re.compile(r"(?:```|~~~)[ \t]*(?:[\w+-]*[ \t]*(?:\r?\n|$))?(.*?)(?:```|~~~|\Z)", re.DOTALL)
# A tag that models put around a whole answer; tags within a sentence stay, and are refused as markup.
_TAGGED: Final = re.compile(r"\A\s*(?:.{0,80}?[:.!]\s*)?<(\w[\w-]{0,30})(?:\s[^<>]*)?>\s*(.*?)\s*</\1\s*>", re.DOTALL)
_BLOCKS: Final = re.compile(r"</?(?:p|br|div|body|html|blockquote)\s*/?>", re.IGNORECASE)
_STRESS: Final = ("b", "i", "u", "em", "strong", "span", "mark", "code")  # of words: these take nothing off behind them
_BOXED: Final = re.compile(r"\$*\\(?:boxed|text(?:bf|it)?)\s*\{\s*(?:\\text\s*\{)?([^{}]*)\}\}?\$*")
_RULE: Final = re.compile(r"^[ \t]*(?:[-*_=~—–][ \t]*){3,}$", re.MULTILINE)
_HEADING: Final = re.compile(r"^[ \t]*#{1,6}[ \t]+(.*?)[ \t#]*$", re.MULTILINE)
_BLOCK_QUOTE: Final = re.compile(r"^[ \t]*(?:>[ \t]?)+", re.MULTILINE)
_STRESSED: Final = re.compile(r"(\*{1,3}|_{1,3}|`{1,2}|~~|==)(?=\S)([^*`~=]*?\S)\1(?!\w)", re.DOTALL)
_PAIRS: Final = {
    '"': '"',
    "“": "”",
    "„": "“”",
    "«": "»",
    "‘": "’",
    "'": "'",
    "‹": "›",
    "「": "」",
    "『": "』",
    "”": "”",
    "＂": "＂",
}
_JSON: Final = re.compile(r"[{\[]\s*[\"'“{\[]")
_FIELD: Final = rf"""["'“]?(?:\w+[_ -])?(?:{"|".join(WORDS["fields"][:14])})["'”]?"""
_NEARLY_JSON: Final = re.compile(
    rf"""\s*\{{\s*{_FIELD}\s*:\s*["'“](.*?)["'”]?\s*\}}?\s*\Z""", re.DOTALL | re.IGNORECASE
)
_BRACKETED: Final = re.compile(r"\A[\[({<]+([^\[\](){}<>]*)[\])}>]+\.?\Z")
# Letters that nobody sees, and spaces of other widths. What turns the direction of a text is left for the judge to refuse.
_UNSEEN: Final = dict.fromkeys(map(ord, "\ufeff\u200b\u2060\u00ad"), None)
_SPACES: Final = dict.fromkeys(map(ord, "\u00a0\u202f\u2009\u2002\u2003\u200a"), " ")
_EMOTICON: Final = re.compile(r"(?<=\s)(?:[:;]-?[)D(P]|<3|\^_?\^)(?=\s|$)")
_FEWEST_WORDS: Final = 4  # of a text that quotes or a fence may hold


class NotTaken(StrEnum):
    """Why an answer could not be taken apart."""

    THINKING = "thinking cut off"
    NOTHING = "no caption in the answer"
    SEVERAL = "several texts in one answer"
    LIST = "a list instead of a text"
    LONG = "much too long"


class NotTakenError(ValueError):
    """An answer that has no single text; ``fault`` says why."""

    def __init__(self, fault: NotTaken) -> None:
        super().__init__(str(fault))
        self.fault = fault


def without_unseen(text: str) -> str:
    """Without invisible letters, entities of HTML and emoji; other spaces become plain ones, other line ends \\n."""
    if re.search(r"&(?:#\w+|\w+);", text):
        text = html.unescape(text)
    text = text.translate(_UNSEEN | _SPACES).replace("\r\n", "\n").replace("\r", "\n")
    text = re.sub(r"(?<=[A-Za-z])’(?=[A-Za-z])", "'", text)
    return _EMOTICON.sub("", text if text.isascii() else "".join(_without_emoji(text)))


def _without_emoji(text: str) -> Iterator[str]:
    joined = False  # to an emoji before it
    for letter in text:
        emoji = unicodedata.category(letter) == "So" or "\U0001f3fb" <= letter <= "\U0001f3ff"
        if emoji or (joined and letter in "\u200d\ufe0f\ufe0e\u20e3"):
            joined = True
            continue
        joined = False
        if letter not in "\ufe0f\ufe0e\u20e3":
            yield letter


def unwrapped(text: str) -> str:
    """The text within fences, tags, JSON and quotes, however deep they lie in one another. Raises NotTakenError."""
    for _ in range(6):
        before = text
        text = _from_json(_untagged(_unfenced(text.strip())))
        if text == before:
            break
    return text


def plain(text: str) -> str:
    """Without Markdown's headings, rules, quotes and stress, and without \\boxed{}."""
    text = _BOXED.sub(r"\1", text)
    text = _HEADING.sub(r"\1:", _RULE.sub("", _BLOCK_QUOTE.sub("", text)))
    before = None
    while before != text:
        before = text
        text = _STRESSED.sub(r"\2", text)
    bracketed = _BRACKETED.match(text.strip())
    return bracketed[1] if bracketed and len(bracketed[1].split()) >= _FEWEST_WORDS else text.strip()


def unquoted(text: str) -> str:
    """What stands within the quotes that a text begins with, where it is most of it; what follows them is a remark."""
    text = text.strip()
    if text.startswith('\\"'):
        text = text.replace('\\"', '"')
    if not text or text[0] not in _PAIRS:
        return text
    closing = _PAIRS[text[0]]
    for place in (i for i, letter in enumerate(text) if i and letter in closing):
        after = text[place + 1 : place + 2]
        if after.isalnum():  # an apostrophe
            continue
        inner, rest = text[1:place].strip(), text[place + 1 :].strip()
        if len(inner.split()) >= _FEWEST_WORDS and (not rest.strip(".!") or len(inner) >= len(rest)):
            return inner
        return text
    return text[1:].strip()  # never closed


def _unfenced(text: str) -> str:
    blocks = [block.strip() for block in _FENCE.findall(text)]
    blocks = [block for block in blocks if len(block.split()) >= _FEWEST_WORDS or block[:1] in "{["]
    if not blocks:
        return text
    if len({block for block in blocks if block}) > 1:
        raise NotTakenError(NotTaken.SEVERAL)
    return blocks[0] or text


def _untagged(text: str) -> str:
    text = _BLOCKS.sub("\n", text).strip()
    tagged = _TAGGED.match(text)
    if not tagged or not tagged[2] or (tagged[1].lower() in _STRESS and text[tagged.end() :].strip()):
        return text
    return tagged[2]


def _from_json(text: str) -> str:
    """The text in a JSON value that the answer holds; the answer itself where it holds none."""
    start = _JSON.search(text) if text[:1] != '"' else re.match('"', text)
    if start is None:
        return text
    try:
        value, end = json.JSONDecoder(strict=False).raw_decode(text, start.start())
    except (ValueError, RecursionError):
        return _from_nearly_json(text)
    if isinstance(value, str) and text[end:].strip(" .\n"):
        return text  # quotes around a part of a text
    return _text_in(value)


def _from_nearly_json(text: str) -> str:
    """``{'caption': 'A man.'}``, an object that was never closed, and the like."""
    found = _NEARLY_JSON.match(text)
    return found[1].strip() if found else text


def _text_in(value: Any) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, list):
        texts = [_text_in(item) for item in value if isinstance(item, str | dict)]
        if len(texts) == 1 and len(value) == 1:
            return texts[0]
        raise NotTakenError(NotTaken.SEVERAL if texts else NotTaken.NOTHING)
    if isinstance(value, dict):
        by_name = {re.sub(r"[^a-z]", "", str(name).lower()): inner for name, inner in value.items()}
        for name in WORDS["fields"]:
            if name in by_name and isinstance(by_name[name], str | dict | list):
                return _text_in(by_name[name])
        rest = [
            inner
            for name, inner in by_name.items()
            if name not in WORDS["other_fields"] and isinstance(inner, str | dict)
        ]
        if len(rest) == 1:
            return _text_in(rest[0])
        raise NotTakenError(NotTaken.SEVERAL if rest else NotTaken.NOTHING)
    raise NotTakenError(NotTaken.NOTHING)
