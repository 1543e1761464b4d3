"""Template captions a second, one core: this project against plain samplers over the same bundled grammar.

    python bench/template_captions.py [--captions 20000] [--rounds 5] [--celeba FOLDER] [--seen 20000] [--out FILE.json]

Three ways, taking turns in every round, medians of captions a second of processor time:

- ours: ``CaptionGrammar.caption``, conditioned on each label set;
- naive, fixed grammar: recursive sampling over ``nltk.PCFG``, which knows nothing of labels and says anything;
- naive, grammar per image: the usual way to condition: write the productions for the labels at hand as text,
  ``nltk.PCFG.fromstring`` it, sample one caption.

The label sets are drawn anew for every round (shares near CelebA's, gender known for most), so no round repeats another's.
Labels drawn one by one are more motley than any face's: with ``--celeba`` they are those of a list_attr_celeba.txt, of which a
face keeps three in four. The first row of ours starts with empty caches, the second has seen ``--seen`` other label sets.
The faithfulness check is timed on the captions of ours.
"""

from __future__ import annotations

import argparse
import random
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import nltk
from harness import machine, write_json

from facecaption_ml.attributes.celeba import parse_attributes
from facecaption_ml.captions import CaptionGrammar, caption_seed, check_faithful
from facecaption_ml.captions.template.grammar import BUNDLED
from facecaption_ml.markdown import markdown_table
from facecaption_ml.taxonomy import ATTRIBUTES, FEMALE, Gender, settle_conflicts

LabelSet = tuple[list[str], Gender | None]
# Shares of the commonest attributes in CelebA (list_attr_celeba.txt, rounded); the others are near 0.15.
SHARES = {"No_Beard": 0.83, "Young": 0.77, "Attractive": 0.51, "Mouth_Slightly_Open": 0.48, "Smiling": 0.48,
          "Wearing_Lipstick": 0.47, "High_Cheekbones": 0.45, "Heavy_Makeup": 0.38, "Wavy_Hair": 0.32, "Bald": 0.02,
          "Blurry": 0.05, "Gray_Hair": 0.04, "Mustache": 0.04, "Pale_Skin": 0.04, "Wearing_Hat": 0.05}  # fmt: skip
CONFIDENT = 0.75  # of the true attributes, how many pass the probability threshold of 0.85


Rows = Sequence[frozenset[str]]
"""The attributes of real faces, Male among them; none: each label is drawn by itself."""


def celeba_rows(folder: Path | None) -> Rows:
    """The faces of a CelebA folder's list."""
    if folder is None:
        return ()
    path = folder / "list_attr_celeba.txt"
    table = parse_attributes(path.read_text(encoding="utf-8"), str(path))
    return [frozenset(name for name, holds in zip(ATTRIBUTES, row, strict=True) if holds) for row in table.values()]


def label_sets(count: int, seed: int, real: Rows = ()) -> list[LabelSet]:
    """Consistent label sets with more than five labels, gender among them where it is known."""
    draw = random.Random(seed)
    sets: list[LabelSet] = []
    while len(sets) < count:
        gender: Gender | None = draw.choices(("male", "female", None), (0.38, 0.52, 0.1))[0]
        if real:
            face = draw.choice(real)
            gender = gender and ("male" if "Male" in face else "female")
            labels = [n for n in ATTRIBUTES if n != "Male" and n in face and draw.random() < CONFIDENT]
        else:
            labels = [n for n in ATTRIBUTES if n != "Male" and draw.random() < SHARES.get(n, 0.15) * CONFIDENT]
        kept = settle_conflicts([*labels, *({"male": ["Male"], "female": [FEMALE]}.get(gender or "", []))])[0]
        if len(kept) > 5:
            sets.append(([n for n in kept if n != FEMALE], gender))
    return sets


def sample_naively(grammar: nltk.PCFG, symbol: object, draw: random.Random) -> list[str]:
    """Words of one derivation, by walking nltk's productions."""
    if isinstance(symbol, str):
        return [symbol]
    productions = grammar.productions(lhs=symbol)
    chosen = draw.choices(productions, [p.prob() for p in productions])[0]
    return [word for part in chosen.rhs() for word in sample_naively(grammar, part, draw)]


WORDS = {name: name.lower().replace("wearing_", "").replace("_", " ") for name in ATTRIBUTES}


def grammar_for(labels: list[str], gender: Gender | None) -> nltk.PCFG:
    """The per-image way: a small grammar that can say these labels only, three to a sentence, two wordings each."""
    he = {"male": "he", "female": "she"}.get(gender or "", "the person")
    groups = [labels[i : i + 3] for i in range(0, len(labels), 3)]
    lines = ["S -> " + " ".join(f"S{i}" for i in range(len(groups))) + " [1.0]"]
    for i, group in enumerate(groups):
        lines.append(f"S{i} -> '{he} has' " + " 'and' ".join(f"A{i}{j}" for j in range(len(group))) + " '.' [1.0]")
        lines += [f'A{i}{j} -> "{WORDS[n]}" [0.6] | "visible {WORDS[n]}" [0.4]' for j, n in enumerate(group)]
    return nltk.PCFG.fromstring("\n".join(lines))


def timed(work: Callable[[], object], count: int) -> float:
    """Items a second of processor time, so that other work on the machine counts little."""
    start = time.process_time()
    work()
    return count / (time.process_time() - start)


def written(grammar: CaptionGrammar, sets: Sequence[LabelSet], key: str) -> list[str]:
    """Captions of the label sets."""
    return [
        grammar.caption(labels, gender, caption_seed(f"{key}_{i}", grammar.version, 0))
        for i, (labels, gender) in enumerate(sets)
    ]


def one_round(number: int, count: int, real: Rows, warm: CaptionGrammar, fixed: nltk.PCFG) -> dict[str, float]:
    """Items a processor-second of each way over this round's label sets."""
    sets, cold = label_sets(count, number, real), CaptionGrammar.load()
    few = max(1, count // 20)
    draw = random.Random(number)
    captions: list[str] = []

    def ours(grammar: CaptionGrammar) -> None:
        captions[:] = written(grammar, sets, str(number))

    def per_image() -> None:
        for labels, gender in sets[:few]:
            grammar = grammar_for(labels, gender)
            " ".join(sample_naively(grammar, grammar.start(), draw))

    rates = {
        "ours, caches empty": timed(lambda: ours(cold), count),
        "ours": timed(lambda: ours(warm), count),
        "naive, fixed grammar": timed(
            lambda: [" ".join(sample_naively(fixed, fixed.start(), draw)) for _ in range(few)], few
        ),
        "naive, grammar per image": timed(per_image, few),
    }
    judged = [False] * count

    def judge() -> None:
        judged[:] = [check_faithful(c, labels, g).faithful for c, (labels, g) in zip(captions, sets, strict=True)]

    rates["check_faithful (texts)"] = timed(judge, count)
    if not all(judged):
        raise SystemExit(f"{judged.count(False)} captions are not faithful")
    return rates


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--captions", type=int, default=20_000, help="a round, default 20000")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--celeba", type=Path, help="folder with list_attr_celeba.txt: label sets of its faces")
    parser.add_argument(
        "--seen", type=int, default=20_000, help="other label sets before the first round, default 20000"
    )
    parser.add_argument("--out", type=Path, help="write the figures as JSON here")
    options = parser.parse_args()
    real = celeba_rows(options.celeba)
    warm, fixed = CaptionGrammar.load(), nltk.PCFG.fromstring(BUNDLED.read_text(encoding="utf-8"))
    written(warm, label_sets(options.seen, 0, real), "before")
    rounds = [one_round(r, options.captions, real, warm, fixed) for r in range(1, options.rounds + 1)]
    medians = {name: statistics.median(r[name] for r in rounds) for name in rounds[0]}
    checked = medians["check_faithful (texts)"]
    print(f"{options.rounds} rounds of {options.captions:,} label sets, processor time, medians\n")
    rows = [
        (name, f"{rate:,.0f}", f"{medians['ours'] / rate:.1f}×", "no" if name == "naive, fixed grammar" else "yes")
        for name, rate in list(medians.items())[:4]
    ]
    print(markdown_table(("way", "captions a second", "ours is faster by", "says the labels"), rows, "lrrl"))
    print(f"\ncheck_faithful: {checked:,.0f} texts a second; every caption of ours passed.")
    write_json(options.out, {"machine": machine(), "medians": medians, "rounds": rounds})


if __name__ == "__main__":
    main()
