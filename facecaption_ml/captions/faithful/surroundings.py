"""Questions about the surroundings of a phrase in its sentence, for the parser: what stands before it, behind it, under what.

``items``: the phrases of a sentence; ``i``: the place of the one that is asked about. Nothing here depends on
what was read so far.
"""

from __future__ import annotations

from collections.abc import Sequence

from facecaption_ml.captions.faithful.lexicon import Entry

_UNDER = frozenset({("under",), ("below",), ("beneath",), ("underneath",)})
_ENDS_A_PLACE = frozenset({"conjunction", "comma", "verb", "copula", "relative", "contrast", "preposition"})
_MAY_BE_PRETTY = ("person", "face", "looks", "expression")
_GRADED = frozenset(
    (word,)
    for word in ("big", "large", "thick", "bushy", "high", "narrow", "pointy", "prominent", "heavy", "full", "straight")
) | {("wavy",), ("curly",), ("arched",)}


def looks_as_verb(items: Sequence[Entry], i: int) -> bool:
    """Whether "look" is the verb of a plural before it ("her eyes look narrow")."""
    if items[i].words != ("look",) or not i:
        return False
    before = items[i - 1]
    return bool(before.head) and before.words[-1].endswith("s")


def is_a_degree(items: Sequence[Entry], i: int) -> bool:
    """Whether "pretty" only says how much ("a pretty big nose", "she is pretty pale", "pretty pale skin")."""
    if items[i].words != ("pretty",) or i + 1 == len(items) or items[i + 1].head:
        return False
    if items[i + 1].words[:1] in _GRADED or (i and items[i - 1].role == "copula" and items[i + 1].of):
        return True
    noun = next((item for item in items[i + 1 :] if not item.of or item.head), None)
    return noun is not None and noun.head not in ("", *_MAY_BE_PRETTY) and not noun.words[-1].endswith("ed")


def is_another_person(items: Sequence[Entry], i: int) -> bool:
    """Whether "husband" and the like stands behind whose it is ("her young husband", "the woman's husband")."""
    for item in reversed(items[max(0, i - 3) : i]):
        if item.possessive or item.head == "person":
            return True
        if item.role or item.head:
            return False
    return False


def comes_before(items: Sequence[Entry], i: int, part: str) -> bool:
    """Whether the next noun is that part; without one, whether the sentence has named it ("eyes with bags below")."""
    other = False
    for item in items[i + 1 :]:
        if item.words == ("them",) or item.head == part:
            return True
        if item.role in _ENDS_A_PLACE or (item.head and item.head != "person"):
            other = other or bool(item.head)
            break
        other = other or item.role == "unknown"  # "a bag under his arm"
    return not other and any(item.head == part for item in items[:i])


def lies_under(items: Sequence[Entry], i: int, part: str) -> bool:
    """Whether a part of the face is named behind "under", earlier in the sentence ("below his eyes are bags")."""
    under, named = False, ""
    for item in items[:i]:
        if under and item.role == "relative" and named == part:  # "narrow eyes, under which he has bags"
            return True
        named = item.head or named
        if item.head and under:
            if item.head == part:
                return True
            under = item.head == "person"  # "under the man's eyes"
        under = under or item.words in _UNDER
    return False


def ends_phrase(items: Sequence[Entry], i: int) -> bool:
    """Whether a word that is both adjective and noun ("gold") stands as the noun."""
    following = items[i + 1] if i + 1 < len(items) else None
    return following is None or not (following.head or following.of)


def before_the_insertion(items: Sequence[Entry], i: int) -> list[str]:
    """The noun before what stands between commas: "her cheeks, below high cheekbones, are rosy"; none without a pair."""
    opening = next((j for j in range(i - 2, 0, -1) if items[j].role == "comma"), 0)
    head = items[opening - 1].head if opening else ""
    return [head] if head and head != "other" else []


def is_apart(items: Sequence[Entry], adjective: Entry) -> bool:
    """Whether an adjective of persons stands before a comma."""
    at = next(i for i, item in enumerate(items) if item is adjective)
    return "person" in adjective.of and at + 1 < len(items) and items[at + 1].role == "comma"


def behind_lipstick(items: Sequence[Entry], i: int) -> bool:
    """Whether the last noun is the lipstick on lips: "her lips coated in lipstick and slightly parted"."""
    nouns = [item for item in items[:i] if item.head]
    return len(nouns) > 1 and nouns[-1].words == ("lipstick",) and nouns[-2].head == "lips"


def follows_both(items: Sequence[Entry], i: int) -> bool:
    """Whether a noun is the second of "both his nose and his lips"."""
    if i < 4 or not items[i - 1].possessive or items[i - 2].role != "conjunction":
        return False
    return bool(items[i - 3].head) and ("both",) in [item.words for item in items[: i - 3]]
