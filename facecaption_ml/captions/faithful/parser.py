"""Reads what a text says about a face: adjectives to their nouns, negations to their scope.

An adjective belongs to the next noun of its phrase ("wavy brown hair"; "brown eyes" is about eyes), over commas and "and"
where an adjective or the noun follows; after a noun phrase with "and" also to the noun joined bare to it ("big lips and
nose"). One without a noun after it belongs to the subject of the copula ("her hair is wavy and brown") or to the noun
before it ("her mouth slightly open"). Only pairs that the lexicon knows say anything; the others are kept by name for the
closed world ("a black hat"). What is in doubt ("may", "whether") hints, and what is compared with says nothing ("than").
"""

from __future__ import annotations

from dataclasses import dataclass, field

from facecaption_ml.captions.faithful.lexicon import COLON, Bearing, Claim, Entry, Lexicon, tokens
from facecaption_ml.captions.faithful.negation import negated
from facecaption_ml.captions.faithful.surroundings import (
    before_the_insertion,
    behind_lipstick,
    comes_before,
    ends_phrase,
    follows_both,
    is_a_degree,
    is_another_person,
    is_apart,
    lies_under,
    looks_as_verb,
)
from facecaption_ml.captions.labels import FACIAL_HAIR_BITS, GENDER_BITS

_, DENIES, HINTS, BEARD, FACIAL_HAIR, CLEAN_SHAVEN = Bearing
_SUBJECTS = frozenset({("he",), ("she",), ("they",), ("who",)})
_FLUSHING = frozenset(
    {
        "determiner",
        "preposition",
        "verb",
        "copula",
        "contrast",
        "relative",
        "no",
        "without",
        "not",
        "nor",
        "hedge",
        "than",
    }
)
_STARTS_ANEW = frozenset({"verb", "contrast", "relative"})
_IS = Entry(role="copula")
_JOINING = frozenset({"conjunction", "alternative", "comma", "nor"})
_SEES_THROUGH = frozenset({"passing", "shape", "neutral"})


@dataclass
class Mentions:
    """What a text says, attributes as bits: asserted, denied, ruled out in passing ("clean-shaven": no goatee), hinted at.

    ``items``: the text as phrases of the lexicon. ``unfit``: adjectives with the noun of which they say nothing.
    ``pairs``: adjectives with the noun of which they say something, as often as they do.
    """

    asserted: int = 0
    denied: int = 0
    ruled_out: int = 0
    hinted: int = 0
    facial_hair: bool = False
    items: list[Entry] = field(default_factory=list)
    unfit: list[tuple[Entry, str]] = field(default_factory=list)
    pairs: list[tuple[str, str]] = field(default_factory=list)

    def add(self, claim: Claim, negative: bool) -> None:
        """Count one claim of the text; ``negative``: it stands under a negation."""
        attribute, bearing = claim
        if bearing is HINTS and not negative:
            self.hinted |= attribute
        elif bearing is FACIAL_HAIR and not negative:
            self.facial_hair = True
        elif bearing is DENIES:
            self.denied |= 0 if negative else attribute
        elif negative == (bearing in (BEARD, FACIAL_HAIR)):  # said, or "no beard"
            self.asserted |= attribute
            if bearing in (FACIAL_HAIR, CLEAN_SHAVEN):
                self.ruled_out |= FACIAL_HAIR_BITS
        else:
            self.denied |= attribute


def parse(text: str, lexicon: Lexicon) -> Mentions:
    """Everything that the text says about the 40 attributes and the gender."""
    mentions = Mentions()
    items = mentions.items = lexicon.items(tokens(text))
    for i, item in enumerate(items):
        if item is COLON and _tells(items, i):
            items[i] = _IS
    start, before = 0, list[str]()
    for end in (*(i for i, item in enumerate(items) if item.role == "stop"), len(items)):
        if end > start:
            sentence = _Sentence(items[start:end], mentions)
            if sentence.speaks_of_it() and before != ["person"]:
                sentence.subject = before
            sentence.parse()
            before = sentence.group
        start = end + 1
    return mentions


def _tells(items: list[Entry], i: int) -> bool:
    """Whether a colon stands for "is": "Nose: large.", "Eyebrows: bushy and arched."."""
    if not i or not items[i - 1].head or (i > 1 and items[i - 2].role != "stop"):
        return False
    after = next((item for item in items[i + 1 :] if item.role not in _SEES_THROUGH), None)
    return after is not None and items[i - 1].head in after.of


@dataclass
class _Sentence:
    items: list[Entry]
    mentions: Mentions
    pending: list[tuple[Entry, bool]] = field(default_factory=list)  # adjectives that wait for their noun
    shared: list[tuple[Entry, bool]] = field(default_factory=list)  # those of the noun before, for a noun joined to it
    group: list[str] = field(default_factory=list)  # the last nouns
    first: list[str] = field(default_factory=list)  # the first noun
    subject: list[str] = field(default_factory=list)  # what the copula speaks of
    copular: bool = False
    said: list[tuple[Claim, int]] = field(default_factory=list)  # positive claims with their place, for "is missing"
    early: list[tuple[Entry, bool]] = field(default_factory=list)  # adjectives before any noun
    base: list[str] = field(default_factory=list)  # the nouns before a preposition
    meant: list[str] = field(default_factory=list)  # what "they" may mean: the nouns before it
    single: bool = False  # behind "a"
    doubtful: bool = False
    compared: bool = False  # behind "than"

    def speaks_of_it(self) -> bool:
        """Whether the sentence begins with "it is" and an adjective: it speaks of the noun before ("brown hair: it's wavy")."""
        if len(self.items) < 3 or self.items[0].words != ("it",) or self.items[1].role != "copula":
            return False
        return bool(
            next((item for item in self.items[2:] if item.role not in (*_SEES_THROUGH, "not")), self.items[0]).of
        )

    def parse(self) -> None:
        flags = negated(self.items)
        for i, item in enumerate(self.items):
            negative = flags[i] if flags else False
            if looks_as_verb(self.items, i):
                item = Entry(role="copula", words=item.words)
            role = item.role
            if role == "neutral" or is_a_degree(self.items, i):
                continue
            if item.relation and is_another_person(self.items, i):
                self.pending = []
                continue
            if role in _FLUSHING:
                self._turn(i, item)
            elif role in _JOINING:
                self._join(i)
            elif role in ("seen", "gone", "less"):
                self._postfix(i, item, negative)
            for claim in item.claims:
                # a gender is told even under a negation: "there is no beard on his face"
                self._say(claim, negative and not claim.attribute & GENDER_BITS, i)
            for part, claims in item.before.items():
                if comes_before(self.items, i, part):
                    for claim in claims:
                        self._say(claim, negative, i)
            for part, claims in item.behind.items():
                if lies_under(self.items, i, part):
                    for claim in claims:
                        self._say(claim, negative, i)
            if self._is_a_person(i, item):
                item = self.items[i] = Entry(head="person", words=item.words, of=item.of, as_person=item.as_person)
                for claim in (*item.of["person"], *item.as_person):
                    self._say(claim, negative, i)
                self._noun(i, item, negative)
            elif item.of and not (item.head and ends_phrase(self.items, i)):
                if not self._follows_its_noun(i, item, negative):
                    self.pending.append((item, negative))
            elif item.head:
                if item.of and item.head == "other" and not item.claims:  # "gold" as a thing
                    self.mentions.unfit.append((item, ""))
                self._noun(i, item, negative)
        self._flush(len(self.items), last=True)
        for claim, place in self.said:
            if place >= 0:
                self.mentions.add(claim, False)

    def _say(self, claim: Claim, negative: bool, place: int) -> None:
        if self.compared:
            return
        if self.doubtful and not claim.attribute & GENDER_BITS:
            self.mentions.hinted |= 0 if negative else claim.attribute
        elif negative:
            self.mentions.add(claim, True)
        else:
            self.said.append((claim, place))

    def _follows_its_noun(self, i: int, item: Entry, negative: bool) -> bool:
        """Whether the adjective stands right behind a noun that it fits ("her mouth slightly open"), and if so says it."""
        before = next((it for it in reversed(self.items[:i]) if it.role != "passing"), None)
        if self.pending or before is None or not before.head:
            return False
        claims = item.of.get(before.head, ())
        for claim in claims:
            self._say(claim, negative, i)
        return bool(claims)

    def _is_called(self, i: int) -> bool:
        """Whether what stands right before fits a person only: "pale young brunette with bangs", "young blonde, big lips"."""
        of = self.items[i - 1].of if i else {}
        return "person" in of and "hair" not in of

    def _is_a_person(self, i: int, item: Entry) -> bool:
        """Whether a colour of the hair stands as a noun, for somebody who has it ("a pretty young blonde smiles")."""
        if not ("hair" in item.of and "person" in item.of) or self.copular:
            return False
        after = self.items[i + 1 : i + 3]
        if self._is_called(i) and (not after or after[0].role in ("comma", "contrast", "verb", "preposition")):
            return True
        if after and after[0].role == "comma" and len(after) > 1:  # "a blonde, smiling woman", and "this blonde, who"
            after = [] if after[1].head else after[1:]
        if after and after[0].words not in _SUBJECTS and (after[0].head or after[0].of or after[0].role in _JOINING):
            return False
        for before in reversed(self.items[:i]):
            if before.role == "determiner" and not before.possessive:
                return True
            if before.head or not (before.of or before.claims or before.role in (*_JOINING, "passing")):
                return False
        return False

    def _noun(self, i: int, item: Entry, negative: bool) -> None:
        before = self.items[i - 1] if i else None
        joined = bool(before and before.role in _JOINING and i > 1 and self.items[i - 2].head)
        joined = joined and item.words not in _SUBJECTS
        # "full lips": the adjective's own negation counts, or the noun's ("no full lips" negates both)
        adjectives = self.pending or (self.shared if joined and item.head not in ("person", "other", "bangs") else [])
        rest: list[tuple[Entry, bool]] = []
        following = self.items[i + 1] if i + 1 < len(self.items) else None
        if item.head == "person" and following is not None and following.head not in ("", "person"):
            # whose it is: "brown is the color of the woman's hair"
            rest = [adjective for adjective in adjectives if "person" not in adjective[0].of]
            adjectives = [adjective for adjective in adjectives if adjective not in rest]
        if len(self.pending) > 1 and item.words[-1].endswith("ed"):  # "a young, blond-haired man": young waits on
            rest = [adjective for adjective in adjectives[:-1] if item.head not in adjective[0].of]
            adjectives = [adjective for adjective in adjectives if adjective not in rest]
        for adjective, negated_adjective in adjectives:
            claims = adjective.of.get(item.head)
            for claim in claims or ():
                self._say(claim, negated_adjective or negative, i)
            if claims:
                self.mentions.pairs.append((adjective.words[0], item.head))
            elif claims is None and self.pending and not self.group and is_apart(self.items, adjective):
                self.early.append((adjective, negated_adjective))  # "Young, wavy hair, big lips": a list, of the person
            elif claims is None and self.pending and not adjective.claims:
                self.mentions.unfit.append((adjective, item.words[0] if item.words else ""))
        if self.early:
            for adjective, negated_adjective in [given for given in self.early if item.head in given[0].of]:
                self.early.remove((adjective, negated_adjective))
                for claim in adjective.of[item.head]:
                    self._say(claim, negated_adjective, i)
        compound = before is not None and before.head == item.head
        # "a big nose and eyes" does not say that the eyes are big
        self.shared = [] if self.single else adjectives or (self.shared if compound else [])
        self.pending, self.single = rest, False
        if item.words == ("they",) and self.group != ["person"]:
            self.meant = self.group
        self.group = [*self.group, item.head] if joined or follows_both(self.items, i) else [item.head]
        self.first = self.first or self.group
        self.copular = False
        if item.head == "person" and (not self.subject or item.words in _SUBJECTS):
            self.subject = [item.head]

    def _turn(self, i: int, item: Entry) -> None:
        """A word that ends a noun phrase."""
        role = item.role
        if role == "preposition" and item.words != ("of",) and i and self.items[i - 1].head:
            self.base = self.base or self.group
        elif role in _STARTS_ANEW:
            self.base = []
        if role in ("hedge", "than"):
            self.doubtful, self.compared = self.doubtful or role == "hedge", role == "than"
        if item.words == ("as",) and self.pending:
            self._compare(i)
        if item.words == ("of",) and self._is_of(i):
            return
        if (
            item.words == ("as",)
            and self.copular
            and not self.pending
            and i + 1 < len(self.items)
            and self.items[i + 1].of
        ):
            return  # "as bushy as they are arched"
        if (item.words == ("the",) or item.possessive) and self._is_of(i) and not self.copular:
            return  # "large the nose, wavy her hair"
        # "brown in colour", "the shape of her face", "a rosy tint in the cheeks": look through
        if role == "preposition" and i and self.items[i - 1].role == "shape":
            return
        roles = [item.role for item in self.items[max(0, i - 2) : i + 1]]
        if self.pending and roles == ["shape", "preposition", "determiner"]:
            return
        if role == "copula" and self._is_inverted(i):
            return
        self._flush(i)
        if role == "copula":
            before = self.items[i - 1] if i else None
            if not (before and before.role in (*_JOINING, "not", "contrast") and self.subject):
                inserted = before is not None and before.role == "comma"  # "His face, free of a beard, is oval"
                nearest = (
                    self.group[-1:] if before and before.role == "relative" else self.group
                )  # "hair that is black"
                if self.base:  # "the glasses on her nose are big"
                    self.group = nearest = self.base
                self.subject = self.first if inserted else nearest or self.subject
            if before and before.role == "comma":
                self.subject = before_the_insertion(self.items, i) or self.subject
            self.copular, self.base = True, []
        elif role in ("determiner", "verb", "preposition", "contrast"):
            self.copular = False
            self.single = item.words in (("a",), ("an",))

    def _is_inverted(self, i: int) -> bool:
        """Whether the noun of the adjectives before a copula stands behind it: "pointed is her nose"."""
        after = self.items[i + 1 : i + 3]
        if not (self.pending and self.items[i - 1].of and len(after) == 2 and after[0].role == "determiner"):
            return False
        of = self.pending[-1][0].of
        return after[1].head in of and not any(head in of for head in self.group)

    def _is_of(self, i: int) -> bool:
        """Whether "of" stands between an adjective and the bare noun that it is of: "pale of skin and wavy of hair"."""
        following = self.items[i + 1] if i + 1 < len(self.items) else None
        if not (self.pending and following):
            return False
        of = self.pending[-1][0].of
        return following.head in of and not any(head in of for head in self.group)

    def _compare(self, i: int) -> None:
        """The second "as" of "a tie as black as his hair": the adjective holds of what somebody has there as well."""
        owned = False
        for item in self.items[i + 1 : i + 4]:
            owned = owned or item.possessive
            if item.head:
                for adjective, negative in self.pending if owned else ():
                    for claim in adjective.of.get(item.head, ()):
                        self._say(claim, negative, i)
                return

    def _join(self, i: int) -> None:
        """A comma or "and": what is compared with ends here, and at a comma what is in doubt."""
        self._carry(i)
        self.compared, self.base = False, []
        if self.items[i].role == "comma":
            self.doubtful = False

    def _carry(self, i: int) -> None:
        """The adjectives wait on if more of them, or their noun, follows."""
        if not self.pending:
            return
        if not self.copular:
            if self.items[i].role == "comma" and self._stands_apart(i):
                self._flush(i)
                return
            for item in self.items[i + 1 :]:
                if item.of or (item.head and item.words not in _SUBJECTS):
                    return
                if item.role not in ("unknown", *_JOINING, *_SEES_THROUGH) and not item.claims:
                    break
        self._flush(i)

    def _stands_apart(self, i: int) -> bool:
        """Whether the adjective before a comma fits the noun before it, not the next ("a man, chubby, double chin")."""
        if len(self.pending) != 1 or not self.group:
            return False
        noun = next((item for item in self.items[i + 1 :] if item.head or item.role in _FLUSHING), None)
        of = self.pending[0][0].of
        return bool(noun and noun.head and noun.head not in of) and self.group[-1] in of

    def _flush(self, i: int, last: bool = False) -> None:
        """Adjectives without a noun after them: to the subject or the noun before."""
        if last:
            for adjective, negative in self.early if self.group else ():  # "Young, with wavy hair: she …"
                if "person" not in adjective.of:
                    self.mentions.unfit.append((adjective, ""))
                for claim in adjective.of.get("person", ()):
                    self._say(claim, negative, i)
            self.pending += [] if self.group else self.early
        if not self.pending:
            return
        before = self.items[i - 1] if i else None
        unfit = self.mentions.unfit
        if before is not None and before.role == "unknown" and not self.copular:
            unfit += [(adjective, before.words[0]) for adjective, _ in self.pending]
            self.pending = []  # a noun that the lexicon does not know took them
            return
        heads = self.subject if self.copular else self.group
        fallback = (self.group if heads is not self.group else self.first) if self.copular else self.subject
        guessed = not heads and not fallback
        if guessed:
            if not last:
                self.early += self.pending  # "Young and attractive, with a big nose, she …"
                self.pending = []
                return
            heads = ["person", "photo"]
        for adjective, negative in self.pending:
            fitting = [head for head in heads if head in adjective.of]
            # of the person, where it stands apart: "a woman with bangs, attractive and young"
            other = fallback if self.copular else ["person"] if "person" in fallback or not self.subject else []
            if not fitting and any(head in adjective.of for head in other):
                heads = other
                fitting = [head for head in heads if head in adjective.of]
            if self.copular and not fitting:  # "full lips, and they are parted"
                heads = [head for head in self.meant if head in adjective.of] or heads
                fitting = [head for head in heads if head in adjective.of]
            if not fitting and "lips" in adjective.of and behind_lipstick(self.items, i):
                heads = fitting = ["lips"]
            # "Her eyes and hair are brown" is not about her hair alone: it hints
            partly = self.copular and 0 < len(fitting) < len(heads) and not guessed
            if (partly or not fitting) and not adjective.claims:  # "brunette" stands alone too
                unfit.append((adjective, next(head for head in (*heads, "") if head not in fitting)))
            for claim in dict.fromkeys(c for head in fitting for c in adjective.of[head]):
                self._say(Claim(claim.attribute, HINTS) if partly else claim, negative, i)
        self.pending = []

    def _postfix(self, i: int, item: Entry, negative: bool) -> None:
        """ "His beard is gone", "glasses are not visible", "makeup-free": the last claim turns into its denial."""
        if not (item.role == "gone" or (item.role == "seen" and negative) or (item.role == "less" and i)):
            return
        if item.role == "seen" and i and self.items[i - 1].role in ("no", "without"):  # "no visible beard"
            return
        things = [where for claim, where in self.said if not claim.attribute & GENDER_BITS]
        if not things or (item.role == "less" and things[-1] != i - 1):
            return
        place = things[-1]
        for claim, where in self.said:
            if where == place:
                self.mentions.add(claim, True)
        self.said = [(claim, where) for claim, where in self.said if where != place]
