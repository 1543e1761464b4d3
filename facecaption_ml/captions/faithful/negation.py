"""Which phrases of a sentence stand under a negation.

"no" and "without" reach over the noun phrase and what "or" joins to it ("without", and "no" behind a person, not over a verb
of the main clause); two in one phrase make none ("without no beard"); "not", "never", "neither" and "nor" reach to the
end of the clause. A comma carries it on only in a list that "or" or "nor" closes ("no glasses, hat or beard"); "and" does
before a bare noun that needs an article ("no beard and mustache") but not before adjectives ("no beard and wavy hair").
"""

from __future__ import annotations

from facecaption_ml.captions.faithful.lexicon import Entry

_ENDS = frozenset({"stop", "contrast", "verb", "copula"})
_NEGATORS = frozenset({"no", "without", "not", "nor"})
_CARRYING = frozenset({"alternative", "nor", "conjunction", "comma", "preposition"})
_SEPARATING = frozenset({"comma", "conjunction", "alternative", "contrast", "unknown"})
# Verbs of the main clause: "a man without a beard wears glasses", "a man with a hat and no beard smiles".
_FINITE = frozenset(
    {"wears", "wear", "wore", "has", "have", "had", "sports", "dons", "shows", "smiles", "grins", "beams", "displays"}
    | {"features", "boasts", "possesses"}
)


def negated(items: list[Entry]) -> list[bool] | None:
    """For each phrase whether it is negated; None where the sentence has no negation."""
    if not any(item.role in _NEGATORS for item in items):
        return None
    flags = [False] * len(items)
    mode, inserted, last, person, claimed = "", -1, -1, False, False
    for i, item in enumerate(items):
        role = item.role
        person = person or item.head == "person"
        if role in _NEGATORS:
            # "not without glasses", "without no beard": two negations make none
            twice = bool(mode) and role != "nor" and not any(map(_separates, items[last + 1 : i]))
            mode, last = "" if twice else "not" if role == "nor" else role, i
            # A phrase inside the clause, which resumes after its noun.
            behind = person or (i > 0 and items[i - 1].words == ("with",))
            inserted = i if role == "without" or (role == "no" and behind) else -1
            claimed = False
            continue
        # "no beard on the face of the smiling man": a place ends what is missing there
        if mode in ("no", "without") and role == "preposition" and item.words != ("of",) and claimed:
            mode = ""
        # "without a beard the man smiles", "the absence of a beard defines this young man": so does another noun phrase
        if mode in ("no", "without") and role == "determiner" and claimed and items[i - 1].role not in _CARRYING:
            mode = ""
        claimed = claimed or bool(item.claims)
        if mode and 0 <= inserted < i - 1 and len(item.words) == 1 and item.words[0] in _FINITE:
            mode = ""
        if mode and _ends(mode, i, items):
            mode = ""
        flags[i] = bool(mode)
    return flags


def _separates(item: Entry) -> bool:
    """Whether what stands between two negations keeps them apart ("no hat, no beard", "cannot see without")."""
    return bool(item.claims or item.head or item.role in _SEPARATING)


def _ends(mode: str, i: int, items: list[Entry]) -> bool:
    item = items[i]
    role = item.role
    following = items[i + 1] if i + 1 < len(items) else None
    if role in ("stop", "contrast"):
        return not (role == "contrast" and mode == "not" and item.words == ("with",))
    if role in ("verb", "copula") or item.words in (("he",), ("she",), ("they",)):
        joined = i > 0 and items[i - 1].role in ("conjunction", "comma")
        return joined if mode == "not" else role != "verb" or joined
    if role == "comma":
        return not _or_closes(items, i + 1)
    if role == "conjunction" and following is not None:
        if following.role in _ENDS or following.possessive or following.role == "preposition":
            return True
        if mode == "not":
            return _new_clause(items, i + 1)
        if following.role == "determiner" or following.of:
            return True
        return not (following.claims and (mode == "without" or not following.mass))
    return False


def _or_closes(items: list[Entry], start: int) -> bool:
    """Whether the list that continues at ``start`` is closed by "or" or "nor" within the clause."""
    for item in items[start:]:
        if item.role in ("alternative", "nor"):
            return True
        if item.role in _ENDS or item.possessive:
            return False
    return False


def _new_clause(items: list[Entry], start: int) -> bool:
    """Whether a subject with its verb starts here ("and the hair is wavy")."""
    for item in items[start : start + 4]:
        if item.role == "copula":
            return True
        if item.role in ("stop", "comma", "conjunction"):
            return False
    return False
