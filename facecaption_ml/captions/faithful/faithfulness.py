"""Does a caption say what the labels say, and nothing else? The judge of template captions and of an LLM's rewrites.

A caption is faithful when every label is asserted and not denied, nothing else is asserted, and no denial tells anything
that the labels do not imply. What counts:

- ``missing``: labels that the text does not assert, or denies somewhere.
- ``invented``: attributes that the text asserts although they are no labels. A label is an attribute with p > 0.85, so
  an attribute without label is unknown, not absent.
- ``denied``: for that reason a denial tells something too: "he wears no glasses" says something of a face whose Eyeglasses
  probability may be 0.6. A denial is allowed where the labels imply it: what contradicts a label (Black_Hair: not
  blond; Bald: no bangs; a woman: no goatee) and, for No_Beard, the mustache ("no beard or mustache" for "no facial
  hair"). Every other denial stands in ``denied`` and makes the caption unfaithful.
- A woman's No_Beard is implied: nobody need say it ("missing" leaves it out), and saying it invents nothing.
- "beard" alone denies No_Beard, so it needs a label that implies a beard (Goatee, 5_o_Clock_Shadow); "facial hair"
  needs any of the four beard labels. "makeup" is less than Heavy_Makeup: it does not assert the label, and is an
  invention without it. "They" and "person" say nothing of the gender.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from facecaption_ml.captions.faithful.lexicon import bundled_lexicon
from facecaption_ml.captions.faithful.parser import Mentions, parse
from facecaption_ml.captions.labels import BIT, EXCLUDES, FACIAL_HAIR_BITS, label_bits, names_of, said_bits
from facecaption_ml.taxonomy import Gender

_NO_BEARD = BIT["No_Beard"]


@dataclass(frozen=True)
class Faithfulness:
    """Where a text and the labels differ; names in the order of ``taxonomy.ATTRIBUTES``, FEMALE last."""

    missing: tuple[str, ...]
    invented: tuple[str, ...]
    denied: tuple[str, ...] = ()

    @property
    def faithful(self) -> bool:
        """Every label is asserted, and nothing is added."""
        return not (self.missing or self.invented or self.denied)


_FAITHFUL = Faithfulness((), (), ())


def check_faithful(caption: str, labels: Sequence[str], gender: Gender | None) -> Faithfulness:
    """Compare what a text asserts and denies with the labels and the gender (None: not known, nothing may be said).

    The labels' contradictions are settled first, as for the template caption. Raises ValueError for an unknown label or
    gender, and for gender "female" beside the label Male.
    """
    return compared(parse(caption, bundled_lexicon()), label_bits(labels, gender))


def compared(mentions: Mentions, known: int) -> Faithfulness:
    """What a text says, as read, against the labels (bits, gender among them, contradictions settled)."""
    denied = mentions.denied
    if mentions.facial_hair and not known & FACIAL_HAIR_BITS:
        denied |= _NO_BEARD
    missing = said_bits(known) & ~mentions.asserted | known & (denied | mentions.ruled_out)
    invented = (mentions.asserted | mentions.hinted) & ~known
    unimplied = denied & ~known & ~implied_absent(known) if denied else 0
    if not (missing or invented or unimplied):
        return _FAITHFUL
    return Faithfulness(names_of(missing), names_of(invented), names_of(unimplied))


def find_attributes(caption: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The attributes that a text asserts and those that it denies, FEMALE among them for a woman."""
    mentions = parse(caption, bundled_lexicon())
    return names_of(mentions.asserted), names_of(mentions.denied)


def implied_absent(known: int) -> int:
    """The attributes (bits) that labels (bits) imply to be absent: what contradicts them, and No_Beard's mustache."""
    bits = BIT["Mustache"] if known & _NO_BEARD else 0
    for bit, excluded in EXCLUDES.items():
        if bit & known:
            bits |= excluded
    return bits
