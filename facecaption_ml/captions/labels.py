"""Label sets as bits: one for each of CelebA's 40 attributes, and one for a gender known to be female.

Which of a face's labels a caption says is decided here, for grammar, prompt and faithfulness check alike: ``captioned_labels``
takes out what is kept out of captions, ``said_bits`` what goes without saying.
"""

from __future__ import annotations

import difflib
from collections.abc import Collection, Iterable, Iterator
from functools import lru_cache, reduce
from operator import or_
from typing import Final

from facecaption_ml import taxonomy
from facecaption_ml.taxonomy import ATTRIBUTES, FEMALE, NAMES, Gender, settle_conflicts

BIT: Final[dict[str, int]] = {name: 1 << i for i, name in enumerate(NAMES)}
MALE_BIT: Final = BIT["Male"]
FEMALE_BIT: Final = BIT[FEMALE]
GENDER_BITS: Final = MALE_BIT | FEMALE_BIT
FACIAL_HAIR_BITS: Final = BIT["Mustache"] | BIT["Goatee"] | BIT["Sideburns"] | BIT["5_o_Clock_Shadow"]
EXCLUDES: Final = {BIT[name]: sum(BIT[other] for other in others) for name, others in taxonomy.EXCLUDES.items()}
"""For each attribute's bit the bits of those that exclude it."""
_CONTESTED: Final = reduce(or_, EXCLUDES.values())
"""Bits of every attribute that another excludes."""

IMPLIED: Final = {FEMALE_BIT: BIT["No_Beard"]}
"""What goes without saying, by the label's bit that implies it: nobody writes of a woman that she has no beard."""


def each_bit(bits: int) -> Iterator[int]:
    """The set bits one by one, the lowest first."""
    while bits:
        yield bits & -bits
        bits &= bits - 1


def subsets(bits: int) -> Iterator[int]:
    """Every subset of a set of bits, from the whole down to 0."""
    subset = bits
    while subset:
        yield subset
        subset = (subset - 1) & bits
    yield 0


def names_of(bits: int) -> tuple[str, ...]:
    """Attribute names of the set bits, in the order of ``taxonomy.ATTRIBUTES``, FEMALE last."""
    return tuple(name for i, name in enumerate(NAMES) if bits >> i & 1)


def label_bits(labels: Iterable[str], gender: Gender | None) -> int:
    """The labels as bits: gender counted as Male or FEMALE, conflicts settled (``taxonomy.settle_conflicts``).

    Order and repetition of ``labels`` do not matter. Raises ValueError for an unknown attribute, an unknown gender, and
    for gender "female" beside the label Male.
    """
    try:
        bits = reduce(or_, map(BIT.__getitem__, labels), 0)
    except KeyError as error:
        raise ValueError(
            f"unknown attribute {error.args[0]!r}; the names are CelebA's, see taxonomy.ATTRIBUTES"
        ) from None
    if gender == "female":
        if bits & MALE_BIT:
            raise ValueError("gender is 'female' but the labels have 'Male'")
        bits |= FEMALE_BIT
    elif gender == "male":
        if bits & FEMALE_BIT:
            raise ValueError(f"gender is 'male' but the labels have {FEMALE!r}")
        bits |= MALE_BIT
    elif gender is not None:
        raise ValueError(f"gender is {gender!r}, should be 'male', 'female' or None")
    return bits & ~_CONTESTED | _settled(bits & _CONTESTED)


@lru_cache(maxsize=1 << 16)
def _settled(contested: int) -> int:
    """Contested attributes without those that a conflict costs; the others take no part in it."""
    return sum(BIT[name] for name in settle_conflicts(names_of(contested))[0])


def said_bits(known: int) -> int:
    """Of a face's settled labels (bits) those that its caption says: all but what goes without saying (``IMPLIED``)."""
    for bit, implied in IMPLIED.items():
        if known & bit:
            known &= ~implied
    return known


def captioned_labels(
    labels: Iterable[str], gender: Gender | None, excluded: Collection[str] = ()
) -> tuple[tuple[str, ...], Gender | None]:
    """The labels and the gender that captions of a face may speak of: its own without the ``excluded`` ones, in their order.

    What is excluded is then no label of the caption, so that a text which says it invents it. Excluding Male keeps the gender
    out altogether, a woman's too, and with it what it implies.
    """
    hidden = set(excluded)
    if "Male" in hidden and gender is not None:
        hidden.update(names_of(IMPLIED.get(FEMALE_BIT if gender == "female" else MALE_BIT, 0)))
        gender = None
    return tuple(name for name in labels if name not in hidden), gender


def _what_instead(name: str) -> str:
    if name == FEMALE:
        return "Male stands for the gender, whichever it is"
    by_lower = {attribute.lower(): attribute for attribute in ATTRIBUTES}
    close = difflib.get_close_matches(name.lower().replace(" ", "_"), by_lower, n=1, cutoff=0.5)
    return f"did you mean {by_lower[close[0]]}?" if close else "the names are CelebA's, such as Attractive"


def known_attributes(names: Iterable[str]) -> tuple[str, ...]:
    """Names of attributes in CelebA's order, each once. Raises ValueError for one that is none, with the nearest there is."""
    given = list(names)
    for name in given:
        if name not in ATTRIBUTES:
            raise ValueError(f"no attribute {name!r}: {_what_instead(name)}")
    return tuple(name for name in ATTRIBUTES if name in given)
