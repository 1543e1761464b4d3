"""The 40 CelebA attributes, their five categories (paper Fig. 4a), and which of them contradict each other.

Source of the names: Liu et al., "Deep Learning Face Attributes in the Wild", ICCV 2015 (``list_attr_celeba.txt``), in that
file's order. The categories are those of the paper's Fig. 4a.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Final, Literal

Gender = Literal["male", "female"]

ATTRIBUTES: Final[tuple[str, ...]] = (
    "5_o_Clock_Shadow",
    "Arched_Eyebrows",
    "Attractive",
    "Bags_Under_Eyes",
    "Bald",
    "Bangs",
    "Big_Lips",
    "Big_Nose",
    "Black_Hair",
    "Blond_Hair",
    "Blurry",
    "Brown_Hair",
    "Bushy_Eyebrows",
    "Chubby",
    "Double_Chin",
    "Eyeglasses",
    "Goatee",
    "Gray_Hair",
    "Heavy_Makeup",
    "High_Cheekbones",
    "Male",
    "Mouth_Slightly_Open",
    "Mustache",
    "Narrow_Eyes",
    "No_Beard",
    "Oval_Face",
    "Pale_Skin",
    "Pointy_Nose",
    "Receding_Hairline",
    "Rosy_Cheeks",
    "Sideburns",
    "Smiling",
    "Straight_Hair",
    "Wavy_Hair",
    "Wearing_Earrings",
    "Wearing_Hat",
    "Wearing_Lipstick",
    "Wearing_Necklace",
    "Wearing_Necktie",
    "Young",
)

CATEGORIES: Final[Mapping[str, tuple[str, ...]]] = {
    "elementary": ("Attractive", "Blurry", "Male", "Young"),
    "beard": ("5_o_Clock_Shadow", "Goatee", "Mustache", "No_Beard", "Sideburns"),
    "hair": (
        "Bald",
        "Bangs",
        "Black_Hair",
        "Blond_Hair",
        "Brown_Hair",
        "Gray_Hair",
        "Receding_Hairline",
        "Straight_Hair",
        "Wavy_Hair",
    ),
    "accessories": (
        "Eyeglasses",
        "Heavy_Makeup",
        "Wearing_Earrings",
        "Wearing_Hat",
        "Wearing_Lipstick",
        "Wearing_Necklace",
        "Wearing_Necktie",
    ),
    "facial": (
        "Arched_Eyebrows",
        "Bags_Under_Eyes",
        "Big_Lips",
        "Big_Nose",
        "Bushy_Eyebrows",
        "Chubby",
        "Double_Chin",
        "High_Cheekbones",
        "Mouth_Slightly_Open",
        "Narrow_Eyes",
        "Oval_Face",
        "Pale_Skin",
        "Pointy_Nose",
        "Rosy_Cheeks",
        "Smiling",
    ),
}

FEMALE: Final = "Female"
"""Not an attribute of CelebA: stands for a known p(Male) < 0.15, which counts as a label like Male."""

# One group a line: no two of a group can hold of one face. Without probabilities the earlier of a group is kept.
EXCLUSIVE_GROUPS: Final[tuple[tuple[str, ...], ...]] = (
    ("Male", FEMALE),
    ("Black_Hair", "Brown_Hair", "Blond_Hair", "Gray_Hair"),
    ("Wavy_Hair", "Straight_Hair"),
    ("Bald", "Black_Hair"),
    ("Bald", "Brown_Hair"),
    ("Bald", "Blond_Hair"),
    ("Bald", "Gray_Hair"),
    ("Bald", "Wavy_Hair"),
    ("Bald", "Straight_Hair"),
    ("Bald", "Bangs"),
    ("Bald", "Receding_Hairline"),
    ("Bangs", "Receding_Hairline"),
    ("Goatee", "No_Beard"),
    ("5_o_Clock_Shadow", "No_Beard"),
    (FEMALE, "Goatee"),
    (FEMALE, "5_o_Clock_Shadow"),
    (FEMALE, "Mustache"),
    (FEMALE, "Sideburns"),
)


def settle_conflicts(
    labels: Collection[str], probabilities: Mapping[str, float] | None = None
) -> tuple[list[str], list[str]]:
    """Split labels into those kept and those dropped because a likelier one contradicts them.

    ``labels`` are attribute names, :data:`FEMALE` among them where the gender is known to be female. With
    ``probabilities`` (0–1, of every label; of FEMALE: 1 − p(Male)) labels are taken from the likeliest down and one that
    contradicts a label already taken is dropped, ties going to the order of :data:`EXCLUSIVE_GROUPS`; without, that order
    decides alone. Both lists come back in the order of :data:`ATTRIBUTES`, FEMALE last, whatever the order of the input.

    Raises ValueError for an unknown label.
    """
    unknown = sorted(set(labels) - set(_RANK))
    if unknown:
        raise ValueError(f"unknown attribute {unknown[0]!r}; the names are CelebA's, see facecaption_ml.taxonomy")
    ordered = sorted(set(labels), key=lambda name: (-probabilities[name] if probabilities else 0.0, _RANK[name]))
    kept: set[str] = set()
    for name in ordered:
        if not (EXCLUDES[name] & kept):
            kept.add(name)
    names = [name for name in NAMES if name in set(labels)]
    return [n for n in names if n in kept], [n for n in names if n not in kept]


NAMES: Final = (*ATTRIBUTES, FEMALE)
_FIRST_MENTION: Final = [name for group in EXCLUSIVE_GROUPS for name in group]
_RANK: Final = {n: (_FIRST_MENTION.index(n) if n in _FIRST_MENTION else len(_FIRST_MENTION)) for n in NAMES}
EXCLUDES: Final = {
    name: {other for group in EXCLUSIVE_GROUPS if name in group for other in group} - {name} for name in NAMES
}
"""For each name those that it excludes."""
