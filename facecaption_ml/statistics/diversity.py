"""How varied a sample of texts is: distinct-n, the moving-average type-token ratio and self-BLEU, from lists of words."""

from __future__ import annotations

import math
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Final

Text = Sequence[str]
Gram = tuple[str, ...]

BLEU_ORDERS: Final = (1, 2, 3, 4)
_EPSILON: Final = 0.1  # matches credited where there is none: "smoothing 1" of Chen and Cherry (2014)


def distinct_n(texts: Sequence[Text], n: int) -> float | None:
    """Distinct n-grams over all n-grams of the texts, 0–1; None where no text has n words.

    Li et al., "A Diversity-Promoting Objective Function for Neural Conversation Models", NAACL 2016. It falls with the
    number of words, so compare samples of equal size.
    """
    seen: set[Gram] = set()
    total = 0
    for text in texts:
        total += max(len(text) - n + 1, 0)
        seen.update(_grams(text, n))
    return len(seen) / total if total else None


def moving_average_ttr(words: Text, window: int = 500) -> float | None:
    """Mean share of distinct words over all windows of ``window`` consecutive words, 0–1; None without words.

    MATTR (Covington and McFall, 2010), which does not depend on the length of the text as the plain type-token ratio does.
    Shorter texts are one window.
    """
    if not words:
        return None
    window = min(window, len(words))
    inside = Counter(words[:window])
    total = len(inside)
    for leaving, entering in zip(words, words[window:], strict=False):
        inside[leaving] -= 1
        if not inside[leaving]:
            del inside[leaving]
        inside[entering] += 1
        total += len(inside)
    return total / ((len(words) - window + 1) * window)


def self_bleu(texts: Sequence[Text]) -> float | None:
    """Mean BLEU-4 of each text against all others as references, 0–1, high where the texts are alike; None below two texts.

    Zhu et al., "Texygen", SIGIR 2018; equals the mean of ``nltk.translate.bleu_score.sentence_bleu`` with
    ``SmoothingFunction().method1``. Linear in the number of words: of each n-gram only the two highest counts in one
    text matter, so that the text itself can be left out of its references.
    """
    if len(texts) < 2:
        return None
    counts = [[Counter(_grams(text, n)) for text in texts] for n in BLEU_ORDERS]
    highest = [_two_highest(of_order) for of_order in counts]
    lengths = sorted(len(text) for text in texts)
    scores = []
    for number, text in enumerate(texts):
        precisions = []
        for of_order, best in zip(counts, highest, strict=True):
            own = of_order[number]
            matches = 0
            for gram, count in own.items():
                first, second = best[gram]
                matches += min(count, second if count == first else first)
            precisions.append((matches, max(1, own.total())))
        scores.append(_bleu(precisions, len(text), _closest_other_length(lengths, len(text))))
    return math.fsum(scores) / len(scores)


def _grams(text: Text, n: int) -> Iterator[Gram]:
    return zip(*(text[start:] for start in range(n)), strict=False)


def _two_highest(counts: Sequence[Counter[Gram]]) -> dict[Gram, tuple[int, int]]:
    """For each n-gram its highest count in one text, and the next highest in another text."""
    best: dict[Gram, tuple[int, int]] = {}
    for of_text in counts:
        for gram, count in of_text.items():
            first, second = best.get(gram, (0, 0))
            best[gram] = (count, first) if count > first else (first, max(second, count))
    return best


def _closest_other_length(lengths: Sequence[int], own: int) -> int:
    """The length nearest to ``own`` among the others, the shorter of two equally near (``lengths`` sorted, ``own`` in it)."""
    at = bisect_left(lengths, own)
    others = [*lengths[max(at - 1, 0) : at], *lengths[at + 1 : at + 2]]
    return min(others, key=lambda length: (abs(length - own), length))


def _bleu(precisions: Sequence[tuple[int, int]], length: int, reference: int) -> float:
    """BLEU from (matches, n-grams) of each order: the smoothed geometric mean times the brevity penalty."""
    if not precisions[0][0] or not length:
        return 0.0
    logarithms = math.fsum(math.log((matches or _EPSILON) / total) for matches, total in precisions)
    brevity = 1.0 if length > reference else math.exp(1 - reference / length)
    return brevity * math.exp(logarithms / len(precisions))
