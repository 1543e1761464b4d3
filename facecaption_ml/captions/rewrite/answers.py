"""A chat model's answer taken apart: the caption in it, without what models put before, behind and around it.

Nothing here decides whether a caption is good: what is left is judged as a whole, so a caption is never made faithful by what
was taken off, it only loses words that were no part of it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

from facecaption_ml.captions.backends.spoken import spoken
from facecaption_ml.captions.rewrite.answer_structure import (
    WORDS,
    NotTaken,
    NotTakenError,
    plain,
    unquoted,
    unwrapped,
    without_unseen,
)

_NAMES: Final = WORDS["names"]
_I: Final = re.IGNORECASE
_GAP: Final = r"[^\w\"'“‘«„<{\[]{0,4}"  # between an announcement and what it announces
_SPEAKS_OF_A_TEXT: Final = (
    r"\b(?:here|below (?:is|are|you)|following"
    r"|follows|sure|certainly|re-?writ\w*|re-?phras\w*|re-?word\w*|paraphras\w*|revis\w*|versions?"
    r"|descriptions?|captions?|sentences?|requests?|answers?|outputs?|results?|option|alternative|text|task)\b"
)
_BULLET: Final = re.compile(r"^[ \t]*(?:[-*•‣–]|\(?(?:\d{1,2}|[a-eA-E])[.):])[ \t]+(?=\S)")
_LABEL: Final = re.compile(rf"^\W{{0,4}}(?:{_NAMES})\W{{0,3}}(?:[:：—–→]|\s-|=+>){_GAP}(?=[\w\"'“‘«„<{{\[]|$)", _I)
_ASKED: Final = re.compile(rf"^\W{{0,4}}(?:{WORDS['asked']})\W{{0,3}}:", _I)
_LAST_WORD: Final = re.compile(r"final|revis|polish|improv", _I)  # of several labels, this one's text is meant
# Up to a colon, what speaks of a text and not of a face.
_PREFACE: Final = re.compile(rf"^[^:：\n]{{0,200}}?{_SPEAKS_OF_A_TEXT}[^:：\n]{{0,120}}[:：]{_GAP}", _I)
# The same without a colon, where the caption stands in quotes.
_QUOTING: Final = re.compile(rf"^[^:\n\"“.]{{0,100}}?{_SPEAKS_OF_A_TEXT}[^:\n\"“.]{{0,60}}\s(?=[\"“])", _I)
_TITLE: Final = re.compile(rf"^\W{{0,4}}(?:{_NAMES})\W{{0,4}}\n", _I)
_FOREIGN_PREFACE: Final = re.compile(rf"^[^A-Za-z:：\n]{{2,80}}[:：]{_GAP}")
_OPENING: Final = re.compile(
    rf"^\W{{0,3}}(?:{'|'.join(WORDS['openings'])})\s*(?:[.!,…]+\s+|[.!:…]*\s*(?:\n|$)|\s[—–-]\s+)", _I
)
_NOTE: Final = re.compile(rf"^[\W_]{{0,4}}(?:{'|'.join(WORDS['notes'])})", _I)
# A bracket at the end that speaks of the text or its writer, or in another script.
_IN_REMARK: Final = (
    r"\b(?:note|i|i've|words?|characters?|attributes?|re-?writ\w*|original|kept|describ\w*|caption|version|sentences?|all|end"
    r"|stop)\b|[^\x00-\x7f]"
)
_REMARK: Final = re.compile(rf"\s*[\[(（](?=[^\])）]*(?:{_IN_REMARK}))[^\])）]*[\])）]\s*\.?\s*$", _I)
_SENTENCE_END: Final = re.compile(
    r"(?<=[.!?…])[\"'”’)]?\s+(?=[\"'“‘(\[*A-Z0-9])|\s+[—–-]{1,2}\s+(?=(?:let me|i |note|this re))", _I
)
_LONGEST: Final = 10_000  # characters, which no caption comes near


@dataclass(frozen=True)
class Taken:
    """``text``: the caption in an answer, or what is there instead of one where ``reason`` says why it cannot be taken."""

    text: str
    reason: NotTaken | None = None


def take_apart(answer: str) -> Taken:
    """The caption in a model's answer, as it stands there: sentences on one line, single spaces, without final touches.

    Taken off: thinking and marks of chat templates (``spoken``), prefaces, notes, labels, headings, quotes, bold, fences, tags,
    JSON, emoji, bullets, alternatives after the first. What has no single text gets a reason.
    """
    said = spoken(answer)
    if said is None:
        return Taken("", NotTaken.THINKING)
    if len(said) > _LONGEST:
        return Taken("", NotTaken.LONG)
    try:
        text = _caption_in(unwrapped(without_unseen(said)))
    except NotTakenError as error:
        return Taken(" ".join(said.split()), error.fault)
    if not re.search(r"\w", text):  # a word or two are judged as they are
        text = " ".join(said.split())
        return Taken(text, NotTaken.NOTHING if text.count(" ") > 2 else None)
    return Taken(text)


def _caption_in(text: str) -> str:
    before = None
    for _ in range(8):  # each may uncover another: quotes behind a label, a label in bold
        if text == before:
            break
        before = text
        text = plain(text)
        lines = _one_alternative(_without_notes(_without_question([line.strip() for line in text.split("\n")])))
        text = _without_prefaces("\n".join(lines).strip())
        text = unquoted(_without_remarks(unwrapped(text)))
    return " ".join(text.split())


def _without_question(lines: list[str]) -> list[str]:
    """Without the caption to rewrite, where the answer repeats it under a name of its own."""
    kept: list[str] = []
    asked = False
    for line in lines:
        if _ASKED.match(line):
            asked = True
        elif asked and (not line or _LABEL.match(line)):
            asked = False
        if not asked:
            kept.append(line)
    return kept if any(kept) else lines


def _without_notes(lines: list[str]) -> list[str]:
    """Up to the first line that is a note, once there has been anything else."""
    for place, line in enumerate(lines):
        if any(re.search(r"\w", other) and not _opens(other) for other in lines[:place]) and _NOTE.match(line):
            return lines[:place]
    return lines


def _opens(line: str) -> bool:
    """Whether a line only announces what follows."""
    return bool(line) and not _without_prefaces(line)


def _one_alternative(lines: list[str]) -> list[str]:
    """The first of several numbered or labelled texts. Raises NotTakenError for a list of what are no texts."""
    full = [line for line in lines if line]
    marked = [place for place, line in enumerate(full) if _BULLET.match(line)]
    if marked:
        first = _BULLET.sub("", full[marked[0]])
        before = full[: marked[0]]
        if all(_opens(line) for line in before):
            if len(marked) > 1 and len(first.split()) < 6:
                raise NotTakenError(NotTaken.LIST)
            rest = full[marked[0] + 1 : marked[1] if len(marked) > 1 else None]
            return [first, *rest]
        return before  # of a caption with a list behind it
    labelled = [place for place, line in enumerate(full) if _LABEL.match(line)]
    if len(labelled) < 2:
        return full
    if _LAST_WORD.search(_LABEL.match(full[labelled[-1]])[0]):  # type: ignore[index]
        return full[labelled[-1] :]
    parts = [full[start:end] for start, end in pairwise([*labelled, len(full)])]
    return next(part for part in (*parts, full) if len(part) > 1 or _LABEL.sub("", part[0]) or part is full)


def _without_prefaces(text: str) -> str:
    before = None
    while before != text:
        before = text
        for shape in (_LABEL, _TITLE, _OPENING, _PREFACE, _QUOTING, _FOREIGN_PREFACE):
            text = shape.sub("", text, count=1).lstrip()
    return text


def _without_remarks(text: str) -> str:
    """Without the sentences and brackets at the end that are no part of a caption."""
    text = _REMARK.sub("", text)
    ends = [0, *(found.end() for found in _SENTENCE_END.finditer(text)), len(text)]
    for start in ends[1:-1]:
        if _NOTE.match(text[start:]):
            return text[:start].rstrip(" \n—–-")
    return text
