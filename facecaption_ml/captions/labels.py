"""Label sets as bits: one for each of CelebA's 40 attributes, and one for a gender known to be female."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final

from facecaption_ml import taxonomy
from facecaption_ml.taxonomy import FEMALE, NAMES, Gender, settle_conflicts

BIT: Final[dict[str, int]] = {name: 1 << i for i, name in enumerate(NAMES)}
MALE_BIT: Final = BIT["Male"]
FEMALE_BIT: Final = BIT[FEMALE]
GENDER_BITS: Final = MALE_BIT | FEMALE_BIT
FACIAL_HAIR_BITS: Final = BIT["Mustache"] | BIT["Goatee"] | BIT["Sideburns"] | BIT["5_o_Clock_Shadow"]
EXCLUDES: Final = {BIT[name]: sum(BIT[other] for other in others) for name, others in taxonomy.EXCLUDES.items()}
"""For each attribute's bit the bits of those that exclude it."""


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
    bits = 0
    try:
        for name in labels:
            bits |= BIT[name]
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
    if any(EXCLUDES[bit] & bits for bit in each_bit(bits)):
        return sum(BIT[name] for name in settle_conflicts(names_of(bits))[0])
    return bits
